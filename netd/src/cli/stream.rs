//! `micro stream`: a call with many messages, each printed as a line of JSON.

use clap::Args;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::Global;
use super::call::grpc::Call;
use super::call::place::Place;
use super::call::schema::{Method, Schema};
use super::call::words::Words;
use super::call::{Target, print_message};
use crate::error::{Exit, Problem};
use crate::output::{Format, Output};

/// The longest line that is taken from standard input.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// `micro stream SERVICE …`
#[derive(Debug, Args)]
#[command(
    override_usage = "micro stream <SERVICE> <METHOD> [JSON | @FILE] [--FIELD VALUE]... [-H KEY:VALUE]...",
    after_help = "\
A method that takes a stream, called without data, reads messages from standard input: one JSON
object a line.

Examples:
  micro stream clock watch
  echo '{\"text\":\"hi\"}' | micro stream echo stream"
)]
pub struct StreamArgs {
    /// Its name, with a region if wanted: clock, clock@ap.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Method, data, fields and headers.
    #[arg(value_name = "WORDS", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Prints every message until the service ends the stream.
///
/// # Errors
/// With exit 10 the service's own error; else why the call was not delivered or was lost.
pub async fn run(args: StreamArgs, global: &Global) -> Result<Exit, Problem> {
    let words = Words::read(args.words, global)?;
    if words.help {
        return super::usage::help(&["stream"]);
    }
    if words.is_http() {
        let what = "micro stream is for gRPC";
        return Err(Problem::new("M4001", Exit::Usage, what)
            .attempt(format!("micro call {} {} …", args.service, words.method), ""));
    }
    let place = args.service.parse::<Place>()?;
    let client = words.global.client()?;
    let target = Target::find(&client, place, &words).await?;
    let method = target.schema.choose(&words.method, &target.place)?;
    let from_input = method.client_streams && words.rest.is_empty() && words.fields.is_empty();
    let output = words.output();
    target.announce(&method.name, output);
    let mut call = target.connection.call(target.request(&method.path, &words)).await?;
    if !from_input {
        let message = words.message(&target.schema, &method)?;
        // go-micro serves every stream both ways: half-closing would be taken for the end.
        let last = target.schema.is_reflected();
        call.sending.send(target.schema.encode(&method, &message)?, last).await?;
    }
    exchange(&mut call, &target.schema, &method, from_input, output).await?;
    match call.receiving.finish(&target.place).await {
        Ok(()) => Ok(Exit::Done),
        Err(failed) => failed.end(output),
    }
}

/// Sends lines while there are any, and prints what comes until there is no more.
async fn exchange(
    call: &mut Call,
    schema: &Schema,
    method: &Method,
    from_input: bool,
    output: Output,
) -> Result<(), Problem> {
    let Call { sending, receiving } = call;
    let send = async {
        let mut input = Lines::new();
        if !from_input {
            return Ok(());
        }
        while let Some(message) = input.next().await? {
            sending.send(schema.encode(method, &message)?, false).await?;
        }
        sending.half_close();
        Ok::<_, Problem>(())
    };
    let receive = async {
        let line = Output { format: Format::Table, ..output };
        while let Some(message) = receiving.message().await? {
            print_message(&schema.decode(method, &message)?, line)?;
        }
        Ok(())
    };
    tokio::pin!(send, receive);
    // The service decides when it is over; input that cannot be sent ends it too.
    tokio::select! {
        received = &mut receive => return received,
        sent = &mut send => sent?,
    }
    receive.await
}

/// JSON objects from standard input, one a line.
struct Lines {
    input: BufReader<tokio::io::Stdin>,
    line: Vec<u8>,
}

impl Lines {
    fn new() -> Self {
        Self { input: BufReader::new(tokio::io::stdin()), line: Vec::new() }
    }

    /// The next one; empty lines are passed over.
    async fn next(&mut self) -> Result<Option<Value>, Problem> {
        let unreadable = |why: String| {
            Problem::new("M7002", Exit::Usage, "standard input is not one JSON object a line")
                .why(why)
        };
        loop {
            let room = (MAX_LINE + 1).saturating_sub(self.line.len() as u64);
            let mut limited = (&mut self.input).take(room);
            let read = limited.read_until(b'\n', &mut self.line).await;
            let read = read.map_err(|error| unreadable(error.to_string()))?;
            if self.line.len() as u64 > MAX_LINE {
                return Err(unreadable(format!("a line has more than {MAX_LINE} bytes")));
            }
            let line = std::mem::take(&mut self.line);
            if line.iter().all(u8::is_ascii_whitespace) {
                if read == 0 {
                    return Ok(None);
                }
                continue;
            }
            let message = serde_json::from_slice(&line);
            return message.map(Some).map_err(|error| unreadable(error.to_string()));
        }
    }
}

//! `micro call`: one exchange with a service, through the proxy of the local node.
//!
//! ```text
//! micro call greeter Greeter.Hello '{"name":"Ada"}'     gRPC: method and JSON
//! micro call greeter hello --name Ada                   gRPC: short name, fields as options
//! micro call shop POST /orders @order.json              HTTP: method, path, body
//! ```

pub mod failure;
pub mod fields;
pub mod grpc;
pub mod http;
pub mod place;
pub mod reflection;
pub mod schema;
pub mod words;

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use serde_json::Value;

use self::grpc::{Codec, Connection};
use self::place::Place;
use self::schema::Schema;
use self::words::Words;
use super::Global;
use crate::api;
use crate::client::{self, Client};
use crate::config::duration;
use crate::error::{Exit, Problem};
use crate::output::{self, Output, text};

/// `micro call SERVICE …`
#[derive(Debug, Args)]
#[command(
    override_usage = "micro call <SERVICE> <METHOD> [JSON | @FILE] [--FIELD VALUE]... [-H KEY:VALUE]...\n       \
                      micro call <SERVICE> GET|POST|... <PATH> [BODY | @FILE] [-H KEY:VALUE]...",
    after_help = "\
Examples:
  micro call greeter Greeter.Hello '{\"name\":\"Ada\"}'
  micro call greeter hello --name Ada           short method name, fields as options
  micro call clock@ap now                       in one region
  micro call shop POST /orders @order.json -H 'x-user: ada'"
)]
pub struct CallArgs {
    /// Its name, with a region if wanted: greeter, greeter@eu.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Method, data, fields and headers.
    #[arg(value_name = "WORDS", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Calls a service once and prints what it answers.
///
/// # Errors
/// With exit 10 the service's own error; else why the call was not delivered.
pub async fn run(args: CallArgs, global: &Global) -> Result<Exit, Problem> {
    let mut words = Words::read(args.words, global)?;
    if words.help {
        return super::usage::help(&["call"]);
    }
    words.deadline.get_or_insert(words.global.timeout());
    let place = args.service.parse::<Place>()?;
    let client = words.global.client()?;
    if words.is_http() {
        return http::call(&client, &place, words).await;
    }
    let target = Target::find(&client, place, &words).await?;
    let method = target.schema.choose(&words.method, &target.place)?;
    let message = words.message(&target.schema, &method)?;
    let payload = target.schema.encode(&method, &message)?;

    let output = words.output();
    target.announce(&method.name, output);
    let started = Instant::now();
    let request = target.request(&method.path, &words);
    let mut call = target.connection.call(request).await?;
    call.sending.send(payload, true).await?;
    let mut answer = None;
    while let Some(message) = call.receiving.message().await? {
        if answer.is_some() {
            // The rest of a stream is of no use to who asked for one answer.
            call.sending.cancel();
            return Err(Problem::new("M7003", Exit::Failed, "the method answers with a stream")
                .attempt(format!("micro stream {} {}", target.place, method.name), ""));
        }
        answer = Some(message);
    }
    if let Err(failed) = call.receiving.finish(&target.place).await {
        return failed.end(output);
    }
    let took = text::milliseconds(started.elapsed());
    output.detail(&format!("{} OK {took}", arrows().1));
    let Some(message) = answer else {
        return Err(Problem::new(
            "M7003",
            Exit::Failed,
            "the service answered OK without a message",
        ));
    };
    print_message(&target.schema.decode(&method, &message)?, output)?;
    Ok(Exit::Done)
}

/// A service that was found, with what is known about it and a connection to the proxy.
pub struct Target {
    /// Its name, and what its instance must be like.
    pub place: Place,
    /// Its methods.
    pub schema: Schema,
    /// To the proxy of the local node.
    pub connection: Connection,
    instances: Vec<api::RouteItem>,
    proxy: String,
}

impl Target {
    /// Asks the node for the service and the service for its schema.
    ///
    /// # Errors
    /// M1203 when nobody offers it; M6010 when the proxy cannot be reached.
    pub async fn find(client: &Client, place: Place, words: &Words) -> Result<Self, Problem> {
        let status: api::Status = client.get("/v1/status").await?;
        let service = describe(client, &place).await?;
        let connection = Connection::open(&status.proxy.address, words.timeout()).await?;
        // Whole JSON for a whole method name needs no schema to be sent as JSON, but a service that
        // reads no JSON needs it to be protobuf: its reflection decides.
        let schema = match reflection::read(&connection, &place).await? {
            Some(files) => Schema::reflected(&service.name, files)?,
            None => Schema::registered(&service),
        };
        let instances = service.instances;
        Ok(Self { place, schema, connection, instances, proxy: status.proxy.address })
    }

    /// A call of `path` with the headers that were given.
    #[must_use]
    pub fn request<'a>(&'a self, path: &'a str, words: &'a Words) -> grpc::Request<'a> {
        let codec = if self.schema.is_reflected() { Codec::Proto } else { Codec::Json };
        let deadline = words.deadline;
        grpc::Request { place: &self.place, path, codec, headers: &words.headers, deadline }
    }

    /// Says on standard error whom is called, for `-v`. The instance is only named where there is
    /// no other that could have been chosen.
    pub fn announce(&self, method: &str, output: Output) {
        let through = match self.instances.as_slice() {
            [only] => format!("{} {}   path {}", only.node, only.address, only.path),
            _ => format!("through {}", self.proxy),
        };
        let line = format!("{} {} {method}   {through}", arrows().0, self.place);
        output.detail(&text::plain(&line));
    }
}

/// What the registry knows about a service; nothing for the node's own services, which are in no
/// registry.
///
/// # Errors
/// M1203 when nobody offers it.
pub async fn describe(client: &Client, place: &Place) -> Result<api::Service, Problem> {
    let path = format!("/v1/services/{}", client::escaped(place.service.as_str()));
    match client.get(&path).await {
        Err(problem) if problem.code == "M1203" && proxy::own::Own::has(place.service.as_str()) => {
            Ok(api::Service { name: place.service.to_string(), ..api::Service::default() })
        }
        other => other,
    }
}

/// The marks of what goes out and what comes in.
#[must_use]
pub fn arrows() -> (&'static str, &'static str) {
    if text::is_utf8() { ("→", "←") } else { ("->", "<-") }
}

/// Prints one message: compact JSON on a line of its own.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_message(message: &Value, output: Output) -> Result<(), Problem> {
    if output.format == output::Format::Json {
        return output::print(&format!("{message:#}\n"));
    }
    output::print(&format!("{message}\n"))
}

/// Reads what a word stands for: itself, `@FILE`, or `@-` for standard input.
///
/// # Errors
/// M4001 when the file cannot be read or is too large.
pub fn data(word: &str) -> Result<Bytes, Problem> {
    use std::io::Read as _;
    /// The most that is sent from a file at once.
    const MAX_DATA: u64 = 64 * 1024 * 1024;
    let Some(path) = word.strip_prefix('@') else {
        return Ok(Bytes::copy_from_slice(word.as_bytes()));
    };
    let unreadable =
        |why: String| Problem::new("M4001", Exit::Usage, format!("{path} cannot be read")).why(why);
    let mut bytes = Vec::new();
    let read = if path == "-" {
        std::io::stdin().take(MAX_DATA + 1).read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
        file.take(MAX_DATA + 1).read_to_end(&mut bytes)
    };
    read.map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > MAX_DATA {
        return Err(unreadable(format!("it has more than {MAX_DATA} bytes")));
    }
    Ok(bytes.into())
}

/// A problem for a service that did not answer in time.
#[must_use]
pub fn too_late(place: &Place, waited: Duration) -> Problem {
    let waited = duration::show(waited);
    Problem::new("M1005", Exit::Unreachable, format!("{place} did not answer within {waited}"))
        .attempt(format!("micro describe {}", place.service), "where it runs")
        .attempt(format!("micro call {} … --timeout 60s", place.service), "allow more")
}

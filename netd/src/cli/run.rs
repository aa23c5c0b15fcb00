//! `micro run`: a command that is a service: started, offered while it listens, started again when it
//! fails, withdrawn when it ends.

use std::cell::Cell;
use std::ffi::OsString;
use std::process::ExitStatus;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::Global;
use super::exec::code;
use super::expose::{self, Offer};
use crate::api;
use crate::client::Client;
use crate::config::duration;
use crate::error::{Exit, Problem};
use crate::output::text;

mod signals;

use signals::Signals;

/// How long what is offered outlives this program if that is killed.
const LEASE: Duration = Duration::from_secs(15);
/// Between two renewals: two may fail.
const RENEW: Duration = Duration::from_secs(5);
/// Between two looks whether the command listens yet: there is no event that says so.
const KNOCK: Duration = Duration::from_millis(50);
/// Until it is said that the command does not listen.
const SLOW: Duration = Duration::from_secs(10);
/// How long the node may take to withdraw what ends.
const WITHDRAW: Duration = Duration::from_secs(2);
/// Before the command is started again, at first and at most; doubled with each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A command that ran for so long was well: the next pause is the first again.
const WELL: Duration = Duration::from_secs(30);

/// When a command that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Restart {
    /// Whatever its exit code.
    Always,
    /// When it says that it failed, or a signal ended it.
    OnFailure,
    /// Never.
    Never,
}

/// `micro run --name NAME -- CMD…`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro run --name shop -- ./shop                      it listens on the port that $PORT names
  micro run --name shop --port 3000 --check http:/health -- node shop.js
  micro run --name db --port unix:/run/db.sock --protocol tcp -- ./db

It is offered once it listens, withdrawn as soon as it is to end, and started again when it fails, after 500ms, then 1s,
up to 30s. SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on; the exit code is that of the command.")]
pub struct RunArgs {
    /// Its name on the network.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where it listens: a port of this machine, host:port or unix:/path [default: a free port].
    #[arg(long, value_name = "PORT|HOST:PORT|unix:PATH")]
    port: Option<String>,
    /// When it is started again.
    #[arg(long, value_enum, default_value = "on-failure", value_name = "WHEN")]
    restart: Restart,
    #[command(flatten)]
    offer: Offer,
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command until it has ended for good, and ends as it did.
///
/// # Errors
/// M6010 when no node runs here, M6006 when the command cannot be started, and what the node says
/// about the name.
pub async fn run(args: RunArgs, global: &Global) -> Result<Exit, Problem> {
    expose::check_name(&args.name)?;
    let address = match &args.port {
        Some(port) => expose::address(port)?,
        None => free_port()?,
    };
    let client = global.client()?;
    // Without a node there is no service: said before anything is started.
    client.get::<serde_json::Value>("/v1/status").await?;
    let request = api::ExposeRequest {
        ttl_s: Some(LEASE.as_secs()),
        ..args.offer.request(args.name.clone(), address.clone())?
    };
    let mut signals = Signals::listen()?;
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let mut child = start(&args.command, &address)?;
        let (client, request, said) = (&client, request.clone(), Cell::new(false));
        let offered = Offered { client, global, request, said };
        let (ended, asked) = attend(&mut child, &offered, &mut signals).await?;
        let again = match (asked, args.restart) {
            (true, _) | (false, Restart::Never) => false,
            (false, Restart::OnFailure) => !ended.success(),
            (false, Restart::Always) => true,
        };
        if !again {
            std::process::exit(code(ended));
        }
        if began.elapsed() >= WELL {
            pause = FIRST_PAUSE;
        }
        let how = match ended.code() {
            Some(code) => format!("exit code {code}"),
            None => format!("ended by {ended}"),
        };
        let name = text::plain(&args.name);
        let say = format!("{name}: {how}; started again in {}", duration::show(pause));
        global.output().say(&say);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals.end() => std::process::exit(code(ended)),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A port that nobody listens on now. Another program may take it before the command does, which then
/// says so.
fn free_port() -> Result<String, Problem> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0));
    let at = listener.and_then(|listener| listener.local_addr());
    let at = at.map_err(|error| Problem::machine("there is no free port", &error))?;
    Ok(at.to_string())
}

fn start(words: &[OsString], address: &str) -> Result<Child, Problem> {
    let (program, words) = words.split_first().expect("the arguments are required");
    let mut command = Command::new(program);
    command.args(words).kill_on_drop(true);
    if let Some((_, port)) = address.rsplit_once(':').filter(|_| !address.starts_with("unix:")) {
        command.env("PORT", port);
    }
    command.spawn().map_err(|error| {
        let what = format!("{} cannot be started", program.display());
        Problem::new("M6006", Exit::Failed, what).why(error.to_string()).attempt(
            "micro run --name NAME -- sh -c 'a && b'",
            "runs what only a shell understands",
        )
    })
}

/// Offers the command while it runs, and gives how it ended and whether somebody asked it to.
async fn attend(
    child: &mut Child,
    offered: &Offered<'_>,
    signals: &mut Signals,
) -> Result<(ExitStatus, bool), Problem> {
    let mut asked = false;
    let ended = {
        let offering = offered.keep();
        tokio::pin!(offering);
        loop {
            tokio::select! {
                ended = child.wait() => break ended,
                refused = &mut offering, if !asked => return Err(refused),
                signal = signals.next() => {
                    if signal.ends() && !asked {
                        asked = true;
                        // First: nobody is sent to what is about to end.
                        offered.withdraw().await;
                    }
                    signal.pass_on(child);
                }
            }
        }
    };
    offered.withdraw().await;
    let ended = ended.map_err(|error| Problem::machine("the command is lost", &error))?;
    Ok((ended, asked))
}

/// What is offered while the command runs.
struct Offered<'a> {
    client: &'a Client,
    global: &'a Global,
    request: api::ExposeRequest,
    /// Others may know of it.
    said: Cell<bool>,
}

impl Offered<'_> {
    /// Offers it once it listens, and renews that. Ends only where the node refuses it.
    async fn keep(&self) -> Problem {
        let (name, address) = (text::plain(&self.request.name), &self.request.address);
        let output = self.global.output();
        let began = Instant::now();
        let mut told = false;
        while proxy::dial(address).await.is_err() {
            if began.elapsed() >= SLOW && !told {
                told = true;
                output.say(&format!("{name}: nothing listens on {} yet", text::plain(address)));
            }
            tokio::time::sleep(KNOCK).await;
        }
        let mut request = self.request.clone();
        let mut lost = false;
        loop {
            self.said.set(true);
            match self.client.post::<api::Exposed>("/v1/expose", &request).await {
                Ok(exposed) => {
                    if request.protocol.is_none() || lost {
                        output.say(&expose::exposed(&exposed));
                    }
                    lost = false;
                    // Found out once: the command is not asked again each time.
                    request.protocol = Some(exposed.protocol);
                }
                // It may come back, and the command goes on meanwhile.
                Err(problem) if problem.exit == Exit::NoNode => {
                    if !std::mem::replace(&mut lost, true) {
                        output.say(&problem.to_string());
                    }
                }
                // Between two looks it has stopped to listen: its end is noticed elsewhere.
                Err(problem) if problem.code == "M1004" => {}
                Err(problem) => return problem,
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Withdraws it. Where that fails it ends with its lease.
    async fn withdraw(&self) {
        if !self.said.take() {
            return;
        }
        let (name, address) = (self.request.name.clone(), Some(self.request.address.clone()));
        let request = api::UnexposeRequest { name, address };
        let withdrawn = self.client.post::<serde_json::Value>("/v1/unexpose", &request);
        let _ = tokio::time::timeout(WITHDRAW, withdrawn).await;
    }
}

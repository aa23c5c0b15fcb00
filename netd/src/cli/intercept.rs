//! `micro network intercept`: the kernel leads connections to names to the running node.

use clap::{Args, Subcommand};

use super::Global;
use crate::api;
use crate::client;
use crate::config::Users;
use crate::config::values::{self, Raw};
use crate::error::{Exit, Problem};
use crate::intercept::rules;
use crate::output::{self, Column, Listing};
use crate::system::nft;

const COLUMNS: &[Column] = &[
    Column::new("WHERE"),
    Column::new("USERS"),
    Column::new("IPV6"),
    Column::new("NAMES ASKED AT"),
];

/// `micro network intercept COMMAND`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  micro network intercept on --dry-run        what would be changed
  micro network intercept on                  curl http://web.micro.internal, on any port
  micro network intercept on --user ada       only for what ada runs
  micro network intercept on --pid 4711       for the container with this process
  micro network intercept off                 everything as it was")]
pub enum InterceptCommand {
    /// Lead connections to names here.
    On(OnArgs),
    /// Lead no more of them, and take the rules away.
    Off,
    /// What is led here.
    Status,
}

/// `micro network intercept on`
#[derive(Debug, Args)]
pub struct OnArgs {
    /// Only of programs of this user, by name or number; may be given several times.
    #[arg(long = "user", value_name = "USER")]
    users: Vec<String>,
    /// In the network namespace with this file, as /run/netns/NAME.
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    netns: Option<String>,
    /// In the network namespace of this process.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Only show what would be changed.
    #[arg(long)]
    dry_run: bool,
}

/// Does what was typed behind `micro network intercept`.
///
/// # Errors
/// M6012 where the node may not, M6008 when the kernel takes no rules, M6010 when no node runs.
pub async fn run(command: InterceptCommand, global: &Global) -> Result<Exit, Problem> {
    match command {
        InterceptCommand::On(args) => on(args, global).await,
        InterceptCommand::Off => off(global).await,
        InterceptCommand::Status => status(global).await,
    }
}

async fn on(args: OnArgs, global: &Global) -> Result<Exit, Problem> {
    let (client, output) = (global.machine_client()?, global.output());
    let namespace = args.netns.or_else(|| args.pid.map(|pid| format!("/proc/{pid}/ns/net")));
    let mut request =
        api::InterceptRequest { on: true, users: users(args.users)?, namespace, dry_run: true };
    if !output.is_json() {
        // Shown first, and then done.
        let planned: Items = client.post(PATH, &request).await?;
        let lines = planned.body.items.iter().flat_map(|item| &item.changes);
        output::print(&lines.map(|line| format!("{line}\n")).collect::<String>())?;
    }
    if args.dry_run && !output.is_json() {
        return Ok(Exit::Done);
    }
    request.dry_run = args.dry_run;
    let done: serde_json::Value = client.post(PATH, &request).await?;
    if output.is_json() {
        output.verbatim(&done)?;
    } else {
        let done: Items = client::read(done)?;
        for item in done.body.items {
            let at = item.dns.map(|at| format!(", which asks {at} for names")).unwrap_or_default();
            let place = place(item.namespace.as_deref());
            output.say(&format!(
                "connections to names are led to this node, of {place}{at}; \
                 undo: micro network intercept off"
            ));
        }
    }
    Ok(Exit::Done)
}

async fn off(global: &Global) -> Result<Exit, Problem> {
    let output = global.output();
    let client = match global.machine_client() {
        Ok(client) => client,
        // After a crash there is nobody to ask, and the rules are still there.
        Err(problem) if problem.code == "M6010" => return after_a_crash(problem, output),
        Err(problem) => return Err(problem),
    };
    let request = api::InterceptRequest::default();
    let ended: serde_json::Value = client.post(PATH, &request).await?;
    if output.is_json() {
        output.verbatim(&ended)?;
        return Ok(Exit::Done);
    }
    let ended: Items = client::read(ended)?;
    if ended.body.items.is_empty() {
        return left_behind(output);
    }
    for item in ended.body.items {
        output.say(&format!("no longer led here: {}", place(item.namespace.as_deref())));
    }
    Ok(Exit::Done)
}

/// Takes away what a node that is gone has left.
fn after_a_crash(problem: Problem, output: output::Output) -> Result<Exit, Problem> {
    match nft::has(rules::TABLE) {
        // Not told to those who may not look.
        None => Err(problem.attempt(
            "sudo micro network intercept off",
            "takes away what a node that is gone has left",
        )),
        Some(_) => left_behind(output),
    }
}

fn left_behind(output: output::Output) -> Result<Exit, Problem> {
    if nft::has(rules::TABLE) == Some(true) {
        rules::remove()?;
        output.say("taken away: rules that a node which is gone had left");
    } else {
        output.say("nothing to undo: no connections are led here");
    }
    Ok(Exit::Done)
}

async fn status(global: &Global) -> Result<Exit, Problem> {
    let output = global.output();
    let mut document: serde_json::Value = global.machine_client()?.get(PATH).await?;
    let items: Vec<serde_json::Value> = client::read(document["items"].take())?;
    let all: Vec<api::InterceptItem> = client::read(serde_json::Value::Array(items.clone()))?;
    let row = |one: api::InterceptItem| {
        let users: Vec<_> = one.users.iter().map(u32::to_string).collect();
        let users = if users.is_empty() { "all".to_owned() } else { users.join(",") };
        let ipv6 = if one.ipv6 { "yes" } else { "no" };
        let place = one.namespace.unwrap_or_else(|| "this machine".to_owned());
        vec![place, users, ipv6.to_owned(), one.dns.unwrap_or_default()]
    };
    let rows = all.into_iter().map(row).collect();
    let empty = "no connections are led here: micro network intercept on does that".to_owned();
    output.list(Listing { kind: "InterceptList", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}

const PATH: &str = "/v1/intercept";

type Items = api::Document<api::Items<api::InterceptItem>>;

fn place(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| "this machine".to_owned(), output::text::plain)
}

/// The numbers of users.
fn users(names: Vec<String>) -> Result<Vec<u32>, Problem> {
    let none = names.is_empty();
    let wrong = |why: String| Problem::new("M4001", Exit::Usage, why).attempt("id -u USER", "");
    match values::users(&Raw::List(names)).map_err(wrong)? {
        _ if none => Ok(Vec::new()),
        Users::These(uids) => Ok(uids),
        Users::Everybody => Ok(Vec::new()),
    }
}

//! `micro network dns`: every program of this machine asks the running node for names under
//! micro.internal.

use std::net::SocketAddr;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Global;
use crate::api;
use crate::client::Client;
use crate::config::layers;
use crate::error::{Exit, Problem};
use crate::output;
use crate::system::resolver::Machine;
use crate::system::undo::Record;
use crate::system::{self, ask};

/// The name of the undo record.
const RECORD: &str = "dns";

/// `micro network dns COMMAND`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sudo micro network dns enable --dry-run   what would be changed
  sudo micro network dns enable             psql -h db.micro.internal works from now on
  sudo micro network dns disable            everything as it was")]
pub enum DnsCommand {
    /// Have every program of this machine ask the node.
    Enable(EnableArgs),
    /// Take that back.
    Disable,
    /// Who is asked, and whether the node answers.
    Status,
}

/// `micro network dns enable`
#[derive(Debug, Args)]
pub struct EnableArgs {
    /// Only show what would be changed.
    #[arg(long)]
    dry_run: bool,
}

/// Does what was typed behind `micro network dns`.
///
/// # Errors
/// M6007 for a change without root, M6002, M6008 and M6009 when it cannot be made, M6010 when no node
/// runs.
pub async fn run(command: DnsCommand, global: &Global) -> Result<Exit, Problem> {
    match command {
        DnsCommand::Enable(args) => enable(args, global).await,
        DnsCommand::Disable => disable(global),
        DnsCommand::Status => status(global).await,
    }
}

async fn enable(args: EnableArgs, global: &Global) -> Result<Exit, Problem> {
    if !args.dry_run {
        system::need_root(
            "changing where this machine asks for names",
            "micro network dns enable",
        )?;
    }
    let (machine, output) = (Machine::this(), global.output());
    let at = face(&global.machine_client()?).await?;
    let plan = machine.plan(at, now())?;
    if output.is_json() {
        let fields = json!({
            "resolver": plan.kind.to_string(), "asked": plan.asked.to_string(),
            "node": at.to_string(), "changes": plan.lines(), "made": !args.dry_run,
        });
        // Told when it is true.
        if !args.dry_run {
            machine.enable(&plan, &record(global)?)?;
        }
        output.document("DnsChange", fields)?;
        return Ok(Exit::Done);
    }
    let lines: String = plan.lines().iter().map(|line| format!("{line}\n")).collect();
    output::print(&lines)?;
    machine.remarks().iter().for_each(|remark| output::warn(remark));
    if !args.dry_run {
        machine.enable(&plan, &record(global)?)?;
        output.say(
            "names under micro.internal are asked of this node; undo: micro network dns disable",
        );
    }
    Ok(Exit::Done)
}

fn disable(global: &Global) -> Result<Exit, Problem> {
    system::need_root("changing where this machine asks for names", "micro network dns disable")?;
    let (undone, output) = (Machine::this().disable(&record(global)?)?, global.output());
    if output.is_json() {
        output.document("DnsChange", json!({ "changes": undone, "made": true }))?;
    } else if undone.is_empty() {
        output.say("nothing to undo: this machine asks where it always did");
    } else {
        output::print(&undone.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    }
    Ok(Exit::Done)
}

async fn status(global: &Global) -> Result<Exit, Problem> {
    let (machine, output) = (Machine::this(), global.output());
    let node = match global.machine_client() {
        Ok(client) => face(&client).await.map_err(|problem| problem.what),
        Err(problem) => Err(problem.what),
    };
    let first = machine.first();
    let asked = first.ok_or_else(|| "no name server".to_owned());
    let answer = asked.and_then(|at| ask::answers(at).map_err(|error| error.to_string()));
    let enabled = machine.is_enabled();
    let since = record(global)?.read().map(|change| change.at).filter(|_| enabled);
    if output.is_json() {
        output.document(
            "DnsStatus",
            json!({
                "enabled": enabled, "since": since, "resolver": machine.kind().to_string(),
                "asked": first.map(|at| at.to_string()),
                "node": node.as_ref().ok().map(ToString::to_string),
                "answers": answer.is_ok(), "why": answer.as_ref().err(),
            }),
        )?;
    } else {
        let state = match (enabled, since) {
            (true, Some(since)) => format!("enabled since {since}"),
            (true, None) => "enabled".to_owned(),
            (false, _) => "not enabled".to_owned(),
        };
        let asked = first.map_or_else(|| "nobody".to_owned(), |at| at.to_string());
        let node = node.map_or_else(|why| why, |at| at.to_string());
        let answers =
            answer.as_ref().map_or_else(|why| format!("no: {why}"), |()| "yes".to_owned());
        output::print(&format!(
            "dns      {state} ({})\nnode     {node}\nasked    {asked}\nanswers  {answers}\n",
            machine.kind()
        ))?;
        machine.remarks().iter().filter(|_| enabled).for_each(|remark| output::warn(remark));
    }
    Ok(if enabled && answer.is_err() { Exit::Partly } else { Exit::Done })
}

/// Where the node answers questions for names.
async fn face(client: &Client) -> Result<SocketAddr, Problem> {
    let status: api::Status = client.get("/v1/status").await?;
    let told = &status.dns.address;
    told.parse().map_err(|_| {
        Problem::new("M6010", Exit::NoNode, "the node does not answer questions for names")
            .why(format!("it says that it does at {told:?}"))
            .attempt("micro network --dns-address 127.0.0.1:8053", "a node of this release does")
    })
}

fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

fn record(global: &Global) -> Result<Record, Problem> {
    let none = layers::Layer::default();
    let settings = layers::load(none, global.config.as_deref(), None)?.settings;
    Ok(Record::new(&settings.paths.state, RECORD))
}

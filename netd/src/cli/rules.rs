//! `micro rules`: what operators decide about the calls of services.

pub mod history;
pub mod test;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use proto::ServiceName;

use super::Global;
use crate::api;
use crate::client::{self, Client};
use crate::error::{Exit, Problem};
use crate::output::{self, Column, Format, Listing, Output, text};
use crate::rules::file;
use crate::rules::form::Set;
use crate::rules::words::Word;

const COLUMNS: &[Column] = &[
    Column::new("SERVICE"),
    Column::new("REVISION"),
    Column::new("RULES"),
    Column::new("WRITTEN BY"),
    Column::wide("AUTHOR"),
];

/// `micro rules …`
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Write the rules of a service, in place of those there are.
    Apply(ApplyArgs),
    /// The rules of a service as a file, or which services have some.
    Get(GetArgs),
    /// Take all rules of a service away.
    Rm(RmArgs),
    /// What would become of a call; nothing is sent.
    Test(test::TestArgs),
    /// Who changed the rules of a service, when, and what.
    History(history::HistoryArgs),
}

/// `micro rules apply FILE`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro rules apply orders.toml --dry-run      what is odd about it; nothing is written
  micro rules get orders > orders.toml         edit, and apply: refused if others were quicker
  micro rules apply orders.toml --replace      whatever others have written meanwhile")]
pub struct ApplyArgs {
    /// The file; - reads standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only say what would be.
    #[arg(long)]
    dry_run: bool,
    /// In place of whatever rules there are, also of others.
    #[arg(long)]
    replace: bool,
}

/// `micro rules get [SERVICE]`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro rules get                       services that have rules
  micro rules get orders > orders.toml  as a file, to be edited and applied
  micro rules get orders -o json")]
pub struct GetArgs {
    /// The service.
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

/// `micro rules rm SERVICE`
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The service.
    #[arg(value_name = "SERVICE")]
    service: String,
}

/// Does what was typed behind `micro rules`.
///
/// # Errors
/// What the command fails with.
pub async fn run(command: RulesCommand, global: &Global) -> Result<Exit, Problem> {
    match command {
        RulesCommand::Apply(args) => apply(args, global).await,
        RulesCommand::Get(args) => get(args, global).await,
        RulesCommand::Rm(args) => rm(&args, global).await,
        RulesCommand::Test(args) => test::run(args, global).await,
        RulesCommand::History(args) => history::run(&args, global).await,
    }
}

/// # Errors
/// M4002 to M4004 where the file is wrong, M3009 without the grant, M1308 when others were quicker.
async fn apply(args: ApplyArgs, global: &Global) -> Result<Exit, Problem> {
    let name = args.file.display().to_string();
    let mut set = file::parse(&read(&args.file)?, &name)?;
    if args.replace {
        set.revision = None;
    }
    let request = api::ApplyRequest { set, replace: args.replace, dry_run: args.dry_run };
    told(&write(&global.client()?, &request).await?, global.output())?;
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<String, Problem> {
    let unreadable = |why: String| {
        let what = format!("the rules in {} cannot be read", path.display());
        Problem::new("M4004", Exit::Config, what)
            .why(why)
            .attempt("micro rules get SERVICE > FILE", "writes such a file")
    };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(file::MAX_FILE + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(file::MAX_FILE + 1).read_to_string(&mut text))
    };
    read.map_err(|why| unreadable(why.to_string()))?;
    if text.len() as u64 > file::MAX_FILE {
        return Err(unreadable(format!("there are more than {} bytes", file::MAX_FILE)));
    }
    Ok(text)
}

/// Has rules written; the answer as a document.
///
/// # Errors
/// What the node refuses them with.
pub(super) async fn write(
    client: &Client,
    request: &api::ApplyRequest,
) -> Result<serde_json::Value, Problem> {
    client.post("/v1/rules", request).await
}

/// Prints what came of writing rules.
fn told(document: &serde_json::Value, output: Output) -> Result<(), Problem> {
    let applied: api::Applied = client::read(document.clone())?;
    if output.is_json() {
        return output.verbatim(document);
    }
    warn(&applied, output);
    let service = text::plain(&applied.service);
    let (revision, rules) = (applied.revision, text::count(applied.rules, "rule"));
    let line = match (applied.dry_run, applied.changed) {
        (false, true) => format!("{service}: {rules}, revision {revision}"),
        (_, false) => format!("{service}: {rules}, revision {revision}, unchanged"),
        (true, true) => format!("{service}: {rules}, would be revision {revision}"),
    };
    output::print(&format!("{line}\n"))
}

/// Says what is odd about rules, and how long they hold where that is not for as long as anybody runs.
pub(super) fn warn(applied: &api::Applied, output: Output) {
    if output.quiet {
        return;
    }
    for one in &applied.warnings {
        let rule = if one.rule.is_empty() { String::new() } else { format!("rule {}: ", one.rule) };
        output::warn(&text::plain(&format!("{rule}{}", one.what)));
    }
    if !applied.note.is_empty() {
        output::talk(&format!("note: {}", text::plain(&applied.note)));
    }
}

/// The rules of one service.
///
/// # Errors
/// M1206 when it has none.
pub(super) async fn of(client: &Client, service: &ServiceName) -> Result<api::Rules, Problem> {
    client.get(&path(service)).await
}

fn path(service: &ServiceName) -> String {
    format!("/v1/rules/{}", client::escaped(service.as_str()))
}

/// The name of a service as it was typed.
pub(super) fn service(text: &str) -> Result<ServiceName, Problem> {
    text.parse().map_err(|why: proto::name::BadName| {
        Problem::new("M4001", Exit::Usage, format!("{text:?} is no service name"))
            .why(why.to_string())
            .attempt("micro services", "lists the names there are")
    })
}

/// # Errors
/// M1206 when the service has no rules.
async fn get(args: GetArgs, global: &Global) -> Result<Exit, Problem> {
    let (client, output) = (global.client()?, global.output());
    let Some(name) = &args.service else { return list(&client, output).await };
    let name = service(name)?;
    let document: serde_json::Value = client.get(&path(&name)).await?;
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let rules: api::Rules = client::read(document)?;
    if output.format == Format::Name {
        let names = rules.rules.iter().map(|rule| format!("{}\n", text::plain(&rule.name)));
        output::print(&names.collect::<String>())?;
        return Ok(Exit::Done);
    }
    let author = text::plain(&rules.author_name);
    let carried = match &*rules.carried_by {
        [] => String::new(),
        all => format!(", carried by {}", text::plain(&all.join(", "))),
    };
    let mut head = format!("# revision {}, written by {author}{carried}\n", rules.revision);
    if !rules.note.is_empty() {
        head += &format!("# {}\n", text::plain(&rules.note));
    }
    let set = Set { service: Word(name), revision: Some(rules.revision), rules: rules.rules };
    output::print(&(head + &file::write(&set)?))?;
    Ok(Exit::Done)
}

async fn list(client: &Client, output: Output) -> Result<Exit, Problem> {
    let mut document: serde_json::Value = client.get("/v1/rules").await?;
    let items = client::read(document["items"].take())?;
    let all: Vec<api::RulesItem> = client::read(serde_json::Value::Array(Vec::clone(&items)))?;
    let row = |one: api::RulesItem| {
        let rules = one.rules.join(", ");
        vec![one.service, one.revision.to_string(), rules, one.author_name, one.author]
    };
    let rows = all.into_iter().map(row).collect();
    let empty = "no service has rules: micro rules apply FILE writes some".to_owned();
    output.list(Listing { kind: "RulesList", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}

/// # Errors
/// M1206 when there are none, M3009 without the grant, M1308 when others were quicker.
async fn rm(args: &RmArgs, global: &Global) -> Result<Exit, Problem> {
    let client = global.client()?;
    let name = service(&args.service)?;
    let before = of(&client, &name).await?;
    let set = Set { service: Word(name), revision: Some(before.revision), rules: Vec::new() };
    let request = api::ApplyRequest { set, replace: false, dry_run: false };
    told(&write(&client, &request).await?, global.output())?;
    Ok(Exit::Done)
}

//! `micro config`: what a node would be told, and by whom.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Global;
use crate::config::Settings;
use crate::config::layers::{self, KEYS, Layer, Shown};
use crate::error::{Exit, Problem};
use crate::output::{self, Column, Format, Listing, table};

/// `micro config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Whether the configuration is valid.
    Check(CheckArgs),
    /// Every value.
    Show(ShowArgs),
    /// Where files are.
    Path(PathArgs),
}

/// `micro config check [FILE]`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A file to check instead of the one that is used.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// `micro config show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Also where each value came from.
    #[arg(long)]
    origin: bool,
}

/// `micro config path [socket|config|state]`
#[derive(Debug, Args)]
pub struct PathArgs {
    /// Only this one.
    #[arg(value_name = "WHAT", value_parser = ["config", "state", "socket"])]
    what: Option<String>,
}

/// Does what was typed behind `micro config`.
///
/// # Errors
/// M4002 to M4004 with exit 78.
pub fn run(command: ConfigCommand, global: &Global) -> Result<Exit, Problem> {
    match command {
        ConfigCommand::Check(args) => check(args, global),
        ConfigCommand::Show(args) => show(args, global),
        ConfigCommand::Path(args) => path(args, global),
    }
}

fn load(file: Option<PathBuf>, global: &Global) -> Result<layers::Loaded, Problem> {
    let file = file.or_else(|| global.config.clone());
    let loaded = layers::load(Layer::default(), file.as_deref(), global.socket.clone())?;
    if !global.quiet {
        loaded.warnings.iter().for_each(|line| output::warn(line));
    }
    Ok(loaded)
}

fn check(args: CheckArgs, global: &Global) -> Result<Exit, Problem> {
    let loaded = load(args.file, global)?;
    let output = global.output();
    let file = loaded.settings.paths.config.as_ref().map(|path| path.display().to_string());
    if output.is_json() {
        let fields = json!({ "valid": true, "file": file, "warnings": loaded.warnings });
        output.document("ConfigCheck", fields)?;
    } else {
        let what = file.unwrap_or_else(|| {
            let path = &loaded.settings.paths.user_config;
            format!("no file (looked for {}); environment and defaults", path.display())
        });
        output::print(&format!("valid: {what}\n"))?;
    }
    Ok(Exit::Done)
}

fn show(args: ShowArgs, global: &Global) -> Result<Exit, Problem> {
    const COLUMNS: &[Column] = &[Column::new("KEY"), Column::new("VALUE")];
    const WITH_ORIGIN: &[Column] =
        &[Column::new("KEY"), Column::new("VALUE"), Column::new("ORIGIN")];
    let shown = load(None, global)?.shown;
    let about = |line: &Shown| KEYS.iter().find(|key| key.name == line.key).map(|key| key.about);
    let item = |line: &Shown| {
        json!({
            "key": line.key,
            "value": line.value,
            "origin": line.origin.to_string(),
            "about": about(line),
        })
    };
    let row = |line: &Shown| vec![line.key.to_owned(), line.value.clone(), line.origin.to_string()];
    global.output().list(Listing {
        kind: "ConfigList",
        items: shown.iter().map(item).collect(),
        columns: if args.origin { WITH_ORIGIN } else { COLUMNS },
        rows: shown.iter().map(row).collect(),
        empty: String::new(),
    })?;
    Ok(Exit::Done)
}

fn path(args: PathArgs, global: &Global) -> Result<Exit, Problem> {
    let settings = load(None, global)?.settings;
    let network = settings.network.clone().unwrap_or_else(|| settings.default_network());
    let config = settings.paths.config.as_ref().unwrap_or(&settings.paths.user_config).clone();
    // A node that runs under another name than this command would give it has other paths.
    let socket = match global.client() {
        Ok(client) => client.socket().to_owned(),
        Err(_) => settings.socket_path(),
    };
    let name = socket.file_stem().map(|name| name.to_string_lossy().into_owned());
    let settings = Settings { name: name.unwrap_or(settings.name.clone()), ..settings };
    let all = [
        ("config", config.display().to_string()),
        ("state", settings.state_dir(&network).display().to_string()),
        ("socket", socket.display().to_string()),
    ];
    let output = global.output();
    if let Some(what) = args.what {
        let found = all.iter().find(|(name, _)| *name == what);
        let path = &found.expect("clap has checked the word").1;
        output::print(&format!("{path}\n"))?;
    } else if output.is_json() {
        let fields = all.iter().map(|(name, path)| ((*name).to_owned(), json!(path))).collect();
        output.document("ConfigPath", serde_json::Value::Object(fields))?;
    } else if output.format == Format::Name {
        output::print(&all.iter().map(|(_, path)| format!("{path}\n")).collect::<String>())?;
    } else {
        let rows: Vec<_> =
            all.iter().map(|(name, path)| vec![(*name).to_owned(), path.clone()]).collect();
        output::print(&table::aligned(&rows))?;
    }
    Ok(Exit::Done)
}

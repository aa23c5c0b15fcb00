//! Log lines, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::error::{Exit, Problem};

/// Starts logging. A second start in one process changes nothing.
///
/// # Errors
/// M4003 when `level` is no level and no list of directives.
pub fn start(level: &str, format: LogFormat) -> Result<(), Problem> {
    let filter = EnvFilter::try_new(level).map_err(|why| {
        Problem::new("M4003", Exit::Config, format!("log.level {level:?} cannot be read"))
            .why(why.to_string())
            .attempt("micro network --log-level info,router=debug", "")
    })?;
    let json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Refused only where something logs already.
    let _ = if json {
        lines.json().flatten_event(true).try_init()
    } else {
        lines.with_ansi(io::stderr().is_terminal()).try_init()
    };
    Ok(())
}

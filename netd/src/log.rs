//! Log lines: on standard error, and the last of them for `Debug.Log` of our own services.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, LazyLock};

use proxy::own::Logs;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::LogFormat;
use crate::error::{Exit, Problem};

/// What says at every level what bridges say themselves, once; `level` may have it speak.
const QUIET: &str = "async_nats=off";

/// Starts logging. A second start in one process changes nothing.
///
/// # Errors
/// M4003 when `level` is no level and no list of directives.
pub fn start(level: &str, format: LogFormat) -> Result<(), Problem> {
    let filter = EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|why| {
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
        lines.json().flatten_event(true).finish().with(Keep).try_init()
    } else {
        lines.with_ansi(io::stderr().is_terminal()).finish().with(Keep).try_init()
    };
    Ok(())
}

/// What this process has logged; there is one log, however many nodes.
#[must_use]
pub fn kept() -> Arc<Logs> {
    static KEPT: LazyLock<Arc<Logs>> = LazyLock::new(Arc::default);
    Arc::clone(&KEPT)
}

/// Keeps what passes the filter.
struct Keep;

impl<S: tracing::Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let about = event.metadata();
        kept().add(about.level().as_str(), about.target(), text.message + &text.fields);
    }
}

/// An event as one line: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a text does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

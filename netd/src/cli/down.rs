//! `micro network down`: drain and stop the running node, and wait until it is gone.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Global;
use crate::config::{duration, layers};
use crate::error::{Exit, Problem};
use crate::output::text;

/// How long past its grace a node may take to end.
const MARGIN: Duration = Duration::from_secs(10);
/// Between two looks at whether the socket is gone.
const LOOK: Duration = Duration::from_millis(50);

/// `micro network down`
#[derive(Debug, Args)]
pub struct DownArgs {
    /// Do not wait until the node is gone.
    #[arg(long)]
    no_wait: bool,
}

/// Tells the node to stop.
///
/// # Errors
/// M6010 when none runs, M8004 when it does not end.
pub async fn run(args: DownArgs, global: &Global) -> Result<Exit, Problem> {
    let client = global.client()?;
    let answer: Value = client.post("/v1/down", &json!({})).await?;
    let output = global.output();
    let name = answer["node"]["name"].as_str().unwrap_or("the node").to_owned();
    if !args.no_wait {
        let settings = layers::load(layers::Layer::default(), global.config.as_deref(), None)?;
        let grace = match answer["grace_ms"].as_u64() {
            Some(told) => Duration::from_millis(told),
            None => settings.settings.grace,
        };
        let limit = global.timeout.unwrap_or(grace + MARGIN);
        // The socket file goes when the process ends: there is no event to wait for across it.
        let gone = async {
            while std::os::unix::net::UnixStream::connect(client.socket()).is_ok() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(limit, gone).await.map_err(|_| {
            let waited = duration::show(limit);
            Problem::new("M8004", Exit::Unreachable, format!("{name} has not ended after {waited}"))
                .why("calls are still in flight, or its grace is longer")
                .attempt("micro network down --timeout 60s", "wait longer")
        })?;
    }
    if output.is_json() {
        output.verbatim(&with_state(answer, !args.no_wait))?;
    } else {
        let what = if args.no_wait { "is draining" } else { "has stopped" };
        output.say(&format!("{} {what}", text::plain(&name)));
    }
    Ok(Exit::Done)
}

fn with_state(mut answer: Value, stopped: bool) -> Value {
    answer["stopped"] = stopped.into();
    answer
}

//! `micro network wait` and `ready`: until something is true, and whether the node is.

use std::time::Duration;

use clap::Args;

use super::Global;
use crate::api;
use crate::client;
use crate::config::duration;
use crate::error::{Exit, Problem};
use crate::output::text;

/// How long to wait unless told otherwise.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// The longest one request waits; then it is asked again.
const ONE_REQUEST: Duration = Duration::from_secs(25);
/// Between two tries while no node runs.
const RETRY: Duration = Duration::from_millis(50);

/// `micro network wait`
#[derive(Debug, Args)]
#[command(after_help = "\
Conditions:
  ready            the node takes calls
  nodes=N          at least N nodes can be reached, this one included
  links=N          at least N links are up
  services=NAME    an instance of NAME can be reached")]
pub struct WaitArgs {
    /// What must be true.
    #[arg(long = "for", value_name = "CONDITION", default_value = "ready")]
    condition: String,
}

/// Waits until the condition holds, also for a node that is still starting.
///
/// # Errors
/// M8004 with exit 6 when the time is over; M4001 for a condition that does not exist.
pub async fn run(args: WaitArgs, global: &Global) -> Result<Exit, Problem> {
    let condition = checked(&args.condition)?;
    let limit = global.timeout.unwrap_or(DEFAULT_WAIT);
    let deadline = tokio::time::Instant::now() + limit;
    let path = format!("/v1/wait?for={}", client::escaped(condition));
    loop {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let request = left.min(ONE_REQUEST);
        let ask = format!("{path}&timeout_ms={}", request.as_millis());
        let answer: Result<serde_json::Value, Problem> = match global.client() {
            // The node answers on its own when the time is over; the margin is for its answer.
            Ok(node) => node.with_timeout(request + Duration::from_secs(2)).get(&ask).await,
            Err(problem) => Err(problem),
        };
        match answer {
            Ok(document) => {
                let output = global.output();
                if output.is_json() {
                    output.verbatim(&document)?;
                }
                return Ok(Exit::Done);
            }
            // What can still come true is asked again; what is wrong for good is told at once.
            Err(problem) if problem.exit == Exit::NoNode || problem.code == "M8004" => {
                if tokio::time::Instant::now() >= deadline {
                    return Err(over(condition, limit, problem));
                }
                tokio::time::sleep(RETRY).await;
            }
            Err(problem) => return Err(problem),
        }
    }
}

/// Whether the node is ready: exit 0, or 1 with the parts that are not.
///
/// # Errors
/// M6010 when none runs.
pub async fn ready(global: &Global) -> Result<Exit, Problem> {
    let document: serde_json::Value = global.client()?.get("/v1/ready").await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
    }
    let readiness: api::Readiness = client::read(document)?;
    if !output.is_json() {
        for part in readiness.components.iter().filter(|part| !part.ready || output.verbose) {
            let mark = if part.ready { text::marks().good } else { text::marks().bad };
            output.say(&text::plain(&format!("{mark} {}: {}", part.name, part.reason)));
        }
    }
    Ok(if readiness.ready { Exit::Done } else { Exit::Failed })
}

/// The condition, if it is one.
fn checked(condition: &str) -> Result<&str, Problem> {
    let fits = match condition.split_once('=') {
        None => condition == "ready",
        Some(("nodes" | "links", number)) => number.parse::<u32>().is_ok(),
        Some(("services", name)) => name.parse::<proto::ServiceName>().is_ok(),
        Some(_) => false,
    };
    if fits {
        return Ok(condition);
    }
    Err(Problem::new("M4001", Exit::Usage, format!("{condition:?} is no condition"))
        .why("it is ready, nodes=N, links=N or services=NAME")
        .attempt("micro network wait --for services=greeter", ""))
}

fn over(condition: &str, limit: Duration, last: Problem) -> Problem {
    if last.exit == Exit::NoNode {
        return last;
    }
    let what = format!("{condition} has not come true within {}", duration::show(limit));
    let mut problem = Problem::new("M8004", Exit::Unreachable, what);
    problem.why = last.why.or(Some(last.what));
    problem
        .attempt("micro network status", "what there is now")
        .attempt(format!("micro network wait --for {condition} --timeout 5m"), "wait longer")
}

/// The body of an answer to `GET /v1/wait` that came true.
#[must_use]
pub fn fulfilled(condition: &str) -> serde_json::Value {
    serde_json::json!({ "kind": "Fulfilled", "api": api::VERSION, "condition": condition })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_conditions_are_waited_for() {
        for good in ["ready", "nodes=3", "links=0", "services=go.micro.srv.greeter"] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in ["", "red", "nodes", "nodes=x", "services=", "ready=1", "services=a b"] {
            assert_eq!(checked(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}

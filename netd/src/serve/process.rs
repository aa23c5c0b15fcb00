//! `micro serve NAME`: a built-in service as a process of its own, offered at the local node for as
//! long as it runs.

use std::time::Duration;

use proto::record::{Endpoint, ValueType};

use super::{Builtin, Running};
use crate::api;
use crate::cli::serve::ServeArgs;
use crate::client::Client;
use crate::drain::Signals;
use crate::error::{Exit, Problem};
use crate::output::{Output, print};

/// How long the node believes in this process without hearing of it.
const TTL: Duration = Duration::from_secs(15);
/// How long it answers after it was withdrawn: the news travels for a moment.
const LINGER: Duration = Duration::from_millis(200);

/// Serves until interrupted; the registration goes with it, or soon after where this process is
/// killed.
///
/// # Errors
/// What the node says where it does not take the registration, and M6002 where no port can be had.
pub async fn run(args: ServeArgs, node: Client, output: Output) -> Result<Exit, Problem> {
    let mut signals = Signals::listen()?;
    let running = super::start(args.service, "").await;
    let running = running.map_err(|error| Problem::machine("no port can be had", &error))?;
    let name = args.name.unwrap_or_else(|| args.service.name().to_owned());
    let ask = request(&running, &name);
    let exposed: api::Exposed = node.post("/v1/expose", &ask).await?;
    if output.is_json() {
        let exposed = serde_json::to_value(exposed).expect("texts are JSON");
        output.document("Exposed", exposed)?;
    } else {
        print(&format!("serving {name} on {}   Ctrl-C stops\n", running.address))?;
        output.say(&format!("try: {}", example(args.service, &name)));
    }
    let mut refresh = tokio::time::interval(TTL / 3);
    refresh.tick().await;
    loop {
        tokio::select! {
            () = signals.next() => break,
            _ = refresh.tick() => {
                // A node that restarts takes it again at the next turn.
                if let Err(problem) = node.post::<api::Exposed>("/v1/expose", &ask).await {
                    output.detail(&problem.to_string());
                }
            }
        }
    }
    let withdraw = api::UnexposeRequest { name, address: Some(ask.address) };
    // A node that is gone has forgotten us already.
    let _ = node.post::<api::Unexposed>("/v1/unexpose", &withdraw).await;
    // Calls of nodes that have not heard of it yet are still answered.
    tokio::time::sleep(LINGER).await;
    Ok(Exit::Done)
}

fn request(running: &Running, name: &str) -> api::ExposeRequest {
    api::ExposeRequest {
        name: name.to_owned(),
        address: running.address.to_string(),
        protocol: Some("grpc".to_owned()),
        endpoints: running.builtin.endpoints().iter().map(endpoint).collect(),
        ttl_s: Some(TTL.as_secs()),
        ..api::ExposeRequest::default()
    }
}

/// A command that calls it.
fn example(builtin: Builtin, name: &str) -> String {
    match builtin {
        Builtin::Echo => format!("micro call {name} Echo.Call '{{\"text\":\"hello\"}}'"),
        Builtin::Greeter => format!("micro call {name} Greeter.Hello '{{\"name\":\"Ada\"}}'"),
        Builtin::Clock => format!("micro stream {name} Clock.Watch"),
    }
}

fn endpoint(endpoint: &Endpoint) -> api::Endpoint {
    api::Endpoint {
        name: endpoint.name.clone(),
        metadata: endpoint.metadata.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        request: endpoint.request.as_ref().map(shape),
        response: endpoint.response.as_ref().map(shape),
    }
}

fn shape(value: &ValueType) -> api::Shape {
    api::Shape {
        name: value.name.clone(),
        kind: value.kind.clone(),
        values: value.values.iter().map(shape).collect(),
    }
}

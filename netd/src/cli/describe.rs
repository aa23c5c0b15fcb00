//! `micro describe SERVICE`: its methods and where it runs.

use clap::Args;

use super::Global;
use super::call::place::Place;
use super::call::schema::{self, Schema};
use crate::api;
use crate::client::{self, Client};
use crate::error::{Exit, Problem};
use crate::output::{self, Format, Output, table, text};

/// `micro describe SERVICE`
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// Its name.
    #[arg(value_name = "SERVICE")]
    service: String,
}

/// Prints what is known about one service.
///
/// # Errors
/// M6010 when no node runs here, M1203 when nobody offers it.
pub async fn run(args: DescribeArgs, global: &Global) -> Result<Exit, Problem> {
    let client = global.client()?;
    let place: Place = args.service.parse()?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document(&client, &place).await?)?;
        return Ok(Exit::Done);
    }
    let service = super::call::describe(&client, &place).await?;
    if output.format == Format::Name {
        output::print(&format!("{}\n", text::plain(&service.name)))?;
        return Ok(Exit::Done);
    }
    let schema = find_schema(&client, &service, global).await;
    output::print(&to_text(&service, &schema, output))?;
    Ok(Exit::Done)
}

/// What the node says; its own services are in no registry and have nothing but their name.
async fn document(client: &Client, place: &Place) -> Result<serde_json::Value, Problem> {
    let name = place.service.as_str();
    if proxy::own::Own::has(name) {
        return Ok(serde_json::json!({
            "kind": "Service", "api": api::VERSION, "name": name, "versions": [], "instances": [],
        }));
    }
    client.get(&format!("/v1/services/{}", client::escaped(name))).await
}

/// The schema as the service tells it, else as it was registered. A service that cannot be asked
/// now can still be described.
async fn find_schema(client: &Client, service: &api::Service, global: &Global) -> Schema {
    match schema::of(client, service, global.timeout()).await {
        Ok(schema) => schema,
        Err(problem) => {
            global.output().detail(&format!("no schema by reflection: {}", problem.what));
            Schema::registered(service)
        }
    }
}

fn to_text(service: &api::Service, schema: &Schema, output: Output) -> String {
    let protocols = distinct(service.instances.iter().map(|one| one.protocol.as_str()));
    let versions = distinct(service.versions.iter().map(|one| one.version.as_str()));
    let instances = text::count(service.instances.len() as u64, "instance");
    let mut out = if service.instances.is_empty() {
        format!("{}   answered by this node itself\n", text::plain(&service.name))
    } else {
        let (protocols, versions) = (protocols.join(","), versions.join(","));
        let head = format!("{}   {protocols}   version={versions}   {instances}", service.name);
        format!("{}\n", text::plain(&head))
    };
    let methods = schema.methods();
    if methods.is_empty() {
        out.push_str("no endpoints are known: it registered none and has no gRPC reflection\n");
    } else {
        let mut rows = Vec::new();
        if output.headers {
            rows.push(row(&["ENDPOINT", "KIND", "REQUEST", "RESPONSE"]));
        }
        rows.extend(methods.iter().map(|method| {
            let [request, response] = [&method.request, &method.response].map(|shape| short(shape));
            row(&[&method.name, method.kind(), &request, &response])
        }));
        out.push_str(&table::aligned(&rows));
    }
    if service.instances.is_empty() {
        return out;
    }
    let mut rows = Vec::new();
    if output.headers {
        rows.push(row(&["INSTANCE", "NODE", "REGION", "COST", "STATE"]));
    }
    rows.extend(service.instances.iter().map(|one| {
        let state = super::routes::state(&one.state, &one.note);
        row(&[&one.address, &one.node, &one.region, &text::cost(one.cost_us), &state])
    }));
    out.push_str(&table::aligned(&rows));
    let source = if schema.is_reflected() { "gRPC reflection" } else { "the registry" };
    let call = methods.first().map(|method| {
        let (name, service) = (&method.name, &service.name);
        let command =
            if method.client_streams || method.server_streams { "stream" } else { "call" };
        format!("{command}: micro {command} {service} {name} '{}'", method.example)
    });
    if let Some(call) = call {
        out.push_str(&format!("schema from {source}.   {}\n", text::plain(&call)));
    }
    out
}

/// A shape that leaves room for the other columns.
fn short(shape: &str) -> String {
    /// Characters of a shape that are shown; three dots stand for the rest.
    const ROOM: usize = 48;
    match shape.char_indices().nth(ROOM) {
        Some((at, _)) => format!("{}… }}", shape[..at].trim_end_matches([' ', ','])),
        None => shape.to_owned(),
    }
}

fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for word in words {
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    seen
}

fn row(cells: &[&str]) -> Vec<String> {
    let dash = |cell: &&str| if cell.is_empty() { "-".to_owned() } else { (*cell).to_owned() };
    cells.iter().map(dash).collect()
}

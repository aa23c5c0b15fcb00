//! `micro network graph`: who is linked to whom.

use super::Global;
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{self, Format, map, text};

/// Draws the network.
///
/// # Errors
/// M6010 when no node runs here.
pub async fn run(global: &Global) -> Result<Exit, Problem> {
    let document: serde_json::Value = global.client()?.get("/v1/graph").await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let graph: api::Graph = client::read(document)?;
    if output.format == Format::Name {
        let names = graph.nodes.iter().map(|node| format!("{}\n", text::plain(&node.name)));
        output::print(&names.collect::<String>())?;
        return Ok(Exit::Done);
    }
    output::print(&map::draw(&graph))?;
    if graph.nodes.len() > map::MAX_DRAWN {
        output.say(&format!(
            "{} are drawn by region; each one: micro network nodes",
            text::count(graph.nodes.len() as u64, "node"),
        ));
    } else if graph.nodes.len() < 2 {
        output.say("no other node is known: micro network invite makes a ticket for one");
    }
    Ok(Exit::Done)
}

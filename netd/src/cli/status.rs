//! `micro network status`: this node, its links, and what it can reach.

use super::Global;
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{self, Format, Output, table, text};

/// Prints the status of the running node.
///
/// # Errors
/// M6010 when none runs.
pub async fn run(global: &Global) -> Result<Exit, Problem> {
    let document: serde_json::Value = global.client()?.get("/v1/status").await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let status: api::Status = client::read(document)?;
    if output.format == Format::Name {
        output::print(&format!("{}\n", text::plain(&status.node.name)))?;
    } else {
        output::print(&to_text(&status, output))?;
    }
    Ok(Exit::Done)
}

fn to_text(status: &api::Status, output: Output) -> String {
    let node = &status.node;
    let state = match (node.draining, node.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let mut head = vec![
        row(&[
            "network",
            &status.network.name,
            &format!("root {}", text::short_id(&status.network.id)),
            &format!("micro {}", node.release),
        ]),
        row(&[
            "node",
            &node.name,
            &text::short_id(&node.id),
            &node.region,
            &format!("up {}, {state}", text::age(node.uptime_ms)),
        ]),
    ];
    if !node.labels.is_empty() {
        head.push(row(&["labels", &text::labels(&node.labels)]));
    }
    head.push(row(&["roles", &status.roles.join(",")]));
    head.push(row(&[
        "proxy",
        &status.proxy.address,
        &format!("links {}", status.listen.join(" ")),
    ]));
    if output.verbose || output.format == Format::Wide {
        head.push(row(&["dns", &status.dns.address]));
        head.push(row(&["nats", &status.broker.address]));
        head.push(row(&["observe", &status.observe.address]));
        head.push(row(&["grant", &format!("valid until {}", status.grant.expires)]));
    }
    format!("{}\n{}\n{}", lines(&head), links(status, output), summary(status))
}

fn links(status: &api::Status, output: Output) -> String {
    let live = status.links.iter().filter(|link| link.state == "live").count();
    let mut out = format!("LINKS  {live} up\n");
    if status.links.is_empty() {
        out.push_str("none: this node knows no other\n");
        return out;
    }
    let mut rows = Vec::new();
    if output.headers {
        rows.push(row(&["PEER", "REGION", "PATH", "RTT", "LOSS", "AGE", "STATE"]));
    }
    for link in &status.links {
        let name =
            if link.name.is_empty() { text::short_id(&link.peer) } else { link.name.clone() };
        rows.push(vec![
            name,
            dash(&link.region),
            dash(&link.path),
            text::round_trip(link.rtt_ns),
            format!("{:.1}%", link.loss * 100.0),
            text::age(link.since_ms),
            dash(&link.state),
        ]);
    }
    out.push_str(&table::aligned(&rows));
    out
}

fn summary(status: &api::Status) -> String {
    let count = status.services;
    format!("services  {} reachable ({} local)\n", count.reachable, count.local)
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Lines with a label in front; only the label is aligned, so a long name moves nothing else.
fn lines(rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| {
        let (label, cells) = row.split_first().expect("each row begins with its label");
        let cells: Vec<_> = cells.iter().map(|cell| text::plain(cell)).collect();
        format!("{label:<9} {}\n", cells.join("   "))
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_who_where_and_who_is_linked() {
        let status = api::Status {
            network: api::Network { name: "acme".into(), id: "4c1dabcdefgh9e".into() },
            node: api::Node {
                id: "7f3kabcdefghq2".into(),
                name: "ada-laptop".into(),
                region: "home".into(),
                release: "0.1.0".into(),
                uptime_ms: 8_040_000,
                ready: true,
                ..api::Node::default()
            },
            proxy: api::Listener { address: "127.0.0.1:8081".into() },
            listen: vec!["[::]:8085".into()],
            roles: vec!["edge".into()],
            links: vec![api::Link {
                peer: "b".repeat(52),
                name: "fra-1".into(),
                region: "eu/fra".into(),
                path: "direct udp/v6".into(),
                rtt_ns: 11_000_000,
                state: "live".into(),
                since_ms: 720_000,
                ..api::Link::default()
            }],
            services: api::ServiceCount { reachable: 41, local: 3 },
            ..api::Status::default()
        };
        let output = Output { format: Format::Table, headers: true, quiet: false, verbose: false };
        assert_eq!(
            to_text(&status, output),
            "network   acme   root 4c1d…9e   micro 0.1.0\n\
             node      ada-laptop   7f3k…q2   home   up 2h14m, ready\n\
             roles     edge\n\
             proxy     127.0.0.1:8081   links [::]:8085\n\
             \n\
             LINKS  1 up\n\
             PEER   REGION  PATH           RTT   LOSS  AGE  STATE\n\
             fra-1  eu/fra  direct udp/v6  11ms  0.0%  12m  live\n\
             \n\
             services  41 reachable (3 local)\n"
        );
    }
}

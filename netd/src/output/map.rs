//! The network as lines of text: a tree of links from this node, then the links that close rings.
//!
//! ```text
//! home    ada-laptop ──11ms── fra-1 ──84ms── iad-2 ──151ms── nrt-1
//!                                            └──97ms── gru-1
//! also    fra-1 ──220ms── nrt-1
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::text;
use crate::api::{Graph, GraphLink, GraphNode};

/// More nodes than this are drawn by region.
pub const MAX_DRAWN: usize = 24;

/// Draws a network, one line a branch, each with its newline.
#[must_use]
pub fn draw(graph: &Graph) -> String {
    if graph.nodes.len() > MAX_DRAWN {
        return draw_nodes(&by_region(graph));
    }
    draw_nodes(graph)
}

fn draw_nodes(graph: &Graph) -> String {
    let mut drawing = Drawing::new(graph);
    // This node first, then whatever cannot be reached from it.
    let mine = graph.nodes.iter().filter(|node| node.me);
    let others = graph.nodes.iter().filter(|node| !node.me);
    for root in mine.chain(others) {
        if drawing.seen.insert(root.id.as_str()) {
            drawing.component(root);
        }
    }
    drawing.rings();
    drawing.out
}

struct Drawing<'a> {
    nodes: BTreeMap<&'a str, &'a GraphNode>,
    neighbours: BTreeMap<&'a str, Vec<(u64, &'a str)>>,
    links: &'a [GraphLink],
    /// Nodes drawn or about to be.
    seen: BTreeSet<&'a str>,
    /// Links drawn, smaller end first.
    drawn: BTreeSet<(&'a str, &'a str)>,
    margin: usize,
    out: String,
}

impl<'a> Drawing<'a> {
    fn new(graph: &'a Graph) -> Self {
        let nodes: BTreeMap<_, _> =
            graph.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut neighbours: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
        for link in &graph.links {
            neighbours.entry(&link.a).or_default().push((link.cost_us, &link.b));
            neighbours.entry(&link.b).or_default().push((link.cost_us, &link.a));
        }
        neighbours.values_mut().for_each(|list| list.sort_unstable());
        let widest = graph.nodes.iter().map(|node| node.region.chars().count()).max();
        Self {
            nodes,
            neighbours,
            links: &graph.links,
            seen: BTreeSet::new(),
            drawn: BTreeSet::new(),
            margin: widest.unwrap_or(0).max(4) + 4,
            out: String::new(),
        }
    }

    /// Draws everything that hangs together with `root`. Branches wait on a stack with the column
    /// at which they leave; the cheapest goes on in the same line.
    fn component(&mut self, root: &'a GraphNode) {
        let margin = self.margin;
        let mut line = format!("{:<margin$}{}", text::plain(&root.region), name(root));
        let mut column = margin;
        let mut waiting: Vec<(usize, &'a str, u64, &'a str)> = Vec::new();
        let mut at = root.id.as_str();
        loop {
            let next: Vec<_> = self.neighbours.get(at).cloned().unwrap_or_default();
            let new: Vec<_> = next.into_iter().filter(|(_, to)| self.seen.insert(to)).collect();
            let mut new = new.into_iter();
            let first = new.next();
            // Later branches are drawn first: they stand closer to the end of their line.
            waiting.extend(new.rev().map(|(cost, to)| (column, at, cost, to)));
            if let Some((cost, to)) = first {
                column = line.chars().count() + self.edge(at, cost, to, &mut line);
                at = to;
                continue;
            }
            self.out.push_str(line.trim_end());
            self.out.push('\n');
            let Some((leaves, from, cost, to)) = waiting.pop() else { return };
            line = format!("{:leaves$}{}", "", corner());
            column = line.chars().count() + self.edge(from, cost, to, &mut line);
            at = to;
        }
    }

    /// Adds `──11ms── name` to a line; returns how many characters stand before the name.
    fn edge(&mut self, from: &'a str, cost: u64, to: &'a str, line: &mut String) -> usize {
        self.drawn.insert(if from < to { (from, to) } else { (to, from) });
        let dash = if text::is_utf8() { "──" } else { "--" };
        let space = if line.ends_with(corner()) { "" } else { " " };
        let edge =
            format!("{space}{dash}{}{dash} ", text::milliseconds(Duration::from_micros(cost)));
        let width = edge.chars().count();
        line.push_str(&edge);
        let far = self.nodes.get(to).map_or_else(|| text::short_id(to), |node| name(node));
        line.push_str(&far);
        width
    }

    fn rings(&mut self) {
        let links = self.links;
        for link in links {
            let (a, b) = (link.a.as_str(), link.b.as_str());
            if self.drawn.contains(&if a < b { (a, b) } else { (b, a) }) {
                continue;
            }
            let margin = self.margin;
            let near = self.nodes.get(a).map_or_else(|| text::short_id(a), |node| name(node));
            let mut line = format!("{:<margin$}{near}", "also");
            self.edge(a, link.cost_us, b, &mut line);
            self.out.push_str(&line);
            self.out.push('\n');
        }
    }
}

fn name(node: &GraphNode) -> String {
    text::plain(if node.name.is_empty() { &node.id } else { &node.name })
}

fn corner() -> &'static str {
    if text::is_utf8() { "└" } else { "`" }
}

/// Regions as nodes, with the cheapest link between each two.
fn by_region(graph: &Graph) -> Graph {
    let region_of: BTreeMap<&str, &str> =
        graph.nodes.iter().map(|node| (node.id.as_str(), node.region.as_str())).collect();
    let mut regions: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for node in &graph.nodes {
        let entry = regions.entry(&node.region).or_default();
        *entry = (entry.0 + 1, entry.1 || node.me);
    }
    let mut links: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for link in &graph.links {
        let ends = (region_of.get(link.a.as_str()), region_of.get(link.b.as_str()));
        let (Some(a), Some(b)) = ends else { continue };
        if a != b {
            let cost = links.entry((*a.min(b), *a.max(b))).or_insert(u64::MAX);
            *cost = link.cost_us.min(*cost);
        }
    }
    let nodes = regions.into_iter().map(|(region, (count, me))| GraphNode {
        id: region.to_owned(),
        name: format!("{region} ({})", text::count(count, "node")),
        region: region.to_owned(),
        me,
    });
    let links = links.into_iter().map(|((a, b), cost_us)| GraphLink {
        a: a.to_owned(),
        b: b.to_owned(),
        cost_us,
        path: "direct".to_owned(),
    });
    Graph { nodes: nodes.collect(), links: links.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: &[(&str, &str)], links: &[(&str, &str, u64)]) -> Graph {
        let nodes = nodes.iter().enumerate().map(|(at, (name, region))| GraphNode {
            id: (*name).to_owned(),
            name: (*name).to_owned(),
            region: (*region).to_owned(),
            me: at == 0,
        });
        let links = links.iter().map(|(a, b, ms)| GraphLink {
            a: (*a).to_owned(),
            b: (*b).to_owned(),
            cost_us: ms * 1000,
            path: "direct".to_owned(),
        });
        Graph { nodes: nodes.collect(), links: links.collect() }
    }

    #[test]
    fn a_tree_goes_on_in_its_line_and_branches_below() {
        let graph = graph(
            &[("ada", "home"), ("fra", "eu/fra"), ("iad", "us"), ("nrt", "ap"), ("gru", "sa")],
            &[("ada", "fra", 11), ("fra", "iad", 84), ("iad", "nrt", 97), ("iad", "gru", 151)],
        );
        assert_eq!(
            draw(&graph),
            "home      ada ──11ms── fra ──84ms── iad ──97ms── nrt\n\
             \x20                                   └──151ms── gru\n"
        );
    }

    #[test]
    fn rings_and_the_unreachable_are_drawn_too() {
        let graph = graph(
            &[("eu", "eu"), ("us", "us"), ("ap", "ap"), ("lost", "moon")],
            &[("eu", "us", 86), ("us", "ap", 150), ("eu", "ap", 220)],
        );
        assert_eq!(
            draw(&graph),
            "eu      eu ──86ms── us\n\
             \x20       └──220ms── ap\n\
             moon    lost\n\
             also    us ──150ms── ap\n"
        );
    }

    #[test]
    fn many_nodes_are_drawn_by_region() {
        let names: Vec<String> = (0..30).map(|at| format!("n{at}")).collect();
        let nodes: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), if at % 2 == 0 { "eu" } else { "us" }))
            .collect();
        let graph = graph(&nodes, &[("n0", "n1", 90), ("n2", "n3", 80), ("n0", "n2", 1)]);
        assert_eq!(draw(&graph), "eu      eu (15 nodes) ──80ms── us (15 nodes)\n");
    }
}

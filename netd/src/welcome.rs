//! What a node says when it starts: where it listens, how others join, when it is ready.

use std::sync::Arc;
use std::time::Duration;

use proto::grant::Pattern;
use tunnel::issuer::Template;

use crate::admin::make_ticket;
use crate::daemon::READY_HINT;
use crate::health;
use crate::member::Origin;
use crate::node::Node;
use crate::output::banner::{self, Banner};
use crate::output::{Output, talk};

/// How long the ticket of the first lines is valid.
const TICKET_TTL: Duration = Duration::from_secs(3600);

/// Says it, and ends when the node is ready.
pub async fn tell(node: Arc<Node>, origin: Origin, output: Output) {
    if output.quiet {
        return;
    }
    let text = |at: &std::net::SocketAddr| at.to_string();
    let banner = Banner {
        network: node.network_name.clone(),
        node: node.name.clone(),
        region: node.region.clone(),
        listen: node.tunnel.local_addresses().iter().map(text).collect(),
        proxy: node.proxy_at.iter().map(text).collect(),
        dns: node.dns_at.to_string(),
        nats: node.nats_at.to_string(),
        observe: node.observe_at.to_string(),
        identity: match origin {
            Origin::Founded | Origin::Joined => "new key, saved (mode 0600)",
            Origin::Returned => "known key",
        }
        .to_owned(),
        peers: match origin {
            Origin::Founded => "none yet: first node of this network",
            Origin::Joined => "joining",
            Origin::Returned if node.desk.is_some() => "looking for those known before",
            Origin::Returned => "looking for the network",
        }
        .to_owned(),
        ticket: ticket(&node, origin).await,
        first: origin == Origin::Founded,
    };
    banner.to_text().lines().for_each(talk);
    let mut routes = node.shared.routes.changed();
    let hint = tokio::time::sleep(READY_HINT);
    tokio::pin!(hint);
    let mut hinted = false;
    while !node.is_ready() {
        tokio::select! {
            // The sender lives in the node, which this holds.
            _ = routes.changed() => {}
            () = &mut hint, if !hinted => {
                hinted = true;
                let waits = health::readiness(&node).components.into_iter().find(|c| !c.ready);
                talk(&waits.map_or_else(String::new, |c| format!("  {}: {}", c.name, c.reason)));
            }
        }
    }
    if origin != Origin::Founded
        && let Some(link) = node.tunnel.links().into_iter().find(|link| link.neighbour)
    {
        // Its record comes with the first frames; without it the line shows its id.
        let known = routes.wait_for(|_| node.routes().node(&link.peer).is_some());
        let _ = tokio::time::timeout(Duration::from_millis(500), known).await;
        let routes = node.routes();
        let path = if link.remote.is_ipv4() { "direct udp/v4" } else { "direct udp/v6" };
        let others = routes.nodes().count().saturating_sub(1) as u64;
        let services = routes.services().count() as u64;
        let name = Node::name_of(&routes, &link.peer);
        talk(&banner::joined(&name, path, link.rtt, others, services));
    }
    talk(&banner::ready(node.began.elapsed()));
}

/// A ticket for another machine, on the first start of a network: whoever reads these lines may
/// make as many as they like.
async fn ticket(node: &Node, origin: Origin) -> Option<(String, Duration)> {
    if origin != Origin::Founded {
        return None;
    }
    let default = Pattern::new(proto::name::DEFAULT_NAMESPACE).ok()?;
    let template = Template {
        roles: proto::Roles::NONE,
        namespaces: vec![default],
        services: vec![Pattern::any()],
        life: node.grant_ttl.as_secs(),
    };
    let ticket = make_ticket(node, template, TICKET_TTL.as_secs(), 1).await.ok()?;
    Some((ticket.to_text(), TICKET_TTL))
}

//! What a node says about itself when it starts, line by line.
//!
//! ```text
//! micro 0.1.0   network local-ada   node fra-1   region home
//!   quic       [::]:8085/udp            identity  new key, saved (mode 0600)
//!   proxy      127.0.0.1:8081           admin     unix socket, this user only
//!   dns        127.0.0.1:8053
//!   nats       127.0.0.1:4222
//!   observe    127.0.0.1:8086
//!   peers      none yet: first node of this network
//!
//! Another terminal on this machine, same user:   micro network --name b
//! Another machine (ticket valid 1h, 1 use):      micro network --join mj1qv8…k3a
//! ready in 38ms
//! ```

use std::fmt::Write as _;
use std::time::Duration;

use super::text;

/// Everything the first lines say.
#[derive(Clone, Debug, Default)]
pub struct Banner {
    /// The network.
    pub network: String,
    /// This node.
    pub node: String,
    /// Its region.
    pub region: String,
    /// UDP addresses of links.
    pub listen: Vec<String>,
    /// TCP addresses of the proxy, the first being the usual one.
    pub proxy: Vec<String>,
    /// Where names are asked for.
    pub dns: String,
    /// Where clients of NATS connect.
    pub nats: String,
    /// Where health and metrics are read.
    pub observe: String,
    /// `new key, saved (mode 0600)`, `known key`.
    pub identity: String,
    /// `none yet: first node of this network`, `joining through 192.0.2.1:8085`.
    pub peers: String,
    /// A ticket for another machine, on the first node of a network: text and how long it holds.
    pub ticket: Option<(String, Duration)>,
    /// Whether a second node of the same user could join through this one's socket.
    pub first: bool,
}

impl Banner {
    /// The lines, each with its newline.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!(
            "micro {}   network {}   node {}   region {}\n",
            env!("CARGO_PKG_VERSION"),
            text::plain(&self.network),
            text::plain(&self.node),
            text::plain(&self.region),
        );
        let quic: Vec<_> = self.listen.iter().map(|address| format!("{address}/udp")).collect();
        let pairs = [
            (("quic", quic.join(" ")), ("identity", self.identity.clone())),
            (("proxy", self.proxy.join(" ")), ("admin", "unix socket, this user only".to_owned())),
        ];
        for ((left, at), (right, what)) in pairs {
            let _ = writeln!(out, "  {left:<9}  {at:<23}  {right:<8}  {}", text::plain(&what));
        }
        let rest = [
            ("dns", &self.dns),
            ("nats", &self.nats),
            ("observe", &self.observe),
            ("peers", &self.peers),
        ];
        for (left, what) in rest {
            let _ = writeln!(out, "  {left:<9}  {}", text::plain(what));
        }
        if self.first {
            let here = "Another terminal on this machine, same user:";
            let _ = writeln!(out, "\n{here:<47}micro network --name b");
        }
        if let Some((ticket, valid)) = &self.ticket {
            let valid = crate::config::duration::show(*valid);
            let there = format!("Another machine (ticket valid {valid}, 1 use):");
            let _ = writeln!(out, "{there:<47}micro network --join {ticket}");
        }
        out
    }
}

/// `joined via fra-1 (direct udp/v6, 11ms); 1 node, 2 services visible`, with two spaces in front.
#[must_use]
pub fn joined(peer: &str, path: &str, rtt: Duration, nodes: u64, services: u64) -> String {
    format!(
        "  joined via {} ({path}, {}); {}, {} visible",
        text::plain(peer),
        text::milliseconds(rtt),
        text::count(nodes, "node"),
        text::count(services, "service"),
    )
}

/// `ready in 38ms`.
#[must_use]
pub fn ready(after: Duration) -> String {
    format!("ready in {}ms", after.as_millis())
}

/// `draining 14 calls, 12s left`.
#[must_use]
pub fn draining(calls: u64, left: Duration) -> String {
    format!("draining {}, {}s left", text::count(calls, "call"), left.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_says_what_to_do_next() {
        let banner = Banner {
            network: "local-ada".into(),
            node: "fra-1".into(),
            region: "home".into(),
            listen: vec!["[::]:8085".into()],
            proxy: vec!["127.0.0.1:8081".into()],
            dns: "127.0.0.1:8053".into(),
            nats: "127.0.0.1:4222".into(),
            observe: "127.0.0.1:8086".into(),
            identity: "new key, saved (mode 0600)".into(),
            peers: "none yet".into(),
            ticket: Some(("mj1abc".into(), Duration::from_secs(3600))),
            first: true,
        };
        let release = env!("CARGO_PKG_VERSION");
        assert_eq!(
            banner.to_text(),
            format!(
                "micro {release}   network local-ada   node fra-1   region home\n\
                 \x20 quic       [::]:8085/udp            identity  new key, saved (mode 0600)\n\
                 \x20 proxy      127.0.0.1:8081           admin     unix socket, this user only\n\
                 \x20 dns        127.0.0.1:8053\n\
                 \x20 nats       127.0.0.1:4222\n\
                 \x20 observe    127.0.0.1:8086\n\
                 \x20 peers      none yet\n\
                 \n\
                 Another terminal on this machine, same user:   micro network --name b\n\
                 Another machine (ticket valid 1h, 1 use):      micro network --join mj1abc\n"
            )
        );
    }

    #[test]
    fn drain_lines_count_down() {
        assert_eq!(draining(1, Duration::from_secs(12)), "draining 1 call, 12s left");
    }
}

//! What is changed in a network namespace: one table of nftables, and a route that makes the addresses
//! of IPv6 those of this machine.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use super::Scope;
use crate::error::Problem;
use crate::system::{self, nft};

/// The table.
pub const TABLE: &str = "inet micro_intercept";
/// Addresses of names, of both families.
const V4: &str = proxy::RANGES.0;
const V6: &str = proxy::RANGES.1;
/// Where names are asked for in another namespace; in the node's own `micro network dns` leads there.
pub const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(proxy::NAME_SERVER), 53);

/// The node's listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// At 127.0.0.1.
    pub v4: String,
    /// At `::1`, where there is IPv6.
    pub v6: Option<String>,
}

/// Puts everything there, in the namespace of this thread. Gives the ports that are led to.
///
/// # Errors
/// M6008 when the kernel takes no rules: nothing is changed then.
pub fn put(scope: &Scope, mut ports: Ports) -> Result<Ports, Problem> {
    if ports.v6.is_some() && !route("replace") {
        tracing::warn!("addresses of IPv6 are not led here: the route cannot be set");
        ports.v6 = None;
    }
    nft::put(TABLE, &body(scope, &ports)).map(|()| ports)
}

/// Takes everything away, in the namespace of this thread.
///
/// # Errors
/// M6008 when the kernel does not.
pub fn remove() -> Result<(), Problem> {
    // Where it was never set, there is none.
    route("del");
    nft::remove(TABLE)
}

/// What [`put`] changes, for people.
#[must_use]
pub fn lines(scope: &Scope, ports: &Ports) -> Vec<String> {
    let mut lines = vec![nft::text(TABLE, &body(scope, ports))];
    lines.extend(ports.v6.as_ref().map(|_| format!("route local {V6} dev lo src ::1")));
    lines
}

fn body(scope: &Scope, ports: &Ports) -> String {
    let users: Vec<_> = scope.users.iter().map(u32::to_string).collect();
    let of = match users.len() {
        0 => String::new(),
        _ => format!("meta skuid {{ {} }} ", users.join(", ")),
    };
    let mut rules = vec![format!(
        "{of}ip daddr {V4} ip daddr != {} meta l4proto tcp redirect to :{}",
        DNS.ip(),
        ports.v4
    )];
    if let Some(port) = &ports.v6 {
        rules.push(format!("{of}ip6 daddr {V6} meta l4proto tcp redirect to :{port}"));
    }
    let rules: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
    format!(
        "\tchain output {{\n\t\ttype nat hook output priority -100; policy accept;\n{rules}\t}}\n"
    )
}

/// Sets or deletes the route; whether that was done.
fn route(verb: &str) -> bool {
    let Some(ip) = system::program("ip") else { return false };
    let mut command = Command::new(ip);
    // From ::1, as the owner of a connection is told of the loopback alone.
    command.args(["-6", "route", verb, "local", V6, "dev", "lo", "src", "::1"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_names_are_touched_and_only_for_those_who_asked() {
        let ports = Ports { v4: "4001".to_owned(), v6: Some("6001".to_owned()) };
        let all = body(&Scope::default(), &ports);
        let rules: Vec<_> = all.lines().filter(|line| line.contains("redirect")).collect();
        assert_eq!(rules.len(), 2);
        assert!(rules[0].contains("ip daddr 127.64.0.0/10 ") && rules[0].ends_with(":4001"));
        assert!(rules[1].contains("ip6 daddr fd6d:6963:726f::/48 ") && rules[1].ends_with(":6001"));
        assert!(!all.contains("skuid"));
        let some = Scope { users: vec![1000, 1001], namespace: None };
        let some = body(&some, &Ports { v6: None, ..ports });
        let rules: Vec<_> = some.lines().filter(|line| line.contains("redirect")).collect();
        assert_eq!(rules.len(), 1);
        assert!(rules[0].trim().starts_with("meta skuid { 1000, 1001 } ip daddr "));
    }
}

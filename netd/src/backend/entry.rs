//! One instance that a back end tells of: whether this node can offer it.

use std::net::{IpAddr, SocketAddr};

use proto::LabelSet;
use proto::record::{Service, VersionOf};
use proxy::health::UNHEALTHY;
use router::Registration;

/// What instances that were learned from a back end are marked with: its name.
pub const BACKEND: &str = "micro.backend";
/// What those are marked with whose back end does not answer any more: why.
pub const STALE: &str = "micro.stale";
/// Characters of a reason.
pub(super) const MAX_WHY: usize = 200;

/// Room that both marks need in a record.
fn marks() -> LabelSet {
    [(BACKEND, "x".repeat(63)), (STALE, "x".repeat(MAX_WHY))].into_iter().collect()
}

/// What addresses mean in a back end.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Its loopback is that of this machine.
    pub(super) loopback: bool,
    /// Where this node itself listens for programs.
    pub(super) own: Vec<SocketAddr>,
}

/// What is read of an entry: an instance, or why it is none. The texts are for people.
pub(super) type Read = Result<Registration, String>;

/// The instance as this node would offer it.
///
/// # Errors
/// Why it cannot.
pub(super) fn checked(mut said: Registration, rules: &Rules) -> Read {
    if let Some(of) = said.instance.metadata.get(BACKEND) {
        return Err(format!("a node learned it from its back end {of}: it would go round"));
    }
    let is_ours = |key: &str| key == STALE || key == UNHEALTHY;
    if said.instance.metadata.iter().any(|(key, _)| is_ours(key)) {
        let rest = said.instance.metadata.iter().filter(|(key, _)| !is_ours(key));
        said.instance.metadata = rest.collect();
    }
    said.ttl = None;
    address(&said.instance.address, rules)?;
    let mut instance = said.instance.clone();
    instance.metadata = instance.metadata.overlaid(&marks());
    let version = VersionOf {
        version: said.version.clone(),
        metadata: said.metadata.clone(),
        endpoints: said.endpoints.clone(),
        instances: vec![instance],
    };
    let whole = Service { versions: vec![version] };
    whole.check().map_err(|why| format!("too much for a record: {why}"))?;
    Ok(said)
}

/// Whether this node can reach an address.
fn address(text: &str, rules: &Rules) -> Result<(), String> {
    if text.starts_with("unix:/") {
        let why = || format!("{text} is a socket of the machine that said it");
        return rules.loopback.then_some(()).ok_or_else(why);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port"))?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("{text:?} has no port"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = match bare.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical(),
        Err(_) if bare == "localhost" => IpAddr::from([127, 0, 0, 1]),
        Err(_) => return name(bare),
    };
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if ip.is_unspecified() || ip.is_multicast() || link_local {
        return Err(format!("{text} is no address that can be dialled"));
    }
    if ip.is_loopback() && !rules.loopback {
        return Err(format!(
            "{text} is the loopback of the machine that said it, not of this one \
             (loopback = true says that they are the same)"
        ));
    }
    let same = |own: &SocketAddr| {
        let at = own.ip().to_canonical();
        own.port() == port && (at == ip || at.is_unspecified() && ip.is_loopback())
    };
    if rules.own.iter().any(same) {
        return Err(format!("{text} is this node's own port: calls would go round in a circle"));
    }
    Ok(())
}

/// A name is asked for when it is dialled.
fn name(host: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let fits = !host.is_empty() && host.len() <= 253 && host.chars().all(allowed);
    fits.then_some(()).ok_or_else(|| format!("{host:?} is neither an IP address nor a name"))
}

/// At most [`MAX_WHY`] characters of a text of others, without controls.
pub(super) fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WHY).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proto::record::{Instance, Protocol};

    pub(in crate::backend) fn registration(service: &str, id: &str, address: &str) -> Registration {
        Registration {
            service: service.parse().unwrap(),
            version: "latest".into(),
            metadata: LabelSet::default(),
            endpoints: Vec::new(),
            instance: Instance {
                id: id.into(),
                address: address.into(),
                protocol: Protocol::Grpc,
                metadata: LabelSet::default(),
            },
            ttl: None,
        }
    }

    #[test]
    fn only_what_this_node_can_reach_is_taken() {
        let rules = |loopback| Rules { loopback, own: vec!["127.0.0.1:8081".parse().unwrap()] };
        let read = |address: &str, local| checked(registration("s", "a", address), &rules(local));
        for fine in ["10.0.0.7:4000", "[fd00::1]:1", "shop.example:80", "8.8.8.8:53"] {
            assert!(read(fine, false).is_ok(), "{fine}");
        }
        for local in
            ["127.0.0.1:9", "[::1]:9", "localhost:9", "unix:/run/x", "[::ffff:127.0.0.1]:9"]
        {
            assert!(read(local, false).is_err() && read(local, true).is_ok(), "{local}");
        }
        for never in [
            "0.0.0.0:9",
            "[::]:9",
            "224.0.0.1:9",
            "[fe80::1]:9",
            "a:0",
            "a",
            "",
            ":9",
            "a b:9",
            "127.0.0.1:8081",
            "localhost:8081",
            "10.0.0.7:70000",
        ] {
            assert!(read(never, true).is_err(), "{never}");
        }
    }

    #[test]
    fn what_a_node_has_learned_is_not_learned_again() {
        let rules = Rules { loopback: false, own: Vec::new() };
        let mut said = registration("s", "a", "10.0.0.7:1");
        said.instance.metadata = [(STALE, "x"), (UNHEALTHY, "y"), ("k", "v")].into_iter().collect();
        let read = checked(said.clone(), &rules).unwrap();
        assert_eq!(read.instance.metadata.to_string(), "k=v", "marks are this node's to make");
        said.instance.metadata = [(BACKEND, "prod")].into_iter().collect();
        assert!(checked(said, &rules).unwrap_err().contains("go round"));
    }

    #[test]
    fn what_would_not_fit_into_a_record_is_refused() {
        let rules = Rules { loopback: false, own: Vec::new() };
        let mut said = registration("s", "a", "10.0.0.7:1");
        said.instance.metadata = (0..64).map(|n| (format!("k{n}"), "v")).collect();
        assert!(checked(said, &rules).unwrap_err().contains("too much"), "no room for the marks");
    }
}

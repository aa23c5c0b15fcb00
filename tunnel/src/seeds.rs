//! Where a network is entered: addresses as people write them, turned into addresses that can be
//! dialled, through the resolver of the system.
//!
//! | Written | Means |
//! |---|---|
//! | `192.0.2.1`, `[2001:db8::1]:9000` | that address |
//! | `gate.example`, `gate.example:9000` | all its A and AAAA records |
//! | `_network._udp.example` | its SRV records (RFC 2782), each target resolved |

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};

/// The port of links, where none is written.
pub const PORT: u16 = 8085;
/// What begins a name that is looked up as a service.
const SRV: &str = "_network._udp.";
/// Addresses taken from one name.
const MAX_ADDRESSES: usize = 64;

/// Why a seed gave no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// It is not `host`, `host:port` or an address.
    #[error("“{0}” is not an address: expected host or host:port")]
    NotAnAddress(String),
    /// The name has no address.
    #[error("{name} was not found: {why}")]
    NotFound {
        /// The name.
        name: String,
        /// What the resolver said.
        why: String,
    },
    /// The system's resolver cannot be used.
    #[error("the resolver of this system cannot be used: {0}")]
    NoResolver(String),
}

/// The addresses of one seed, in the order of the resolver; none twice.
///
/// # Errors
/// [`SeedError`] when there is none.
pub async fn resolve(text: &str) -> Result<Vec<SocketAddr>, SeedError> {
    let (host, port) = match parse(text)? {
        Seed::Address(address) => return Ok(vec![address]),
        Seed::Name(host, port) => (host, port),
    };
    let resolver = TokioResolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|error| SeedError::NoResolver(error.to_string()))?;
    let mut found = Vec::new();
    if host.starts_with(SRV) {
        for (target, port) in services(&resolver, &host).await? {
            found.extend(addresses(&resolver, &target, port).await?);
            if found.len() >= MAX_ADDRESSES {
                break;
            }
        }
    } else {
        found = addresses(&resolver, &host, port.unwrap_or(PORT)).await?;
    }
    let mut once = Vec::with_capacity(found.len());
    for address in found.into_iter().take(MAX_ADDRESSES) {
        if !once.contains(&address) {
            once.push(address);
        }
    }
    if once.is_empty() {
        return Err(SeedError::NotFound { name: host, why: "it has no address".to_owned() });
    }
    Ok(once)
}

#[derive(Debug, PartialEq, Eq)]
enum Seed {
    Address(SocketAddr),
    Name(String, Option<u16>),
}

fn parse(text: &str) -> Result<Seed, SeedError> {
    let text = text.trim();
    let not_one = || SeedError::NotAnAddress(text.to_owned());
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Seed::Address(address));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(Seed::Address(SocketAddr::new(ip, PORT)));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| not_one())?)),
        None => (text, None),
    };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    // RFC 1035 §2.3.4.
    let is_name = !host.is_empty() && host.len() <= 253 && host.bytes().all(letter);
    if is_name { Ok(Seed::Name(host.to_owned(), port)) } else { Err(not_one()) }
}

/// The targets of a service, most wanted first (RFC 2782: lowest priority, then weight).
async fn services(resolver: &TokioResolver, name: &str) -> Result<Vec<(String, u16)>, SeedError> {
    let found = resolver
        .lookup(name, RecordType::SRV)
        .await
        .map_err(|error| SeedError::NotFound { name: name.to_owned(), why: error.to_string() })?;
    let mut targets: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| {
            let RData::SRV(srv) = &record.data else { return None };
            Some((srv.priority, srv.weight, srv.target.to_utf8(), srv.port))
        })
        .collect();
    targets.sort_by_key(|(priority, weight, _, _)| (*priority, u16::MAX - *weight));
    Ok(targets.into_iter().map(|(_, _, target, port)| (target, port)).collect())
}

async fn addresses(
    resolver: &TokioResolver,
    name: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, SeedError> {
    let found = resolver
        .lookup_ip(name)
        .await
        .map_err(|error| SeedError::NotFound { name: name.to_owned(), why: error.to_string() })?;
    Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        let address = |text: &str| Ok(Seed::Address(text.parse().unwrap()));
        assert_eq!(parse("192.0.2.1"), address("192.0.2.1:8085"));
        assert_eq!(parse(" 192.0.2.1:9 "), address("192.0.2.1:9"));
        assert_eq!(parse("2001:db8::1"), address("[2001:db8::1]:8085"));
        assert_eq!(parse("[2001:db8::1]"), address("[2001:db8::1]:8085"));
        assert_eq!(parse("[2001:db8::1]:9"), address("[2001:db8::1]:9"));
    }

    #[test]
    fn names_are_read_with_and_without_a_port() {
        let name = |host: &str, port| Ok(Seed::Name(host.to_owned(), port));
        assert_eq!(parse("gate.example"), name("gate.example", None));
        assert_eq!(parse("gate.example:9000"), name("gate.example", Some(9000)));
        assert_eq!(parse("_network._udp.example"), name("_network._udp.example", None));
    }

    #[test]
    fn what_is_no_address_is_named_in_the_error() {
        for text in ["", "gate:", "gate:70000", "a b", "https://gate.example", ":80"] {
            assert_eq!(parse(text), Err(SeedError::NotAnAddress(text.to_owned())));
        }
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let found = resolve("127.0.0.1:1234").await.unwrap();
        assert_eq!(found, ["127.0.0.1:1234".parse().unwrap()]);
    }
}

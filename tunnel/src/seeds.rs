//! Where a network is entered: addresses as people write them, turned into addresses that can be
//! dialled, through the resolver of the system.
//!
//! | Written | Means |
//! |---|---|
//! | `192.0.2.1`, `[2001:db8::1]:9000` | that address |
//! | `gate.example`, `gate.example:9000` | all its A and AAAA records; without any, its TXT records |
//! | `_network._udp.example` | its SRV records (RFC 2782), each target resolved; else TXT records |
//!
//! A TXT record counts when it reads `micro=host:port`, several of them with commas: for zones where
//! nothing else can be written. What it names is resolved by A and AAAA alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};

/// The port of links, where none is written.
pub const PORT: u16 = 8085;
/// What begins a name that is looked up as a service.
const SRV: &str = "_network._udp.";
/// What begins a TXT record that names seeds; zones have others for other readers.
const TXT: &str = "micro=";
/// Addresses taken from one name.
const MAX_ADDRESSES: usize = 64;
/// Names resolved for one name.
const MAX_TARGETS: usize = 16;
/// How long a name server may take, and how often it is asked again: whoever looks for its network
/// asks again anyway, and a server that comes back must not find it waiting for an old answer.
const TIMEOUT: Duration = Duration::from_secs(1);
const RETRIES: usize = 2;

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
    let resolver = resolver()?;
    let found = if host.starts_with(SRV) {
        match services(&resolver, &host).await {
            Ok(targets) => any(&resolver, targets).await?,
            Err(why) if why.is_empty => texts(&resolver, &host, why.into()).await?,
            Err(why) => return Err(why.into()),
        }
    } else {
        match addresses(&resolver, &host, port.unwrap_or(PORT)).await {
            Ok(found) => found,
            Err(why) if why.is_empty => texts(&resolver, &host, why.into()).await?,
            Err(why) => return Err(why.into()),
        }
    };
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

/// Made anew for each name: machines move between networks, and their name servers with them.
fn resolver() -> Result<TokioResolver, SeedError> {
    let no = |error: &dyn std::error::Error| SeedError::NoResolver(error.to_string());
    let mut builder = TokioResolver::builder_tokio().map_err(|error| no(&error))?;
    let options = builder.options_mut();
    (options.timeout, options.attempts) = (TIMEOUT, RETRIES);
    builder.build().map_err(|error| no(&error))
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

/// The targets of a service, most wanted first.
async fn services(resolver: &TokioResolver, name: &str) -> Result<Vec<(String, u16)>, Unresolved> {
    let found = resolver.lookup(name, RecordType::SRV).await;
    let found = found.map_err(|error| Unresolved::of(name, &error))?;
    let targets = found.answers().iter().filter_map(|record| {
        let RData::SRV(srv) = &record.data else { return None };
        Some((srv.priority, srv.weight, (srv.target.to_utf8(), srv.port)))
    });
    let chance = || f64::from(u32::from_be_bytes(crate::identity::random())) / f64::from(u32::MAX);
    Ok(in_order(targets.collect(), chance))
}

/// The lowest priority first; within one, each is first as often as its weight says (RFC 2782).
fn in_order<T>(targets: Vec<(u16, u16, T)>, mut chance: impl FnMut() -> f64) -> Vec<T> {
    // The earliest of several exponential waits is one's with the share that its rate has of all.
    let mut wait =
        |weight: u16| -chance().max(f64::MIN_POSITIVE).ln() / f64::from(weight).max(1e-6);
    let mut keyed: Vec<_> = targets
        .into_iter()
        .map(|(priority, weight, target)| (priority, wait(weight), target))
        .collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    keyed.into_iter().map(|(_, _, target)| target).collect()
}

/// The seeds in the TXT records of `name`; without any, `why` it has no address.
async fn texts(
    resolver: &TokioResolver,
    name: &str,
    why: SeedError,
) -> Result<Vec<SocketAddr>, SeedError> {
    let Ok(found) = resolver.lookup(name, RecordType::TXT).await else { return Err(why) };
    let mut seeds = Vec::new();
    for record in found.answers() {
        let RData::TXT(text) = &record.data else { continue };
        // One record is one text, whatever pieces it travels in (RFC 7208 §3.3).
        let text = text.txt_data.concat();
        let Ok(text) = std::str::from_utf8(&text) else { continue };
        let Some(listed) = text.strip_prefix(TXT) else { continue };
        seeds.extend(listed.split(',').filter_map(|seed| parse(seed).ok()));
    }
    if seeds.is_empty() {
        return Err(why);
    }
    let mut all = Vec::new();
    let mut names = Vec::new();
    for seed in seeds {
        match seed {
            Seed::Address(address) => all.push(address),
            Seed::Name(host, port) => names.push((host, port.unwrap_or(PORT))),
        }
    }
    match any(resolver, names).await {
        Ok(found) => all.extend(found),
        Err(why) if all.is_empty() => return Err(why.into()),
        Err(_) => {}
    }
    Ok(all)
}

/// The addresses of those names that have any; one that has none does not take the others away.
async fn any(
    resolver: &TokioResolver,
    names: Vec<(String, u16)>,
) -> Result<Vec<SocketAddr>, Unresolved> {
    let (mut all, mut failed) = (Vec::new(), None);
    let lookups = names
        .into_iter()
        .take(MAX_TARGETS)
        .map(|(name, port)| async move { addresses(resolver, &name, port).await });
    // All at once, in their order: one name server that is slow does not add up.
    for found in futures_util::future::join_all(lookups).await {
        match found {
            Ok(found) => all.extend(found),
            Err(why) => failed = Some(why),
        }
    }
    match failed {
        Some(why) if all.is_empty() => Err(why),
        Some(_) | None => Ok(all),
    }
}

async fn addresses(
    resolver: &TokioResolver,
    name: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, Unresolved> {
    let found = resolver.lookup_ip(name).await;
    let found = found.map_err(|error| Unresolved::of(name, &error))?;
    Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// A name that gave nothing.
#[derive(Debug)]
struct Unresolved {
    name: String,
    why: String,
    /// There is an answer, and nothing in it: other records may be there. A name server that does
    /// not answer would not answer for those either.
    is_empty: bool,
}

impl Unresolved {
    fn of(name: &str, error: &NetError) -> Self {
        let is_empty = error.is_no_records_found();
        Self { name: name.to_owned(), why: error.to_string(), is_empty }
    }
}

impl From<Unresolved> for SeedError {
    fn from(Unresolved { name, why, .. }: Unresolved) -> Self {
        Self::NotFound { name, why }
    }
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

    #[test]
    fn targets_come_by_priority_and_as_often_as_their_weight_says() {
        let targets = || vec![(2, 9, "later"), (1, 0, "spare"), (1, 1, "light"), (1, 3, "heavy")];
        let mut state = 1_u64;
        // Numerical Recipes' generator: any will do.
        let mut chance = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut heavy = 0;
        for _ in 0..1000 {
            let order = in_order(targets(), &mut chance);
            assert_eq!(order[2..], ["spare", "later"]);
            heavy += usize::from(order[0] == "heavy");
        }
        assert!((700..800).contains(&heavy), "three quarters: {heavy}");
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let found = resolve("127.0.0.1:1234").await.unwrap();
        assert_eq!(found, ["127.0.0.1:1234".parse().unwrap()]);
    }
}

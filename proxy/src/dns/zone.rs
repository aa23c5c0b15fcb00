//! What is under `micro.internal`: an answer to each question, out of what the network offers now.
//!
//! ```text
//! A      the virtual address of the name        TXT   labels, one record an instance
//! SRV    its ports there                        SOA, NS   of the zone itself
//! AAAA   the same, where it leads somewhere      PTR   of a virtual address, its name
//! else   there is such a name, and nothing of that kind
//! ```
//!
//! A name is read as the host of a request is ([`crate::host`]): `v2.shop.eu-fra.micro.internal` is
//! version v2 of shop in eu/fra.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use http::HeaderMap;
use proto::Selector;
use proto::record::Protocol;
use router::{Instance, Routes, ServiceRoutes};

use super::places::RANGE;
use super::ports::Port;
use crate::host;
use crate::tcp::Destination;

/// The zone.
pub(super) const ZONE: &str = "micro.internal.";
/// How long an answer may be kept, seconds: what changes is noticed soon, and a program that asks for
/// every call does not ask a thousand times a second.
const TTL: u32 = 5;
/// The same for what is not there: it may come at any moment.
const NEGATIVE_TTL: u32 = 1;
/// Instances of which labels are told.
const MAX_TOLD: usize = 16;
/// Bytes of one string of a TXT record (RFC 1035 §3.3.14).
const MAX_STRING: usize = 255;
/// Bytes that an answer over UDP has at most, whatever who asks may take: what passes everywhere
/// without being cut (RFC 9715).
const MAX_UDP: u16 = 1232;
/// The same without EDNS (RFC 1035 §4.2.1).
const PLAIN_UDP: u16 = 512;

/// Whose question it is.
#[derive(Debug)]
pub(super) enum Whose {
    /// Ours.
    Zone(Message),
    /// The system's other name servers'.
    Other,
    /// Nobody's: it is none.
    Nobody,
}

/// Gives addresses to names. The name is in small letters and without the zone.
pub(super) trait Addresses {
    /// The virtual address of a name, where `to` listens on these ports from now on.
    fn address(&self, name: &str, to: &Destination, ports: &BTreeSet<Port>) -> Option<Ipv4Addr>;
    /// The address of IPv6 that stands for it, where connections to such are led here.
    fn v6(&self, address: Ipv4Addr) -> Option<Ipv6Addr>;
    /// Whose address it is.
    fn name(&self, address: Ipv4Addr) -> Option<String>;
}

/// Reads a question; nothing that is an answer.
#[must_use]
pub(super) fn read(bytes: &[u8]) -> Whose {
    let Ok(message) = Message::from_vec(bytes) else { return Whose::Nobody };
    if message.metadata.message_type != MessageType::Query {
        return Whose::Nobody;
    }
    let ours = match &message.queries[..] {
        [query] => is_ours(&query.name),
        // None is the same as nobody's; several were never specified (RFC 9619).
        _ => true,
    };
    if ours { Whose::Zone(message) } else { Whose::Other }
}

fn is_ours(name: &Name) -> bool {
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    let zone = ZONE.trim_end_matches('.');
    let within = text.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    within || reverse(name).is_some_and(|address| RANGE.contains(address))
}

/// The address that a name of `in-addr.arpa` is of.
fn reverse(name: &Name) -> Option<Ipv4Addr> {
    let text = name.to_ascii().to_ascii_lowercase();
    let numbers = text.trim_end_matches('.').strip_suffix(".in-addr.arpa")?;
    let mut parts = [0; 4];
    let mut all = numbers.split('.');
    for part in parts.iter_mut().rev() {
        *part = all.next()?.parse().ok()?;
    }
    all.next().is_none().then(|| Ipv4Addr::from(parts))
}

/// The answer to a question of ours.
#[must_use]
pub(super) fn answer(question: &Message, routes: &Routes, addresses: &impl Addresses) -> Message {
    let asked = &question.metadata;
    let mut out = Message::response(asked.id, asked.op_code);
    out.metadata.recursion_desired = asked.recursion_desired;
    out.metadata.recursion_available = true;
    out.queries.clone_from(&question.queries);
    if let Some(edns) = &question.edns {
        let mut own = Edns::new();
        own.set_max_payload(MAX_UDP);
        own.set_dnssec_ok(edns.flags().dnssec_ok);
        out.set_edns(own);
        if edns.version() != 0 {
            out.metadata.response_code = ResponseCode::BADVERS;
            return out;
        }
    }
    out.metadata.response_code = match (asked.op_code, &question.queries[..]) {
        (OpCode::Query, [query]) if query.query_class == DNSClass::IN => {
            out.metadata.authoritative = true;
            let code = fill(&mut out, query, routes, addresses);
            if out.answers.is_empty() {
                out.add_authority(soa(NEGATIVE_TTL));
            }
            code
        }
        (OpCode::Query, [_]) => ResponseCode::Refused,
        (OpCode::Query, _) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    out
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of all other types there is nothing, known or not"
)]
fn fill(
    out: &mut Message,
    query: &Query,
    routes: &Routes,
    addresses: &impl Addresses,
) -> ResponseCode {
    let (name, kind) = (&query.name, query.query_type);
    let record = |ttl, data| Record::from_rdata(name.clone(), ttl, data);
    if let Some(address) = reverse(name) {
        let Some(of) = addresses.name(address) else { return ResponseCode::NXDomain };
        if matches!(kind, RecordType::PTR | RecordType::ANY)
            && let Some(of) = full(&of)
        {
            out.add_answer(record(TTL, RData::PTR(PTR(of))));
        }
        return ResponseCode::NoError;
    }
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.').strip_suffix(ZONE.trim_end_matches('.'));
    let text = text.unwrap_or_default().trim_end_matches('.');
    if text.is_empty() {
        match kind {
            RecordType::SOA | RecordType::ANY => {
                out.add_answer(soa(TTL));
            }
            RecordType::NS => {
                out.add_answer(record(TTL, RData::NS(NS(server()))));
            }
            _ => {}
        }
        return ResponseCode::NoError;
    }
    let (text, transport) = if kind == RecordType::SRV { of_transport(text) } else { (text, None) };
    let Some((service, to)) = meant(text, routes) else { return ResponseCode::NXDomain };
    let fit: Vec<&Instance> = match service.lookup(&to.selector) {
        router::Lookup::Found(candidates) => candidates.all().collect(),
        router::Lookup::Unknown | router::Lookup::NoMatch(_) | router::Lookup::Unreachable(_) => {
            Vec::new()
        }
    };
    let ports: BTreeSet<Port> = fit.iter().filter_map(|one| port(one)).collect();
    match kind {
        RecordType::A | RecordType::ANY => {
            if let Some(address) = addresses.address(text, &to, &ports) {
                out.add_answer(record(TTL, RData::A(A(address))));
            }
        }
        RecordType::AAAA => {
            if let Some(address) = addresses.address(text, &to, &ports)
                && let Some(v6) = addresses.v6(address)
            {
                out.add_answer(record(TTL, RData::AAAA(AAAA(v6))));
            }
        }
        RecordType::SRV => {
            let target = full(text);
            let (Some(address), Some(target)) = (addresses.address(text, &to, &ports), target)
            else {
                return ResponseCode::NoError;
            };
            let numbers: BTreeSet<u16> = ports
                .into_iter()
                .filter(|port| transport.is_none_or(|udp| udp == matches!(port, Port::Udp(_))))
                .map(Port::number)
                .collect();
            for number in numbers {
                out.add_answer(record(TTL, RData::SRV(SRV::new(0, 1, number, target.clone()))));
            }
            let here = Record::from_rdata(target, TTL, RData::A(A(address)));
            out.add_additional(here);
        }
        RecordType::TXT => {
            for instance in fit.into_iter().take(MAX_TOLD) {
                out.add_answer(record(TTL, RData::TXT(TXT::new(labels(instance)))));
            }
        }
        _ => {}
    }
    ResponseCode::NoError
}

/// The service that a name means, with what its instances must be like.
pub(super) fn meant<'a>(
    name: &str,
    routes: &'a Routes,
) -> Option<(&'a ServiceRoutes, Destination)> {
    let (service, implied) = host::known_by(name, &HeaderMap::new(), routes)?;
    let selector = Selector::of(implied.requirements(false, false).ok()?).ok()?;
    let to = Destination { service: service.name.as_str().to_owned(), selector };
    Some((service, to))
}

/// `_postgresql._tcp.db` asks where db is, whatever the program calls what it speaks (RFC 2782); with
/// it whether that is UDP.
fn of_transport(text: &str) -> (&str, Option<bool>) {
    for (label, udp) in [("._tcp.", false), ("._udp.", true)] {
        if let Some((service, rest)) = text.split_once(label)
            && service.starts_with('_')
        {
            return (rest, Some(udp));
        }
    }
    (text, None)
}

fn port(instance: &Instance) -> Option<Port> {
    let number = instance.address.rsplit_once(':')?.1.parse().ok()?;
    let udp = instance.protocol == Protocol::Udp;
    Some(if udp { Port::Udp(number) } else { Port::Tcp(number) })
}

/// Its labels as strings of a TXT record, none of them cut.
fn labels(instance: &Instance) -> Vec<String> {
    let told = instance.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let told = told.filter(|text| text.len() <= MAX_STRING);
    let all: Vec<_> = told.collect();
    // A record has at least one string.
    if all.is_empty() { vec![String::new()] } else { all }
}

fn full(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{name}.{ZONE}")).ok()
}

fn server() -> Name {
    Name::from_ascii(format!("node.{ZONE}")).unwrap_or_default()
}

fn soa(ttl: u32) -> Record {
    let zone = Name::from_ascii(ZONE).unwrap_or_default();
    let data = SOA::new(server(), server(), 1, 3600, 600, 86400, NEGATIVE_TTL);
    Record::from_rdata(zone, ttl, RData::SOA(data))
}

/// The bytes of an answer: over UDP no more than who asks takes, and a mark where that is not all.
#[must_use]
pub(super) fn write(answer: &Message, question: &Message, udp: bool) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let taken = question.edns.as_ref().map_or(PLAIN_UDP, Edns::max_payload);
    let most = usize::from(taken.clamp(PLAIN_UDP, MAX_UDP));
    if !udp || bytes.len() <= most {
        return Some(bytes);
    }
    let mut short = answer.clone();
    short.answers.clear();
    short.authorities.clear();
    short.additionals.clear();
    short.metadata.truncation = true;
    short.to_vec().ok()
}

/// Says that a question was not answered, without looking at what it asks: its head with another code.
#[must_use]
pub(super) fn failed(question: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    let message = Message::from_vec(question).ok()?;
    let mut out = Message::error_msg(message.metadata.id, message.metadata.op_code, code);
    out.metadata.recursion_desired = message.metadata.recursion_desired;
    out.metadata.recursion_available = true;
    out.queries = message.queries;
    out.to_vec().ok()
}

/// The answer to a question as it is asked over UDP, of a network without services: what a fuzzer can
/// reach. `None` where another name server is asked, or nobody.
#[must_use]
pub fn answered(question: &[u8]) -> Option<Vec<u8>> {
    let routes = Routes::empty(proto::NodeId::from_bytes([0; 32]));
    let Whose::Zone(message) = read(question) else { return None };
    write(&answer(&message, &routes, &Nowhere), &message, true)
}

/// No addresses.
struct Nowhere;

impl Addresses for Nowhere {
    fn address(&self, _: &str, _: &Destination, _: &BTreeSet<Port>) -> Option<Ipv4Addr> {
        None
    }

    fn v6(&self, _: Ipv4Addr) -> Option<Ipv6Addr> {
        None
    }

    fn name(&self, _: Ipv4Addr) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests;

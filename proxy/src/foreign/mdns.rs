//! Announcements of go-micro on the local network: multicast DNS in the domain `micro.`, and not `local.`.
//!
//! ```text
//! ID.SERVICE.micro.       SRV   port, host          TTL 120, and 0 when it goes (RFC 6762 §10.1)
//!                         TXT   hex of zlib of JSON, cut in strings of 255 bytes
//! host                    A, AAAA
//! SERVICE.micro.          PTR   ID.SERVICE.micro.
//! _services.micro.        PTR   SERVICE._services.micro.
//! ```
//!
//! All records of an instance come in one packet, so each is read for itself. Whoever is on the network
//! may send anything: what is unpacked is bounded, and what is not go-micro's is passed over.

#![expect(clippy::wildcard_enum_match_arm, reason = "records of all other types are passed over")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData, Record};
use router::Registration;
use serde::Deserialize;
use serde_json::Value;

use crate::own::etcd::read_value;

/// The name under which go-micro lists services.
const SERVICES: &str = "_services";
/// Bytes of what a TXT record unpacks to; a packet of 9000 bytes could hold far more.
const MAX_UNPACKED: u64 = 64 << 10;
/// Records of one packet that are looked at.
const MAX_RECORDS: usize = 256;

/// What a packet says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// Instances, announced or taking leave.
    pub instances: Vec<Announced>,
    /// Names of services, to be asked for.
    pub services: Vec<String>,
}

/// One instance of a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Announced {
    /// The whole name, `ID.SERVICE.micro.`.
    pub name: String,
    /// Seconds it may be remembered; 0: it goes.
    pub ttl: u32,
    /// The instance, or why it is none.
    pub read: Result<Registration, String>,
}

/// The JSON of a TXT record.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(rename = "Service")]
    service: String,
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "Endpoints")]
    endpoints: Value,
    #[serde(rename = "Metadata")]
    metadata: Option<BTreeMap<String, String>>,
}

/// Reads a packet: `None` when it is not an answer, or not DNS at all.
#[must_use]
pub fn read(packet: &[u8], domain: &str) -> Option<Heard> {
    // Questions are most of what is heard, and answers have the highest bit of the third byte set
    // (RFC 1035 §4.1.1).
    packet.get(2).filter(|flags| **flags & 0x80 != 0)?;
    let message = Message::from_vec(packet).ok()?;
    let records: Vec<&Record> = message.all_sections().take(MAX_RECORDS).collect();
    let suffix = format!(".{domain}.");
    let mut heard = Heard::default();
    for record in &records {
        let name = text(&record.name);
        match &record.data {
            RData::PTR(to) if name == format!("{SERVICES}{suffix}") => {
                let to = text(&to.0);
                let service = to.strip_suffix(&format!(".{name}"));
                heard.services.extend(service.map(str::to_owned));
            }
            RData::SRV(srv) if name.ends_with(&suffix) => {
                if name.ends_with(&format!(".{SERVICES}{suffix}")) {
                    continue;
                }
                let host = addresses(&records, &srv.target).next();
                let read = instance(&records, record, &suffix, host, srv.port);
                heard.instances.push(Announced { name, ttl: record.ttl, read });
            }
            _ => {}
        }
    }
    Some(heard)
}

/// The addresses of a host, those of IPv4 first.
fn addresses<'a>(records: &'a [&Record], host: &'a Name) -> impl Iterator<Item = IpAddr> + 'a {
    let of = move |v4: bool| {
        let same = records.iter().filter(move |record| record.name == *host);
        same.filter_map(move |record| match &record.data {
            RData::A(ip) if v4 => Some(IpAddr::from(ip.0)),
            RData::AAAA(ip) if !v4 => Some(IpAddr::from(ip.0)),
            _ => None,
        })
    };
    of(true).chain(of(false))
}

fn instance(
    records: &[&Record],
    srv: &Record,
    suffix: &str,
    host: Option<IpAddr>,
    port: u16,
) -> Result<Registration, String> {
    let strings = records.iter().find_map(|record| match &record.data {
        RData::TXT(txt) if record.name == srv.name => Some(txt.txt_data.concat()),
        _ => None,
    });
    let said = unpack(&strings.ok_or("there is no TXT record with it")?)?;
    let name = text(&srv.name);
    let id = name.strip_suffix(&format!(".{}{suffix}", said.service));
    let id = id.ok_or("its name is of another service than its TXT record")?;
    let host = host.ok_or("there is no address with it")?;
    let address = std::net::SocketAddr::new(host, port).to_string();
    // The same as a value of etcd, but for how it is written.
    let node = serde_json::json!({ "id": id, "address": address, "metadata": said.metadata });
    let value = serde_json::json!({
        "name": said.service, "version": said.version, "endpoints": said.endpoints, "nodes": [node],
    });
    read_value(value.to_string().as_bytes())
}

fn unpack(hex: &[u8]) -> Result<Said, String> {
    let packed = data_encoding::HEXLOWER_PERMISSIVE.decode(hex);
    let packed = packed.map_err(|_| "its TXT record is not hexadecimal")?;
    let mut json = Vec::new();
    // One more than may be, so that too much is seen.
    let mut unpacked = flate2::read::ZlibDecoder::new(&packed[..]).take(MAX_UNPACKED + 1);
    unpacked.read_to_end(&mut json).map_err(|_| "its TXT record is not packed by zlib")?;
    if json.len() as u64 > MAX_UNPACKED {
        return Err(format!("its TXT record unpacks to more than {MAX_UNPACKED} bytes"));
    }
    serde_json::from_slice(&json).map_err(|why| format!("its TXT record is not go-micro's: {why}"))
}

/// A name as go-micro writes it.
fn text(name: &Name) -> String {
    let mut text = name.to_ascii();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

/// The questions for the instances of `services`, and for services, one packet each few.
#[must_use]
pub fn questions<'a>(domain: &str, services: impl Iterator<Item = &'a str>) -> Vec<Vec<u8>> {
    /// What fits into a packet with room to spare.
    const EACH: usize = 4;
    let names = std::iter::once(SERVICES).chain(services);
    let names: Vec<Name> =
        names.filter_map(|name| Name::from_ascii(format!("{name}.{domain}.")).ok()).collect();
    let ask = |names: &[Name]| {
        let mut packet = Vec::with_capacity(512);
        // No id, no flags, so many questions and nothing else (RFC 6762 §18).
        packet.extend([0, 0, 0, 0, 0, u8::try_from(names.len()).unwrap_or(0), 0, 0, 0, 0, 0, 0]);
        for name in names {
            for label in name.iter() {
                packet.push(u8::try_from(label.len()).unwrap_or(0));
                packet.extend(label);
            }
            // PTR, IN.
            packet.extend([0, 0, 12, 0, 1]);
        }
        packet
    };
    names.chunks(EACH).map(ask).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use hickory_proto::op::{MessageType, OpCode};
    use hickory_proto::rr::rdata::{A, PTR, SRV, TXT};
    use proptest::prelude::*;

    use super::*;

    fn packed(json: &[u8]) -> String {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(json).unwrap();
        data_encoding::HEXLOWER.encode(&zlib.finish().unwrap())
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn packet(of: &str, txt: &str, ttl: u32) -> Vec<u8> {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        let srv = SRV::new(10, 1, 4000, name("vm."));
        let strings = txt.as_bytes().chunks(255).collect();
        message.add_answer(Record::from_rdata(name(of), ttl, RData::SRV(srv)));
        let a = RData::A(A::new(10, 0, 0, 7));
        message.add_answer(Record::from_rdata(name("vm."), ttl, a));
        let txt = RData::TXT(TXT::from_bytes(strings));
        message.add_answer(Record::from_rdata(name(of), ttl, txt));
        message.to_vec().unwrap()
    }

    const JSON: &[u8] =
        br#"{"Service":"go.micro.srv.greeter","Version":"v2","Endpoints":[{"name":"Say.Hello",
        "request":null,"response":null,"metadata":null}],"Metadata":{"protocol":"mucp"}}"#;

    #[test]
    fn what_go_micro_announces_is_read() {
        let of = "go.micro.srv.greeter-1.go.micro.srv.greeter.micro.";
        let heard = read(&packet(of, &packed(JSON), 120), "micro").unwrap();
        let one = &heard.instances[0];
        assert_eq!((one.name.as_str(), one.ttl), (of, 120));
        let said = one.read.as_ref().unwrap();
        assert_eq!((said.service.as_str(), said.version.as_str()), ("go.micro.srv.greeter", "v2"));
        assert_eq!(said.instance.id, "go.micro.srv.greeter-1");
        assert_eq!(said.instance.address, "10.0.0.7:4000");
        assert_eq!(said.instance.metadata.get("protocol"), Some("mucp"));
        assert_eq!(said.endpoints[0].name, "Say.Hello");
        let away = read(&packet(of, &packed(JSON), 0), "micro").unwrap();
        assert_eq!(away.instances[0].ttl, 0);
        assert!(read(&packet(of, &packed(JSON), 1), "local").unwrap().instances.is_empty());
    }

    #[test]
    fn services_are_listed_and_asked_for() {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        let ptr = RData::PTR(PTR(name("go.micro.srv.greeter._services.micro.")));
        message.add_answer(Record::from_rdata(name("_services.micro."), 120, ptr));
        let heard = read(&message.to_vec().unwrap(), "micro").unwrap();
        assert_eq!(heard.services, ["go.micro.srv.greeter"]);
        let asked = questions("micro", ["a.b", "c", "d", "e", "f"].into_iter());
        assert_eq!(asked.len(), 2);
        let first = Message::from_vec(&asked[0]).unwrap();
        let names: Vec<_> = first.queries.iter().map(|query| query.name().to_ascii()).collect();
        assert_eq!(names, ["_services.micro.", "a.b.micro.", "c.micro.", "d.micro."]);
        assert!(read(&asked[0], "micro").is_none(), "a question is no answer");
    }

    #[test]
    fn what_is_hostile_is_named_and_bounded() {
        let bomb = packed(&vec![b' '; 4 << 20]);
        assert!(bomb.len() < 12_000, "{}", bomb.len());
        let of = "a.s.micro.";
        for (txt, why) in [
            (bomb.as_str(), "more than"),
            ("zz", "not hexadecimal"),
            ("00ff", "zlib"),
            (&packed(b"7"), "not go-micro's"),
            (&packed(br#"{"Service":"other"}"#), "another service"),
            (&packed(br#"{"Service":""}"#), "another service"),
        ] {
            let heard = read(&packet(of, txt, 120), "micro").unwrap();
            let told = heard.instances[0].read.as_ref().unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_read_or_passed_over(packet: Vec<u8>, at in 0usize..600, byte: u8) {
            let _ = read(&packet, "micro");
            let mut whole = super::tests::packet("a.s.micro.", &packed(JSON), 120);
            let at = at % whole.len();
            whole[at] = byte;
            let _ = read(&whole, "micro");
        }
    }
}

//! One function for each thing that takes bytes of strangers. Each must end, must not panic, and
//! checks what holds for every input. The fuzzer calls them with what it makes up; the test
//! `corpus` replays what is kept.

mod mind;

use bytes::{Bytes, BytesMut};
use proto::client_hello::HelloReader;
use proto::exchange::{Part, Reader};
use proto::frame::{Frame, MAX_FRAME};
use proto::record::Protocol;
use proto::rule::RuleSet;
use proto::selector::Requirement;
use proto::sign::Verify;
use proto::{
    Credential, Fault, NetworkId, Open, PublicKey, Record, Selector, Signature, Ticket, Topic,
    TopicPattern, UnixTime, Verified,
};
use proxy::foreign::kubernetes::{Event, Wanted};
use proxy::foreign::{consul, mdns};
use proxy::mucp::{self, Decoder, Message, Side};
use proxy::nats::{Command, ParseError, Parser};

/// A thing to be fed.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub(crate) const ALL: [(&str, Target); 23] = [
    ("client_hello", client_hello),
    ("consul", consul),
    ("credential", credential),
    ("dns", dns),
    ("exchange", exchange),
    ("fault", fault),
    ("frame", frame),
    ("head", head),
    ("join", join),
    ("kubernetes", kubernetes),
    ("mdns", mdns),
    ("mucp", mucp),
    ("nats", nats),
    ("open", open),
    ("publish", publish),
    ("record", record),
    ("router", mind::router),
    ("rules", rules),
    ("selector", selector),
    ("socks", socks),
    ("stored", stored),
    ("ticket", ticket),
    ("topic", topic),
];

/// Feeds the thing named `name`.
///
/// # Panics
/// When there is none of that name, or the input found a mistake.
pub(crate) fn feed(name: &str, input: &[u8]) {
    let (_, target) = ALL.iter().find(|(known, _)| *known == name).expect("a known target");
    target(input);
}

/// Believes every signature, so that what is behind the check is fed as well.
struct Trusting;

impl Verify for Trusting {
    fn verify(&self, _: &PublicKey, _: &[u8], _: &Signature) -> bool {
        true
    }
}

/// What is read, written and read again, is the same.
fn frame(input: &[u8]) {
    let mut bytes = BytesMut::from(input);
    while let Ok(Some(frame)) = Frame::decode(&mut bytes, MAX_FRAME) {
        let mut written = BytesMut::new();
        frame.encode(&mut written);
        let again = Frame::decode(&mut written, MAX_FRAME);
        assert_eq!(again, Ok(Some(frame)));
        assert!(written.is_empty());
    }
}

fn open(input: &[u8]) {
    let mut bytes = BytesMut::from(input);
    if let Ok(Some(open)) = Open::decode(&mut bytes) {
        let mut written = BytesMut::new();
        open.encode(&mut written);
        assert_eq!(Open::decode(&mut written), Ok(Some(open)));
    }
}

/// However the bytes are cut, the parts are the same.
fn exchange(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    let whole = parts(input, input.len().max(1));
    let cut = parts(input, usize::from(cut).max(1));
    // A part that cannot be read ends both; body bytes come in other pieces, but no other bytes.
    assert_eq!(whole, cut);
}

fn parts(input: &[u8], size: usize) -> (Vec<Part>, bool) {
    let mut reader = Reader::default();
    let mut parts: Vec<Part> = Vec::new();
    for chunk in input.chunks(size) {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match (reader.next(), parts.last_mut()) {
                (Ok(None), _) => break,
                (Err(_), _) => return (parts, false),
                (Ok(Some(Part::Data(more))), Some(Part::Data(before))) => {
                    *before = [&before[..], &more[..]].concat().into();
                }
                (Ok(Some(part)), _) => parts.push(part),
            }
        }
    }
    (parts, true)
}

/// However the bytes are cut, the hello is the same, and its name is one.
fn client_hello(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    let read = |size: usize| {
        let mut reader = HelloReader::default();
        input.chunks(size.max(1)).find_map(|piece| reader.push(piece).transpose())
    };
    let whole = read(input.len());
    assert_eq!(whole, read(usize::from(cut)));
    if let Some(Ok(hello)) = whole
        && let Some(name) = hello.server_name
    {
        assert!(!name.is_empty() && name.len() <= 253 && name == name.to_ascii_lowercase());
    }
}

/// What an agent of Consul says: the names of its catalog, and the instances of one.
fn consul(input: &[u8]) {
    if let Ok(names) = consul::names(input) {
        assert!(names.iter().all(|name| name != "consul"));
    }
    if let Ok(entries) = consul::instances("shop", input, Protocol::Http1) {
        for (key, read) in entries {
            assert!(key.starts_with("shop/"));
            if let Ok(one) = read {
                assert_eq!(one.service.as_str(), "shop");
            }
        }
    }
}

/// A question for names: who is answered can read the answer, and it is to this question.
fn dns(input: &[u8]) {
    if let Some(answer) = proxy::answered(input) {
        assert!(answer.len() >= 12 && answer[..2] == input[..2], "the head and the number");
        assert_eq!(answer[2] & 0x80, 0x80, "an answer");
        assert_eq!(proxy::answered(&answer), None, "answers are not answered");
    }
}

/// What an API server of Kubernetes says: a list, or a line of a watch.
fn kubernetes(input: &[u8]) {
    let wanted = Wanted { protocol: Protocol::Http1, port: None, of_all: true };
    let listed = wanted.page(input).map(|page| page.slices).unwrap_or_default();
    let told = match wanted.event(input) {
        Ok(Event::Put(slice, _)) => Some(slice),
        Ok(Event::Gone(..) | Event::Mark(_) | Event::Relist) | Err(_) => None,
    };
    for slice in listed.into_iter().chain(told) {
        for (key, _) in slice.entries {
            assert!(key.starts_with(&slice.key), "{key} is of the slice {}", slice.key);
        }
    }
}

/// What is heard of other machines on the local network.
fn mdns(input: &[u8]) {
    let heard = mdns::read(input, "micro");
    assert!(heard.is_none() || input.len() > 11, "less than a head is nothing");
}

/// The head of a packet to be relayed: no longer than the packet.
fn socks(input: &[u8]) {
    if let Some((head, host, _port)) = proxy::socks_packet(&Bytes::copy_from_slice(input)) {
        assert!(head <= input.len() && host.len() <= 255);
    }
}

/// What a client of NATS says, cut in two ways.
fn nats(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    let whole = commands(input, input.len().max(1));
    assert_eq!(whole, commands(input, usize::from(cut).max(1)));
}

fn commands(input: &[u8], size: usize) -> (Vec<Command>, Option<ParseError>) {
    let (mut parser, mut come, mut found) = (Parser::default(), BytesMut::new(), Vec::new());
    for piece in input.chunks(size) {
        come.extend_from_slice(piece);
        loop {
            match parser.next(&mut come) {
                Ok(Some(command)) => found.push(command),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// The frames of messages of topics; a whole one is written as it was read.
fn publish(input: &[u8]) {
    let mut reader = proto::publish::Reader::default();
    reader.push(input);
    while let Ok(Some(frame)) = reader.next() {
        let proto::publish::Frame::Whole(head, payload) = frame else { continue };
        let first = proto::publish::whole(&head, &payload, &mut proto::publish::Known::default());
        let mut again = proto::publish::Reader::default();
        again.push(&first);
        again.push(&payload);
        assert_eq!(again.next(), Ok(Some(proto::publish::Frame::Whole(head, payload))));
    }
}

/// A pattern, a line break, a topic: a table finds it if and only if it matches.
fn topic(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n').map(Bytes::copy_from_slice);
    let (Some(pattern), Some(topic)) = (lines.next(), lines.next()) else { return };
    let (Ok(pattern), Ok(topic)) = (TopicPattern::new(pattern), Topic::new(topic)) else { return };
    let mut table: router::topics::Table<()> = router::topics::Table::default();
    table.update("", &pattern, |()| true);
    let mut found = false;
    table.matches("", &topic, |()| found = true);
    assert_eq!(found, pattern.matches(&topic));
}

fn record(input: &[u8]) {
    let Ok(record) = Record::decode(Bytes::copy_from_slice(input)) else { return };
    assert_eq!(record.bytes(), input, "it is passed on as it came");
    let network = NetworkId::from_bytes([0; 32]);
    let _ = Verified::check(record, network, UnixTime(1), &Trusting);
}

fn credential(input: &[u8]) {
    let Ok(credential) = Credential::decode(Bytes::copy_from_slice(input)) else { return };
    let written = credential.encode();
    assert_eq!(Credential::decode(written), Ok(credential.clone()));
    let network = credential.issuer().network();
    let _ = credential.check(network, &credential.grant().key, UnixTime(1), &Trusting);
}

fn ticket(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        let again = ticket.to_text().parse::<Ticket>().expect("what is written can be read");
        assert_eq!(again.to_text(), ticket.to_text());
    }
}

fn head(input: &[u8]) {
    for response in [false, true] {
        let mut bytes = Bytes::copy_from_slice(input);
        let begun = if response {
            proto::head::take_response(&mut bytes).is_ok()
        } else {
            proto::head::take_request(&mut bytes).is_ok()
        };
        let mut left = bytes.len();
        while begun && let Ok(Some(_)) = proto::head::take_field(&mut bytes) {
            assert!(bytes.len() < left, "each field takes something");
            left = bytes.len();
        }
    }
}

fn fault(input: &[u8]) {
    if let Ok(fault) = Fault::decode(Bytes::copy_from_slice(input)) {
        let mut written = BytesMut::new();
        fault.encode(&mut written);
        assert_eq!(Fault::decode(written.freeze()), Ok(fault));
    }
}

fn join(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(request) = proto::join::JoinRequest::decode(bytes.clone()) {
        assert!(proto::join::JoinRequest::decode(request.encode()).is_ok());
    }
    let _ = proto::join::Answer::decode(bytes);
}

/// However the bytes are cut, the messages are the same; what one asks for has one path, and its
/// error comes back from gRPC.
fn mucp(input: &[u8]) {
    let Some((&cut, input)) = input.split_first() else { return };
    for side in [Side::Requests, Side::Responses] {
        let whole = messages(side, input, input.len().max(1));
        assert_eq!(whole, messages(side, input, usize::from(cut).max(1)));
        for message in whole.iter().flatten() {
            if let Some(error) = message.headers.get("micro-error") {
                assert!(
                    mucp::failure::to_mucp(&mucp::failure::to_grpc(error.as_bytes())).is_some()
                );
            }
            if let Ok(request) = mucp::Request::read(message) {
                assert_eq!(request.path().matches('/').count(), 2, "{}", request.path());
                assert_eq!(request.headers().get_all("content-type").iter().count(), 1);
            }
        }
    }
}

/// `None`: something is no message.
fn messages(side: Side, input: &[u8], size: usize) -> Option<Vec<Message>> {
    let mut decoder = Decoder::new(side, 4096, 4096);
    let (mut bytes, mut all) = (BytesMut::new(), Vec::new());
    for chunk in input.chunks(size) {
        bytes.extend_from_slice(chunk);
        while let Some(message) = decoder.decode(&mut bytes).ok()? {
            all.push(message);
        }
    }
    Some(all)
}

/// What is found in a file is what was written, and all else is told.
fn stored(input: &[u8]) {
    let Some((&few, file)) = input.split_first() else { return };
    let (first, below) = (7, 7 + u64::from(few));
    let found = proto::stored::scan(file, first, below);
    assert_eq!(found.end + found.torn, file.len());
    let mut after = 0;
    for (number, &offset) in (first..below).zip(&found.offsets) {
        if offset == proto::stored::MISSING {
            let told = |(_, (from, to)): &(usize, (u64, u64))| (*from..=*to).contains(&number);
            assert!(found.damage.iter().any(told), "{number} is lost and not told");
            continue;
        }
        assert!(offset as usize >= after);
        after = offset as usize;
        if let Ok(record) = proto::stored::record::read(&file[after..]) {
            assert_eq!(record.number, number);
            let mut written = BytesMut::new();
            record.put(&mut written);
            assert_eq!(written, file[after..after + written.len()]);
        }
    }
    assert!(found.offsets.len() as u64 <= below - first);
}

fn rules(input: &[u8]) {
    if let Ok(rules) = RuleSet::decode(Bytes::copy_from_slice(input)) {
        assert_eq!(rules.check(), Ok(()));
        assert_eq!(RuleSet::decode(rules.encode()), Ok(rules));
    }
}

/// A selector, and the values of headers that have nothing but values.
fn selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lists = ["version", "region"].map(|key| Requirement::any_of(key, text).ok());
    let parts = lists.into_iter().flatten().filter_map(|one| Selector::of([one]).ok());
    for selector in parts.chain(text.parse()) {
        let written = selector.to_string();
        // Quotes may make it longer than what is read.
        if written.len() <= proto::selector::MAX_TEXT {
            assert_eq!(written.parse::<Selector>(), Ok(selector));
        }
    }
}

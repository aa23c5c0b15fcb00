//! HTTP/2 floods at the proxy port (reliability classes 3 and 4): each ends with the connection, or costs nothing that
//! lasts, and other callers do not notice.

use tests::hostile::frames::{Client, END_HEADERS, END_STREAM, End, Kind, frame, get_web, indexed};
use tests::hostile::origin::Origin;
use tests::hostile::{Alone, Beat, GROWTH_KIB, until};

/// More than any bound of the node allows to be said at once.
const MANY: usize = 100_000;
/// `ENHANCE_YOUR_CALM` (RFC 9113 §7).
const CALM: End = End::GoAway(0xb);
/// Requests on one connection: many times what may be open at once.
const STREAMS: usize = 20_000;

/// A node with a service, a caller that behaves well, and what the flood is measured by.
struct Ground {
    node: Alone,
    origin: Origin,
    beat: Beat,
    before: u64,
}

impl Ground {
    fn up() -> Option<Self> {
        let node = Alone::up(&[])?;
        let origin = Origin::start("");
        node.expose("web", origin.address, "http");
        let beat = Beat::start(node.proxy);
        beat.goes_on(20);
        // What the first HTTP/2 connection of a process costs is no flood's doing.
        let mut first = Client::connect(node.proxy);
        assert!(first.say(&request(1, END_STREAM)));
        until("a call by hand", || first.heard().heads == 1);
        assert_eq!(first.end().0, End::Open);
        assert_eq!(origin.take().len(), 1);
        let before = node.rss_kib();
        Some(Self { node, origin, beat, before })
    }

    /// Everybody else is served, and the node is as large as it was, more or less.
    fn stands(mut self, what: &str) {
        self.beat.goes_on(20);
        assert!(self.node.running(), "{what} ended the node");
        let grown = self.node.rss_kib().saturating_sub(self.before);
        tests::say(&format!("{what}: memory + {grown} KiB"));
        assert!(grown <= GROWTH_KIB, "{what}: memory + {grown} KiB");
        self.beat.stop();
    }
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    frame(Kind::Headers, END_HEADERS | flags, stream, &get_web())
}

fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2).take(STREAMS)
}

#[test]
fn streams_that_are_opened_and_reset_at_once_end_the_connection() {
    let Some(ground) = Ground::up() else { return };
    let mut client = Client::connect(ground.node.proxy);
    let cancel = 8_u32.to_be_bytes();
    let said = streams().take_while(|stream| {
        let mut both = request(*stream, END_STREAM);
        both.extend(frame(Kind::Reset, 0, *stream, &cancel));
        client.say(&both)
    });
    let said = said.count();
    let (end, _) = client.end();
    // Whichever comes first: the count of resets, or the end that TCP reports.
    assert!(matches!(end, CALM | End::Closed), "{end:?} after {said}");
    assert!(ground.origin.take().len() < STREAMS, "the service saw every one of them");
    ground.stands("rapid reset");
}

#[test]
fn streams_that_make_the_server_reset_end_the_connection() {
    let Some(ground) = Ground::up() else { return };
    // Each is a request, and then an error of that stream alone (CVE-2025-8671).
    let overflow = 0x7fff_ffff_u32.to_be_bytes();
    let nothing = 0_u32.to_be_bytes();
    for (what, kind, payload) in [
        ("a window too large", Kind::WindowUpdate, &overflow[..]),
        ("a window update of zero", Kind::WindowUpdate, &nothing[..]),
        ("data after the end", Kind::Data, b"more"),
        ("a second head after the end", Kind::Headers, b"\x82\x86\x84"),
    ] {
        let mut client = Client::connect(ground.node.proxy);
        let said = streams().take_while(|stream| {
            let mut both = request(*stream, END_STREAM);
            both.extend(frame(
                kind,
                END_HEADERS * u8::from(kind == Kind::Headers),
                *stream,
                payload,
            ));
            client.say(&both)
        });
        let said = said.count();
        let (end, heard) = client.end();
        assert_ne!(end, End::Open, "{what}: {said} streams, {} resets", heard.resets);
        assert!(heard.resets < STREAMS / 2, "{what}: {} resets", heard.resets);
    }
    ground.stands("resets made by the server");
}

#[test]
fn a_head_without_end_is_closed() {
    let Some(ground) = Ground::up() else { return };
    for (what, piece) in [("empty", Vec::new()), ("small", indexed(b"x", b"y"))] {
        let mut client = Client::connect(ground.node.proxy);
        assert!(client.say(&frame(Kind::Headers, END_STREAM, 1, &get_web())));
        let said = client.flood(&frame(Kind::Continuation, 0, 1, &piece), MANY);
        let (end, _) = client.end();
        assert_ne!(end, End::Open, "{what}: {said} continuations");
    }
    let mut client = Client::connect(ground.node.proxy);
    assert!(client.say(&frame(Kind::Headers, END_STREAM, 1, &get_web())));
    let large = indexed(b"large", &[b'x'; 16_000]);
    let said = client.flood(&frame(Kind::Continuation, 0, 1, &large), 1000);
    let (end, _) = client.end();
    assert_ne!(end, End::Open, "{said} large continuations");
    ground.stands("continuations");
}

#[test]
fn a_head_that_grows_when_it_is_read_is_refused() {
    let Some(ground) = Ground::up() else { return };
    // One field of 4000 bytes goes into the table (entry 62), and is then named again and again by one byte each:
    // 16 KB on the wire are 60 MB of fields. Crumbs of cookies count as other fields do.
    for name in [&b"bomb"[..], b"cookie"] {
        let mut client = Client::connect(ground.node.proxy);
        let mut opened = 0;
        for stream in streams().take(200) {
            let mut block = get_web();
            if stream == 1 {
                block.extend(indexed(name, &[b'x'; 4000]));
            }
            block.resize(block.len() + 15_000, 0x80 | 62);
            if !client.say(&frame(Kind::Headers, END_HEADERS | END_STREAM, stream, &block)) {
                break;
            }
            opened += 1;
        }
        let (_, heard) = client.end();
        let seen = ground.origin.take();
        assert!(seen.is_empty(), "the service was shown {} of {opened}", seen.len());
        assert!(heard.heads + heard.resets <= opened);
    }
    ground.stands("fields that grow");
}

#[test]
fn frames_that_say_nothing_are_counted() {
    let Some(ground) = Ground::up() else { return };
    let acknowledged = frame(Kind::Settings, END_STREAM, 0, b"");
    let one = 1_u32.to_be_bytes();
    let mut priority = 0_u32.to_be_bytes().to_vec();
    priority.push(16);
    let settings = [0, 3, 0, 0, 0, 100];
    for (what, each, times) in [
        ("empty data", frame(Kind::Data, 0, 1, b""), MANY),
        ("pings", frame(Kind::Ping, 0, 0, b"12345678"), MANY),
        ("settings", frame(Kind::Settings, 0, 0, &settings), MANY),
        ("acknowledgements", acknowledged, MANY),
        ("priorities", frame(Kind::Priority, 0, 1_000_001, &priority), MANY),
        ("window updates of a stream", frame(Kind::WindowUpdate, 0, 1, &one), MANY),
        ("window updates", frame(Kind::WindowUpdate, 0, 0, &one), MANY),
        ("frames of no known kind", b"\0\0\0\x77\0\0\0\0\0".to_vec(), MANY),
    ] {
        let mut client = Client::connect(ground.node.proxy);
        // An open request, so that there is a stream to speak of.
        assert!(client.say(&request(1, 0)));
        let said = client.flood(&each, times);
        let (end, _) = client.end();
        tests::say(&format!("{what}: {said} said, {end:?}"));
        ground.beat.goes_on(2);
    }
    ground.stands("frames that say nothing");
}

#[test]
fn pings_whose_answers_nobody_reads_do_not_pile_up() {
    use std::io::Write as _;
    let Some(ground) = Ground::up() else { return };
    let mut deaf = tests::hostile::connect(ground.node.proxy);
    let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    first.extend(frame(Kind::Settings, 0, 0, b""));
    deaf.write_all(&first).expect("a new connection takes what is said");
    deaf.set_nonblocking(true).expect("it is a socket");
    let ping = frame(Kind::Ping, 0, 0, b"12345678").repeat(1000);
    // Until the node no longer reads, or closes: then nothing more of this peer is kept.
    let (mut said, mut full) = (0_u64, 0);
    while full < 100 && said < 256 << 20 {
        match deaf.write(&ping) {
            Ok(written) => (said, full) = (said + written as u64, 0),
            Err(error) if tests::hostile::is_timeout(&error) => {
                full += 1;
                ground.beat.goes_on(1);
            }
            Err(_) => break,
        }
    }
    assert!(said < 256 << 20, "the node took {said} bytes and was not read");
    ground.stands("pings of the deaf");
}

#[test]
fn frames_larger_than_allowed_are_an_error_before_they_are_read() {
    let Some(ground) = Ground::up() else { return };
    for kind in [Kind::Data, Kind::Headers, Kind::Settings, Kind::Ping, Kind::GoAway] {
        let mut client = Client::connect(ground.node.proxy);
        assert!(client.say(&request(1, 0)));
        // Sixteen MiB less one are claimed; the node decides by the claim.
        let claim = [0xff, 0xff, 0xff, kind as u8, 0, 0, 0, 0, 1];
        let _ = client.say(&claim);
        let _ = client.flood(&[0; 16 * 1024], 1024);
        let (end, _) = client.end();
        assert!(matches!(end, End::GoAway(_) | End::Closed), "{kind:?}: {end:?}");
    }
    ground.stands("oversized frames");
}

#[test]
fn more_streams_than_allowed_are_refused_and_not_kept() {
    let Some(ground) = Ground::up() else { return };
    let mut client = Client::connect(ground.node.proxy);
    // Requests whose bodies never come.
    let opened =
        streams().take(5_000).take_while(|stream| client.say(&request(*stream, 0))).count();
    ground.beat.goes_on(5);
    let held = ground.node.metric("micro_proxy_in_flight");
    assert!(held <= 1_100.0, "{held} of {opened} are carried");
    drop(client);
    ground.stands("streams without end");
}

//! Announcements of go-micro on the local network, where it is told no registry: asked for, listened
//! to, and remembered for as long as they say.
//!
//! ```text
//! questions: at once, after 1 s and 3 s, then every 20 s ──▶ 224.0.0.251:5353
//! packets ──▶ proxy::foreign::mdns::read ──▶ seen: announced, renewed, taken leave, run out
//! ```
//!
//! Heard is the network of the default route, over IPv4, as in go-micro. Whoever is on it may announce
//! anything: what is remembered is bounded, and what an entry may be is checked as everywhere.

mod seen;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use proxy::foreign::mdns as read;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use self::seen::{Change, Seen};
use super::session::Feed;
use super::standing::Trouble;

/// Where all listen (RFC 6762 §3).
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);
/// Bytes of a packet (RFC 6762 §17).
const MAX_PACKET: usize = 9000;
/// Between the first questions, and then: announcements are good for 120 s.
const ASKS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)];
const THEN: Duration = Duration::from_secs(20);
/// Until what was heard is all there is.
const SETTLED: Duration = Duration::from_millis(1500);
/// Between two looks at what has run out.
const LOOK: Duration = Duration::from_secs(1);

/// The local network that is listened to.
#[derive(Debug)]
pub(super) struct Source {
    domain: String,
}

impl Source {
    /// What is announced in `domain`.
    pub(super) const fn new(domain: String) -> Self {
        Self { domain }
    }

    /// Asks and listens.
    pub(super) async fn watch(&mut self, feed: &mut Feed) -> Result<(), Trouble> {
        let failed = |error: io::Error| Trouble::new(format!("{GROUP}: {error}"));
        let socket = open().map_err(failed)?;
        let mut seen = Seen::default();
        let mut asks = ASKS.into_iter();
        let mut ask = Instant::now() + asks.next().unwrap_or(THEN);
        let settled = Instant::now() + SETTLED;
        let (mut listed, mut look) = (false, settled);
        let mut packet = vec![0; MAX_PACKET];
        loop {
            let changes = tokio::select! {
                received = socket.recv_from(&mut packet) => {
                    let (length, _) = received.map_err(failed)?;
                    match read::read(&packet[..length], &self.domain) {
                        Some(heard) => {
                            let (changes, more) = seen.hear(heard, Instant::now());
                            // Of a service that is new nothing was asked yet.
                            ask = if more { ask.min(Instant::now() + LOOK / 10) } else { ask };
                            changes
                        }
                        None => continue,
                    }
                }
                () = tokio::time::sleep_until(ask) => {
                    for question in read::questions(&self.domain, seen.services()) {
                        socket.send_to(&question, SocketAddr::from(GROUP)).await.map_err(failed)?;
                    }
                    ask = Instant::now() + asks.next().unwrap_or(THEN);
                    continue;
                }
                () = tokio::time::sleep_until(look) => {
                    look = Instant::now() + LOOK;
                    let gone = seen.expire(Instant::now());
                    if !listed {
                        listed = true;
                        feed.all(seen.all()).await?;
                        continue;
                    }
                    gone
                }
            };
            if listed {
                for change in changes {
                    match change {
                        Change::Put(key, read) => feed.put(key, read).await?,
                        Change::Gone(key) => feed.gone(key).await?,
                    }
                }
            }
        }
    }
}

/// A socket beside those of the programs of this machine, which share the port.
fn open() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, GROUP.port())).into())?;
    socket.join_multicast_v4(GROUP.ip(), &Ipv4Addr::UNSPECIFIED)?;
    // Programs on this machine hear it too.
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(255)?;
    UdpSocket::from_std(socket.into())
}

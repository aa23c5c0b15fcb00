//! The face of names: a DNS server for programs of this machine, in which `NAME.micro.internal` is
//! an address of its own.
//!
//! ```text
//! question ─┬─ of micro.internal ─ zone ─ places (an address) ─ ports (listening there) ─▶ tcp
//!           └─ of anything else ── upstream: the system's name servers, bytes unchanged
//! ```
//!
//! Where the kernel leads every connection to an address of a name here, the ports do not matter: led.
//!
//! Only programs of this machine are answered, so that nobody else can make it send anything.

mod led;
mod places;
mod ports;
mod upstream;
mod zone;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use self::led::Led;
use self::places::Places;
pub use self::places::{NAME_SERVER, RANGES};
use self::ports::{Port, Ports, Taken};
use self::upstream::Upstreams;
pub use self::zone::answered;
use self::zone::{Addresses, Whose};
use crate::proxy::{Proxy, drained};
use crate::tcp::Destination;

/// Questions over UDP that wait for a name server of the system at a time; more are dropped, and
/// asked again by whoever asked.
const MAX_WAITING: usize = 256;
/// Connections of programs at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may be silent (RFC 7766 §6.2.3 asks for some seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of a question over UDP: what is longer is none.
const MAX_QUESTION: usize = 4096;

/// What the face is given.
pub struct Names {
    /// What [`Names::keep`] was told in an earlier life; empty: nothing.
    pub kept: String,
    /// Keeps a text for the next start. Called seldom, on a thread that may wait.
    pub keep: Arc<dyn Fn(String) + Send + Sync>,
    /// The file that says where the system's name servers are: `/etc/resolv.conf`.
    pub resolv_conf: std::path::PathBuf,
}

pub(crate) struct Face {
    proxy: Proxy,
    led: Mutex<Led>,
    table: Mutex<Table>,
    keep: Arc<dyn Fn(String) + Send + Sync>,
    upstreams: Upstreams,
    waiting: Arc<Semaphore>,
}

struct Table {
    places: Places,
    ports: Ports,
}

impl Proxy {
    /// Answers questions at `udp` and `tcp`, and takes connections and packets at the addresses that it
    /// gives, all in tasks of the runtime this runs on. Returns when the proxy drains.
    pub async fn dns(&self, udp: UdpSocket, tcp: TcpListener, names: Names) {
        let own = udp.local_addr().ok();
        let face = Arc::new(Face {
            proxy: self.clone(),
            led: Mutex::default(),
            table: Mutex::new(Table { places: Places::new(&names.kept), ports: Ports::default() }),
            keep: names.keep,
            upstreams: Upstreams::new(names.resolv_conf, own),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        });
        // A proxy has one face of names.
        drop(self.0.names.set(Arc::downgrade(&face)));
        let mut draining = self.0.draining.subscribe();
        tokio::select! {
            () = datagrams(&face, Arc::new(udp)) => {}
            () = connections(&face, tcp) => {}
            () = drained(&mut draining) => {}
        }
        face.table.lock().ports.close_all();
    }
}

async fn datagrams(face: &Arc<Face>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; MAX_QUESTION];
    loop {
        // An error here is that of an earlier answer which nobody took any more.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        if !peer.ip().to_canonical().is_loopback() {
            continue;
        }
        match zone::read(&buffer[..length]) {
            Whose::Nobody => {}
            Whose::Zone(question) => {
                if let Some(bytes) = face.answer(&question, true) {
                    // Who asked is gone, or its buffer is full: it asks again.
                    drop(socket.try_send_to(&bytes, peer));
                }
            }
            Whose::Other => {
                let Ok(permit) = Arc::clone(&face.waiting).try_acquire_owned() else { continue };
                let (face, socket) = (Arc::clone(face), Arc::clone(&socket));
                let question = buffer[..length].to_vec();
                tokio::spawn(async move {
                    if let Some(bytes) = or_failed(face.upstreams.udp(&question).await, &question) {
                        drop(socket.send_to(&bytes, peer).await);
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn connections(face: &Arc<Face>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) if peer.ip().to_canonical().is_loopback() => {
                let face = Arc::clone(face);
                tokio::spawn(async move {
                    // However it ends, nobody waits for a word about it.
                    let _ = connection(&face, stream).await;
                    drop(permit);
                });
            }
            Ok(_stranger) => {}
            // No sockets are left: there will be some when others end.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Questions one after another, each behind its length (RFC 1035 §4.2.2).
async fn connection(face: &Face, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(length)];
        timeout(IDLE, stream.read_exact(&mut question)).await??;
        let answer = match zone::read(&question) {
            Whose::Nobody => return Ok(()),
            Whose::Zone(message) => face.answer(&message, false),
            Whose::Other => or_failed(face.upstreams.tcp(&question).await, &question),
        };
        let Some(answer) = answer else { return Ok(()) };
        timeout(IDLE, stream.write_all(&upstream::framed(&answer)?)).await??;
    }
}

/// The answer of a name server, or that there was none.
fn or_failed(answer: io::Result<Vec<u8>>, question: &[u8]) -> Option<Vec<u8>> {
    answer.map_or_else(|_| zone::failed(question, ResponseCode::ServFail), Some)
}

impl Face {
    fn answer(&self, question: &hickory_proto::op::Message, udp: bool) -> Option<Vec<u8>> {
        let routes = self.proxy.0.routes.load_full();
        zone::write(&zone::answer(question, &routes, self), question, udp)
    }
}

impl Addresses for Face {
    fn address(&self, name: &str, to: &Destination, ports: &BTreeSet<Port>) -> Option<Ipv4Addr> {
        let mut table = self.table.lock();
        let (address, gone) = table.places.of(name)?;
        if let Some(gone) = gone {
            table.ports.close(gone);
        }
        if let Some(pins) = table.places.pins() {
            let keep = Arc::clone(&self.keep);
            tokio::task::spawn_blocking(move || keep(pins));
        }
        match table.ports.open(&self.proxy, address, to, ports) {
            Ok(()) => Some(address),
            // No connection gets as far as that program.
            Err(Taken(Port::Tcp(_))) if self.led.lock().all => Some(address),
            Err(Taken(port)) => {
                // What is sent would reach that program, whatever it is, instead of the service.
                tracing::warn!(
                    name,
                    %address,
                    ?port,
                    "no address for a name: a program of this machine listens on its port everywhere"
                );
                None
            }
        }
    }

    fn v6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        self.led.lock().v6.then(|| places::v6(address))
    }

    fn name(&self, address: Ipv4Addr) -> Option<String> {
        self.table.lock().places.name(address).map(|name| name.to_string())
    }
}

impl std::fmt::Debug for Face {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Face").finish_non_exhaustive()
    }
}

/// Whether an address is one that names are given.
fn is_virtual(address: SocketAddr) -> bool {
    places::place(address.ip()).is_some()
}

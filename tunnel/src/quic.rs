//! QUIC (RFC 9000) by quinn. The only module that knows quinn: another library could take its
//! place without a change elsewhere.

mod settings;
mod socket;
mod tls;
mod window;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use proto::PublicKey;
use proto::fault::Code;
use quinn::VarInt;

use crate::close::{Close, Gone};
use crate::config::{Config, Limits};
use crate::endpoint::Error;
use crate::identity::Keypair;
use crate::stream::{StreamError, poll_once};
use crate::transport::Stats;

/// The protocol between nodes, as both ends name it in the handshake (RFC 7301).
const ALPN: &[u8] = b"micro/1";
/// The same for everybody: whom one dials is nobody else's business, and names decide nothing.
const SNI: &str = "micro";
/// Time for the other ends to hear that this one closes.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// What a program needs to connect as the holder of `key` without speaking this protocol: for
/// tests of what strangers may do.
#[doc(hidden)]
#[must_use]
pub fn stranger(key: &Keypair) -> quinn::crypto::rustls::QuicClientConfig {
    quinn::crypto::rustls::QuicClientConfig::try_from(stranger_tls(key))
        .expect("the provider has the initial suite of QUIC")
}

/// [`stranger`] below QUIC: for tests that write packets by hand.
#[doc(hidden)]
#[must_use]
pub fn stranger_tls(key: &Keypair) -> rustls::ClientConfig {
    tls::client(key)
}

/// QUIC at one or more UDP addresses.
pub struct Quic {
    sockets: Vec<quinn::Endpoint>,
    settings: Arc<settings::Settings>,
}

impl Quic {
    /// Listens at `config.listen`, in the current runtime; `[::]` is every address of both
    /// families, with a socket for each.
    ///
    /// # Errors
    /// [`Error::Bind`] when an address cannot be had.
    pub fn bind(config: &Config) -> Result<Self, Error> {
        let settings = settings::Settings::server(&config.key, &config.limits);
        let mut sockets = Vec::with_capacity(config.listen.len());
        let open = |address: SocketAddr| {
            let opened = settings::socket(address).and_then(|socket| {
                let endpoint = settings::endpoint(&config.reset_key);
                let server = Some(settings.accept(false));
                on(endpoint, server, socket)
            });
            opened.map_err(|error| Error::Bind { address, error })
        };
        for address in &config.listen {
            let socket = open(*address)?;
            let port = socket.local_addr().map_or(address.port(), |bound| bound.port());
            sockets.push(socket);
            let listed = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
            if address.ip() == Ipv6Addr::UNSPECIFIED && !config.listen.iter().any(listed) {
                match open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) {
                    Ok(socket) => sockets.push(socket),
                    Err(Error::Bind { error, address })
                        if error.kind() == io::ErrorKind::AddrInUse =>
                    {
                        return Err(Error::Bind { error, address });
                    }
                    Err(error) => tracing::debug!(%error, "there is no IPv4 here"),
                }
            }
        }
        Ok(Self { sockets, settings: Arc::new(settings) })
    }

    /// Dials only, from any free port of every family there is: for a node that is about to join.
    ///
    /// # Errors
    /// [`Error::Bind`] when there is no network at all.
    pub fn dialler(key: &Keypair, limits: &Limits) -> Result<Self, Error> {
        let settings = settings::Settings::server(key, limits);
        let any =
            [SocketAddr::from(([0, 0, 0, 0], 0)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))];
        let (mut sockets, mut failed) = (Vec::new(), None);
        for address in any {
            let bound = settings::socket(address).and_then(|socket| {
                let endpoint = settings::endpoint(&crate::identity::random());
                on(endpoint, None, socket)
            });
            match bound {
                Ok(socket) => sockets.push(socket),
                Err(error) => failed = Some(Error::Bind { address, error }),
            }
        }
        match failed {
            Some(error) if sockets.is_empty() => Err(error),
            Some(_) | None => Ok(Self { sockets, settings: Arc::new(settings) }),
        }
    }

    /// Where it listens, with the ports the system chose.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    pub(crate) fn listeners(&self) -> Vec<Listener> {
        let listener = |socket: &quinn::Endpoint| Listener {
            socket: socket.clone(),
            settings: Arc::clone(&self.settings),
        };
        self.sockets.iter().map(listener).collect()
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connection, Gone> {
        let socket = self.socket_for(address).ok_or(Gone::Failed)?;
        let config = self.settings.dial(address.ip().is_loopback());
        let connecting = socket.connect_with(config, address, SNI).map_err(|_| Gone::Failed)?;
        Connection::new(connecting.await.map_err(gone)?)
    }

    /// A socket whose packets can get to `address`: of the same family, and not bound to the
    /// loopback unless `address` is there too.
    fn socket_for(&self, address: SocketAddr) -> Option<&quinn::Endpoint> {
        let reaches = |local: SocketAddr| {
            local.is_ipv4() == address.is_ipv4()
                && (!local.ip().is_loopback() || address.ip().is_loopback())
        };
        self.sockets.iter().find(|socket| socket.local_addr().is_ok_and(reaches))
    }

    pub(crate) async fn close(&self, close: Close) {
        for socket in &self.sockets {
            socket.close(code(close.to_wire()), &[]);
        }
        let idle = async {
            for socket in &self.sockets {
                socket.wait_idle().await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_WAIT, idle).await;
    }
}

/// An endpoint on a socket of ours.
fn on(
    config: quinn::EndpointConfig,
    server: Option<quinn::ServerConfig>,
    socket: std::net::UdpSocket,
) -> std::io::Result<quinn::Endpoint> {
    let (socket, runtime) = (socket::Socket::new(socket)?, Arc::new(quinn::TokioRuntime));
    quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Quic").field(&self.local_addresses()).finish()
    }
}

pub(crate) struct Listener {
    socket: quinn::Endpoint,
    settings: Arc<settings::Settings>,
}

impl Listener {
    pub(crate) async fn accept(&mut self) -> Option<Knock> {
        let incoming = self.socket.accept().await?;
        let loopback = incoming.remote_address().ip().to_canonical().is_loopback();
        Some(Knock { incoming, config: self.settings.accept_shared(loopback) })
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

pub(crate) struct Knock {
    incoming: quinn::Incoming,
    config: Arc<quinn::ServerConfig>,
}

impl Knock {
    pub(crate) fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    pub(crate) fn is_validated(&self) -> bool {
        self.incoming.remote_address_validated() || !self.incoming.may_retry()
    }

    pub(crate) fn retry(self) {
        // Refused only for those who have been asked already, and then there is nothing to do.
        let _ = self.incoming.retry();
    }

    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    pub(crate) async fn admit(self) -> Result<Connection, Gone> {
        let connecting = self.incoming.accept_with(self.config).map_err(gone)?;
        Connection::new(connecting.await.map_err(gone)?)
    }
}

impl fmt::Debug for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Knock").field(&self.incoming.remote_address()).finish()
    }
}

#[derive(Clone)]
pub(crate) struct Connection {
    inner: quinn::Connection,
    peer: PublicKey,
    gate: Option<window::Gate>,
}

impl Connection {
    fn new(inner: quinn::Connection) -> Result<Self, Gone> {
        let Some(peer) = inner.peer_identity().and_then(tls::peer) else {
            // The verifiers let no other identity pass.
            inner.close(code(Close::Protocol.to_wire()), &[]);
            return Err(Gone::Failed);
        };
        let gate = window::Gate::of(&inner);
        Ok(Self { inner, peer, gate })
    }

    pub(crate) fn peer(&self) -> PublicKey {
        self.peer
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        let remote = self.inner.remote_address();
        SocketAddr::new(remote.ip().to_canonical(), remote.port())
    }

    pub(crate) fn binding(&self) -> [u8; proto::join::BINDING] {
        let mut binding = [0; proto::join::BINDING];
        self.inner
            .export_keying_material(&mut binding, proto::join::BINDING_LABEL, &[])
            .expect("32 bytes are within what an exporter gives (RFC 8446 §7.5)");
        binding
    }

    pub(crate) async fn open(&self) -> Result<(Sender, Receiver), Gone> {
        let (send, recv) = self.inner.open_bi().await.map_err(gone)?;
        Ok((Sender(send), Receiver(recv)))
    }

    pub(crate) async fn accept(&self) -> Result<(Sender, Receiver), Gone> {
        let (send, recv) = self.inner.accept_bi().await.map_err(gone)?;
        Ok((Sender(send), Receiver(recv)))
    }

    pub(crate) fn allow_streams(&self, streams: u32) {
        self.inner.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
    }

    pub(crate) fn allow_bytes(&self, limits: &Limits) {
        self.inner.set_receive_window(VarInt::from_u32(limits.peer_window));
    }

    pub(crate) fn send_datagram(&self, bytes: Bytes) {
        // Too large, not negotiated or gone: each is noticed as silence, which is what a datagram
        // that is lost on the way would be.
        let _ = self.inner.send_datagram(bytes);
    }

    pub(crate) fn send_packet(&self, bytes: Bytes) -> bool {
        // A full buffer would drop the oldest in it, whatever that is.
        let room = self.inner.datagram_send_buffer_space();
        room >= bytes.len() + settings::FOR_PINGS && self.inner.send_datagram(bytes).is_ok()
    }

    pub(crate) fn max_datagram(&self) -> usize {
        self.inner.max_datagram_size().unwrap_or(0)
    }

    pub(crate) fn probe(&self, bytes: Bytes) {
        if let Some(gate) = &self.gate {
            gate.open();
        }
        self.send_datagram(bytes);
    }

    pub(crate) async fn datagram(&self) -> Result<Bytes, Gone> {
        self.inner.read_datagram().await.map_err(gone)
    }

    pub(crate) fn close(&self, close: Close) {
        self.inner.close(code(close.to_wire()), close.to_string().as_bytes());
    }

    pub(crate) async fn closed(&self) -> Gone {
        gone(self.inner.closed().await)
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    pub(crate) fn stats(&self) -> Stats {
        let stats = self.inner.stats();
        Stats {
            packets_in: stats.udp_rx.datagrams,
            packets_out: stats.udp_tx.datagrams,
            bytes_in: stats.udp_rx.bytes,
            bytes_out: stats.udp_tx.bytes,
            lost: stats.path.lost_packets,
            rtt: stats.path.rtt,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.remote()).finish()
    }
}

#[derive(Debug)]
pub(crate) struct Sender(quinn::SendStream);

impl Sender {
    pub(crate) fn id(&self) -> u64 {
        VarInt::from(self.0.id()).into_inner()
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), StreamError>> {
        // quinn empties what it takes; the future holds nothing between polls.
        while let Some(at) = chunks.iter().position(|chunk| !chunk.is_empty()) {
            match poll_once(self.0.write_chunks(&mut chunks[at..]), cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(write_error(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn finish(&mut self) {
        // Stopped or lost already: whoever writes or reads next is told.
        let _ = self.0.finish();
    }

    pub(crate) fn reset(&mut self, reason: Code) {
        let _ = self.0.reset(code(reason.to_wire()));
    }

    /// Waits until the other side wants nothing more.
    pub(crate) fn stopped(&self) -> Pin<Box<dyn Future<Output = Code> + Send + Sync>> {
        let stopped = self.0.stopped();
        Box::pin(async move {
            match stopped.await {
                Ok(Some(reason)) => Code::from_wire(reason.into_inner()),
                Ok(None) => std::future::pending().await,
                Err(_) => Code::Broken,
            }
        })
    }
}

#[derive(Debug)]
pub(crate) struct Receiver(quinn::RecvStream);

impl Receiver {
    pub(crate) fn id(&self) -> u64 {
        VarInt::from(self.0.id()).into_inner()
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        poll_once(self.0.read_chunk(max, true), cx).map(|read| match read {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(error) => Err(read_error(error)),
        })
    }

    pub(crate) fn stop(&mut self, reason: Code) {
        let _ = self.0.stop(code(reason.to_wire()));
    }
}

fn write_error(error: quinn::WriteError) -> StreamError {
    match error {
        quinn::WriteError::Stopped(reason) => {
            StreamError::Reset(Code::from_wire(reason.into_inner()))
        }
        quinn::WriteError::ConnectionLost(error) => StreamError::Lost(gone(error)),
        quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => StreamError::Ended,
    }
}

fn read_error(error: quinn::ReadError) -> StreamError {
    match error {
        quinn::ReadError::Reset(reason) => StreamError::Reset(Code::from_wire(reason.into_inner())),
        quinn::ReadError::ConnectionLost(error) => StreamError::Lost(gone(error)),
        quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => StreamError::Ended,
    }
}

fn gone(error: quinn::ConnectionError) -> Gone {
    match error {
        quinn::ConnectionError::ApplicationClosed(closed) => {
            Gone::ByPeer(Close::from_wire(closed.error_code.into_inner()))
        }
        quinn::ConnectionError::LocallyClosed => Gone::Here(Close::Done),
        quinn::ConnectionError::TimedOut => Gone::Silent,
        quinn::ConnectionError::Reset => Gone::Restarted,
        quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::TransportError(_)
        | quinn::ConnectionError::ConnectionClosed(_)
        | quinn::ConnectionError::CidsExhausted => Gone::Failed,
    }
}

/// A code as QUIC writes it. All of ours are far below its bound of 2^62.
fn code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

//! How QUIC is set up, and why each number is what it is.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TransportConfig, VarInt,
};

use super::{tls, window};
use crate::config::Limits;
use crate::identity::Keypair;

/// What every IPv6 path carries (RFC 8200 §5) less headers; discovery goes up from here.
const FIRST_MTU: u16 = 1200;
/// What an Ethernet path carries with IPv6: 1500 - 48.
const MTU: u16 = 1452;
/// What is tried on the loopback. quinn sends trains of up to ten segments, and ten of these are
/// still below the 64 KiB of one UDP datagram; larger ones would look like a black hole.
const LOOPBACK_MTU: u16 = 6500;
/// The round trip that is assumed before one was measured: below the 333 ms of RFC 9002 §6.2.2, for a
/// first packet that is lost, as when a path has just come back, is then sent again after 300 ms and
/// not after a second. Where the path is longer it is sent twice, which is all it costs.
const FIRST_RTT: Duration = Duration::from_millis(100);
/// Packets acknowledged at once under load: 15 to 45 % less work on small calls.
const ACK_EVERY: u32 = 10;
/// Bytes a stranger may have in flight: a hello and a request to join.
const STRANGER_WINDOW: u32 = 64 * 1024;
/// Streams a stranger may open: the control stream.
const STRANGER_STREAMS: u32 = 1;
/// Bytes of pings and packets that wait, each way: some 25 ms at 10 000 packets of 1 kB a second.
const DATAGRAMS: usize = 256 * 1024;
/// What of it packets leave to pings: a flood must not push out what tells that the link lives.
pub(super) const FOR_PINGS: usize = 4 * 1024;
/// Handshakes that wait to be looked at.
const MAX_INCOMING: usize = 1024;
/// Bytes kept of one and of all of them.
const INCOMING_BYTES: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;
/// What the kernel is asked to keep of a socket, each way: a burst of all windows of a few peers.
const SOCKET_BUFFER: usize = 4 << 20;

/// The four ways of connecting: dialled or accepted, on the loopback or elsewhere.
pub(super) struct Settings {
    dial: ClientConfig,
    dial_loopback: ClientConfig,
    accept: Arc<ServerConfig>,
    accept_loopback: Arc<ServerConfig>,
}

impl Settings {
    pub(super) fn server(key: &Keypair, limits: &Limits) -> Self {
        let client = QuicClientConfig::try_from(tls::client(key))
            .expect("the provider has the initial suite of QUIC");
        let server = QuicServerConfig::try_from(tls::server(key))
            .expect("the provider has the initial suite of QUIC");
        let (client, server) = (Arc::new(client), Arc::new(server));
        let dial = |loopback| {
            let mut config = ClientConfig::new(Arc::clone(&client) as Arc<_>);
            // Whoever is dialled opens nothing before its hello was read.
            config.transport_config(Arc::new(transport(limits, loopback, 0)));
            config
        };
        let accept = |loopback| {
            let mut config = ServerConfig::with_crypto(Arc::clone(&server) as Arc<_>);
            config.transport_config(Arc::new(transport(limits, loopback, STRANGER_STREAMS)));
            config.max_incoming(MAX_INCOMING);
            config.incoming_buffer_size(INCOMING_BYTES);
            config.incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
            Arc::new(config)
        };
        Self {
            dial: dial(false),
            dial_loopback: dial(true),
            accept: accept(false),
            accept_loopback: accept(true),
        }
    }

    pub(super) fn dial(&self, loopback: bool) -> ClientConfig {
        if loopback { self.dial_loopback.clone() } else { self.dial.clone() }
    }

    pub(super) fn accept(&self, loopback: bool) -> ServerConfig {
        (*self.accept_shared(loopback)).clone()
    }

    pub(super) fn accept_shared(&self, loopback: bool) -> Arc<ServerConfig> {
        Arc::clone(if loopback { &self.accept_loopback } else { &self.accept })
    }
}

fn transport(limits: &Limits, loopback: bool, streams: u32) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(if loopback { LOOPBACK_MTU } else { MTU });
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY));
    let dead = limits.dead.min(Duration::from_secs(3600));
    let idle = IdleTimeout::try_from(dead).expect("an hour fits a varint of milliseconds");
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits.stream_window))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .send_window(limits.send_window)
        .max_idle_timeout(Some(idle))
        .initial_rtt(FIRST_RTT)
        .initial_mtu(FIRST_MTU)
        .min_mtu(FIRST_MTU)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS)
        .congestion_controller_factory(Arc::new(window::Factory::default()));
    config
}

/// What holds for a socket, whoever is at the other end.
pub(super) fn endpoint(reset_key: &[u8; 64]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset_key)));
    // Connection ids of an earlier life must be recognised as ours, or no reset is sent for them.
    let hash = blake3::derive_key("micro network 2026 connection ids", reset_key);
    let key = u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
    config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(key)));
    config.max_udp_payload_size(LOOPBACK_MTU).expect("it is between the bounds of RFC 9000 §18.2");
    config
}

/// A UDP socket with large buffers, as large as the system allows.
pub(super) fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        // One family each: both may be bound to the same port, and addresses are what they seem.
        socket.set_only_v6(true)?;
    }
    // The kernel may give less; that costs packets under load and nothing else.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

//! QUIC by hand: first packets as bytes, so that a client can say what no library would; and a library's client with
//! the wrong words.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::quic::{ClientConnection, Keys, Version};
use rustls::{DigitallySignedStruct, Error, Side, SignatureScheme};

/// The protocol between nodes.
pub const ALPN: &[u8] = b"micro/1";
/// What each UDP datagram with a first packet of a client has at least (RFC 9000 §14.1).
const SMALLEST: usize = 1200;
/// What goes around the frames of a first packet, at most, but for the token.
const AROUND: usize = 60;
/// How long an answer may take, on the loopback.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes whatever the node shows.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// TLS without a key of its own, for these protocols.
///
/// # Panics
/// Never: the suites of TLS 1.3 are there.
#[must_use]
pub fn keyless(alpn: &[&[u8]]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the suites are there")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A transport parameter (RFC 9000 §18).
#[must_use]
pub fn parameter(id: u64, value: &[u8]) -> Vec<u8> {
    [varint(id), varint(value.len() as u64), value.to_vec()].concat()
}

/// A variable-length integer (RFC 9000 §16).
///
/// # Panics
/// From 2^62 on.
#[must_use]
pub fn varint(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => {
            assert!(value < 1 << 62, "no such integer");
            (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec()
        }
    }
}

fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let length = 1 << (input.first()? >> 6);
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    let whole = bytes.iter().fold(0, |whole, byte| whole << 8 | u64::from(*byte));
    Some(whole & (u64::MAX >> (66 - 8 * length as u32)))
}

/// A `CRYPTO` frame (RFC 9000 §19.6).
#[must_use]
pub fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    [varint(6), varint(offset as u64), varint(data.len() as u64), data.to_vec()].concat()
}

/// How a node answered a first flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With its part of the handshake.
    Handshake,
    /// With the end of the connection, for this reason.
    Closed(u64),
    /// Not at all.
    Nothing,
}

/// A client with a key of its own that writes first packets by hand.
pub struct Hand {
    socket: UdpSocket,
    source: [u8; 8],
    destination: Vec<u8>,
    keys: Keys,
    token: Vec<u8>,
    number: u32,
    hello: Vec<u8>,
    /// Times it was asked to prove its address.
    pub retries: usize,
}

impl Hand {
    /// A client of the node at `to`, whose transport parameters are `own` but for the first, its own connection id,
    /// which is right if `named`.
    ///
    /// # Panics
    /// If the loopback has no port.
    #[must_use]
    pub fn new(to: SocketAddr, own: &[u8], named: bool) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("the loopback has ports");
        socket.connect(to).expect("it is an address of the loopback");
        socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let source = number.to_be_bytes();
        let destination = (number | 0xaaaa << 48).to_be_bytes().to_vec();
        let mut parameters = if named { parameter(0x0f, &source) } else { Vec::new() };
        parameters.extend_from_slice(own);
        let name = ServerName::try_from("micro").expect("a name");
        let config = Arc::new(tunnel::quic::stranger_tls(&tunnel::Keypair::generate()));
        let mut tls = ClientConnection::new(config, Version::V1, name, parameters)
            .expect("a first flight needs no peer");
        let mut hello = Vec::new();
        assert!(tls.write_hs(&mut hello).is_none(), "there are no keys yet");
        let keys = keys(&destination);
        Self { socket, source, destination, keys, token: Vec::new(), number: 0, hello, retries: 0 }
    }

    /// What TLS says first.
    #[must_use]
    pub fn hello(&self) -> Vec<u8> {
        self.hello.clone()
    }

    /// Sends one first packet of these frames, padded as it must be.
    ///
    /// # Panics
    /// If the loopback does not take it.
    pub fn send(&mut self, frames: &[u8]) {
        let mut payload = frames.to_vec();
        // PADDING is a frame of one zero (RFC 9000 §19.1).
        payload.resize(payload.len().max(SMALLEST - AROUND + 20), 0);
        let mut header = vec![0xc3];
        header.extend_from_slice(&1_u32.to_be_bytes());
        header.push(self.destination.len() as u8);
        header.extend_from_slice(&self.destination);
        header.push(self.source.len() as u8);
        header.extend_from_slice(&self.source);
        header.extend(varint(self.token.len() as u64));
        header.extend_from_slice(&self.token);
        let key = &self.keys.local.packet;
        header.extend(varint((4 + payload.len() + key.tag_len()) as u64));
        let at = header.len();
        header.extend_from_slice(&self.number.to_be_bytes());
        let tag = key.encrypt_in_place(self.number.into(), &header, &mut payload);
        let tag = tag.expect("it is short enough");
        self.number += 1;
        let mut packet = header;
        packet.extend_from_slice(&payload);
        packet.extend_from_slice(tag.as_ref());
        let (head, rest) = packet.split_at_mut(at);
        let (number, body) = rest.split_at_mut(4);
        let protection = &self.keys.local.header;
        protection
            .encrypt_in_place(&body[..protection.sample_len()], &mut head[0], number)
            .expect("the sample is as long as it must be");
        self.socket.send(&packet).expect("the loopback takes it");
    }

    /// Sends a packet for each of `packets` and waits for the answer; proves its address when asked to.
    pub fn say(&mut self, packets: &[Vec<u8>]) -> Answer {
        packets.iter().for_each(|frames| self.send(frames));
        let mut datagram = [0; 65536];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            match self.hear(&mut datagram[..length]) {
                Heard::Answer(answer) => return answer,
                // Each packet may have been answered with one; the first counts (RFC 9000 §17.2.5.2).
                Heard::Retry => {
                    packets.iter().for_each(|frames| self.send(frames));
                }
                Heard::Other => {}
            }
        }
        Answer::Nothing
    }

    fn hear(&mut self, datagram: &mut [u8]) -> Heard {
        match datagram[0] & 0xf0 {
            // Retry (RFC 9000 §17.2.5): its source is our new destination, the rest but for a tag the token.
            0xf0 if self.retries > 0 => Heard::Other,
            0xf0 => {
                let at = 6 + usize::from(datagram[5]);
                let length = usize::from(datagram[at]);
                let (source, rest) = datagram[at + 1..].split_at(length);
                self.destination = source.to_vec();
                self.token = rest[..rest.len() - 16].to_vec();
                self.keys = keys(&self.destination);
                self.retries += 1;
                Heard::Retry
            }
            0xc0 | 0xd0 if datagram[0] & 0x30 == 0 => {
                self.open(datagram).map_or(Heard::Other, |frames| first_of(&frames))
            }
            _ => Heard::Other,
        }
    }

    /// The frames of a first packet of the node.
    fn open(&self, datagram: &mut [u8]) -> Option<Vec<u8>> {
        let at = 6 + usize::from(datagram[5]);
        let at = at + 1 + usize::from(datagram[at]);
        let mut rest = &datagram[at..];
        let token = take_varint(&mut rest)?;
        rest = rest.get(usize::try_from(token).ok()?..)?;
        let length = usize::try_from(take_varint(&mut rest)?).ok()?;
        let number_at = datagram.len() - rest.len();
        let packet = datagram.get_mut(..number_at + length)?;
        let (head, rest) = packet.split_at_mut(number_at);
        let (number, body) = rest.split_at_mut(4);
        let protection = &self.keys.remote.header;
        let sample = body.get(..protection.sample_len())?.to_vec();
        let mut first = head[0];
        protection.decrypt_in_place(&sample, &mut first, number).ok()?;
        head[0] = first;
        let length = usize::from(first & 3) + 1;
        let whole = number[..length].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let (header, payload) = packet.split_at_mut(number_at + length);
        let opened = self.keys.remote.packet.decrypt_in_place(whole, header, payload);
        opened.ok().map(<[u8]>::to_vec)
    }
}

enum Heard {
    Answer(Answer),
    Retry,
    Other,
}

/// What the frames of a first packet say, acknowledgements aside.
fn first_of(mut frames: &[u8]) -> Heard {
    while let Some(kind) = take_varint(&mut frames) {
        match kind {
            0 | 1 => {}
            2 => {
                let fields: Vec<_> = (0..4).filter_map(|_| take_varint(&mut frames)).collect();
                let more = fields.get(2).copied().unwrap_or(0);
                for _ in 0..2 * more {
                    let _ = take_varint(&mut frames);
                }
            }
            6 => return Heard::Answer(Answer::Handshake),
            0x1c | 0x1d => {
                let code = take_varint(&mut frames).unwrap_or(u64::MAX);
                return Heard::Answer(Answer::Closed(code));
            }
            _ => return Heard::Other,
        }
    }
    Heard::Other
}

fn keys(destination: &[u8]) -> Keys {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().and_then(|suite| suite.quic_suite());
    suite.expect("the initial suite of QUIC").keys(destination, Side::Client, Version::V1)
}

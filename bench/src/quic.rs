//! The yardstick for bulk: quinn alone, one stream of bytes, at packets of an MTU of 1 500.
//!
//! As this project runs it: rustls with aws-lc-rs, a raw public key instead of a certificate,
//! segmentation offload on. One request is eight bytes (how many are wanted, big-endian).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::Ed25519KeyPair;
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Error;
use crate::cpu::{Meter, Watched, share};
use crate::outcome::BulkOutcome;
use crate::units::GIB;

/// The largest UDP payload where the path has an MTU of 1 500 and might be IPv6.
pub const MTU_1500: u16 = 1452;
const ALPN: &[u8] = b"bench";
/// Bytes given to the stream at a time.
const CHUNK: usize = 256 << 10;
static ZEROS: [u8; CHUNK] = [0; CHUNK];
/// What may be on its way on one stream, in bytes: well above what a loopback path holds.
const WINDOW: u32 = 8 << 20;
/// Socket buffers asked for, in bytes; the system gives what it allows.
const SOCKET_BUFFER: usize = 4 << 20;
const IDLE: Duration = Duration::from_secs(30);

/// A server, and the key it proves.
pub struct Server {
    endpoint: Endpoint,
    key: String,
}

impl Server {
    /// Binds `at` with a key made now.
    pub fn bind(at: SocketAddr, mtu: u16) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let secret = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
        let secret = secret.map_err(Error::at("make a key"))?;
        let secret = PrivateKeyDer::Pkcs8(secret.as_ref().to_vec().into());
        let signer = provider.key_provider.load_private_key(secret).map_err(Error::at("key"))?;
        let public = signer.public_key().ok_or_else(|| Error::Wrong("no public key".into()))?;
        let key = to_hex(&public);
        let chain = vec![CertificateDer::from(public.to_vec())];
        let resolver =
            AlwaysResolvesServerRawPublicKeys::new(Arc::new(CertifiedKey::new(chain, signer)));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Error::at("tls"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let tls = QuicServerConfig::try_from(tls).map_err(Error::at("tls"))?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(transport(mtu));
        Ok(Self { endpoint: endpoint(at, Some(config))?, key })
    }

    /// Where it listens.
    pub fn at(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr().map_err(Error::io("local address"))
    }

    /// The public key it proves, in hexadecimal.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Answers every connection until the process ends.
    pub async fn serve(self) {
        while let Some(incoming) = self.endpoint.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    // The peer closed; it knows.
                    let _ = answer(connection).await;
                }
            });
        }
    }
}

async fn answer(connection: Connection) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    loop {
        let (mut send, mut recv) = connection.accept_bi().await?;
        let mut wanted = [0; 8];
        recv.read_exact(&mut wanted).await?;
        let mut left = u64::from_be_bytes(wanted);
        while left > 0 {
            let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            send.write_chunk(Bytes::from_static(&ZEROS[..size])).await?;
            left -= size as u64;
        }
        send.finish()?;
    }
}

/// Fetches `bytes` bytes from the server at `at` that proves `key`, and counts.
pub async fn download(
    at: SocketAddr,
    key: &str,
    bytes: u64,
    mtu: u16,
    watched: &[Watched],
) -> Result<BulkOutcome, Error> {
    let local = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let endpoint = endpoint(local.parse().expect("a constant address"), None)?;
    let config = client_config(key, mtu)?;
    let connecting = endpoint.connect_with(config, at, "bench").map_err(Error::at("connect"))?;
    let connection = connecting.await.map_err(Error::at("connect"))?;

    let meter = Meter::start(watched)?;
    let begun = Instant::now();
    let (mut send, mut recv) = connection.open_bi().await.map_err(Error::at("open"))?;
    send.write_all(&bytes.to_be_bytes()).await.map_err(Error::at("ask"))?;
    send.finish().map_err(Error::at("ask"))?;
    let mut came = 0_u64;
    let mut pieces: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
    while let Some(count) = recv.read_chunks(&mut pieces).await.map_err(Error::at("read"))? {
        came += pieces[..count].iter().map(|piece| piece.len() as u64).sum::<u64>();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = meter.stop()?;
    if came != bytes {
        return Err(Error::Wrong(format!("{came} of {bytes} bytes came")));
    }
    connection.close(VarInt::from_u32(0), b"done");
    endpoint.wait_idle().await;
    let gib = came as f64 / GIB;
    let cpu = share(cpu, gib);
    Ok(BulkOutcome {
        bytes: came,
        seconds,
        gib_per_second: gib / seconds,
        cpu,
        ..BulkOutcome::default()
    })
}

fn client_config(key: &str, mtu: u16) -> Result<quinn::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = from_hex(key).ok_or_else(|| Error::Wrong("the key is not hexadecimal".into()))?;
    let expect = Expect { key, provider: Arc::clone(&provider) };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::at("tls"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(expect))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(tls).map_err(Error::at("tls"))?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(mtu));
    Ok(config)
}

fn transport(mtu: u16) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    let mut transport = TransportConfig::default();
    transport
        .initial_mtu(1200)
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .max_idle_timeout(Some(IDLE.try_into().expect("30 s is a QUIC timeout")));
    Arc::new(transport)
}

fn endpoint(at: SocketAddr, server: Option<quinn::ServerConfig>) -> Result<Endpoint, Error> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP));
    let socket = socket.map_err(Error::io("socket"))?;
    // Best effort: a system that allows less gives less.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&at.into()).map_err(Error::io(format!("bind {at}")))?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(EndpointConfig::default(), server, socket.into(), runtime)
        .map_err(Error::io("endpoint"))
}

/// Takes exactly one public key and no other.
#[derive(Debug)]
struct Expect {
    key: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Expect {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if shown.as_ref() == self.key {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another key than expected".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has no TLS 1.2".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    if !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_from_the_expected_key_and_from_no_other() {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(loopback, MTU_1500).unwrap();
        let (at, key) = (server.at().unwrap(), server.key().to_owned());
        tokio::spawn(server.serve());
        let outcome = download(at, &key, 3_000_001, MTU_1500, &[]).await.unwrap();
        assert_eq!(outcome.bytes, 3_000_001);

        let other = Server::bind(loopback, MTU_1500).unwrap();
        assert!(download(at, other.key(), 1, MTU_1500, &[]).await.is_err());
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(from_hex(&to_hex(&[0, 15, 255])), Some(vec![0, 15, 255]));
        assert_eq!(from_hex("abc"), None);
        assert_eq!(from_hex("zz"), None);
    }
}

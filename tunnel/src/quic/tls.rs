//! TLS 1.3 with raw public keys (RFC 7250): both ends prove an Ed25519 key, and nothing else is
//! said. There are no certificates, so no name inside one can decide anything.

use std::any::Any;
use std::sync::Arc;

use proto::PublicKey;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

/// The `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410 §4), up to the 32 bytes of the key.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The configuration of the end that dials.
pub(super) fn client(key: &crate::identity::Keypair) -> ClientConfig {
    let provider = provider();
    let verifier = Arc::new(AnyEd25519::new(&provider));
    let key = certified(key, &provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has the suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![super::ALPN.to_vec()];
    // No resumption: a grant is checked anew on each connection. No 0-RTT: it can be replayed.
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// The configuration of the end that is dialled.
pub(super) fn server(key: &crate::identity::Keypair) -> ServerConfig {
    let provider = provider();
    let verifier = Arc::new(AnyEd25519::new(&provider));
    let key = certified(key, &provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has the suites of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![super::ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

/// The key that the other end has proven, out of what the TLS library keeps of the handshake.
pub(super) fn peer(identity: Box<dyn Any>) -> Option<PublicKey> {
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    keys.first().and_then(|key| ed25519(key))
}

/// X25519MLKEM768 comes first in what this provider offers.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certified(key: &crate::identity::Keypair, provider: &CryptoProvider) -> Arc<CertifiedKey> {
    use proto::sign::Sign as _;
    let der = key.pkcs8();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()));
    let signer = provider
        .key_provider
        .load_private_key(private)
        .expect("the key was made by the same library");
    let mut spki = SPKI.to_vec();
    spki.extend_from_slice(key.public_key().as_bytes());
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer))
}

fn ed25519(spki: &[u8]) -> Option<PublicKey> {
    let key = spki.strip_prefix(&SPKI)?;
    <[u8; 32]>::try_from(key).ok().map(PublicKey::from_bytes)
}

/// Takes any Ed25519 key that is proven. Whether its holder is a member, and the node that was
/// meant, is asked once it is known: see [`crate::greet`].
#[derive(Debug)]
struct AnyEd25519(WebPkiSupportedAlgorithms);

impl AnyEd25519 {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }

    fn check(key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !others.is_empty() || ed25519(key).is_none() {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        Ok(())
    }

    fn proven(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.0)
    }
}

/// TLS 1.2 is not configured, so this is never asked for.
fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled)
}

/// How a key is proven: the same whoever dialled, which rustls asks of two traits.
macro_rules! proof {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _key: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(no_tls12())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.proven(message, key, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for AnyEd25519 {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(key, others).map(|()| ServerCertVerified::assertion())
    }

    proof!();
}

impl ClientCertVerifier for AnyEd25519 {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(key, others).map(|()| ClientCertVerified::assertion())
    }

    proof!();
}

//! The key of a node: made on it, never leaving it, and what everybody checks with the other half.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use proto::sign::{Sign, Verify};
use proto::{NodeId, PublicKey, Signature};
use zeroize::Zeroizing;

/// What a key file begins with: its form, and what sort of key it is.
const HEADER: &str = "micro-key-1 ed25519 ";
/// Bytes read of a key file: the header, 52 characters, the end of the line, and room to notice
/// that it is something else.
const MAX_FILE: u64 = 256;
/// PKCS #8 of an Ed25519 key without its public half (RFC 8410 §7), up to the 32 bytes of the seed.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// An Ed25519 key pair (RFC 8032). Its `Debug` shows the public half alone.
pub struct Keypair {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the key {path}: {error}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others may read it: it may be known to them, and is not used.
    #[error("the key {path} may be read by others (mode {mode:04o}); it must be 0600", path = .path.display())]
    Loose {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not a key file.
    #[error("{path} is not a key", path = .path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
}

impl Keypair {
    /// A fresh key.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_seed(random())
    }

    /// The key of a seed (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed)
            .expect("32 bytes are a seed: every value of them is one");
        let public = <[u8; 32]>::try_from(pair.public_key().as_ref())
            .expect("an Ed25519 public key has 32 bytes");
        Self { seed, pair, public: PublicKey::from_bytes(public) }
    }

    /// The key kept in the file at `path`; one is made and kept there when there is none.
    ///
    /// # Errors
    /// [`KeyError`] when the file cannot be used, and when others may read it.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path)? {
            Some(pair) => Ok(pair),
            None => Self::create(path),
        }
    }

    /// The key kept in the file at `path`; `None` when there is no such file.
    ///
    /// # Errors
    /// As [`Keypair::load_or_create`].
    pub fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let failed = |error| KeyError::File { path: path.to_owned(), error };
        // A link put there by somebody else must not make this node read another file.
        let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = match fs::OpenOptions::new().read(true).custom_flags(no_follow).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Loose { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
        let seed = text
            .trim_end()
            .strip_prefix(HEADER)
            .and_then(|text| proto::id::base32().decode(text.as_bytes()).ok())
            .map(Zeroizing::new)
            .and_then(|seed| <[u8; 32]>::try_from(&seed[..]).ok())
            .ok_or_else(|| KeyError::NotAKey { path: path.to_owned() })?;
        Ok(Some(Self::from_seed(seed)))
    }

    fn create(path: &Path) -> Result<Self, KeyError> {
        let pair = Self::generate();
        let seed = Zeroizing::new(proto::id::base32().encode(&*pair.seed));
        let text = Zeroizing::new(format!("{HEADER}{}\n", *seed));
        crate::durable::create_new(path, text.as_bytes())
            .map_err(|error| KeyError::File { path: path.to_owned(), error })?;
        Ok(pair)
    }

    /// The node whose key this is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId::of(&self.public)
    }

    /// A secret that only the holder of this key can derive, for `purpose` and `input`.
    pub(crate) fn derive(&self, purpose: &str, input: &[u8]) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_derive_key(purpose);
        hash.update(&*self.seed);
        hash.update(input);
        *hash.finalize().as_bytes()
    }

    /// As PKCS #8, for the TLS library.
    pub(crate) fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8.len() + 32));
        der.extend_from_slice(&PKCS8);
        der.extend_from_slice(&*self.seed);
        der
    }
}

impl Sign for Keypair {
    fn public_key(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.pair.sign(message);
        let bytes =
            <[u8; 64]>::try_from(signature.as_ref()).expect("an Ed25519 signature has 64 bytes");
        Signature::from_bytes(bytes)
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keypair").field(&self.public).finish()
    }
}

/// Checks Ed25519 signatures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ed25519;

impl Verify for Ed25519 {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, key.as_bytes())
            .verify(message, signature.as_bytes())
            .is_ok()
    }
}

/// Bytes nobody can guess.
///
/// # Panics
/// When the system has no randomness to give: nothing safe can be done without.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

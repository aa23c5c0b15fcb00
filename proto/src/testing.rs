//! A signer for tests: quick, deterministic, and as hard to forge as its secret is to guess.

use crate::id::{PublicKey, Signature};
use crate::sign::{Sign, Verify};

/// Signs with BLAKE3 under a key derived from its public key: whoever has this code can forge, so
/// it exists in tests alone.
pub(crate) struct Toy(pub u8);

impl Sign for Toy {
    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes([self.0; 32])
    }

    fn sign(&self, message: &[u8]) -> Signature {
        tag(&self.public_key(), message)
    }
}

/// Checks what [`Toy`] signs.
pub(crate) struct ToyVerify;

impl Verify for ToyVerify {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        tag(key, message) == *signature
    }
}

fn tag(key: &PublicKey, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    blake3::Hasher::new_keyed(key.as_bytes()).update(message).finalize_xof().fill(&mut bytes);
    Signature::from_bytes(bytes)
}

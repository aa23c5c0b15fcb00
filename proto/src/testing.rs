//! A signer for tests: quick, deterministic, and as hard to forge as its number is to guess. Whoever
//! has this code can forge, so no release has it.

use crate::id::{NodeId, PublicKey, Signature};
use crate::sign::{Sign, Verify};

#[cfg(all(feature = "testing", not(debug_assertions)))]
compile_error!("the feature `testing` of `proto` lets anybody sign for anybody: not in a release");

/// Signs with BLAKE3 under its public key, which follows from its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toy(pub u32);

impl Toy {
    /// The node whose key it is.
    #[must_use]
    pub fn id(self) -> NodeId {
        NodeId::of(&self.public_key())
    }
}

impl Sign for Toy {
    fn public_key(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[28..].copy_from_slice(&self.0.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    fn sign(&self, message: &[u8]) -> Signature {
        tag(&self.public_key(), message)
    }
}

/// Checks what [`Toy`] signs.
#[derive(Clone, Copy, Debug)]
pub struct ToyVerify;

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

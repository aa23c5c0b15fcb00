//! Signing and checking, as the pure floors see it: they say what is signed, and leave the
//! cryptography to whoever holds the key.

use crate::id::{PublicKey, Signature};

/// Holds a private key. Implementations must be deterministic (RFC 8032 §5.1.6), so that one seed
/// gives one log.
pub trait Sign: Send + Sync {
    /// The public half.
    fn public_key(&self) -> PublicKey;

    /// The signature of exactly `message`.
    fn sign(&self, message: &[u8]) -> Signature;
}

/// Checks signatures.
pub trait Verify: Send + Sync {
    /// Whether the holder of `key` signed exactly `message`.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool;
}

//! Who: nodes, networks, their keys, and the links between them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};

/// Lower-case base32 without padding: easy to read aloud, to select and to put into a DNS label.
pub fn base32() -> &'static Encoding {
    static ENCODING: std::sync::OnceLock<Encoding> = std::sync::OnceLock::new();
    ENCODING.get_or_init(|| {
        let mut spec = Specification::new();
        spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
        spec.translate.from.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        spec.translate.to.push_str("abcdefghijklmnopqrstuvwxyz");
        spec.encoding().expect("the alphabet above has 32 distinct symbols")
    })
}

/// A text is not an identifier: wrong length or alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected 52 characters of a-z and 2-7")]
pub struct NotAnId;

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $domain:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl Ord for $name {
            /// By their bytes. The first eight tell almost all apart, in one instruction.
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                let first = |id: &Self| {
                    let [a, b, c, d, e, f, g, h, ..] = id.0;
                    u64::from_be_bytes([a, b, c, d, e, f, g, h])
                };
                first(self).cmp(&first(other)).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The id of the holder of `key`: BLAKE3 over a domain string and the key, so that an
            /// id of one sort can never be passed off as one of another.
            #[must_use]
            pub fn of(key: &PublicKey) -> Self {
                let mut hash = blake3::Hasher::new_derive_key($domain);
                hash.update(key.as_bytes());
                Self(*hash.finalize().as_bytes())
            }

            /// From the 32 bytes of the wire.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first ten characters: 50 bits, enough for people to tell members apart.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(10);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32().encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let bytes = base32().decode(text.as_bytes()).map_err(|_| NotAnId)?;
                <[u8; 32]>::try_from(&bytes[..]).map(Self).map_err(|_| NotAnId)
            }
        }
    };
}

hash_id!(
    /// A node: the hash of its public key. Whoever proves the key is the node; no name decides.
    NodeId,
    "micro network 2026 node id"
);
hash_id!(
    /// A network: the hash of its root's public key.
    NetworkId,
    "micro network 2026 network id"
);

/// An Ed25519 public key (RFC 8032 §5.1.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From the 32 bytes of RFC 8032 §5.1.2. Whether they are a point of the curve is found out
    /// when a signature is checked.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32().encode(&self.0))
    }
}

/// An Ed25519 signature (RFC 8032 §5.1.6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// From the 64 bytes of the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes of the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", base32().encode(&self.0[..5]))
    }
}

/// One connection between two nodes, numbered by this process; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_key_differ_by_what_they_name() {
        let key = PublicKey::from_bytes([7; 32]);
        assert_ne!(NodeId::of(&key).as_bytes(), NetworkId::of(&key).as_bytes());
    }

    #[test]
    fn an_id_is_read_back_from_its_text_in_either_case() {
        let id = NodeId::of(&PublicKey::from_bytes([3; 32]));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(id.short().parse::<NodeId>(), Err(NotAnId));
    }
}

//! Who may use the port for NATS: whoever knows a token, or holds a key that is listed.
//!
//! ```text
//! node     INFO {"auth_required":true,"nonce":"…"}
//! client   CONNECT {"auth_token":"…"}              a token that is known
//!          CONNECT {"nkey":"U…","sig":"…"}         the nonce, signed by a key that is listed
//! node     -ERR 'Authorization Violation'          anything else, and anything before it
//! ```
//!
//! A nonce is drawn for each connection, so that what was signed for one is of no use for another. Of
//! tokens only hashes are kept, and all of them are compared in the same time whichever it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD};
use proto::sign::Verify as _;
use proto::{PublicKey, Signature};
use tokio::time::Instant;

/// How long a client may take to say who it is: the servers of NATS have 2 s, and a machine that is
/// busy needs more.
const PATIENCE: Duration = Duration::from_secs(10);
/// What stands first in the key of a user, before it is written in base32: it makes the `U`.
const USER: u8 = 20 << 3;

/// What clients are asked for; the default asks for nothing.
#[derive(Clone, Debug, Default)]
pub struct Login {
    tokens: Vec<blake3::Hash>,
    keys: Vec<PublicKey>,
}

/// Why a text is not the public key of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It can be used to sign, and is not for others to have.
    #[error("this is a seed, which is secret; the public key that belongs to it begins with U")]
    Seed,
    /// It is the key of something else than a user, or none.
    #[error("the public key of a user has 56 letters and digits and begins with U")]
    NotAUser,
    /// A character is missing, added or altered.
    #[error("a character of this key is wrong: its last two are a checksum")]
    Damaged,
}

/// What a client says of itself. Not to be shown: it is secret.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Said {
    auth_token: String,
    nkey: String,
    sig: String,
}

impl Login {
    /// Lets in who says one of `tokens`, and who holds the other half of one of `keys`. Where there
    /// are neither, everybody.
    pub fn new<'a>(tokens: impl IntoIterator<Item = &'a str>, keys: Vec<PublicKey>) -> Self {
        let tokens = tokens.into_iter().map(|token| blake3::hash(token.as_bytes())).collect();
        Self { tokens, keys }
    }

    /// Whether clients are asked for anything.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        !(self.tokens.is_empty() && self.keys.is_empty())
    }

    fn knows(&self, token: &str) -> bool {
        let given = blake3::hash(token.as_bytes());
        // Comparing hashes of blake3 takes the same time for all; so does looking at each of them.
        self.tokens.iter().fold(false, |known, token| known | (*token == given))
    }

    fn signed(&self, nonce: &str, said: &Said) -> bool {
        let (Ok(key), Some(signature)) = (user_key(&said.nkey), signature(&said.sig)) else {
            return false;
        };
        self.keys.contains(&key) && tunnel::Ed25519.verify(&key, nonce.as_bytes(), &signature)
    }
}

/// The door of one connection, while nobody has come in.
pub(super) struct Door {
    login: Arc<Login>,
    /// What holders of keys sign.
    pub(super) nonce: String,
    /// When whoever stands before it has to go.
    pub(super) until: Instant,
}

impl Door {
    /// None where everybody may come in.
    pub(super) fn of(login: &Arc<Login>) -> Option<Self> {
        let nonce = || BASE64URL_NOPAD.encode(&tunnel::identity::random::<18>());
        let until = Instant::now() + PATIENCE;
        login.is_asked().then(|| Self { login: Arc::clone(login), nonce: nonce(), until })
    }

    /// Whether a client that says this (`CONNECT`) may come in.
    pub(super) fn opens(&self, json: &Bytes) -> bool {
        let Ok(said) = serde_json::from_slice::<Said>(json) else { return false };
        self.login.knows(&said.auth_token) || self.login.signed(&self.nonce, &said)
    }
}

/// The key in the text that NATS has for it: base32 of a byte for its kind, the key, and a checksum.
///
/// # Errors
/// [`KeyError`].
pub fn user_key(text: &str) -> Result<PublicKey, KeyError> {
    if text.starts_with('S') {
        return Err(KeyError::Seed);
    }
    let bytes = BASE32_NOPAD.decode(text.as_bytes()).map_err(|_| KeyError::NotAUser)?;
    let bytes = <[u8; 35]>::try_from(bytes).map_err(|_| KeyError::NotAUser)?;
    let (body, sum) = bytes.split_at(33);
    if body[0] != USER {
        return Err(KeyError::NotAUser);
    }
    if checksum(body).to_le_bytes() != sum {
        return Err(KeyError::Damaged);
    }
    let key = <[u8; 32]>::try_from(&body[1..]).map_err(|_| KeyError::NotAUser)?;
    Ok(PublicKey::from_bytes(key))
}

/// The text that [`user_key`] reads.
#[must_use]
pub fn user_text(key: &PublicKey) -> String {
    let mut bytes = vec![USER];
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
    BASE32_NOPAD.encode(&bytes)
}

/// Clients write it with either alphabet of base64, and some with padding.
fn signature(text: &str) -> Option<Signature> {
    let text = text.trim_end_matches('=').as_bytes();
    let bytes = BASE64URL_NOPAD.decode(text).or_else(|_| BASE64_NOPAD.decode(text)).ok()?;
    <[u8; 64]>::try_from(bytes).ok().map(Signature::from_bytes)
}

/// CRC-16 with the polynomial of CCITT, from zero, as XMODEM has it.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(*byte) << 8), |sum, _| {
            let shifted = sum << 1;
            if sum & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use proto::sign::Sign as _;

    use super::*;

    /// The key of the seed 0, 1, … 31, and its signature of "a nonce", as the package nkeys of
    /// Python has them.
    const KEY: &str = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";
    const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";
    const SIGNED: &str =
        "kKPB5DjH31g0epf8HWXaG8cm9uxqizSHb14G2dIfKRcyTwf9qJ371DXAPrvqVFRNJRXMWQMsMxzoUcFVJJCuDg==";

    fn pair() -> tunnel::Keypair {
        tunnel::Keypair::from_seed(std::array::from_fn(|at| u8::try_from(at).unwrap()))
    }

    fn door(tokens: &[&str], keys: &[&str]) -> Door {
        let keys = keys.iter().map(|key| user_key(key).unwrap()).collect();
        Door::of(&Arc::new(Login::new(tokens.iter().copied(), keys))).unwrap()
    }

    fn opens(door: &Door, said: serde_json::Value) -> bool {
        door.opens(&said.to_string().into())
    }

    #[test]
    fn keys_and_signatures_are_read_as_other_programs_write_them() {
        assert_eq!(user_key(KEY), Ok(pair().public_key()));
        assert_eq!(user_text(&pair().public_key()), KEY);
        assert_eq!(signature(SIGNED), Some(pair().sign(b"a nonce")));
        let standard = SIGNED.replace('-', "+").replace('_', "/");
        assert_eq!(signature(&standard), signature(SIGNED));
        assert_eq!(signature(SIGNED.trim_end_matches('=')), signature(SIGNED));
        assert_eq!(checksum(b"123456789"), 0x31c3, "the check value of XMODEM");
    }

    #[test]
    fn what_is_no_key_of_a_user_is_refused_with_a_reason() {
        assert_eq!(user_key(SEED), Err(KeyError::Seed));
        assert_eq!(user_key(&KEY.replace("B5", "B6")), Err(KeyError::Damaged));
        for text in ["", "U", &KEY.to_lowercase(), &KEY[..55], &KEY.replacen('U', "A", 1)] {
            assert_eq!(user_key(text), Err(KeyError::NotAUser), "{text:?}");
        }
    }

    #[test]
    fn a_token_opens_and_others_do_not() {
        let door = door(&["first", "second"], &[]);
        for (token, opened) in [("first", true), ("second", true), ("third", false), ("", false)] {
            assert_eq!(opens(&door, serde_json::json!({ "auth_token": token })), opened, "{token}");
        }
        assert!(!opens(&door, serde_json::json!({})));
        assert!(!opens(&door, serde_json::json!({ "auth_token": ["first"] })));
    }

    #[test]
    fn a_listed_key_opens_with_its_signature_of_this_nonce_alone() {
        let (door, other) = (door(&[], &[KEY]), door(&[], &[KEY]));
        let sign = |pair: &tunnel::Keypair, nonce: &str| {
            BASE64URL_NOPAD.encode(pair.sign(nonce.as_bytes()).as_bytes())
        };
        let good = serde_json::json!({ "nkey": KEY, "sig": sign(&pair(), &door.nonce) });
        assert!(opens(&door, good.clone()));
        assert!(!opens(&other, good), "it was signed for another connection");
        let stranger = tunnel::Keypair::from_seed([7; 32]);
        for sig in [sign(&stranger, &door.nonce), String::new(), SIGNED.to_owned()] {
            assert!(!opens(&door, serde_json::json!({ "nkey": KEY, "sig": sig })), "{sig}");
        }
    }

    #[test]
    fn a_key_that_signs_well_and_is_not_listed_does_not_open() {
        let door = door(&["token"], &[]);
        let sig = BASE64URL_NOPAD.encode(pair().sign(door.nonce.as_bytes()).as_bytes());
        assert!(!opens(&door, serde_json::json!({ "nkey": KEY, "sig": sig })));
    }

    #[test]
    fn without_tokens_and_keys_there_is_no_door() {
        assert!(Door::of(&Arc::default()).is_none());
    }
}

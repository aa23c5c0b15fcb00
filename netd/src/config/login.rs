//! What lets clients of NATS in: tokens by reference, and public keys of users.

use proto::PublicKey;

use super::secret::{self, Secret};
use super::values::Raw;

/// Tokens of one node: each is looked at for each client.
const MAX_TOKENS: usize = 64;
/// Users of one node.
const MAX_KEYS: usize = 4096;
/// The longest token: with what else a client says of itself it fits in a line of NATS.
const MAX_TOKEN: usize = 1024;

/// Tokens. One text is one token, whatever it is made of.
///
/// # Errors
/// What is wrong with one of them; nothing of a token is in it.
pub(super) fn tokens(raw: &Raw) -> Result<Vec<Secret>, String> {
    let given: Vec<&str> = match raw {
        Raw::Text(text) => vec![text],
        Raw::List(list) => list.iter().map(String::as_str).collect(),
        Raw::Map(_) | Raw::Tables(_) => return Err("a token, or a list of them".to_owned()),
    };
    if given.len() > MAX_TOKENS {
        return Err(format!("there are at most {MAX_TOKENS} tokens"));
    }
    given.into_iter().map(token).collect()
}

fn token(text: &str) -> Result<Secret, String> {
    let token = secret::read(text)?;
    match token.expose().len() {
        1..=MAX_TOKEN => Ok(token),
        _ => Err(format!("a token has 1 to {MAX_TOKEN} bytes")),
    }
}

/// Public keys, as the programs of NATS write them.
///
/// # Errors
/// What is wrong with the first that is none.
pub(super) fn keys(raw: &Raw) -> Result<Vec<PublicKey>, String> {
    let given = raw.list();
    if given.len() > MAX_KEYS {
        return Err(format!("there are at most {MAX_KEYS} keys"));
    }
    let key = |text: &str| proxy::nats::user_key(text).map_err(|why| why.to_string());
    given.into_iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_from_where_they_are_said_to_be_and_not_taken_apart() {
        let exposed = |raw: &Raw| {
            let tokens = tokens(raw)?;
            Ok(tokens.iter().map(|token| token.expose().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(exposed(&Raw::Text("a,b".into())), Ok(vec!["a,b".to_owned()]));
        let list = Raw::List(vec!["a".into(), "b".into()]);
        assert_eq!(exposed(&list), Ok::<_, String>(vec!["a".to_owned(), "b".to_owned()]));
        for wrong in ["", "env:MICRO_NO_SUCH_VARIABLE", &"x".repeat(1025)] {
            assert!(tokens(&Raw::List(vec![wrong.to_owned()])).is_err(), "{wrong:.20}");
        }
    }

    #[test]
    fn a_seed_in_place_of_a_key_is_told_from_other_mistakes() {
        let seed = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";
        assert!(keys(&Raw::Text(seed.into())).unwrap_err().contains("secret"));
        let key = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";
        let read = keys(&Raw::Text(format!("{key}, {key}"))).unwrap();
        assert_eq!(read.iter().map(proxy::nats::user_text).collect::<Vec<_>>(), [key, key]);
    }
}

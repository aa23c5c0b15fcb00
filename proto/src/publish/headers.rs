//! Headers of a message, as they travel: names keep their case, fields their order.

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::varint;

/// Bytes of all headers of one message.
pub const MAX_HEADERS: usize = 64 * 1024;

/// Name and value pairs, in order; a name may come again.
///
/// ```text
/// ( name length (varint) | name | value length (varint) | value ) *
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Bytes);

impl Headers {
    /// Adds one; what there was is copied, so gather where there are many.
    ///
    /// # Errors
    /// [`DecodeError`] when the name cannot be one, the value has a line break, or there are more
    /// than [`MAX_HEADERS`] bytes.
    pub fn push(&mut self, name: &str, value: &[u8]) -> Result<(), DecodeError> {
        *self = Self::of(self.iter().chain([(name, value)]))?;
        Ok(())
    }

    /// Headers of these pairs.
    ///
    /// # Errors
    /// As [`Headers::push`].
    pub fn of<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, DecodeError> {
        let mut out = BytesMut::new();
        for (name, value) in pairs {
            check(name.as_bytes(), value)?;
            for text in [name.as_bytes(), value] {
                varint::put(&mut out, text.len() as u64);
                out.extend_from_slice(text);
            }
            if out.len() > MAX_HEADERS {
                return Err(DecodeError::TooLarge("headers"));
            }
        }
        Ok(Self(out.freeze()))
    }

    /// From the bytes of the wire.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not headers.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_HEADERS {
            return Err(DecodeError::TooLarge("headers"));
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (name, value) = pair(&mut rest).ok_or(DecodeError::Truncated("header"))?;
            check(name, value)?;
        }
        Ok(Self(bytes))
    }

    /// As they travel.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (name, value) = pair(&mut rest)?;
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }
}

/// A name is what NATS, HTTP and go-micro all can carry: visible ASCII without a colon. A value has
/// no line break, or it would be another header in the text of some protocol.
fn check(name: &[u8], value: &[u8]) -> Result<(), DecodeError> {
    let visible = |byte: &u8| byte.is_ascii_graphic() && *byte != b':';
    if name.is_empty() || !name.iter().all(visible) {
        return Err(DecodeError::Invalid("header name"));
    }
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(DecodeError::Invalid("header value"));
    }
    Ok(())
}

fn pair<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut text = || {
        let length = usize::try_from(varint::take(rest)?).ok()?;
        let (text, left) = rest.split_at_checked(length)?;
        *rest = left;
        Some(text)
    };
    Some((text()?, text()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_order_and_repetition_are_kept() {
        let pairs = [("X-A", &b"1"[..]), ("x-a", b"2"), ("X-A", b"")];
        let headers = Headers::of(pairs).unwrap();
        assert!(headers.iter().eq(pairs));
        assert_eq!(Headers::decode(headers.bytes().clone()), Ok(headers));
    }

    #[test]
    fn what_would_be_another_header_elsewhere_is_refused() {
        for (name, value) in [("a:b", "x"), ("", "x"), ("a b", "x"), ("a", "x\r\nb: y")] {
            assert!(Headers::of([(name, value.as_bytes())]).is_err(), "{name:?} {value:?}");
        }
        let long = vec![b'x'; MAX_HEADERS];
        assert_eq!(Headers::of([("a", &long[..])]), Err(DecodeError::TooLarge("headers")));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(headers) = Headers::decode(bytes.into()) {
                let again = Headers::of(headers.iter()).unwrap();
                proptest::prop_assert!(again.iter().eq(headers.iter()));
            }
        }
    }
}

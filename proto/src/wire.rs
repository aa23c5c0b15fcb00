//! Tagged fields: the body of every message between nodes.
//!
//! ```text
//! +-----------------------------+---------------------------------+
//! | tag * 2 + 0 (varint)        | value (varint)                  |   an integer
//! | tag * 2 + 1 (varint)        | length (varint) | length bytes  |   bytes, text or a message
//! +-----------------------------+---------------------------------+
//! ```
//!
//! Fields may come in any order; a repeated field is a list. A tag that the reader does not know is
//! skipped, unless it is [`CRITICAL`] or above: then the message is refused, so that a newer node
//! can say "do not go on without understanding this". Absent integers read as 0, absent bytes as
//! empty; writers leave those out.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::varint;

/// Tags from here on must be understood or the message refused.
pub const CRITICAL: u64 = 64;

/// Fields one message may have; what is longer is not a message of ours.
pub const MAX_FIELDS: usize = 4096;

/// One field, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Int(u64),
    /// Bytes, text, or a nested message.
    Bytes(Bytes),
}

impl Value {
    /// The integer, or an error that names the field.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when the field was written as bytes.
    pub fn int(self, name: &'static str) -> Result<u64, DecodeError> {
        match self {
            Self::Int(value) => Ok(value),
            Self::Bytes(_) => Err(DecodeError::Invalid(name)),
        }
    }

    /// The bytes, at most `max` of them.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for an integer, [`DecodeError::TooLarge`] above `max`.
    pub fn bytes(self, name: &'static str, max: usize) -> Result<Bytes, DecodeError> {
        match self {
            Self::Bytes(bytes) if bytes.len() <= max => Ok(bytes),
            Self::Bytes(_) => Err(DecodeError::TooLarge(name)),
            Self::Int(_) => Err(DecodeError::Invalid(name)),
        }
    }

    /// The bytes as UTF-8 text without control characters, at most `max` bytes.
    ///
    /// # Errors
    /// As [`Value::bytes`], and [`DecodeError::Invalid`] for other bytes: text ends in logs and
    /// terminals, so control characters are refused at the door.
    pub fn text(self, name: &'static str, max: usize) -> Result<String, DecodeError> {
        let bytes = self.bytes(name, max)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| DecodeError::Invalid(name))?;
        if text.chars().any(char::is_control) {
            return Err(DecodeError::Invalid(name));
        }
        Ok(text.to_owned())
    }

    /// The bytes as an array of exactly `N`.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for any other length.
    pub fn array<const N: usize>(self, name: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes(name, N)?;
        <[u8; N]>::try_from(&bytes[..]).map_err(|_| DecodeError::Invalid(name))
    }
}

/// Appends an integer field; 0 is the default and is left out.
pub fn put_int(out: &mut BytesMut, tag: u64, value: u64) {
    if value != 0 {
        varint::put(out, tag * 2);
        varint::put(out, value);
    }
}

/// Appends a field of bytes; empty is the default and is left out.
pub fn put_bytes(out: &mut BytesMut, tag: u64, value: &[u8]) {
    if !value.is_empty() {
        put_item(out, tag, value);
    }
}

/// Appends an item of a list of bytes: unlike [`put_bytes`], empty items are kept.
pub fn put_item(out: &mut BytesMut, tag: u64, value: &[u8]) {
    varint::put(out, tag * 2 + 1);
    varint::put(out, value.len() as u64);
    out.put_slice(value);
}

/// Appends a nested message that `write` produces.
pub fn put_message(out: &mut BytesMut, tag: u64, write: impl FnOnce(&mut BytesMut)) {
    let mut inner = BytesMut::new();
    write(&mut inner);
    put_item(out, tag, &inner);
}

/// Reads the fields of one message, front to back.
#[derive(Debug)]
pub struct Fields {
    rest: Bytes,
    left: usize,
}

impl Fields {
    /// A reader over the whole of `message`.
    #[must_use]
    pub fn new(message: Bytes) -> Self {
        Self { rest: message, left: MAX_FIELDS }
    }

    /// The next field and its tag; `None` at the end of the message.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] for a field that promises more than there is,
    /// [`DecodeError::TooLarge`] after [`MAX_FIELDS`].
    #[expect(clippy::should_implement_trait, reason = "the error ends it, so `?` stands first")]
    pub fn next(&mut self) -> Result<Option<(u64, Value)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.left = self.left.checked_sub(1).ok_or(DecodeError::TooLarge("fields"))?;
        let mut input = &self.rest[..];
        let key = varint::take(&mut input).ok_or(DecodeError::Truncated("field"))?;
        let value = varint::take(&mut input).ok_or(DecodeError::Truncated("field"))?;
        let read = self.rest.len() - input.len();
        let available = input.len();
        let _ = self.rest.split_to(read);
        if key % 2 == 0 {
            return Ok(Some((key / 2, Value::Int(value))));
        }
        let length = usize::try_from(value).map_err(|_| DecodeError::Truncated("field"))?;
        if length > available {
            return Err(DecodeError::Truncated("field"));
        }
        Ok(Some((key / 2, Value::Bytes(self.rest.split_to(length)))))
    }
}

/// What a reader does with a tag it does not know: skip it, or refuse the message.
///
/// # Errors
/// [`DecodeError::UnknownCritical`] from [`CRITICAL`] on.
pub fn unknown(tag: u64) -> Result<(), DecodeError> {
    if tag >= CRITICAL { Err(DecodeError::UnknownCritical(tag)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order_and_defaults_are_left_out() {
        let mut out = BytesMut::new();
        put_int(&mut out, 1, 0);
        put_int(&mut out, 2, 7);
        put_bytes(&mut out, 3, b"");
        put_item(&mut out, 3, b"");
        put_bytes(&mut out, 4, b"abc");
        let mut fields = Fields::new(out.freeze());
        assert_eq!(fields.next(), Ok(Some((2, Value::Int(7)))));
        assert_eq!(fields.next(), Ok(Some((3, Value::Bytes(Bytes::new())))));
        assert_eq!(fields.next(), Ok(Some((4, Value::Bytes(Bytes::from_static(b"abc"))))));
        assert_eq!(fields.next(), Ok(None));
    }

    #[test]
    fn a_length_beyond_the_end_is_an_error_and_reserves_nothing() {
        let mut out = BytesMut::new();
        varint::put(&mut out, 3);
        varint::put(&mut out, varint::MAX);
        assert_eq!(Fields::new(out.freeze()).next(), Err(DecodeError::Truncated("field")));
    }

    #[test]
    fn unknown_fields_are_skipped_unless_critical() {
        assert_eq!(unknown(CRITICAL - 1), Ok(()));
        assert_eq!(unknown(CRITICAL), Err(DecodeError::UnknownCritical(CRITICAL)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let mut fields = Fields::new(Bytes::from(bytes));
            while let Ok(Some(_)) = fields.next() {}
        }
    }
}

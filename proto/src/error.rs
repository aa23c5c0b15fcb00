//! Why bytes from another node could not be understood.

/// Why bytes were not what they claimed to be. Every variant is final: the other side does not
/// speak this protocol, or is hostile; waiting for more bytes does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends inside a value that its own length prefix promised.
    #[error("truncated {0}")]
    Truncated(&'static str),
    /// A length or count is above the bound of the field.
    #[error("{0} is larger than allowed")]
    TooLarge(&'static str),
    /// A field that must be present is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value is present and well framed, and still not one of those allowed.
    #[error("{0} is not valid")]
    Invalid(&'static str),
    /// A frame or field this build does not know, marked as one that must not be skipped.
    #[error("unknown critical field {0}")]
    UnknownCritical(u64),
}

//! Why something was not done, in the words of etcd where its clients know them by their words.

use tonic::Code;

use super::super::failure::Failure;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident: $code:ident, $text:literal;)*) => {
        $($(#[$doc])* pub(super) fn $name() -> Failure {
            Failure::plain(Code::$code, concat!("etcdserver: ", $text))
        })*
    };
}

words! {
    /// The request names no key.
    no_key: InvalidArgument, "key is not provided";
    /// A value came with the wish to keep the one there is.
    value_given: InvalidArgument, "value is provided";
    /// A lease came with the wish to keep the one there is.
    lease_given: InvalidArgument, "lease is provided";
    /// There is nothing to keep the value or lease of.
    key_not_found: InvalidArgument, "key not found";
    /// An order that does not exist.
    bad_sort: InvalidArgument, "invalid sort option";
    /// Older than what is kept.
    compacted: OutOfRange, "mvcc: required revision has been compacted";
    /// Newer than what is.
    future: OutOfRange, "mvcc: required revision is a future revision";
    /// Run out, revoked, or never granted.
    no_lease: NotFound, "requested lease not found";
    /// The id that was asked for is taken.
    lease_exists: FailedPrecondition, "lease already exists";
    /// A lease for longer than anybody lives.
    lease_too_long: OutOfRange, "too large lease TTL";
    /// A value beyond the bound.
    too_large: InvalidArgument, "request is too large";
}

/// What this node does not do though it could be asked for; the text is for people.
pub(super) fn refused(code: Code, text: impl Into<String>) -> Failure {
    Failure::plain(code, text)
}

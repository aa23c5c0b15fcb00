//! What can go wrong at this end, by what was asked.

use std::io;
use std::net::SocketAddr;

use proto::join::Refusal;

use crate::close::Gone;
use crate::dial::DialError;
use crate::stream::StreamError;

/// Why a tunnel could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, not of this machine, or not allowed.
    #[error("cannot listen at {address} (UDP): {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

/// Why no stream was opened. In every case the service has certainly not seen the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no link, and none could be made.
    #[error("the node cannot be reached: {0}")]
    Unreachable(#[from] DialError),
    /// There is a link, and nothing is heard on it.
    #[error("nothing is heard from the node")]
    Suspected,
    /// The node has as many streams open as it allows, or this node as many links.
    #[error("too many calls to the node are open")]
    TooMany,
    /// The link went away at the same moment.
    #[error("{0}")]
    Lost(Gone),
}

/// Why an echo or a renewal gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No stream was opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The stream ended early.
    #[error("{0}")]
    Stream(#[from] StreamError),
    /// The issuer said no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// What came back is not an answer.
    #[error("the answer cannot be read")]
    Unreadable,
}

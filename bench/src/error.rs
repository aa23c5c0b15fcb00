//! What can go wrong before or around a measurement; failed calls are counted, not returned.

use std::io;

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A program, peer or argument is not as it has to be.
    #[error("{0}")]
    Wrong(String),
}

impl Error {
    /// For `map_err`: names what was attempted.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err`: wraps any other error under what was attempted.
    pub fn at<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| Self::Wrong(format!("{what}: {error}"))
    }
}

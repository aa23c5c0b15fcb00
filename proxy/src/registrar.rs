//! Who takes the instances that programs register.

use futures_util::future::BoxFuture;
use proto::ServiceName;

/// Why a registration was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrarError {
    /// The node's grant does not allow it; the text says why.
    #[error("{0}")]
    Refused(String),
    /// What was asked for is not there.
    #[error("no such instance")]
    NotFound,
    /// The instance is more than may be said of one, or of all that this node offers; the text is for
    /// people.
    #[error("{0}")]
    TooMuch(String),
    /// The node is leaving, or too busy to answer.
    #[error("the node does not take registrations now")]
    Unavailable,
}

/// The way from the registry services to the router of this node.
///
/// Answers when the router has accepted or refused, so that a program which was told yes is in the
/// next routes.
pub trait Registrar: Send + Sync {
    /// Adds or renews the instance of `registration`.
    fn register(
        &self,
        registration: router::Registration,
    ) -> BoxFuture<'_, Result<(), RegistrarError>>;

    /// Takes an instance away; without a version, whichever version has it.
    fn deregister(
        &self,
        service: ServiceName,
        version: Option<String>,
        instance: String,
    ) -> BoxFuture<'_, Result<(), RegistrarError>>;
}

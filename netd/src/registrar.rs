//! The way from the registry services and the admin API to the router of this node.

pub mod alive;
pub mod checked;
pub mod probe;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::ServiceName;
use proxy::{Registrar, RegistrarError};
use router::{Refusal, Registration, Request};

use crate::drive::Asks;

/// Registers with the router and waits for its verdict.
#[derive(Clone, Debug)]
pub struct ToRouter(pub Asks);

impl ToRouter {
    async fn ask(&self, request: Request) -> Result<(), RegistrarError> {
        match self.0.request(request).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(refused(refusal)),
            Err(_leaving) => Err(RegistrarError::Unavailable),
        }
    }
}

fn refused(refusal: Refusal) -> RegistrarError {
    match refusal {
        Refusal::Leaving => RegistrarError::Unavailable,
        Refusal::TooManyServices
        | Refusal::TooManyInstances
        | Refusal::TooLarge
        | Refusal::Malformed(_) => RegistrarError::TooMuch(refusal.to_string()),
        Refusal::NotGranted
        | Refusal::Expired
        | Refusal::StaleRules(_)
        | Refusal::TooManyRules
        | Refusal::ForeignNode => RegistrarError::Refused(refusal.to_string()),
    }
}

impl Registrar for ToRouter {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<(), RegistrarError>> {
        self.ask(Request::Register(registration)).boxed()
    }

    fn deregister(
        &self,
        service: ServiceName,
        version: Option<String>,
        instance: String,
    ) -> BoxFuture<'_, Result<(), RegistrarError>> {
        self.ask(Request::Deregister { service, version, instance }).boxed()
    }
}

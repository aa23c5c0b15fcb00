//! Addresses that people name: turned into socket addresses, and dialled.

use std::net::SocketAddr;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::drive::Asks;
use crate::error::{Exit, Problem};

/// All addresses of all names.
///
/// # Errors
/// M4003 for a name that leads nowhere: whoever says how to be reached must not be wrong silently.
pub async fn resolve_all(names: &[String]) -> Result<Vec<SocketAddr>, Problem> {
    let mut all = Vec::new();
    for name in names {
        let found = tunnel::seeds::resolve(name).await.map_err(|why| {
            let what = format!("network.advertise: {name:?} has no address");
            Problem::new("M4003", Exit::Config, what)
                .why(why.to_string())
                .attempt("micro network --advertise 203.0.113.9:8085", "an address works too")
        })?;
        all.extend(found);
    }
    Ok(all)
}

/// What our own network service may do: have further seeds dialled.
#[derive(Clone, Debug)]
pub struct Connect(pub Asks);

impl proxy::own::Admin for Connect {
    fn connect(&self, addresses: Vec<String>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            for address in addresses {
                let found = tunnel::seeds::resolve(&address).await;
                let found = found.map_err(|why| format!("{address}: {why}"))?;
                self.0.dial_seed(found).await;
            }
            Ok(())
        }
        .boxed()
    }
}

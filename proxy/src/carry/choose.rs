//! Which instance takes a call.

use std::sync::Arc;

use proto::NodeId;
use proto::record::Protocol;
use router::{Candidates, Instance, Lookup, Mismatch, ServiceRoutes};

use super::{Call, Tried};
use crate::balance::shell::AtInstance;
use crate::balance::{NoChoice, Pool};
use crate::error::Error;
use crate::proxy::Shared;
use crate::ruled::Fields;

/// An instance that is to take a call, which counts there already.
pub(crate) struct Chosen {
    pub(crate) key: u64,
    pub(crate) id: Arc<str>,
    pub(crate) node: NodeId,
    pub(crate) here: bool,
    pub(crate) address: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) at: AtInstance,
    /// There are further instances.
    pub(crate) others: bool,
}

impl Shared {
    /// An instance for `call` that was not tried yet: see [`crate::balance`].
    ///
    /// # Errors
    /// Why there is none, as it is told to people.
    pub(super) fn choose(&self, call: &Call, tried: &Tried) -> Result<Chosen, Error> {
        let routes = self.routes.load();
        let service = || call.name().to_owned();
        let fields = Fields(&call.head.headers);
        let ruled = call.ruled.as_deref();
        let decided = ruled.map(|ruled| self.decide(call, ruled, &fields, &routes));
        let lookup = match &decided {
            Some(decided) => decided.lookup,
            None => routes.lookup(&call.service, &call.selector),
        };
        let candidates = match lookup {
            Lookup::Unknown => return Err(Error::NoService(service())),
            Lookup::NoMatch(found) => {
                // With what a rule asks as well, which may be what there is not.
                let mismatch = decided.and_then(|decided| decided.mismatch());
                let mismatch = mismatch.unwrap_or_else(|| found.mismatch(&call.selector));
                let selector = match call.selector.is_empty() {
                    true => mismatch.lacking.clone(),
                    false => call.selector.to_string(),
                };
                let mismatch = Some(Box::new(mismatch));
                return Err(Error::NoMatch { service: service(), selector, mismatch });
            }
            Lookup::Unreachable(_) => return Err(Error::NoPath(service())),
            Lookup::Found(candidates) => candidates,
        };
        let fits = |instance: &Instance| {
            delivers(instance.protocol, call.grpc)
                && !tried.contains(&instance.key.0)
                && call.via.as_ref().is_none_or(|via| via.takes(instance, &routes))
        };
        let affinity = ruled.and_then(|ruled| ruled.affinity);
        let spill = ruled.and_then(|ruled| ruled.spill);
        let choose = |candidates: &Candidates<'_>| {
            let pool = Pool::new(candidates, fits).sticking(affinity).spilling(spill);
            let (instance, at) = self.balance.choose(&pool, tried.is_empty())?;
            Ok(Chosen {
                key: instance.key.0,
                id: Arc::clone(&instance.id),
                node: instance.node,
                here: instance.here,
                address: Arc::clone(&instance.address),
                protocol: instance.protocol,
                at,
                others: candidates.service().instances.len() > tried.len() + 1,
            })
        };
        choose(&candidates)
            // Where none of the preferred takes it, any other is better than an error.
            .or_else(|none| candidates.widened().map_or(Err(none), |wider| choose(&wider)))
            .map_err(|none| match none {
                NoChoice::Full(limit) => Error::Overloaded { what: "the instance is", limit },
                NoChoice::None if call.via.is_some() => {
                    let via = call.via.as_ref().expect("it was just looked at");
                    let (selector, mismatch) = via.mismatch(candidates.service());
                    let mismatch = Some(Box::new(mismatch));
                    Error::NoMatch { service: service(), selector, mismatch }
                }
                NoChoice::None => {
                    let selector = if call.grpc { "gRPC" } else { "a protocol that is delivered" };
                    let mismatch = Some(Box::new(undelivered(candidates.service(), call.grpc)));
                    Error::NoMatch { service: service(), selector: selector.to_owned(), mismatch }
                }
            })
    }
}

/// What instances speak instead of what the call needs.
fn undelivered(service: &ServiceRoutes, grpc: bool) -> Mismatch {
    let mut spoken: Vec<(String, usize)> = Vec::new();
    for one in service.instances.iter() {
        let name = one.protocol.name();
        match spoken.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => spoken.push((name.to_owned(), 1)),
        }
    }
    spoken.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let lacking = if grpc { "protocol=grpc" } else { "protocol in (grpc,http,http2)" };
    Mismatch { exist: service.instances.len(), lacking: lacking.to_owned(), closest: spoken }
}

/// Whether a request can be given to an instance that speaks `protocol`. gRPC needs HTTP/2: over
/// HTTP/1 its answers would be misread.
pub(crate) fn delivers(protocol: Protocol, grpc: bool) -> bool {
    match protocol {
        Protocol::Grpc | Protocol::Http2 => true,
        Protocol::Http1 => !grpc,
        Protocol::Other(_) => false,
    }
}

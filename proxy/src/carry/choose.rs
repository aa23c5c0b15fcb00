//! Which instance takes a call.

use std::sync::Arc;

use proto::NodeId;
use proto::record::Protocol;
use router::{Candidates, Instance, Lookup};

use super::{Call, Tried};
use crate::balance::Slot;
use crate::error::Error;
use crate::proxy::Shared;

/// Instances looked at when the two chosen at random cannot take the call.
const SCAN: usize = 256;

/// An instance that is to take a call.
pub(crate) struct Chosen {
    pub(crate) key: u64,
    pub(crate) id: Arc<str>,
    pub(crate) node: NodeId,
    pub(crate) here: bool,
    pub(crate) address: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) slot: Arc<Slot>,
    /// There are further instances.
    pub(crate) others: bool,
}

impl Shared {
    /// An instance for `call` that was not tried yet: of two of the nearest chosen at random the
    /// one that will answer sooner, or the nearest that can.
    ///
    /// # Errors
    /// Why there is none, as it is told to people.
    pub(super) fn choose(&self, call: &Call, tried: &Tried) -> Result<Chosen, Error> {
        let routes = self.routes.load();
        let service = || call.service.clone();
        let candidates = match routes.lookup(&call.service, &call.selector) {
            Lookup::Unknown => return Err(Error::NoService(service())),
            Lookup::NoMatch(found) => {
                let selector = call.selector.to_string();
                let mismatch = Some(Box::new(found.mismatch(&call.selector)));
                return Err(Error::NoMatch { service: service(), selector, mismatch });
            }
            Lookup::Unreachable(_) => return Err(Error::NoPath(service())),
            Lookup::Found(candidates) => candidates,
        };
        let fits = |instance: &Instance| {
            delivers(instance.protocol, call.grpc) && !tried.contains(&instance.key.0)
        };
        let (instance, slot) = self
            .one_of_two(&candidates, &fits)
            .or_else(|| self.nearest(&candidates, &fits))
            .ok_or_else(|| {
                let selector = if call.grpc { "gRPC" } else { "a protocol that is delivered" };
                let (service, selector) = (service(), selector.to_owned());
                Error::NoMatch { service, selector, mismatch: None }
            })?;
        Ok(Chosen {
            key: instance.key.0,
            id: Arc::clone(&instance.id),
            node: instance.node,
            here: instance.here,
            address: Arc::clone(&instance.address),
            protocol: instance.protocol,
            slot,
            others: candidates.service().instances.len() > tried.len() + 1,
        })
    }

    fn one_of_two<'a>(
        &self,
        candidates: &Candidates<'a>,
        fits: &dyn Fn(&Instance) -> bool,
    ) -> Option<(&'a Instance, Arc<Slot>)> {
        let willing = |instance: &'a Instance| {
            let slot = self.balance.slot(instance.key.0);
            (fits(instance) && !self.balance.is_shunned(&slot)).then_some((instance, slot))
        };
        let chance = self.balance.chance();
        let first = candidates.pick(chance);
        if candidates.service().instances.len() == 1 {
            return willing(first);
        }
        let mut second = candidates.pick(self.balance.chance());
        if second.key == first.key {
            // The other half of the group: of two instances, certainly the other one.
            second = candidates.pick(chance.wrapping_add(1 << 63));
        }
        match (willing(first), willing(second)) {
            (Some(a), Some(b)) => Some(if self.balance.is_better(&b.1, &a.1) { b } else { a }),
            (a, b) => a.or(b),
        }
    }

    /// The nearest that did not refuse lately; if all did, the nearest.
    fn nearest<'a>(
        &self,
        candidates: &Candidates<'a>,
        fits: &dyn Fn(&Instance) -> bool,
    ) -> Option<(&'a Instance, Arc<Slot>)> {
        let mut shunned = None;
        for instance in candidates.all().filter(|instance| fits(instance)).take(SCAN) {
            let slot = self.balance.slot(instance.key.0);
            if !self.balance.is_shunned(&slot) {
                return Some((instance, slot));
            }
            shunned.get_or_insert((instance, slot));
        }
        shunned
    }
}

/// Whether a request can be given to an instance that speaks `protocol`. gRPC needs HTTP/2: over
/// HTTP/1 its answers would be misread.
fn delivers(protocol: Protocol, grpc: bool) -> bool {
    match protocol {
        Protocol::Grpc | Protocol::Http2 => true,
        Protocol::Http1 => !grpc,
        Protocol::Other(_) => false,
    }
}

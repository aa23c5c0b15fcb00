//! Which instance takes a call.

use std::sync::Arc;

use proto::NodeId;
use proto::open::Messages;
use proto::record::Protocol;
use router::{Candidates, Instance, Lookup, Mismatch, ServiceRoutes};

use super::{Call, Form, Tried};
use crate::balance::shell::AtInstance;
use crate::balance::{NoChoice, Pool};
use crate::error::Error;
use crate::explain::State;
use crate::heads::RequestHead;
use crate::health::{all_unhealthy, unhealthy};
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
    /// An instance for `call` that was not tried yet: see [`crate::balance`]. Where none of those
    /// that are preferred takes it, any other is better than an error.
    ///
    /// # Errors
    /// Why there is none, as it is told to people.
    pub(super) fn choose(&self, call: &Call, tried: &Tried) -> Result<Chosen, Error> {
        self.choose_among(call, tried, true).inspect_err(|error| {
            // Of a further attempt it says no more than that all were tried.
            if tried.is_empty() {
                self.metrics.no_instance(error);
            }
        })
    }

    /// An instance for a second attempt beside the first: one of those that are preferred. Nothing
    /// is lost yet, so what a rule or a caller prefers must not lose to what answers sooner.
    pub(super) fn choose_second(&self, call: &Call, tried: &Tried) -> Option<Chosen> {
        self.choose_among(call, tried, false).ok()
    }

    fn choose_among(&self, call: &Call, tried: &Tried, others: bool) -> Result<Chosen, Error> {
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
                let (service, state) = (service(), State::Lacks);
                return Err(Error::NoMatch { service, selector, state, mismatch });
            }
            Lookup::Unreachable(_) => return Err(Error::NoPath(service())),
            Lookup::Found(candidates) => candidates,
        };
        // What it speaks, its caller knows: bytes are carried to it whatever they are.
        let chosen_already =
            call.form == Form::Bytes && call.via.as_ref().is_some_and(|via| via.is_one());
        let fits = |instance: &Instance| {
            (delivers(instance.protocol, call.form) || chosen_already)
                && unhealthy(instance).is_none()
                && !tried.contains(&instance.key.0)
                && call.via.as_ref().is_none_or(|via| via.takes(instance, &routes))
        };
        let affinity = ruled.and_then(|ruled| ruled.affinity);
        let spill = ruled.and_then(|ruled| ruled.spill);
        let choose = |candidates: &Candidates<'_>, preferred: bool| {
            let pool = Pool::new(candidates, fits).sticking(affinity).spilling(spill);
            let (instance, at) = self.balance.choose(&pool, tried.is_empty())?;
            self.metrics.chosen(match preferred {
                _ if at.is_probe() => State::ProbeDue,
                false => State::NotPreferred,
                true if instance.group > candidates.first().group => State::OtherLocality,
                true => State::Nearest,
            });
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
        let wider = || candidates.widened().filter(|_| others);
        choose(&candidates, true)
            .or_else(|none| wider().map_or(Err(none), |wider| choose(&wider, false)))
            .map_err(|none| match none {
                NoChoice::Full(limit) => Error::Overloaded { what: "the instance is", limit },
                NoChoice::None if call.via.is_some() => {
                    let via = call.via.as_ref().expect("it was just looked at");
                    let (selector, mismatch) = via.mismatch(candidates.service());
                    let mismatch = Some(Box::new(mismatch));
                    let (service, state) = (service(), State::OtherRoute);
                    Error::NoMatch { service, selector, state, mismatch }
                }
                NoChoice::None if let Some(why) = all_unhealthy(&candidates, call.form) => {
                    Error::Unhealthy { service: service(), why }
                }
                NoChoice::None => {
                    let mismatch = Some(Box::new(undelivered(candidates.service(), call.form)));
                    let (service, selector) = (service(), call.form.needs().to_owned());
                    Error::NoMatch { service, selector, state: State::Protocol, mismatch }
                }
            })
    }
}

impl Shared {
    /// How many messages a call has: what its caller said, or else what the service says of the
    /// endpoint that the path names (contract, semantics 1).
    pub(crate) fn messages(&self, service: &str, head: &RequestHead, said: Messages) -> Messages {
        if said != Messages::Unknown {
            return said;
        }
        let routes = self.routes.load();
        let mut parts = head.path.path().rsplitn(2, '/');
        let (Some(method), Some(before)) = (parts.next(), parts.next()) else { return said };
        let structure = before.rsplit(['.', '/']).next().unwrap_or_default();
        let versions = routes.service(service).map_or(&[][..], |service| &service.versions);
        let mut endpoints = versions.iter().flat_map(|version| version.endpoints.iter());
        let named = endpoints.find(|endpoint| {
            endpoint.name.split_once('.').is_some_and(|name| name == (structure, method))
        });
        match named {
            None => Messages::Unknown,
            Some(endpoint) if endpoint.metadata.get("stream") == Some("true") => Messages::Many,
            Some(_) => Messages::One,
        }
    }
}

impl Form {
    /// What an instance must speak, for people.
    pub(crate) const fn needs(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::Http => "a protocol that is delivered",
            Self::Upgrade => "HTTP/1.1, which alone is upgraded",
            Self::Bytes => "a protocol over TCP",
            Self::Tls => "TLS",
            Self::Packets => "UDP",
        }
    }
}

/// What instances speak instead of what the call needs.
fn undelivered(service: &ServiceRoutes, form: Form) -> Mismatch {
    let mut spoken: Vec<(String, usize)> = Vec::new();
    for one in service.instances.iter() {
        let name = one.protocol.name();
        match spoken.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => spoken.push((name.to_owned(), 1)),
        }
    }
    spoken.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let lacking = match form {
        Form::Grpc => "protocol in (grpc,http2,mucp)",
        Form::Http => "protocol in (grpc,http,http2)",
        Form::Upgrade => "protocol=http",
        Form::Bytes => "protocol in (grpc,http,http2,mucp,tcp,tls)",
        Form::Tls => "protocol in (tls,tcp)",
        Form::Packets => "protocol=udp",
    };
    Mismatch { exist: service.instances.len(), lacking: lacking.to_owned(), closest: spoken }
}

/// Whether a call can be given to an instance that speaks `protocol`. gRPC needs HTTP/2: over
/// HTTP/1 its answers would be misread; to MUCP it is translated. An upgrade needs HTTP/1, for HTTP/2
/// has none (RFC 9113 §8.6). Bytes are the caller's own affair.
pub(crate) fn delivers(protocol: Protocol, form: Form) -> bool {
    match (protocol, form) {
        (Protocol::Udp, form) => form == Form::Packets,
        (_, Form::Packets) | (Protocol::Other(_), _) => false,
        (Protocol::Grpc | Protocol::Http2, form) => !matches!(form, Form::Upgrade | Form::Tls),
        (Protocol::Http1, form) => !matches!(form, Form::Grpc | Form::Tls),
        (Protocol::Mucp, form) => matches!(form, Form::Grpc | Form::Bytes),
        (Protocol::Tcp | Protocol::Tls, form) => matches!(form, Form::Bytes | Form::Tls),
    }
}

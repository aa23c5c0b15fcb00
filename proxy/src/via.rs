//! The filters of go-micro's own router: `Micro-Router`, `Micro-Network`, `Micro-Gateway` (contract,
//! headers 3). Each keeps only the routes that have this value; nobody sends them by himself.
//!
//! The router of a route is the node that offers it, its gateway the next node on the way there, and
//! its network this one; nodes are named by id or by name. A route that a local program made has what
//! that program wrote.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};
use proto::NodeId;
use router::{Instance, Mismatch, Routes, ServiceRoutes};

use crate::error::Error;
use crate::headers::{self, MICRO_STICKY};
use crate::statics::{is_static, node_of};

const MICRO_ROUTER: HeaderName = HeaderName::from_static("micro-router");
const MICRO_NETWORK: HeaderName = HeaderName::from_static("micro-network");
const MICRO_GATEWAY: HeaderName = HeaderName::from_static("micro-gateway");

/// Which routes a call may take.
#[derive(Clone, Debug, Default)]
pub struct Via {
    router: Option<Wanted>,
    network: Option<Wanted>,
    gateway: Option<Wanted>,
    /// The name of this network.
    ours: String,
    /// The one instance that was chosen already, by its key and address.
    instance: Option<(u64, Arc<str>)>,
}

#[derive(Clone, Debug)]
struct Wanted {
    text: String,
    /// The node that it names.
    node: Option<NodeId>,
}

impl Via {
    /// This instance and no other: the caller has chosen it.
    pub(crate) fn to(instance: &Instance) -> Self {
        let chosen = (instance.key.0, Arc::clone(&instance.address));
        Self { instance: Some(chosen), ..Self::default() }
    }

    /// Whether the caller has chosen the instance.
    pub(crate) fn is_one(&self) -> bool {
        self.instance.is_some()
    }

    /// What headers ask for; takes those away, unless they are to travel on.
    ///
    /// # Errors
    /// [`Error::Malformed`] for one that is not text, or is there twice.
    pub(crate) fn take(
        headers: &mut HeaderMap,
        network: &str,
        routes: &Routes,
    ) -> Result<Option<Box<Self>>, Error> {
        let names = [MICRO_ROUTER, MICRO_NETWORK, MICRO_GATEWAY];
        if !headers::says_something(headers) || !names.iter().any(|name| headers.contains_key(name))
        {
            return Ok(None);
        }
        let sticky = headers.get(MICRO_STICKY).cloned();
        let mut taken = names.map(|name| {
            if headers.get_all(&name).iter().nth(1).is_some() {
                return Err(Error::Malformed("a header that decides is there twice"));
            }
            let Some(value) = headers.get(&name) else { return Ok(None) };
            let text = value.to_str();
            let text = text.map_err(|_| Error::Malformed("a filter header is not text"))?;
            let wanted = Wanted { node: node_of(text, routes), text: text.to_owned() };
            let key = name.as_str().trim_start_matches("micro-");
            if !sticky.as_ref().is_some_and(|sticky| headers::has_token(sticky, key)) {
                headers.remove(&name);
            }
            // Empty is how go-micro says any.
            Ok(Some(wanted).filter(|wanted| !wanted.text.is_empty()))
        });
        let mut next = |at: usize| std::mem::replace(&mut taken[at], Ok(None));
        let (router, network_, gateway) = (next(0)?, next(1)?, next(2)?);
        let via =
            Self { router, network: network_, gateway, ours: network.to_owned(), instance: None };
        Ok((!via.is_empty()).then(|| Box::new(via)))
    }

    fn is_empty(&self) -> bool {
        self.router.is_none() && self.network.is_none() && self.gateway.is_none()
    }

    /// Whether a call may go to this instance.
    pub(crate) fn takes(&self, one: &Instance, routes: &Routes) -> bool {
        if let Some((key, _)) = &self.instance {
            return one.key.0 == *key;
        }
        let said = |key| one.metadata.get(key).unwrap_or_default();
        let made = is_static(one);
        let is = |wanted: &Wanted, text: &str| wanted.text == text;
        let network = if made { said("network") } else { &*self.ours };
        if self.network.as_ref().is_some_and(|wanted| !is(wanted, network)) {
            return false;
        }
        if let Some(wanted) = &self.router {
            let by = if made { node_of(said("router"), routes) } else { Some(one.node) };
            let same = made && is(wanted, said("router"));
            if !same && (by.is_none() || by != wanted.node) {
                return false;
            }
        }
        let Some(wanted) = &self.gateway else { return true };
        let (text, node) = match (made, one.here) {
            (true, _) => (said("gateway"), node_of(said("gateway"), routes)),
            (false, true) => ("", None),
            (false, false) => ("", routes.node(&one.node).and_then(|node| node.next)),
        };
        let none = text.is_empty() && node.is_none();
        // To this node itself everything without a gateway belongs, too.
        let ours = wanted.node == Some(routes.me()) && none;
        ours || !text.is_empty() && is(wanted, text) || node.is_some() && node == wanted.node
    }

    /// What is asked for, as `Micro-Network=acme`.
    pub(crate) fn said(&self) -> String {
        if let Some((_, address)) = &self.instance {
            return format!("address={address}");
        }
        let all = [
            ("Micro-Router", &self.router),
            ("Micro-Network", &self.network),
            ("Micro-Gateway", &self.gateway),
        ];
        let said = all.into_iter().filter_map(|(name, wanted)| Some((name, wanted.as_ref()?)));
        let said: Vec<_> = said.map(|(name, wanted)| format!("{name}={}", wanted.text)).collect();
        said.join(",")
    }

    /// What is asked for, and how many instances there are instead.
    pub(crate) fn mismatch(&self, service: &ServiceRoutes) -> (String, Mismatch) {
        let (lacking, exist) = (self.said(), service.instances.len());
        (lacking.clone(), Mismatch { exist, lacking, closest: Vec::new() })
    }
}

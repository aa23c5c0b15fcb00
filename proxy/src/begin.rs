//! What every face does with a request, whatever protocol it came by: clean it, find out what it
//! asks for, and have it answered by a service of ours or carried to another.

use std::pin::pin;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Uri};
use proto::Selector;
use proto::name::WILDCARD;
use proto::open::Messages;
use router::Routes;

use crate::body::Body;
use crate::carry::{Call, Form, Held, Reply};
use crate::deadline::{self, Deadline};
use crate::detect::From;
use crate::error::Error;
use crate::explain::{Ignored, Trace};
use crate::feed;
use crate::headers::{
    self, Asked, MICRO_IDEMPOTENT, MICRO_PROBE, MICRO_ROUTE, MICRO_STICKY, MICRO_TRACE,
};
use crate::heads::RequestHead;
use crate::host;
use crate::own::{OfOwner, Own, OwnService};
use crate::proxy::Shared;
use crate::source::Source;
use crate::target;
use crate::via::Via;

/// What a face knows of a caller, and what it is to tell beside the answer.
#[derive(Default)]
pub(crate) struct Beside {
    /// Who connected.
    pub(crate) from: From,
    /// Until when the caller waits.
    pub(crate) deadline: Deadline,
    /// How many messages the call has, where the caller's protocol says so.
    pub(crate) messages: Messages,
    /// `Micro-Route`, if the caller asked for it, whether or not the call succeeded. Boxed, for it is
    /// rare.
    pub(crate) route: Option<Box<HeaderValue>>,
    /// The connection may become what the request's `Upgrade` asks for.
    pub(crate) upgrades: bool,
    /// The answer has no end of its own, and is over when nobody reads it.
    pub(crate) one_way: bool,
}

impl Beside {
    /// Adds to the head of an answer what was asked for.
    pub(crate) fn tell(&mut self, headers: &mut HeaderMap) {
        if let Some(route) = self.route.take() {
            headers.insert(MICRO_ROUTE, *route);
        }
    }
}

impl Shared {
    /// Gives the response to a request of a local program, once it has begun. Sets the deadline to
    /// what the caller asked for. Dropping the future, or the reply, cancels the call.
    ///
    /// # Errors
    /// [`Error`], to be said in the caller's protocol.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        head: Box<RequestHead>,
        body: Body,
        grpc: bool,
        beside: &mut Beside,
    ) -> Result<Reply, Error> {
        let mut own = None;
        let mut call = self.ready(head, body, grpc, beside, &mut own)?;
        let Some(call) = &mut call else {
            let (head, body) = *own.expect("what is not carried is for our own services");
            if !grpc {
                // Of them only topics speak anything else.
                beside.one_way = true;
                return self.feeds.answer(&self.broker, self.draining.subscribe(), &head);
            }
            return Box::pin(self.serve_own(head, body, beside)).await;
        };
        if call.trace.is_some() {
            return Box::pin(self.traced(call, beside)).await;
        }
        self.rule(call, &mut beside.deadline).await?;
        let mut reply = self.carry(call, &mut beside.deadline).await?;
        headers::clean_response(&mut reply.headers);
        Ok(reply)
    }

    /// The call that a request is, cleaned and understood; `None` for one of our own services, whose
    /// request is put into `own`. Apart from [`Shared::begin`], for what is on the stack here would be
    /// copied with each call.
    fn ready(
        &self,
        mut head: Box<RequestHead>,
        body: Body,
        grpc: bool,
        beside: &mut Beside,
        own: &mut Option<Box<(Box<RequestHead>, Body)>>,
    ) -> Result<Option<Box<Call>>, Error> {
        if self.is_draining() {
            return Err(Error::Draining);
        }
        let said = headers::says_something(&head.headers);
        let mut trace = if said { take_trace(&mut head.headers, beside.from.local) } else { None };
        let upgrade =
            if beside.upgrades { head.headers.get(header::UPGRADE).cloned() } else { None };
        let asked = headers::clean_request(&mut head.headers)?;
        take_host(&mut head)?;
        if target::is_cross_site(&head) {
            return Err(Error::NotAllowed("a web page of another site made the request"));
        }
        // A probe has a deadline whatever it speaks: what is silent is to be told.
        if grpc || said && head.headers.contains_key(MICRO_PROBE) {
            let budget = deadline::budget(&head.headers);
            let malformed = |_| Error::Malformed("grpc-timeout is not a timeout");
            beside.deadline = Deadline::after(budget.map_err(malformed)?);
        }
        self.balance.measure();
        self.balance.admit(|| beside.deadline.left())?;
        if !grpc && feed::is_asked(&head) {
            *own = Some(Box::new((head, body)));
            return Ok(None);
        }
        let mut ignored = Vec::new();
        let meant = match self.meaning(&mut head, asked, grpc, &mut ignored)? {
            Meaning::Own => {
                *own = Some(Box::new((head, body)));
                return Ok(None);
            }
            Meaning::Service(meant) => meant,
        };
        if let Some(trace) = &mut trace {
            trace.ignored.extend(ignored);
        }
        let Meant { service, selector, via, named } = meant;
        let idempotent = head.headers.remove(MICRO_IDEMPOTENT).is_some_and(|value| value == "true");
        let source = Source::new(body, grpc.then_some(self.limits.message), &self.metrics.up);
        let source = source.replayable(self.limits.replay);
        let form = match upgrade {
            Some(protocol) => {
                head.headers.insert(header::UPGRADE, protocol);
                Form::Upgrade
            }
            None if grpc => Form::Grpc,
            None => Form::Http,
        };
        Ok(Some(Box::new(Call {
            head,
            source,
            service,
            selector,
            form,
            // What follows an upgrade is not repeated, and two of them at once are not one.
            idempotent: idempotent && form != Form::Upgrade,
            messages: beside.messages,
            ruled: None,
            via,
            named,
            trace,
        })))
    }

    /// Carries a call whose caller wants to know its way.
    async fn traced(
        self: &Arc<Self>,
        call: &mut Call,
        beside: &mut Beside,
    ) -> Result<Reply, Error> {
        let mut begun = self.rule(call, &mut beside.deadline).await;
        let mut reply = None;
        if begun.is_ok() {
            match self.carry(call, &mut beside.deadline).await {
                Ok(carried) => reply = Some(carried),
                Err(error) => begun = Err(error),
            }
        }
        if let Some(trace) = call.trace.take() {
            beside.route = self.route(call, *trace).map(Box::new);
        }
        begun?;
        let mut reply = reply.expect("a call that did not fail has an answer");
        headers::clean_response(&mut reply.headers);
        Ok(reply)
    }

    /// The service that a program means by a name alone, `host` or `host:port`, with what its instance
    /// must be like; `None`: one that this node itself serves.
    ///
    /// # Errors
    /// As [`Shared::meaning`]; [`Error::Malformed`] when it is no name.
    pub(crate) fn named(&self, name: &str) -> Result<Option<(Meant, HeaderMap)>, Error> {
        let authority: Authority = name.parse().map_err(|_| Error::Malformed("not a host name"))?;
        let mut head = RequestHead {
            method: Method::CONNECT,
            path: PathAndQuery::from_static("/"),
            authority: Some(authority),
            headers: HeaderMap::new(),
        };
        match self.meaning(&mut head, Asked::default(), false, &mut Vec::new())? {
            Meaning::Service(meant) => Ok(Some((meant, head.headers))),
            Meaning::Own => Ok(None),
        }
    }

    /// What a request is for: `asked` and its headers say what the instance must be like.
    ///
    /// # Errors
    /// [`Error::NoService`] for a name that nobody has; [`Error::Filter`] and its like for labels
    /// that cannot be read.
    pub(crate) fn meaning(
        &self,
        head: &mut RequestHead,
        asked: Asked,
        grpc: bool,
        ignored: &mut Vec<Ignored>,
    ) -> Result<Meaning, Error> {
        let routes = self.routes.load();
        let of_v3 = grpc && self.own.is_some() && Own::has_method(head.path.path());
        if of_v3 {
            return Ok(Meaning::Own);
        }
        let mut known = None;
        for name in target::names(head, grpc) {
            if grpc && self.own.is_some() && Own::has(name) {
                return Ok(Meaning::Own);
            }
            known = host::known_by(name, &head.headers, &routes);
            if known.is_some() {
                break;
            }
        }
        if let Some((service, of_host)) = known {
            let implied = target::implied(head, grpc, of_host, service);
            let headers = &mut head.headers;
            let selector =
                target::take_selector(headers, asked, implied, service, &routes, ignored)?;
            let via = Via::take(headers, self.network(), &routes)?;
            let service = service.name.as_str().to_owned();
            return Ok(Meaning::Service(Meant { service, selector, via, named: None }));
        }
        if let Some(meant) = self.by_default(head, asked.clone(), grpc, ignored, &routes)? {
            return Ok(Meaning::Service(meant));
        }
        let asked = target::names(head, grpc).next().map(str::to_owned);
        let host = || head.authority.as_ref().map(|authority| authority.host().to_owned());
        Err(Error::NoService(asked.or_else(host).unwrap_or_default()))
    }

    /// What a name means that nobody offers, where a local program made a route for such.
    #[cold]
    fn by_default(
        &self,
        head: &mut RequestHead,
        asked: Asked,
        grpc: bool,
        ignored: &mut Vec<Ignored>,
        routes: &Routes,
    ) -> Result<Option<Meant>, Error> {
        let Some(service) = routes.service(WILDCARD) else { return Ok(None) };
        let Some(named) = target::names(head, grpc).next().map(Box::from) else { return Ok(None) };
        let (headers, implied) = (&mut head.headers, host::Implied::default());
        let selector = target::take_selector(headers, asked, implied, service, routes, ignored)?;
        let via = Via::take(headers, self.network(), routes)?;
        let service = WILDCARD.to_owned();
        Ok(Some(Meant { service, selector, via, named: Some(named) }))
    }

    /// The name of the network, where this node has services of its own that say it.
    fn network(&self) -> &str {
        self.own.as_ref().map_or("", Own::network)
    }

    async fn serve_own(
        &self,
        head: Box<RequestHead>,
        body: Body,
        beside: &mut Beside,
    ) -> Result<Reply, Error> {
        let Some(own) = &self.own else { return Err(Error::NoService(String::new())) };
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = Uri::from(head.path);
        *request.headers_mut() = head.headers;
        *request.version_mut() = http::Version::HTTP_2;
        if beside.from.owner {
            request.extensions_mut().insert(OfOwner);
        }
        let response = beside.deadline.race(pin!(async { Ok(own.serve(request).await) })).await?;
        let (parts, body) = response.into_parts();
        let (status, headers) = (parts.status, parts.headers);
        let held = Held::default();
        Ok(Reply { status, headers, body, upload: None, held, upgraded: None })
    }
}

/// Takes `Micro-Trace` away, unless it is to travel on (`Micro-Sticky: trace`). Only programs of this
/// machine are told what a node knows: others are not asked who they are.
fn take_trace(headers: &mut HeaderMap, local: bool) -> Option<Box<Trace>> {
    if !headers.contains_key(MICRO_TRACE) {
        return None;
    }
    let wanted = if local { Trace::wanted(headers) } else { None };
    let sticky = headers.get(MICRO_STICKY);
    if !sticky.is_some_and(|sticky| headers::has_token(sticky, "trace")) {
        headers.remove(MICRO_TRACE);
    }
    wanted
}

/// What a request is for.
pub(crate) enum Meaning {
    /// One of our own services.
    Own,
    /// A service of the network.
    Service(Meant),
}

/// A service, and which of its instances.
pub(crate) struct Meant {
    pub(crate) service: String,
    pub(crate) selector: Selector,
    pub(crate) via: Option<Box<Via>>,
    pub(crate) named: Option<Box<str>>,
}

/// Makes one authority of what the request line and `Host` say.
pub(crate) fn take_host(head: &mut RequestHead) -> Result<(), Error> {
    one_authority(head)?;
    match &head.authority {
        Some(authority) if !is_host_and_port(authority) => {
            Err(Error::Malformed("the authority is not a host and a port"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether there is nothing but a host and a number. `user@host` reads as two names, and no request
/// may have it (RFC 9110 §4.2.4, RFC 9113 §8.3.1).
fn is_host_and_port(authority: &http::uri::Authority) -> bool {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("" | ":") => true,
        Some(_) => authority.port_u16().is_some(),
        None => false,
    }
}

fn one_authority(head: &mut RequestHead) -> Result<(), Error> {
    let Some(host) = head.headers.remove(header::HOST) else { return Ok(()) };
    match &head.authority {
        // They must not differ, or the check and the use could (RFC 9113 §8.3.1).
        Some(authority) if authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {}
        Some(_) => return Err(Error::Malformed("host and authority differ")),
        None if host.is_empty() => {}
        None => {
            let parsed = host.as_bytes().try_into();
            head.authority = Some(parsed.map_err(|_| Error::Malformed("host is not a host"))?);
        }
    }
    Ok(())
}

/// Whether the method and path are ones that are carried at all.
///
/// # Errors
/// [`Error::Malformed`] for a tunnel (`CONNECT`) or a path that is none.
pub(crate) fn check_line(method: &Method, uri: &Uri) -> Result<http::uri::PathAndQuery, Error> {
    if method == Method::CONNECT {
        return Err(Error::Malformed("CONNECT begins a connection, it does not follow on one"));
    }
    if uri.authority().is_some() && uri.scheme().is_none() {
        // Only `CONNECT` names nothing but a host (RFC 9112 §3.2.3).
        return Err(Error::Malformed("the path does not begin with a slash"));
    }
    let path = uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    let of_server = method == Method::OPTIONS && path.as_str() == "*";
    if !(path.as_str().starts_with('/') || of_server) {
        return Err(Error::Malformed("the path does not begin with a slash"));
    }
    Ok(path)
}

/// Whether the caller waits for a word before it sends the body (RFC 9110 §10.1.1).
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_this_machine_are_told_the_way_of_their_calls() {
        for (local, sticky, told, kept) in
            [(true, "", true, false), (false, "", false, false), (true, "region,trace", true, true)]
        {
            let mut headers = HeaderMap::new();
            headers.insert(MICRO_TRACE, HeaderValue::from_static("route"));
            headers.insert(MICRO_STICKY, HeaderValue::from_str(sticky).unwrap());
            assert_eq!(take_trace(&mut headers, local).is_some(), told);
            assert_eq!(headers.contains_key(MICRO_TRACE), kept);
        }
        let mut other = HeaderMap::new();
        other.insert(MICRO_TRACE, HeaderValue::from_static("everything"));
        assert!(take_trace(&mut other, true).is_none());
    }
}

//! From a request to the method it calls, and from what that answers to a response.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::Code;

use super::auth::Auth;
use super::codec::{Codec, Form, descriptors};
use super::debug::{Begun, Debug};
use super::etcd::{self, Etcd};
use super::failure::{Failure, Kind};
use super::health::Health;
use super::messages::{Broken, Gathered, MAX_MESSAGE, Messages, ROOM};
use super::methods::{Service, find, name_of_v3, split};
use super::network::Network;
use super::reflection::Reflection;
use super::registry::Registry;
use super::reply::{Answerer, Reply};
use super::router::Router;
use super::scope::Scope;
use super::store::{Said, Store};
use super::{Config, OfOwner, Own, Parts, Rules};
use crate::body::Body;
use crate::broker::Broker;
use crate::deadline;

/// Calls of our services at a time. The busiest caller, a program that registers, has one.
const MAX_CALLS: usize = 4096;
/// Streams among them. Each may hold an old snapshot while its caller is slow.
const MAX_STREAMS: usize = 1024;
/// Answers beyond the size of a message at a time, which only clients of etcd take.
const MAX_LARGE: usize = 8;
/// How long a call without a deadline may take, its request message included: six times what
/// go-micro itself waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// A caller that half-closes this soon after its message has said all it has to say, as generated
/// clients of server streams do, and wants its answer; one that does so later, as go-micro does
/// when a watcher is stopped, wants no more.
const PROMPT: Duration = Duration::from_secs(2);

/// One call, without its message.
pub(super) struct Call {
    /// The method: `GetService`.
    pub(super) method: String,
    /// What the caller may see.
    pub(super) scope: Scope,
    /// The caller is a program on this machine of the user who runs the node, or of root.
    pub(super) of_owner: bool,
    /// What its metadata says of a table of the store.
    pub(super) store: Said,
}

/// All services, and what they share.
pub(super) struct Dispatch {
    pool: DescriptorPool,
    node: HeaderValue,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    large: Arc<Semaphore>,
    room: Arc<Semaphore>,
    draining: watch::Sender<bool>,
    registry: Registry,
    network: Network,
    router: Router,
    rules: Option<Arc<dyn Rules>>,
    etcd: Etcd,
    store: Option<Arc<dyn Store>>,
    auth: Auth,
    broker: OnceLock<Broker>,
    debug: Debug,
    health: Health,
    reflection: Reflection,
}

impl Dispatch {
    pub(super) fn new(config: Config, parts: Parts) -> Self {
        let config = Arc::new(config);
        let draining = watch::Sender::new(false);
        Self {
            pool: descriptors(),
            node: HeaderValue::from_str(&config.node_name)
                .unwrap_or_else(|_| HeaderValue::from_static("node")),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            large: Arc::new(Semaphore::new(MAX_LARGE)),
            room: Arc::new(Semaphore::new(ROOM)),
            registry: Registry::new(Arc::clone(&config)),
            network: Network::new(Arc::clone(&config)),
            router: Router::new(Arc::clone(&config)),
            rules: parts.rules,
            etcd: Etcd::new(Arc::clone(&config), parts.etcd),
            store: parts.store,
            auth: Auth::new(parts.tokens.unwrap_or_else(tunnel::identity::random)),
            broker: OnceLock::new(),
            debug: Debug::new(Arc::clone(&config.logs)),
            health: Health::new(config, draining.subscribe()),
            draining,
            reflection: Reflection::new(),
        }
    }

    pub(super) fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(super) fn carries(&self, broker: Broker) {
        let _ = self.broker.set(broker);
    }

    pub(super) fn network_name(&self) -> &str {
        self.router.network_name()
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let Some((form, content_type)) = form(request.headers()) else {
            let mut response = Response::new(Body::full("gRPC is spoken here\n"));
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        };
        let path = request.uri().path();
        let (name, structure, method) = split(path);
        let of_v3 = name_of_v3(path);
        let service = Own::NAMES.into_iter().find(|own| *own == name).or(of_v3);
        let service = service.unwrap_or("go.micro.proxy");
        // v3 says which method failed (contract, registry of v3).
        let id = of_v3.map(|name| Arc::from(format!("{name}.{structure}.{method}")));
        let most = if service == etcd::NAME { etcd::MAX_ANSWER } else { MAX_MESSAGE };
        let answerer = Answerer { content_type, service, node: self.node.clone(), most, id };
        if Reflection::has(name) {
            return match self.admit(&self.streams, service) {
                Ok(permit) => self.reflection.serve(request, permit).await,
                Err(failure) => answerer.failed(&failure),
            };
        }
        self.debug.count();
        let begun = Begun::now(request.uri().path(), request.headers());
        let response = match find(&self.pool, (name, structure, method)) {
            Ok((service, method)) => {
                let codec = Codec::new(form, &method);
                self.call(service, &method, codec, &answerer, request).await
            }
            Err(failure) => Err(failure),
        };
        self.debug.answered(begun);
        response.unwrap_or_else(|failure| {
            self.debug.count_error();
            answerer.failed(&failure)
        })
    }

    async fn call(
        &self,
        service: Service,
        method: &MethodDescriptor,
        codec: Codec,
        answerer: &Answerer,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        let own = answerer.service;
        let permit = self.admit(&self.calls, own)?;
        let (head, body) = request.into_parts();
        let given = deadline::budget(&head.headers)
            .map_err(|_| Failure::new(own, Kind::BadRequest, "grpc-timeout is not a timeout"))?;
        let deadline = Instant::now() + given.unwrap_or(PATIENCE).min(PATIENCE);
        let scope = Scope::of(&head.headers)
            .map_err(|why| Failure::new(own, Kind::BadRequest, why.to_string()))?;
        let of_owner = head.extensions.get::<OfOwner>().is_some();
        let store = Said::of(&head.headers);
        let call = Call { method: method.name().to_owned(), scope, of_owner, store };
        let mut messages = Messages::new(body, Arc::clone(&self.room));
        if method.is_client_streaming() {
            let permits = (permit, self.admit(&self.streams, own)?);
            let stream = if service == Service::Events {
                super::events::consume(self.broker.get(), messages)
            } else {
                self.etcd.stream(method.name(), messages, codec.clone())
            };
            let until = lasts(own, given, Some(self.draining.subscribe()), permits);
            return Ok(answerer.many(codec, stream, until));
        }
        let message = within(deadline, own, first(&mut messages, &codec, own)).await?;
        // A watch looks at the routes as they are now, not as they are when first polled.
        match self.run(service, method, &call, message) {
            Reply::Once(answer) => {
                let message = within(deadline, own, answer).await?;
                drop(permit);
                let large = message.len() > MAX_MESSAGE;
                let held = large.then(|| self.admit(&self.large, own)).transpose()?;
                Ok(answerer.once(&codec, message, held))
            }
            Reply::Many(stream) => {
                let permits = (permit, self.admit(&self.streams, own)?);
                // Watchers of health are to read that it is over, and end by themselves.
                let leaving = match service {
                    Service::Health => None,
                    Service::Broker
                    | Service::Registry
                    | Service::Network
                    | Service::Router
                    | Service::RouterV3
                    | Service::Events
                    | Service::Store
                    | Service::Auth
                    | Service::Rules
                    | Service::Etcd
                    | Service::Debug => Some(self.draining.subscribe()),
                };
                let until = until(own, given, messages, leaving, permits);
                Ok(answerer.many(codec, stream, until))
            }
        }
    }

    fn run(
        &self,
        service: Service,
        method: &MethodDescriptor,
        call: &Call,
        message: Bytes,
    ) -> Reply {
        match service {
            Service::Broker => super::broker::call(self.broker.get(), call, message),
            Service::Registry => self.registry.call(call, message),
            Service::Network => self.network.call(call, message),
            Service::Router => self.router.call(method.parent_service().name(), call, message),
            Service::RouterV3 => self.router.call_v3(method.parent_service().name(), call, message),
            Service::Events => super::events::call(self.broker.get(), call, message),
            Service::Store => super::store::call(self.store.as_ref(), call, message),
            Service::Auth => self.auth.call(method.parent_service().name(), call, message),
            Service::Rules => super::rules::call(self.rules.as_ref(), call, message),
            Service::Etcd => self.etcd.call(&call.method, message),
            Service::Debug => self.debug.call(call, message),
            Service::Health => self.health.call(call, message),
        }
    }

    fn admit(
        &self,
        bound: &Arc<Semaphore>,
        service: &str,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(bound).try_acquire_owned();
        permit.map_err(|_| Failure::new(service, Kind::TooMany, "too many calls at a time"))
    }
}

/// Reads what is needed of a message, or says why it cannot be.
pub(super) fn decode<M: prost::Message + Default>(
    service: &str,
    message: Bytes,
) -> Result<M, Failure> {
    M::decode(message).map_err(|why| Failure::new(service, Kind::BadRequest, why.to_string()))
}

fn form(headers: &HeaderMap) -> Option<(Form, HeaderValue)> {
    let content_type = headers.get(CONTENT_TYPE)?;
    let other = headers.get("x-content-type").and_then(|value| value.to_str().ok());
    Some((Form::of(content_type.to_str().ok()?, other)?, content_type.clone()))
}

async fn first(messages: &mut Messages, codec: &Codec, own: &str) -> Result<Bytes, Failure> {
    let gathered = messages.next().await.map_err(|broken| why(own, broken))?;
    let Some(Gathered { message, .. }) = gathered else {
        return Err(Failure::new(own, Kind::BadRequest, "the request has no message"));
    };
    codec.read(message).map_err(|why| Failure::new(own, Kind::BadRequest, why))
}

/// What a request that cannot be read means for its caller.
pub(super) fn why(own: &str, broken: Broken) -> Failure {
    let kind = match broken {
        Broken::TooLong(_) => Kind::TooLarge,
        Broken::NoRoom => Kind::TooMany,
        Broken::Compressed => return Failure::plain(Code::Unimplemented, broken.to_string()),
        Broken::Truncated | Broken::Gone => Kind::BadRequest,
    };
    Failure::new(own, kind, broken.to_string())
}

async fn within<T>(
    deadline: Instant,
    own: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = tokio::time::timeout_at(deadline, work).await;
    done.unwrap_or_else(|_| Err(Failure::new(own, Kind::Timeout, "the deadline passed")))
}

/// Ends with the caller: when it goes, when it half-closes later than [`PROMPT`], when its deadline
/// passes; and with the node, for a stream that has no end would hold up its leaving. Holds what the
/// call holds.
fn until(
    own: &'static str,
    given: Option<Duration>,
    mut messages: Messages,
    leaving: Option<watch::Receiver<bool>>,
    permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> BoxFuture<'static, Result<(), Failure>> {
    let begun = Instant::now();
    let caller = async move {
        match messages.ended().await {
            Ok(()) if begun.elapsed() < PROMPT => std::future::pending().await,
            Ok(()) => Ok(()),
            Err(broken) => Err(why(own, broken)),
        }
    };
    let lasts = lasts(own, given, leaving, permits);
    Box::pin(async move {
        // Whichever is dropped has nothing left to say.
        tokio::select! { ended = caller => ended, ended = lasts => ended }
    })
}

/// Ends when the caller's deadline passes, and with the node. Holds what the call holds.
fn lasts(
    own: &'static str,
    given: Option<Duration>,
    leaving: Option<watch::Receiver<bool>>,
    permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> BoxFuture<'static, Result<(), Failure>> {
    let begun = Instant::now();
    let node = async move {
        let _permits = permits;
        if let Some(mut leaving) = leaving
            && leaving.wait_for(|leaving| *leaving).await.is_ok()
        {
            return Err(Failure::new(own, Kind::Unavailable, "the node is leaving; ask another"));
        }
        std::future::pending().await
    };
    match given {
        None => Box::pin(node),
        Some(given) => Box::pin(within(begun + given, own, node)),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use proto::{NodeId, ServiceName};
    use router::Registration;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::own::Admin;
    use crate::registrar::{Registrar, RegistrarError};
    use crate::routes::Published;

    /// Takes nothing.
    struct Nobody;

    impl Registrar for Nobody {
        fn register(&self, _: Registration) -> BoxFuture<'_, Result<(), RegistrarError>> {
            Box::pin(future::ready(Err(RegistrarError::Unavailable)))
        }

        fn deregister(
            &self,
            _: ServiceName,
            _: Option<String>,
            _: String,
        ) -> BoxFuture<'_, Result<(), RegistrarError>> {
            Box::pin(future::ready(Err(RegistrarError::Unavailable)))
        }
    }

    impl Admin for Nobody {
        fn connect(&self, _: Vec<String>) -> BoxFuture<'_, Result<(), String>> {
            Box::pin(future::ready(Err("nobody is here".into())))
        }
    }

    fn dispatch() -> Dispatch {
        let me = NodeId::from_bytes([1; 32]);
        Dispatch::new(
            Config {
                me,
                node_name: "laptop".into(),
                network: "test".into(),
                routes: Arc::new(Published::new(me)),
                registrar: Arc::new(Nobody),
                admin: Arc::new(Nobody),
                logs: Arc::default(),
            },
            Parts::default(),
        )
    }

    type Sent = Result<Frame<Bytes>, std::convert::Infallible>;

    /// A watch that has begun; dropping the sender half-closes it.
    async fn a_watch(dispatch: &Dispatch) -> (mpsc::Sender<Sent>, Response<Body>) {
        let (send, receive) = mpsc::channel(4);
        send.send(Ok(Frame::data(Bytes::from_static(&[0; 5])))).await.unwrap();
        let request = Request::post("/go.micro.registry.Registry/Watch")
            .header(CONTENT_TYPE, "application/grpc")
            .body(Body::new(StreamBody::new(ReceiverStream::new(receive))));
        let response = dispatch.answer(request.unwrap()).await;
        assert!(!response.headers().contains_key("grpc-status"), "{response:?}");
        (send, response)
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_close_long_after_the_message_ends_a_watch() {
        let dispatch = dispatch();
        let (send, response) = a_watch(&dispatch).await;
        let mut body = response.into_body();
        tokio::time::advance(2 * PROMPT).await;
        assert!(future::poll_immediate(body.frame()).await.is_none(), "it ended by itself");
        drop(send);
        let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(end["grpc-status"], "0");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_close_right_after_the_message_does_not() {
        let dispatch = dispatch();
        let (send, response) = a_watch(&dispatch).await;
        let mut body = response.into_body();
        drop(send);
        assert!(future::poll_immediate(body.frame()).await.is_none());
        tokio::time::advance(100 * PROMPT).await;
        assert!(future::poll_immediate(body.frame()).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_leaves_ends_its_watches_and_says_why() {
        let dispatch = dispatch();
        let (_send, response) = a_watch(&dispatch).await;
        let mut body = response.into_body();
        assert!(future::poll_immediate(body.frame()).await.is_none());
        dispatch.drain();
        let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(end["grpc-status"], "14");
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_bounded_and_leave_room_when_they_end() {
        let dispatch = dispatch();
        let free = dispatch.streams.available_permits();
        assert_eq!(free, MAX_STREAMS);
        let _all_but_one = Arc::clone(&dispatch.streams).acquire_many_owned(1023).await.unwrap();
        let (_send, last) = a_watch(&dispatch).await;
        let (send, receive) = mpsc::channel::<Sent>(4);
        send.send(Ok(Frame::data(Bytes::from_static(&[0; 5])))).await.unwrap();
        let one_more = Request::post("/go.micro.registry.Registry/Watch")
            .header(CONTENT_TYPE, "application/grpc")
            .body(Body::new(StreamBody::new(ReceiverStream::new(receive))));
        let refused = dispatch.answer(one_more.unwrap()).await;
        assert_eq!(refused.headers()["grpc-status"], "8");
        drop(last);
        assert_eq!(dispatch.streams.available_permits(), 1);
    }
}

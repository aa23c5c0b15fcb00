//! Built-in services: echo, greeter and clock, real gRPC servers with reflection and health, for
//! first steps, demos and tests. `micro serve NAME` runs one as a process of its own.

mod clock;
mod echo;
mod greeter;
mod process;

use std::net::SocketAddr;
use std::str::FromStr;

use proto::record::{Endpoint, ValueType};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router, Server};

pub use greeter::Client as Greeter;
pub use process::run;

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/builtin.bin"));
/// Calls one connection may have open; more wait for an end.
const MAX_STREAMS: u32 = 1024;

/// One of the services that come with `micro`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// `echo.Echo`: says back what it is told.
    Echo,
    /// `greeter.Greeter`: greets by name.
    Greeter,
    /// `clock.Clock`: a stream of ticks.
    Clock,
}

/// There is no built-in service of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no built-in service {0:?}: there are echo, greeter and clock")]
pub struct NoSuchBuiltin(pub String);

impl FromStr for Builtin {
    type Err = NoSuchBuiltin;

    fn from_str(text: &str) -> Result<Self, NoSuchBuiltin> {
        let found = Self::ALL.into_iter().find(|builtin| builtin.name() == text);
        found.ok_or_else(|| NoSuchBuiltin(text.to_owned()))
    }
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Echo, Self::Greeter, Self::Clock];

    /// Its name on the network.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Greeter => "greeter",
            Self::Clock => "clock",
        }
    }

    /// What can be called on it, as a registry shows it.
    #[must_use]
    pub fn endpoints(self) -> Vec<Endpoint> {
        match self {
            Self::Echo => vec![
                endpoint("Echo.Call", &ECHO, &ECHO, false),
                endpoint("Echo.Stream", &ECHO, &ECHO, true),
            ],
            Self::Greeter => vec![endpoint("Greeter.Hello", &HELLO, &GREETING, false)],
            Self::Clock => vec![
                endpoint("Clock.Now", &NOW, &TICK, false),
                endpoint("Clock.Watch", &WATCH, &TICK, true),
            ],
        }
    }

    fn router(self, postscript: &str) -> Router {
        let (reporter, health) = tonic_health::server::health_reporter();
        drop(reporter);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .with_service_name(self.full_name())
        };
        let v1 = reflection().build_v1().expect("the embedded descriptors are well formed");
        let alpha = reflection().build_v1alpha().expect("the embedded descriptors are well formed");
        let server = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(health)
            .add_service(v1)
            .add_service(alpha);
        match self {
            Self::Echo => server.add_service(echo::service()),
            Self::Greeter => server.add_service(greeter::service(postscript)),
            Self::Clock => server.add_service(clock::service()),
        }
    }

    const fn full_name(self) -> &'static str {
        match self {
            Self::Echo => "echo.Echo",
            Self::Greeter => "greeter.Greeter",
            Self::Clock => "clock.Clock",
        }
    }
}

/// The name of a message and its fields: name and type.
type Shape = (&'static str, &'static [(&'static str, &'static str)]);

const ECHO: Shape = ("Message", &[("text", "string"), ("payload", "bytes")]);
const HELLO: Shape = ("HelloRequest", &[("name", "string")]);
const GREETING: Shape = ("HelloResponse", &[("message", "string")]);
const NOW: Shape = ("NowRequest", &[]);
const WATCH: Shape = ("WatchRequest", &[("interval_ms", "uint32"), ("count", "uint32")]);
const TICK: Shape = ("Tick", &[("time", "string"), ("number", "uint64")]);

fn endpoint(name: &str, request: &Shape, response: &Shape, stream: bool) -> Endpoint {
    let shape = |(name, fields): &Shape| ValueType {
        name: (*name).to_owned(),
        kind: (*name).to_owned(),
        values: fields
            .iter()
            .map(|(field, kind)| ValueType {
                name: (*field).to_owned(),
                kind: (*kind).to_owned(),
                values: Vec::new(),
            })
            .collect(),
    };
    Endpoint {
        name: name.to_owned(),
        request: Some(shape(request)),
        response: Some(shape(response)),
        metadata: stream.then_some(("stream", "true")).into_iter().collect(),
    }
}

/// A built-in service that runs on a port of its own until it is dropped.
#[derive(Debug)]
pub struct Running {
    /// Which one.
    pub builtin: Builtin,
    /// Where it listens.
    pub address: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

/// Starts `builtin` on a free port of the loopback address. What the greeter says ends with
/// `postscript`.
///
/// # Errors
/// What the system says when no port can be had.
pub async fn start(builtin: Builtin, postscript: &str) -> std::io::Result<Running> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let router = builtin.router(postscript);
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move {
        // Small answers must not wait for the acknowledgement of the one before.
        let incoming = TcpListenerStream::new(listener)
            .map(|stream| stream.inspect(|stream| drop(stream.set_nodelay(true))));
        if let Err(why) = router.serve_with_incoming_shutdown(incoming, stopped).await {
            tracing::error!(service = builtin.name(), %why, "built-in service ended");
        }
    });
    Ok(Running { builtin, address, _stop: stop.drop_guard() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_is_found_by_its_name_and_no_other_is() {
        for builtin in Builtin::ALL {
            assert_eq!(builtin.name().parse(), Ok(builtin));
        }
        assert!("Greeter".parse::<Builtin>().is_err());
    }

    #[test]
    fn endpoints_tell_streams_apart() {
        let endpoints = Builtin::Clock.endpoints();
        let streams: Vec<_> = endpoints.iter().map(|e| e.metadata.get("stream")).collect();
        assert_eq!(streams, [None, Some("true")]);
    }
}

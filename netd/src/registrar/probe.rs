//! One look at a program: does it take a connection, does it answer well over HTTP, does it call itself
//! serving over gRPC.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::api;
use crate::config::duration;

/// The least between two looks: what flaps faster is not followed, and nobody is busy with answering.
const MIN_EVERY: Duration = Duration::from_millis(250);
/// The most: longer, and it is as good as none.
const MAX_EVERY: Duration = Duration::from_secs(3600);
const EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take, unless the looks are closer than that.
const PATIENCE: Duration = Duration::from_secs(2);
/// Failures in a row that take an instance out: one is an accident.
const FALL: u32 = 3;
/// Successes in a row that bring it back: more than one, or what flaps is in and out.
const RISE: u32 = 2;
/// Looks in a row that may be asked for.
const MOST: u32 = 100;
/// Bytes of a path, or of the name of a service.
const MAX_TARGET: usize = 1024;
/// Bytes of an answer over gRPC, which has two.
const MAX_ANSWER: usize = 1024;

/// How a program is looked at, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: Kind,
    /// Between two looks.
    pub every: Duration,
    /// Until an answer counts as none.
    pub timeout: Duration,
    /// Failures in a row until it is out.
    pub fall: u32,
    /// Successes in a row until it is back.
    pub rise: u32,
}

/// What a program is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To take a connection.
    Tcp,
    /// This path, over HTTP/1.1, answered with a status below 400.
    Http(String),
    /// Over gRPC, whether it serves this service; empty: as a whole (grpc.health.v1).
    Grpc(String),
}

impl Check {
    /// What a request asks for.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn read(asked: &api::HealthCheck) -> Result<Self, String> {
        let target = &asked.target;
        let plain = target.bytes().all(|byte| byte.is_ascii_graphic());
        if target.len() > MAX_TARGET || !plain {
            return Err(format!("{target:?} is not a path or a name"));
        }
        let kind = match &*asked.kind {
            "tcp" if target.is_empty() => Kind::Tcp,
            "http" if target.is_empty() => Kind::Http("/".to_owned()),
            "http" if target.starts_with('/') => Kind::Http(target.clone()),
            "grpc" => Kind::Grpc(target.clone()),
            _ => return Err("a check is tcp, http:/PATH, grpc or grpc:SERVICE".to_owned()),
        };
        let every = asked.interval_ms.map_or(EVERY, Duration::from_millis);
        let timeout = asked.timeout_ms.map_or(PATIENCE.min(every), Duration::from_millis);
        if !(MIN_EVERY..=MAX_EVERY).contains(&every) {
            let (least, most) = (duration::show(MIN_EVERY), duration::show(MAX_EVERY));
            return Err(format!("a check is made every {least} to {most}"));
        }
        if timeout.is_zero() || timeout > every {
            return Err("a check may take as long as it is to the next one".to_owned());
        }
        let (fall, rise) = (asked.fall.unwrap_or(FALL), asked.rise.unwrap_or(RISE));
        if !(1..=MOST).contains(&fall) || !(1..=MOST).contains(&rise) {
            return Err(format!("1 to {MOST} checks in a row decide"));
        }
        Ok(Self { kind, every, timeout, fall, rise })
    }

    /// Looks once at the program at `address`.
    ///
    /// # Errors
    /// Why it is not well, in a few words.
    pub async fn look(&self, service: &str, address: &str) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, ask(&self.kind, service, address)).await {
            Ok(answer) => answer.map_err(|why| format!("{}: {why}", self.kind)),
            Err(_) => {
                Err(format!("{}: no answer within {}", self.kind, duration::show(self.timeout)))
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http(path) => write!(f, "http:{path}"),
            Self::Grpc(service) if service.is_empty() => f.write_str("grpc"),
            Self::Grpc(service) => write!(f, "grpc:{service}"),
        }
    }
}

async fn ask(kind: &Kind, service: &str, address: &str) -> Result<(), String> {
    let refused = |error: std::io::Error| {
        let plainly = error.kind() == std::io::ErrorKind::ConnectionRefused;
        if plainly { "connection refused".to_owned() } else { error.to_string() }
    };
    let socket = proxy::dial(address).await.map_err(refused)?;
    match kind {
        Kind::Tcp => Ok(()),
        Kind::Http(path) => http(TokioIo::new(socket), service, path).await,
        Kind::Grpc(asked) => grpc(socket, service, asked).await,
    }
}

async fn http(io: TokioIo<tokio::net::TcpStream>, service: &str, path: &str) -> Result<(), String> {
    let broken = |error: hyper::Error| error.to_string();
    let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
    let request = Request::get(path)
        .header(header::HOST, service)
        .header(header::USER_AGENT, "micro-health")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answered = send.send_request(request);
    tokio::pin!(connection, answered);
    let response = tokio::select! {
        response = &mut answered => response.map_err(broken)?,
        ended = &mut connection => match ended {
            // The answer may have come with the end.
            Ok(()) => answered.await.map_err(broken)?,
            Err(error) => return Err(broken(error)),
        },
    };
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!("answered {}", status.as_u16()))
}

/// `grpc.health.v1.Health/Check`, by hand: a channel would connect again and again by itself.
async fn grpc(socket: tokio::net::TcpStream, service: &str, asked: &str) -> Result<(), String> {
    let broken = |error: h2::Error| error.to_string();
    let (client, connection) = h2::client::handshake(socket).await.map_err(broken)?;
    let exchange = async {
        let request = Request::post(format!("http://{service}/grpc.health.v1.Health/Check"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let mut client = client.ready().await.map_err(broken)?;
        let (response, mut body) = client.send_request(request, false).map_err(broken)?;
        let message = HealthCheckRequest { service: asked.to_owned() }.encode_to_vec();
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).map_err(|error| error.to_string())?);
        framed.extend_from_slice(&message);
        body.send_data(framed.freeze(), true).map_err(broken)?;
        let (parts, mut body) = response.await.map_err(broken)?.into_parts();
        let mut answer = BytesMut::new();
        while let Some(data) = body.data().await {
            answer.extend_from_slice(&data.map_err(broken)?);
            if answer.len() > MAX_ANSWER {
                return Err("its answer is not one of grpc.health.v1".to_owned());
            }
        }
        let trailers = body.trailers().await.map_err(broken)?;
        let status = trailers.as_ref().unwrap_or(&parts.headers).get("grpc-status").cloned();
        match status.as_ref().map(http::HeaderValue::as_bytes) {
            Some(b"0") => serving(&answer),
            Some(b"12") => Err("it has no grpc.health.v1".to_owned()),
            Some(b"5") => Err("it does not know that service".to_owned()),
            Some(code) => Err(format!("status {}", String::from_utf8_lossy(code))),
            None => Err(format!("answered {} and no gRPC status", parts.status.as_u16())),
        }
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(ended.map_or_else(broken, |()| "it hung up".to_owned())),
    }
}

fn serving(answer: &[u8]) -> Result<(), String> {
    let message = answer.get(5..).and_then(|body| HealthCheckResponse::decode(body).ok());
    match message.map(|message| message.status()) {
        Some(ServingStatus::Serving) => Ok(()),
        Some(other) => Err(other.as_str_name().to_ascii_lowercase().replace('_', " ")),
        None => Err("its answer is not one of grpc.health.v1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn asked(kind: &str, target: &str) -> api::HealthCheck {
        let (kind, target) = (kind.to_owned(), target.to_owned());
        api::HealthCheck { kind, target, interval_ms: Some(1_000), ..api::HealthCheck::default() }
    }

    /// A server that answers each connection with `answer`, or never with none.
    async fn server(answer: Option<&'static str>) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                if let Some(answer) = answer {
                    let _ = socket.read(&mut [0; 1024]).await;
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
                held.push(socket);
            }
        });
        address
    }

    #[tokio::test]
    async fn a_program_is_well_if_it_answers_as_it_should() {
        let well = server(Some("HTTP/1.1 204 No Content\r\n\r\n")).await;
        let ill = server(Some("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")).await;
        let odd = server(Some("+PONG\r\n")).await;
        let check = |kind: &str| Check::read(&asked(kind, "")).unwrap();
        assert_eq!(check("tcp").look("s", &ill).await, Ok(()));
        assert_eq!(check("http").look("s", &well).await, Ok(()));
        assert_eq!(check("http").look("s", &ill).await.unwrap_err(), "http:/: answered 503");
        check("http").look("s", &odd).await.unwrap_err();
        check("grpc").look("s", &well).await.unwrap_err();
    }

    #[tokio::test]
    async fn who_is_silent_or_gone_is_not_well() {
        let silent = server(None).await;
        for kind in ["http", "grpc"] {
            let check = Check {
                timeout: Duration::from_millis(50),
                ..Check::read(&asked(kind, "")).unwrap()
            };
            let why = check.look("s", &silent).await.unwrap_err();
            assert!(why.contains("no answer within 50ms"), "{why}");
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let gone = listener.local_addr().unwrap().to_string();
        drop(listener);
        let check = Check::read(&asked("tcp", "")).unwrap();
        assert_eq!(check.look("s", &gone).await.unwrap_err(), "tcp: connection refused");
    }

    #[tokio::test]
    async fn a_grpc_server_says_of_itself_whether_it_serves() {
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        let check = |target: &str| Check::read(&asked("grpc", target)).unwrap();
        assert_eq!(check("").look("s", &address).await, Ok(()));
        let unknown = check("shop.Shop").look("s", &address).await.unwrap_err();
        assert_eq!(unknown, "grpc:shop.Shop: it does not know that service");
        reporter.set_service_status("shop.Shop", tonic_health::ServingStatus::NotServing).await;
        let not = check("shop.Shop").look("s", &address).await.unwrap_err();
        assert_eq!(not, "grpc:shop.Shop: not serving");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = [
            asked("udp", ""),
            asked("tcp", "/x"),
            asked("http", "health"),
            asked("http", "/a b"),
            api::HealthCheck { interval_ms: Some(1), ..asked("tcp", "") },
            api::HealthCheck { timeout_ms: Some(0), ..asked("tcp", "") },
            api::HealthCheck { timeout_ms: Some(2_000), ..asked("tcp", "") },
            api::HealthCheck { fall: Some(0), ..asked("tcp", "") },
            api::HealthCheck { rise: Some(101), ..asked("tcp", "") },
        ];
        for wrong in wrong {
            assert!(Check::read(&wrong).is_err(), "{wrong:?}");
        }
    }
}

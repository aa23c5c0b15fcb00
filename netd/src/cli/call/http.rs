//! `micro call SERVICE GET /path`: an HTTP request through the local proxy.

use std::io::Write as _;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;

use super::failure;
use super::place::Place;
use super::words::Words;
use crate::api;
use crate::client::Client;
use crate::error::{Exit, Problem};
use crate::output::{self, text};

/// Bytes of an error of micro's that are read.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// Bytes of an answer that `-o json` keeps.
const MAX_JSON_BODY: usize = 64 * 1024 * 1024;

/// Sends one request and prints the body that comes back.
///
/// # Errors
/// Why it was not delivered. An answer of 400 or more is the service's: exit 10.
pub async fn call(client: &Client, place: &Place, words: Words) -> Result<Exit, Problem> {
    let status: api::Status = client.get("/v1/status").await?;
    let request = request(place, &words)?;
    let (method, path) = (request.method().clone(), request.uri().clone());
    words.output().detail(&format!("{} {place} {method} {path}", super::arrows().0));
    let started = Instant::now();
    let stream = super::grpc::connect(&status.proxy.address, words.timeout()).await?;
    let exchange = exchange(stream, request);
    let (response, driver) = match tokio::time::timeout(words.timeout(), exchange).await {
        Ok(response) => response?,
        Err(_) => return Err(super::too_late(place, words.timeout())),
    };
    let took = text::milliseconds(started.elapsed());
    let (head, body) = response.into_parts();
    words.output().detail(&format!("{} {} {took}", super::arrows().1, head.status));
    if let Some(problem) = failure::of_micro(place, &head.headers) {
        return Err(match told(body).await {
            Some(what) => Problem { what, ..problem },
            None => problem,
        });
    }
    if words.output().is_json() {
        as_json(&words, place, &head, body).await?;
    } else {
        if words.output().verbose {
            for (name, value) in &head.headers {
                let value = String::from_utf8_lossy(value.as_bytes());
                output::talk(&text::plain(&format!("  {name}: {value}")));
            }
        }
        copy(body).await?;
    }
    drop(driver);
    if head.status.is_client_error() || head.status.is_server_error() {
        words.output().say(&format!("{place} answered {}", head.status));
        return Ok(Exit::ServiceError);
    }
    Ok(Exit::Done)
}

/// Ends the connection when dropped.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange(
    stream: tokio::net::TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<(http::Response<Incoming>, Driver), Problem> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| lost(&error))?;
    let driver = Driver(tokio::spawn(async move {
        // Its end is seen by the request that is open.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|error| lost(&error))?;
    Ok((response, driver))
}

fn request(place: &Place, words: &Words) -> Result<Request<Full<Bytes>>, Problem> {
    let path = words.rest.first().map_or("/", String::as_str);
    let body = match words.rest.get(1) {
        Some(word) => super::data(word)?,
        None => Bytes::new(),
    };
    if let Some(extra) = words.rest.get(2) {
        let what = format!("{extra:?} is one word too many");
        return Err(Problem::new("M4001", Exit::Usage, what).attempt("micro call --help", ""));
    }
    if let Some((name, _)) = words.fields.first() {
        let what = format!("--{name} is no option of an HTTP call");
        return Err(Problem::new("M4001", Exit::Usage, what)
            .attempt(format!("micro call {place} {} {path} -H '{name}: …'", words.method), ""));
    }
    let mut request = Request::builder()
        .method(words.method.as_str())
        .uri(path)
        .body(Full::new(body.clone()))
        .map_err(|error| {
            Problem::new("M4001", Exit::Usage, format!("{path:?} is no path"))
                .why(error.to_string())
        })?;
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(place.authority()) {
        headers.insert(HOST, host);
    }
    headers
        .insert(USER_AGENT, HeaderValue::from_static(concat!("micro/", env!("CARGO_PKG_VERSION"))));
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
    if is_json {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    place.put(headers);
    for name in words.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in &words.headers {
        if name != CONTENT_LENGTH {
            headers.append(name, value.clone());
        }
    }
    Ok(request)
}

/// What micro says in the body of an error it made: `error[M…]: what`, or a problem document
/// (RFC 9457) when JSON was asked for.
async fn told(body: Incoming) -> Option<String> {
    let body = http_body_util::Limited::new(body, MAX_ERROR_BODY).collect().await.ok()?.to_bytes();
    let text = std::str::from_utf8(&body).ok()?.trim();
    let what = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(document) => document["detail"].as_str()?.to_owned(),
        Err(_) => text.split_once("]: ").map_or(text, |(_, what)| what).to_owned(),
    };
    (!what.is_empty() && !what.contains('\n')).then_some(what)
}

/// Prints the body as it comes; a terminal that reads slowly slows the service down.
async fn copy(mut body: Incoming) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    let unwritable =
        |error: std::io::Error| Problem::machine("standard output cannot be written", &error);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| lost(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        match out.write_all(&data) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(unwritable(error)),
        }
    }
    out.flush().map_err(unwritable)
}

async fn as_json(
    words: &Words,
    place: &Place,
    head: &http::response::Parts,
    body: Incoming,
) -> Result<(), Problem> {
    let body = http_body_util::Limited::new(body, MAX_JSON_BODY)
        .collect()
        .await
        .map_err(|error| {
            Problem::new("M7003", Exit::Failed, "the answer could not be read")
                .why(error.to_string())
        })?
        .to_bytes();
    let headers: serde_json::Map<_, _> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    let body =
        serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
    words.output().document(
        "HttpAnswer",
        json!({
            "service": place.to_string(),
            "status": status_number(head.status),
            "headers": headers,
            "body": body,
        }),
    )
}

fn status_number(status: StatusCode) -> u16 {
    status.as_u16()
}

fn lost(error: &hyper::Error) -> Problem {
    Problem::new("M1007", Exit::Unreachable, "the connection to the proxy was lost")
        .why(error.to_string())
        .attempt("micro status", "whether the node still runs")
}

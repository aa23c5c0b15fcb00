//! One question over HTTP to a back end, with bounds on the answer and on how long it may take.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::standing::Trouble;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of one answer.
const MAX_ANSWER: usize = 32 << 20;

/// A back end that speaks HTTP/1.1, asked over connections that are kept.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client<HttpConnector, Empty<Bytes>>,
    address: String,
    /// Sent with each question.
    header: Option<(HeaderName, HeaderValue)>,
}

impl Http {
    /// The one at `host:port`.
    pub(super) fn new(address: &str, header: Option<(HeaderName, HeaderValue)>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, address: address.to_owned(), header }
    }

    /// The answer to `GET path`, when it is a success.
    ///
    /// # Errors
    /// That it is none, does not come within `patience`, or is too long.
    pub(super) async fn get(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<(HeaderMap, Bytes), Trouble> {
        let late = |_| Trouble::new(format!("no answer within {patience:?}"));
        tokio::time::timeout(patience, self.ask(path)).await.map_err(late)?
    }

    async fn ask(&self, path: &str) -> Result<(HeaderMap, Bytes), Trouble> {
        let mut request = Request::get(format!("http://{}{path}", self.address))
            .body(Empty::new())
            .map_err(|why| Trouble::new(format!("{path} cannot be asked for: {why}")))?;
        if let Some((name, value)) = &self.header {
            request.headers_mut().insert(name, value.clone());
        }
        let response = self.client.request(request).await;
        let (head, body) = response.map_err(|why| Trouble::new(deepest(&why)))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|why| Trouble::new(format!("{path}: {why}")))?.to_bytes();
        match head.status {
            StatusCode::OK => Ok((head.headers, body)),
            status => {
                let said = String::from_utf8_lossy(&body);
                let said = said.lines().next().unwrap_or_default();
                Err(Trouble::new(format!("{path}: {status} {said}")))
            }
        }
    }
}

/// What is behind an error: the outermost says only that there was one.
pub(super) fn deepest(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// A text as a part of a path or a query (RFC 3986 §2.3).
pub(super) fn escaped(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

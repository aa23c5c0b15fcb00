//! The API server: one connection, over TLS where its address says so, and what is asked on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::super::http::deepest;
use super::super::standing::Trouble;
use crate::config::kubernetes::{Cluster, Token};
use crate::config::secret::{self, Secret};

/// For a connection, with its handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// When a connection on which nothing comes is asked whether it is there. A watch is silent for minutes.
const SILENT: Duration = Duration::from_secs(15);
/// Between such questions; the third without an answer ends it.
const ASK: Duration = Duration::from_secs(5);
/// Bytes of an answer that is none.
const MAX_WORDS: usize = 16 * 1024;

/// A server, and the connection to it.
pub(super) struct Server {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: Option<Token>,
    open: Option<(SendRequest<Empty<Bytes>>, AbortOnDropHandle<()>)>,
}

impl Server {
    /// The server of a cluster; its certificates are read now.
    ///
    /// # Errors
    /// That they cannot be.
    pub(super) fn of(cluster: &Cluster) -> Result<Self, Trouble> {
        let (host, port) = (cluster.host.clone(), cluster.port_of_server);
        let tls = if cluster.tls {
            let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(bare);
            let name = name.map_err(|_| Trouble::new(format!("{host} is no name of a server")))?;
            let ca = cluster.ca.as_ref().ok_or_else(|| Trouble::new("there is no ca for it"))?;
            let failed = |why: &dyn std::fmt::Display| {
                Trouble::new(format!("{} cannot be used: {why}", ca.display()))
            };
            let pem = std::fs::read(ca).map_err(|why| failed(&why))?;
            let mut roots = RootCertStore::empty();
            for one in CertificateDer::pem_slice_iter(&pem) {
                roots.add(one.map_err(|why| failed(&why))?).map_err(|why| failed(&why))?;
            }
            if roots.is_empty() {
                return Err(failed(&"there is no certificate in it"));
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|why| failed(&why))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        Ok(Self { host, port, tls, token: cluster.token.clone(), open: None })
    }

    /// The body of the answer to `GET path`, when it is a success; `None` where the server has forgotten
    /// what was asked for (RFC 9110 §15.5.11).
    ///
    /// # Errors
    /// That it is none, or does not begin within `patience`.
    pub(super) async fn get(
        &mut self,
        path: &str,
        patience: Duration,
    ) -> Result<Option<Incoming>, Trouble> {
        let late = |_| Trouble::new(format!("no answer within {patience:?}"));
        tokio::time::timeout(patience, self.ask(path)).await.map_err(late)?
    }

    async fn ask(&mut self, path: &str) -> Result<Option<Incoming>, Trouble> {
        let token = match self.token.clone() {
            Some(token) => Some(bearer(token).await?),
            None => None,
        };
        if self.open.as_ref().is_none_or(|(sender, _)| sender.is_closed()) {
            self.open = Some(self.connect().await?);
        }
        let Some((sender, _)) = &mut self.open else {
            return Err(Trouble::new("there is no connection"));
        };
        // The answer before may not have been read to its end; then there is no other on the connection.
        sender.ready().await.map_err(|why| Trouble::new(deepest(&why)))?;
        let request = Request::get(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "micro");
        let mut request = request
            .body(Empty::new())
            .map_err(|why| Trouble::new(format!("{path} cannot be asked for: {why}")))?;
        if let Some(token) = token {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|why| Trouble::new(deepest(&why)))?.into_parts();
        if head.status == StatusCode::OK {
            return Ok(Some(body));
        }
        let words = Limited::new(body, MAX_WORDS).collect().await;
        let words = words.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        // The connection is not used again: what is left of the answer is not waited for.
        self.open = None;
        if head.status == StatusCode::GONE {
            return Ok(None);
        }
        Err(Trouble::new(format!("{} {}", head.status, message(&words))))
    }

    async fn connect(&self) -> Result<(SendRequest<Empty<Bytes>>, AbortOnDropHandle<()>), Trouble> {
        let late = |_| Trouble::new(format!("no connection within {CONNECT:?}"));
        tokio::time::timeout(CONNECT, self.dial()).await.map_err(late)?
    }

    async fn dial(&self) -> Result<(SendRequest<Empty<Bytes>>, AbortOnDropHandle<()>), Trouble> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, self.port)).await;
        let stream = stream.map_err(|why| Trouble::new(why.to_string()))?;
        let alive = TcpKeepalive::new().with_time(SILENT).with_interval(ASK).with_retries(3);
        let kept = SockRef::from(&stream).set_tcp_keepalive(&alive);
        kept.and_then(|()| stream.set_nodelay(true))
            .map_err(|why| Trouble::new(why.to_string()))?;
        let spoken = |why: hyper::Error| Trouble::new(deepest(&why));
        if let Some((connector, name)) = &self.tls {
            let stream = connector.connect(name.clone(), stream).await;
            let stream = stream.map_err(|why| Trouble::new(deepest(&why)))?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(spoken)?;
            Ok((sender, driven(connection)))
        } else {
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(spoken)?;
            Ok((sender, driven(connection)))
        }
    }
}

fn driven<C>(connection: C) -> AbortOnDropHandle<()>
where
    C: Future<Output = hyper::Result<()>> + Send + 'static,
{
    // How it ends is told where an answer is waited for.
    AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }))
}

/// The header of a token, read anew where it is in a file: those of pods are replaced each hour.
async fn bearer(token: Token) -> Result<HeaderValue, Trouble> {
    let text = match token {
        Token::Fixed(secret) => secret,
        Token::File(path) => {
            let read = move || secret::read(&format!("file:{}", path.display()));
            let read = tokio::task::spawn_blocking(read).await;
            read.map_err(|why| Trouble::new(why.to_string()))?.map_err(Trouble::new)?
        }
    };
    value(&text).ok_or_else(|| Trouble::refused("the token is no header"))
}

fn value(token: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a refusal says: its `message`, where it is a `Status` of Kubernetes.
fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Status {
        message: String,
    }
    serde_json::from_slice(body).map_or_else(
        |_| String::from_utf8_lossy(body).lines().next().unwrap_or_default().to_owned(),
        |status: Status| status.message,
    )
}

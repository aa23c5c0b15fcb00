//! What a back end of kind `kubernetes` is told: which API server, what lets in, which slices.

use std::path::PathBuf;

use super::backend::{Take, Wrong};
use super::secret::{self, Secret};

/// Where a pod finds what it needs to ask its own cluster.
const OF_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const HTTPS: u16 = 443;
/// The longest selector.
const MAX_SELECTOR: usize = 1024;

/// A cluster to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The address as people read it: `https://10.0.0.1:6443`.
    pub server: String,
    /// Its host; one of IPv6 in brackets.
    pub host: String,
    /// Its port.
    pub port_of_server: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// The certificates of who may have signed the server's.
    pub ca: Option<PathBuf>,
    /// What lets in.
    pub token: Option<Token>,
    /// The namespace; `None`: all.
    pub namespace: Option<String>,
    /// Which slices, by labels.
    pub selector: Option<String>,
    /// Which port of a service, by name or number.
    pub port: Option<String>,
}

/// What lets in, as a bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// This one.
    Fixed(Secret),
    /// The one that is in a file when it is used.
    File(PathBuf),
}

/// Reads the table of a cluster.
pub(super) fn read(take: &mut Take<'_>) -> Result<Cluster, Wrong> {
    let (server, at, is_own) = match take.text("address") {
        Some((text, cell)) => (text.to_owned(), cell.at.clone(), false),
        None => (of_pod().ok_or_else(|| take.wrong(NO_ADDRESS))?, None, true),
    };
    let (tls, host, port_of_server) = address(&server).map_err(|why| (at.clone(), why))?;
    // What a pod is given is for its own cluster: no other server is shown its token.
    let in_pod =
        |file: &str| Some(PathBuf::from(OF_POD).join(file)).filter(|path| is_own && path.exists());
    let ca = match take.text("ca") {
        Some((_, cell)) if !tls => {
            return Err((cell.at.clone(), "a server at http:// has no certificate".to_owned()));
        }
        Some((text, _)) => Some(PathBuf::from(text)),
        None if tls => {
            let found = in_pod("ca.crt");
            Some(
                found
                    .ok_or_else(|| (at, "https needs a ca: the file of certificates".to_owned()))?,
            )
        }
        None => None,
    };
    let token = match take.text("token") {
        Some((text, cell)) => {
            // Read once, so that a mistake is told at the start.
            let secret = secret::read(text).map_err(|why| (cell.at.clone(), why))?;
            Some(match text.strip_prefix("file:") {
                Some(path) => Token::File(path.into()),
                None => Token::Fixed(secret),
            })
        }
        None => in_pod("token").map(Token::File),
    };
    let namespace = match take.text("namespace") {
        None => None,
        Some((text, cell)) => Some(label(text).map_err(|why| (cell.at.clone(), why))?),
    };
    let selector = match take.text("selector") {
        Some((text, cell)) if text.is_empty() || text.len() > MAX_SELECTOR => {
            let why = format!("a selector has 1 to {MAX_SELECTOR} characters: team=shop,env!=dev");
            return Err((cell.at.clone(), why));
        }
        selector => selector.map(|(text, _)| text.to_owned()),
    };
    let port = match take.text("port") {
        None => None,
        Some((text, cell)) => Some(label(text).map_err(|why| (cell.at.clone(), why))?),
    };
    Ok(Cluster { server, host, port_of_server, tls, ca, token, namespace, selector, port })
}

const NO_ADDRESS: &str = "a back end of kind kubernetes needs an address outside of a cluster: \
                          https://HOST:6443, or http://127.0.0.1:8001 of kubectl proxy";

/// The server that a pod is told in its environment.
fn of_pod() -> Option<String> {
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("https://{host}:{port}"))
}

fn address(text: &str) -> Result<(bool, String, u16), String> {
    let wrong = || format!("{text:?} is no address: write https://HOST:PORT or http://HOST:PORT");
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong()),
    };
    let fits = uri.path() == "/" && uri.query().is_none();
    let authority =
        uri.authority().filter(|of| fits && !of.as_str().contains('@')).ok_or_else(wrong)?;
    let port = authority.port_u16().unwrap_or(if tls { HTTPS } else { 80 });
    Ok((tls, authority.host().to_owned(), port))
}

/// A name of Kubernetes (RFC 1123), also of a port.
fn label(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 63 || !text.chars().all(allowed) {
        return Err(format!("{text:?} is no name of Kubernetes: small letters, digits and '-'"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_scheme_a_host_and_a_port() {
        assert_eq!(address("https://k.example:6443/"), Ok((true, "k.example".into(), 6443)));
        assert_eq!(address("http://127.0.0.1:8001"), Ok((false, "127.0.0.1".into(), 8001)));
        assert_eq!(address("https://[fd00::1]"), Ok((true, "[fd00::1]".into(), 443)));
        for wrong in ["k:6443", "ftp://k", "https://u:p@k", "https://k/api", "https://", ""] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}

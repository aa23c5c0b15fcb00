//! The admin socket, from the side of a command: find it, ask, understand the answer.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::config::Paths;
use crate::error::{Exit, Problem};

/// The largest answer that is read: a table of 100 000 instances is about 30 MB.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// The longest answer of something that is held.
const MAX_LINE: usize = 64 * 1024;
/// Sockets looked at when no node is named.
const MAX_SOCKETS: usize = 256;

/// How long a node may take to answer unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A running node of this user.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// The node that is meant: the one at `asked`; else the one called `name`; else the only one.
    ///
    /// # Errors
    /// M6010 when none answers, M6011 when several do and none is called `name`.
    pub fn find(
        asked: Option<&Path>,
        name: &str,
        paths: &Paths,
        timeout: Duration,
    ) -> Result<Self, Problem> {
        if let Some(asked) = asked {
            return Ok(Self { socket: asked.to_owned(), timeout });
        }
        let mut live = sockets(&paths.runtime);
        let named = paths.socket(name);
        let socket = match live.len() {
            0 => return Err(no_node(&paths.runtime.join("*.sock"), "no node has a socket there")),
            1 => live.remove(0),
            _ if live.contains(&named) => named,
            _ => return Err(several(&live)),
        };
        Ok(Self { socket, timeout })
    }

    /// Of root who acts for a user (`sudo`): the only node of that user.
    #[must_use]
    pub fn of_sudo(timeout: Duration) -> Option<Self> {
        let user: u32 = std::env::var("SUDO_UID").ok()?.parse().ok()?;
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let places = [format!("/run/user/{user}/micro"), format!("/tmp/micro-{user}")];
        // Below /tmp anybody could have made the directory of somebody else.
        let theirs = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|file| file.uid() == user);
        let mut live = places.iter().flat_map(|place| sockets(Path::new(place))).filter(theirs);
        let socket = live.next().filter(|_| live.next().is_none())?;
        Some(Self { socket, timeout })
    }

    /// The node whose socket this is.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), timeout: DEFAULT_TIMEOUT }
    }

    /// Where it asks.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The same node, with more or less patience.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { socket: self.socket.clone(), timeout }
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// The problem the node reports, or that it cannot be asked.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        read(self.ask(Method::GET, path, Bytes::new()).await?)
    }

    /// Has something done, and gives the answer.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Problem::bug(format!("a request cannot be written: {error}")))?;
        read(self.ask(Method::POST, path, body.into()).await?)
    }

    /// Has something done that lasts as long as what this gives is held.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn hold<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(T, Held), Problem> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Problem::bug(format!("a request cannot be written: {error}")))?;
        let (mut sender, connection) = self.connect().await?;
        // Ends with the body: nothing else is asked on it.
        let connection = tokio::spawn(connection);
        let request = request(Method::POST, path, body.into())?;
        let answer = async {
            let response =
                sender.send_request(request).await.map_err(|error| self.closed(&error))?;
            let (status, mut body) = (response.status(), response.into_body());
            let mut line = Vec::new();
            while !(status.is_success() && line.contains(&b'\n')) && line.len() < MAX_LINE {
                match body.frame().await {
                    Some(Ok(frame)) => line.extend(frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => return Err(self.closed(&error)),
                    None => break,
                }
            }
            Ok((status, line, body))
        };
        let (status, mut line, body) = match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer?,
            Err(_) => return Err(self.slow()),
        };
        // What came together with the first line is for who reads on.
        let end = line.iter().position(|byte| *byte == b'\n').filter(|_| status.is_success());
        let rest = end.map(|end| line.split_off(end + 1)).unwrap_or_default();
        let document = read(understood(status, &line)?)?;
        Ok((document, Held { body, rest, connection, _sender: sender }))
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Problem> {
        let (status, body) =
            match tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await {
                Ok(answer) => answer?,
                Err(_) => return Err(self.slow()),
            };
        understood(status, &body)
    }

    fn slow(&self) -> Problem {
        let waited = crate::config::duration::show(self.timeout);
        let what = format!("the node did not answer within {waited}");
        Problem::new("M8004", Exit::Unreachable, what)
            .why(format!("it was asked on {}", self.socket.display()))
            .attempt("micro network status --timeout 60s", "allow more")
    }

    fn closed(&self, error: &dyn std::fmt::Display) -> Problem {
        Problem::new("M6010", Exit::NoNode, "the node closed the admin socket")
            .why(format!("{}: {error}", self.socket.display()))
            .attempt("micro network", "start one")
    }

    async fn connect(&self) -> Result<(Sender, Connection), Problem> {
        check_owner(&self.socket)?;
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| self.absent(&error))?;
        let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        made.map_err(|error| self.closed(&error))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Problem> {
        let (mut sender, connection) = self.connect().await?;
        let request = request(method, path, body)?;
        let answer = async {
            let response =
                sender.send_request(request).await.map_err(|error| self.closed(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER);
            let body = body.collect().await.map_err(|error| self.closed(&error))?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here and ends with the answer: no task is left behind.
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            // An orderly end may come before the last bytes are taken out of the channel.
            _ended = &mut connection => answer.await,
        }
    }

    fn absent(&self, error: &io::Error) -> Problem {
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Problem::new("M8003", Exit::NotAllowed, "this node belongs to another user")
                .why(format!("{}: {error}", self.socket.display()))
                .attempt("micro network", "run your own");
        }
        no_node(&self.socket, &error.to_string())
    }
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;
type Connection = hyper::client::conn::http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

/// Something that the node does as long as this lives.
#[derive(Debug)]
pub struct Held {
    body: hyper::body::Incoming,
    /// Read and not yet asked for.
    rest: Vec<u8>,
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
    _sender: Sender,
}

impl Held {
    /// The next line of what the node says, with its end; `None` when it has ended. Safe to cancel.
    pub async fn line(&mut self) -> Option<String> {
        /// A message of 8 MiB, as JSON may have to write it.
        const LONGEST: usize = 64 << 20;
        let mut looked = 0;
        loop {
            if let Some(end) = self.rest[looked..].iter().position(|byte| *byte == b'\n') {
                let rest = self.rest.split_off(looked + end + 1);
                let line = std::mem::replace(&mut self.rest, rest);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            looked = self.rest.len();
            if looked > LONGEST {
                return None;
            }
            self.rest.extend(self.body.frame().await?.ok()?.into_data().unwrap_or_default());
        }
    }

    /// Waits until the node has ended it.
    pub async fn ended(&mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Problem> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "micro")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| Problem::bug(format!("no request for {path:?}: {error}")))
}

/// The document of an answer, or the problem that it reports.
fn understood(status: StatusCode, body: &[u8]) -> Result<Value, Problem> {
    let document: Result<Value, _> = serde_json::from_slice(body);
    match document {
        // A node that is not ready says so with 503 and the same document.
        Ok(document) if status.is_success() || document.get("error").is_none() => Ok(document),
        Ok(mut document) => Err(reported(status, document["error"].take())),
        Err(error) => Err(Problem::new("M8002", Exit::Failed, "the node's answer is not JSON")
            .why(format!("status {status}: {error}"))
            .attempt("micro version", "use the micro of the running node")),
    }
}

/// `document` as the type it should have.
///
/// # Errors
/// M8002 when the node speaks another language than this command.
pub fn read<T: DeserializeOwned>(document: Value) -> Result<T, Problem> {
    serde_json::from_value(document).map_err(|error| {
        Problem::new("M8002", Exit::Failed, "the node's answer is not what this release expects")
            .why(error.to_string())
            .attempt("micro version", "use the micro of the running node")
    })
}

/// A word in a path of the admin API.
#[must_use]
pub fn escaped(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What the node itself reported.
fn reported(status: StatusCode, error: Value) -> Problem {
    serde_json::from_value(error).unwrap_or_else(|_| {
        Problem::new("M8002", Exit::Failed, "the node does not know this request")
            .why(format!("it answered {status}: it may be of another release"))
            .attempt("micro version", "use the micro of the running node")
    })
}

/// The sockets in `directory` on which somebody answers, by name.
#[must_use]
pub fn sockets(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut live: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .take(MAX_SOCKETS)
        .filter(|path| std::os::unix::net::UnixStream::connect(path).is_ok())
        .collect();
    live.sort();
    live
}

/// Tickets and addresses go through this socket, so it must not be somebody else's: the directory
/// under `/tmp` could have been made by anybody.
fn check_owner(socket: &Path) -> Result<(), Problem> {
    let me = rustix::process::getuid().as_raw();
    match std::fs::metadata(socket) {
        Ok(file) if file.uid() == me || file.uid() == 0 || me == 0 => Ok(()),
        Ok(file) => {
            Err(Problem::new("M8003", Exit::NotAllowed, "this node belongs to another user")
                .why(format!("{} is of user {}", socket.display(), file.uid()))
                .attempt("micro network", "run your own"))
        }
        Err(error) => Err(no_node(socket, &error.to_string())),
    }
}

fn no_node(place: &Path, why: &str) -> Problem {
    Problem::new("M6010", Exit::NoNode, "no node is running for this user")
        .why(format!("nothing answers on the admin socket {}: {why}", place.display()))
        .attempt("micro network", "start one")
}

fn several(live: &[PathBuf]) -> Problem {
    let names: Vec<_> = live
        .iter()
        .filter_map(|path| path.file_stem())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let first = live.first().map(|path| path.display().to_string()).unwrap_or_default();
    Problem::new("M6011", Exit::Usage, "several nodes are running, and none has the default name")
        .why(format!("they are called {}", names.join(", ")))
        .attempt(format!("micro status --socket {first}"), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(runtime: &Path) -> Paths {
        Paths {
            config: None,
            user_config: runtime.join("micro.toml"),
            state: runtime.join("state"),
            runtime: runtime.to_owned(),
        }
    }

    #[test]
    fn the_node_that_is_meant_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(directory.path());
        let find = |asked| Client::find(asked, "me", &paths, Duration::from_secs(1));
        let bind = |name| std::os::unix::net::UnixListener::bind(paths.socket(name)).unwrap();
        assert_eq!(find(None).unwrap_err().code, "M6010");

        std::fs::write(paths.socket("stale"), "").unwrap();
        assert_eq!(find(None).unwrap_err().code, "M6010", "nobody answers there");

        let _a = bind("a");
        assert_eq!(find(None).unwrap().socket, paths.socket("a"), "the only one");
        let _b = bind("b");
        assert_eq!(find(None).unwrap_err().code, "M6011");
        let _me = bind("me");
        assert_eq!(find(None).unwrap().socket, paths.socket("me"), "the one of this name");
        let asked = Path::new("/elsewhere.sock");
        assert_eq!(find(Some(asked)).unwrap().socket, asked);
    }

    #[test]
    fn words_in_paths_are_escaped() {
        assert_eq!(escaped("pay/orders v1?"), "pay/orders%20v1%3F");
    }

    #[tokio::test]
    async fn a_problem_the_node_reports_is_told_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("n.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let told = Problem::new("M1203", Exit::NotFound, "no service named \"x\"").why("none is");
        let body = told.to_json().to_string();
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let length = body.len();
            let answer =
                format!("HTTP/1.1 404 Not Found\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let client = Client { socket, timeout: Duration::from_secs(30) };
        assert_eq!(client.get::<Value>("/v1/services/x").await.unwrap_err(), told);
        assert!(server.await.unwrap().starts_with("GET /v1/services/x HTTP/1.1\r\n"));
    }
}

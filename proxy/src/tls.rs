//! The face of TLS: bytes to the service that the first words of a client name (SNI, RFC 6066 §3).
//!
//! Nothing is opened: the client and the program that it wants make their keys themselves, and every
//! byte is passed on as it came. A refusal is an alert (RFC 8446 §6), which is what clients of TLS
//! understand, and is sent before there are keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proto::client_hello::{BadHello, ClientHello, HelloReader};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::carry::Form;
use crate::carry::raw::Connected;
use crate::error::Error;
use crate::metrics::{Face, Outcome};
use crate::proxy::Shared;
use crate::tcp;

/// Bytes read at a time: more than hellos have.
const READ: usize = 4 * 1024;
/// How long an alert may take to be sent.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Why there is no connection, as TLS says it (RFC 8446 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alert {
    UnexpectedMessage = 10,
    RecordOverflow = 22,
    IllegalParameter = 47,
    AccessDenied = 49,
    DecodeError = 50,
    InternalError = 80,
    MissingExtension = 109,
    UnrecognizedName = 112,
}

/// Serves one connection, of which `seen` was read already, until it has ended.
pub(crate) async fn serve(shared: &Arc<Shared>, mut stream: TcpStream, seen: Bytes) {
    let began = Instant::now();
    let mut read = BytesMut::from(seen);
    let hello = tokio::time::timeout(shared.limits.first_bytes, hello(&mut stream, &mut read));
    let name = match hello.await {
        Ok(Some(Ok(ClientHello { server_name: Some(name) }))) => name,
        Ok(Some(Ok(ClientHello { server_name: None }))) => {
            return refuse(shared, stream, Alert::MissingExtension, "no server name", began).await;
        }
        Ok(Some(Err(bad))) => {
            return refuse(shared, stream, Alert::from(bad), bad, began).await;
        }
        // Gone, or too slow to be one that wants something.
        Ok(None) | Err(_) => return,
    };
    let counted = shared.calls.enter(shared.limits.calls);
    let connected = if counted.is_some() {
        begin(shared, &name).await
    } else {
        Err(Error::Overloaded { what: "this node is", limit: shared.limits.calls })
    };
    match connected {
        Ok(connected) => tcp::carry(shared, stream, read.freeze(), connected, began).await,
        Err(error) => {
            shared.metrics.call(Face::Tcp, Outcome::from(&error), began.elapsed());
            tracing::info!(name, %error, code = error.code(), "a TLS connection came to nothing");
            say(stream, Alert::from(&error)).await;
        }
    }
}

/// Reads until the hello is whole; all that was read stays in `read`. `None`: the program is gone.
async fn hello(
    stream: &mut TcpStream,
    read: &mut BytesMut,
) -> Option<Result<ClientHello, BadHello>> {
    let mut reader = HelloReader::default();
    let mut from = 0;
    loop {
        match reader.push(&read[from..]) {
            Ok(Some(hello)) => return Some(Ok(hello)),
            Ok(None) => from = read.len(),
            Err(bad) => return Some(Err(bad)),
        }
        read.reserve(READ);
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

async fn begin(shared: &Arc<Shared>, name: &str) -> Result<Connected, Error> {
    match shared.named(name)? {
        Some((meant, headers)) => shared.connect_as(Form::Tls, meant, headers).await,
        // Ours are spoken to in gRPC, in clear text.
        None => Err(Error::NoService(name.to_owned())),
    }
}

async fn refuse(
    shared: &Shared,
    stream: TcpStream,
    alert: Alert,
    why: impl std::fmt::Display,
    began: Instant,
) {
    let error = Error::Malformed("not a ClientHello that names a server");
    shared.metrics.call(Face::Tcp, Outcome::from(&error), began.elapsed());
    tracing::debug!(%why, "a TLS connection was refused");
    say(stream, alert).await;
}

/// Tells a program that this node does not serve it.
pub(crate) async fn turn_away(stream: TcpStream) {
    say(stream, Alert::AccessDenied).await;
}

/// A fatal alert, alone in its record (RFC 8446 §5.1, §6), and the end.
async fn say(mut stream: TcpStream, alert: Alert) {
    let record = [21, 3, 3, 0, 2, 2, alert as u8];
    let said = async {
        stream.write_all(&record).await?;
        stream.shutdown().await?;
        // What the client still sends is read, or it would see a reset before the alert.
        let mut rest = [0; READ];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whoever is gone is not told.
    let _ = tokio::time::timeout(LAST_WORD, said).await;
}

impl From<BadHello> for Alert {
    fn from(bad: BadHello) -> Self {
        match bad {
            BadHello::NotHello => Self::UnexpectedMessage,
            BadHello::TooLarge => Self::RecordOverflow,
            BadHello::Malformed => Self::DecodeError,
            BadHello::Name => Self::IllegalParameter,
        }
    }
}

impl From<&Error> for Alert {
    fn from(error: &Error) -> Self {
        match error.code() {
            // Not there, or not as TLS.
            1002 | 1203 => Self::UnrecognizedName,
            1011 | 1015 => Self::AccessDenied,
            _ => Self::InternalError,
        }
    }
}

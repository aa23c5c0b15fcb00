//! New TCP connections, one after the other: each is made, says a few bytes, has them back and is
//! closed. What it costs to begin and to end, not to carry.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Error;
use crate::calls::{self, Call, Load, Window};
use crate::client::Failure;
use crate::cpu::Watched;
use crate::latency::Latency;
use crate::outcome::CallsOutcome;

/// Bytes said on each connection, and read back.
pub const SIZE: usize = 64;
/// Bytes that the echo reads at a time.
const READ: usize = 4096;

/// Gives back what comes on each connection of `listener`, and ends it when its other side does.
pub async fn serve(listener: TcpListener) {
    loop {
        // Out of descriptors is the peer's load to lower; the next accept may do.
        let Ok((socket, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(async move {
            // Who went away needs no echo.
            let _ = echo(socket).await;
        });
    }
}

async fn echo(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = [0; READ];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return socket.shutdown().await,
            read => socket.write_all(&buffer[..read]).await?,
        }
    }
}

struct Connector(SocketAddr);

impl Call for Connector {
    async fn call(&self) -> Result<(), Failure> {
        let said: [u8; SIZE] = std::array::from_fn(|at| at as u8);
        let mut socket = TcpStream::connect(self.0).await.map_err(|_| Failure::Connect)?;
        let _ = socket.set_nodelay(true);
        let lost = |_| Failure::Lost;
        socket.write_all(&said).await.map_err(lost)?;
        let mut back = [0; SIZE];
        socket.read_exact(&mut back).await.map_err(lost)?;
        socket.shutdown().await.map_err(lost)?;
        // Whole only when the other side has ended as well: a road that forgets to would be quick.
        match socket.read(&mut [0]).await.map_err(lost)? {
            0 if back == said => Ok(()),
            _ => Err(Failure::Wrong),
        }
    }
}

/// Makes connections to `at`, `in_flight` at a time, and counts them.
pub async fn run(
    at: SocketAddr,
    in_flight: usize,
    window: Window,
    watched: &[Watched],
) -> Result<(CallsOutcome, Latency), Error> {
    let connector = vec![Arc::new(Connector(at))];
    calls::run_with(connector, SIZE, Load::Closed { in_flight }, window, watched).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SHORT: Window =
        Window { warm_up: Duration::from_millis(20), length: Duration::from_millis(100) };

    #[tokio::test]
    async fn connections_are_made_and_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(serve(listener));
        let (outcome, _) = run(at, 4, SHORT, &[]).await.unwrap();
        assert!(outcome.calls > 0 && outcome.errors.is_empty(), "{outcome:?}");
    }

    #[tokio::test]
    async fn an_end_that_does_not_come_back_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut said = [0; SIZE];
                let _ = socket.read_exact(&mut said).await;
                let _ = socket.write_all(&[said, said].concat()).await;
            }
        });
        let window = Window { warm_up: Duration::ZERO, ..SHORT };
        let (outcome, _) = run(at, 1, window, &[]).await.unwrap();
        assert!(outcome.errors.contains_key("wrong answer"), "{outcome:?}");
    }
}

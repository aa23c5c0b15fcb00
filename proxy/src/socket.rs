//! What every TCP connection of the proxy is set to.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A peer that vanished is asked after 15 s, every 5 s, 4 times: gone within 35 s. Half-open
/// connections are freed without help of the protocol above.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5))
    .with_retries(4);
/// How long bytes may stay unacknowledged before the connection is given up (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(35);

/// Sends small pieces at once, and notices when the other end is gone.
pub(crate) fn tune(socket: &TcpStream) {
    let socket = SockRef::from(socket);
    // Each makes a connection better and none is needed for a right answer.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&KEEPALIVE);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

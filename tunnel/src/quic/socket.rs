//! The UDP socket of an endpoint, which wakes nobody for nothing.
//!
//! quinn's own asks the system to tell when the socket can be read and when it can be written. The
//! second is said after every packet that left, for then there is room for another: a node that
//! waits for one answer is woken twice for it. Here only reading is watched; room to write is asked
//! for when there was none, which is rare. And a read that brought one packet is the last: nothing is
//! asked once more only to hear that there is nothing. (Where packets come in trains, the next is
//! often there by then, and asking is cheaper than being told.)

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The wait for room when the system has no descriptor to watch for it with.
const ROOM: Duration = Duration::from_millis(1);

/// A UDP socket, read and written in trains of packets where the system can (GRO, GSO).
pub(super) struct Socket {
    state: UdpSocketState,
    io: AsyncFd<UdpSocket>,
    /// How often the system had no room for a packet.
    refusals: AtomicU64,
}

impl Socket {
    /// Takes a bound socket that does not block, in the current runtime.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = watch(socket, Interest::READABLE)?;
        Ok(Arc::new(Self { state, io, refusals: AtomicU64::new(0) }))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.io.get_ref().local_addr().ok()).finish()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let refusals = self.refusals.load(Ordering::Relaxed);
        Box::pin(Room { socket: self, refusals, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.io.get_ref().into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.io.poll_read_ready(cx))?;
            let read = ready.try_io(|io| self.state.recv(io.get_ref().into(), bufs, meta));
            let Ok(read) = read else { continue };
            if read.as_ref().is_ok_and(|count| *count == 1) && meta[0].len <= meta[0].stride {
                // What comes from now on is a new event, and is told as one (epoll(7), EPOLLET).
                ready.clear_ready();
            }
            return Poll::Ready(read);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// Waits until the system takes packets again, if it has refused one.
struct Room {
    socket: Arc<Socket>,
    /// The refusals that were waited for.
    refusals: u64,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Room").field(&self.socket).finish()
    }
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let socket = &this.socket;
        // Asked before every packet. A refusal is counted by the thread that asks afterwards, or is
        // that of another connection, which is as good a reason to wait.
        let refusals = socket.refusals.load(Ordering::Relaxed);
        if this.waiting.is_none() && this.refusals == refusals {
            return Poll::Ready(Ok(()));
        }
        this.refusals = refusals;
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(room(Arc::clone(socket))));
        ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(Ok(()))
    }
}

/// Watches a copy of the descriptor, for this one time: what is watched for longer tells of room
/// after every packet.
async fn room(socket: Arc<Socket>) {
    let copy = socket.io.get_ref().try_clone();
    let watched = copy.and_then(|copy| watch(copy, Interest::WRITABLE));
    match watched {
        // An error of the socket is told by the next attempt to send.
        Ok(watched) => drop(watched.writable().await),
        Err(_) => tokio::time::sleep(ROOM).await,
    }
}

/// Has the runtime watch `socket` for `interest` alone.
#[expect(unsafe_code, reason = "the runtime's safe way watches for both")]
fn watch(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the descriptor must stay open and the same as long as it is registered. A `UdpSocket`
    // owns its descriptor, gives the same one each time it is asked, and closes it only when it is
    // dropped; it is owned by the `AsyncFd`, which ends the registration before it drops it, and is
    // nowhere replaced, for nothing here asks for it by `get_mut`.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    watched.map_err(|error| error.into_parts().1)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;
    use std::task::Waker;

    use super::*;

    fn bound() -> (Arc<Socket>, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        (Socket::new(socket).unwrap(), address)
    }

    async fn read(socket: &Socket) -> usize {
        let mut buffers = [[0; 2048]; 4];
        let mut meta = [RecvMeta::default(); 4];
        poll_fn(|cx| {
            let mut slices = buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            socket.poll_recv(cx, &mut slices, &mut meta)
        })
        .await
        .unwrap();
        meta.iter().map(|meta| meta.len).sum()
    }

    #[tokio::test]
    async fn what_comes_after_a_short_read_is_read_as_well() {
        let (socket, address) = bound();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for length in 1..200 {
            sender.send_to(&vec![7; length], address).unwrap();
            assert_eq!(read(&socket).await, length);
        }
    }

    #[tokio::test]
    async fn a_full_batch_is_followed_by_the_rest() {
        let (socket, address) = bound();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for length in 1..=9 {
            sender.send_to(&vec![7; length], address).unwrap();
        }
        let mut total = 0;
        while total < 45 {
            total += read(&socket).await;
        }
        assert_eq!(total, 45);
    }

    #[tokio::test]
    async fn a_sender_that_waits_for_room_goes_on_when_there_is_some() {
        let (socket, address) = bound();
        let contents = [7; 1000];
        let transmit = Transmit {
            destination: address,
            ecn: None,
            contents: &contents,
            segment_size: None,
            src_ip: None,
        };
        let mut room = Arc::clone(&socket).create_io_poller();
        for _ in 0..3 {
            socket.try_send(&transmit).unwrap();
            // As if it had been refused: a socket of the loopback never does.
            socket.refusals.fetch_add(1, Ordering::Relaxed);
            poll_fn(|cx| room.as_mut().poll_writable(cx)).await.unwrap();
            assert_eq!(read(&socket).await, 1000);
        }
    }

    #[tokio::test]
    async fn a_sender_that_was_not_refused_does_not_wait() {
        let (socket, _) = bound();
        let mut room = Arc::clone(&socket).create_io_poller();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(room.as_mut().poll_writable(&mut cx).is_ready());
        socket.refusals.fetch_add(1, Ordering::Relaxed);
        assert!(room.as_mut().poll_writable(&mut cx).is_pending());
    }
}

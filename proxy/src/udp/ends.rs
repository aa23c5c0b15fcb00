//! The ends of a flow: a program behind a port of this node, an instance of it, another node.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prometheus_client::metrics::counter::Counter;
use proto::fault::Code;
use proto::open::OpenKind;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tunnel::{Packets, RecvHalf, SendHalf, Sent, StreamError};

use crate::carry::raw::Way;
use crate::error::Error;
use crate::proxy::Shared;
use crate::splice;
use crate::udp::Waiting;

/// The largest packet there is (RFC 768: its length has 16 bits).
const MAX_PACKET: usize = 65_535;
/// Bytes of the length before a packet on a stream.
const LENGTH: usize = 2;
/// Bytes read from a stream at a time.
const READ: usize = 64 * 1024;

thread_local! {
    /// Where packets are received before it is known how long they are.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_PACKET].into());
}

/// Bytes that wait to be written on a stream: two of the largest packets, or many smaller ones.
const QUEUED: usize = 128 * 1024;

/// Nothing more comes from there, or goes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It has ended, or the way to it has.
    Ended,
    /// Nobody listens there.
    Refused,
}

/// A packet that there was no room for.
#[derive(Debug)]
pub(crate) struct Lost;

/// One end of a flow.
pub(crate) enum Ends {
    /// A program.
    Program(Program),
    /// An instance of this node.
    Near(Near),
    /// Another node.
    Far(Box<Far>),
}

/// A program that sends to a port which others share.
pub(crate) struct Program {
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
    /// What stands before each packet to it.
    before: Bytes,
    /// What it sends; nothing before [`Program::listen`].
    come: Option<mpsc::Receiver<Waiting>>,
}

/// An instance, behind a socket that is connected to it.
pub(crate) struct Near {
    socket: UdpSocket,
    /// A packet to it has found nobody.
    refused: bool,
}

/// A stream to another node, and the packets beside it.
pub(crate) struct Far {
    send: SendHalf,
    recv: RecvHalf,
    packets: Packets,
    /// Read and not yet whole.
    read: BytesMut,
    /// Packets that did not fit beside the stream and are written on it.
    queue: VecDeque<Bytes>,
    queued: usize,
}

impl Program {
    pub(crate) fn new(socket: Arc<UdpSocket>, peer: SocketAddr, before: Bytes) -> Self {
        Self { socket, peer, before, come: None }
    }

    /// Its packets come from here.
    pub(crate) fn listen(&mut self, come: mpsc::Receiver<Waiting>) {
        self.come = Some(come);
    }

    /// Drops what it sends, for some time.
    pub(crate) async fn drop_for(self, time: Duration, lost: &Counter) {
        let Some(mut come) = self.come else { return };
        let dropping = async {
            while come.recv().await.is_some() {
                lost.inc();
            }
        };
        // Its time is over, or nobody sends any more.
        let _ = tokio::time::timeout(time, dropping).await;
        come.close();
        while come.try_recv().is_ok() {
            lost.inc();
        }
    }
}

impl Far {
    /// The stream of a flow, with what was read of it already.
    pub(crate) fn new(send: SendHalf, recv: RecvHalf, first: Bytes) -> Self {
        let packets = send.packets();
        let (read, queue) = (BytesMut::from(first), VecDeque::new());
        Self { send, recv, packets, read, queue, queued: 0 }
    }

    /// Says something on the stream before any packet.
    pub(crate) async fn say(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.send.write(&mut [bytes]).await.map_err(|_| Gone::Ended)
    }

    /// The half that sends, for a flow that comes to nothing.
    pub(crate) fn into_send(self) -> SendHalf {
        self.send
    }

    async fn turn(&mut self) -> Result<Option<Bytes>, Gone> {
        if let Some(packet) = whole(&mut self.read) {
            return Ok(Some(packet));
        }
        tokio::select! {
            packet = self.packets.recv() => Ok(Some(packet)),
            more = self.recv.read(READ) => match more {
                Ok(Some(bytes)) => {
                    self.read.extend_from_slice(&bytes);
                    Ok(whole(&mut self.read))
                }
                // So the node of an instance says that nobody listens ([`Ends::end`]).
                Err(StreamError::Reset(Code::ServiceReset)) => Err(Gone::Refused),
                Ok(None) | Err(_) => Err(Gone::Ended),
            },
            written = self.send.write(self.queue.make_contiguous()), if !self.queue.is_empty() => {
                self.queue.clear();
                self.queued = 0;
                written.map(|()| None).map_err(|_| Gone::Ended)
            }
        }
    }

    fn give(&mut self, packet: &[u8]) -> Result<(), Lost> {
        match self.packets.send(packet) {
            Sent::Yes => return Ok(()),
            Sent::Lost => return Err(Lost),
            Sent::TooLong => {}
        }
        let length = u16::try_from(packet.len()).map_err(|_| Lost)?;
        // What a write took along in part stays counted until all of it is written.
        if self.queued > 0 && self.queued + packet.len() > QUEUED {
            return Err(Lost);
        }
        let mut framed = BytesMut::with_capacity(LENGTH + packet.len());
        framed.put_u16(length);
        framed.put_slice(packet);
        self.queued += framed.len();
        self.queue.push_back(framed.freeze());
        Ok(())
    }
}

impl Near {
    /// The instance at `address`.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is no address, [`Error::TooManyHops`] when this proxy listens there.
    pub(crate) async fn dial(shared: &Shared, address: &str) -> Result<Self, Error> {
        let patience = shared.limits.connect;
        let refused = |why: String| Error::Refused { instance: address.to_owned(), why };
        let dialled = tokio::time::timeout(patience, socket(shared, address)).await;
        match dialled {
            Ok(Ok(Some(socket))) => Ok(Self { socket, refused: false }),
            Ok(Ok(None)) => Err(Error::TooManyHops),
            Ok(Err(why)) => Err(refused(why.to_string())),
            Err(_) => Err(refused(format!("its name was not found in {patience:?}"))),
        }
    }

    async fn turn(&mut self) -> Result<Bytes, Gone> {
        loop {
            if self.refused {
                return Err(Gone::Refused);
            }
            let ready = self.socket.ready(Interest::READABLE | Interest::ERROR).await;
            if ready.map_err(|_| Gone::Ended)?.is_error() {
                // What the kernel was told about an earlier packet (ICMP); too long for the path, for
                // one, ends nothing.
                let told = self.socket.take_error().map_err(|_| Gone::Ended)?;
                self.note(told.as_ref());
                // It has been looked at: the next one is an event of its own.
                let _ = self
                    .socket
                    .try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
                continue;
            }
            let got = SCRATCH.with_borrow_mut(|scratch| {
                let got = self.socket.try_recv(scratch);
                got.map(|length| Bytes::copy_from_slice(&scratch[..length]))
            });
            match got {
                Ok(packet) => return Ok(packet),
                Err(error) => self.note(Some(&error)),
            }
        }
    }

    fn give(&mut self, packet: &[u8]) -> Result<(), Lost> {
        let sent = self.socket.try_send(packet);
        sent.map(drop).map_err(|error| {
            self.note(Some(&error));
            Lost
        })
    }

    fn note(&mut self, error: Option<&io::Error>) {
        self.refused |= error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    }
}

/// Takes a packet off the front of what was read from a stream.
fn whole(read: &mut BytesMut) -> Option<Bytes> {
    let length = usize::from(u16::from_be_bytes(*read.first_chunk()?));
    if read.len() < LENGTH + length {
        return None;
    }
    read.advance(LENGTH);
    Some(read.split_to(length).freeze())
}

impl Ends {
    /// The next packet, while what [`Ends::give`] has begun goes on; `None` when there may be one the
    /// next time. Safe to cancel.
    pub(crate) async fn turn(&mut self) -> Result<Option<Bytes>, Gone> {
        match self {
            Self::Program(program) => match &mut program.come {
                Some(come) => match come.recv().await {
                    Some((packet, _room)) => Ok(Some(packet)),
                    None => Err(Gone::Ended),
                },
                None => Err(Gone::Ended),
            },
            Self::Near(near) => near.turn().await.map(Some),
            Self::Far(far) => far.turn().await,
        }
    }

    /// Sends a packet, as far as that can be done without waiting.
    ///
    /// # Errors
    /// [`Lost`] where it cannot.
    pub(crate) fn give(&mut self, packet: Bytes) -> Result<(), Lost> {
        match self {
            Self::Program(program) => {
                let whole = [&program.before[..], &packet].concat();
                let bytes = if program.before.is_empty() { &packet[..] } else { &whole[..] };
                program.socket.try_send_to(bytes, program.peer).map(drop).map_err(|_| Lost)
            }
            Self::Near(near) => near.give(&packet),
            Self::Far(far) => far.give(&packet),
        }
    }

    /// Tells this end that the flow is over, and how its other end has gone.
    pub(crate) fn end(self, other: Option<Gone>) {
        let Self::Far(mut far) = self else { return };
        far.recv.stop(Code::Cancelled);
        if other == Some(Gone::Refused) {
            far.send.reset(Code::ServiceReset);
        } else if far.queue.is_empty() {
            far.send.finish();
        } else {
            // A packet cut off would be none.
            far.send.reset(Code::Cancelled);
        }
    }
}

impl Way for Ends {
    const KIND: OpenKind = OpenKind::Packets;
    // Nobody is asked: only an answer tells.
    const TAKEN_IS_ANSWERED: bool = false;

    async fn near(shared: &Shared, address: &Arc<str>) -> Result<Self, Error> {
        Near::dial(shared, address).await.map(Self::Near)
    }

    fn far(far: splice::Far) -> Self {
        Self::Far(Box::new(Far::new(far.send, far.recv, far.first)))
    }
}

/// A socket that sends to `address` and hears from it alone; `None` where this proxy listens there.
async fn socket(shared: &Shared, address: &str) -> io::Result<Option<UdpSocket>> {
    let found = tokio::net::lookup_host(address).await?.next();
    let at = found.ok_or(io::ErrorKind::NotFound)?;
    if shared.deliver.own_packets.has(at) {
        return Ok(None);
    }
    let any: SocketAddr = match at {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(at).await?;
    // Until it is known that it can be written to, the first packet would be lost.
    socket.writable().await?;
    Ok(Some(socket))
}

/// The next packet at a port, and who sent it.
pub(crate) async fn recv_from(socket: &UdpSocket) -> io::Result<(Bytes, SocketAddr)> {
    loop {
        socket.readable().await?;
        let got = SCRATCH.with_borrow_mut(|scratch| {
            let (length, from) = socket.try_recv_from(scratch)?;
            Ok((Bytes::copy_from_slice(&scratch[..length]), from))
        });
        match got {
            Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
            got => return got,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_on_a_stream_are_told_apart_however_they_come() {
        let mut read = BytesMut::new();
        let mut found = Vec::new();
        for byte in b"\0\x02ab\0\0\0\x01c\0" {
            read.put_u8(*byte);
            found.extend(whole(&mut read));
        }
        assert_eq!(found, ["ab", "", "c"]);
        assert_eq!(whole(&mut read), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_cut_into_packets_of_the_lengths_it_names(bytes: Vec<u8>) {
            let mut read = BytesMut::from(&bytes[..]);
            let mut length = 0;
            while let Some(packet) = whole(&mut read) {
                length += LENGTH + packet.len();
            }
            prop_assert_eq!(length + read.len(), bytes.len());
        }
    }
}

//! The first words of a link: each end shows its grant, and believes nothing before the other's
//! was checked.
//!
//! The control stream is the first that the dialler opens. The dialler speaks first, as it must
//! for the stream to exist at the other end; neither waits for the other's hello to send its own.

use std::sync::Arc;

use bytes::BytesMut;
use proto::frame::{Frame, Hello, MAX_FIRST_FRAME};
use proto::sign::Verify;
use proto::{Credential, Epoch, NetworkId, NodeId, PublicKey, UnixTime};

use crate::close::{Close, Gone};
use crate::identity::Ed25519;
use crate::transport::{Connection, Receiver, Sender};

/// Bytes read at once from a control stream.
pub(crate) const READ: usize = 64 * 1024;

/// The other end, as it has proven itself.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) credential: Arc<Credential>,
}

/// A control stream, with what was read of it beyond the hello.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) send: Sender,
    pub(crate) recv: Receiver,
    pub(crate) rest: BytesMut,
    pub(crate) hello: Hello,
}

/// Speaks first, and reads the answer.
pub(crate) async fn as_dialler(connection: &Connection, ours: Hello) -> Result<Greeted, Gone> {
    let (mut send, recv) = connection.open().await?;
    say(&mut send, ours).await?;
    listen(send, recv).await
}

/// Reads what the dialler says. The caller answers with [`say`] once it has judged it.
pub(crate) async fn as_listener(connection: &Connection) -> Result<Greeted, Gone> {
    let (send, recv) = connection.accept().await?;
    listen(send, recv).await
}

/// Writes a hello.
pub(crate) async fn say(send: &mut Sender, hello: Hello) -> Result<(), Gone> {
    let mut out = BytesMut::new();
    Frame::Hello(Box::new(hello)).encode(&mut out);
    let mut chunks = [out.freeze()];
    let written = std::future::poll_fn(|cx| send.poll_write(cx, &mut chunks)).await;
    written.map_err(lost)
}

async fn listen(send: Sender, mut recv: Receiver) -> Result<Greeted, Gone> {
    let mut rest = BytesMut::new();
    loop {
        match Frame::decode(&mut rest, MAX_FIRST_FRAME) {
            Ok(Some(Frame::Hello(hello))) => {
                return Ok(Greeted { send, recv, rest, hello: *hello });
            }
            Ok(None) => {}
            Ok(Some(
                Frame::Records(_)
                | Frame::Digest(_)
                | Frame::Summary(_)
                | Frame::Want(_)
                | Frame::Bye,
            ))
            | Err(_) => return Err(Gone::Here(Close::Protocol)),
        }
        let chunk = std::future::poll_fn(|cx| recv.poll_read(cx, READ)).await.map_err(lost)?;
        rest.extend_from_slice(&chunk.ok_or(Gone::Here(Close::Protocol))?);
    }
}

fn lost(error: crate::stream::StreamError) -> Gone {
    match error {
        crate::stream::StreamError::Lost(gone) => gone,
        crate::stream::StreamError::Reset(_) | crate::stream::StreamError::Ended => {
            Gone::Here(Close::Protocol)
        }
    }
}

/// Whether a hello makes the holder of `key` a member of `network` at `now`.
///
/// # Errors
/// The reason to close the link with.
pub(crate) fn judge(
    hello: &Hello,
    network: NetworkId,
    key: &PublicKey,
    now: UnixTime,
) -> Result<Peer, Close> {
    judge_with(hello, network, key, now, &Ed25519)
}

fn judge_with(
    hello: &Hello,
    network: NetworkId,
    key: &PublicKey,
    now: UnixTime,
    with: &dyn Verify,
) -> Result<Peer, Close> {
    hello.agreed(proto::PROTOCOL).ok_or(Close::Version)?;
    let credential = hello.credential.as_deref().ok_or(Close::NotAMember)?;
    credential.check(network, key, now, with)?;
    let credential = Arc::new(credential.clone());
    Ok(Peer { node: NodeId::of(key), epoch: hello.epoch, credential })
}

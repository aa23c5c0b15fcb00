//! Networks that fail and come back, between two nodes over real QUIC.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that fails says so"
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Net, SOON, call, exchange, mirror, pattern};
use tokio::net::UdpSocket;
use tunnel::{OpenError, State};

/// Stands between a dialler and a node, and can lose everything or a part.
struct Path {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    /// One packet in so many is lost; 0: none.
    loss: Arc<AtomicU64>,
}

impl Path {
    async fn to(node: SocketAddr) -> Self {
        let (near, far) = (bind().await, bind().await);
        far.connect(node).await.unwrap();
        let path =
            Self { address: near.local_addr().unwrap(), cut: Arc::default(), loss: Arc::default() };
        let (cut, loss) = (Arc::clone(&path.cut), Arc::clone(&path.loss));
        tokio::spawn(async move {
            let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
            let (mut dialler, mut count) = (None, 0_u64);
            loop {
                let (length, there) = tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut out) => {
                        dialler = Some(from);
                        (length, true)
                    }
                    Ok(length) = far.recv(&mut back) => (length, false),
                };
                count = count.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let every = loss.load(Ordering::Relaxed);
                let lost = every > 0 && (count >> 33) % every == 0;
                if cut.load(Ordering::Relaxed) || lost {
                    continue;
                }
                // A full socket loses the packet, as a full queue does.
                let _ = match (there, dialler) {
                    (true, _) => far.try_send(&out[..length]),
                    (false, Some(dialler)) => near.try_send_to(&back[..length], dialler),
                    (false, None) => continue,
                };
            }
        });
        path
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it comes to hold");
}

#[tokio::test]
async fn a_path_that_was_cut_under_load_is_used_again_at_once_and_loses_no_stream() {
    let net = Net::quic();
    let (near, far) = (net.member().await, net.member().await);
    let path = Path::to(far.address).await;
    net.addresses.lock().unwrap().insert(far.id, vec![path.address]);
    tokio::spawn(mirror(far.incoming));
    // A stream that never has less to send than the windows take.
    let mut stream = near.tunnel.open(far.id, &call()).await.unwrap();
    let (mut send, mut recv) = (stream.send, stream.recv);
    let chunk = pattern(64 * 1024);
    let feed = tokio::spawn(async move { while send.write(&mut [chunk.clone()]).await.is_ok() {} });
    stream = near.tunnel.open(far.id, &call()).await.unwrap();
    stream.send.write(&mut [Bytes::from_static(b"here")]).await.unwrap();
    assert_eq!(stream.recv.read(100).await.unwrap().unwrap(), "here");
    for _ in 0..20 {
        recv.read(64 * 1024).await.unwrap().unwrap();
    }

    path.cut(true);
    until(|| near.tunnel.links()[0].state == State::Suspected).await;
    assert_eq!(near.tunnel.open(far.id, &call()).await.map(drop), Err(OpenError::Suspected));
    tokio::time::sleep(Duration::from_secs(8)).await;
    // What was on its way when it was cut.
    while let Ok(read) = tokio::time::timeout(Duration::from_millis(50), recv.read(1 << 20)).await {
        read.unwrap().unwrap();
    }

    path.cut(false);
    let healed = tokio::time::Instant::now();
    recv.read(64 * 1024).await.unwrap().unwrap();
    let took = healed.elapsed();
    // Without probes that pass a full window it waits for the probe timer of QUIC, which has doubled
    // to five seconds or more by now.
    assert!(took < Duration::from_secs(3), "{took:?}");
    until(|| near.tunnel.links()[0].state == State::Live).await;
    // The other stream of before still works, over the same link.
    stream.send.write(&mut [Bytes::from_static(b"still here")]).await.unwrap();
    assert_eq!(stream.recv.read(100).await.unwrap().unwrap(), "still here");
    assert_eq!(near.tunnel.links().len(), 1);
    assert_eq!(near.tunnel.counters().links_up.get(), 1);
    feed.abort();
}

#[tokio::test]
async fn calls_pass_a_path_that_loses_one_packet_in_twenty() {
    let net = Net::quic();
    let (near, far) = (net.member().await, net.member().await);
    let path = Path::to(far.address).await;
    path.loss.store(20, Ordering::Relaxed);
    net.addresses.lock().unwrap().insert(far.id, vec![path.address]);
    tokio::spawn(mirror(far.incoming));
    let payload = pattern(200_000);
    for _ in 0..20 {
        assert_eq!(exchange(&near.tunnel, far.id, payload.clone()).await, payload);
    }
    assert_eq!(near.tunnel.counters().suspected.get(), 0);
}

#[tokio::test]
async fn an_address_that_does_not_answer_does_not_hold_up_one_that_does() {
    let net = Net::quic();
    let (near, far) = (net.member().await, net.member().await);
    let black_hole = bind().await;
    let dead = black_hole.local_addr().unwrap();
    net.addresses.lock().unwrap().insert(far.id, vec![dead, dead, far.address]);
    tokio::spawn(mirror(far.incoming));
    assert_eq!(exchange(&near.tunnel, far.id, pattern(10)).await, pattern(10));
    assert_eq!(near.tunnel.links()[0].remote, far.address);
}

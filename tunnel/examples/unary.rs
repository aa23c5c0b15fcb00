//! temp: cost of unary calls over the tunnel
#[path = "../tests/common/mod.rs"]
mod common;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;
use common::*;

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    let _ = stat;
    let mut total = 0.0;
    for t in std::fs::read_dir("/proc/self/task").unwrap() {
        let s = std::fs::read_to_string(t.unwrap().path().join("schedstat")).unwrap_or_default();
        total += s.split_whitespace().next().and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
    }
    total / 1e9
}

fn rt() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn main() {
    let net = Arc::new(Net::quic());
    let (tx, rx) = std::sync::mpsc::channel();
    let n2 = Arc::clone(&net);
    std::thread::spawn(move || {
        rt().block_on(async move {
            let far = n2.member().await;
            tx.send(far.id).unwrap();
            let mut incoming = far.incoming;
            let body = Bytes::from(vec![1u8; 140]);
            while let Some(mut arrival) = incoming.accept().await {
                let body = body.clone();
                tokio::spawn(async move {
                    while let Ok(Some(_)) = arrival.stream.recv.read(65536).await {}
                    arrival.stream.send.write(&mut [body]).await.unwrap();
                    arrival.stream.send.finish();
                });
            }
        });
    });
    let far = rx.recv().unwrap();
    rt().block_on(async move {
        let near = net.member().await;
        near.tunnel.echo(far, Bytes::from_static(b"x")).await.unwrap();
        for flight in [1usize, 32, 32, 128] {
            let total = 100_000 / if flight == 1 { 5 } else { 1 };
            let began = Instant::now();
            let c0 = cpu();
            let mut tasks = Vec::new();
            for _ in 0..flight {
                let tunnel = near.tunnel.clone();
                let body = Bytes::from(vec![1u8; 200]);
                tasks.push(tokio::spawn(async move {
                    for _ in 0..total / flight {
                        let mut s = tunnel.open(far, &call()).await.unwrap();
                        s.send.write(&mut [body.clone()]).await.unwrap();
                        s.send.finish();
                        while let Some(_) = s.recv.read(65536).await.unwrap() {}
                    }
                }));
            }
            for t in tasks { t.await.unwrap(); }
            let e = began.elapsed();
            let c = cpu() - c0;
            let links = near.tunnel.links();
            println!("flight {flight}: {:.0}/s, cpu {:.2} us/call (both), rtt {:?} loss {}", total as f64 / e.as_secs_f64(), c * 1e6 / total as f64, links[0].rtt, links[0].loss);
        }
    });
}

//! What it costs to find out whose program connects: once a connection, on the data plane's thread.

#![allow(missing_docs, reason = "criterion makes the functions")]

use std::hint::black_box;
use std::net::{TcpListener, TcpStream};

use criterion::{Criterion, criterion_group, criterion_main};
use netd::config::Users;
use netd::owner;

fn admit(c: &mut Criterion) {
    let admit = owner::admit(&Users::These(Vec::new()))
        .expect("this system tells whose connections they are")
        .expect("not everybody is served");
    let mut group = c.benchmark_group("owner");
    for others in [0, 2_000] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback is there");
        let at = listener.local_addr().expect("it is bound");
        let connect = || {
            let near = TcpStream::connect(at).expect("it listens");
            (near, listener.accept().expect("somebody connects").0)
        };
        let crowd: Vec<_> = (0..others).map(|_| connect()).collect();
        let (near, _far) = connect();
        let (peer, local) = (near.local_addr().expect("it is connected"), at);
        group.bench_function(format!("admit, beside {others} connections"), |b| {
            b.iter(|| black_box(admit(black_box(peer), black_box(local))));
        });
        drop(crowd);
    }
    group.finish();
}

criterion_group!(benches, admit);
criterion_main!(benches);

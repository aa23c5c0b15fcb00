//! The codecs on a call's road and on the control stream.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use proto::exchange::{FrameKind, Part, Reader, put_header};
use proto::frame::{Frame, MAX_FRAME};
use proto::open::{Open, OpenKind};
use proto::record::{Body, Record};
use proto::sign::Sign;
use proto::{Epoch, NetworkId, PublicKey, Seq, Signature, Verified, Version};

/// Records in the frame that is read and written.
const RECORDS: u64 = 64;
/// Bytes of the message of a call.
const MESSAGE: usize = 128;

/// Signs nothing: codecs do not look at signatures.
struct Blank;

impl Sign for Blank {
    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes([7; 32])
    }

    fn sign(&self, _: &[u8]) -> Signature {
        Signature::from_bytes([7; 64])
    }
}

fn records() -> Vec<Record> {
    let network = NetworkId::of(&Blank.public_key());
    let one = |number: u64| {
        let name = format!("service-{number}").parse().expect("a service name");
        let version = Version { epoch: Epoch(1), seq: Seq(number) };
        let body = Body::Service(name, Box::default());
        Verified::own(network, &Blank, version, body).record().clone()
    };
    (0..RECORDS).map(one).collect()
}

fn control(c: &mut Criterion) {
    let frame = Frame::Records(records());
    let mut wire = BytesMut::new();
    frame.encode(&mut wire);
    let mut group = c.benchmark_group(format!("frame of {RECORDS} records"));
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("encode", |b| {
        let mut out = BytesMut::with_capacity(2 * wire.len());
        b.iter(|| {
            out.clear();
            black_box(&frame).encode(&mut out);
        });
    });
    group.bench_function("decode", |b| {
        let decode = |mut input: BytesMut| Frame::decode(&mut input, MAX_FRAME);
        b.iter_batched(|| wire.clone(), decode, BatchSize::SmallInput);
    });
    group.finish();
}

fn open() -> Open {
    Open {
        service: Bytes::from_static(b"go.micro.srv.greeter"),
        instance: Bytes::from_static(b"go.micro.srv.greeter-0f1e2d3c"),
        budget: 5_000_000,
        trace: Bytes::from_static(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ..Open::new(OpenKind::Exchange)
    }
}

fn opens(c: &mut Criterion) {
    let open = open();
    let mut wire = BytesMut::new();
    open.encode(&mut wire);
    let wire = wire.freeze();
    let mut group = c.benchmark_group("open");
    group.bench_function("encode", |b| {
        let mut out = BytesMut::with_capacity(2 * wire.len());
        b.iter(|| {
            out.clear();
            black_box(&open).encode(&mut out);
        });
    });
    group.bench_function("take", |b| b.iter(|| Open::take(&mut black_box(&wire).clone())));
    group.finish();
}

/// The frames of a small call: head, one message, trailers.
fn call(out: &mut BytesMut, head: &[u8], message: &[u8]) {
    put_header(out, FrameKind::Head, head.len());
    out.extend_from_slice(head);
    put_header(out, FrameKind::Data, message.len());
    out.extend_from_slice(message);
    put_header(out, FrameKind::Trailers, head.len());
    out.extend_from_slice(head);
}

fn exchange(c: &mut Criterion) {
    let (head, message) = ([1; 64], [2; MESSAGE]);
    let mut wire = BytesMut::new();
    call(&mut wire, &head, &message);
    let wire = wire.freeze();
    let mut group = c.benchmark_group(format!("exchange of {MESSAGE} B"));
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("write", |b| {
        let mut out = BytesMut::with_capacity(2 * wire.len());
        b.iter(|| {
            out.clear();
            call(&mut out, black_box(&head), black_box(&message));
        });
    });
    group.bench_function("read", |b| {
        b.iter(|| {
            let mut reader = Reader::with(black_box(&wire).clone());
            let mut data = 0;
            while let Ok(Some(part)) = reader.next() {
                if let Part::Data(piece) = part {
                    data += piece.len();
                }
            }
            assert_eq!(data, MESSAGE);
        });
    });
    group.finish();
}

criterion_group!(benches, control, opens, exchange);
criterion_main!(benches);

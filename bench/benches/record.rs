//! A record of the network: signed by its origin, and checked by everybody else, with Ed25519.

use std::hint::black_box;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use proto::record::{Body, Endpoint, Instance, Protocol, Record, Service, VersionOf};
use proto::sign::{Sign, Verify};
use proto::{Epoch, LabelSet, NetworkId, PublicKey, Seq, Signature, UnixTime, Verified, Version};

/// What the node itself does, in the same library: `tunnel::identity` adds files and permissions.
struct Key(Ed25519KeyPair);

impl Sign for Key {
    fn public_key(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref();
        PublicKey::from_bytes(bytes.try_into().expect("an Ed25519 key has 32 bytes"))
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.0.sign(message);
        Signature::from_bytes(signature.as_ref().try_into().expect("a signature has 64 bytes"))
    }
}

struct Check;

impl Verify for Check {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, key.as_bytes());
        key.verify(message, signature.as_bytes()).is_ok()
    }
}

/// A service with three endpoints and `instances` instances of four labels.
fn service(instances: usize) -> Body {
    let endpoint = |name: &str| Endpoint { name: name.to_owned(), ..Endpoint::default() };
    let labels: LabelSet =
        [("region", "eu"), ("zone", "eu-1"), ("tier", "gold"), ("build", "1.4.0")]
            .into_iter()
            .collect();
    let instance = |number: usize| Instance {
        id: format!("greeter-{number:08x}"),
        address: format!("10.0.0.{}:5000", number % 250),
        protocol: Protocol::Grpc,
        metadata: labels.clone(),
    };
    let version = VersionOf {
        version: "latest".to_owned(),
        metadata: LabelSet::default(),
        endpoints: ["Say.Hello", "Say.Stream", "Say.Bye"].map(endpoint).to_vec(),
        instances: (0..instances).map(instance).collect(),
    };
    let name = "go.micro.srv.greeter".parse().expect("a service name");
    Body::Service(name, Box::new(Service { versions: vec![version] }))
}

fn records(c: &mut Criterion) {
    let key = Key(Ed25519KeyPair::generate().expect("the system gives randomness"));
    let network = NetworkId::of(&key.public_key());
    let version = Version { epoch: Epoch(1), seq: Seq(1) };
    for instances in [1, 100] {
        let mut group = c.benchmark_group(format!("record of {instances} instances"));
        let body = service(instances);
        group.bench_function("sign", |b| {
            let sign = |body| Verified::own(network, &key, version, body);
            b.iter_batched(|| body.clone(), sign, BatchSize::SmallInput);
        });
        let signed = Verified::own(network, &key, version, body.clone());
        let bytes = signed.record().bytes().clone();
        group.bench_function("decode", |b| b.iter(|| Record::decode(black_box(&bytes).clone())));
        let record = Record::decode(bytes).expect("what was encoded");
        let check = |record| Verified::check(record, network, UnixTime(1), &Check);
        assert_eq!(
            check(record.clone()),
            Ok(signed),
            "what is measured is a record that is believed"
        );
        group.bench_function("verify", |b| {
            b.iter_batched(|| record.clone(), check, BatchSize::SmallInput);
        });
        group.finish();
    }
}

criterion_group!(benches, records);
criterion_main!(benches);

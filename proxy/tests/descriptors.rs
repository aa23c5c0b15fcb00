//! Without file descriptors. Alone in its process, for the limit is the process's.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use common::grpc::Client;
use common::service::Service;
use common::{Place, World};
use proto::record::Protocol;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

#[tokio::test]
async fn accepting_goes_on_once_there_are_descriptors_again() {
    let world = World::new().await;
    let service = Service::start().await;
    world.offer("greeter", Place::Here, service.address, Protocol::Grpc);
    let kept = Client::connect(world.here.address).await;
    assert_eq!(kept.unary("/greeter.Say/Echo", &[], b"1").await.messages, ["1"]);
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit { current: Some(96), maximum: limit.maximum };
    setrlimit(Resource::Nofile, few).unwrap();
    // Clients take descriptors too, so both ends run out.
    let mut held = Vec::new();
    while let Ok(socket) = TcpStream::connect(world.here.address).await {
        held.push(socket);
        assert!(held.len() < 96, "the limit holds");
    }
    // Who is served already does not notice.
    assert_eq!(kept.unary("/greeter.Say/Echo", &[], b"2").await.messages, ["2"]);
    drop(held);
    let fresh = Client::connect(world.here.address).await;
    assert_eq!(fresh.unary("/greeter.Say/Echo", &[], b"3").await.messages, ["3"]);
}

//! Health and reflection, as tools of gRPC use them.

use prost::Message;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::node::Node;

const CHECK: &str = "/grpc.health.v1.Health/Check";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn health_is_that_of_this_node_and_of_services_of_the_network() {
    let node = Node::start().await;
    let client = node.client().await;
    node.desk.remote(2, "greeter", "a", Some(10));
    node.desk.remote(2, "mail", "b", None);
    for (service, status) in [
        ("", ServingStatus::Serving),
        ("go.micro.registry", ServingStatus::Serving),
        ("go.micro.registry.Registry", ServingStatus::Serving),
        ("greeter", ServingStatus::Serving),
        ("mail", ServingStatus::NotServing),
    ] {
        let found: HealthCheckResponse = client.unary(CHECK, of(service)).await.unwrap();
        assert_eq!(found.status(), status, "{service}");
    }
    let end = client.unary::<HealthCheckResponse>(CHECK, of("nope")).await.unwrap_err();
    assert_eq!(end["grpc-status"], "5");
    let json = client.json(CHECK, &serde_json::json!({})).await.unwrap();
    assert_eq!(json, serde_json::json!({"status": "SERVING"}));
}

#[tokio::test]
async fn who_watches_health_is_told_of_a_drain_and_of_services() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut this = client.open("/grpc.health.v1.Health/Watch", &[]).await;
    this.send(b"");
    let mut greeter = client.open("/grpc.health.v1.Health/Watch", &[]).await;
    greeter.send(&of("greeter").encode_to_vec());
    assert_eq!(this.next::<HealthCheckResponse>().await.status(), ServingStatus::Serving);
    let first = greeter.next::<HealthCheckResponse>().await;
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    node.desk.remote(2, "greeter", "a", Some(10));
    assert_eq!(greeter.next::<HealthCheckResponse>().await.status(), ServingStatus::Serving);
    node.own.drain();
    assert_eq!(this.next::<HealthCheckResponse>().await.status(), ServingStatus::NotServing);
    assert_eq!(this.end().await["grpc-status"], "0", "a stream without end would hold up leaving");
}

#[tokio::test]
async fn reflection_lists_our_services_and_shows_their_files_on_one_open_stream() {
    let node = Node::start().await;
    let client = node.client().await;
    // The two versions differ in nothing but the name.
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let mut call = client.open(&path, &[("content-type", "application/grpc")]).await;
        let ask = |request| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(request),
        };
        call.send(&ask(MessageRequest::ListServices("*".into())).encode_to_vec());
        let answer: ServerReflectionResponse = call.next().await;
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("not a list: {answer:?}")
        };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        for name in [
            "go.micro.registry.Registry",
            "go.micro.network.Network",
            "go.micro.router.Router",
            "go.micro.router.Table",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ] {
            assert!(names.contains(&name), "{name} is not in {names:?}");
        }
        // The stream is still open: a tool asks one thing after another.
        let symbol = "go.micro.registry.Registry.Watch".to_owned();
        call.send(&ask(MessageRequest::FileContainingSymbol(symbol)).encode_to_vec());
        let answer: ServerReflectionResponse = call.next().await;
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
            panic!("not a file: {answer:?}")
        };
        let file = &files.file_descriptor_proto[0][..];
        let file = prost_types::FileDescriptorProto::decode(file).unwrap();
        let watch = file.service[0].method.iter().find(|method| method.name() == "Watch");
        assert!(watch.unwrap().server_streaming());
        call.half_close();
        assert_eq!(call.end().await["grpc-status"], "0");
    }
}

//! `go.micro.registry`: what programs register, and what others read of it.

use proto::micro::registry as pb;
use proxy::RegistrarError;
use serde_json::json;

use crate::client::micro_error;
use crate::node::Node;

const GET: &str = "/go.micro.registry.Registry/GetService";
const REGISTER: &str = "/go.micro.registry.Registry/Register";
const DEREGISTER: &str = "/go.micro.registry.Registry/Deregister";
const LIST: &str = "/go.micro.registry.Registry/ListServices";

fn greeter(version: &str, instance: &str) -> pb::Service {
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let field = pb::Value { name: "name".into(), r#type: "string".into(), values: Vec::new() };
    pb::Service {
        name: "go.micro.srv.greeter".into(),
        version: version.into(),
        metadata: pairs(&[("team", "hello")]),
        endpoints: vec![pb::Endpoint {
            name: "Say.Hello".into(),
            request: Some(pb::Value {
                name: "HelloRequest".into(),
                r#type: "HelloRequest".into(),
                values: vec![field],
            }),
            response: None,
            metadata: pairs(&[("stream", "true")]),
        }],
        nodes: vec![pb::Node {
            id: instance.into(),
            address: "10.0.0.7:4000".into(),
            port: 0,
            metadata: pairs(&[("protocol", "grpc"), ("server", "grpc"), ("zone", "a")]),
        }],
        options: Some(pb::Options { ttl: 60, ..Default::default() }),
    }
}

fn get(service: &str) -> pb::GetRequest {
    pb::GetRequest { service: service.into(), ..Default::default() }
}

#[tokio::test]
async fn what_is_registered_is_read_back_whole() {
    let node = Node::start().await;
    let client = node.client().await;
    let registered = greeter("v2", "greeter-1");
    let _: pb::EmptyResponse = client.unary(REGISTER, registered.clone()).await.unwrap();
    let found: pb::GetResponse = client.unary(GET, get("go.micro.srv.greeter")).await.unwrap();
    assert_eq!(found.services, [pb::Service { options: None, ..registered }]);
}

#[tokio::test]
async fn versions_live_side_by_side_and_the_list_names_them() {
    let node = Node::start().await;
    let client = node.client().await;
    for (version, instance) in [("v1", "a"), ("v2", "b"), ("v2", "c")] {
        let service = greeter(version, instance);
        let _: pb::EmptyResponse = client.unary(REGISTER, service).await.unwrap();
    }
    let found: pb::GetResponse = client.unary(GET, get("go.micro.srv.greeter")).await.unwrap();
    let shape: Vec<_> =
        found.services.iter().map(|of| (of.version.as_str(), of.nodes.len())).collect();
    assert_eq!(shape, [("v1", 1), ("v2", 2)]);
    let list: pb::ListResponse = client.unary(LIST, pb::ListRequest::default()).await.unwrap();
    let names: Vec<_> =
        list.services.iter().map(|of| (of.name.as_str(), of.version.as_str())).collect();
    assert_eq!(names, [("go.micro.srv.greeter", "v1"), ("go.micro.srv.greeter", "v2")]);
}

#[tokio::test]
async fn json_is_read_and_written_with_numbers_as_text_or_not() {
    let node = Node::start().await;
    let client = node.client().await;
    for ttl in [json!("60"), json!(60)] {
        let answer = client
            .json(
                REGISTER,
                &json!({
                    "name": "greeter", "version": "latest", "options": {"ttl": ttl},
                    "nodes": [{"id": "g-1", "address": "10.0.0.7:4000", "port": "0"}],
                    "a_field_of_a_newer_client": true,
                }),
            )
            .await
            .unwrap();
        assert_eq!(answer, json!({}));
    }
    let found = client.json(GET, &json!({"service": "greeter"})).await.unwrap();
    assert_eq!(
        found,
        json!({"services": [{
            "name": "greeter", "version": "latest",
            "nodes": [{
                "id": "g-1", "address": "10.0.0.7:4000", "metadata": {"protocol": "grpc"},
            }],
        }]})
    );
}

#[tokio::test]
async fn an_unknown_service_is_a_micro_404_in_one_block_of_headers() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = client.open(GET, &[]).await;
    call.send(b"\x0a\x04nope");
    let end = call.only().await.unwrap_err();
    assert_eq!((call.status, end["grpc-status"].to_str().unwrap()), (200, "5"));
    assert_eq!(end, call.headers, "trailers only");
    assert_eq!(end["micro-node"], "laptop");
    assert!(end.contains_key("grpc-status-details-bin"));
    assert_eq!(
        micro_error(&end),
        json!({"id": "go.micro.registry", "code": 404, "detail": "service nope: not found",
               "status": "Not Found"})
    );
}

#[tokio::test]
async fn instances_of_other_nodes_show_their_own_address_unless_out_of_reach() {
    let node = Node::start().await;
    let client = node.client().await;
    node.desk.remote(2, "greeter", "near", Some(20_000));
    node.desk.remote(3, "greeter", "lost", None);
    let found: pb::GetResponse = client.unary(GET, get("greeter")).await.unwrap();
    let nodes = &found.services[0].nodes;
    assert_eq!((nodes.len(), nodes[0].address.as_str()), (1, "10.9.0.7:4000"));
    node.desk.gone(2, "greeter", "near");
    let end = client.unary::<pb::GetResponse>(GET, get("greeter")).await.unwrap_err();
    assert_eq!(micro_error(&end)["detail"], "service greeter: no instance can be reached now");
}

#[tokio::test]
async fn deregistering_takes_away_and_again_is_as_good() {
    let node = Node::start().await;
    let client = node.client().await;
    for instance in ["a", "b"] {
        let service = greeter("v1", instance);
        let _: pb::EmptyResponse = client.unary(REGISTER, service).await.unwrap();
    }
    let away = pb::Service { options: Some(pb::Options::default()), ..greeter("v1", "a") };
    for _ in 0..2 {
        let _: pb::EmptyResponse = client.unary(DEREGISTER, away.clone()).await.unwrap();
    }
    let found: pb::GetResponse = client.unary(GET, get("go.micro.srv.greeter")).await.unwrap();
    assert_eq!(found.services[0].nodes[0].id, "b");
    let all = pb::Service { nodes: Vec::new(), ..away };
    let _: pb::EmptyResponse = client.unary(DEREGISTER, all).await.unwrap();
    let end = client.unary::<pb::GetResponse>(GET, get("go.micro.srv.greeter")).await.unwrap_err();
    assert_eq!(end["grpc-status"], "5");
}

#[tokio::test]
async fn a_namespace_holds_its_own_and_sees_the_default_one() {
    let node = Node::start().await;
    let client = node.client().await;
    let pay = [("micro-namespace", "pay")];
    let with = |name: &str, id: &str| pb::Service { name: name.into(), ..greeter("v1", id) };
    let _: pb::EmptyResponse =
        client.unary_with(REGISTER, &pay, with("orders", "o-1")).await.unwrap();
    let common = [("micro-namespace", "go.micro")];
    let _: pb::EmptyResponse =
        client.unary_with(REGISTER, &common, with("mail", "m-1")).await.unwrap();

    let seen: pb::ListResponse =
        client.unary_with(LIST, &pay, pb::ListRequest::default()).await.unwrap();
    let seen: Vec<_> = seen.services.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(seen, ["mail", "orders"]);
    let seen: pb::ListResponse = client.unary(LIST, pb::ListRequest::default()).await.unwrap();
    let seen: Vec<_> = seen.services.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(seen, ["mail"]);
    let found: pb::GetResponse = client.unary_with(GET, &pay, get("mail")).await.unwrap();
    assert_eq!(found.services[0].nodes[0].id, "m-1");
    assert!(client.unary::<pb::GetResponse>(GET, get("orders")).await.is_err());
    assert!(client.unary::<pb::GetResponse>(GET, get("pay/orders")).await.is_err());
}

#[tokio::test]
async fn a_refusal_of_the_router_reaches_the_program_in_its_words() {
    let node = Node::start().await;
    let client = node.client().await;
    for (error, code, status) in [
        (RegistrarError::Refused("the grant does not cover it".into()), 403, "7"),
        (RegistrarError::Unavailable, 503, "14"),
    ] {
        *node.desk.refuse.lock() = Some(error.clone());
        let end = client.unary::<pb::EmptyResponse>(REGISTER, greeter("v1", "a")).await;
        let end = end.unwrap_err();
        assert_eq!(end["grpc-status"], status);
        let said = micro_error(&end);
        assert_eq!((&said["code"], &said["detail"]), (&json!(code), &json!(error.to_string())));
    }
}

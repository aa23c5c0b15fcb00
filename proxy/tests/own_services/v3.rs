//! What micro v3 calls under names of its own: registry, router, network, accounts, topics; and what is left to
//! services that have such names.

use proto::micro::{auth, broker, registry as pb, router_v3 as v3, store};

use crate::client::{Client, micro_error};
use crate::node::{Node, registration};

async fn register(client: &Client, domain: &str) {
    let options = pb::Options { ttl: 60, domain: domain.into() };
    let node = pb::Node { id: "h-1".into(), address: "10.0.0.7:1".into(), ..Default::default() };
    let service = pb::Service {
        name: "hello".into(),
        version: "v3".into(),
        nodes: vec![node],
        options: Some(options),
        ..Default::default()
    };
    let _: pb::EmptyResponse = client.unary("/registry.Registry/Register", service).await.unwrap();
}

fn get(service: &str, domain: &str) -> pb::GetRequest {
    let options = Some(pb::Options { domain: domain.into(), ..Default::default() });
    pb::GetRequest { service: service.into(), options }
}

const GET: &str = "/registry.Registry/GetService";

#[tokio::test]
async fn the_registry_answers_by_its_name_of_v3_and_by_domain() {
    let node = Node::start().await;
    let client = node.client().await;
    register(&client, "micro").await;
    let found: pb::GetResponse = client.unary(GET, get("hello", "")).await.unwrap();
    assert_eq!(found.services[0].nodes[0].id, "h-1");
    register(&client, "pay").await;
    assert!(node.desk.routes.load().service("pay/hello").is_some());
    let all: pb::ListResponse =
        client.unary("/registry.Registry/ListServices", pb::ListRequest::default()).await.unwrap();
    assert_eq!(all.services.len(), 1, "a caller sees its own namespace and the default one");
    let missing = client.unary::<pb::GetResponse>(GET, get("none", "micro")).await.unwrap_err();
    let error = micro_error(&missing);
    assert_eq!(
        (&error["id"], &error["code"]),
        (&"registry.Registry.GetService".into(), &404.into())
    );
    let bad = client.unary::<pb::GetResponse>(GET, get("hello", "a/b")).await.unwrap_err();
    assert_eq!(micro_error(&bad)["code"], 400);
    let mut watch = client.open("/registry.Registry/Watch", &[]).await;
    watch.send(&prost::Message::encode_to_vec(&pb::WatchRequest::default()));
    watch.head().await;
    node.desk.remote(2, "news", "n-1", Some(10));
    let told: pb::Result = watch.next().await;
    assert_eq!((told.action.as_str(), told.service.unwrap().name.as_str()), ("create", "news"));
}

#[tokio::test]
async fn a_message_of_v3_is_heard_under_the_names_of_v2_and_v3() {
    let node = Node::start().await;
    let client = node.client().await;
    let ask = broker::SubscribeRequest { topic: "orders.*".into(), queue: String::new() };
    let mut heard = Vec::new();
    for path in ["/broker.Broker/Subscribe", "/go.micro.broker.Broker/Subscribe"] {
        let mut stream = client.open(path, &[]).await;
        stream.send(&prost::Message::encode_to_vec(&ask));
        stream.head().await;
        heard.push(stream);
    }
    let header = [("X-lower-Case".to_owned(), "kept".to_owned())].into();
    let message = Some(broker::Message { header, body: "hi".into() });
    let ask = broker::PublishRequest { topic: "orders.created".into(), message: message.clone() };
    const PUBLISH: &str = "/broker.Broker/Publish";
    let _: broker::Empty = client.unary(PUBLISH, ask).await.unwrap();
    for stream in &mut heard {
        assert_eq!(Some(stream.next::<broker::Message>().await), message);
    }
    for (topic, message) in [("", message), ("orders.created", None)] {
        let ask = broker::PublishRequest { topic: topic.into(), message };
        let refused = client.unary::<broker::Empty>(PUBLISH, ask).await.unwrap_err();
        let error = micro_error(&refused);
        assert_eq!(
            (&error["id"], &error["code"]),
            (&"broker.Broker.Publish".into(), &400.into()),
            "{topic}"
        );
    }
}

#[tokio::test]
async fn the_router_is_asked_in_words_of_v3_and_tells_metadata() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut far = registration("shop", "v1", "s-1", "10.9.0.7:4000");
    far.instance.metadata = [("zone", "b")].into_iter().collect();
    node.desk.put(crate::node::id(2), far, Some(proto::Cost::from_micros(7)));
    let ask = |service: &str, link: &str| v3::LookupRequest {
        service: service.into(),
        options: Some(v3::LookupOptions { link: link.into(), ..Default::default() }),
    };
    let lookup = "/router.Router/Lookup";
    let found: v3::LookupResponse = client.unary(lookup, ask("shop", "")).await.unwrap();
    assert_eq!((found.routes[0].metric, found.routes[0].metadata["zone"].as_str()), (7, "b"));
    let local: v3::LookupResponse = client.unary(lookup, ask("shop", "local")).await.unwrap();
    assert!(local.routes.is_empty());
    let all: v3::ReadResponse =
        client.unary("/router.Table/Read", v3::ReadRequest::default()).await.unwrap();
    assert_eq!(all.routes.len(), 1);
    let status = client.json("/network.Network/Services", &serde_json::json!({})).await.unwrap();
    assert_eq!(status["services"][0], "shop");
}

#[tokio::test]
async fn a_service_of_v3_starts_with_an_account_and_a_token_and_is_known_by_it() {
    let node = Node::start().await;
    let client = node.client().await;
    for name in ["auth", "go.micro.auth"] {
        let path = |method: &str| -> String { format!("/{name}.{method}") };
        let ask = auth::GenerateRequest {
            id: "b2c7".into(),
            r#type: "service".into(),
            scopes: vec!["service".into()],
            ..Default::default()
        };
        let made: auth::GenerateResponse = client.unary(&path("Auth/Generate"), ask).await.unwrap();
        let account = made.account.unwrap();
        let ask = auth::TokenRequest {
            id: account.id,
            secret: account.secret,
            token_expiry: 600,
            ..Default::default()
        };
        let token: auth::TokenResponse = client.unary(&path("Auth/Token"), ask).await.unwrap();
        let token = token.token.unwrap();
        assert_eq!(token.expiry - token.created, 600);
        let ask = auth::InspectRequest { token: token.access_token, ..Default::default() };
        let known: auth::InspectResponse = client.unary(&path("Auth/Inspect"), ask).await.unwrap();
        assert_eq!(known.account.unwrap().id, "b2c7");
        let rules: auth::ListResponse =
            client.unary(&path("Rules/List"), auth::ListRequest::default()).await.unwrap();
        assert_eq!(rules.rules[0].access(), auth::Access::Granted);
        let ask = auth::InspectRequest { token: token.refresh_token, ..Default::default() };
        let refused = client.unary::<auth::InspectResponse>(&path("Auth/Inspect"), ask).await;
        let error = micro_error(&refused.unwrap_err());
        assert_eq!(
            (&error["code"], &error["detail"]),
            (&400.into(), &"invalid token provided".into())
        );
        let create = auth::CreateRequest::default();
        let refused = client.unary::<auth::CreateResponse>(&path("Rules/Create"), create).await;
        assert_eq!(micro_error(&refused.unwrap_err())["code"], 501);
    }
}

#[tokio::test]
async fn without_a_store_a_node_says_so_and_other_methods_of_such_a_name_are_not_its_own() {
    let node = Node::start().await;
    let client = node.client().await;
    let refused =
        client.unary::<store::ReadResponse>("/store.Store/Read", store::ReadRequest::default());
    let error = micro_error(&refused.await.unwrap_err());
    assert_eq!((&error["id"], &error["code"]), (&"store.Store.Read".into(), &503.into()));
    for path in ["/store.Store/Get", "/auth.Users/List", "/registry.Other/GetService"] {
        let end = client.unary::<store::ReadResponse>(path, store::ReadRequest::default()).await;
        // Nobody offers such a service: carried like any call, it comes back as one that is unknown.
        assert!(end.unwrap_err().contains_key("micro-error"), "{path}");
    }
}

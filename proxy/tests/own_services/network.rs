//! `go.micro.network` and the table of `go.micro.router`, from one snapshot.

use proto::micro::{network as pb, router};
use serde_json::json;

use crate::client::micro_error;
use crate::node::{Node, id};

async fn a_line_of_five() -> Node {
    let node = Node::start().await;
    let links = [(1, 2, 10), (2, 3, 10), (3, 4, 10), (4, 5, 10)];
    node.desk.link(&[1, 2, 3, 4, 5], &links);
    node.desk.remote(2, "greeter", "a", Some(10_000));
    node.desk.remote(3, "greeter", "b", Some(20_000));
    node.desk.remote(3, "mail", "c", None);
    node
}

#[tokio::test]
async fn the_graph_is_as_deep_as_asked_within_one_to_three() {
    let node = a_line_of_five().await;
    let client = node.client().await;
    for (depth, nodes) in [(0, 2), (1, 2), (2, 3), (3, 4), (100, 4)] {
        let request = pb::NodesRequest { depth };
        let found: pb::NodesResponse =
            client.unary("/go.micro.network.Network/Nodes", request).await.unwrap();
        assert_eq!(found.nodes.len(), nodes, "depth {depth}");
        assert_eq!(found.nodes[0].id, id(1).to_string(), "this node comes first");
        assert_eq!(found.nodes[1].address, "10.0.0.2:8085");
    }
    let request = pb::GraphRequest { depth: 3 };
    let graph: pb::GraphResponse =
        client.unary("/go.micro.network.Network/Graph", request).await.unwrap();
    let mut peer = graph.root.unwrap();
    for n in 1..=4 {
        assert_eq!(peer.node.as_ref().unwrap().id, id(n).to_string());
        peer = peer.peers.pop().unwrap_or_default();
    }
    assert_eq!(peer, pb::Peer::default(), "no node is shown twice");
}

#[tokio::test]
async fn a_node_behind_two_ways_is_shown_once_where_it_is_nearest() {
    let node = Node::start().await;
    node.desk.link(&[1, 2, 3, 4], &[(1, 2, 50), (1, 3, 10), (2, 4, 1), (3, 4, 1), (2, 3, 1)]);
    let request = pb::GraphRequest { depth: 3 };
    let client = node.client().await;
    let graph: pb::GraphResponse =
        client.unary("/go.micro.network.Network/Graph", request).await.unwrap();
    let root = graph.root.unwrap();
    let ids: Vec<_> =
        root.peers.iter().map(|peer| peer.node.as_ref().unwrap().id.clone()).collect();
    assert_eq!(ids, [id(3).to_string(), id(2).to_string()], "nearest first");
    assert_eq!((root.peers[0].peers.len(), root.peers[1].peers.len()), (1, 0));
}

#[tokio::test]
async fn services_and_status_are_told() {
    let node = a_line_of_five().await;
    let client = node.client().await;
    let path = "/go.micro.network.Network/Services";
    let services: pb::ServicesResponse = client.unary(path, pb::ServicesRequest {}).await.unwrap();
    assert_eq!(services.services, ["greeter", "mail"]);
    let path = "/go.micro.network.Network/Status";
    let status = client.json(path, &json!({})).await.unwrap();
    assert_eq!(status, json!({"status": {"error": {}}}));
}

#[tokio::test]
async fn routes_are_those_of_the_query_with_empty_and_star_as_any() {
    let node = a_line_of_five().await;
    let client = node.client().await;
    let (second, third) = (id(2).to_string(), id(3).to_string());
    for (query, count) in [
        (json!({}), 3),
        (json!({"service": "*", "address": "*", "gateway": "*", "router": "*", "network": "*"}), 3),
        (json!({"service": "greeter"}), 2),
        (json!({"service": "nope"}), 0),
        (json!({"service": "no name at all"}), 0),
        (json!({"router": third}), 2),
        (json!({"router": third, "service": "greeter"}), 1),
        (json!({"gateway": second}), 3),
        (json!({"gateway": third}), 0),
        (json!({"network": "test", "address": "10.9.0.7:4000"}), 3),
        (json!({"network": "other"}), 0),
    ] {
        let path = "/go.micro.network.Network/Routes";
        let found = client.json(path, &json!({"query": query})).await.unwrap();
        let found = found.get("routes").map_or(0, |routes| routes.as_array().unwrap().len());
        assert_eq!(found, count, "{query}");
    }
}

#[tokio::test]
async fn lookup_and_query_say_what_a_route_costs() {
    let node = a_line_of_five().await;
    let client = node.client().await;
    let query = || Some(router::Query { service: "greeter".into(), ..Default::default() });
    let request = router::LookupRequest { query: query() };
    let looked: router::LookupResponse =
        client.unary("/go.micro.router.Router/Lookup", request).await.unwrap();
    let request = router::QueryRequest { query: query() };
    let queried: router::QueryResponse =
        client.unary("/go.micro.router.Table/Query", request).await.unwrap();
    assert_eq!(looked.routes, queried.routes);
    let costs: Vec<_> = looked.routes.iter().map(|route| route.metric).collect();
    assert_eq!(costs, [10_000, 20_000], "nearest first, in microseconds");
    assert_eq!(
        (looked.routes[1].link.as_str(), &looked.routes[1].gateway),
        ("network", &id(2).to_string())
    );

    let path = "/go.micro.router.Table/List";
    let all = client.json(path, &json!({})).await.unwrap();
    let mail = all["routes"].as_array().unwrap().iter().find(|route| route["service"] == "mail");
    assert_eq!(mail.unwrap()["metric"], i64::MAX.to_string(), "out of reach, and a number as text");
}

#[tokio::test]
async fn connect_hands_addresses_on_and_ignores_ids() {
    let node = Node::start().await;
    let client = node.client().await;
    let path = "/go.micro.network.Network/Connect";
    let with = |address: &str| pb::Node { address: address.into(), ..Default::default() };
    let request = pb::ConnectRequest { nodes: vec![with("eu.example:8085"), with("10.0.0.2")] };
    let _: pb::ConnectResponse = client.unary(path, request).await.unwrap();
    assert_eq!(*node.desk.connected.lock(), ["eu.example:8085", "10.0.0.2"]);
    for nodes in [vec![], vec![with("")], vec![with("h"); 65], vec![with(&"h".repeat(300))]] {
        let request = pb::ConnectRequest { nodes };
        let end = client.unary::<pb::ConnectResponse>(path, request).await.unwrap_err();
        assert_eq!(micro_error(&end)["code"], 400);
    }
}

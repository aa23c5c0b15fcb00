//! grpcio (Python) and grpc-js clients against a grpcio service: directly, through one node, and through two.

use serde_json::Value;
use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
use tests::process::Ran;
use tests::programs::{self, PROBE};

const PORT: u16 = 19600;

type Client = fn(&Lab, Host, &str, &[&str]) -> Ran;

/// Runs every case and names those that failed.
fn all_pass(
    client: Client,
    lab: &Lab,
    from: Host,
    address: &str,
    cases: &[&str],
    how: &str,
) -> usize {
    let ran = client(lab, from, address, cases);
    let report: Value =
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{how}: {error}\n{ran:?}"));
    let cases = report.as_object().expect("the client prints one object");
    let bad: Vec<_> = cases.iter().filter(|(_, told)| *told != "ok").collect();
    assert!(bad.is_empty() && ran.code == Some(0), "{how}: {bad:#?}");
    cases.len()
}

fn directly_and_through_nodes(client: Client, least: usize) {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let _service = programs::grpcio_server(&lab, Host::Us, PORT);
    let direct = all_pass(
        client,
        &lab,
        Host::Us,
        &format!("127.0.0.1:{PORT}"),
        &["--direct", "all"],
        "directly",
    );
    assert!(direct >= least, "only {direct} cases ran");

    let network = Network::up(&lab, &micro);
    network.us.expose(PROBE, PORT, "grpc");
    network.laptop.wait_service(PROBE);
    let one = all_pass(client, &lab, Host::Us, PROXY, &["all"], "through one node");
    let two = all_pass(client, &lab, Host::Laptop, PROXY, &["all"], "through two nodes");
    assert_eq!(
        (one, two),
        (direct + 1, direct + 1),
        "the network adds the case of the unknown service"
    );
}

#[test]
fn every_grpcio_case_passes_directly_through_one_node_and_through_two() {
    if programs::have_built(&["venv/bin/python"]) {
        directly_and_through_nodes(programs::grpcio_client, 15);
    }
}

#[test]
fn every_grpc_js_case_passes_directly_through_one_node_and_through_two() {
    if programs::have(&["node"]) && programs::have_built(&["venv/bin/python", "node/node_modules"])
    {
        directly_and_through_nodes(programs::grpc_js_client, 13);
    }
}

//! The gRPC project's own interop client and server, as Debian packages them in `ruby-grpc`.

use std::path::Path;

use tests::lab::{Host, Lab};
use tests::node::Network;
use tests::process::{self, PATIENCE, Process};
use tests::programs::{self, GRPC_TESTING};

const PORT: u16 = 19700;

/// The cases that this server and client pass with nothing between them.
const CASES: [&str; 13] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "unimplemented_method",
    "unimplemented_service",
    "status_code_and_message",
    "custom_metadata",
];

fn failures(lab: &Lab, programs: &Path, from: Host, port: u16) -> Vec<String> {
    let run = |case: &&str| {
        let mut client = lab.command(from, "ruby");
        client.arg(programs.join("client.rb")).args([
            "--server_host",
            "127.0.0.1",
            "--server_port",
        ]);
        client.arg(port.to_string()).args(["--test_case", case]);
        let ran = process::run(&mut client, b"", PATIENCE);
        let passed = ran.code == Some(0) && ran.out.contains(&format!("OK: {case}"));
        (!passed).then(|| format!("{case}: exit {:?}\n{}\n{}", ran.code, ran.out, ran.err))
    };
    CASES.iter().filter_map(run).collect()
}

#[test]
fn the_thirteen_interop_cases_pass_directly_through_one_node_and_through_two() {
    let Some(programs) = programs::ruby_interop() else { return };
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let mut server = lab.command(Host::Us, "ruby");
    server.arg(programs.join("server.rb")).args(["--port", &PORT.to_string()]);
    let _server = Process::start("ruby interop server", &mut server);
    lab.wait_port(Host::Us, &format!("127.0.0.1:{PORT}"));
    assert_eq!(failures(&lab, &programs, Host::Us, PORT), [""; 0], "directly");

    let network = Network::up(&lab, &micro);
    network.us.expose(GRPC_TESTING, PORT, "grpc");
    network.laptop.wait_service(GRPC_TESTING);
    assert_eq!(failures(&lab, &programs, Host::Us, 8081), [""; 0], "through one node");
    assert_eq!(failures(&lab, &programs, Host::Laptop, 8081), [""; 0], "through two nodes");
}

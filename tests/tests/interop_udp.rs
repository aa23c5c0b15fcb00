//! Programs that speak over UDP and know nothing of this network: dig and a DNS server of another region, and a flood
//! of packets that is said back.

use tests::lab::{Host, Lab};
use tests::node::Network;
use tests::process::{self, PATIENCE, Process};
use tests::programs;

const DNS: u16 = 19853;
const ECHO: u16 = 19854;
const HERE: u16 = 19753;

/// Says each packet back.
const ECHO_PROGRAM: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.bind(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    packet, peer = s.recvfrom(65535)
    s.sendto(packet, peer)
"#;

/// Sends 30 000 packets, 10 000 a second, of 64 to 1400 bytes; counts what comes back, and how often.
const FLOOD_PROGRAM: &str = r#"
import socket, struct, sys, time, json
COUNT, RATE = 30000, 10000
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.connect(("127.0.0.1", int(sys.argv[1])))
s.settimeout(5)
s.send(b"first"); s.recv(65535)
s.setblocking(False)
seen, wrong, sent, began = [0] * COUNT, 0, 0, time.monotonic()
last = began
while sent < COUNT or time.monotonic() < last + 1:
    due = min(COUNT, int((time.monotonic() - began) * RATE))
    while sent < due:
        s.send(struct.pack("!I", sent).ljust(64 + sent * 7 % 1337, b"."))
        sent += 1
    try:
        while True:
            packet = s.recv(65535)
            last = time.monotonic()
            number = struct.unpack("!I", packet[:4])[0]
            if len(packet) != 64 + number * 7 % 1337: wrong += 1
            seen[number] += 1
    except BlockingIOError:
        time.sleep(0.0005)
print(json.dumps({"back": sum(1 for n in seen if n), "twice": sum(1 for n in seen if n > 1), "wrong": wrong,
                  "seconds": round(last - began, 2)}))
"#;

fn forward(lab: &Lab, network: &Network<'_>, words: &[&str]) -> Process {
    let mut command = network.laptop.command();
    command.arg("forward").args(words);
    let forward = Process::start("micro forward", &mut command);
    forward.wait_line(0, "it forwards", PATIENCE, |line| line.starts_with("forwarding"));
    let _ = lab;
    forward
}

#[test]
fn dig_asks_a_server_of_another_region_and_another_one_when_it_is_gone() {
    if !programs::have(&["dig", "dnsmasq"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let network = Network::up(&lab, &micro);
    let serve = |host: Host| {
        let mut command = lab.command(host, "dnsmasq");
        command
            .args(["--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=root"])
            .args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1"])
            .args(["--edns-packet-max=4096", &format!("--port={DNS}")])
            .arg(format!("--host-record=www.lab.example,{}", host.v4()))
            .arg(format!("--txt-record=long.lab.example,{}", vec!["x".repeat(250); 8].join(",")));
        let server = Process::start("dnsmasq", &mut command);
        server.wait_line(0, "it listens", PATIENCE, |line| line.contains("started, version"));
        server
    };
    let mut of_us = serve(Host::Us);
    network.us.expose("dns", DNS, "udp");
    network.laptop.wait_service("dns");
    let _forward = forward(&lab, &network, &["dns", &HERE.to_string()]);
    let dig = |words: &[&str]| {
        let base = ["@127.0.0.1", "-p", &HERE.to_string(), "+time=1", "+tries=10"];
        lab.exec(Host::Laptop, "dig", &[&base, words].concat()).ok("dig")
    };
    // Tries that were lost are told before the answer.
    let address =
        || dig(&["+short", "www.lab.example"]).lines().last().unwrap_or_default().trim().to_owned();
    assert_eq!(address(), Host::Us.v4().to_string());
    // Longer than any datagram of a link.
    let long = dig(&["long.lab.example", "TXT", "+bufsize=4096", "+ignore"]);
    assert!(long.contains("MSG SIZE  rcvd: 2") && !long.contains("flags: qr aa tc"), "{long}");

    // By name as well, at the address that it has here.
    let named = ["@127.0.0.1", "-p", "8053", "+short", "dns.micro.internal"];
    let of_name = lab.exec(Host::Laptop, "dig", &named).ok("dig the name");
    let (at, port) = (format!("@{}", of_name.trim()), DNS.to_string());
    let by_name = [&*at, "-p", &port, "+time=1", "+tries=10", "+short", "www.lab.example"];
    let said = lab.exec(Host::Laptop, "dig", &by_name).ok("dig at the address of the name");
    assert_eq!(said.lines().last().unwrap_or_default().trim(), Host::Us.v4().to_string());

    let _of_eu = serve(Host::Eu);
    network.eu.expose("dns", DNS, "udp");
    network.laptop.wait_instances("dns", 2);
    of_us.kill9();
    assert_eq!(address(), Host::Eu.v4().to_string());
    let described = network.laptop.cli(&["describe", "dns"]).ok("describe");
    assert!(described.contains("udp"), "{described}");
}

#[test]
fn a_flood_of_packets_comes_back_none_of_them_twice() {
    if !programs::have(&["python3"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let network = Network::up(&lab, &micro);
    let python = |host: Host, program: &str, port: u16| {
        let mut command = lab.command(host, "python3");
        command.args(["-c", program, &port.to_string()]);
        command
    };
    let echo = Process::start("echo", &mut python(Host::Us, ECHO_PROGRAM, ECHO));
    echo.wait_line(0, "it listens", PATIENCE, |line| line == "listening");
    network.us.expose("echo", ECHO, "udp");
    network.laptop.wait_service("echo");
    let _forward = forward(&lab, &network, &["echo", &HERE.to_string()]);
    let mut flood = python(Host::Laptop, FLOOD_PROGRAM, HERE);
    let said = process::run(&mut flood, b"", PATIENCE * 3).ok("the flood");
    tests::say(&format!("of 30000 packets at 10000/s: {}", said.trim()));
    let counted: serde_json::Value = serde_json::from_str(&said).expect("it says JSON");
    assert_eq!((&counted["twice"], &counted["wrong"]), (&0.into(), &0.into()), "{counted}");
    // UDP may lose, and a machine that does other things beside does.
    assert!(counted["back"].as_u64().is_some_and(|back| back > 24_000), "{counted}");
}

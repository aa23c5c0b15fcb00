//! Names under `micro.internal` and all others, asked with dig: dnsmasq is the name server of the system.

use std::net::Ipv4Addr;

use tests::lab::{Host, Lab};
use tests::node::Network;
use tests::process::{PATIENCE, Process};
use tests::programs;

/// What the laptop's node answers on.
const FACE: &str = "127.0.0.1:53";
const WEB: u16 = 19810;

/// A name server on us, which knows one address and a text that is too long for a datagram.
fn upstream(lab: &Lab) -> Process {
    let long = vec!["x".repeat(250); 6].join(",");
    let mut command = lab.command(Host::Us, "dnsmasq");
    command
        .args(["--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=root"])
        .args(["--no-resolv", "--no-hosts", "--local=/lab.example/", "--bind-interfaces"])
        .arg(format!("--listen-address={}", Host::Us.v4()))
        .args(["--host-record=www.lab.example,192.0.2.9"])
        .arg(format!("--txt-record=long.lab.example,{long}"));
    let server = Process::start("dnsmasq", &mut command);
    server.wait_line(0, "it listens", PATIENCE, |line| line.contains("started, version"));
    server
}

fn dig(lab: &Lab, words: &[&str]) -> String {
    let base = ["@127.0.0.1", "+time=5", "+tries=1"];
    lab.exec(Host::Laptop, "dig", &[&base, words].concat()).ok("dig")
}

#[test]
fn dig_finds_services_and_what_is_not_of_the_network() {
    if !programs::have(&["dig", "dnsmasq", "nginx", "curl"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let mut server = upstream(&lab);
    lab.name_server(Host::Laptop, Host::Us.v4());
    let mut network = Network::up(&lab, &micro);
    let _web = programs::nginx(&lab, Host::Us, WEB);
    network.us.expose("go.micro.web", WEB, "http");
    network.laptop.kill9();
    network.laptop.say_at_start(&["--dns-address", FACE]);
    network.laptop.start(None);
    network.laptop.wait_service("go.micro.web");

    let name = "go.micro.web.micro.internal";
    let short = |words: &[&str]| dig(&lab, &[words, &["+short"]].concat()).trim().to_owned();
    let address: Ipv4Addr = short(&[name]).parse().expect("a name has one address");
    assert_eq!(address.octets()[0], 127);
    assert_eq!(short(&[name, "+tcp"]), address.to_string());
    assert_eq!(short(&["GO.micro.Web.MICRO.internal"]), address.to_string());
    assert_eq!(short(&["-x", &address.to_string()]), format!("{name}."));
    assert_eq!(short(&[name, "SRV"]), format!("0 1 {WEB} {name}."));
    assert!(short(&[name, "TXT"]).contains("\"protocol=http\""));
    let nothing = dig(&lab, &[name, "AAAA"]);
    assert!(nothing.contains("NOERROR") && nothing.contains("ANSWER: 0"), "{nothing}");
    let own = short(&["go.micro.web.us.micro.internal"]);
    assert!(!own.is_empty() && own != address.to_string(), "{own} is of the region alone");
    assert!(dig(&lab, &["no.micro.internal"]).contains("NXDOMAIN"));
    let said = lab.exec(Host::Laptop, "curl", &["-sSi", &format!("http://{address}:{WEB}/")]);
    // Its directory has no index, but it is nginx that says so.
    assert!(said.ok("curl of the address").contains("nginx"));

    assert_eq!(short(&["www.lab.example"]), "192.0.2.9");
    assert!(dig(&lab, &["www.lab.example", "+dnssec"]).contains("flags: do"));
    assert!(dig(&lab, &["none.lab.example"]).contains("NXDOMAIN"));
    let long = dig(&lab, &["long.lab.example", "TXT", "+bufsize=512"]);
    assert!(long.contains("retrying in TCP") && long.contains("NOERROR"), "{long}");
    server.kill9();
    assert!(dig(&lab, &["www.lab.example"]).contains("SERVFAIL"));

    network.laptop.kill9();
    network.laptop.start(None);
    network.laptop.wait_service("go.micro.web");
    assert_eq!(short(&[name]), address.to_string(), "it is the same in the next life");
}

#[test]
fn every_program_of_a_machine_finds_services_and_the_machine_is_as_it_was_after() {
    if !programs::have(&["dnsmasq", "nginx", "curl", "getent", "setpriv"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let _server = upstream(&lab);
    lab.name_server(Host::Laptop, Host::Us.v4());
    let mut network = Network::up(&lab, &micro);
    let _web = programs::nginx(&lab, Host::Us, WEB);
    network.us.expose("web", WEB, "http");
    network.laptop.wait_service("web");
    let exec = |program: &str, words: &[&str]| lab.exec(Host::Laptop, program, words);
    let file = || exec("cat", &["/etc/resolv.conf"]).ok("cat");
    let tables = || exec("nft", &["list", "tables"]).ok("nft list tables");
    let (before, no_tables) = (file(), tables());
    let dns = |words: &[&str]| network.laptop.cli(&[&["network", "dns"], words].concat());

    let mut other = lab.command(Host::Laptop, "setpriv");
    other.args(["--reuid", "65534", "--clear-groups"]).arg(&micro);
    other.args(["network", "dns", "enable"]).env("XDG_STATE_HOME", "/nonexistent");
    let refused = tests::process::run(&mut other, b"", PATIENCE);
    assert_eq!(refused.code, Some(5), "{}", refused.err);
    assert!(
        refused.err.starts_with("error[M6007]: ") && refused.err.contains("sudo"),
        "{}",
        refused.err
    );

    let shown = dns(&["enable", "--dry-run"]).ok("a look before");
    assert!(
        shown.contains("nameserver 127.64.0.53") && shown.contains("redirect to :8053"),
        "{shown}"
    );
    assert_eq!((file(), tables()), (before.clone(), no_tables.clone()), "a look changes nothing");
    assert!(dns(&["status"]).ok("status").contains("not enabled"));

    for time in ["once", "twice"] {
        dns(&["enable"]).ok(time);
        let found = exec("getent", &["ahostsv4", "web.micro.internal"]).ok("getent");
        assert!(found.starts_with("127."), "{found}");
    }
    let page =
        exec("curl", &["-sSi", &format!("http://web.micro.internal:{WEB}/")]).ok("curl by name");
    assert!(page.contains("nginx"), "{page}");
    let others = || exec("getent", &["ahostsv4", "www.lab.example"]).ok("getent of another name");
    assert!(others().starts_with("192.0.2.9"));
    let status = network.laptop.json(&["network", "dns", "status"]);
    assert_eq!((&status["enabled"], &status["answers"]), (&true.into(), &true.into()), "{status}");

    network.laptop.kill9();
    assert!(others().starts_with("192.0.2.9"), "without the node the next server is asked");
    let status = network.laptop.cli(&["network", "dns", "status"]);
    assert_eq!(status.code, Some(7), "{}", status.out);
    assert!(status.out.contains("no: nothing listens there"), "{}", status.out);

    let dns = |words: &[&str]| network.laptop.cli(&[&["network", "dns"], words].concat());
    assert!(dns(&["disable"]).ok("disable without a node").contains("as it was"));
    assert_eq!((file(), tables()), (before, no_tables));
    assert!(dns(&["disable"]).err.contains("nothing to undo"));
}

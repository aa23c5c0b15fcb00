//! Labels set by flag, file and command, on two real nodes: seen by the other, obeyed by calls, kept.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use std::time::Instant;

use daemon_support::{Node, User, http, soon};
use serde_json::Value;

/// The status that a call from the node is answered with.
fn status(node: &Node<'_>, header: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n{header}\r\n");
    let answer = http(&node.proxy(), &request);
    answer.split(' ').nth(1).unwrap().to_owned()
}

/// A label of the one instance of orders, as the node sees it.
fn label(node: &Node<'_>, key: &str) -> Option<String> {
    let ran = node.run(&["network", "routes", "orders", "-o", "json"]);
    let items: Value = (ran.code == 0).then(|| serde_json::from_str(&ran.out).unwrap())?;
    let found = items["items"][0]["labels"][key].as_str();
    found.map(str::to_owned)
}

fn of_node(node: &Node<'_>, name: &str, key: &str) -> Option<String> {
    let nodes = node.json(&["network", "nodes"]);
    let all = nodes["items"].as_array().unwrap();
    let one = all.iter().find(|one| one["name"] == name)?;
    one["labels"][key].as_str().map(str::to_owned)
}

#[test]
fn labels_of_network_node_service_and_instance_are_laid_over_each_other_and_steer_calls() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let dir = bob.path("config/micro");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(
        dir.join("micro.toml"),
        "[network]\nlabels = { k1 = \"network\", k2 = \"network\", k3 = \"network\", k4 = \"network\", \
         k5 = \"network\", k6 = \"network\" }\n",
    )
    .unwrap();
    let flags = ["k2", "k3", "k4", "k5", "k6"].map(|key| format!("{key}=node"));
    let flags: Vec<&str> = flags.iter().flat_map(|one| ["--label", one]).collect();
    let ticket = first.invite(&["--service", "*"]);
    let second = bob.up("b", &[&["--join", &ticket][..], &flags].concat());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let expose = ["expose", "orders", &at, "--protocol", "http"];
    second.run(&[&expose[..], &["--label", "k5=instance", "--label", "k6=instance"]].concat()).ok();
    soon("the service is known", || label(&first, "k5").is_some());
    // By command: one of the node over its flag, two of the service.
    let ran = second.run(&["network", "label", "k3=command"]);
    assert!(ran.out.contains("k2=node") && ran.out.contains("k3=command"), "{ran:?}");
    let ran = second.run(&["network", "label", "--service", "orders", "k4=service", "k5=service"]);
    assert_eq!(ran.out, "orders: k4=service, k5=service\n", "{ran:?}");
    let began = Instant::now();
    soon("the other node has heard", || {
        label(&first, "k4").as_deref() == Some("service")
            && of_node(&first, "b", "k3").as_deref() == Some("command")
    });
    println!(
        "labels were seen on the other node after {:?}, two commands included",
        began.elapsed()
    );
    let all = [
        ("k1", "network"),
        ("k2", "node"),
        ("k3", "command"),
        ("k4", "service"),
        ("k5", "instance"),
        ("k6", "instance"),
    ];
    for (key, value) in all {
        assert_eq!(label(&first, key).as_deref(), Some(value), "{key}");
        assert_eq!(status(&first, &format!("Micro-Label: {key}={value}\r\n")), "200", "{key}");
    }
    assert_eq!(status(&first, "Micro-Label: k3=node\r\n"), "404");
    assert_eq!(status(&first, "Micro-K4: network\r\n"), "404");

    let listed = second.run(&["network", "label"]).ok();
    let lines: Vec<String> =
        listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(lines.contains(&"this node k2 node configuration".to_owned()), "{listed}");
    assert!(lines.contains(&"this node k3 command command".to_owned()), "{listed}");
    assert!(lines.contains(&"orders k4 service command".to_owned()), "{listed}");

    // It is killed, and says the same again when it is back.
    second.kill();
    let at_first = first.text("/listen/0");
    let second = bob.up("b", &[&["--join", &at_first][..], &flags].concat());
    second.run(&expose).ok();
    soon("what was set is set again", || label(&first, "k5").as_deref() == Some("service"));
    assert_eq!(label(&first, "k3").as_deref(), Some("command"));

    // Taken back, what is below shines through.
    second.run(&["network", "label", "--rm", "k3"]).ok();
    second.run(&["network", "label", "--service", "orders", "--rm", "k4", "--rm", "k5"]).ok();
    soon("the other node has heard", || {
        label(&first, "k3").as_deref() == Some("node")
            && label(&first, "k4").as_deref() == Some("node")
    });
}

#[test]
fn what_is_no_label_or_was_not_set_is_refused_in_three_lines() {
    let ada = User::new();
    let node = ada.up("a", &["--label", "env=prod"]);
    for (args, code, told) in [
        (&["--rm", "env"][..], 4, "error[M1207]: there is no label env to take back"),
        (&["version=v2"], 2, "error[M4001]: that is no label"),
        (&["a b=c"], 2, "error[M4001]: that is no label"),
        (&["--service", "orders", "a=b"], 4, "error[M1203]: no service named \"orders\""),
    ] {
        let ran = node.run(&[&["network", "label"], args].concat());
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.err.starts_with(told), "{ran:?}");
        assert!(ran.err.lines().count() >= 3, "{ran:?}");
    }
    let none: Value = node.json(&["network", "label"]);
    assert_eq!(none["items"][0]["from"], "configuration");
}

//! What is wrong about rules, labels and headers is refused or bounded, in three lines, and changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use daemon_support::{Node, Ran, User, get, http, named, soon};

fn file(user: &User, text: &str) -> String {
    let path = user.path("rules.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn rule(body: &str) -> String {
    format!("service = \"orders\"\n[[rule]]\nname = \"r\"\n{body}\n")
}

/// What, why or where, and try: three lines, or one more for each line of a file that is shown.
fn is_told(ran: &Ran, code: &str, what: &str) {
    assert!(ran.code != 0, "{ran:?}");
    assert!(ran.err.starts_with(&format!("error[{code}]: ")), "{ran:?}");
    assert!(ran.err.contains(what), "{what:?} in {ran:?}");
    let tries = ran.err.lines().filter(|line| line.starts_with("  try   ")).count();
    assert!(tries == 1 && ran.err.lines().count() >= 3, "{ran:?}");
}

fn warned(node: &Node<'_>, user: &User, text: &str) -> String {
    let ran = node.run(&["rules", "apply", &file(user, text), "--dry-run"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.err
}

#[test]
fn rules_that_mean_nothing_are_refused_and_those_that_do_nothing_are_told() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let address = named("one");
    for service in ["orders", "copies"] {
        let args = ["expose", service, &address, "--protocol", "http", "--version", "v1"];
        node.run(&args).ok();
    }
    for (body, what) in [
        ("then.select = \"version~=1\"", "is no key of a label"),
        ("then.select = \"version>1\"", "is no operator; there are =, !=, in (a,b)"),
        ("when.headers = [\"x-a~=b\"]\nthen.retries = 1", "asks nothing of a header"),
        ("then.select = \"version=>2 <1\"", "is no range of versions"),
        ("then.abort = { status = 200 }", "400 to 599"),
    ] {
        is_told(&node.run(&["rules", "apply", &file(&ada, &rule(body))]), "M4003", what);
    }
    let many = |count: usize| {
        let rules = (0..count).map(|n| format!("[[rule]]\nname = \"r{n}\"\nthen.retries = 1\n"));
        format!("service = \"orders\"\n{}", rules.collect::<String>())
    };
    for count in [101, 10_000] {
        let ran = node.run(&["rules", "apply", &file(&ada, &many(count))]);
        is_told(&ran, "M4003", "at most 100 rules");
    }
    let ran = node.run(&["rules", "apply", &file(&ada, &many(40_000))]);
    is_told(&ran, "M4004", "bytes");
    assert_eq!(node.run(&["rules", "get", "orders"]).code, 4, "nothing was written");

    for (body, what) in [
        ("then.select = \"version=^9\"", "select: no instance is version=^9"),
        ("then.select = \"teir=gold\"", "no instance carries the label teir"),
        ("then.select = \"version=v1,version=v2\"", "can never hold"),
        ("then.divert = { to = \"a\", until = \"2020-01-01T00:00:00Z\" }", "its divert has ended"),
        ("then.divert = { to = \"a\", until = \"2999-01-01T00:00:00Z\" }", "ends only in"),
    ] {
        let told = warned(&node, &ada, &rule(body));
        assert!(told.contains("warning: rule r: ") && told.contains(what), "{told}");
    }
    // Copies can go in a circle, diverts cannot: one node decides, and once.
    node.run(&[
        "rules",
        "apply",
        &file(&ada, &rule("then.mirror = { to = \"copies\", part = \"1%\" }")),
    ])
    .ok();
    let back = rule("then.mirror = { to = \"orders\", part = \"1%\" }");
    let told = warned(&node, &ada, &back.replacen("orders", "copies", 1));
    assert!(told.contains("copies go round in a circle by way of orders"), "{told}");
}

#[test]
fn diverts_to_each_other_end_at_the_first() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let ticket = first.invite(&["--role", "operator", "--namespace", "*", "--service", "*"]);
    let second = bob.up("b", &["--join", &ticket]);
    for (node, name) in [(&first, "one"), (&second, "two")] {
        node.run(&["expose", "orders", &named(name), "--protocol", "http"]).ok();
    }
    for node in [&first, &second] {
        soon("both are known", || {
            node.json(&["describe", "orders"])["instances"].as_array().map_or(0, Vec::len) == 2
        });
    }
    let until = "2999-01-01T00:00:00Z";
    let text = format!(
        "service = \"orders\"\n\
         [[rule]]\nname = \"there\"\nwhen.nodes = [\"a\"]\nthen.divert = {{ to = \"b\", until = \"{until}\" }}\n\
         [[rule]]\nname = \"back\"\nwhen.nodes = [\"b\"]\nthen.divert = {{ to = \"a\", until = \"{until}\" }}\n"
    );
    first.run(&["rules", "apply", &file(&ada, &text)]).ok();
    let ask = "GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";
    soon("a's calls go to b", || http(&first.proxy(), ask).contains("two"));
    soon("b's calls go to a", || http(&second.proxy(), ask).contains("one"));
}

#[test]
fn headers_and_labels_have_bounds_that_are_told() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let (address, observe) = (named("one"), node.text("/observe/address"));
    node.run(&["expose", "orders", &address, "--protocol", "http", "--version", "v1"]).ok();
    let ask = |name: &str, length: usize| {
        let value = "x".repeat(length);
        http(
            &node.proxy(),
            &format!(
                "GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n{name}: {value}\r\n\r\n"
            ),
        )
    };
    let answer = ask("Micro-Version", 64 * 1024);
    assert!(
        answer.starts_with("HTTP/1.1 431 ") && answer.contains("micro-error: M1010"),
        "{answer}"
    );
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.lines().count(), 3, "{answer}");
    let answer = ask("Micro-Version", 2_000);
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("at most 1024 bytes"),
        "{answer}"
    );
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.lines().count(), 3, "{answer}");
    let long = format!("micro-version={}", "x".repeat(100_000));
    is_told(&node.run(&["network", "why", "orders", "-H", &long]), "M8001", "limit");

    let labels: Vec<String> = (0..400).map(|n| format!("k{n}=v")).collect();
    let mut args = vec!["expose", "big", &address, "--protocol", "http"];
    for label in &labels {
        args.extend(["--label", label]);
    }
    is_told(&node.run(&args), "M4001", "big cannot be offered so");
    let mut args = vec!["network", "label"];
    args.extend(labels[..40].iter().map(String::as_str));
    is_told(&node.run(&args), "M4001", "at most 32 labels");

    // What is said of a call that found nothing is what is counted of it, in the same word.
    let why = node.json(&["network", "why", "orders", "-H", "micro-version=v7"]);
    assert_eq!(why["reason"], "lacks", "{why}");
    assert!(ask("Micro-Version", 7).starts_with("HTTP/1.1 404 "));
    let metrics = get(&observe, "/metrics");
    assert!(metrics.contains("proxy_no_instance_total{state=\"lacks\"} 1"), "{metrics}");
    let why = node.json(&["network", "why", "orders"]);
    assert_eq!(
        (&why["reason"], &why["candidates"][0]["state"]),
        (&serde_json::Value::Null, &"nearest".into())
    );
    assert!(
        http(&node.proxy(), "GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
            .contains("one")
    );
    assert!(get(&observe, "/metrics").contains("proxy_chosen_total{state=\"nearest\"} 1"));
}

//! What the command line answers when no node runs: exit codes, errors, configuration, help.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli_support;

use cli_support::{Home, Ran};

#[test]
fn every_command_that_needs_a_node_says_that_none_runs() {
    let home = Home::new();
    for line in [
        "status",
        "network status",
        "network nodes",
        "network graph",
        "network routes",
        "network invite",
        "network why shop",
        "network trace shop",
        "network divert shop",
        "network divert --list",
        "rules get",
        "rules rm shop",
        "rules test shop",
        "network join 192.0.2.1:8085",
        "network ping fra-1",
        "network ready",
        "network down",
        "services",
        "describe greeter",
        "call greeter Greeter.Hello {}",
        "stream clock Clock.Watch",
        "expose shop 3000",
        "unexpose shop",
        "serve echo",
    ] {
        let ran = home.run(line);
        assert_eq!(ran.code, 3, "{line}: {ran:?}");
        assert_eq!(ran.out, "", "{line}: the answer is not for talk");
        let lines: Vec<&str> = ran.err.lines().collect();
        assert_eq!(lines[0], "error[M6010]: no node is running for this user", "{line}");
        assert!(lines[1].starts_with("  why   nothing answers on the admin socket"), "{line}");
        assert_eq!(lines[2], "  try   micro network   start one", "{line}");
        assert_eq!(lines.len(), 3, "{line}: three lines");
    }
}

#[test]
fn the_same_error_is_json_for_programs() {
    let ran = Home::new().run("status -o json");
    assert_eq!(ran.code, 3);
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["kind"], "Error");
    assert_eq!(document["api"], "micro/v1");
    assert_eq!(document["error"]["code"], "M6010");
    assert_eq!(document["error"]["exit"], 3);
    assert_eq!(document["error"]["try"][0], "micro network # start one");
}

#[test]
fn what_was_mistyped_is_wrong_usage_and_never_starts_a_node() {
    let home = Home::new();
    for (line, first) in [
        ("netwrok", "error[M4001]: micro has no command \"netwrok\""),
        ("network stauts", "error[M4001]: micro network has no command \"stauts\""),
        ("network up extra", "error[M4001]: micro network up has no command \"extra\""),
        ("status --jsn", "error[M4001]: micro status has no option \"--jsn\""),
        ("serve bird", "error[M4001]: \"bird\" does not fit <SERVICE>"),
        ("network wait --for red", "error[M4001]: \"red\" is no condition"),
        ("network demo --nodes 1", "error[M4001]: \"1\" does not fit --nodes <N>"),
        ("network --name a/b", "error[M4001]: --name has a value that does not fit"),
        (
            "network --proxy-address x",
            "error[M4001]: --proxy-address has a value that does not fit",
        ),
    ] {
        let ran = home.run(line);
        assert_eq!(ran.code, 2, "{line}: {ran:?}");
        assert_eq!(ran.err.lines().next(), Some(first), "{line}");
        assert!(ran.err.contains("\n  try   micro "), "{line}: {}", ran.err);
    }
    assert!(!home.path("state").exists(), "nothing was started");
}

#[test]
fn a_suggestion_can_be_pasted() {
    let home = Home::new();
    let ran = home.run("network staus");
    assert!(ran.err.contains("  try   micro network status\n"), "{}", ran.err);
    assert_eq!(home.run("network status").code, 3, "it is a command");
}

#[test]
fn help_is_an_answer_and_lists_every_command() {
    let home = Home::new();
    for (line, words) in [
        ("--help", &["network", "services", "describe", "call", "stream", "expose", "serve"][..]),
        ("network --help", &["up", "down", "demo", "status", "nodes", "graph", "routes", "invite"]),
        ("call --help", &["micro call greeter hello --name Ada"]),
        ("call greeter --help", &["micro call greeter hello --name Ada"]),
        ("help network up", &["--join", "--advertise", "--drain-grace"]),
    ] {
        let ran = home.run(line);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
        for word in words {
            assert!(ran.out.contains(word), "{line} does not tell {word}");
        }
    }
    let ran = home.run("");
    assert_eq!(ran.code, 2, "nothing was asked");
    assert!(ran.out.is_empty() && ran.err.contains("micro network demo"));
}

#[test]
fn version_completion_and_errors_need_no_node() {
    let home = Home::new();
    let version = home.run("version");
    assert_eq!(version.out, format!("micro {}, protocol 1\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(home.run("version -o json").json()["protocol_max"], 1);
    for (shell, word) in
        [("bash", "_micro"), ("zsh", "#compdef micro"), ("fish", "complete -c micro")]
    {
        let ran = home.run(&format!("completion {shell}"));
        assert!(ran.code == 0 && ran.out.contains(word), "{shell}");
    }
    let ran = home.run("errors m1203");
    assert!(ran.out.starts_with("M1203   no such service\n  cause  "), "{}", ran.out);
    assert_eq!(home.run("errors M0000").code, 4);
    assert!(home.run("errors -o name").out.lines().all(|code| code.starts_with('M')));
}

#[test]
fn an_older_name_works_and_tells_the_new_one() {
    let home = Home::new();
    for (line, note) in [
        ("list services", "note: list services is now services"),
        ("get service greeter", "note: get service is now describe"),
        ("network connect 192.0.2.1", "note: network connect is now network join"),
    ] {
        let ran = home.run(line);
        assert_eq!((ran.code, ran.err.lines().next()), (3, Some(note)), "{line}");
        let quiet = home.run(&format!("{line} -q"));
        assert!(quiet.err.starts_with("error[M6010]"), "{line}: {}", quiet.err);
    }
}

#[test]
fn a_wrong_file_is_reported_where_it_is_wrong_with_exit_78() {
    let home = Home::new();
    let file = home.write("micro.toml", "[network]\nname = \"acme\"\n\nadress = \"[::]:8085\"\n");
    for line in ["config check", "network", "network up", "status", "config show"] {
        let ran = home.run(&format!("{line} --config {file}"));
        assert_eq!(ran.code, 78, "{line}: {ran:?}");
        assert_eq!(
            ran.err,
            format!(
                "error[M4002]: config: unknown key \"network.adress\"\n\
                 \x20 --> {file}:4:1\n\
                 \x20  4 | adress = \"[::]:8085\"\n\
                 \x20    | ^^^^^^ did you mean \"address\"?\n\
                 \x20 try   micro config check\n"
            ),
            "{line}"
        );
    }
    for (text, code) in [
        ("[node", "M4004"),
        ("[node]\nname = 3\n", "M4003"),
        ("[node]\nname = \"a/b\"\n", "M4003"),
        ("[drain]\ngrace = \"soon\"\n", "M4003"),
        ("[web]\naddress = \"127.0.0.1:8082\"\n", "M4002"),
        ("[broker]\ntoken = [\"\"]\n", "M4003"),
        ("[broker]\nnkey = \"UABC\"\n", "M4003"),
    ] {
        let file = home.write("wrong.toml", text);
        let ran = home.run(&format!("config check {file}"));
        assert_eq!(ran.code, 78, "{text}");
        assert!(ran.err.starts_with(&format!("error[{code}]")), "{text}: {}", ran.err);
        assert!(ran.err.contains("\n  --> "), "{text}: {}", ran.err);
    }
    assert_eq!(home.run("config check /no/such/file").code, 78);
}

#[test]
fn flags_win_over_environment_over_file() {
    let mut home = Home::new();
    let file = home.write("micro.toml", "[node]\nname = \"file\"\nregion = \"eu/fra\"\n");
    let line = format!("config show --origin --config {file} -o json");
    let value = |ran: &Ran, key: &str| {
        let document = ran.json();
        let items = document["items"].as_array().unwrap().clone();
        let item = items.into_iter().find(|item| item["key"] == key).unwrap();
        format!("{} from {}", item["value"].as_str().unwrap(), item["origin"].as_str().unwrap())
    };
    let ran = home.run(&line);
    assert_eq!(value(&ran, "node.name"), format!("file from {file}:2"));
    home.set("MICRO_NODE_NODE_NAME", "env");
    let ran = home.run(&line);
    assert_eq!(value(&ran, "node.name"), "env from env MICRO_NODE_NODE_NAME");
    assert_eq!(value(&ran, "node.region"), format!("eu/fra from {file}:3"));
    assert_eq!(value(&ran, "drain.grace"), "20s from default");
}

#[test]
fn older_variables_are_taken_with_a_warning() {
    let mut home = Home::new();
    home.set("MICRO_NETWORK_ADDRESS", ":9999");
    let ran = home.run("config show -o json");
    assert!(ran.out.contains("\"[::]:9999\""), "{}", ran.out);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(ran.err.contains("use MICRO_NODE_NETWORK_ADDRESS"), "{}", ran.err);
}

#[test]
fn a_secret_is_never_printed() {
    let mut home = Home::new();
    home.set("MICRO_TICKET", "mj1topsecret");
    home.set("MICRO_NODE_BROKER_TOKEN", "topsecret");
    for line in ["config show", "config show --origin -o json", "config check"] {
        let ran = home.run(line);
        assert_eq!(ran.code, 0, "{line}");
        assert!(!ran.out.contains("topsecret") && !ran.err.contains("topsecret"), "{line}");
    }
}

#[test]
fn paths_follow_the_xdg_variables() {
    let home = Home::new();
    assert_eq!(
        home.run("config path config").out.trim(),
        home.path("config/micro/micro.toml").display().to_string()
    );
    let socket = home.run("config path socket").out;
    assert!(socket.starts_with(&home.path("run/micro/").display().to_string()), "{socket}");
    let all = home.run("config path -o json").json();
    assert_eq!(all["kind"], "ConfigPath");
    assert!(
        all["state"].as_str().unwrap().starts_with(&home.path("state/micro").display().to_string())
    );
}

#[test]
fn colour_is_only_where_it_was_asked_for() {
    let home = Home::new();
    assert!(!home.run("status").err.contains('\u{1b}'));
    assert!(home.run("status --color always").err.contains('\u{1b}'));
    assert!(!home.run("status --color never").err.contains('\u{1b}'));
}

//! What the commands about rules print of what a node says, and what they ask of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli_support;

use cli_support::Home;
use serde_json::{Value, json};

const FILE: &str = "\
service = \"orders\"
revision = 3

[[rule]]
name = \"canary\"
then.subsets = [{ name = \"v2\", select = \"version=v2\", weight = 1 }]
";

fn held() -> Value {
    json!({ "kind": "Rules", "api": "micro/v1", "service": "orders", "revision": 3,
        "author": "b".repeat(52), "author_name": "fra-1",
        "rule": [{ "name": "canary", "then": { "subsets":
            [{ "name": "v2", "select": "version=v2", "weight": 1 }] } }] })
}

fn applied(warnings: Value) -> Value {
    json!({ "kind": "RulesApplied", "api": "micro/v1", "service": "orders", "revision": 4,
        "rules": 1, "changed": true, "dry_run": false, "warnings": warnings })
}

fn nodes() -> Value {
    json!({ "kind": "NodeList", "api": "micro/v1", "items": [
        { "id": "a".repeat(52), "name": "ada", "path": "local" },
        { "id": "b".repeat(52), "name": "fra-1", "path": "direct" },
    ] })
}

#[test]
fn a_file_is_applied_and_what_is_odd_about_it_is_a_warning() {
    let home = Home::new();
    let odd = json!([{ "rule": "canary", "what": "no instance carries the label version" }]);
    let node = home.node("n", &[("/v1/rules", 200, applied(odd))]);
    let file = home.write("orders.toml", FILE);
    let ran = home.run(&format!("rules apply {file}"));
    assert_eq!((ran.code, ran.out.as_str()), (0, "orders: 1 rule, revision 4\n"), "{ran:?}");
    assert_eq!(ran.err, "warning: rule canary: no instance carries the label version\n");
    home.run(&format!("rules apply {file} --replace --dry-run"));
    home.run_with_input("rules apply -", FILE);
    let asked: Vec<Value> =
        node.asked().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(
        asked[0],
        json!({ "replace": false, "dry_run": false, "set": { "service": "orders", "revision": 3,
            "rule": held()["rule"] } })
    );
    assert_eq!(asked[1]["set"].get("revision"), None, "whatever there is may go");
    assert_eq!((&asked[1]["replace"], &asked[1]["dry_run"]), (&json!(true), &json!(true)));
    assert_eq!(asked[2], asked[0]);
}

#[test]
fn a_wrong_file_is_told_with_its_place_before_anybody_is_asked() {
    let home = Home::new();
    let node = home.node("n", &[]);
    let file = home.write("bad.toml", "service = \"s\"\n[[rule]]\nname = \"r\"\nthen.rety = 1\n");
    let ran = home.run(&format!("rules apply {file}"));
    assert_eq!(ran.code, 78, "{ran:?}");
    assert!(ran.err.starts_with("error[M4002]: rules: unknown key \"rety\"\n"), "{}", ran.err);
    assert!(ran.err.contains(&format!("--> {file}:4:6\n")) && ran.err.contains("\"retries\"?"));
    let ran = home.run("rules apply /no/such/file");
    assert_eq!((ran.code, ran.err.contains("M4004")), (78, true), "{ran:?}");
    assert!(node.asked().is_empty());
}

#[test]
fn rules_are_a_file_json_names_or_a_table_of_services() {
    let home = Home::new();
    let list = json!({ "kind": "RulesList", "api": "micro/v1", "items": [{ "service": "orders",
        "revision": 3, "author": "b".repeat(52), "author_name": "fra-1", "rules": ["canary"] }] });
    let _node = home.node("n", &[("/v1/rules/orders", 200, held()), ("/v1/rules", 200, list)]);
    let text = home.run("rules get orders").out;
    assert!(text.starts_with("# revision 3, written by fra-1\nservice = \"orders\"\n"), "{text}");
    assert_eq!(home.run("rules get orders -o toml").out, text);
    assert_eq!(home.run("rules get orders -o json").json(), held());
    assert_eq!(home.run("rules get orders -o name").out, "canary\n");
    assert_eq!(
        home.run("rules get").out,
        "SERVICE  REVISION  RULES   WRITTEN BY\norders   3         canary  fra-1\n"
    );
    let again = home.write("again.toml", &text);
    let ran = home.run(&format!("rules apply {again} -o json"));
    assert_ne!(ran.code, 78, "what get writes is what apply reads: {ran:?}");
    let ran = home.run("status -o toml");
    assert_eq!((ran.code, ran.err.contains("only rules have the form toml")), (2, true));
}

#[test]
fn rm_takes_away_exactly_what_was_seen() {
    let home = Home::new();
    let node = home
        .node("n", &[("/v1/rules/orders", 200, held()), ("/v1/rules", 200, applied(json!([])))]);
    assert_eq!(home.run("rules rm orders").code, 0);
    let (line, body) = node.asked().pop().unwrap();
    assert_eq!(line, "POST /v1/rules");
    let set = &serde_json::from_str::<Value>(&body).unwrap()["set"];
    assert_eq!(*set, json!({ "service": "orders", "revision": 3 }));
}

#[test]
fn a_divert_is_a_rule_in_front_of_the_newest_set() {
    let home = Home::new();
    let node = home.node(
        "n",
        &[
            ("/v1/nodes", 200, nodes()),
            ("/v1/rules/orders", 200, held()),
            ("/v1/rules", 200, applied(json!([]))),
        ],
    );
    let ran = home.run("network divert orders --to me --match header:X-Dev=ada --for 20m");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("orders → ada until 20"), "{}", ran.out);
    assert!(ran.out.ends_with(", calls with x-dev=ada\n"), "{}", ran.out);
    assert!(ran.err.contains("micro network divert orders --stop"), "{}", ran.err);
    let (_, body) = node.asked().pop().unwrap();
    let asked: Value = serde_json::from_str(&body).unwrap();
    let rules = asked["set"]["rule"].as_array().unwrap();
    assert_eq!((asked["set"]["revision"].as_u64(), rules.len()), (Some(3), 2));
    assert_eq!(rules[0]["name"], "divert-ada");
    assert_eq!(rules[0]["when"], json!({ "headers": ["x-dev=ada"] }));
    assert_eq!(rules[0]["then"]["divert"]["to"], "a".repeat(52));

    for (line, code, says) in [
        ("network divert orders --for 25h", 2, "24h"),
        ("network divert orders --for 0s", 2, "24h"),
        ("network divert orders --to fra-2", 4, "nearest name is fra-1"),
        ("network divert orders --stop", 4, "not diverted at all"),
        ("network divert orders --match x-dev=ada", 2, "header:x-dev=ada"),
        ("network divert", 2, "SERVICE"),
    ] {
        let ran = home.run(line);
        assert_eq!(ran.code, code, "{line}: {ran:?}");
        assert!(ran.err.contains(says), "{line}: {}", ran.err);
    }
}

#[test]
fn an_edit_that_was_overtaken_is_made_anew_and_then_given_up() {
    let home = Home::new();
    let stale = json!({ "kind": "Error", "api": "micro/v1", "error": {
        "code": "M1308", "what": "the rules of orders are no longer those of revision 3",
        "why": "they have revision 4, written by fra-1", "try": [], "exit": 1 } });
    let node = home.node(
        "n",
        &[
            ("/v1/nodes", 200, nodes()),
            ("/v1/rules/orders", 200, held()),
            ("/v1/rules", 500, stale),
        ],
    );
    let ran = home.run("network divert orders");
    assert_eq!((ran.code, ran.err.contains("written by fra-1")), (1, true), "{ran:?}");
    let posts = node.asked().iter().filter(|(line, _)| line.starts_with("POST")).count();
    assert_eq!(posts, 5);
}

#[test]
fn why_and_test_show_every_candidate_and_the_rule_that_decides() {
    let home = Home::new();
    let why = json!({ "kind": "Why", "api": "micro/v1", "service": "orders", "asked": "version=v2",
        "revision": 3, "author": "b".repeat(52), "author_name": "fra-1",
        "rules": [{ "rule": "divert-bob", "matches": false, "why": "header" },
                  { "rule": "canary", "matches": true }],
        "ignored": [{ "header": "micro-colour", "why": "no instance carries such a label" }],
        "changed": [{ "ago_ms": 2000, "node_name": "fra-1", "address": "10.2.0.7:9000",
            "what": "back, begins slowly" }],
        "subset": "v2", "diverted": false, "narrowed": [{ "by": "region=eu?" }],
        "candidates": [
            { "instance": "i1", "address": "10.2.0.7:9000", "node": "b".repeat(52),
              "node_name": "fra-1", "cost_us": 11000, "nearest": true,
              "state": "nearest", "verdict": "in: one of the nearest",
              "load": { "wait_us": 14000, "load_us": 3000, "latency_us": 12000, "in_flight": 2,
                  "others": 1, "success_percent": 100 } },
            { "instance": "i2", "address": "10.1.4.2:9000", "node": "a".repeat(52),
              "node_name": "ada", "cost_us": 0, "nearest": false,
              "verdict": "out: not version=v2, but v1" },
        ],
        "decides": { "name": "canary", "then": { "timeout": "2s" } },
        "outcomes": [{ "share": 0.9, "rule": "canary", "subset": "v2", "to": ["fra-1 10.2.0.7:9000"],
            "instances": 1 }, { "share": 0.1, "rule": "canary", "abort": 503 }] });
    let node = home.node("n", &[("/v1/why", 200, why.clone())]);
    let ran = home.run("network why 'orders?version=v2' --select region=eu? -H x-dev=ada");
    assert_eq!(
        ran.out,
        "orders?version=v2 → fra-1 10.2.0.7:9000     chosen from 2\n\
         \n\
         \x20  INSTANCE       NODE   COST  LOAD   CALLS  VERDICT\n\
         ✓  10.2.0.7:9000  fra-1  11ms  3.0ms  2+1    in: one of the nearest\n\
         ✗  10.1.4.2:9000  ada    0ms   -      -      out: not version=v2, but v1\n\
         \n\
         rules    revision 3, written by fra-1\n\
         \x20        divert-bob: not for this call, by its header\n\
         \x20        canary: decides\n\
         subset   v2\n\
         prefers  region=eu?\n\
         ignored  micro-colour: no instance carries such a label\n\
         changed  2s ago: fra-1 10.2.0.7:9000 back, begins slowly\n"
    );
    let (_, body) = node.asked().pop().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({ "service": "orders", "select": "version=v2,region=eu?", "endpoint": "",
            "headers": [["x-dev", "ada"]], "caller": "", "throws": 0 })
    );
    assert_eq!(home.run("network why orders -o json").json(), why);
    let ran = home.run("rules test orders --endpoint Orders.Place --caller shop");
    assert!(
        ran.out.starts_with(
            "OF CALLS  RULE    SUBSET  WHAT              TO\n\
             90.0%     canary  v2      delivered         fra-1 10.2.0.7:9000\n\
             10.0%     canary  -       refused with 503  -\n"
        ),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("also   timeout 2s\n"), "{}", ran.out);
    assert_eq!(home.run("network why 'a b'").code, 2);
}

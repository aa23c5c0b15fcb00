//! Every example of docs/rules.md is what it says: rules that are read, and written back alike.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::convert::Infallible;

use netd::rules::file;
use netd::rules::form::{Rule, Set};
use proto::NodeId;

const PAGE: &str = include_str!("../../docs/rules.md");

fn examples() -> Vec<&'static str> {
    let parts = PAGE.split("```toml\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap()).collect()
}

#[test]
fn every_example_is_read_and_means_the_same_when_it_is_written() {
    let all = examples();
    assert!(all.len() >= 10, "one for each action");
    for text in all {
        let set = file::parse(text, "rules.md").unwrap_or_else(|why| panic!("{text}\n{why}"));
        let again = file::parse(&file::write(&set).unwrap(), "again").unwrap();
        assert_eq!(again, set, "{text}");
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<Set>(&json).unwrap(), set, "{text}");
        for rule in &set.rules {
            let ada = NodeId::from_bytes([7; 32]);
            let Ok(meaning) = rule.meaning(|_| Ok::<_, Infallible>(ada));
            let mut back = Rule::of(&meaning);
            if let Some(divert) = &mut back.then.divert {
                assert_eq!(divert.to, ada.to_string());
                divert.to = "ada-laptop".to_owned();
            }
            assert_eq!(back, *rule, "{text}");
        }
    }
}

#[test]
fn every_action_and_every_condition_has_an_example() {
    let page = examples().concat();
    for key in [
        "subsets", "split_by", "select", "timeout", "retries", "mirror", "divert", "delay",
        "abort", "rate", "affinity", "spill",
    ] {
        assert!(page.contains(&format!("then.{key} = ")), "{key}");
    }
    for key in ["endpoints", "headers", "callers", "nodes", "labels", "share"] {
        assert!(page.contains(&format!("when.{key} = ")), "{key}");
    }
}

//! A file of rules: read with every mistake told where it stands, and written.

use std::convert::Infallible;
use std::ops::Range;

use proto::NodeId;
use proto::rule::{BadRule, RuleSet};

use super::form::{Rule, Set};
use crate::config::file::{place, quoted};
use crate::error::{Exit, Problem};
use crate::output::text;

/// The largest file that is read: the largest set takes less, however it is written.
pub const MAX_FILE: u64 = 1024 * 1024;

/// Reads the text of a file called `name`.
///
/// # Errors
/// M4002 for a key that does not exist, M4003 for a value that means nothing, M4004 for what is no
/// TOML; each with the place.
pub fn parse(text: &str, name: &str) -> Result<Set, Problem> {
    let set: Set = toml::from_str(text).map_err(|error| refused(text, name, &error))?;
    check(&set.rules).map_err(|bad| {
        let what = format!("rules: {}", bad.why);
        let problem = Problem::new("M4003", Exit::Config, what);
        match name_of(text, &bad.rule) {
            Some(span) => problem.at(place(text, name, span, "in this rule".to_owned())),
            None => problem.why(format!("in {name}")),
        }
        .attempt(TRY, "")
    })?;
    Ok(set)
}

/// What is tried when a file is wrong.
const TRY: &str = "micro rules apply FILE --dry-run";

/// Whether every node would read these rules.
///
/// # Errors
/// [`BadRule`] says which is at fault, and why.
pub fn check(rules: &[Rule]) -> Result<(), BadRule> {
    // Which node calls are diverted to makes no difference to that.
    let anywhere = |_: &str| Ok::<_, Infallible>(NodeId::from_bytes([0; 32]));
    let meanings = rules.iter().map(|rule| match rule.meaning(anywhere) {
        Ok(rule) => rule,
        Err(never) => match never {},
    });
    RuleSet { rules: meanings.collect(), ..RuleSet::default() }.check()
}

/// As a file, ready to be edited and applied.
///
/// # Errors
/// M9001: there is nothing in a set that TOML has no words for.
pub fn write(set: &Set) -> Result<String, Problem> {
    toml::to_string(set).map_err(|why| Problem::bug(format!("rules cannot be written: {why}")))
}

/// Turns what the parser says into what a person reads.
fn refused(text: &str, name: &str, error: &toml::de::Error) -> Problem {
    let message = error.message().trim();
    let span = error.span().unwrap_or(0..0);
    let first = message.lines().next().unwrap_or_default();
    let (code, what, note) = if first.starts_with("unknown field") {
        let mut words = quoted(first);
        let key = words.next().unwrap_or_default();
        let known: Vec<&str> = words.collect();
        let note = match text::nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known here: {}", known.join(", ")),
        };
        ("M4002", format!("rules: unknown key \"{key}\""), note)
    } else if first.starts_with("missing field") {
        let key = quoted(first).next().unwrap_or_default();
        ("M4003", format!("rules: \"{key}\" is missing"), "it belongs here".to_owned())
    } else if is_toml(text) {
        let what = match key_at(text, &span) {
            Some(key) => format!("rules: \"{key}\" has a value that does not fit"),
            None => "rules: a value does not fit".to_owned(),
        };
        ("M4003", what, message.replace('\n', ", "))
    } else {
        ("M4004", "rules: this is not TOML".to_owned(), message.replace('\n', ", "))
    };
    Problem::new(code, Exit::Config, what).at(place(text, name, span, note)).attempt(TRY, "")
}

fn is_toml(text: &str) -> bool {
    toml::from_str::<toml::Table>(text).is_ok()
}

/// The key whose value begins at `span`, where it stands on the same line.
fn key_at<'a>(text: &'a str, span: &Range<usize>) -> Option<&'a str> {
    let before = text.get(..span.start)?;
    let line = before.rsplit('\n').next()?.trim_end();
    let (before, _) = line.rsplit_once('=')?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let key = before.trim_end();
    let start = key.rfind(|c| !is_part(c)).map_or(0, |at| at + 1);
    Some(&key[start..]).filter(|key| !key.is_empty())
}

/// Where the name of a rule stands.
fn name_of(text: &str, rule: &str) -> Option<Range<usize>> {
    let quoted = format!("{rule:?}");
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if key.trim() == "name" && value.trim().starts_with(&quoted) {
            let at = start + line.len() - value.trim_start().len();
            return Some(at..at + quoted.len());
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_shown_where_it_stands_with_the_nearest_known_one() {
        let text = "service = \"orders\"\n\n[[rule]]\nname = \"slow\"\nthen.timout = \"2s\"\n";
        assert_eq!(
            parse(text, "orders.toml").unwrap_err().to_string(),
            "error[M4002]: rules: unknown key \"timout\"\n\
             \x20 --> orders.toml:5:6\n\
             \x20  5 | then.timout = \"2s\"\n\
             \x20    |      ^^^^^^ did you mean \"timeout\"?\n\
             \x20 try   micro rules apply FILE --dry-run"
        );
    }

    #[test]
    fn every_wrong_value_is_shown_with_its_key_and_what_would_fit() {
        let rule = |line: &str| format!("service = \"s\"\n[[rule]]\nname = \"r\"\n{line}\n");
        for (text, what, note) in [
            (rule("then.timeout = \"soon\""), "\"then.timeout\" has a value", "write 250ms"),
            (rule("then.mirror = { to = \"a b\" }"), "\"to\" has a value", "letters, digits"),
            (rule("then.select = \"a~b\""), "\"then.select\"", "key=value"),
            (rule("when.share = { part = \"11\" }"), "\"part\" has a value", "write 10%"),
            (rule("when.headers = [\"=x\"]"), "\"when.headers\"", "name=value"),
            (rule("then.retries = 300"), "\"then.retries\"", "300"),
            (rule("then.delay = { part = \"1%\" }"), "\"time\" is missing", "here"),
            (rule("then.retries = 11"), "at most 10 retries", "in this rule"),
            (rule("then.abort = { status = 200 }"), "status of 400 to 599", "in this rule"),
            ("service = \"a b\"".to_owned(), "\"service\" has a value", "letters, digits"),
            ("service = \"s\"\n[[rule]]".to_owned(), "\"name\" is missing", ""),
            ("revision = 3".to_owned(), "\"service\" is missing", ""),
        ] {
            let problem = parse(&text, "f").unwrap_err();
            let told = problem.to_string();
            assert_eq!((&*problem.code, problem.exit), ("M4003", Exit::Config), "{told}");
            assert!(problem.what.contains(what) && told.contains(note), "{told}");
            assert!(told.contains("\n  --> f:"), "{told}");
        }
        let problem = parse("service = ", "f").unwrap_err();
        assert_eq!((&*problem.code, problem.exit), ("M4004", Exit::Config));
    }

    #[test]
    fn two_rules_of_one_name_are_told_by_it() {
        let text = "service = \"s\"\n[[rule]]\nname = \"r\"\n[[rule]]\nname = \"r\"\n";
        let told = parse(text, "f").unwrap_err().to_string();
        assert!(told.contains("has the same name") && told.contains("name = \"r\""), "{told}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\\n\u{e4}\u{1b}]{0,120}") {
            let _ = parse(&text, "f");
            let _ = parse(&format!("service = \"s\"\n[[rule]]\nname = \"{text}"), "f");
        }
    }
}

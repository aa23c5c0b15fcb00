//! What a set of rules must keep to, so that every node reads it and every number means something.

use super::{
    BadRule, Change, MAX_HISTORY, MAX_NAME, MAX_PARTS, MAX_RETRIES, MAX_RULES, MAX_SET, MAX_WAIT,
    Rule, RuleSet,
};

impl RuleSet {
    /// Whether every node would read it, and every number means something.
    ///
    /// # Errors
    /// [`BadRule`] says which rule is at fault, and why.
    pub fn check(&self) -> Result<(), BadRule> {
        let of_set = |why| BadRule { rule: String::new(), why };
        if self.rules.len() > MAX_RULES {
            return Err(of_set("a service has at most 100 rules"));
        }
        for (at, rule) in self.rules.iter().enumerate() {
            let bad = |why| Err(BadRule { rule: rule.name.chars().take(MAX_NAME).collect(), why });
            if self.rules[..at].iter().any(|before| before.name == rule.name) {
                return bad("another rule of the service has the same name");
            }
            rule.check().or_else(bad)?;
        }
        if self.history.len() > MAX_HISTORY {
            return Err(of_set("a set remembers at most 20 changes"));
        }
        self.history.iter().try_for_each(Change::check).map_err(of_set)?;
        if self.encode().len() > MAX_SET {
            return Err(of_set("the rules of a service have at most 63 KiB"));
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), &'static str> {
        let (when, then) = (&self.when, &self.then);
        if !is_name(&self.name) {
            return Err("a name has 1 to 64 letters, digits, '.', '-' and '_'");
        }
        let lists = [when.endpoints.len(), when.headers.len(), when.callers.len()];
        let more = [when.nodes.len(), then.subsets.len()];
        if lists.into_iter().chain(more).any(|length| length > MAX_PARTS) {
            return Err("a list has at most 32 entries");
        }
        let keys =
            [when.share.as_ref().and_then(|share| share.by.as_ref()), then.split_by.as_ref()];
        let more = [then.affinity.as_ref(), then.rate.as_ref().and_then(|rate| rate.by.as_ref())];
        if keys.into_iter().chain(more).flatten().any(|key| !key.is_valid())
            || when.headers.iter().any(|one| !is_header(&one.name))
        {
            return Err("a header or cookie has a name in lower case, of at most 64 characters");
        }
        let tests = when.headers.iter().map(|one| one.test.text());
        if tests.flatten().any(|text| text.len() > 1024 || text.chars().any(char::is_control)) {
            return Err("a value has at most 1024 bytes and no control characters");
        }
        if when.labels.preferred().next().is_some()
            || then.subsets.iter().any(|subset| subset.select.preferred().next().is_some())
        {
            return Err("only `select` can prefer; a condition or a subset holds or not");
        }
        if then.subsets.iter().any(|subset| !is_name(&subset.name)) {
            return Err("a subset has a name of letters, digits, '.', '-' and '_'");
        }
        if !then.subsets.is_empty() && then.subsets.iter().all(|subset| subset.weight == 0) {
            return Err("no subset has a weight");
        }
        if then.timeout == Some(0) || then.timeout.is_some_and(|timeout| timeout > MAX_WAIT) {
            return Err("a timeout is 1 ms to 1 h");
        }
        if then.delay.is_some_and(|delay| delay.millis > MAX_WAIT) {
            return Err("a delay is at most 1 h");
        }
        if then.retries.is_some_and(|retries| retries > MAX_RETRIES) {
            return Err("there are at most 10 retries");
        }
        if then.abort.is_some_and(|abort| !(400..=599).contains(&abort.status)) {
            return Err("a call is refused with a status of 400 to 599");
        }
        if then.rate.as_ref().is_some_and(|rate| rate.per_second == 0 || rate.burst == 0) {
            return Err("a rate and its burst are at least 1; to refuse all, abort 100 %");
        }
        if then.spill.is_some_and(|spill| spill.below >= spill.above) {
            return Err("calls return below a lower load than the one they spill above");
        }
        Ok(())
    }
}

pub(super) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(allowed)
}

pub(super) fn is_header(text: &str) -> bool {
    is_name(text) && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

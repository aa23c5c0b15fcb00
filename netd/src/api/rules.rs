//! Rules, and why a call goes where it goes.

use serde::{Deserialize, Serialize};

/// `POST /v1/rules`: these rules in place of all that a service has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The rules. Its revision is that of the set they were made from; where it is left out, the
    /// service must not have rules yet, unless `replace` is set.
    pub set: crate::rules::form::Set,
    /// Whatever rules there are go.
    #[serde(default)]
    pub replace: bool,
    /// Nothing is written; the answer is what it would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// The answer to [`ApplyRequest`], kind `RulesApplied`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// The service.
    pub service: String,
    /// The revision that holds now; of a dry run, the one that would.
    pub revision: u64,
    /// How many rules.
    pub rules: u64,
    /// Whether they differ from those before.
    pub changed: bool,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// What is odd about them.
    pub warnings: Vec<RuleWarning>,
    /// How long they hold, where that is not for as long as anybody runs; else empty.
    pub note: String,
}

/// Something odd about a rule.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleWarning {
    /// The rule; empty where it is about all.
    pub rule: String,
    /// What is odd.
    pub what: String,
}

/// One of `GET /v1/rules`, kind `RulesList`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RulesItem {
    /// The service.
    pub service: String,
    /// The revision of its rules.
    pub revision: u64,
    /// The id of the node that wrote them.
    pub author: String,
    /// Its name.
    pub author_name: String,
    /// The names of the rules, in the order in which they are tried.
    pub rules: Vec<String>,
}

/// `GET /v1/rules/SERVICE`, kind `Rules`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// The service.
    pub service: String,
    /// The revision of its rules.
    pub revision: u64,
    /// The id of the node that wrote them.
    pub author: String,
    /// Its name.
    pub author_name: String,
    /// The names of the nodes in reach that carry them, the author perhaps among them.
    pub carried_by: Vec<String>,
    /// How long they hold, where that is not for as long as anybody runs; else empty.
    pub note: String,
    /// The rules, in the order in which they are tried.
    #[serde(rename = "rule")]
    pub rules: Vec<crate::rules::form::Rule>,
}

/// One of `GET /v1/rules-history/SERVICE`, kind `RulesHistory`: one change, newest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RulesChange {
    /// The revision it made.
    pub revision: u64,
    /// The id of the node that wrote it.
    pub author: String,
    /// Its name.
    pub author_name: String,
    /// When, by the clock of that node.
    pub at: String,
    /// Rules that were not there before.
    pub added: Vec<String>,
    /// Rules that say something else than before.
    pub changed: Vec<String>,
    /// Rules that were there before.
    pub removed: Vec<String>,
    /// Whether those that stayed are tried in another order.
    pub reordered: bool,
    /// Rules that are not named, for there were too many.
    pub more: u32,
}

/// `POST /v1/why`: a call that is not made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhyRequest {
    /// The service.
    pub service: String,
    /// What the caller asks of the instance, beside what its headers say.
    pub select: String,
    /// `Struct.Method` of gRPC, else the path.
    pub endpoint: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The calling service.
    pub caller: String,
    /// How often chance is tried, to tell what becomes of how many calls; 0: not.
    pub throws: u32,
}

/// The answer to [`WhyRequest`], kind `Why`: what the node explains, and what only operators ask.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Why {
    /// The explanation.
    #[serde(flatten)]
    pub told: proxy::Explanation,
    /// The rule that decides, as it is written.
    pub decides: Option<crate::rules::form::Rule>,
    /// What becomes of how many calls like this one, the most first; empty unless asked for.
    pub outcomes: Vec<WhyOutcome>,
}

/// What becomes of some calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WhyOutcome {
    /// Of how many, 0 to 1.
    pub share: f64,
    /// The rule that decides; empty for none.
    pub rule: String,
    /// The subset; empty for none.
    pub subset: String,
    /// Whether they are diverted.
    pub diverted: bool,
    /// The HTTP status they are refused with.
    pub abort: Option<u16>,
    /// How long they are held up.
    pub delay_ms: Option<u32>,
    /// Where a copy goes; empty for nowhere.
    pub mirror: String,
    /// Nodes and addresses of the instances they go to, the first few.
    pub to: Vec<String>,
    /// How many such instances there are.
    pub instances: u64,
}

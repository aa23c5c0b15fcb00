//! Why nothing matches, for people: what there is, what it lacks, and what comes closest.

use std::collections::BTreeMap;
use std::fmt;

use proto::selector::Requirement;

use super::bits::Bits;
use super::query::Query;
use super::service::ServiceRoutes;

/// Values shown.
const SHOWN: usize = 3;

/// What there is instead of what was asked for. Reads as
/// `3 instances exist, none with version=v3; closest: v2 x2, v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Instances of the service.
    pub exist: usize,
    /// What none of them has; of requirements that only together are too much, all.
    pub lacking: String,
    /// The values of the label at fault that there are instead, most frequent first, with how many
    /// instances have it. Of instances that hold the other requirements, where there are any.
    pub closest: Vec<(String, usize)>,
}

impl ServiceRoutes {
    /// Why `query` matches nothing. Looks at the whole service: for answers that have failed.
    #[must_use]
    pub fn mismatch<'a>(&'a self, query: impl Into<Query<'a>>) -> Mismatch {
        let query = query.into();
        let all: Vec<&Requirement> = query.required().collect();
        let none = |one: &&&Requirement| self.count(&[one]) == 0;
        let alone = all.iter().find(none);
        let fault = alone.or_else(|| {
            // Without which of them would there be something?
            all.iter().find(|one| self.count(&others(&all, one)) > 0)
        });
        let lacking = match alone {
            Some(one) => one.to_string(),
            None => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        let closest = fault.map_or(Vec::new(), |one| {
            let others = others(&all, one);
            let found = self.values_among(one, &others);
            if found.is_empty() { self.values_among(one, &[]) } else { found }
        });
        Mismatch { exist: self.instances.len(), lacking, closest }
    }

    fn count(&self, all: &[&Requirement]) -> usize {
        (0..self.index.len()).map(|block| self.holding(block, all).len()).sum()
    }

    fn holding(&self, block: u32, all: &[&Requirement]) -> Bits {
        let block = self.index.block(block);
        all.iter().fold(block.all(), |held, one| held.and(block.holding(one)))
    }

    fn values_among(&self, one: &Requirement, others: &[&Requirement]) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for at in 0..self.index.len() {
            let held = self.holding(at, others);
            for (value, bits) in self.index.block(at).values(one.key_hash(), one.key()) {
                *counts.entry(value).or_default() += bits.and(held).len();
            }
        }
        let mut counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let short = |value: &str| value.chars().take(40).collect();
        counts.into_iter().take(SHOWN).map(|(value, count)| (short(value), count)).collect()
    }
}

fn others<'a>(all: &[&'a Requirement], one: &Requirement) -> Vec<&'a Requirement> {
    all.iter().copied().filter(|other| !std::ptr::eq(*other, one)).collect()
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exist == 0 {
            return f.write_str("no instance of it is known");
        }
        match self.exist {
            1 => write!(f, "1 instance exists, not with {}", self.lacking)?,
            exist => write!(f, "{exist} instances exist, none with {}", self.lacking)?,
        }
        for (at, (value, count)) in self.closest.iter().enumerate() {
            write!(f, "{}{value}", if at == 0 { "; closest: " } else { ", " })?;
            if *count > 1 {
                write!(f, " x{count}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::service::tests::instance;
    use super::*;
    use proto::{NodeId, Selector};
    use std::sync::Arc;

    fn said(text: &str) -> String {
        let one = |id: &str, labels: &[(&str, &str)]| {
            instance(id, NodeId::from_bytes([1; 32]), 0, 0, labels)
        };
        let all = vec![
            one("a", &[("version", "v2"), ("region", "eu/fra")]),
            one("b", &[("version", "v2"), ("region", "us")]),
            one("c", &[("version", "v1"), ("region", "us")]),
        ];
        let service = ServiceRoutes::new("s".parse().unwrap(), 1, all, Arc::from([]));
        let selector: Selector = text.parse().unwrap();
        service.mismatch(&selector).to_string()
    }

    #[test]
    fn what_is_lacking_and_what_comes_closest_is_said() {
        for (asked, why) in [
            ("version=v3", "3 instances exist, none with version=v3; closest: v2 x2, v1"),
            ("version=v3,region=eu", "3 instances exist, none with version=v3; closest: v2"),
            (
                "version=v1,region=eu",
                "3 instances exist, none with version=v1,region=eu; closest: v2",
            ),
            ("tier=gold", "3 instances exist, none with tier=gold"),
        ] {
            assert_eq!(said(asked), why, "{asked}");
        }
    }
}

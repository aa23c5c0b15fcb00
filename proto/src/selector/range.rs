//! Ranges of versions, as npm and Cargo write them.
//!
//! | Written | Means |
//! |---|---|
//! | `^1.2`, `^0.2`, `^0.0.3` | from here on, as long as the leftmost number that is not 0 stays |
//! | `~1.2`, `~1` | from here on, as long as the minor number (of `~1`: the major) stays |
//! | `1.x`, `1.2.*`, `*` | any number where the letter stands |
//! | `>1`, `>=1.2`, `<2`, `<=1.2` | bounds; numbers left out stand for all: `>1` is `>=2`, `<=1.2` is `<1.3` |
//! | `>=1,<2` | both |
//!
//! Versions are ordered as Semantic Versioning 2.0.0 §11 says; `v` in front and missing numbers are
//! read as Go's modules do (`v1.2` is 1.2.0). A version before a release is only in a range that
//! names one of the same release. What is no such version (`latest`) is in no range.

use std::cmp::Ordering;
use std::sync::Arc;

use super::BadSelector;

/// Versions between two bounds.
#[derive(Clone, Debug)]
pub struct Range {
    text: Arc<str>,
    lower: Option<Bound>,
    upper: Option<Bound>,
}

impl PartialEq for Range {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Range {}

/// One end of a range.
#[derive(Clone, Debug)]
struct Bound {
    numbers: [u64; 3],
    /// What stands after the `-`.
    before: Box<str>,
    inclusive: bool,
}

/// A version, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semver<'a> {
    /// Major, minor, patch.
    pub numbers: [u64; 3],
    /// What stands after the `-`: this is before the release. Empty for a release.
    pub before: &'a str,
}

impl Range {
    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `version` is one, and in the range.
    #[must_use]
    pub fn contains(&self, version: &str) -> bool {
        let Some(version) = Semver::read(version) else { return false };
        let lower = self.lower.as_ref().is_none_or(|bound| match version.cmp(&bound.version()) {
            Ordering::Less => false,
            Ordering::Equal => bound.inclusive,
            Ordering::Greater => true,
        });
        let upper = self.upper.as_ref().is_none_or(|bound| match version.cmp(&bound.version()) {
            Ordering::Less => true,
            Ordering::Equal => bound.inclusive,
            Ordering::Greater => false,
        });
        let named = |bound: &Bound| !bound.before.is_empty() && bound.numbers == version.numbers;
        let in_question = version.before.is_empty()
            || self.lower.as_ref().is_some_and(named)
            || self.upper.as_ref().is_some_and(named);
        lower && upper && in_question
    }

    /// Whether some version can be in it.
    fn is_possible(&self) -> bool {
        let nothing_below =
            |bound: &Bound| !bound.inclusive && bound.numbers == [0; 3] && bound.before.is_empty();
        match (&self.lower, &self.upper) {
            (_, Some(upper)) if nothing_below(upper) => false,
            (Some(lower), Some(upper)) => match lower.version().cmp(&upper.version()) {
                Ordering::Less => true,
                Ordering::Equal => lower.inclusive && upper.inclusive,
                Ordering::Greater => false,
            },
            (_, _) => true,
        }
    }
}

impl Bound {
    fn version(&self) -> Semver<'_> {
        Semver { numbers: self.numbers, before: &self.before }
    }
}

impl<'a> Semver<'a> {
    /// The version that `text` is; `None` when it is none.
    #[must_use]
    pub fn read(text: &'a str) -> Option<Self> {
        let (parts, before) = partial(text)?;
        let numbers = parts.map(|part| part.unwrap_or(Some(0)));
        let [Some(major), Some(minor), Some(patch)] = numbers else { return None };
        Some(Self { numbers: [major, minor, patch], before })
    }
}

impl Ord for Semver<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.before.is_empty(), other.before.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => identifiers(self.before, other.before),
            }
        })
    }
}

impl PartialOrd for Semver<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By identifier: numbers by value and before words, words by their bytes, fewer before more
/// (Semantic Versioning 2.0.0 §11.4).
fn identifiers(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        let order = match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match (is_number(a), is_number(b)) {
                // Without leading zeros the longer one is the larger one.
                (true, true) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Of each part whether it is there, and its number; `None` for a letter that stands for any.
type Parts = [Option<Option<u64>>; 3];

/// What a version or the beginning of one is made of.
fn partial(text: &str) -> Option<(Parts, &str)> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let (text, build) =
        text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (numbers, before) =
        text.split_once('-').map_or((text, None), |(numbers, before)| (numbers, Some(before)));
    let identifier = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let no_zeros = |part: &str| !(is_number(part) && part.len() > 1 && part.starts_with('0'));
    if before.is_some_and(|all| !all.split('.').all(|part| identifier(part) && no_zeros(part)))
        || build.is_some_and(|all| !all.split('.').all(identifier))
    {
        return None;
    }
    let mut parts: Parts = [None; 3];
    let mut given = numbers.split('.');
    for part in &mut parts {
        let Some(text) = given.next() else { break };
        *part = Some(match text {
            "x" | "X" | "*" => None,
            _ if is_number(text) && no_zeros(text) => Some(text.parse().ok()?),
            _ => return None,
        });
    }
    let whole = parts.iter().all(|part| matches!(part, Some(Some(_))));
    if given.next().is_some() || (before.is_some() || build.is_some()) && !whole {
        return None;
    }
    Some((parts, before.unwrap_or("")))
}

/// The range that `text` is, up to the bound `upper` if there is one; `None` when it is a version
/// to be taken as it stands.
pub(super) fn read(text: &str, upper: Option<&str>) -> Result<Option<Range>, BadSelector> {
    let whole = upper.map_or_else(|| text.to_owned(), |upper| format!("{text},{upper}"));
    let bad = || BadSelector::Range(whole.chars().take(40).collect());
    let Some((mut lower, mut high)) = bounds(text).ok_or_else(bad)? else { return Ok(None) };
    if let Some(upper) = upper {
        let (more, bound) = bounds(upper).flatten().ok_or_else(bad)?;
        (lower, high) = (lower.or(more), bound);
    }
    let range = Range { text: whole.as_str().into(), lower, upper: high };
    if range.is_possible() { Ok(Some(range)) } else { Err(BadSelector::EmptyRange(whole)) }
}

type Bounds = (Option<Bound>, Option<Bound>);

/// Both ends of one comparison. `None` when it cannot be read, `Some(None)` when it is none.
fn bounds(text: &str) -> Option<Option<Bounds>> {
    let (operator, rest) = ["^", "~", ">=", "<=", ">", "<"]
        .iter()
        .find_map(|operator| Some((*operator, text.strip_prefix(operator)?)))
        .unwrap_or(("", text));
    let Some((parts, before)) = partial(rest.trim_start()) else {
        return operator.is_empty().then_some(None);
    };
    // How many numbers are given before the first that stands for any.
    let given = parts.iter().take_while(|part| matches!(part, Some(Some(_)))).count();
    let numbers = parts.map(|part| part.flatten().unwrap_or(0));
    let later = parts[given..].iter().any(|part| matches!(part, Some(Some(_))));
    let letters = parts[given..].iter().any(|part| matches!(part, Some(None)));
    let unbound = if operator.is_empty() { !letters } else { given == 0 };
    if later || unbound {
        return operator.is_empty().then_some(None);
    }
    let from = |inclusive| Bound { numbers, before: before.into(), inclusive };
    // The first version that is no longer one with the first `keep` numbers.
    let after = |keep: usize| -> Option<Option<Bound>> {
        let Some(last) = keep.checked_sub(1) else { return Some(None) };
        let mut next = [0; 3];
        next[..keep].copy_from_slice(&numbers[..keep]);
        next[last] = next[last].checked_add(1)?;
        Some(Some(Bound { numbers: next, before: "".into(), inclusive: false }))
    };
    let past = |keep| Some(after(keep)?.map(|bound| Bound { inclusive: true, ..bound }));
    let bounds = match operator {
        ">=" => (Some(from(true)), None),
        "<" => (None, Some(from(false))),
        ">" if given == 3 => (Some(from(false)), None),
        ">" => (past(given)?, None),
        "<=" if given == 3 => (None, Some(from(true))),
        "<=" => (None, after(given)?),
        "~" => (Some(from(true)), after(given.min(2))?),
        "^" => {
            let leading = numbers.iter().position(|number| *number != 0).unwrap_or(2);
            (Some(from(true)), after(given.min(leading + 1))?)
        }
        _ => (Some(from(true)), after(given)?),
    };
    Some(Some(bounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        let (text, upper) = text.split_once(',').map_or((text, None), |(a, b)| (a, Some(b)));
        read(text, upper).unwrap().unwrap()
    }

    #[test]
    fn ranges_hold_what_npm_and_cargo_say() {
        for (text, within, without) in [
            ("^1.2", "1.2.0 1.9.9 v1.2.3 1.3", "1.1.9 2.0.0 2.0.0-rc.1 latest v2"),
            ("^0.2", "0.2.0 0.2.9", "0.3.0 0.1.9"),
            ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
            ("^0", "0.0.1 0.9.0", "1.0.0"),
            ("^1.2.3-rc.2", "1.2.3-rc.2 1.2.3-rc.10 1.2.3 1.3.0", "1.2.3-rc.1 1.3.0-rc.3"),
            ("~1.2", "1.2.0 1.2.9", "1.3.0 1.1.0"),
            ("~1", "1.0.0 1.9.0", "2.0.0"),
            ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"),
            (">=1,<2", "1.0.0 1.9.9 v1", "0.9.0 2.0.0 v2"),
            (">1", "2.0.0 v2", "1.9.9 v1"),
            (">1.2.3", "1.2.4", "1.2.3"),
            ("<=1.2", "1.2.9 0.1.0", "1.3.0"),
            ("<=1.2.3", "1.2.3", "1.2.4"),
            ("1.x", "1.0.0 v1.5", "2.0.0 0.1.0"),
            ("1.2.*", "1.2.7", "1.3.0"),
            ("*", "0.0.0 9.9.9", "latest 1.0.0-a"),
            (">=1.0.0-alpha,<1.0.0-beta", "1.0.0-alpha 1.0.0-alpha.1", "1.0.0-beta 1.0.0"),
        ] {
            let range = range(text);
            for version in within.split(' ') {
                assert!(range.contains(version), "{version} is in {text}");
            }
            for version in without.split(' ') {
                assert!(!range.contains(version), "{version} is not in {text}");
            }
        }
    }

    #[test]
    fn versions_are_ordered_as_the_standard_lists_them() {
        // Semantic Versioning 2.0.0 §11.
        let order = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 \
                     1.0.0-beta.11 1.0.0-rc.1 1.0.0 2.0.0 2.1.0 2.1.1";
        let order: Vec<_> = order.split(' ').map(|text| Semver::read(text).unwrap()).collect();
        assert!(order.is_sorted_by(|a, b| a < b));
        assert_eq!(Semver::read("1.0.0+build.1"), Semver::read("v1"));
        for text in ["", "latest", "1.2.3.4", "01.2.3", "1.0.0-01", "1.x", "1.2-rc", "-1"] {
            assert_eq!(Semver::read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_a_version_is_no_range() {
        for text in ["1.2.3", "v2", "latest", "1.x.3", "main", "x-ray"] {
            assert!(matches!(read(text, None), Ok(None)), "{text}");
        }
        for text in ["^", "^x.1", ">=a", "~latest", "^18446744073709551615"] {
            assert!(matches!(read(text, None), Err(BadSelector::Range(_))), "{text}");
        }
    }
}

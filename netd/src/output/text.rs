//! Small things said alike everywhere: names of others made harmless, times, round trips, paths.

use std::time::Duration;

use crate::config::duration;

/// The mark of success, of a warning, and of a failure; ASCII where the locale is not UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// `✓` or `ok`.
    pub good: &'static str,
    /// `!` or `warn`.
    pub warning: &'static str,
    /// `✗` or `fail`.
    pub bad: &'static str,
}

/// The marks of this locale.
#[must_use]
pub fn marks() -> Marks {
    if is_utf8() {
        Marks { good: "✓", warning: "!", bad: "✗" }
    } else {
        Marks { good: "ok", warning: "warn", bad: "fail" }
    }
}

/// Whether the terminal reads UTF-8: the first of `LC_ALL`, `LC_CTYPE`, `LANG` that is set says.
/// None set is taken for UTF-8: that is what containers look like.
#[must_use]
pub fn is_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    set.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// `text` without anything a terminal would obey: what another node sent is not trusted.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// As [`plain`], but lines stay lines.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_obeyed(c) { '\u{fffd}' } else { c }).collect()
}

/// Control characters, and the marks that reorder text (Unicode UAX #9 §2).
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A round trip: `11ms`, `0.4ms`, `38us`.
#[must_use]
pub fn round_trip(nanoseconds: u64) -> String {
    milliseconds(Duration::from_nanos(nanoseconds))
}

/// A cost in microseconds, `∞` when there is none.
#[must_use]
pub fn cost(microseconds: Option<u64>) -> String {
    match microseconds {
        Some(cost) => milliseconds(Duration::from_micros(cost)),
        None if is_utf8() => "∞".to_owned(),
        None => "inf".to_owned(),
    }
}

/// A short time with two digits that say something.
#[must_use]
pub fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        _ if ms >= 10.0 => format!("{ms:.0}ms"),
        _ if ms >= 0.1 => format!("{ms:.1}ms"),
        _ if ms == 0.0 => "0ms".to_owned(),
        _ => format!("{:.0}us", ms * 1e3),
    }
}

/// An age: `2h14m`, `31s`.
#[must_use]
pub fn age(milliseconds: u64) -> String {
    duration::show(Duration::from_secs(milliseconds / 1000))
}

/// An id, short: `4c1d…9e`.
#[must_use]
pub fn short_id(id: &str) -> String {
    let letters: Vec<char> = id.chars().collect();
    match letters.as_slice() {
        [first @ .., a, b] if letters.len() > 8 => {
            let dots = if is_utf8() { "…" } else { ".." };
            format!("{}{dots}{a}{b}", first[..4].iter().collect::<String>())
        }
        _ => id.to_owned(),
    }
}

/// Labels as `key=value, key=value`.
pub fn labels<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let all: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.join(", ")
}

/// `1 node`, `2 nodes`.
#[must_use]
pub fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// The nearest of `known` to a mistyped `word`, if any is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// How unlike a word may be and still be suggested: 1 is the same.
    const ALIKE: f64 = 0.75;
    known
        .into_iter()
        .map(|one| (strsim::jaro_winkler(one, word), one))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, one)| one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_taken_out() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(plain_lines("a\nb\r"), "a\nb\u{fffd}");
    }

    #[test]
    fn times_have_two_digits_that_say_something() {
        for (nanoseconds, text) in [
            (0, "0ms"),
            (38_000, "38us"),
            (400_000, "0.4ms"),
            (11_200_000, "11ms"),
            (151_000_000, "151ms"),
        ] {
            assert_eq!(round_trip(nanoseconds), text);
        }
        assert_eq!(age(8_040_000), "2h14m");
    }

    #[test]
    fn a_mistyped_word_finds_its_neighbour_and_nonsense_finds_none() {
        let known = ["greeter", "echo", "clock"];
        assert_eq!(nearest("greter", known), Some("greeter"));
        assert_eq!(nearest("zzz", known), None);
    }
}

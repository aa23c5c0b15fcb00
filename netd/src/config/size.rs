//! Sizes as they are written: `512MiB`, `2GB`, or bytes.

/// Units, the longest name first.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Reads a size.
///
/// # Errors
/// What is expected in its place.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size, as in 512MiB or 2GB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit.trim() {
        "" => 1,
        unit => {
            let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
            known.map(|(_, bytes)| *bytes).ok_or_else(wrong)?
        }
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// A size in the largest unit that it is a whole number of.
#[must_use]
pub fn show(bytes: u64) -> String {
    let whole = |(_, unit): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*unit);
    let binary = UNITS[..4].iter().rev().find(whole);
    binary.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// A size for people, with three digits or fewer before its unit: `1.4 MiB`.
#[must_use]
pub fn about(bytes: u64) -> String {
    let unit = UNITS[..4].iter().rev().find(|(_, unit)| bytes >= *unit);
    match unit {
        // Of a size nobody counts the last digits.
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_one_digit_behind_the_dot() {
        let all = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")];
        for (bytes, text) in all {
            assert_eq!(about(bytes), text);
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("512MiB", 512 << 20), ("2GB", 2_000_000_000), ("7", 7), ("1 kib", 1024), ("0", 0)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "1XB", "99999999999TiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            (show(1 << 30), show(1536), show(0)),
            ("1GiB".into(), "1536B".into(), "0B".into())
        );
    }
}

//! Times as people write them: `250ms`, `20s`, `1h30m`, `72h`, `3d`.

use std::time::Duration;

/// The longest time that is accepted anywhere: ten years.
const MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Reads a time: one or more of a whole number with `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// What a time looks like, for a person.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: write 250ms, 20s, 15m, 1h30m or 3d");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let milliseconds: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= MAX)
            .ok_or_else(|| format!("{text:?} is too long a time"))?;
    }
    Ok(total)
}

/// Writes a time as [`parse`] reads it, with the two largest units that say something.
#[must_use]
pub fn show(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds == 0 {
        return match time.as_millis() {
            0 => "0s".to_owned(),
            ms => format!("{ms}ms"),
        };
    }
    let parts = [
        (seconds / 86_400, 'd'),
        (seconds / 3_600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let from = parts.iter().position(|(number, _)| *number > 0).unwrap_or(3);
    let shown = parts.iter().skip(from).take(2).filter(|(number, _)| *number > 0);
    shown.map(|(number, unit)| format!("{number}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_alike() {
        for (text, seconds) in
            [("20s", 20), ("15m", 900), ("1h30m", 5_400), ("3d", 259_200), ("2h14m", 8_040)]
        {
            let time = parse(text).unwrap();
            assert_eq!((time.as_secs(), show(time).as_str()), (seconds, text));
        }
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(show(Duration::from_millis(250)), "250ms");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "20", "s", "-5s", "1.5h", "5x", "99999999999d", "18446744073709551616s"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}

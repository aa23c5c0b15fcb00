//! Durations and sizes as people write them on a command line.

use std::time::Duration;

/// Bytes in a GiB.
pub const GIB: f64 = (1_u64 << 30) as f64;

/// Reads `5s`, `200ms`, `2m` or `0.5s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split =
        text.find(|c: char| c.is_ascii_alphabetic()).ok_or("a unit is missing: ms, s, m")?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("{unit:?} is not ms, s or m")),
    };
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}

/// Reads a number of bytes: `4096`, `64KiB`, `4MiB` or `1GiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{number:?} is not a whole number"))?;
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(format!("{unit:?} is not B, KiB, MiB or GiB")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "too many bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_written() {
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("0.5s"), Ok(Duration::from_millis(500)));
        assert!(duration("5").is_err());
        assert!(duration("-1s").is_err());
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("128"), Ok(128));
        assert!(size("1GB").is_err());
        assert!(size("99999999999999GiB").is_err());
    }
}

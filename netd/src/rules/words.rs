//! The values in a rule: what each looks like, and what it means.

use std::time::Duration;

use proto::grant::Pattern;
use proto::rule::{HeaderTest, Key, MAX_WAIT, Part, Test};
use proto::{Selector, ServiceName, Target, UnixTime};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::duration;

/// A value that is written as one text.
pub trait Text: Sized {
    /// As it is written; [`Text::read`] reads the same.
    fn write(&self) -> String;
    /// From what is written.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    fn read(text: &str) -> Result<Self, String>;
}

/// A value in its written form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word<T>(pub T);

impl<T: Text> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

impl<'de, T: Text> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::read(&text).map(Self).map_err(D::Error::custom)
    }
}

/// What reads and writes itself already.
macro_rules! as_it_is {
    ($($name:ty),*) => {$(
        impl Text for $name {
            fn write(&self) -> String {
                self.to_string()
            }

            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|why| format!("{why}"))
            }
        }
    )*};
}

as_it_is!(ServiceName, Selector, Target);

impl Text for Pattern {
    fn write(&self) -> String {
        self.as_str().to_owned()
    }

    fn read(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|_| {
            format!("{text:?} is no pattern; write a name, a prefix and *, or * alone")
        })
    }
}

impl Text for Key {
    fn write(&self) -> String {
        self.to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            format!("{text:?} is no key; write header:NAME, cookie:NAME, caller or node")
        })
    }
}

impl Text for Part {
    fn write(&self) -> String {
        let (whole, rest) = (self.hundredths() / 100, self.hundredths() % 100);
        match (rest, rest % 10) {
            (0, _) => format!("{whole}%"),
            (_, 0) => format!("{whole}.{}%", rest / 10),
            (_, _) => format!("{whole}.{rest:02}%"),
        }
    }

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no share; write 10% or 0.25%, 100% at most");
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(rest) || whole.len() > 3 || rest.len() > 2 {
            return Err(wrong());
        }
        let number = |part: &str| part.parse::<u16>().map_err(|_| wrong());
        let rest = number(rest)? * if rest.len() == 1 { 10 } else { 1 };
        // At most 999 and 99: no overflow within 32 bits.
        let hundredths = u32::from(number(whole)?) * 100 + u32::from(rest);
        u16::try_from(hundredths).ok().and_then(Self::of).ok_or_else(wrong)
    }
}

/// A time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u32);

impl Text for Millis {
    fn write(&self) -> String {
        let (number, unit) = match self.0 {
            0 => (0, "s"),
            ms if ms % 3_600_000 == 0 => (ms / 3_600_000, "h"),
            ms if ms % 60_000 == 0 => (ms / 60_000, "m"),
            ms if ms % 1_000 == 0 => (ms / 1_000, "s"),
            ms => (ms, "ms"),
        };
        format!("{number}{unit}")
    }

    fn read(text: &str) -> Result<Self, String> {
        let time = duration::parse(text)?;
        if time > Duration::from_millis(u64::from(MAX_WAIT)) {
            return Err(format!("{text:?} is too long; there is an hour at most"));
        }
        let millis = u32::try_from(time.as_millis()).map_err(|_| "too long".to_owned())?;
        Ok(Self(millis))
    }
}

impl Text for UnixTime {
    fn write(&self) -> String {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
    }

    fn read(text: &str) -> Result<Self, String> {
        let at: Option<jiff::Timestamp> = text.parse().ok();
        let seconds = at.and_then(|at| u64::try_from(at.as_second()).ok());
        seconds.map(Self).ok_or_else(|| {
            format!("{text:?} is no moment; write 2026-12-24T18:00:00Z, or with +01:00")
        })
    }
}

impl Text for HeaderTest {
    fn write(&self) -> String {
        let name = &self.name;
        match &self.test {
            Test::Present => name.clone(),
            Test::Absent => format!("!{name}"),
            Test::Is(value) => format!("{name}={value}"),
            Test::IsNot(value) => format!("{name}!={value}"),
            Test::Prefix(value) => format!("{name}^={value}"),
        }
    }

    /// `name`, `!name`, `name=value`, `name!=value` or `name^=beginning`.
    fn read(text: &str) -> Result<Self, String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let (absent, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (name, says) = rest.split_at(end);
        let value = |sign: &str| says.strip_prefix(sign).map(str::to_owned);
        let test = if says.is_empty() {
            Some(if absent { Test::Absent } else { Test::Present })
        } else {
            let is = || value("=").map(Test::Is);
            is().or_else(|| value("!=").map(Test::IsNot))
                .or_else(|| value("^=").map(Test::Prefix))
                .filter(|_| !absent)
        };
        match test {
            Some(test) if !name.is_empty() => Ok(Self { name: name.to_ascii_lowercase(), test }),
            Some(_) | None => Err(format!(
                "{text:?} asks nothing of a header; write name, !name, name=value, name!=value or \
                 name^=beginning"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same<T: Text>(text: &str) -> T {
        let value = T::read(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(value.write(), text);
        value
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (text, hundredths) in [
            ("0%", 0),
            ("10%", 1_000),
            ("0.25%", 25),
            ("0.05%", 5),
            ("12.5%", 1_250),
            ("100%", 10_000),
        ] {
            assert_eq!(same::<Part>(text).hundredths(), hundredths);
        }
        for (text, ms) in [("250ms", 250), ("1500ms", 1_500), ("90s", 90_000), ("1h", 3_600_000)] {
            assert_eq!(same::<Millis>(text), Millis(ms));
        }
        assert_eq!(same::<UnixTime>("2026-11-25T22:00:00Z"), UnixTime(1_795_644_000));
        for text in ["x-dev", "!x-dev", "x-dev=ada", "x-dev!=a=b", "x-dev^=", "x.y_z=!"] {
            same::<HeaderTest>(text);
        }
        for text in ["header:x-user", "cookie:Session", "caller", "node"] {
            same::<Key>(text);
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_an_example() {
        for text in ["10", "101%", "-1%", "1.234%", "%", ".5%", "1e1%", "99999%"] {
            assert!(Part::read(text).is_err_and(|why| why.contains("write 10%")), "{text}");
        }
        for text in ["", "!", "=x", "!x=y", "x y", "x~=y", "x:y"] {
            assert!(HeaderTest::read(text).is_err_and(|why| why.contains("name=value")), "{text}");
        }
        for text in ["soon", "2h", "-1s"] {
            assert!(Millis::read(text).is_err(), "{text}");
        }
        assert!(UnixTime::read("tomorrow").is_err_and(|why| why.contains("2026-")));
        assert!(Pattern::read("a*b").is_err() && Key::read("header:").is_err());
    }
}

//! The words behind a service: a method, data, fields of the request, headers, and our own options.
//!
//! Options that are ours are the global ones and `-H`; every other `--name value` is a field of
//! the request, and so is everything behind `--`.

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum as _;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::schema::{Method, Schema};
use crate::cli::Global;
use crate::config::duration;
use crate::error::{Exit, Problem};
use crate::output::{Format, Output};

/// Methods that make a call an HTTP one (RFC 9110 §9).
const HTTP_METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What was asked for.
#[derive(Debug)]
pub struct Words {
    /// The method: `Greeter.Hello`, `hello`, `GET`; empty when none was given.
    pub method: String,
    /// What follows the method: JSON, `@FILE`, a path.
    pub rest: Vec<String>,
    /// Fields of the request.
    pub fields: Vec<(String, String)>,
    /// Headers to send.
    pub headers: HeaderMap,
    /// Our own options, wherever they stood.
    pub global: Global,
    /// The deadline that the service is told, when one was given.
    pub deadline: Option<Duration>,
    /// Help was asked for.
    pub help: bool,
}

impl Words {
    /// Takes the words apart.
    ///
    /// # Errors
    /// M4001 for an option that lacks its value or a header that is none.
    pub fn read(words: Vec<String>, global: &Global) -> Result<Self, Problem> {
        let mut read = Self {
            method: String::new(),
            rest: Vec::new(),
            fields: Vec::new(),
            headers: HeaderMap::new(),
            global: global.clone(),
            deadline: global.timeout,
            help: false,
        };
        let mut words = words.into_iter();
        let mut ours = true;
        while let Some(word) = words.next() {
            if ours && word == "--" {
                ours = false;
            } else if let Some(option) = word.strip_prefix("--").filter(|name| !name.is_empty()) {
                read.long(option, ours, &mut words)?;
            } else if let (true, Some(letter)) = (ours, word.strip_prefix('-')) {
                // A lone `-` and negative numbers are values.
                if letter.is_empty() || letter.starts_with(|c: char| c.is_ascii_digit()) {
                    read.value(word);
                } else {
                    read.short(letter, &mut words)?;
                }
            } else {
                read.value(word);
            }
        }
        Ok(read)
    }

    /// How this run prints.
    #[must_use]
    pub fn output(&self) -> Output {
        self.global.output()
    }

    /// How long to wait for the node, and for an answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.global.timeout()
    }

    /// Whether this is the HTTP form.
    #[must_use]
    pub fn is_http(&self) -> bool {
        HTTP_METHODS.contains(&self.method.as_str())
            && self.rest.first().is_none_or(|path| path.starts_with('/'))
    }

    /// The request as JSON: what was given, with the fields on top.
    ///
    /// # Errors
    /// M7002 when it is no JSON object, or fields were given without a schema.
    pub fn message(&self, schema: &Schema, method: &Method) -> Result<Value, Problem> {
        let wrong = |why: String| {
            Problem::new("M7002", Exit::Usage, "the request is not a JSON object").why(why).attempt(
                format!("micro call {} {} '{}'", schema.service(), method.name, method.example),
                "",
            )
        };
        let mut message = match self.rest.as_slice() {
            [] => Value::Object(serde_json::Map::new()),
            [one] => {
                let bytes: Bytes = super::data(one)?;
                serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?
            }
            [_, extra, ..] => return Err(wrong(format!("{extra:?} is one word too many"))),
        };
        let Value::Object(object) = &mut message else {
            return Err(wrong("it is JSON, but not an object".to_owned()));
        };
        for (name, text) in &self.fields {
            let (name, value) = schema.field(method, name, text)?;
            // A repeated field is given by giving it again.
            if let Some(Value::Array(list)) = object.get_mut(&name) {
                match value {
                    Value::Array(more) => list.extend(more),
                    one @ (Value::Null
                    | Value::Bool(_)
                    | Value::Number(_)
                    | Value::String(_)
                    | Value::Object(_)) => list.push(one),
                }
            } else {
                object.insert(name, value);
            }
        }
        Ok(message)
    }

    fn value(&mut self, word: String) {
        if self.method.is_empty() { self.method = word } else { self.rest.push(word) }
    }

    fn long(
        &mut self,
        option: &str,
        ours: bool,
        words: &mut std::vec::IntoIter<String>,
    ) -> Result<(), Problem> {
        let (name, attached) = option
            .split_once('=')
            .map_or((option, None), |(name, value)| (name, Some(value.to_owned())));
        if ours {
            match name {
                "help" => self.help = true,
                "verbose" => self.global.verbose = true,
                "quiet" => self.global.quiet = true,
                "no-headers" => self.global.no_headers = true,
                "header" | "output" | "timeout" | "color" | "socket" | "config" => {
                    let value = attached.or_else(|| words.next()).ok_or_else(|| lacks(option))?;
                    self.option(name, &value)?;
                }
                _ => self.field(name, attached, words),
            }
            return Ok(());
        }
        self.field(name, attached, words);
        Ok(())
    }

    fn short(
        &mut self,
        letter: &str,
        words: &mut std::vec::IntoIter<String>,
    ) -> Result<(), Problem> {
        match letter {
            "v" => self.global.verbose = true,
            "q" => self.global.quiet = true,
            "h" => self.help = true,
            "H" => self.option("header", &words.next().ok_or_else(|| lacks("-H"))?)?,
            "o" => self.option("output", &words.next().ok_or_else(|| lacks("-o"))?)?,
            _ => match (letter.strip_prefix('H'), letter.strip_prefix('o')) {
                (Some(header), _) => self.option("header", header)?,
                (None, Some(form)) => self.option("output", form)?,
                (None, None) => {
                    return Err(Problem::new(
                        "M4001",
                        Exit::Usage,
                        format!("there is no option \"-{letter}\""),
                    )
                    .attempt("micro call --help", ""));
                }
            },
        }
        Ok(())
    }

    /// An option without a value is `true`: no other type can be left out.
    fn field(
        &mut self,
        name: &str,
        attached: Option<String>,
        words: &mut std::vec::IntoIter<String>,
    ) {
        let next_is_value = words.as_slice().first().is_some_and(|next| {
            !next.starts_with('-')
                || next[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.')
        });
        let value = match attached {
            Some(value) => value,
            None if next_is_value => words.next().unwrap_or_default(),
            None => "true".to_owned(),
        };
        self.fields.push((name.to_owned(), value));
    }

    fn option(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let wrong = |why: String| {
            let what = format!("{value:?} does not fit --{name}");
            Problem::new("M4001", Exit::Usage, what).why(why)
        };
        match name {
            "header" => {
                let (name, value) = header(value).map_err(wrong)?;
                self.headers.append(name, value);
            }
            "socket" => self.global.socket = Some(value.into()),
            "config" => self.global.config = Some(value.into()),
            "output" => self.global.output = Format::from_str(value, true).map_err(wrong)?,
            "timeout" => {
                let timeout = duration::parse(value).map_err(wrong)?;
                (self.global.timeout, self.deadline) = (Some(timeout), Some(timeout));
            }
            _ => {
                let color = crate::output::Color::from_str(value, true).map_err(wrong)?;
                crate::output::choose_color(color);
            }
        }
        Ok(())
    }
}

fn lacks(option: &str) -> Problem {
    Problem::new("M4001", Exit::Usage, format!("{option} lacks its value"))
        .attempt("micro call --help", "")
}

/// `key: value`.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write KEY:VALUE")?;
    let name = name.trim().parse::<HeaderName>().map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        global: Global,
    }

    fn read(line: &str) -> Result<Words, Problem> {
        let words = line.split(' ').map(str::to_owned).collect();
        Words::read(words, &Only::parse_from(["micro"]).global)
    }

    #[test]
    fn fields_headers_and_our_options_are_told_apart() {
        let words =
            read("hello --name Ada --age=36 --loud -H x-user:ada -v --timeout 2s -o json").unwrap();
        assert_eq!(words.method, "hello");
        let fields: Vec<_> =
            words.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, [("name", "Ada"), ("age", "36"), ("loud", "true")]);
        assert_eq!(words.headers["x-user"], "ada");
        assert!(words.global.verbose && words.output().is_json());
        assert_eq!(words.timeout(), Duration::from_secs(2));
    }

    #[test]
    fn behind_two_dashes_everything_is_a_field() {
        let words = read("set --x -5 -- --timeout 3 --verbose").unwrap();
        assert_eq!(words.fields[0], ("x".to_owned(), "-5".to_owned()));
        assert_eq!(words.fields[1], ("timeout".to_owned(), "3".to_owned()));
        assert!(!words.global.verbose);
    }

    #[test]
    fn http_is_told_by_its_method_and_path() {
        for (line, http) in [
            ("GET /health", true),
            ("POST /orders @order.json", true),
            ("GET", true),
            ("Greeter.Hello {}", false),
            ("get /health", false),
            ("GET {}", false),
        ] {
            assert_eq!(read(line).unwrap().is_http(), http, "{line}");
        }
    }

    #[test]
    fn what_does_not_fit_is_wrong_usage() {
        for line in ["m -H nocolon", "m -o xml", "m --timeout", "m -x", "m --timeout soon"] {
            assert_eq!(read(line).unwrap_err().exit, Exit::Usage, "{line}");
        }
    }
}

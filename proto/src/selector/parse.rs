//! From text to requirements, in one pass.

use std::borrow::Cow;

use super::requirement::is_of_key;
use super::{BadSelector, MAX_REQUIREMENTS, MAX_TEXT, MAX_VALUES, Requirement};

/// The requirements that `text` lists.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, BadSelector> {
    if text.len() > MAX_TEXT {
        return Err(BadSelector::TooMany { what: "bytes", max: MAX_TEXT });
    }
    let mut all = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        // Empty ones are left out, as in "a=1,".
        if let Some(more) = rest.strip_prefix([',', '&']) {
            rest = more.trim_start();
            continue;
        }
        if all.len() > MAX_REQUIREMENTS {
            break;
        }
        let (one, more) = requirement(rest)?;
        all.push(one);
        rest = more.trim_start();
    }
    Ok(all)
}

fn requirement(text: &str) -> Result<(Requirement, &str), BadSelector> {
    let bare = text.strip_prefix('!');
    let from_key = bare.unwrap_or(text);
    let end = from_key.find(|c| !is_of_key(c)).unwrap_or(from_key.len());
    let (key, after) = from_key.split_at(end);
    if key.is_empty() || after.starts_with(['~', '^']) {
        return Err(BadSelector::Key(shown(text)));
    }
    let rest = after.trim_start();
    let (not, values, rest) = if at_end(rest) || rest.starts_with('?') {
        (bare.is_some(), Vec::new(), rest)
    } else if bare.is_some() || rest.starts_with("==") {
        return Err(BadSelector::Operator(shown(rest)));
    } else if let Some(rest) = rest.strip_prefix('=') {
        let (value, rest) = value(rest)?;
        (false, vec![value], rest)
    } else if let Some(rest) = rest.strip_prefix("!=") {
        let (value, rest) = value(rest)?;
        (true, vec![value], rest)
    } else if let Some(rest) = word(rest, "in") {
        let (values, rest) = list(rest)?;
        (false, values, rest)
    } else if let Some(rest) = word(rest, "notin") {
        let (values, rest) = list(rest)?;
        (true, values, rest)
    } else {
        return Err(BadSelector::Operator(shown(rest)));
    };
    let rest = rest.trim_start();
    let prefer = rest.strip_prefix('?');
    let rest = prefer.unwrap_or(rest).trim_start();
    if !at_end(rest) {
        return Err(BadSelector::Quote(shown(rest)));
    }
    let values = values.iter().map(|(text, literal)| (&**text, *literal));
    Ok((Requirement::new(key, not, values)?.preferred(prefer.is_some()), rest))
}

/// A value, and whether it stood in quotes.
type Read<'a> = (Cow<'a, str>, bool);

/// The value of `=`: up to the next requirement, without the `?` that prefers.
fn value(text: &str) -> Result<(Read<'_>, &str), BadSelector> {
    let text = text.trim_start();
    if let Some(inside) = text.strip_prefix('"') {
        let (value, rest) = quoted(text, inside)?;
        return Ok(((value, true), rest));
    }
    let end = text.find([',', '&', '(', ')', '"']).unwrap_or(text.len());
    let whole = text[..end].trim_end();
    let bare = whole.strip_suffix('?').unwrap_or(whole);
    Ok(((Cow::Borrowed(bare.trim_end()), false), &text[bare.len()..]))
}

fn list(text: &str) -> Result<(Vec<Read<'_>>, &str), BadSelector> {
    let bad = || BadSelector::List(shown(text));
    let mut rest = text.strip_prefix('(').ok_or_else(bad)?;
    let mut values = Vec::new();
    loop {
        rest = rest.trim_start();
        let value = if let Some(inside) = rest.strip_prefix('"') {
            let (value, more) = quoted(rest, inside)?;
            rest = more;
            (value, true)
        } else {
            let end = rest.find([',', '(', ')', '"', '&']).ok_or_else(bad)?;
            let value = rest[..end].trim_end();
            rest = &rest[end..];
            if value.is_empty() {
                return Err(bad());
            }
            (Cow::Borrowed(value), false)
        };
        values.push(value);
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix(')') {
            return Ok((values, rest));
        }
        if values.len() > MAX_VALUES {
            return Err(BadSelector::TooMany { what: "values of one key", max: MAX_VALUES });
        }
        rest = rest.strip_prefix(',').ok_or_else(bad)?;
    }
}

/// What stands in the quotes that `inside` begins after, and what follows them.
fn quoted<'a>(whole: &str, inside: &'a str) -> Result<(Cow<'a, str>, &'a str), BadSelector> {
    let mut value = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Cow::Owned(value), &inside[at + 1..])),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => break,
            },
            c => value.push(c),
        }
    }
    Err(BadSelector::Quote(shown(whole)))
}

/// What follows `word`, if `text` begins with it and not with a longer one.
fn word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    rest.starts_with(|c: char| c.is_whitespace() || c == '(').then(|| rest.trim_start())
}

fn at_end(text: &str) -> bool {
    text.is_empty() || text.starts_with([',', '&'])
}

/// As much of a text as an error shows.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

//! Names of services.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The namespace of a name that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The text of [`ServiceName::wildcard`].
pub const WILDCARD: &str = "*";

/// The longest name with its namespace, in bytes: what DNS allows (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 253;

/// `[namespace/]service`, go-micro names with dots included. Case is significant.
///
/// A name in the namespace [`DEFAULT_NAMESPACE`] is written without it, so that the text of a name
/// is the key under which it is looked up, and a gRPC path needs no copy to be looked up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// Why a text is not the name of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing at all, or nothing after the namespace.
    #[error("a service name cannot be empty")]
    Empty,
    /// Longer than [`MAX_NAME`] bytes.
    #[error("a service name has at most {MAX_NAME} bytes")]
    TooLong,
    /// A character outside letters, digits, `.`, `-`, `_`, or a second `/`.
    #[error("a service name has letters, digits, '.', '-', '_' and at most one '/', not {0:?}")]
    Character(char),
}

impl ServiceName {
    /// `*`: the name under which a node keeps ways to what nobody offers. No text is read as it, so no
    /// program can register it.
    #[must_use]
    pub fn wildcard() -> Self {
        Self(WILDCARD.into())
    }

    /// The whole text; the key of lookups.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tenant.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or(DEFAULT_NAMESPACE, |(namespace, _)| namespace)
    }

    /// The name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// A name inside `namespace`.
    ///
    /// # Errors
    /// [`BadName`] says what is wrong with either part.
    pub fn within(namespace: &str, name: &str) -> Result<Self, BadName> {
        if namespace == DEFAULT_NAMESPACE {
            name.parse()
        } else {
            format!("{namespace}/{name}").parse()
        }
    }

    fn check(text: &str) -> Result<(), BadName> {
        if text.len() > MAX_NAME {
            return Err(BadName::TooLong);
        }
        let mut parts = text.splitn(3, '/');
        if parts.clone().any(str::is_empty) {
            return Err(BadName::Empty);
        }
        if parts.nth(2).is_some() {
            return Err(BadName::Character('/'));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
        text.chars().find(|c| !allowed(*c)).map_or(Ok(()), |c| Err(BadName::Character(c)))
    }
}

impl FromStr for ServiceName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let text = text.strip_prefix("default/").unwrap_or(text);
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wildcard_is_no_name_that_a_program_can_have() {
        assert_eq!("*".parse::<ServiceName>(), Err(BadName::Character('*')));
        assert_eq!(ServiceName::wildcard().as_str(), "*");
    }

    #[test]
    fn a_go_micro_name_is_one_name_in_the_default_namespace() {
        let name: ServiceName = "go.micro.srv.greeter".parse().unwrap();
        assert_eq!((name.namespace(), name.name()), ("default", "go.micro.srv.greeter"));
        assert_eq!("default/go.micro.srv.greeter".parse(), Ok(name));
    }

    #[test]
    fn a_namespace_is_told_apart_by_its_slash() {
        let name: ServiceName = "pay/orders".parse().unwrap();
        assert_eq!((name.namespace(), name.name()), ("pay", "orders"));
        assert_eq!(ServiceName::within("pay", "orders"), Ok(name));
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        for (text, why) in [
            ("", BadName::Empty),
            ("/x", BadName::Empty),
            ("x/", BadName::Empty),
            ("a/b/c", BadName::Character('/')),
            ("a b", BadName::Character(' ')),
            ("a\u{1b}[m", BadName::Character('\u{1b}')),
            ("ä", BadName::Character('ä')),
        ] {
            assert_eq!(text.parse::<ServiceName>(), Err(why), "{text:?}");
        }
        assert_eq!("x".repeat(254).parse::<ServiceName>(), Err(BadName::TooLong));
    }
}

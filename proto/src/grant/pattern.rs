//! Names, as a grant writes them.

use crate::error::DecodeError;

/// Which names a grant covers: `*` all of them, `prefix*` those that start so, else the one name.
/// Deliberately nothing more: no expressions in identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern from its text, at most 253 bytes.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for an empty text or a `*` anywhere but at the end.
    pub fn new(text: impl Into<String>) -> Result<Self, DecodeError> {
        let text = text.into();
        let stem = text.strip_suffix('*').unwrap_or(&text);
        if text.is_empty() || text.len() > crate::name::MAX_NAME || stem.contains('*') {
            return Err(DecodeError::Invalid("pattern"));
        }
        Ok(Self(text))
    }

    /// The pattern that covers every name.
    #[must_use]
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// Whether `name` is covered.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.0 == name,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_at_the_end_or_nowhere() {
        assert!(Pattern::new("a*b").is_err() && Pattern::new("*a").is_err());
        assert!(Pattern::new("").is_err() && Pattern::new("a".repeat(254)).is_err());
        assert!(Pattern::any().covers("anything") && Pattern::new("a.*").unwrap().covers("a.b"));
        assert!(
            !Pattern::new("a.*").unwrap().covers("a") && !Pattern::new("a").unwrap().covers("ab")
        );
    }
}

//! Secrets by reference: `file:PATH` and `env:NAME` stand for what is there.

use std::path::Path;

use zeroize::Zeroizing;

/// The longest secret that is read; a ticket has at most 4096 characters.
const MAX_SECRET: u64 = 16 * 1024;

/// A text that is wiped when dropped, and that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text. Whoever calls this means to use it, not to show it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn trimmed(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// What `text` stands for: the contents of a file, of a variable, or itself.
///
/// # Errors
/// Why it cannot be read, for a person; never any of the secret.
pub fn read(text: &str) -> Result<Secret, String> {
    if let Some(path) = text.strip_prefix("file:") {
        return read_file(Path::new(path));
    }
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name)
            .map(|value| Secret::trimmed(&value))
            .map_err(|_| format!("the variable {name} is not set, or not text"));
    }
    Ok(Secret::trimmed(text))
}

/// A secret from standard input: one line, or all of it.
///
/// # Errors
/// Why it cannot be read.
pub fn read_stdin() -> Result<Secret, String> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .take(MAX_SECRET)
        .read_to_string(&mut text)
        .map_err(|error| format!("standard input cannot be read: {error}"))?;
    Ok(Secret::trimmed(&text))
}

fn read_file(path: &Path) -> Result<Secret, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_SECRET {
        return Err(format!("{} is too large for a secret", path.display()));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    Ok(Secret::trimmed(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_where_it_is_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ticket");
        std::fs::write(&path, "mj1abc\n").unwrap();
        assert_eq!(read(&format!("file:{}", path.display())).unwrap().expose(), "mj1abc");
        assert_eq!(read(" mj1abc ").unwrap().expose(), "mj1abc");
        assert!(read("env:MICRO_NO_SUCH_VARIABLE").unwrap_err().contains("not set"));
        assert!(read("file:/no/such/file").unwrap_err().contains("cannot be read"));
    }
}

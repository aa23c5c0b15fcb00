//! The environment: `MICRO_NODE_` with section and key, and the names of 2019 with a warning.
//!
//! go-micro programs read some of the older names as the address of a proxy to send every call to,
//! so a name of ours never is one of theirs.

use super::layers::{KEYS, Layer, Origin};
use super::values::Raw;

/// What every name of ours begins with.
const PREFIX: &str = "MICRO_NODE_";
/// Names of ours that are not keys of the file.
const NOT_KEYS: [&str; 2] = ["MICRO_NODE_CONFIG", "MICRO_NODE_SOCKET"];

/// Older names, and the key each one meant.
const OLDER: [(&str, &str); 5] = [
    ("MICRO_NETWORK", "network.name"),
    ("MICRO_NETWORK_ADDRESS", "network.address"),
    ("MICRO_NETWORK_ADVERTISE", "network.advertise"),
    ("MICRO_NETWORK_NODES", "network.join"),
    ("MICRO_PROXY_ADDRESS", "proxy.http.address"),
];

/// The values in `variables`, and warnings, one line each.
pub fn read(variables: impl Iterator<Item = (String, String)>) -> (Layer, Vec<String>) {
    let (mut layer, mut warnings) = (Layer::default(), Vec::new());
    let mut sorted: Vec<_> = variables.filter(|(_, value)| !value.is_empty()).collect();
    sorted.sort();
    for (name, value) in &sorted {
        if let Some((_, key)) = OLDER.iter().find(|(older, _)| older == name) {
            let new = name_of(key);
            warnings
                .push(format!("{name} is an older name: use {new} (go-micro reads {name} too)"));
            put(&mut layer, key, name, value);
        } else if name == "MICRO_NETWORK_TOKEN" {
            warnings.push(format!(
                "{name} is ignored: there is no shared token any more, a ticket lets a node in"
            ));
        }
    }
    for (name, value) in &sorted {
        if name == "MICRO_TICKET" {
            put(&mut layer, "network.ticket", name, value);
        }
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        match KEYS.iter().find(|key| name_of(key.name) == *name) {
            Some(key) => put(&mut layer, key.name, name, value),
            None if NOT_KEYS.contains(&name.as_str()) => {}
            // Not an error: Kubernetes makes such names for every service of a namespace.
            None => warnings.push(format!("{name} is ignored: there is no key for {rest}")),
        }
    }
    (layer, warnings)
}

/// The name of a key in the environment.
#[must_use]
pub fn name_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

fn put(layer: &mut Layer, key: &'static str, name: &str, value: &str) {
    layer.put(key, Raw::Text(value.to_owned()), Origin::Environment(name.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(pairs: &[(&str, &str)]) -> (Layer, Vec<String>) {
        read(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn our_names_win_over_the_older_ones_which_warn() {
        let (layer, warnings) =
            read_all(&[("MICRO_NETWORK", "old"), ("MICRO_NODE_NETWORK_NAME", "new")]);
        assert_eq!(layer.get("network.name").unwrap().0, &Raw::Text("new".to_owned()));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("MICRO_NODE_NETWORK_NAME"));
    }

    #[test]
    fn every_key_has_a_name_of_its_own() {
        let mut names: Vec<_> = KEYS.iter().map(|key| name_of(key.name)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
        assert!(names.contains(&"MICRO_NODE_PROXY_HTTP_ADDRESS".to_owned()));
    }

    #[test]
    fn names_that_mean_nothing_warn_and_the_old_token_is_never_used() {
        let (layer, warnings) =
            read_all(&[("MICRO_NODE_PORT", "tcp://x"), ("MICRO_NETWORK_TOKEN", "micro")]);
        assert_eq!(layer, Layer::default());
        assert_eq!(warnings.len(), 2);
    }
}

//! What one caller may see: the services of its namespace, and those of the default one.

use http::HeaderMap;
use proto::ServiceName;
use proto::name::{BadName, DEFAULT_NAMESPACE};

/// The header of go-micro that says it.
const HEADER: &str = "micro-namespace";

/// A namespace, as a caller names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope(String);

impl Scope {
    /// The default namespace, which every caller sees.
    pub(super) fn default_one() -> Self {
        Self(DEFAULT_NAMESPACE.to_owned())
    }

    /// By the caller's header. go-micro v2 calls its default `go.micro`, v3 calls it `micro`; both
    /// are ours.
    ///
    /// # Errors
    /// [`BadName`] when it is no namespace.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, BadName> {
        let text = headers
            .get(HEADER)
            .map_or(Ok(""), |value| value.to_str().map_err(|_| BadName::Character('\u{fffd}')))?;
        Self::named(text)
    }

    /// By name.
    ///
    /// # Errors
    /// [`BadName`] when it is no namespace.
    fn named(text: &str) -> Result<Self, BadName> {
        let namespace = match text {
            "" | "go.micro" | "micro" => DEFAULT_NAMESPACE,
            other => other,
        };
        ServiceName::within(namespace, "x")?;
        Ok(Self(namespace.to_owned()))
    }

    /// The one that a message of v3 names, if it does; `*` is all that the caller sees anyway.
    ///
    /// # Errors
    /// [`BadName`] when it is no namespace.
    pub(super) fn or_domain(&self, domain: Option<&str>) -> Result<Self, BadName> {
        match domain {
            None | Some("" | "*") => Ok(self.clone()),
            Some(domain) => Self::named(domain),
        }
    }

    /// Its name; [`DEFAULT_NAMESPACE`] for the default one.
    pub(super) fn namespace(&self) -> &str {
        &self.0
    }

    /// The service that a caller registers as `name`.
    ///
    /// # Errors
    /// [`BadName`] when it is no name.
    pub(super) fn own(&self, name: &str) -> Result<ServiceName, BadName> {
        // A name may not choose another namespace than the caller's.
        match name.find('/') {
            Some(_) => Err(BadName::Character('/')),
            None => ServiceName::within(&self.0, name),
        }
    }

    /// The services that a caller may mean by `name`, its own first.
    ///
    /// # Errors
    /// [`BadName`] when it is no name.
    pub(super) fn meant(&self, name: &str) -> Result<Vec<ServiceName>, BadName> {
        let own = self.own(name)?;
        if self.0 == DEFAULT_NAMESPACE {
            return Ok(vec![own]);
        }
        Ok(vec![own, ServiceName::within(DEFAULT_NAMESPACE, name)?])
    }

    /// Whether the caller sees `service`.
    pub(super) fn sees(&self, service: &ServiceName) -> bool {
        let namespace = service.namespace();
        namespace == DEFAULT_NAMESPACE || namespace == self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Result<Scope, BadName> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, text.parse().unwrap());
        Scope::of(&headers)
    }

    #[test]
    fn the_defaults_of_go_micro_are_ours() {
        assert_eq!(Scope::of(&HeaderMap::new()), Ok(Scope::default_one()));
        assert_eq!(scope("go.micro"), Ok(Scope::default_one()));
        assert_eq!(scope("a/b"), Err(BadName::Character('/')));
    }

    #[test]
    fn a_caller_sees_its_namespace_and_the_default_one() {
        let pay = scope("pay").unwrap();
        for (name, seen) in [("pay/orders", true), ("orders", true), ("ops/orders", false)] {
            assert_eq!(pay.sees(&name.parse().unwrap()), seen, "{name}");
        }
        let meant = pay.meant("orders").unwrap();
        assert_eq!(meant, ["pay/orders".parse().unwrap(), "orders".parse().unwrap()]);
    }

    #[test]
    fn a_name_chooses_no_namespace() {
        assert_eq!(Scope::default_one().own("ops/x"), Err(BadName::Character('/')));
    }
}

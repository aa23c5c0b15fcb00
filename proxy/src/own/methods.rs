//! Which of our methods a path names.
//!
//! The names of go-micro v2, of gRPC and of etcd are ours alone. Those of micro v3 (`registry`, `auth`)
//! are names that programs have as well, so of them only the methods that are ours are: whatever else
//! is called on a service `store` is for that service.

use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::Code;

use super::failure::Failure;

/// Which service a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Broker,
    Registry,
    Network,
    Router,
    RouterV3,
    Rules,
    Etcd,
    Events,
    Store,
    Auth,
    Debug,
    Health,
}

/// Names of v3 with their structs and the methods of these.
const OF_V3: [(&str, &str, &[&str]); 11] = [
    ("broker", "Broker", &["Publish", "Subscribe"]),
    ("events", "Stream", &["Publish", "Consume"]),
    ("events", "Store", &["Read", "Write"]),
    ("registry", "Registry", &["GetService", "Register", "Deregister", "ListServices", "Watch"]),
    ("router", "Router", &["Lookup", "Watch"]),
    ("router", "Table", &["Create", "Delete", "Update", "Read"]),
    ("network", "Network", &["Connect", "Graph", "Nodes", "Routes", "Services", "Status"]),
    ("store", "Store", &["Read", "Write", "Delete", "List", "Databases", "Tables"]),
    ("auth", "Auth", &["Generate", "Inspect", "Token"]),
    ("auth", "Accounts", &["List"]),
    ("auth", "Rules", &["Create", "Delete", "List"]),
];

/// The name of v3 that a path calls a method of ours by.
pub(super) fn name_of_v3(path: &str) -> Option<&'static str> {
    let (name, structure, method) = split(path);
    let ours = OF_V3.iter().find(|(of, one, _)| *of == name && *one == structure);
    ours.filter(|(_, _, methods)| methods.contains(&method)).map(|(name, _, _)| *name)
}

/// `/go.micro.registry.Registry/GetService` is `go.micro.registry`, `Registry`, `GetService`.
pub(super) fn split(path: &str) -> (&str, &str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (service, method) = path.split_once('/').unwrap_or((path, ""));
    let (name, structure) = service.rsplit_once('.').unwrap_or(("", service));
    (name, structure, method)
}

/// The service and method that a path names. The texts are go-micro's own: `unknown service X` when
/// there is no such struct, `unknown service X.Y` when it has no such method.
///
/// # Errors
/// UNIMPLEMENTED when there is none.
pub(super) fn find(
    pool: &DescriptorPool,
    (name, structure, method): (&str, &str, &str),
) -> Result<(Service, MethodDescriptor), Failure> {
    let full = match structure {
        "Debug" => "go.micro.debug.Debug".to_owned(),
        structure => format!("{name}.{structure}"),
    };
    let service = match full.as_str() {
        "go.micro.broker.Broker" | "broker.Broker" => Service::Broker,
        "go.micro.registry.Registry" | "registry.Registry" => Service::Registry,
        "go.micro.network.Network" | "network.Network" => Service::Network,
        "go.micro.router.Router" | "go.micro.router.Table" => Service::Router,
        "router.Router" | "router.Table" => Service::RouterV3,
        "go.micro.rules.Rules" => Service::Rules,
        "events.Stream" | "events.Store" => Service::Events,
        "go.micro.store.Store" | "store.Store" => Service::Store,
        "go.micro.auth.Auth"
        | "go.micro.auth.Accounts"
        | "go.micro.auth.Rules"
        | "auth.Auth"
        | "auth.Accounts"
        | "auth.Rules" => Service::Auth,
        "etcdserverpb.KV"
        | "etcdserverpb.Watch"
        | "etcdserverpb.Lease"
        | "etcdserverpb.Auth"
        | "etcdserverpb.Cluster"
        | "etcdserverpb.Maintenance" => Service::Etcd,
        "go.micro.debug.Debug" => Service::Debug,
        "grpc.health.v1.Health" => Service::Health,
        _ => {
            let text = format!("unknown service {structure}");
            return Err(Failure::plain(Code::Unimplemented, text));
        }
    };
    let descriptor = pool.get_service_by_name(&full);
    let descriptor = descriptor.expect("every name above is in the files we are built with");
    match descriptor.methods().find(|candidate| candidate.name() == method) {
        Some(method) => Ok((service, method)),
        None => {
            let text = format!("unknown service {structure}.{method}");
            Err(Failure::plain(Code::Unimplemented, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::descriptors;
    use super::*;

    #[test]
    fn a_path_is_split_at_its_last_dot() {
        for (path, parts) in [
            ("/go.micro.registry.Registry/Watch", ("go.micro.registry", "Registry", "Watch")),
            ("/Say/Hello", ("", "Say", "Hello")),
            ("/", ("", "", "")),
            ("/a.b", ("a", "b", "")),
        ] {
            assert_eq!(split(path), parts, "{path}");
        }
    }

    #[test]
    fn of_the_names_of_v3_only_our_methods_are_ours() {
        assert_eq!(name_of_v3("/auth.Auth/Token"), Some("auth"));
        for other in ["/auth.Auth/Login", "/auth.Users/List", "/store.Store/Get", "/store/Read"] {
            assert_eq!(name_of_v3(other), None, "{other}");
        }
    }

    #[test]
    fn every_method_of_v3_is_in_the_files_we_are_built_with() {
        let pool = descriptors();
        for (name, structure, methods) in OF_V3 {
            for method in methods {
                find(&pool, (name, structure, method)).map(drop).unwrap();
            }
            let all = pool.get_service_by_name(&format!("{name}.{structure}")).unwrap();
            assert_eq!(all.methods().count(), methods.len(), "{name}.{structure}");
        }
    }
}

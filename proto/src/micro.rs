//! Protobuf of the go-micro faces: messages made from `micro/*.proto`, and their descriptors.
//!
//! The shapes are those that go-micro v2 programs send; packages, names and numbers are theirs, so
//! nothing here may be renamed or renumbered.

/// All files of `micro/*.proto` as one encoded `google.protobuf.FileDescriptorSet`: what reflection
/// shows, and what turns JSON into these messages.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/micro.descriptors"));

/// What stands before the name of a message in the `type_url` of a `google.protobuf.Any`.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, reason = "generated")]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}

package!(
    /// `go.micro.broker`: messages of topics.
    broker,
    "go.micro.broker"
);
package!(
    /// `events` of micro v3: messages that are kept until they are acknowledged.
    events,
    "events"
);
package!(
    /// `go.micro.registry`: who serves what, and where.
    registry,
    "go.micro.registry"
);
package!(
    /// `go.micro.router`: routes as one node knows them.
    router,
    "go.micro.router"
);
package!(
    /// `go.micro.network`: nodes and what they offer each other.
    network,
    "go.micro.network"
);
package!(
    /// `go.micro.rules`: what operators decide about calls. Ours, in the manner of the others.
    rules,
    "go.micro.rules"
);
package!(
    /// `go.micro.debug`: what every service answers about itself.
    debug,
    "go.micro.debug"
);
package!(
    /// `errors`: the error of go-micro.
    errors,
    "errors"
);
package!(
    /// `etcdserverpb`: the part of etcd that is a registry.
    etcd,
    "etcdserverpb"
);
package!(
    /// `go.micro.store`: records by key.
    store,
    "go.micro.store"
);
package!(
    /// `go.micro.auth`: accounts and tokens.
    auth,
    "go.micro.auth"
);
package!(
    /// `router`: what micro v3 asks of routes.
    router_v3,
    "router"
);

/// Where generated code of another package looks for what is above.
#[doc(hidden)]
pub mod go {
    pub mod micro {
        pub use crate::micro::router;
    }
}

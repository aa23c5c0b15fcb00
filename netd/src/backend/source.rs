//! The kinds of back ends, one file each.

#[cfg(feature = "kubernetes")]
use super::kubernetes;
use super::session::Feed;
use super::standing::Trouble;
use super::{consul, etcd, file, mdns};
use crate::config::backend::{Backend, Kind};

/// One back end, ready to be watched.
#[derive(Debug)]
pub(super) enum Source {
    File(file::Source),
    Etcd(etcd::Source),
    Mdns(mdns::Source),
    Consul(consul::Source),
    #[cfg(feature = "kubernetes")]
    Kubernetes(kubernetes::Source),
}

impl Source {
    pub(super) fn of(backend: &Backend) -> Self {
        match &backend.kind {
            Kind::File { path } => Self::File(file::Source::new(path.clone())),
            Kind::Etcd { addresses, login, prefix } => {
                Self::Etcd(etcd::Source::new(addresses.clone(), login.clone(), prefix))
            }
            Kind::Mdns { domain } => Self::Mdns(mdns::Source::new(domain.clone())),
            Kind::Consul { address, token } => {
                Self::Consul(consul::Source::new(address.clone(), token.clone(), backend.protocol))
            }
            #[cfg(feature = "kubernetes")]
            Kind::Kubernetes(cluster) => {
                Self::Kubernetes(kubernetes::Source::new((**cluster).clone(), backend.protocol))
            }
        }
    }

    /// Tells all there is and what changes, until it fails. Ended without trouble, it is begun again
    /// at once: what was missed is in the next listing.
    pub(super) async fn watch(&mut self, feed: &mut Feed) -> Result<(), Trouble> {
        match self {
            Self::File(source) => source.watch(feed).await,
            Self::Etcd(source) => source.watch(feed).await,
            Self::Mdns(source) => source.watch(feed).await,
            Self::Consul(source) => source.watch(feed).await,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(source) => source.watch(feed).await,
        }
    }
}

/// Whether the loopback addresses that a back end tells are this machine's, where nothing is said.
pub(super) fn is_local(backend: &Backend) -> bool {
    match &backend.kind {
        Kind::File { .. } => true,
        Kind::Etcd { addresses, .. } => addresses.iter().all(|at| is_loopback(at)),
        // What others announce is theirs, also where they announce it from here.
        Kind::Mdns { .. } | Kind::Consul { .. } => false,
        #[cfg(feature = "kubernetes")]
        Kind::Kubernetes(_) => false,
    }
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

//! What other registries say of an instance, read: pure functions from their bytes to registrations.
//!
//! Who asks them, and what becomes of what they say, is in `netd::backend`. Values of etcd are read by
//! [`crate::own::etcd`], whose face writes them too.

pub mod consul;
pub mod kubernetes;
pub mod mdns;

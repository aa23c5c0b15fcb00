//! Why a call was not carried to its end.

use std::time::Duration;

use proto::selector::BadSelector;
use proto::{Fault, NodeId};
use router::Mismatch;

use crate::explain::State;
use crate::message::TooLong;
use crate::proxy::Stranger;

/// Why a call was not carried to its end: for the code (is a retry safe), for people (the text) and
/// for the operator (the number behind the `M`).
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nothing on the network has this name.
    #[error("no service named {0:?}")]
    NoService(String),
    /// The service is there, but not as the selector or the protocol asks.
    #[error("no instance of {service} matches {selector}{}", Near(mismatch))]
    NoMatch {
        /// The service.
        service: String,
        /// What was asked for.
        selector: String,
        /// What the instances are instead, in the word of an explanation.
        state: State,
        /// What there is instead, where it is a matter of labels.
        mismatch: Option<Box<Mismatch>>,
    },
    /// Every instance is on a node that cannot be reached now.
    #[error("no node with {0} can be reached")]
    NoPath(String),
    /// The node of the chosen instance could not be reached.
    #[error("node {node} cannot be reached: {why}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What the link said.
        why: String,
    },
    /// The instance took no connection.
    #[error("instance {instance} took no connection: {why}")]
    Refused {
        /// Its address.
        instance: String,
        /// What the system said.
        why: String,
    },
    /// The nodes of all instances have found them not to be well.
    #[error("no instance of {service} is well: {why}")]
    Unhealthy {
        /// The service.
        service: String,
        /// What was found at the nearest one.
        why: String,
    },
    /// The instance took the connection but turned the request away unread.
    #[error("instance {0} turned the request away unread")]
    TurnedAway(String),
    /// The caller's deadline passed.
    #[error("the deadline of the call passed")]
    Deadline,
    /// A bound was reached.
    #[error("{what} at its limit of {limit} calls")]
    Overloaded {
        /// What is at its limit.
        what: &'static str,
        /// The limit.
        limit: u32,
    },
    /// This node has too much to do: the call would miss its deadline, or is one too many.
    #[error("the node is saturated: work waits {wait:?} for its turn")]
    Saturated {
        /// How long.
        wait: Duration,
    },
    /// The caller calls more often than it may.
    #[error("{what} is above its rate limit")]
    RateLimited {
        /// Which calls are counted together.
        what: String,
        /// Until the next one is allowed.
        retry_after: Duration,
    },
    /// A rule refuses the call, to show what that does.
    #[error("rule {rule:?} refuses the call with {status}")]
    Aborted {
        /// The rule.
        rule: String,
        /// The HTTP status it says.
        status: u16,
    },
    /// The link to the service's node broke while the call was on it.
    #[error("lost the link to node {0} during the call")]
    LinkLost(NodeId),
    /// The call came back to a node, or passed too many.
    #[error("the call passed too many nodes")]
    TooManyHops,
    /// The request does not follow its protocol.
    #[error("{0}")]
    Malformed(&'static str),
    /// What says where the call is to go cannot be understood: it is never ignored.
    #[error("{header} cannot be read: {why}")]
    Filter {
        /// The header.
        header: String,
        /// What is wrong with it.
        why: BadSelector,
    },
    /// A message is above the bound.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// A head is above the bound.
    #[error("the head is larger than {0} bytes")]
    HeadTooLarge(usize),
    /// The caller may not do this.
    #[error("not allowed: {0}")]
    NotAllowed(&'static str),
    /// The program belongs to a user whom this node does not serve.
    #[error("{} may not use this node, which serves user {}", who(.0), .0.owner)]
    Stranger(Stranger),
    /// The connection to the instance broke during the call.
    #[error("the connection to instance {instance} broke during the call: {why}")]
    InstanceLost {
        /// Its address.
        instance: String,
        /// What the connection said.
        why: String,
    },
    /// The instance does not speak the protocol it declared.
    #[error("instance {instance} broke its protocol: {why}")]
    InstanceProtocol {
        /// Its address.
        instance: String,
        /// What was wrong.
        why: String,
    },
    /// The response broke off in the middle.
    #[error("the response broke off: {0}")]
    BrokeOff(String),
    /// This node is leaving.
    #[error("the node is draining")]
    Draining,
    /// The caller went away; nobody reads this.
    #[error("the caller went away")]
    Cancelled,
    /// What another node said.
    #[error("{}", .0.what)]
    Fault(Fault),
}

impl Error {
    /// The number behind the `M`. Never reused.
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::NoMatch { .. } => 1002,
            Self::NoPath(_) | Self::Unreachable { .. } => 1003,
            Self::Refused { .. } | Self::TurnedAway(_) => 1004,
            Self::Deadline => 1005,
            Self::LinkLost(_) | Self::InstanceLost { .. } | Self::BrokeOff(_) => 1007,
            Self::TooManyHops => 1008,
            Self::Malformed(_) | Self::Filter { .. } => 1009,
            Self::TooLong(_) | Self::HeadTooLarge(_) => 1010,
            Self::NotAllowed(_) => 1011,
            Self::InstanceProtocol { .. } => 1012,
            Self::Draining => 1013,
            Self::Cancelled => 1014,
            Self::Stranger(_) => 1015,
            Self::Unhealthy { .. } => 1016,
            Self::NoService(_) => 1203,
            Self::Overloaded { .. } | Self::Saturated { .. } => 1305,
            Self::RateLimited { .. } => 1306,
            Self::Aborted { .. } => 1307,
            Self::Fault(fault) => fault.code,
        }
    }

    /// Why there is no instance, in the word of an explanation; `None` for all that is not about that.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        match self {
            Self::NoService(_) => Some(State::Unknown),
            Self::NoMatch { state, .. } => Some(*state),
            Self::NoPath(_) => Some(State::Unreachable),
            Self::Unhealthy { .. } => Some(State::Unhealthy),
            Self::Overloaded { .. } => Some(State::LimitReached),
            Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::TurnedAway(_)
            | Self::Deadline
            | Self::Saturated { .. }
            | Self::RateLimited { .. }
            | Self::Aborted { .. }
            | Self::LinkLost(_)
            | Self::TooManyHops
            | Self::Malformed(_)
            | Self::Filter { .. }
            | Self::TooLong(_)
            | Self::HeadTooLarge(_)
            | Self::NotAllowed(_)
            | Self::Stranger(_)
            | Self::InstanceLost { .. }
            | Self::InstanceProtocol { .. }
            | Self::BrokeOff(_)
            | Self::Draining
            | Self::Cancelled
            | Self::Fault(_) => None,
        }
    }

    /// Whether the service has certainly not seen the request: another instance may be tried.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        match self {
            Self::NoService(_)
            | Self::NoMatch { .. }
            | Self::NoPath(_)
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::TurnedAway(_)
            | Self::Unhealthy { .. }
            | Self::Overloaded { .. }
            | Self::Saturated { .. }
            | Self::RateLimited { .. }
            | Self::Aborted { .. }
            | Self::TooManyHops
            | Self::Stranger(_)
            | Self::Draining => true,
            Self::Deadline
            | Self::LinkLost(_)
            | Self::Malformed(_)
            | Self::Filter { .. }
            | Self::TooLong(_)
            | Self::HeadTooLarge(_)
            | Self::NotAllowed(_)
            | Self::InstanceLost { .. }
            | Self::InstanceProtocol { .. }
            | Self::BrokeOff(_)
            | Self::Cancelled => false,
            Self::Fault(fault) => fault.unseen,
        }
    }

    /// After how long trying again makes sense, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { .. } | Self::Saturated { .. } | Self::Draining => {
                Some(Duration::from_secs(1))
            }
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::Fault(fault) if fault.retry_after > 0 => {
                Some(Duration::from_millis(u64::from(fault.retry_after)))
            }
            Self::NoService(_)
            | Self::NoMatch { .. }
            | Self::NoPath(_)
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::TurnedAway(_)
            | Self::Unhealthy { .. }
            | Self::Deadline
            | Self::LinkLost(_)
            | Self::Aborted { .. }
            | Self::TooManyHops
            | Self::Malformed(_)
            | Self::Filter { .. }
            | Self::TooLong(_)
            | Self::HeadTooLarge(_)
            | Self::NotAllowed(_)
            | Self::Stranger(_)
            | Self::InstanceLost { .. }
            | Self::InstanceProtocol { .. }
            | Self::BrokeOff(_)
            | Self::Cancelled
            | Self::Fault(_) => None,
        }
    }

    /// What else a person should read, a line each: why, and what to try.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        let lines = |why: &str, attempt: &str| Some(format!("  why   {why}\n  try   {attempt}"));
        if let Self::HeadTooLarge(_) = self {
            return lines(
                "names and values of all headers count together; metadata of go-micro are headers",
                "send it in the body",
            );
        }
        if let Self::Filter { header, .. } = self {
            return lines(
                "what says where a call is to go is obeyed or refused, never ignored",
                &format!("micro network why SERVICE --header {header}=VALUE"),
            );
        }
        let Self::Stranger(stranger) = self else { return None };
        let user = stranger.uid.map_or_else(|| "UID".to_owned(), |uid| uid.to_string());
        Some(format!(
            "  why   a connection on the loopback is served to the user that runs the node, and root\n  \
             try   proxy.allow_users = [\"{user}\"] in its configuration, or a node of your own: micro network"
        ))
    }

    /// The error as node `me` tells it to another node.
    #[must_use]
    pub fn to_fault(&self, me: NodeId) -> Fault {
        if let Self::Fault(fault) = self {
            return fault.clone();
        }
        let wait = self.retry_after().unwrap_or_default();
        Fault {
            code: self.code(),
            what: self.to_string(),
            node: me,
            unseen: self.is_unseen(),
            retry_after: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// The node where it was first known: another one's fault keeps that one's id.
    #[must_use]
    pub fn node(&self, me: NodeId) -> NodeId {
        if let Self::Fault(fault) = self { fault.node } else { me }
    }

    /// The HTTP status that says it.
    #[must_use]
    pub fn http_status(&self) -> http::StatusCode {
        use http::StatusCode as S;
        if let Self::Aborted { status, .. } = self {
            return S::from_u16(*status).unwrap_or(S::INTERNAL_SERVER_ERROR);
        }
        match self.code() {
            1002 | 1203 => S::NOT_FOUND,
            1003 | 1004 | 1013 | 1016 | 1305 => S::SERVICE_UNAVAILABLE,
            1005 => S::GATEWAY_TIMEOUT,
            1306 => S::TOO_MANY_REQUESTS,
            1009 => S::BAD_REQUEST,
            1010 if matches!(self, Self::TooLong(_)) => S::PAYLOAD_TOO_LARGE,
            1010 => S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            1011 | 1015 => S::FORBIDDEN,
            // 1007, 1008, 1012, and numbers of newer nodes
            _ => S::BAD_GATEWAY,
        }
    }

    /// The gRPC status that says it.
    #[must_use]
    pub fn grpc_status(&self) -> u8 {
        if let Self::Aborted { status, .. } = self {
            // As clients read a status without one of gRPC ("HTTP to gRPC Status Code Mapping").
            return match status {
                400 => 13,
                401 => 16,
                403 => 7,
                404 => 12,
                429 | 502..=504 => 14,
                _ => 2,
            };
        }
        match self.code() {
            1002 | 1203 => 5,
            1003 | 1004 | 1007 | 1013 | 1016 => 14,
            1005 => 4,
            1009 => 3,
            1010 | 1305 | 1306 => 8,
            1011 | 1015 => 7,
            1014 => 1,
            // 1008, 1012, and numbers of newer nodes
            _ => 13,
        }
    }
}

fn who(stranger: &Stranger) -> String {
    match stranger.uid {
        Some(uid) => format!("user {uid}"),
        None => "a program that is gone".to_owned(),
    }
}

impl From<Stranger> for Error {
    fn from(stranger: Stranger) -> Self {
        Self::Stranger(stranger)
    }
}

/// What there is instead, after what there is not.
struct Near<'a>(&'a Option<Box<Mismatch>>);

impl std::fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |mismatch| write!(f, ": {mismatch}"))
    }
}

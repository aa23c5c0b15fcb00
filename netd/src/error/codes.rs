//! Every code a [`super::Problem`] can carry, told in full. Codes are never used again for
//! something else; M1 is delivery, M2 links, M3 identity and tickets, M4 configuration and usage,
//! M5 back ends, M6 this machine, M7 the programs' protocols, M8 the admin API, M9 a bug in micro.

/// One code: what `micro errors CODE` prints.
#[derive(Clone, Copy, Debug)]
pub struct Explained {
    /// `M` and four digits.
    pub code: &'static str,
    /// What happened, in a few words.
    pub title: &'static str,
    /// What brings it about.
    pub cause: &'static str,
    /// What makes it go away.
    pub fix: &'static str,
}

/// What `code` means; upper and lower case are the same.
#[must_use]
pub fn explain(code: &str) -> Option<&'static Explained> {
    CODES.iter().find(|one| one.code.eq_ignore_ascii_case(code))
}

/// All of them, by number.
pub const CODES: &[Explained] = &[
    one(
        "M1002",
        "no instance matches",
        "the service exists, but none of its instances has the version, region or labels asked for",
        "micro describe SERVICE shows the labels of its instances",
    ),
    one(
        "M1003",
        "node unreachable",
        "instances exist, but no path leads to their nodes now: a link is down or a node is silent",
        "micro network nodes shows who is reachable; calls succeed again as soon as a path is back",
    ),
    one(
        "M1004",
        "the instance refused the connection",
        "the program that registered this address does not listen there any more",
        "start it again, or withdraw it: micro unexpose SERVICE",
    ),
    one(
        "M1005",
        "deadline passed",
        "the time the caller allowed was over before the answer came",
        "allow more with --timeout, or look at the service",
    ),
    one(
        "M1006",
        "node overloaded",
        "a limit of the node is reached; the same as M1305 for calls",
        "retry later",
    ),
    one(
        "M1007",
        "link lost in the middle of a call",
        "the path to the service's node broke after the call was sent; the service may have seen it",
        "call again if doing it twice is harmless",
    ),
    one(
        "M1008",
        "too many hops",
        "the call was passed on more often than max_hops allows: some proxy points back at itself",
        "check that no service is exposed at the address of a node's own proxy",
    ),
    one(
        "M1009",
        "malformed request",
        "the request does not follow its protocol",
        "check the client; micro call makes well-formed ones",
    ),
    one(
        "M1010",
        "message or head too large",
        "a gRPC message is over 4 MiB, or the headers are over 64 KiB",
        "send less at once, or stream it",
    ),
    one(
        "M1011",
        "not allowed",
        "the caller's grant does not cover the namespace of the service",
        "ask for a ticket that does: micro network invite --namespace NAMES",
    ),
    one(
        "M1012",
        "the instance broke its protocol",
        "what answered at the instance's address does not speak what it is registered with",
        "register it with the right protocol: micro expose NAME PORT --protocol grpc or http",
    ),
    one(
        "M1013",
        "node is draining",
        "the node is stopping and takes no new calls",
        "retry: other instances are used as soon as the withdrawal is known",
    ),
    one(
        "M1015",
        "another user's program",
        "a node serves the user that runs it, and root, on the loopback: others could act in its name",
        "run a node of your own: micro network; or name them: proxy.allow_users = [\"ada\", \"1001\"], [\"*\"]",
    ),
    one(
        "M1016",
        "no instance is well",
        "the check that each was exposed with fails, so that none is called",
        "see why: micro services -o wide, micro network why SERVICE; it comes back by itself",
    ),
    one(
        "M1203",
        "no such service",
        "nobody on the network offers this name; names are case sensitive",
        "micro services lists the names that exist",
    ),
    one(
        "M1204",
        "no such method",
        "the service is there and has no method of this name, or several that fit",
        "micro describe SERVICE lists its methods",
    ),
    one(
        "M1205",
        "no such node",
        "no node of this name or id is known on the network",
        "micro network nodes lists them",
    ),
    one(
        "M1206",
        "no rules",
        "nothing is decided about the calls of this service",
        "micro rules get lists the services that have rules",
    ),
    one(
        "M1207",
        "no such label",
        "the label was not set by command, so no command takes it back; it may be set by a flag or in the file",
        "micro network label shows where each label comes from",
    ),
    one(
        "M1208",
        "nobody subscribes",
        "a question goes to who subscribes to its topic, and no node knows of anybody",
        "micro topics lists who wants what; topics are case sensitive",
    ),
    one(
        "M1209",
        "no such stream",
        "no node of the network keeps a stream of this name",
        "micro streams lists those that there are",
    ),
    one(
        "M1305",
        "overloaded",
        "all calls that may be in flight at once are: max_inflight of the node, or of the instance",
        "retry after the time the answer names, add instances, or raise proxy.http.max_inflight",
    ),
    one(
        "M1306",
        "above the rate limit",
        "a rule lets so many calls through in a second, and this was one more",
        "retry after the time the answer names, or change the rule",
    ),
    one(
        "M1307",
        "refused by a rule",
        "a rule of the service refuses this call on purpose, with the status it names",
        "take the abort out of the rule; its name stands in the error",
    ),
    one(
        "M1308",
        "the rules are others by now",
        "they were made from another revision than the one that holds: somebody else changed them in between",
        "micro rules get SERVICE, put your change into what it prints, and apply that",
    ),
    one(
        "M2001",
        "peer unreachable",
        "nothing answered at the addresses tried: wrong address, a firewall, or the node is down",
        "check UDP port 8085 between the machines",
    ),
    one(
        "M2002",
        "no link",
        "this node has no link to the node asked for, and could not open one",
        "micro network nodes",
    ),
    one(
        "M2003",
        "protocol versions do not overlap",
        "the releases of the two nodes are too far apart",
        "upgrade the older one",
    ),
    one(
        "M3001",
        "not a ticket",
        "a ticket begins with mj1",
        "copy the whole line that invite printed",
    ),
    one(
        "M3002",
        "the ticket is damaged",
        "a character is missing, added or altered",
        "copy the whole line that invite printed",
    ),
    one(
        "M3003",
        "the ticket was refused",
        "the issuer does not know it, or its secret is wrong",
        "ask for a new one: micro network invite",
    ),
    one(
        "M3006",
        "the ticket is spent",
        "it was used as often as it allows",
        "ask for a new one: micro network invite --uses N",
    ),
    one(
        "M3007",
        "the ticket has expired",
        "its time was over before it was used",
        "ask for a new one: micro network invite --ttl 24h",
    ),
    one(
        "M3008",
        "member of another network",
        "this node already belongs to a network, and the ticket or peer is of another one",
        "run a second node with its own name for the other network",
    ),
    one(
        "M3009",
        "the grant does not allow it",
        "what was asked is not covered by this node's grant",
        "join again with a ticket that allows it",
    ),
    one(
        "M3010",
        "the key file is not private",
        "other users can read the node's key, or it is not a key",
        "chmod 600 the file the message names; if others may have read it, delete it and join again",
    ),
    one(
        "M3011",
        "not an issuer",
        "only a node with the role issuer makes tickets",
        "run micro network invite on the node that made the network",
    ),
    one(
        "M3012",
        "the membership has expired",
        "the node was away from its issuer for longer than its grant was valid",
        "join again with a new ticket: micro network --join TICKET",
    ),
    one(
        "M4001",
        "wrong usage",
        "a command or option does not exist or lacks something",
        "micro help",
    ),
    one(
        "M4002",
        "unknown configuration key",
        "the file has a key that this release does not know",
        "micro config check",
    ),
    one(
        "M4003",
        "invalid configuration value",
        "a value does not have the form its key needs",
        "micro config show prints every key with its value",
    ),
    one(
        "M4004",
        "the configuration cannot be read",
        "the file is missing, not readable, or not TOML",
        "micro config path",
    ),
    one(
        "M5001",
        "a back end cannot be watched",
        "a registry of others that this node is told to watch does not answer, or is not to be watched",
        "micro registry backends tells why; it is tried again by itself",
    ),
    one(
        "M5002",
        "a file of services cannot be taken",
        "the file is not there, is not TOML, or says something that cannot be; what was known is kept",
        "correct the place that is shown: it is read again within a second",
    ),
    one(
        "M5003",
        "a bridge cannot be",
        "what it is to be let in with cannot be used, or it leads back into its own network",
        "correct [broker.bridge.NAME] in the file; micro config check",
    ),
    one(
        "M5004",
        "a stream cannot be opened",
        "the directory of its messages cannot be read or made",
        "the why line has the place and the words of the system; make room, or remove [broker.stream.NAME]",
    ),
    one(
        "M6001",
        "port taken",
        "an address that was asked for is in use by another program",
        "leave it out: a free port is chosen and printed",
    ),
    one(
        "M6002",
        "this machine refused",
        "a file, socket or limit of the operating system stands in the way",
        "the why line has the words of the system",
    ),
    one(
        "M6003",
        "the state directory cannot be used",
        "keys and membership are kept there; it must be writable and private",
        "micro config path prints where it is",
    ),
    one(
        "M6004",
        "a node of this name is already running",
        "its admin socket answers",
        "micro status, or micro network --name NAME for a second one",
    ),
    one(
        "M6005",
        "it cannot be told whose programs connect",
        "this system tells neither by sock_diag nor in /proc/net/tcp who owns a connection",
        "serve every user of the machine: proxy.allow_users = [\"*\"]",
    ),
    one(
        "M6006",
        "a command cannot be started",
        "the program is not there, or may not be run",
        "check the name and the PATH; micro exec -- sh -c '...' for what a shell understands",
    ),
    one(
        "M6007",
        "root is needed",
        "the command changes the machine for all of its programs",
        "sudo, or micro exec and micro forward, which change nothing",
    ),
    one(
        "M6008",
        "the kernel takes no rules for redirection",
        "nftables is missing, or this user may not use it",
        "apt install nftables; in a container the capability NET_ADMIN",
    ),
    one(
        "M6009",
        "this machine does not ask the node for names",
        "the change was made and taken back, since no answer of the node came",
        "micro network dns status",
    ),
    one(
        "M6010",
        "no node is running",
        "nothing answers on the admin socket of this user",
        "micro network starts one",
    ),
    one(
        "M6011",
        "several nodes are running",
        "commands need to know which node to talk to",
        "--socket PATH, or MICRO_NODE_NODE_NAME=NAME",
    ),
    one(
        "M6012",
        "the node may not lead connections",
        "rules of the kernel need the capability NET_ADMIN, which the node does not have",
        "give it to the program (setcap cap_net_admin+ep) or to its unit (AmbientCapabilities), or run it as root",
    ),
    one(
        "M7001",
        "the service has no schema",
        "flags and short names need gRPC reflection or registered endpoints",
        "give the whole method and JSON: micro call SERVICE Struct.Method '{…}'",
    ),
    one(
        "M7002",
        "the request does not fit the schema",
        "a field does not exist or has a value of another type",
        "micro describe SERVICE",
    ),
    one(
        "M7003",
        "the answer could not be read",
        "what came back is not what its content type says",
        "look at it with micro call -v, or with curl",
    ),
    one(
        "M7004",
        "the protocol of a program is not recognised",
        "it takes connections but answers neither HTTP/2 nor HTTP/1.1",
        "say what it speaks: micro expose NAME PORT --protocol grpc, http or http2",
    ),
    one(
        "M8001",
        "bad request to the admin API",
        "a field is missing or malformed",
        "see the message",
    ),
    one(
        "M8002",
        "no such admin path",
        "the node is of another release than this command, or the path is mistyped",
        "use the micro of the running node",
    ),
    one(
        "M8003",
        "not your node",
        "the admin socket answers only to its own user and to root",
        "sudo",
    ),
    one(
        "M8004",
        "timed out",
        "the condition did not come true in the time given",
        "allow more: --timeout",
    ),
    one(
        "M9001",
        "a bug in micro",
        "something that cannot happen did",
        "please report what you did",
    ),
];

const fn one(
    code: &'static str,
    title: &'static str,
    cause: &'static str,
    fix: &'static str,
) -> Explained {
    Explained { code, title, cause, fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_each_is_there_once() {
        for pair in CODES.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
        }
    }
}

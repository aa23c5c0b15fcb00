//! `/etc/resolv.conf` (resolv.conf(5)) with a name server more, and as it was.

use std::net::IpAddr;

/// Above the line that is ours, for whoever opens the file.
const MARK: &str = "# micro: answers names under micro.internal; `micro network dns disable` takes \
                    the next line away";

/// The text with `server` as the first of its name servers; what was there stays behind it. One that
/// was added before is replaced.
#[must_use]
pub fn with(text: &str, server: IpAddr) -> String {
    let mut lines: Vec<String> = without(text).lines().map(str::to_owned).collect();
    let at = lines.iter().position(|line| is_server(line)).unwrap_or(lines.len());
    lines.splice(at..at, [MARK.to_owned(), format!("nameserver {server}")]);
    lines.join("\n") + "\n"
}

/// The text without what [`with`] has added.
#[must_use]
pub fn without(text: &str) -> String {
    let mut rest = text.split_inclusive('\n');
    let mut kept = String::with_capacity(text.len());
    while let Some(line) = rest.next() {
        if line.trim_end() == MARK {
            // Only what still is our line: somebody may have put another there.
            let next = rest.next().unwrap_or_default();
            if !is_server(next) {
                kept.push_str(next);
            }
        } else {
            kept.push_str(line);
        }
    }
    kept
}

/// Whether [`with`] has been here.
#[must_use]
pub fn is_ours(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == MARK)
}

/// The name servers in their order.
#[must_use]
pub fn servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.split_ascii_whitespace().nth(1)?.parse().ok();
    text.lines().filter(|line| is_server(line)).filter_map(server).collect()
}

/// Whether the C library asks them by turns, so that ours is often not the first.
#[must_use]
pub fn rotates(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next() == Some("options") && words.any(|word| word == "rotate")
    })
}

fn is_server(line: &str) -> bool {
    line.split_ascii_whitespace().next() == Some("nameserver")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 64, 0, 53));

    #[test]
    fn ours_is_the_first_and_the_others_stay() {
        let text =
            "search lab.example\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0\n";
        let now = with(text, OURS);
        assert_eq!(servers(&now)[0], OURS);
        assert_eq!(servers(&now)[1..], servers(text)[..]);
        assert!(now.starts_with("search lab.example\n") && now.ends_with("options edns0\n"));
        assert!(is_ours(&now) && !is_ours(text));
        assert_eq!(without(&now), text);
        assert_eq!(with(&now, OURS), now, "twice is once");
        assert_eq!(servers(&with("", OURS)), [OURS]);
    }

    #[test]
    fn what_somebody_has_written_since_stays() {
        let now = with("nameserver 192.0.2.1\n", OURS);
        let edited = now.replace("nameserver 127.64.0.53\n", "options ndots:2\n");
        assert_eq!(without(&edited), "options ndots:2\nnameserver 192.0.2.1\n");
        assert_eq!(without(&(now + "search x\n")), "nameserver 192.0.2.1\nsearch x\n");
    }

    #[test]
    fn servers_that_are_asked_by_turns_are_noticed() {
        assert!(rotates("options edns0 rotate\n"));
        assert!(!rotates("# options rotate\noptions edns0\n"));
    }

    proptest! {
        #[test]
        fn taking_it_away_gives_the_lines_that_were_there(text in "((nameserver|search|#) [a-z0-9.]{0,9}\n){0,6}") {
            prop_assert_eq!(without(&with(&text, OURS)), text);
        }
    }
}

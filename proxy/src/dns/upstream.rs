//! Questions that are not ours, passed on to the name servers of the system: the same bytes there and
//! back, whatever they say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one name server is waited for: three of them answer before a C library gives up
/// (resolv.conf(5): five seconds, twice).
const PATIENCE: Duration = Duration::from_secs(2);
/// Name servers that are asked (resolv.conf(5): MAXNS).
const MAX_SERVERS: usize = 3;
/// The stub of systemd-resolved, and the servers that stand behind it (systemd-resolved.service(8)).
/// The stub may ask this node for every name, and so must not be asked back.
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];
const BEHIND_THE_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// The port of DNS.
const PORT: u16 = 53;
/// Bytes of a head (RFC 1035 §4.1.1): what is shorter is no answer.
const HEAD: usize = 12;

/// Where the system's name servers are.
#[derive(Debug)]
pub(super) struct Upstreams {
    file: PathBuf,
    /// The file with the servers of systemd-resolved.
    behind: PathBuf,
    /// Where this node answers itself.
    own: Option<SocketAddr>,
}

impl Upstreams {
    pub(super) fn new(file: PathBuf, own: Option<SocketAddr>) -> Self {
        Self { file, behind: BEHIND_THE_STUB.into(), own }
    }

    /// Read for each question: the file changes when the machine moves to another network.
    async fn servers(&self) -> io::Result<Vec<SocketAddr>> {
        let text = tokio::fs::read_to_string(&self.file).await.unwrap_or_default();
        let mut servers = servers(&text);
        if servers.iter().any(is_stub) {
            let text = tokio::fs::read_to_string(&self.behind).await.unwrap_or_default();
            servers = self::servers(&text);
            servers.retain(|at| !is_stub(at));
        }
        servers.retain(|at| Some(*at) != self.own && !super::is_virtual(*at));
        if servers.is_empty() {
            let file = self.file.display();
            tracing::warn!(%file, "a question cannot be passed on: no other name server is in the file");
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(servers)
    }

    /// The answer to a question that came over UDP; a cut one is passed on as it is, and who asked
    /// comes back over TCP.
    pub(super) async fn udp(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        self.first(|server| ask_udp(server, question)).await
    }

    /// The answer to one that came over TCP.
    pub(super) async fn tcp(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        self.first(|server| ask_tcp(server, question)).await
    }

    /// What the first server that answers says.
    async fn first<F: Future<Output = io::Result<Vec<u8>>>>(
        &self,
        ask: impl Fn(SocketAddr) -> F,
    ) -> io::Result<Vec<u8>> {
        let mut last = io::ErrorKind::TimedOut.into();
        for server in self.servers().await? {
            match timeout(PATIENCE, ask(server)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_late) => {}
            }
        }
        tracing::info!(error = %last, "no name server of the system answers");
        Err(last)
    }
}

/// A socket for each question: its port is drawn by the system, so that answers cannot be guessed
/// (RFC 5452 §9.2).
async fn ask_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_answer(&answer[..length], question) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(question)?).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if is_answer(&answer, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// With its length before it, as one write (RFC 7766 §8).
pub(super) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), message].concat())
}

/// Whether bytes answer a question: they have its number and are marked as an answer.
fn is_answer(answer: &[u8], question: &[u8]) -> bool {
    answer.len() >= HEAD && answer[..2] == question[..2] && answer[2] & 0x80 != 0
}

fn is_stub(at: &SocketAddr) -> bool {
    STUBS.iter().any(|stub| at.ip() == *stub)
}

/// The name servers of a `resolv.conf`.
fn servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        // With a zone (`fe80::1%eth0`) it is one of the link, which has to be named by number.
        address.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT))
    };
    text.lines().filter_map(server).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_c_library_does() {
        let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 192.0.2.1\n nameserver ::1 # x\n\
                    nameserver x\nnameservers 9.9.9.9\n";
        let expected = ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(servers(text), expected);
        assert_eq!(servers(&"nameserver 192.0.2.1\n".repeat(9)).len(), MAX_SERVERS);
    }

    #[tokio::test]
    async fn a_node_does_not_ask_itself() {
        let file = std::env::temp_dir().join(format!("micro-resolv-{}", std::process::id()));
        std::fs::write(&file, "nameserver 127.0.0.1\nnameserver 127.64.0.53\n").unwrap();
        let own = Some(SocketAddr::from(([127, 0, 0, 1], 53)));
        let refused = Upstreams::new(file.clone(), own).servers().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        std::fs::remove_file(file).unwrap();
    }

    #[tokio::test]
    async fn behind_the_stub_of_resolved_its_servers_are_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (file, behind) = (dir.path().join("stub"), dir.path().join("behind"));
        std::fs::write(&file, "nameserver 127.0.0.53\n").unwrap();
        let upstreams = Upstreams { file, behind: behind.clone(), own: None };
        assert!(upstreams.servers().await.is_err(), "the stub itself would ask back");
        std::fs::write(behind, "nameserver 127.0.0.53\nnameserver 192.0.2.1\n").unwrap();
        assert_eq!(upstreams.servers().await.unwrap(), ["192.0.2.1:53".parse().unwrap()]);
    }

    #[test]
    fn only_what_has_the_number_of_the_question_answers_it() {
        let question = [7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let mut answer = question;
        assert!(!is_answer(&answer, &question), "it is a question");
        answer[2] |= 0x80;
        assert!(is_answer(&answer, &question));
        answer[0] = 9;
        assert!(!is_answer(&answer, &question));
        assert!(!is_answer(&[7, 8], &question));
    }
}

//! `UDP ASSOCIATE` of SOCKS 5 (RFC 1928 §7): packets that name the service which they are for.
//!
//! ```text
//! +-----+------+------+----------+----------+------+
//! | RSV | FRAG | ATYP | DST.ADDR | DST.PORT | DATA |
//! |  2  |  1   |  1   | variable |    2     |      |
//! +-----+------+------+----------+----------+------+
//! ```
//!
//! Each destination is a flow of its own; what comes back has the same head. Pieces of packets
//! (`FRAG`) are not put together, as the standard allows. All of it ends with the connection that
//! asked for it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::net::UdpSocket;

use super::ends::{self, Program};
use super::{Flows, may};
use crate::begin::Meant;
use crate::proxy::Shared;

/// Bytes before the address.
const HEAD: usize = 4;

/// A port for the packets of one program.
pub(crate) struct Association {
    socket: Arc<UdpSocket>,
    /// Where the program is; its packets come from there.
    program: IpAddr,
}

impl Association {
    /// A port at the address through which the program has connected.
    ///
    /// # Errors
    /// When the system has none.
    pub(crate) async fn open(local: SocketAddr, program: SocketAddr) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind((local.ip(), 0)).await?);
        Ok(Self { socket, program: program.ip() })
    }

    /// Where packets are to be sent.
    pub(crate) fn at(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Carries packets for ever.
    pub(crate) async fn serve(&self, shared: &Arc<Shared>) {
        let mut flows = Flows::default();
        loop {
            let Ok((packet, peer)) = ends::recv_from(&self.socket).await else { continue };
            if peer.ip() != self.program {
                continue;
            }
            let Some((head, host, port)) = read(&packet) else { continue };
            let data = packet.slice(head..);
            // Not a part of the packet, which would be held as long as the flow.
            let before = Bytes::copy_from_slice(&packet[..head]);
            let begin = || {
                if !may(shared, peer) {
                    return None;
                }
                let (meant, headers) = meant(shared, &host, port)?;
                let program = Program::new(Arc::clone(&self.socket), peer, before.clone());
                Some((meant, headers, program))
            };
            flows.take(shared, (peer, before.clone()), data, begin);
        }
    }
}

/// The length of the head before a program's packet (RFC 1928 §7), and which host and port it names;
/// `None` for fragments and what is none.
#[must_use]
pub fn read(packet: &Bytes) -> Option<(usize, String, u16)> {
    let [0, 0, 0, kind] = *packet.first_chunk()? else { return None };
    let rest = &packet[HEAD..];
    let (host, length) = match kind {
        1 => (IpAddr::from(*rest.first_chunk::<4>()?).to_string(), 4),
        4 => (IpAddr::from(*rest.first_chunk::<16>()?).to_string(), 16),
        3 => {
            let length = usize::from(*rest.first()?);
            let name = std::str::from_utf8(rest.get(1..=length)?).ok()?;
            (name.to_owned(), 1 + length)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(*rest.get(length..)?.first_chunk()?);
    Some((HEAD + length + 2, host, port))
}

/// The service that a program means. What is none is not sent anywhere: packets do not leave the
/// network here.
fn meant(shared: &Shared, host: &str, port: u16) -> Option<(Meant, HeaderMap)> {
    if host.parse::<IpAddr>().is_ok() {
        return shared.meant_by_address(host, port).map(|meant| (meant, HeaderMap::new()));
    }
    shared.named(&format!("{host}:{port}")).unwrap_or_else(|error| {
        tracing::info!(host, port, %error, "packets for nobody are dropped");
        None
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_read_as_they_stand() {
        let of = |bytes: &'static [u8]| read(&Bytes::from_static(bytes));
        assert_eq!(of(b"\0\0\0\x03\x02db\0\x35hello"), Some((9, "db".to_owned(), 53)));
        assert_eq!(of(b"\0\0\0\x01\x7f\0\0\x01\0\x35"), Some((10, "127.0.0.1".to_owned(), 53)));
        let v6 = b"\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x35x";
        assert_eq!(of(v6), Some((22, "::1".to_owned(), 53)));
        for wrong in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\x01\x03\x02db\0\x35a piece",
            b"\0\x01\0\x03\x02db\0\x35",
            b"\0\0\0\x02\x02db\0\x35",
            b"\0\0\0\x03\xffdb\0\x35",
            b"\0\0\0\x03\x02db\0",
            b"\0\0\0\x03\x02\xff\xfe\0\x35",
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_read_or_dropped(packet: Vec<u8>) {
            let packet = Bytes::from(packet);
            if let Some((head, _, _)) = read(&packet) {
                prop_assert!(head <= packet.len());
            }
        }
    }
}

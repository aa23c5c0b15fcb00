//! The first words of TLS: which server a client wants, read without answering a word.
//!
//! ```text
//! record     22 (1)  version (2)  length (2)  a piece of the handshake           RFC 8446 §5.1
//! handshake  1 (1)   length (3)   ClientHello, in as many records as it takes    RFC 8446 §4
//! hello      version (2)  random (32)  session id <1>  cipher suites <2>  compression <1>
//!            extensions <2>, each: type (2), length (2), body                    RFC 8446 §4.1.2
//! server_name (type 0)   list <2> of: kind (1), name <2>                         RFC 6066 §3
//! ```
//!
//! `<n>` is a length of n bytes, then so much. Only what leads to the name is looked at: what a client
//! can do is between it and its server.

/// Bytes of a hello. Real ones have some hundreds, with the keys of post-quantum exchanges below
/// 4 KiB; the standard allows 16 MiB, which nobody sends.
pub const MAX_HELLO: usize = 16 * 1024;
/// Records of one hello. Split into pieces by clients that hide the name, but not into hundreds.
const MAX_RECORDS: usize = 256;
/// The first byte of a record that holds a handshake.
pub const HANDSHAKE: u8 = 22;
/// The longest piece in a record (RFC 8446 §5.1).
const MAX_PIECE: usize = 1 << 14;
/// The longest name of a host (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The host it wants, in small letters, if it says one.
    pub server_name: Option<String>,
}

/// Why bytes are no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// Not TLS, or not the beginning of a connection.
    #[error("a connection with TLS begins with a ClientHello")]
    NotHello,
    /// It is above [`MAX_HELLO`], or in too many pieces.
    #[error("the ClientHello is too large")]
    TooLarge,
    /// A length that does not fit, or something that is there twice.
    #[error("the ClientHello cannot be read")]
    Malformed,
    /// The name is none: an address, or with characters that no host has.
    #[error("the server name is not a host name")]
    Name,
}

/// Reads a hello as its bytes come, in whatever pieces.
#[derive(Clone, Debug, Default)]
pub struct HelloReader {
    header: [u8; 5],
    /// Of the header of the record that is read now.
    have: usize,
    /// Of its piece, still to come.
    left: usize,
    records: usize,
    handshake: Vec<u8>,
}

impl HelloReader {
    /// Takes the next bytes; gives the hello when it is whole. What follows it is not looked at.
    ///
    /// # Errors
    /// [`BadHello`], as soon as it is certain. Every one is final.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Option<ClientHello>, BadHello> {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.header[self.have] = bytes[0];
                bytes = &bytes[1..];
                self.have += 1;
                self.check_header()?;
                continue;
            }
            let take = self.left.min(bytes.len());
            self.handshake.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            self.left -= take;
            if let Some(hello) = self.whole()? {
                return Ok(Some(hello));
            }
        }
        Ok(None)
    }

    /// Checks what is there of the header of a record, so that what is no TLS is not waited for.
    fn check_header(&mut self) -> Result<(), BadHello> {
        let [kind, major, _, high, low] = self.header;
        if kind != HANDSHAKE || self.have >= 2 && major != 3 {
            return Err(BadHello::NotHello);
        }
        if self.have < self.header.len() {
            return Ok(());
        }
        (self.have, self.left) = (0, usize::from(u16::from_be_bytes([high, low])));
        self.records += 1;
        match self.left {
            // An empty piece of a handshake is forbidden (RFC 8446 §5.1).
            0 => Err(BadHello::Malformed),
            _ if self.left > MAX_PIECE || self.records > MAX_RECORDS => Err(BadHello::TooLarge),
            _ => Ok(()),
        }
    }

    fn whole(&self) -> Result<Option<ClientHello>, BadHello> {
        if self.handshake.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(BadHello::NotHello);
        }
        let Some([_, a, b, c]) = self.handshake.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if length > MAX_HELLO {
            return Err(BadHello::TooLarge);
        }
        match self.handshake[4..].get(..length) {
            Some(hello) => parse(hello).map(Some),
            None => Ok(None),
        }
    }
}

fn parse(hello: &[u8]) -> Result<ClientHello, BadHello> {
    let mut rest = Rest(hello);
    rest.take(2 + 32)?;
    let session = rest.vector(1)?;
    let (suites, compression) = (rest.vector(2)?, rest.vector(1)?);
    let fits = session.len() <= 32 && suites.len() >= 2 && suites.len() % 2 == 0;
    if !fits || compression.is_empty() {
        return Err(BadHello::Malformed);
    }
    let mut server_name = None;
    // Without extensions it may end here (RFC 5246 §7.4.1.2).
    let mut extensions = Rest(if rest.0.is_empty() { &[] } else { rest.vector(2)? });
    if !rest.0.is_empty() {
        return Err(BadHello::Malformed);
    }
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let body = extensions.vector(2)?;
        // Twice, two readers could take two (RFC 8446 §4.2).
        if kind == usize::from(SERVER_NAME) && server_name.replace(name(body)?).is_some() {
            return Err(BadHello::Malformed);
        }
    }
    Ok(ClientHello { server_name })
}

/// The host of the extension, in which no kind may be there twice (RFC 6066 §3), and there is one.
fn name(body: &[u8]) -> Result<String, BadHello> {
    let mut body = Rest(body);
    let mut list = Rest(body.vector(2)?);
    let kind = list.number(1)?;
    let name = list.vector(2)?;
    if kind != usize::from(HOST_NAME) || !list.0.is_empty() || !body.0.is_empty() {
        return Err(BadHello::Malformed);
    }
    let of_host = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let text = std::str::from_utf8(name).ok().filter(|_| name.iter().all(of_host));
    // Addresses are not names (RFC 6066 §3).
    let text = text.filter(|text| !text.is_empty() && text.parse::<std::net::IpAddr>().is_err());
    let text = text.filter(|text| text.len() <= MAX_NAME).ok_or(BadHello::Name)?;
    Ok(text.to_ascii_lowercase())
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BadHello> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BadHello::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, BadHello> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A length of so many bytes, and so much.
    fn vector(&mut self, bytes: usize) -> Result<&'a [u8], BadHello> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(bytes: usize, body: &[u8]) -> Vec<u8> {
        [&body.len().to_be_bytes()[8 - bytes..], body].concat()
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector(2, body)].concat()
    }

    fn server_name(name: &[u8]) -> Vec<u8> {
        extension(0, &vector(2, &[&[0][..], &vector(2, name)].concat()))
    }

    fn handshake(extensions: &[u8]) -> Vec<u8> {
        let suites = vector(2, &[0x13, 0x01]);
        let hello = [&[3, 3][..], &[7; 32], &vector(1, &[9; 32]), &suites, &vector(1, &[0])];
        [&[1][..], &vector(3, &[&hello.concat(), &vector(2, extensions)[..]].concat())].concat()
    }

    /// The handshake in records of at most so many bytes.
    fn records(handshake: &[u8], size: usize) -> Vec<u8> {
        let record = |piece: &[u8]| [&[22, 3, 1][..], &vector(2, piece)].concat();
        handshake.chunks(size).flat_map(record).collect()
    }

    fn read(bytes: &[u8], cut: usize) -> Result<Option<ClientHello>, BadHello> {
        let mut reader = HelloReader::default();
        for piece in bytes.chunks(cut.max(1)) {
            if let Some(hello) = reader.push(piece)? {
                return Ok(Some(hello));
            }
        }
        Ok(None)
    }

    #[test]
    fn the_name_is_found_however_the_hello_is_split() {
        let extensions = [extension(16, b"\0\x03\x02h2"), server_name(b"Shop.localhost")].concat();
        let handshake = handshake(&extensions);
        for size in [1, 2, 5, 40, 500] {
            let bytes = records(&handshake, size);
            for cut in [1, 2, 3, 7, bytes.len()] {
                let hello = read(&bytes, cut).unwrap().unwrap();
                assert_eq!(hello.server_name.as_deref(), Some("shop.localhost"), "{size} {cut}");
            }
            assert_eq!(read(&bytes[..bytes.len() - 1], 1), Ok(None), "not whole");
        }
    }

    #[test]
    fn a_hello_may_name_nobody() {
        let whole = |extensions: &[u8]| read(&records(&handshake(extensions), 500), 1);
        assert_eq!(whole(&[]), Ok(Some(ClientHello { server_name: None })));
        assert_eq!(whole(&extension(43, b"\x02\x03\x04")).unwrap().unwrap().server_name, None);
    }

    #[test]
    fn what_two_readers_could_take_for_two_things_is_refused() {
        let twice = [server_name(b"a"), server_name(b"b")].concat();
        let two = extension(0, &vector(2, b"\0\0\x01a\0\0\x01b"));
        let long = extension(0, &[&vector(2, b"\0\0\x01a")[..], b"x"].concat());
        for bad in [&twice, &two, &long, &extension(0, b""), &vec![0, 0, 0]] {
            assert_eq!(
                read(&records(&handshake(bad), 500), 9),
                Err(BadHello::Malformed),
                "{bad:?}"
            );
        }
        for bad in [&b""[..], b"127.0.0.1", b"a b", b"a\0", "b\u{fc}cher".as_bytes(), &[b'a'; 254]]
        {
            let bytes = records(&handshake(&server_name(bad)), 500);
            assert_eq!(read(&bytes, 9), Err(BadHello::Name), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_hello_is_known_at_its_first_wrong_byte() {
        for (bytes, why) in [
            (&[23][..], BadHello::NotHello),
            (&[22, 2], BadHello::NotHello),
            (&[22, 3, 1, 0, 5, 2], BadHello::NotHello),
            (&[22, 3, 1, 0, 0], BadHello::Malformed),
            (&[22, 3, 1, 0x40, 1], BadHello::TooLarge),
            (&[22, 3, 1, 0, 4, 1, 0, 0x40, 1], BadHello::TooLarge),
        ] {
            assert_eq!(read(bytes, 1), Err(why), "{bytes:?}");
        }
        let many = records(&[&[1, 0, 0x30, 0][..], &[0; 400]].concat(), 1);
        assert_eq!(read(&many, 50), Err(BadHello::TooLarge));
    }

    proptest! {
        #[test]
        fn the_cut_never_matters(bytes: Vec<u8>, cut in 1usize..40, at: prop::sample::Index) {
            let mut hello = records(&handshake(&server_name(b"shop")), 60);
            let at = at.index(hello.len());
            hello.splice(at.., bytes);
            let (whole, pieces) = (read(&hello, hello.len()), read(&hello, cut));
            prop_assert_eq!(whole, pieces);
        }
    }
}

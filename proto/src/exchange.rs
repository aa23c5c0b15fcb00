//! One HTTP exchange on a stream between two nodes, as frames. The same in both directions.
//!
//! ```text
//! request    Open  HEAD  DATA*  [TRAILERS]  end of stream
//! response  [LOAD] HEAD  DATA*  [TRAILERS]  end of stream      what the service said
//!                  FAULT                    end of stream      what a node could not do
//! ```
//!
//! `LOAD` tells how busy the instance is: calls in flight (varint), limit (varint); whoever does not
//! know it skips it. `DATA` carries body bytes as they came, cut anywhere; nothing here knows what they mean.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::varint;

/// Bytes of a head or of trailers.
pub const MAX_HEAD: usize = 64 * 1024;
/// Bytes of one data frame. Readers hand them on in pieces, so this is a check, not a buffer.
pub const MAX_DATA: usize = 1 << 20;

/// Bytes of a load: room for what later releases may tell with it.
pub const MAX_LOAD: usize = 256;

/// What a frame of an exchange holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Body bytes.
    Data,
    /// The head of the request or response: see [`crate::head`].
    Head,
    /// Trailers: see [`crate::head`].
    Trailers,
    /// A [`crate::Fault`] in place of the rest of the response.
    Fault,
    /// A [`Load`], before the head of a response.
    Load,
}

/// How busy an instance is, as its own node counts it.
///
/// ```text
/// in flight (varint) | limit (varint) | whatever later releases add
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls at the instance, of all callers.
    pub in_flight: u32,
    /// How many it may have; 0: not told.
    pub limit: u32,
}

impl Load {
    /// Bytes of the longest frame.
    pub const MAX_FRAME: usize = 2 + 8 + 8;

    /// Appends the whole frame.
    pub fn put(self, out: &mut BytesMut) {
        let (in_flight, limit) = (u64::from(self.in_flight), u64::from(self.limit));
        put_header(out, FrameKind::Load, varint::len(in_flight) + varint::len(limit));
        varint::put(out, in_flight);
        varint::put(out, limit);
    }

    /// Reads the body of the frame. What is not a load says nothing: it is only a hint.
    #[must_use]
    pub fn read(mut body: &[u8]) -> Option<Self> {
        let in_flight = varint::take(&mut body)?;
        let limit = varint::take(&mut body)?;
        Some(Self { in_flight: u32::try_from(in_flight).ok()?, limit: u32::try_from(limit).ok()? })
    }
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Head => 1,
            Self::Trailers => 2,
            Self::Fault => 3,
            Self::Load => 4,
        }
    }

    const fn max(self) -> usize {
        match self {
            Self::Data => MAX_DATA,
            Self::Head | Self::Trailers => MAX_HEAD,
            Self::Fault => crate::fault::MAX_FAULT,
            Self::Load => MAX_LOAD,
        }
    }
}

/// Appends the header of a frame: kind (1 byte), length (varint). The body follows.
pub fn put_header(out: &mut BytesMut, kind: FrameKind, length: usize) {
    out.put_u8(kind.code());
    varint::put(out, length as u64);
}

/// One thing read from an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A whole head.
    Head(Bytes),
    /// Body bytes: all of a data frame or a piece of it.
    Data(Bytes),
    /// Whole trailers.
    Trailers(Bytes),
    /// A whole fault.
    Fault(Bytes),
    /// A whole load: see [`Load::read`].
    Load(Bytes),
}

/// Cuts the chunks of a stream into parts, without copying body bytes.
///
/// Feed it what arrives; take parts until `None`. Unknown frame kinds below 64 are skipped.
#[derive(Debug, Default)]
pub struct Reader {
    /// Bytes of frame headers and whole-frame bodies that are not complete yet.
    partial: BytesMut,
    /// What arrived and is not looked at yet.
    chunk: Bytes,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Data(usize),
    Whole(FrameKind, usize),
    Skip(usize),
}

impl Reader {
    /// A reader that begins with bytes already received.
    #[must_use]
    pub fn with(chunk: Bytes) -> Self {
        Self { chunk, ..Self::default() }
    }

    /// Adds what arrived. To be called only after [`Reader::next`] gave `None`.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "parts are taken before more is pushed");
        self.chunk = chunk;
    }

    /// What arrived behind the last part: where frames are followed by something else.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.chunk
    }

    /// Whether the stream may end here: no frame is half read.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header) && self.partial.is_empty() && self.chunk.is_empty()
    }

    /// The next part; `None` when more must arrive first.
    ///
    /// # Errors
    /// [`DecodeError`] for an unknown critical frame or one above its bound. Final.
    #[expect(clippy::should_implement_trait, reason = "`None` is not the end: more may arrive")]
    pub fn next(&mut self) -> Result<Option<Part>, DecodeError> {
        loop {
            match self.state {
                State::Header => {
                    if !self.header()? {
                        return Ok(None);
                    }
                }
                State::Data(0) | State::Skip(0) => self.state = State::Header,
                State::Data(left) | State::Skip(left) => {
                    if self.chunk.is_empty() {
                        return Ok(None);
                    }
                    let piece = self.chunk.split_to(left.min(self.chunk.len()));
                    let left = left - piece.len();
                    if matches!(self.state, State::Skip(_)) {
                        self.state = State::Skip(left);
                    } else {
                        self.state = State::Data(left);
                        return Ok(Some(Part::Data(piece)));
                    }
                }
                State::Whole(kind, length) => {
                    let Some(body) = self.whole(length) else { return Ok(None) };
                    self.state = State::Header;
                    return Ok(Some(match kind {
                        FrameKind::Head => Part::Head(body),
                        FrameKind::Trailers => Part::Trailers(body),
                        FrameKind::Fault => Part::Fault(body),
                        FrameKind::Load => Part::Load(body),
                        FrameKind::Data => Part::Data(body),
                    }));
                }
            }
        }
    }

    /// Reads a frame header, which may be spread over chunks.
    fn header(&mut self) -> Result<bool, DecodeError> {
        if self.partial.is_empty() {
            let mut rest = &self.chunk[..];
            if let Some((code, length)) = take_header(&mut rest) {
                let read = self.chunk.len() - rest.len();
                self.chunk.advance(read);
                self.state = state_for(code, length)?;
                return Ok(true);
            }
        }
        while !self.chunk.is_empty() {
            self.partial.put_u8(self.chunk[0]);
            self.chunk.advance(1);
            let mut rest = &self.partial[..];
            if let Some((code, length)) = take_header(&mut rest) {
                self.partial.clear();
                self.state = state_for(code, length)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn whole(&mut self, length: usize) -> Option<Bytes> {
        if self.partial.is_empty() && self.chunk.len() >= length {
            return Some(self.chunk.split_to(length));
        }
        let missing = length - self.partial.len();
        let piece = self.chunk.split_to(missing.min(self.chunk.len()));
        self.partial.extend_from_slice(&piece);
        (self.partial.len() == length).then(|| self.partial.split().freeze())
    }
}

fn take_header(rest: &mut &[u8]) -> Option<(u8, u64)> {
    let (code, after) = rest.split_first()?;
    let mut after = after;
    let length = varint::take(&mut after)?;
    *rest = after;
    Some((*code, length))
}

fn state_for(code: u8, length: u64) -> Result<State, DecodeError> {
    let kind = match code {
        0 => FrameKind::Data,
        1 => FrameKind::Head,
        2 => FrameKind::Trailers,
        3 => FrameKind::Fault,
        4 => FrameKind::Load,
        code if u64::from(code) >= crate::wire::CRITICAL => {
            return Err(DecodeError::UnknownCritical(u64::from(code)));
        }
        _ => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > MAX_DATA {
                return Err(DecodeError::TooLarge("frame"));
            }
            return Ok(State::Skip(length));
        }
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > kind.max() {
        return Err(DecodeError::TooLarge("frame"));
    }
    Ok(if kind == FrameKind::Data { State::Data(length) } else { State::Whole(kind, length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Bytes, Vec<Part>) {
        let mut out = BytesMut::new();
        put_header(&mut out, FrameKind::Head, 4);
        out.put_slice(b"head");
        put_header(&mut out, FrameKind::Data, 100);
        out.put_bytes(b'd', 100);
        out.put_slice(&[9, 2, b'?', b'?']);
        put_header(&mut out, FrameKind::Trailers, 0);
        let parts = vec![
            Part::Head(Bytes::from_static(b"head")),
            Part::Data(Bytes::from(vec![b'd'; 100])),
            Part::Trailers(Bytes::new()),
        ];
        (out.freeze(), parts)
    }

    #[test]
    fn parts_are_the_same_however_the_bytes_are_cut() {
        let (bytes, whole) = sample();
        for size in 1..=bytes.len() {
            let mut reader = Reader::default();
            let mut parts: Vec<Part> = Vec::new();
            for chunk in bytes.chunks(size) {
                reader.push(Bytes::copy_from_slice(chunk));
                while let Some(part) = reader.next().unwrap() {
                    match (parts.last_mut(), part) {
                        (Some(Part::Data(before)), Part::Data(more)) => {
                            *before = [&before[..], &more[..]].concat().into();
                        }
                        (_, part) => parts.push(part),
                    }
                }
            }
            assert!(reader.is_between_frames());
            assert_eq!(parts, whole, "cut every {size}");
        }
    }

    #[test]
    fn a_load_is_read_as_it_was_written_and_garbage_says_nothing() {
        let load = Load { in_flight: 70, limit: 4_096 };
        let mut out = BytesMut::new();
        load.put(&mut out);
        assert!(out.len() <= Load::MAX_FRAME);
        let mut reader = Reader::with(out.freeze());
        let Ok(Some(Part::Load(body))) = reader.next() else { panic!("a load") };
        assert_eq!(Load::read(&body), Some(load));
        assert_eq!(Load::read(&[]), None);
        assert_eq!(Load::read(&[0xff; 16]), None);
    }

    #[test]
    fn a_head_above_its_bound_is_refused_before_it_is_held() {
        let mut out = BytesMut::new();
        put_header(&mut out, FrameKind::Head, MAX_HEAD + 1);
        let mut reader = Reader::with(out.freeze());
        assert_eq!(reader.next(), Err(DecodeError::TooLarge("frame")));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(bytes: Vec<u8>) {
            let mut reader = Reader::with(Bytes::from(bytes));
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}

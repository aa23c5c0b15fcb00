//! Rules as people write them: the TOML of a file, and the same as JSON on the admin socket.
//!
//! [`form`] is what is written, word for word; [`proto::rule`] is what it means. [`words`] reads
//! and writes the single values, [`mod@file`] tells where a file is wrong. [`keep`] writes what a
//! node decides, and keeps it for its next life.

pub mod file;
pub mod form;
pub mod keep;
pub mod words;

//! The small pieces that the text formats of a log share: decimal numbers, base64, lines. Each has one form.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    digest::Digest,
    log::merkle::{MAX_PROOF, MAX_SIZE},
};

/// A number of at most [`MAX_SIZE`]: ASCII digits without a leading zero.
pub(super) fn number(text: &str) -> Option<u64> {
    let plain = text == "0" || (!text.starts_with('0') && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    text.parse().ok().filter(|number| plain && *number <= MAX_SIZE)
}

/// The bytes of `text`, padded base64 whose spare bits are zero.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// `bytes` as base64.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// A hash: base64 of 32 bytes.
pub(super) fn hash(text: &str) -> Option<Digest> {
    if text.len() != 44 {
        return None;
    }
    Some(Digest::from_bytes(base64(text)?.try_into().ok()?))
}

/// `hash` as a line without its newline.
pub(super) fn to_line(hash: &Digest) -> String {
    to_base64(hash.as_bytes())
}

/// The hashes of a proof, one a line, taken from `lines` until an empty line, which is taken too.
pub(super) fn hashes<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<Vec<Digest>> {
    let mut all = Vec::new();
    loop {
        match lines.next()? {
            "" => return Some(all),
            line if all.len() < MAX_PROOF => all.push(hash(line)?),
            _ => return None,
        }
    }
}

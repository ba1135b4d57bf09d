//! Which characters the bytes of a file are: UTF-8, or CP932, as Japanese hospital systems and Excel still write it.
//!
//! A file is of one encoding as a whole: of UTF-8 if every line is that, else of CP932 if every line is that, else of
//! none. Nothing is replaced: a line that cannot be read is an error. CP932 is `encoding_rs`'s `Shift_JIS`, which is that of the
//! WHATWG Encoding Standard, with the characters of NEC and IBM. In neither encoding is a line's end part of another character.

use std::borrow::Cow;

use encoding_rs::SHIFT_JIS;
use tokio::io::AsyncBufRead;

use super::{RegisterError, csv::Lines};

/// How the characters of a file are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Whichever of the two the whole file is.
    #[default]
    Auto,
    /// UTF-8, with a byte-order mark or without.
    Utf8,
    /// CP932, Microsoft's Shift_JIS.
    Cp932,
}

/// An encoding that was decided on.
#[derive(Clone, Copy)]
pub(super) enum Decided {
    Utf8,
    Cp932,
}

impl Encoding {
    /// Decides on the encoding of all `lines`, which are read to their end if that is needed.
    pub(super) async fn decide<R: AsyncBufRead + Unpin>(self, lines: &mut Lines<R>) -> Result<Decided, RegisterError> {
        match self {
            Self::Utf8 => return Ok(Decided::Utf8),
            Self::Cp932 => return Ok(Decided::Cp932),
            Self::Auto => {}
        }
        let (mut not_utf8, mut not_cp932) = (None, None);
        while let Some(line) = lines.next().await? {
            let (utf8, cp932) = (Decided::Utf8.text(line).is_some(), Decided::Cp932.text(line).is_some());
            let number = lines.number();
            not_utf8 = not_utf8.or((!utf8).then_some(number));
            not_cp932 = not_cp932.or((!cp932).then_some(number));
            // The later line is where the encoding ends that went further: the one that was meant.
            if let (Some(one), Some(other)) = (not_utf8, not_cp932) {
                let reason = "the file is neither UTF-8 nor CP932 throughout; save it in one of them";
                return Err(RegisterError::Line { line: one.max(other), reason });
            }
        }
        Ok(if not_utf8.is_none() { Decided::Utf8 } else { Decided::Cp932 })
    }
}

impl Decided {
    /// The characters of a line, if every one can be read.
    pub(super) fn text(self, line: &[u8]) -> Option<Cow<'_, str>> {
        match self {
            Self::Utf8 => std::str::from_utf8(line).ok().map(Cow::Borrowed),
            Self::Cp932 => SHIFT_JIS.decode_without_bom_handling_and_without_replacement(line),
        }
    }

    /// What is wrong with a line of which [`text`](Self::text) is none.
    pub(super) const fn unreadable(self) -> &'static str {
        match self {
            Self::Utf8 => "it is not UTF-8",
            Self::Cp932 => "it is not CP932",
        }
    }
}

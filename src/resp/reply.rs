//! The scanner for what the uplink sends: all of RESP2 and RESP3, for its ends alone.
//!
//! Nested aggregates are counted on a stack of bounded depth. Streamed aggregates and strings
//! (`*?`, `$?`) and attributes (`|`, which precede the value that they belong to) are understood.

use super::number::Number;
use super::short_bulk;

/// Bytes that are kept of aggregates inside one another. Redis itself delivers a Lua script's table of
/// some 8000 levels, which takes half of this.
const MAX_OPEN: usize = 256 * 1024;
/// Aggregates inside one another.
pub const MAX_DEPTH: usize = MAX_OPEN / size_of::<Level>();

/// How much of a reply's first text is kept for [`Scanner::first_text`].
const MAX_TEXT: usize = 24;

/// The uplink broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A value begins with a byte that names no type.
    #[error("unknown type byte 0x{0:02x}")]
    Type(u8),
    /// A length is no number, or impossible for its type.
    #[error("invalid length")]
    Length,
    /// A value does not end in CR LF.
    #[error("expected CRLF")]
    LineEnd,
    /// More than [`MAX_DEPTH`] aggregates inside one another.
    #[error("a reply is nested more than {MAX_DEPTH} deep, which is more than redis-proxy follows")]
    TooDeep,
}

/// What [`Scanner::next`] came upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All input was read; feed more.
    More,
    /// A whole reply (or push) was read; `kind` is its type byte.
    End {
        /// The type byte, that of an attribute before it passed over.
        kind: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a value's type byte.
    Type,
    /// In a value that is one line.
    Line,
    /// In the length of a bulk or an aggregate of this type.
    Length(u8),
    LengthLf(u8, i64),
    /// A `?` was read for a length.
    StreamedCr(u8),
    StreamedLf(u8),
    /// In a bulk string.
    Body,
    BodyCr,
    BodyLf,
    /// Before the `;` of a streamed string's next chunk.
    Chunk,
}

/// An aggregate that is open.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Values still to come; without meaning in a streamed one.
    left: u64,
    streamed: bool,
    /// It is no element of what it stands in: an attribute, whose value follows, or a push, which
    /// Redis may send in the middle of EXEC's reply.
    aside: bool,
}

/// What is kept of the present line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Text,
    Number,
    /// Also once a number is complete, or turned out to be none.
    Nothing,
}

/// A resumable scanner over one uplink connection's bytes.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    number: Number,
    bulk_left: u64,
    /// The present bulk string is a chunk of a streamed one.
    in_chunks: bool,
    open: Vec<Level>,
    kind: u8,
    /// Inside a reply: some of its bytes were read.
    begun: bool,
    /// The last byte of the present line was a carriage return.
    after_cr: bool,
    peek: bool,
    /// An array's elements are told one by one, after its header.
    unfolds: bool,
    /// The reply is a null.
    null: bool,
    text: [u8; MAX_TEXT],
    text_len: u8,
    text_done: bool,
    line: Number,
    keep: Keep,
    last_number: i64,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner {
            state: State::Type,
            number: Number::default(),
            bulk_left: 0,
            in_chunks: false,
            open: Vec::new(),
            kind: 0,
            begun: false,
            after_cr: false,
            peek: false,
            unfolds: false,
            null: false,
            text: [0; MAX_TEXT],
            text_len: 0,
            text_done: false,
            line: Number::default(),
            keep: Keep::Nothing,
            last_number: 0,
        }
    }
}

impl Scanner {
    /// Inside a reply.
    pub fn in_frame(&self) -> bool {
        self.begun
    }

    /// Whether to keep what [`Scanner::first_text`] and [`Scanner::last_number`] tell; between replies only.
    pub fn set_peek(&mut self, peek: bool) {
        debug_assert!(!self.begun, "a reply is looked into from its beginning or not at all");
        self.peek = peek;
    }

    /// Whether the next reply, if it is an array, ends with its header for now, which
    /// [`Scanner::last_number`] tells the elements of: each of these is a reply of its own. Between
    /// replies only.
    pub fn set_unfolds(&mut self, unfolds: bool) {
        debug_assert!(!self.begun, "a reply's header is read already");
        self.unfolds = unfolds;
    }

    /// The last reply was a null in RESP2: a bulk string or an array that is none.
    pub fn was_null(&self) -> bool {
        self.null
    }

    /// The beginning of the last reply's first text: a status line, or an aggregate's first element.
    pub fn first_text(&self) -> &[u8] {
        &self.text[..usize::from(self.text_len)]
    }

    /// Whether that is all of it, or as much as is kept.
    pub fn has_first_text(&self) -> bool {
        self.text_done || usize::from(self.text_len) == MAX_TEXT
    }

    /// The last integer directly inside the last reply, which in a subscription's confirmation
    /// is the number of subscriptions.
    pub fn last_number(&self) -> i64 {
        self.last_number
    }

    /// Reads `input` from `pos` on, up to the end of a reply.
    pub fn next(&mut self, input: &[u8], pos: &mut usize) -> Result<Step, Error> {
        while *pos < input.len() {
            let complete = match self.state {
                State::Type => {
                    let byte = input[*pos];
                    *pos += 1;
                    self.value_begins(byte)?
                }
                State::Line => self.line(input, pos),
                State::Length(kind) => self.length(kind, input, pos)?,
                State::LengthLf(kind, len) => {
                    expect(b'\n', input, pos)?;
                    self.sized(kind, len)?
                }
                State::StreamedCr(kind) => {
                    expect(b'\r', input, pos)?;
                    self.state = State::StreamedLf(kind);
                    false
                }
                State::StreamedLf(kind) => {
                    expect(b'\n', input, pos)?;
                    self.streamed(kind)?
                }
                State::Body => self.body(input, pos),
                State::BodyCr => {
                    expect(b'\r', input, pos)?;
                    self.state = State::BodyLf;
                    false
                }
                State::BodyLf => {
                    expect(b'\n', input, pos)?;
                    self.text_done = true;
                    if self.in_chunks {
                        self.state = State::Chunk;
                        false
                    } else {
                        true
                    }
                }
                State::Chunk => {
                    let byte = input[*pos];
                    if byte != b';' {
                        return Err(Error::Type(byte));
                    }
                    *pos += 1;
                    self.state = State::Length(b';');
                    false
                }
            };
            if complete && self.value_ends() {
                self.begun = false;
                self.unfolds = false;
                return Ok(Step::End { kind: self.kind });
            }
        }
        Ok(Step::More)
    }

    /// Each of these says whether a value is complete with what it read.
    fn value_begins(&mut self, byte: u8) -> Result<bool, Error> {
        if self.open.is_empty() {
            // The first byte of a reply, or of the value that an attribute belongs to.
            self.begun = true;
            self.kind = byte;
            self.text_len = 0;
            self.text_done = false;
            self.last_number = 0;
            self.null = false;
        }
        match byte {
            b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' => {
                self.after_cr = false;
                self.keep = match byte {
                    _ if !self.peek || self.open.len() > 1 => Keep::Nothing,
                    b':' => Keep::Number,
                    _ if self.text_done => Keep::Nothing,
                    _ => Keep::Text,
                };
                self.line = Number::default();
                self.state = State::Line;
                Ok(false)
            }
            b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|' => {
                self.state = State::Length(byte);
                Ok(false)
            }
            b'.' if self.open.last().is_some_and(|level| level.streamed) => {
                self.state = State::StreamedCr(b'.');
                Ok(false)
            }
            byte => Err(Error::Type(byte)),
        }
    }

    fn line(&mut self, input: &[u8], pos: &mut usize) -> bool {
        let rest = &input[*pos..];
        let (line, ends) = match memchr::memchr(b'\n', rest) {
            Some(end) => (&rest[..=end], true),
            None => (rest, false),
        };
        *pos += line.len();
        if self.keep != Keep::Nothing {
            self.keep_line(line);
        }
        // A line feed alone does not end a line.
        let before = line.len().checked_sub(2).map_or(self.after_cr, |at| line[at] == b'\r');
        self.after_cr = line.last() == Some(&b'\r');
        let complete = ends && before;
        self.text_done |= complete;
        complete
    }

    fn length(&mut self, kind: u8, input: &[u8], pos: &mut usize) -> Result<bool, Error> {
        if self.number == Number::default() && input[*pos] == b'?' && kind != b';' {
            *pos += 1;
            self.state = State::StreamedCr(kind);
        } else if let Some(len) = self.number.read(input, pos).map_err(|_| Error::Length)? {
            self.state = State::LengthLf(kind, len);
        }
        Ok(false)
    }

    fn sized(&mut self, kind: u8, len: i64) -> Result<bool, Error> {
        if len == -1 && matches!(kind, b'$' | b'*') {
            self.text_done = true;
            self.null = self.open.is_empty();
            return Ok(true);
        }
        let len = u64::try_from(len).map_err(|_| Error::Length)?;
        match kind {
            b'$' | b'=' | b'!' => {
                self.bulk_left = len;
                self.in_chunks = false;
                self.state = if len == 0 { State::BodyCr } else { State::Body };
                Ok(false)
            }
            b';' => {
                self.bulk_left = len;
                self.in_chunks = len > 0;
                self.state = State::Body;
                Ok(len == 0)
            }
            _ => {
                let pairs = matches!(kind, b'%' | b'|');
                let left = if pairs { len.checked_mul(2).ok_or(Error::Length)? } else { len };
                if self.unfolds && kind == b'*' && self.open.is_empty() {
                    self.last_number = i64::try_from(left).map_err(|_| Error::Length)?;
                    self.text_done = true;
                    return Ok(true);
                }
                let aside = self.is_aside(kind);
                self.state = State::Type;
                if left > 0 {
                    self.descend(Level { left, streamed: false, aside })?;
                }
                Ok(left == 0 && !aside)
            }
        }
    }

    fn streamed(&mut self, kind: u8) -> Result<bool, Error> {
        match kind {
            b'$' => {
                self.state = State::Chunk;
                Ok(false)
            }
            b'*' | b'~' | b'%' | b'|' | b'>' => {
                self.state = State::Type;
                let aside = self.is_aside(kind);
                self.descend(Level { left: 0, streamed: true, aside })?;
                Ok(false)
            }
            b'.' => {
                self.state = State::Type;
                // `value_begins` saw that the innermost one is streamed.
                Ok(self.open.pop().is_some_and(|level| !level.aside))
            }
            _ => Err(Error::Length),
        }
    }

    fn is_aside(&self, kind: u8) -> bool {
        kind == b'|' || (kind == b'>' && !self.open.is_empty())
    }

    fn descend(&mut self, level: Level) -> Result<(), Error> {
        if self.open.len() == MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.open.push(level);
        Ok(())
    }

    fn body(&mut self, input: &[u8], pos: &mut usize) -> bool {
        let here = (input.len() - *pos) as u64;
        let taken = usize::try_from(here.min(self.bulk_left)).unwrap_or(usize::MAX);
        if self.peek && !self.text_done && self.open.len() <= 1 {
            self.keep_text(&input[*pos..*pos + taken]);
        }
        self.bulk_left -= taken as u64;
        *pos += taken;
        if self.bulk_left == 0 {
            self.state = State::BodyCr;
        }
        false
    }

    /// True when this was the end of the whole reply.
    fn value_ends(&mut self) -> bool {
        self.state = State::Type;
        while let Some(level) = self.open.last_mut() {
            if level.streamed {
                return false;
            }
            level.left -= 1;
            if level.left > 0 {
                return false;
            }
            let aside = level.aside;
            self.open.pop();
            if aside {
                return false;
            }
        }
        true
    }

    fn keep_text(&mut self, bytes: &[u8]) {
        let have = usize::from(self.text_len);
        let more = bytes.len().min(MAX_TEXT - have);
        self.text[have..have + more].copy_from_slice(&bytes[..more]);
        self.text_len += u8::try_from(more).unwrap_or(0);
    }

    fn keep_line(&mut self, line: &[u8]) {
        if self.keep == Keep::Text {
            let end = line.iter().position(|b| matches!(b, b'\r' | b'\n'));
            self.keep_text(&line[..end.unwrap_or(line.len())]);
            if end.is_some() {
                self.keep = Keep::Nothing;
            }
            return;
        }
        match self.line.read(line, &mut 0) {
            Ok(None) => {}
            Ok(Some(number)) => {
                self.last_number = number;
                self.keep = Keep::Nothing;
            }
            Err(_) => self.keep = Keep::Nothing,
        }
    }
}

/// A short cut past the scanner, between replies: the length of a whole reply that `rest` begins
/// with, for the most usual ones.
#[inline]
pub fn short_reply(rest: &[u8]) -> Option<usize> {
    if rest.starts_with(b"+OK\r\n") { Some(5) } else { short_bulk(rest) }
}

fn expect(byte: u8, input: &[u8], pos: &mut usize) -> Result<(), Error> {
    if input[*pos] != byte {
        return Err(Error::LineEnd);
    }
    *pos += 1;
    Ok(())
}

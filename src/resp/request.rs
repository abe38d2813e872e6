//! The scanner for what clients send: arrays of bulk strings, and inline commands.
//!
//! It is stricter than Redis in one point: Redis skips the two bytes after a length or a bulk
//! string without looking at them, this refuses anything but CR LF there. The proxy must never
//! see a frame's end elsewhere than the uplink does.

use super::MAX_INLINE;
use super::number::Number;
use super::short_bulk;

/// The longest command name that is looked at; the names that the proxy cares for are shorter.
pub const MAX_NAME: usize = 24;

/// How large a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arguments, the command's name included.
    pub args: u32,
    /// Bytes of one bulk string.
    pub bulk: u64,
}

/// Redis's default of `proto-max-bulk-len`.
const DEFAULT_MAX_BULK: u64 = 512 * 1024 * 1024;

impl Limits {
    /// Before AUTH, as in Redis.
    pub const UNAUTHENTICATED: Limits = Limits { args: 10, bulk: 16 * 1024 };
    /// What may be forwarded: how large a bulk string may be is for the uplink to say, whose
    /// `proto-max-bulk-len` may be changed at any time. Nothing of it is held here.
    pub const FULL: Limits = Limits { args: i32::MAX as u32, bulk: i64::MAX as u64 };
}

/// The client broke the protocol, or a limit of it. Nothing after this can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The number after `*` is none, or over the limit.
    #[error("invalid multibulk length")]
    ArgCount,
    /// Over [`Limits::UNAUTHENTICATED`].
    #[error("unauthenticated multibulk length")]
    UnauthenticatedArgCount,
    /// A bulk string does not begin with `$`.
    #[error("expected '$', got '{}'", printable(*.0))]
    NotABulk(u8),
    /// The number after `$` is none, or negative, or has more than 18 digits; before AUTH, also if it is
    /// over Redis's default limit.
    #[error("invalid bulk length")]
    BulkLength,
    /// Over [`Limits::UNAUTHENTICATED`].
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// A bulk string or a length does not end in CR LF.
    #[error("expected CRLF")]
    LineEnd,
    /// An inline command without an end.
    #[error("too big inline request")]
    InlineTooLong,
    /// An inline command with a quote that is not closed.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// An error line must stay one line.
fn printable(byte: u8) -> char {
    match byte {
        b'\r' | b'\n' => ' ',
        byte => char::from(byte),
    }
}

/// What [`Scanner::next`] came upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All input was read; feed more.
    More,
    /// A command's name is known: see [`Scanner::name`]. `args` counts the name too.
    Head {
        /// The number of arguments.
        args: u32,
    },
    /// The end of a request, reported only where [`Scanner::report_end`] asked for it.
    End,
    /// The line feed of an inline command was read; the line began at [`Scanner::frame_start`].
    Inline,
    /// An array of no arguments was read. Redis does not answer it.
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    ArgCount,
    ArgCountLf,
    BulkType,
    BulkLength,
    BulkLengthLf,
    Name,
    Body,
    BodyCr,
    BodyLf,
    Inline,
}

/// A resumable scanner over one client's bytes.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    number: Number,
    /// Arguments of the present frame that have not begun yet.
    args_left: u32,
    /// All arguments of the present frame.
    args: u32,
    /// Bytes of the present bulk string that are still to come, its CR LF not counted.
    bulk_left: u64,
    /// Lower case; valid between [`Step::Head`] and the next frame.
    name: [u8; MAX_NAME],
    name_len: u8,
    /// The head of the present frame was reported.
    decided: bool,
    report_end: bool,
    limits: Limits,
    /// Where in the input the present frame began; 0 if that was in an earlier input.
    frame_start: usize,
    inline_len: usize,
}

impl Scanner {
    /// Stands before the first byte.
    pub fn new(limits: Limits) -> Self {
        Scanner {
            state: State::Start,
            number: Number::default(),
            args_left: 0,
            args: 0,
            bulk_left: 0,
            name: [0; MAX_NAME],
            name_len: 0,
            decided: true,
            report_end: false,
            limits,
            frame_start: 0,
            inline_len: 0,
        }
    }

    /// From the next length on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Report the end of the present frame. Called at its head; forgotten at its end.
    pub fn report_end(&mut self) {
        self.report_end = true;
    }

    /// The command's name in lower case; empty if it is longer than [`MAX_NAME`].
    pub fn name(&self) -> &[u8] {
        &self.name[..usize::from(self.name_len)]
    }

    /// The number of arguments of the present frame, the name included.
    pub fn args(&self) -> u32 {
        self.args
    }

    /// Bytes of the present bulk string that were announced, and are still to come.
    pub fn bulk_left(&self) -> u64 {
        self.bulk_left
    }

    /// Where in the input the present (or just ended) frame began; 0 if in an earlier input.
    pub fn frame_start(&self) -> usize {
        self.frame_start
    }

    /// In a frame whose head was not reported yet.
    pub fn undecided(&self) -> bool {
        self.state != State::Start && !self.decided
    }

    /// Inside a frame.
    pub fn in_frame(&self) -> bool {
        self.state != State::Start
    }

    /// Tell that the next call has new input, with a `pos` of its own.
    pub fn new_input(&mut self) {
        self.frame_start = 0;
    }

    /// Reads `input` from `pos` on, up to the next thing worth telling.
    pub fn next(&mut self, input: &[u8], pos: &mut usize) -> Result<Step, Error> {
        while *pos < input.len() {
            match self.state {
                State::Start => {
                    if let Some(step) = self.start(input, pos) {
                        return Ok(step);
                    }
                }
                State::ArgCount => {
                    if let Some(count) =
                        self.number.read(input, pos).map_err(|_| Error::ArgCount)?
                    {
                        self.accept_args(count)?;
                        self.state = State::ArgCountLf;
                    }
                }
                State::ArgCountLf => {
                    line_feed(input, pos)?;
                    if self.args == 0 {
                        self.state = State::Start;
                        return Ok(Step::Empty);
                    }
                    self.state = State::BulkType;
                }
                State::BulkType => {
                    if self.decided && self.short_bulks(input, pos) {
                        if let Some(step) = self.frame_ends() {
                            return Ok(step);
                        }
                        continue;
                    }
                    let Some(&byte) = input.get(*pos) else { break };
                    if byte != b'$' {
                        return Err(Error::NotABulk(byte));
                    }
                    *pos += 1;
                    self.state = State::BulkLength;
                }
                State::BulkLength => {
                    if let Some(len) =
                        self.number.read(input, pos).map_err(|_| Error::BulkLength)?
                    {
                        self.accept_bulk(len)?;
                        self.state = State::BulkLengthLf;
                    }
                }
                State::BulkLengthLf => {
                    line_feed(input, pos)?;
                    self.args_left -= 1;
                    if self.decided {
                        self.state = State::Body;
                    } else if self.bulk_left == 0 || self.bulk_left > MAX_NAME as u64 {
                        return Ok(self.head(State::Body));
                    } else {
                        self.state = State::Name;
                    }
                }
                State::Name => {
                    if self.take_name(input, pos) {
                        return Ok(self.head(State::BodyCr));
                    }
                }
                State::Body => {
                    let here = (input.len() - *pos) as u64;
                    let taken = here.min(self.bulk_left);
                    self.bulk_left -= taken;
                    *pos += usize::try_from(taken).unwrap_or(usize::MAX);
                    if self.bulk_left == 0 {
                        self.state = State::BodyCr;
                    }
                }
                State::BodyCr => {
                    if input[*pos] != b'\r' {
                        return Err(Error::LineEnd);
                    }
                    *pos += 1;
                    self.state = State::BodyLf;
                }
                State::BodyLf => {
                    line_feed(input, pos)?;
                    if self.args_left > 0 {
                        self.state = State::BulkType;
                    } else if let Some(step) = self.frame_ends() {
                        return Ok(step);
                    }
                }
                State::Inline => {
                    if self.take_line(input, pos)? {
                        self.state = State::Start;
                        return Ok(Step::Inline);
                    }
                }
            }
        }
        Ok(Step::More)
    }

    fn start(&mut self, input: &[u8], pos: &mut usize) -> Option<Step> {
        self.frame_start = *pos;
        if self.short_head(&input[*pos..]) {
            // `*N\r\n$L\r\n`, the name, and its line end.
            *pos += 8 + usize::from(self.name_len) + 2;
            return Some(self.head(State::BulkType));
        }
        self.decided = false;
        if input[*pos] == b'*' {
            *pos += 1;
            self.state = State::ArgCount;
        } else {
            self.inline_len = 0;
            self.state = State::Inline;
        }
        None
    }

    /// A short cut for what most requests are, all in sight: 2 to 9 arguments and a name of up to
    /// 9 bytes. What it does not take, the states read.
    #[inline(always)]
    fn short_head(&mut self, rest: &[u8]) -> bool {
        let &[
            b'*',
            args @ b'2'..=b'9',
            b'\r',
            b'\n',
            b'$',
            len_byte @ b'1'..=b'9',
            b'\r',
            b'\n',
            ref name @ ..,
        ] = rest
        else {
            return false;
        };
        let len = usize::from(len_byte - b'0');
        if name.get(len..len + 2) != Some(b"\r\n") {
            return false;
        }
        for (kept, byte) in self.name.iter_mut().zip(&name[..len]) {
            *kept = byte.to_ascii_lowercase();
        }
        self.name_len = len_byte - b'0';
        self.args = u32::from(args - b'0');
        self.args_left = self.args - 1;
        true
    }

    /// Passes over arguments whose heads are short; true if these were all.
    #[inline(always)]
    fn short_bulks(&mut self, input: &[u8], pos: &mut usize) -> bool {
        while self.args_left > 0 {
            let Some(len) = short_bulk(&input[*pos..]) else { return false };
            *pos += len;
            self.args_left -= 1;
        }
        true
    }

    #[inline]
    fn frame_ends(&mut self) -> Option<Step> {
        self.state = State::Start;
        std::mem::take(&mut self.report_end).then_some(Step::End)
    }

    fn head(&mut self, next: State) -> Step {
        self.state = next;
        self.decided = true;
        Step::Head { args: self.args }
    }

    fn accept_args(&mut self, count: i64) -> Result<(), Error> {
        if count > i64::from(i32::MAX) {
            return Err(Error::ArgCount);
        }
        // Redis takes a negative number for an empty request.
        let count = u32::try_from(count).unwrap_or(0);
        if count > self.limits.args {
            return Err(Error::UnauthenticatedArgCount);
        }
        self.args = count;
        self.args_left = count;
        self.name_len = 0;
        Ok(())
    }

    fn accept_bulk(&mut self, len: i64) -> Result<(), Error> {
        let len = u64::try_from(len).map_err(|_| Error::BulkLength)?;
        if len > self.limits.bulk {
            // Redis looks at its limit for all clients first.
            return Err(match len > DEFAULT_MAX_BULK {
                true => Error::BulkLength,
                false => Error::UnauthenticatedBulkLength,
            });
        }
        self.bulk_left = len;
        Ok(())
    }

    /// True once the name is complete.
    fn take_name(&mut self, input: &[u8], pos: &mut usize) -> bool {
        while self.bulk_left > 0 {
            let Some(byte) = input.get(*pos) else { return false };
            self.name[usize::from(self.name_len)] = byte.to_ascii_lowercase();
            self.name_len += 1;
            self.bulk_left -= 1;
            *pos += 1;
        }
        true
    }

    /// True once the line feed was read.
    fn take_line(&mut self, input: &[u8], pos: &mut usize) -> Result<bool, Error> {
        let rest = &input[*pos..];
        let end = memchr::memchr(b'\n', rest);
        self.inline_len += end.unwrap_or(rest.len());
        if self.inline_len > MAX_INLINE || self.inline_len as u64 > self.limits.bulk {
            return Err(Error::InlineTooLong);
        }
        *pos += end.map_or(rest.len(), |end| end + 1);
        Ok(end.is_some())
    }
}

fn line_feed(input: &[u8], pos: &mut usize) -> Result<(), Error> {
    if input[*pos] != b'\n' {
        return Err(Error::LineEnd);
    }
    *pos += 1;
    Ok(())
}

//! Lines on their way to standard error: callers leave them here, one thread writes them.
//!
//! tracing-appender's `non_blocking` is not it: its bound is a number of lines, not of bytes; it does not
//! count lines whose writing failed; and nobody is told in the log that lines are missing.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::lock::lock;

/// Bytes of memory for lines that are not written yet. Lines that find no room are dropped.
const LIMIT: usize = 8 << 20;
/// Bytes that are written at once.
const CHUNK: usize = 16 << 10;

/// Lines that are not written yet, in order, and the count of those that never will be.
#[derive(Debug)]
pub(super) struct LogQueue {
    inner: Mutex<QueueInner>,
    /// The writer has something to do.
    more: Condvar,
    /// The writer is done with a chunk.
    handled: Condvar,
}

#[derive(Debug)]
struct QueueInner {
    chunks: VecDeque<Chunk>,
    /// Memory of the chunks, and of the one that is being written.
    bytes: usize,
    /// The writer sleeps.
    idle: bool,
    /// Lines that were taken in.
    taken: u64,
    /// Lines of these that were written, or could not be.
    handled: u64,
    dropped: u64,
    /// Dropped lines that the log does not tell of yet, and why the last one was.
    untold: Untold,
}

#[derive(Debug)]
struct Chunk {
    text: Vec<u8>,
    lines: u64,
}

/// Lines that are missing in the log.
#[derive(Debug)]
pub(super) struct Untold {
    pub(super) lines: u64,
    pub(super) why: Why,
}

/// Why lines are missing.
#[derive(Debug)]
pub(super) enum Why {
    /// They came faster than they could be written.
    Full,
    /// Writing failed.
    Failed(io::Error),
}

impl Untold {
    const NONE: Untold = Untold { lines: 0, why: Why::Full };
}

impl QueueInner {
    fn drop_lines(&mut self, lines: u64, why: Why) {
        self.dropped += lines;
        self.untold = Untold { lines: self.untold.lines + lines, why };
    }

    /// The end of the queue, with room for `more` bytes; `None` if it is full.
    fn room(&mut self, more: usize) -> Option<&mut Chunk> {
        let fits = |chunk: &Chunk| chunk.text.capacity() - chunk.text.len() >= more;
        if !self.chunks.back().is_some_and(fits) {
            let text = CHUNK.max(more);
            if self.bytes + text > LIMIT {
                return None;
            }
            self.chunks.push_back(Chunk { text: Vec::with_capacity(text), lines: 0 });
            self.bytes += text;
        }
        self.chunks.back_mut()
    }
}

impl LogQueue {
    pub(super) const fn new() -> Self {
        LogQueue {
            inner: Mutex::new(QueueInner {
                chunks: VecDeque::new(),
                bytes: 0,
                idle: false,
                taken: 0,
                handled: 0,
                dropped: 0,
                untold: Untold::NONE,
            }),
            more: Condvar::new(),
            handled: Condvar::new(),
        }
    }

    /// Takes a whole line in, with its end, or drops it. Never waits for the writing.
    pub(super) fn push(&self, line: &[u8]) {
        let mut inner = lock(&self.inner);
        let Some(chunk) = inner.room(line.len()) else { return inner.drop_lines(1, Why::Full) };
        chunk.text.extend_from_slice(line);
        chunk.lines += 1;
        inner.taken += 1;
        if mem::take(&mut inner.idle) {
            self.more.notify_one();
        }
    }

    /// Lines that were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        lock(&self.inner).dropped
    }

    /// Waits until all that was taken in by now is written, or could not be; at most for this long.
    pub(super) fn wait(&self, limit: Duration) {
        let inner = lock(&self.inner);
        let wanted = inner.taken;
        let behind = |inner: &mut QueueInner| inner.handled < wanted;
        let _ = self.handled.wait_timeout_while(inner, limit, behind);
    }

    /// Writes for ever. `tell` logs that lines are missing.
    pub(super) fn run(&self, mut out: impl Write, tell: impl Fn(Untold)) {
        let mut in_line = false;
        loop {
            let chunk = self.next();
            let (written, result) = write(&mut out, &chunk.text, &mut in_line);
            if let Some(untold) = self.account_for(&chunk, written, result) {
                tell(untold);
            }
        }
    }

    fn next(&self) -> Chunk {
        let mut inner = lock(&self.inner);
        loop {
            if let Some(chunk) = inner.chunks.pop_front() {
                return chunk;
            }
            inner.idle = true;
            inner = self.more.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a chunk as handled, of which this much was written. What is missing in the log is told once writing works, and
    /// half of the queue is free: there is room for that line then, and it does not come too often.
    fn account_for(&self, chunk: &Chunk, written: usize, result: io::Result<()>) -> Option<Untold> {
        let mut inner = lock(&self.inner);
        inner.bytes -= chunk.text.capacity();
        inner.handled += chunk.lines;
        self.handled.notify_all();
        if let Err(why) = result {
            let ends = memchr::memchr_iter(b'\n', &chunk.text[written..]).count();
            inner.drop_lines(ends as u64, Why::Failed(why));
            return None;
        }
        let tells = inner.untold.lines > 0 && inner.bytes <= LIMIT / 2;
        tells.then(|| mem::replace(&mut inner.untold, Untold::NONE))
    }
}

impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes as much as can be, and says how much that was. A line of which only a part could be written
/// (`in_line`) is ended before the next one.
fn write(out: &mut impl Write, text: &[u8], in_line: &mut bool) -> (usize, io::Result<()>) {
    if *in_line && let Err(why) = write_some(out, b"\n") {
        return (0, Err(why));
    }
    let mut written = 0;
    while written < text.len() {
        match write_some(out, &text[written..]) {
            Ok(count) => written += count,
            Err(why) => return (written, Err(why)),
        }
        *in_line = text[written - 1] != b'\n';
    }
    (written, Ok(()))
}

fn write_some(out: &mut impl Write, text: &[u8]) -> io::Result<usize> {
    loop {
        match out.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// What a file does with each write: takes so many bytes, or fails.
    struct Scripted {
        steps: std::vec::IntoIter<Result<usize, ErrorKind>>,
        text: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let taken = self.steps.next().unwrap_or(Ok(usize::MAX))?.min(text.len());
            self.text.send(text[..taken].to_vec()).map_err(io::Error::other)?;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes these lines, each by itself, and returns what came out, with the lines that are told of.
    fn written(steps: Vec<Result<usize, ErrorKind>>, lines: &[&str]) -> (String, u64) {
        let queue: &LogQueue = Box::leak(Box::new(LogQueue::new()));
        let (text, came) = mpsc::channel();
        thread::spawn(move || {
            let tell = |untold: Untold| {
                queue.push(format!("{} missing\n", untold.lines).as_bytes());
            };
            queue.run(Scripted { steps: steps.into_iter(), text }, tell);
        });
        for line in lines {
            queue.push(line.as_bytes());
            queue.wait(Duration::from_secs(20));
        }
        queue.wait(Duration::from_secs(20));
        let mut all = came.try_iter().flatten().collect::<Vec<u8>>();
        while queue.dropped() > 0 && !all.ends_with(b"missing\n") {
            all.extend(came.recv().expect("the writer goes on"));
        }
        (String::from_utf8(all).expect("text"), queue.dropped())
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_of() {
        let full = Err(ErrorKind::StorageFull);
        let (text, dropped) = written(vec![full, full], &["a\n", "b\n", "c\n"]);
        assert_eq!((text.as_str(), dropped), ("c\n2 missing\n", 2));
    }

    #[test]
    fn a_line_that_was_cut_is_ended_before_the_next() {
        let steps = vec![Ok(2), Err(ErrorKind::StorageFull)];
        let (text, dropped) = written(steps, &["abcd\n", "next\n"]);
        assert_eq!((text.as_str(), dropped), ("ab\nnext\n1 missing\n", 1));
    }

    #[test]
    fn short_and_interrupted_writes_lose_nothing() {
        let steps = vec![Ok(1), Err(ErrorKind::Interrupted), Ok(1)];
        assert_eq!(written(steps, &["abcd\n", "e\n"]), ("abcd\ne\n".to_owned(), 0));
    }

    #[test]
    fn what_nobody_writes_is_bounded_and_not_waited_for() {
        let queue = LogQueue::new();
        let line = [b'x'; 1000];
        let lines = 3 * LIMIT / line.len();
        (0..lines).for_each(|_| queue.push(&line));
        queue.push(&vec![b'x'; LIMIT + 1]);
        queue.wait(Duration::from_millis(1));
        let inner = lock(&queue.inner);
        assert!(inner.bytes <= LIMIT, "{}", inner.bytes);
        assert_eq!(inner.chunks.iter().map(|it| it.text.capacity()).sum::<usize>(), inner.bytes);
        assert!(inner.taken as usize * line.len() > LIMIT * 9 / 10);
        assert_eq!(inner.taken + inner.dropped, lines as u64 + 1);
    }
}

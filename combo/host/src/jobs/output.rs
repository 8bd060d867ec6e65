//! What commands say: bytes -> lines -> the last of them.
//!
//! Takes the bytes of a command's two outputs as they come; gives each line to the log, and keeps the
//! last ones. However much is said, and however it is cut, this costs a bounded amount of memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use memchr::memchr;

/// How many lines are kept.
const KEPT: usize = 50;

/// How many bytes of a line are kept.
const LONGEST: usize = 1_000;

/// The last lines that a command said, on both of its outputs, as they came. Clones are the same ones.
///
/// At most 50, and of each the first 1,000 bytes. What is not UTF-8, and control characters but the
/// tab, are U+FFFD.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output(Arc<Mutex<VecDeque<String>>>);

impl Output {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The last lines, the oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.kept().iter().cloned().collect()
    }

    fn push(&self, line: String) {
        let mut kept = self.kept();
        if kept.len() == KEPT {
            let _ = kept.pop_front();
        }
        kept.push_back(line);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of its outputs a command said something on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output; logged as `info`.
    Output,
    /// Standard error; logged as `warn`.
    Errors,
}

/// Makes lines of the bytes of one stream. What is left when it is dropped is a line as well.
pub(crate) struct Lines<'a> {
    job: &'a str,
    stream: Stream,
    output: &'a Output,
    line: Vec<u8>,
    /// Whether the line was longer than what is kept of it.
    cut: bool,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(job: &'a str, stream: Stream, output: &'a Output) -> Self {
        Self { job, stream, output, line: Vec::new(), cut: false }
    }

    /// What was said next.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr(b'\n', bytes) {
            self.add(&bytes[..end]);
            self.end();
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LONGEST - self.line.len();
        self.cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self) {
        let line = text(&self.line, self.cut);
        self.line.clear();
        self.cut = false;
        let job = self.job;
        match self.stream {
            Stream::Output => tracing::info!(target: "jobs", job, "{line}"),
            Stream::Errors => tracing::warn!(target: "jobs", job, "{line}"),
        }
        self.output.push(line);
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end();
        }
    }
}

/// A line that can be shown: a command cannot write to the terminal of whoever reads it.
fn text(line: &[u8], cut: bool) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = String::with_capacity(line.len());
    let mut chunks = line.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        let shown = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        text.extend(chunk.valid().chars().map(shown));
        // A character that the cut went through is not wrong.
        let halved = cut && chunks.peek().is_none();
        if !chunk.invalid().is_empty() && !halved {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    if cut {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(said: &[&[u8]], expected: &[&str]) {
        let output = Output::new();
        let mut lines = Lines::new("clock", Stream::Output, &output);
        for bytes in said {
            lines.take(bytes);
        }
        drop(lines);
        assert_eq!(output.lines(), expected);
    }

    #[test]
    fn lines_do_not_depend_on_how_they_come() {
        check(&[], &[]);
        check(&[b"one\ntwo\n"], &["one", "two"]);
        check(&[b"o", b"ne", b"\n\ntw", b"o"], &["one", "", "two"]);
        check(&[b"one\r\ntwo\r", b"\n"], &["one", "two"]);
        check(&["ä".as_bytes().split_at(1).0, "ä".as_bytes().split_at(1).1, b"\n"], &["ä"]);
    }

    #[test]
    fn what_cannot_be_shown_is_replaced() {
        check(
            &[b"a\xffb\xc3\n\x1b[31mred\x07\tx\0\n"],
            &["a\u{fffd}b\u{fffd}", "\u{fffd}[31mred\u{fffd}\tx\u{fffd}"],
        );
    }

    #[test]
    fn long_lines_are_cut() {
        let whole = "x".repeat(LONGEST);
        let cut = format!("{whole}…");
        check(&[whole.as_bytes(), b"\n", whole.as_bytes(), b"x\nshort"], &[&whole, &cut, "short"]);
        // The cut goes through a character.
        let odd = format!("a{}", "ä".repeat(LONGEST));
        check(&[odd.as_bytes()], &[&format!("a{}…", "ä".repeat(LONGEST / 2 - 1))]);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let output = Output::new();
        let mut lines = Lines::new("clock", Stream::Errors, &output);
        for number in 0..1_000 {
            lines.take(format!("{number}\n").as_bytes());
        }
        let expected: Vec<_> = (950..1_000).map(|number| number.to_string()).collect();
        assert_eq!(output.lines(), expected);
    }

    #[test]
    fn what_has_no_end_costs_one_line() {
        let output = Output::new();
        let mut lines = Lines::new("clock", Stream::Output, &output);
        for _ in 0..1_000 {
            lines.take(&[b'x'; 10_000]);
        }
        assert!(lines.line.capacity() <= 2 * LONGEST, "{}", lines.line.capacity());
        assert!(output.lines().is_empty());
    }
}

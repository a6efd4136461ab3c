//! What a child said, in bounded memory: the first bytes of its stdout, and the end of everything.

use std::collections::VecDeque;

use crate::redact::{redact, redact_unfinished};

/// How much of stdout is kept for parsers.
pub(super) const HEAD: usize = 64 * 1024;
/// How much of the end people see.
pub(super) const TAIL: usize = 8 * 1024;
/// How much of the end is kept: twice what is seen, so that a secret whose name (`Authorization: …`) was cut off lies outside
/// of what is seen.
const KEPT: usize = 2 * TAIL;

/// One of a child's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Takes chunks as they arrive. The streams are merged line by line: merged as they come, a chunk of one could tear a
/// token of the other in two, and no pattern would know it any more.
#[derive(Debug, Default)]
pub(super) struct Capture {
    stdout: Vec<u8>,
    lines: [End; 2],
    merged: End,
}

impl Capture {
    /// The next bytes of a stream.
    pub(super) fn add(&mut self, stream: Stream, chunk: &[u8]) {
        let line = match stream {
            Stream::Stdout => {
                let room = HEAD - self.stdout.len();
                self.stdout.extend_from_slice(&chunk[..chunk.len().min(room)]);
                &mut self.lines[0]
            }
            Stream::Stderr => &mut self.lines[1],
        };
        // Whole lines of one chunk go over together: a flood of short lines costs no more than one of bytes.
        match chunk.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => {
                line.push(&chunk[..=last]);
                self.merged.append(line);
                line.push(&chunk[last + 1..]);
            }
            None => line.push(chunk),
        }
    }

    /// The head of stdout, and the end of everything, redacted. `whole`: both streams came to their end; otherwise what
    /// stands last may be half a token.
    pub(super) fn finish(mut self, whole: bool) -> (Vec<u8>, String) {
        for mut line in self.lines {
            if !self.merged.ends_a_line() && !line.bytes.is_empty() {
                self.merged.push(b"\n");
            }
            self.merged.append(&mut line);
        }
        let bytes = self.merged.take();
        let text = String::from_utf8_lossy(&bytes);
        let text = if whole { redact(&text) } else { redact_unfinished(&text) };
        (self.stdout, last(&text, TAIL).to_owned())
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct End {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl End {
    fn push(&mut self, chunk: &[u8]) {
        let chunk = match chunk.len().checked_sub(KEPT) {
            Some(excess @ 1..) => {
                self.cut = true;
                &chunk[excess..]
            }
            Some(0) | None => chunk,
        };
        let excess = (self.bytes.len() + chunk.len()).saturating_sub(KEPT);
        if excess > 0 {
            self.cut = true;
            self.bytes.drain(..excess);
        }
        self.bytes.extend(chunk);
    }

    /// What is kept, without the first word if its beginning is lost; empties it.
    fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::from(std::mem::take(&mut self.bytes));
        if std::mem::take(&mut self.cut) {
            let lost = bytes.iter().position(u8::is_ascii_whitespace).unwrap_or(bytes.len());
            bytes.drain(..lost);
        }
        bytes
    }

    fn append(&mut self, other: &mut Self) {
        let bytes = other.take();
        self.push(&bytes);
    }

    fn ends_a_line(&self) -> bool {
        self.bytes.back().is_none_or(|byte| *byte == b'\n')
    }
}

/// The end of a text in at most `most` bytes, beginning with a whole word where there is one.
fn last(text: &str, most: usize) -> &str {
    let Some(cut) = text.len().checked_sub(most).filter(|cut| *cut > 0) else { return text };
    let tail = &text[(cut..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())..];
    match tail.find(char::is_whitespace) {
        Some(blank) => tail[blank..].trim_start(),
        None => tail,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "hvs.CAESIJ0aBcDd12345678901234567890";

    fn captured(chunks: &[(Stream, &str)]) -> String {
        let mut capture = Capture::default();
        for (stream, chunk) in chunks {
            capture.add(*stream, chunk.as_bytes());
        }
        capture.finish(true).1
    }

    #[test]
    fn lines_of_both_streams_stand_in_the_order_of_their_ends() {
        use Stream::{Stderr, Stdout};
        let text = captured(&[(Stdout, "a"), (Stderr, "b\n"), (Stdout, "c\nd"), (Stderr, "e")]);
        assert_eq!(text, "b\nac\nd\ne");
    }

    #[test]
    fn a_token_in_two_chunks_with_the_other_stream_between_them_is_still_a_token() {
        let (head, tail) = TOKEN.split_at(9);
        let text = captured(&[(Stream::Stdout, head), (Stream::Stderr, "warning\n"), (Stream::Stdout, tail)]);
        assert_eq!(text, "warning\n[redacted]");
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut capture = Capture::default();
        for _ in 0..10_000 {
            capture.add(Stream::Stdout, &[b'x'; 8192]);
            capture.add(Stream::Stderr, b"y\n");
        }
        assert!(capture.merged.bytes.capacity() <= 4 * KEPT && capture.stdout.capacity() <= 2 * HEAD);
        let (stdout, text) = capture.finish(true);
        assert_eq!(stdout.len(), HEAD);
        assert!(text.len() <= TAIL, "{}", text.len());
    }

    #[test]
    fn no_half_token_survives_where_redacting_brings_the_cut_into_sight() {
        // What is kept is all tokens; redacted it is far shorter than what people see.
        let token = format!("hvs.{}", "0123456789abcdefghij".repeat(15));
        for offset in 0..token.len() {
            let mut capture = Capture::default();
            capture.add(Stream::Stderr, &vec![b'x'; offset]);
            capture.add(Stream::Stderr, format!(" {}", format!("{token} ").repeat(100)).as_bytes());
            let seen = capture.finish(true).1;
            assert!(!seen.contains("hij"), "{offset}: {seen}");
        }
    }

    proptest! {
        #[test]
        fn no_part_of_a_token_survives_a_cut(before in 0usize..30_000, after in 0usize..30_000, size in 1usize..9000, word in 1usize..2000) {
            // Words of any length around it, in chunks of any size.
            let filler = |count: usize| (0..count).map(|i| if i % word == 0 { ' ' } else { 'z' }).collect::<String>();
            let text = format!("{} {TOKEN} {}", filler(before), filler(after));
            let mut capture = Capture::default();
            for chunk in text.as_bytes().chunks(size) {
                capture.add(Stream::Stderr, chunk);
            }
            let seen = capture.finish(true).1;
            for part in TOKEN.as_bytes()[4..].windows(6) {
                prop_assert!(!seen.contains(std::str::from_utf8(part).unwrap()));
            }
            prop_assert!(seen.len() <= TAIL);
        }
    }
}

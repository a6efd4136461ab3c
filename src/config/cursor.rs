//! A place in a text that moves forward, and what JSON and RON share of reading from it.

use super::mistake::Position;

/// Moves over a text from its beginning to its end.
pub(super) struct Cursor<'a> {
    text: &'a str,
    offset: usize,
    /// The last place that was asked for: lines and columns are counted on from there.
    counted: (usize, Position),
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, offset: 0, counted: (0, Position { line: 1, column: 1 }) }
    }

    /// What is left.
    pub fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    /// The next character.
    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Moves over this many bytes, which end at a character's border.
    pub fn advance(&mut self, bytes: usize) {
        self.offset += bytes;
    }

    /// Moves over the text if it comes next.
    pub fn take(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.offset += expected.len();
        }
        found
    }

    /// Moves over the characters that fit, and returns them.
    pub fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.offset += length;
        &rest[..length]
    }

    /// Moves over a quoted text, `"` to `"`, and returns it with its quotes. `None`: it does not end.
    pub fn take_quoted(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let mut escaped = false;
        for (index, character) in rest.char_indices().skip(1) {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    self.offset += index + 1;
                    return Some(&rest[..=index]);
                }
                _ => {}
            }
        }
        None
    }

    /// Line and column of the place. Each call counts on from the one before.
    pub fn here(&mut self) -> Position {
        let (from, mut at) = self.counted;
        for character in self.text[from..self.offset].chars() {
            if character == '\n' {
                at = Position { line: at.line + 1, column: 1 };
            } else {
                at.column += 1;
            }
        }
        self.counted = (self.offset, at);
        at
    }
}

//! JSON into the tree. serde_json says whether the text is JSON; then its places are read off.

use serde::de::IgnoredAny;

use super::cursor::Cursor;
use super::mistake::Position;
use super::node::{Entry, Kind, MAX_DEPTH, Node, SyntaxError};

/// Reads a JSON text.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| {
        // serde_json puts " at line 3 column 5" behind its message; the place is ours to show.
        let whole = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let at = Position { line: error.line().max(1), column: error.column().max(1) };
        SyntaxError::new(at, whole.strip_suffix(&place).unwrap_or(&whole))
    })?;
    value(&mut Cursor::new(text), 0)
}

fn value(cursor: &mut Cursor<'_>, depth: usize) -> Result<Node, SyntaxError> {
    space(cursor);
    let at = cursor.here();
    if depth > MAX_DEPTH {
        return Err(SyntaxError::too_deep(at));
    }
    let kind = match cursor.peek() {
        Some('{') => {
            cursor.advance(1);
            Kind::Map(map(cursor, depth)?)
        }
        Some('[') => {
            cursor.advance(1);
            Kind::List(list(cursor, depth)?)
        }
        Some('"') => Kind::Text(text(cursor)?),
        Some(_) => scalar(cursor.take_while(|c| !matches!(c, ',' | ']' | '}') && !c.is_ascii_whitespace()), at)?,
        None => return Err(SyntaxError::new(at, "the text ends where a value is expected")),
    };
    Ok(Node { at, kind })
}

fn map(cursor: &mut Cursor<'_>, depth: usize) -> Result<Vec<Entry>, SyntaxError> {
    let mut entries = Vec::new();
    loop {
        space(cursor);
        if cursor.take("}") {
            return Ok(entries);
        }
        if cursor.take(",") {
            continue;
        }
        let at = cursor.here();
        let key = text(cursor)?;
        space(cursor);
        if !cursor.take(":") {
            return Err(SyntaxError::new(cursor.here(), "expected `:`"));
        }
        entries.push(Entry::new(key, at, value(cursor, depth + 1)?));
    }
}

fn list(cursor: &mut Cursor<'_>, depth: usize) -> Result<Vec<Node>, SyntaxError> {
    let mut items = Vec::new();
    loop {
        space(cursor);
        if cursor.take("]") {
            return Ok(items);
        }
        if !cursor.take(",") {
            items.push(value(cursor, depth + 1)?);
        }
    }
}

fn text(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    let at = cursor.here();
    let quoted = cursor.peek().filter(|c| *c == '"').and_then(|_| cursor.take_quoted());
    let quoted = quoted.ok_or_else(|| SyntaxError::new(at, "expected text in quotes"))?;
    serde_json::from_str(quoted).map_err(|_| SyntaxError::new(at, "the text holds an escape that is no character"))
}

fn scalar(word: &str, at: Position) -> Result<Kind, SyntaxError> {
    let number = || {
        if let Ok(integer) = word.parse::<i128>() {
            return Some(Kind::Integer(integer));
        }
        // Rust's own parser takes more than JSON's numbers, but serde_json has seen the text, and is less exact.
        word.parse::<f64>().ok().filter(|number| number.is_finite()).map(Kind::Float)
    };
    match word {
        "null" => Ok(Kind::Null),
        "true" => Ok(Kind::Bool(true)),
        "false" => Ok(Kind::Bool(false)),
        _ => number().ok_or_else(|| SyntaxError::new(at, "a number that cannot be represented")),
    }
}

fn space(cursor: &mut Cursor<'_>) {
    cursor.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
}

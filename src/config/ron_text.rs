//! RON into the tree. The `ron` crate says whether the text is RON; then its places are read off.
//!
//! `(keytabPath: "…")`, `Config(keytabPath: "…")` and `{"keytabPath": "…"}` all are maps; `Some(x)` is x.

use serde::de::IgnoredAny;

use super::cursor::Cursor;
use super::mistake::Position;
use super::node::{Entry, Kind, MAX_DEPTH, Node, SyntaxError};

/// Reads a RON text.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    ron::from_str::<IgnoredAny>(text).map_err(|error| {
        let at = Position { line: error.span.start.line.max(1), column: error.span.start.col.max(1) };
        match error.code {
            // Its own words are for programmers.
            ron::Error::ExceededRecursionLimit => SyntaxError::new(at, "nested too deeply".to_owned()),
            code => SyntaxError::new(at, code.to_string()),
        }
    })?;
    let mut cursor = Cursor::new(text);
    loop {
        space(&mut cursor);
        if !cursor.take("#![") {
            break;
        }
        cursor.take_while(|c| c != ']');
        cursor.take("]");
    }
    value(&mut cursor, 0)
}

fn value(cursor: &mut Cursor<'_>, depth: usize) -> Result<Node, SyntaxError> {
    space(cursor);
    let at = cursor.here();
    if depth > MAX_DEPTH {
        return Err(SyntaxError::too_deep(at));
    }
    if let Some(text) = raw_text(cursor) {
        return Ok(Node { at, kind: Kind::Text(text) });
    }
    let kind = match cursor.peek() {
        Some('{') => {
            cursor.advance(1);
            Kind::Map(entries(cursor, "}", quoted, depth)?)
        }
        Some('[') => {
            cursor.advance(1);
            Kind::List(items(cursor, "]", depth)?)
        }
        Some('(') => {
            cursor.advance(1);
            parentheses(cursor, depth)?
        }
        Some('"') => Kind::Text(quoted(cursor)?),
        Some(c) if is_name(c) && !c.is_ascii_digit() => return named(cursor, at, depth),
        Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => number(cursor, at)?,
        Some(_) | None => {
            return Err(SyntaxError::new(at, "expected text in quotes, a number, a boolean, a list or a map"));
        }
    };
    Ok(Node { at, kind })
}

/// `true`, `None`, `Some(x)`, `Config(…)`.
fn named(cursor: &mut Cursor<'_>, at: Position, depth: usize) -> Result<Node, SyntaxError> {
    let name = cursor.take_while(is_name);
    let kind = match name {
        "true" => Kind::Bool(true),
        "false" => Kind::Bool(false),
        "None" => Kind::Null,
        _ => {
            space(cursor);
            if !cursor.take("(") {
                return Err(SyntaxError::new(at, format!("`{name}` is no value: text goes into quotes, {name:?}")));
            }
            if name == "Some" {
                let inner = value(cursor, depth + 1)?;
                space(cursor);
                cursor.take(",");
                space(cursor);
                return if cursor.take(")") { Ok(inner) } else { Err(SyntaxError::new(cursor.here(), "expected `)`")) };
            }
            parentheses(cursor, depth)?
        }
    };
    Ok(Node { at, kind })
}

/// After `(`: fields with names are a map, values without are a list.
fn parentheses(cursor: &mut Cursor<'_>, depth: usize) -> Result<Kind, SyntaxError> {
    space(cursor);
    if cursor.take(")") {
        return Ok(Kind::Map(Vec::new()));
    }
    let rest = cursor.rest();
    let mut ahead = Cursor::new(rest);
    let has_name = field_name(&mut ahead).is_ok() && {
        space(&mut ahead);
        ahead.take(":")
    };
    if has_name {
        Ok(Kind::Map(entries(cursor, ")", field_name, depth)?))
    } else {
        Ok(Kind::List(items(cursor, ")", depth)?))
    }
}

fn entries(
    cursor: &mut Cursor<'_>,
    end: &str,
    key: fn(&mut Cursor<'_>) -> Result<String, SyntaxError>,
    depth: usize,
) -> Result<Vec<Entry>, SyntaxError> {
    let mut entries = Vec::new();
    loop {
        space(cursor);
        if cursor.take(end) {
            return Ok(entries);
        }
        if cursor.take(",") {
            continue;
        }
        let at = cursor.here();
        let name = key(cursor)?;
        space(cursor);
        if !cursor.take(":") {
            return Err(SyntaxError::new(cursor.here(), "expected `:`"));
        }
        entries.push(Entry::new(name, at, value(cursor, depth + 1)?));
    }
}

fn items(cursor: &mut Cursor<'_>, end: &str, depth: usize) -> Result<Vec<Node>, SyntaxError> {
    let mut items = Vec::new();
    loop {
        space(cursor);
        if cursor.take(end) {
            return Ok(items);
        }
        if !cursor.take(",") {
            items.push(value(cursor, depth + 1)?);
        }
    }
}

/// `keytabPath`, or `r#token-push` for a name that is no identifier.
fn field_name(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    let at = cursor.here();
    let raw = cursor.take("r#");
    let name = cursor.take_while(|c| is_name(c) || (raw && matches!(c, '.' | '+' | '-')));
    if name.is_empty() { Err(SyntaxError::new(at, "expected the name of a key")) } else { Ok(name.to_owned()) }
}

/// A key or value in quotes.
fn quoted(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    let at = cursor.here();
    if let Some(text) = raw_text(cursor) {
        return Ok(text);
    }
    let found = cursor.peek().filter(|c| *c == '"').and_then(|_| cursor.take_quoted());
    let found = found.ok_or_else(|| SyntaxError::new(at, "expected text in quotes"))?;
    ron::from_str(found).map_err(|error| SyntaxError::new(at, error.code.to_string()))
}

/// `r"…"`, `r#"…"#`.
fn raw_text(cursor: &mut Cursor<'_>) -> Option<String> {
    let after = cursor.rest().strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let content = after[hashes..].strip_prefix('"')?;
    let length = content.find(&format!("\"{}", "#".repeat(hashes)))?;
    let text = content[..length].to_owned();
    cursor.advance(1 + hashes + 1 + length + 1 + hashes);
    Some(text)
}

fn number(cursor: &mut Cursor<'_>, at: Position) -> Result<Kind, SyntaxError> {
    let word = cursor.take_while(|c| is_name(c) || matches!(c, '+' | '-' | '.'));
    if let Ok(integer) = ron::from_str::<i128>(word) {
        return Ok(Kind::Integer(integer));
    }
    let float = ron::from_str::<f64>(word).ok().filter(|number| number.is_finite());
    float.map(Kind::Float).ok_or_else(|| SyntaxError::new(at, "a number that cannot be represented"))
}

fn is_name(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// White space and comments; block comments nest.
fn space(cursor: &mut Cursor<'_>) {
    loop {
        cursor.take_while(char::is_whitespace);
        if cursor.take("//") {
            cursor.take_while(|c| c != '\n');
        } else if cursor.take("/*") {
            let mut depth = 1;
            while depth > 0 && cursor.peek().is_some() {
                if cursor.take("/*") {
                    depth += 1;
                } else if cursor.take("*/") {
                    depth -= 1;
                } else {
                    cursor.advance(cursor.peek().map_or(0, char::len_utf8));
                }
            }
        } else {
            return;
        }
    }
}

//! YAML into the tree: YAML 1.2's core schema, with the anchors and merge keys that sites use.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::mistake::Position;
use super::node::{Entry, Kind, MAX_DEPTH, MAX_VALUES, Node, Size, SyntaxError};

/// More than this, in keys and texts, comes only from aliases: a file has 16 MiB.
const MAX_BYTES: usize = 64 << 20;

/// Reads a YAML text of one document.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| SyntaxError::new(place(error.marker()), error.info()))?;
        builder.event(event, place(&span.start))?;
    }
    Ok(builder.root.unwrap_or(Node { at: Position { line: 1, column: 1 }, kind: Kind::Null }))
}

fn place(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A list or map that has begun.
enum Open {
    List { anchor: usize, at: Position, items: Vec<Node> },
    Map { anchor: usize, at: Position, entries: Vec<Entry>, merged: Vec<Node>, key: Option<Key> },
}

/// A key that waits for its value; `merge`: `<<`.
struct Key {
    text: String,
    at: Position,
    merge: bool,
}

/// What an anchor stands for.
struct Anchor {
    node: Rc<Node>,
    size: Size,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Anchor>,
    /// Of what was copied and of what was read.
    values: usize,
    /// Of what was copied.
    bytes: usize,
    root: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(SyntaxError::new(at, "a second document begins: the configuration is one document"))
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
            Event::Alias(anchor) => {
                let Some(found) = self.anchors.get(&anchor) else {
                    return Err(SyntaxError::new(at, "an alias of what is not complete yet"));
                };
                if self.open.len() + found.size.depth > MAX_DEPTH {
                    return Err(SyntaxError::too_deep(at));
                }
                let node = Rc::clone(&found.node);
                self.copies(found.size, at)?;
                self.value(Node { at, kind: node.kind.clone() }, false)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = matches!(style, ScalarStyle::Plain);
                let merge = plain && tag.is_none() && text == "<<";
                let kind = scalar(&text, plain, tag.as_deref(), at)?;
                let node = Node { at, kind };
                self.keep(anchor, &node)?;
                self.value(node, merge)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::List { anchor, at, items: Vec::new() }, at),
            Event::MappingStart(anchor, _) => {
                let open = Open::Map { anchor, at, entries: Vec::new(), merged: Vec::new(), key: None };
                self.begin(open, at)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.end(open),
                None => Err(SyntaxError::new(at, "an end without a beginning")),
            },
        }
    }

    fn begin(&mut self, open: Open, at: Position) -> Result<(), SyntaxError> {
        self.open.push(open);
        if self.open.len() > MAX_DEPTH { Err(SyntaxError::too_deep(at)) } else { Ok(()) }
    }

    fn end(&mut self, open: Open) -> Result<(), SyntaxError> {
        let (anchor, node) = match open {
            Open::List { anchor, at, items } => (anchor, Node { at, kind: Kind::List(items) }),
            Open::Map { anchor, at, mut entries, merged, key: _ } => {
                let mut keys: HashSet<String> = match merged.is_empty() {
                    true => HashSet::new(),
                    false => entries.iter().map(|own| own.key.clone()).collect(),
                };
                // As YAML has it: what is written here wins over what is merged, the first merged map over the next.
                for entry in merged.into_iter().map(merge_entries).collect::<Result<Vec<_>, _>>()?.into_iter().flatten()
                {
                    if keys.insert(entry.key.clone()) {
                        entries.push(entry);
                    }
                }
                (anchor, Node { at, kind: Kind::Map(entries) })
            }
        };
        self.keep(anchor, &node)?;
        self.value(node, false)
    }

    fn keep(&mut self, anchor: usize, node: &Node) -> Result<(), SyntaxError> {
        if anchor > 0 {
            let size = node.size();
            // An anchor in an anchor in an anchor is a copy of a copy of a copy.
            self.copies(size, node.at)?;
            self.anchors.insert(anchor, Anchor { node: Rc::new(node.clone()), size });
        }
        Ok(())
    }

    /// Counts what is about to be copied.
    fn copies(&mut self, size: Size, at: Position) -> Result<(), SyntaxError> {
        self.values += size.values;
        self.bytes += size.bytes;
        if self.bytes > MAX_BYTES {
            return Err(SyntaxError::new(at, format!("more than {} MiB, aliases counted in full", MAX_BYTES >> 20)));
        }
        self.is_too_many(at)
    }

    fn is_too_many(&self, at: Position) -> Result<(), SyntaxError> {
        match self.values > MAX_VALUES {
            true => Err(SyntaxError::new(at, format!("more than {MAX_VALUES} values, aliases counted in full"))),
            false => Ok(()),
        }
    }

    /// A value is complete: it goes where the innermost open list or map wants it.
    fn value(&mut self, node: Node, merge: bool) -> Result<(), SyntaxError> {
        self.values += 1;
        self.is_too_many(node.at)?;
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, merged, key, .. }) => match key.take() {
                Some(Key { merge: true, .. }) => merged.push(node),
                Some(Key { text, at, merge: false }) => entries.push(Entry::new(text, at, node)),
                None => *key = Some(Key { text: key_text(&node)?, at: node.at, merge }),
            },
        }
        Ok(())
    }
}

/// The entries of `<<: *base` and `<<: [*base, *other]`.
fn merge_entries(node: Node) -> Result<Vec<Entry>, SyntaxError> {
    let wrong = |at| SyntaxError::new(at, "`<<` takes a map, or a list of maps");
    match node.kind {
        Kind::Map(entries) => Ok(entries),
        Kind::List(items) => {
            let (mut all, mut keys): (Vec<Entry>, HashSet<String>) = (Vec::new(), HashSet::new());
            for item in items {
                let Kind::Map(entries) = item.kind else { return Err(wrong(item.at)) };
                for entry in entries {
                    if keys.insert(entry.key.clone()) {
                        all.push(entry);
                    }
                }
            }
            Ok(all)
        }
        Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Text(_) => Err(wrong(node.at)),
    }
}

/// A key as text: `8445:` and `true:` are what they look like.
fn key_text(node: &Node) -> Result<String, SyntaxError> {
    match &node.kind {
        Kind::Text(text) => Ok(text.clone()),
        Kind::Integer(number) => Ok(number.to_string()),
        Kind::Bool(value) => Ok(value.to_string()),
        Kind::Null | Kind::Float(_) | Kind::List(_) | Kind::Map(_) => {
            Err(SyntaxError::new(node.at, format!("a key must be text, and this is {}", node.kind.describe())))
        }
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>, at: Position) -> Result<Kind, SyntaxError> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Kind::Text(text.to_owned())),
        Some(tag) if tag.is_yaml_core_schema() => Ok(resolve(text)),
        Some(tag) => Err(SyntaxError::new(at, format!("the tag {}{} is not known", tag.handle, tag.suffix))),
        None if plain => Ok(resolve(text)),
        None => Ok(Kind::Text(text.to_owned())),
    }
}

/// The core schema. `0123` stays text: YAML 1.1 reads it as octal, 1.2 as decimal, and a guess is not an answer.
fn resolve(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    let radix = |prefix, radix| text.strip_prefix(prefix).and_then(|digits| i128::from_str_radix(digits, radix).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Kind::Integer(number);
    }
    let digits = text.trim_start_matches(['+', '-']);
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    if leading_zero || !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Kind::Text(text.to_owned());
    }
    match (text.parse::<i128>(), text.parse::<f64>()) {
        (Ok(number), _) => Kind::Integer(number),
        (Err(_), Ok(number)) if number.is_finite() => Kind::Float(number),
        (Err(_), _) => Kind::Text(text.to_owned()),
    }
}

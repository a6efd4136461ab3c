//! The value tree that JSON, YAML and RON are read into. Every value knows its place in the text, so that every
//! message can name line and column, whatever the format; that, and telling all mistakes at once, is why this is a tree
//! of our own that `section.rs` reads, and not a `serde_json::Value` given to a derived `Deserialize`.

use super::mistake::Position;
use super::names::show;

/// Deeper nesting than this is refused, so that no reader of the tree can run out of stack.
pub(super) const MAX_DEPTH: usize = 64;
/// More values than this are no configuration. Every list and map and every value in one counts.
pub(super) const MAX_VALUES: usize = 200_000;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// In lower case, as all keys are compared.
    pub key: String,
    /// As written.
    pub written: String,
    /// Where the key is written.
    pub at: Position,
    /// Its value.
    pub value: Node,
}

impl Entry {
    pub fn new(written: String, at: Position, value: Node) -> Self {
        Self { key: written.to_lowercase(), written, at, value }
    }
}

impl Kind {
    /// For messages: `a list`.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// The text is not of its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// Where.
    pub at: Position,
    /// What is wrong there.
    pub what: String,
}

impl SyntaxError {
    pub fn new(at: Position, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }

    pub fn too_deep(at: Position) -> Self {
        Self::new(at, format!("nested more than {MAX_DEPTH} levels deep"))
    }
}

/// How large a value is, everything in it included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Itself and what it holds.
    pub values: usize,
    /// The keys and texts.
    pub bytes: usize,
    /// How deep lists and maps go.
    pub depth: usize,
}

impl Node {
    /// How large it is.
    pub fn size(&self) -> Size {
        let of_all = |children: &mut dyn Iterator<Item = &Self>| {
            let sum = |all: Size, one: Size| Size {
                values: all.values + one.values,
                bytes: all.bytes + one.bytes,
                depth: all.depth.max(one.depth + 1),
            };
            children.map(Self::size).fold(Size { values: 1, bytes: 0, depth: 1 }, sum)
        };
        match &self.kind {
            Kind::List(items) => of_all(&mut items.iter()),
            Kind::Map(entries) => {
                let keys: usize = entries.iter().map(|entry| entry.key.len() + entry.written.len()).sum();
                let inside = of_all(&mut entries.iter().map(|entry| &entry.value));
                Size { bytes: inside.bytes + keys, ..inside }
            }
            Kind::Text(text) => Size { values: 1, bytes: text.len(), depth: 0 },
            Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) => Size { values: 1, bytes: 0, depth: 0 },
        }
    }
}

/// Two keys of one map that are the same in lower case.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Duplicate<'a> {
    /// The path of the map.
    pub path: String,
    /// The earlier key.
    pub first: (&'a str, Position),
    /// The later one.
    pub second: (&'a str, Position),
}

/// Every pair of equal keys in the tree, in the order of the text.
pub(super) fn duplicates(root: &Node) -> Vec<Duplicate<'_>> {
    let mut found = Vec::new();
    walk(root, String::new(), &mut found);
    found
}

fn walk<'a>(node: &'a Node, path: String, found: &mut Vec<Duplicate<'a>>) {
    match &node.kind {
        Kind::Map(entries) => {
            let mut seen = std::collections::HashMap::new();
            for entry in entries {
                if let Some(first) = seen.insert(&entry.key, entry) {
                    let of = |entry: &'a Entry| (entry.written.as_str(), entry.at);
                    found.push(Duplicate { path: path.clone(), first: of(first), second: of(entry) });
                }
                walk(&entry.value, join(&path, &entry.written), found);
            }
        }
        Kind::List(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, format!("{path}[{index}]"), found);
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Text(_) => {}
    }
}

/// `path.key`, or `key` at the top. A key that a message could not hold is quoted and escaped.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.len() <= 80 && key.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    let shown = if plain { String::new() } else { show(key) };
    let key = if plain { key } else { &shown };
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

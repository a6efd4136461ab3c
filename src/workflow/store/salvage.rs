//! What can be read of a store that cannot be opened: records found in sled's log, and words for what is missing.

use std::collections::{BTreeMap, HashSet};

use super::error::StoreError;
use super::keys::{self, TREES, Tree};
use super::overlay::Overlay;
use super::sidecar::Sidecar;
use super::sled_log::{Data, Log, Page};
use super::state_dir::StateDir;
use super::view::{KnownUid, View};
use crate::workflow::counters::Counter;
use crate::workflow::event::Event;
use crate::workflow::id::RunId;
use crate::workflow::run::{Machine, Run};

/// Records that were read without sled.
#[derive(Debug)]
pub(super) struct Salvaged {
    pub(super) records: Overlay,
    /// What is missing or doubtful, in words.
    pub(super) trouble: Vec<String>,
}

impl Salvaged {
    /// Reads whatever is there. Writes nothing. The caller has the turn, so that nobody else writes.
    pub(super) fn of(state: &StateDir) -> Result<Self, StoreError> {
        let path = state.store();
        let log = Log::read(&path).map_err(|e| StoreError::io("read", &path.join("db"), e))?;
        let mut salvage = Salvage { log, seen: HashSet::new(), records: Overlay::default(), trouble: Vec::new() };
        let mut covered = Vec::new();
        if salvage.log.roots.is_empty() {
            salvage.trouble.push("its list of trees is lost: records are told apart by their shape".to_owned());
        } else {
            Tree::ALL.iter().for_each(|tree| salvage.tree(*tree, &mut covered));
        }
        salvage.strays(&Covered::of(covered));
        let Salvage { log, records, mut trouble, .. } = salvage;
        // What was not readable comes first: it is the cause of the rest.
        trouble.splice(0..0, repeated(log.trouble));
        trouble.extend(cut_short(state, &records));
        Ok(Self { records, trouble })
    }
}

/// A log that was cut off may be whole as far as it goes; the sidecar knows how far it went.
fn cut_short(state: &StateDir, records: &Overlay) -> Option<String> {
    let path = state.store();
    // Whoever opened the store has said what is wrong with the sidecar.
    let sidecar = Sidecar::read(&state.sidecar(), &path).ok().flatten()?;
    let found = View::new(None, Some(records), &path).sequence().unwrap_or(0);
    let lost = sidecar.checkpoint.checked_sub(found).filter(|lost| *lost > 0)?;
    Some(format!("the last {lost} group commits of {} are missing", sidecar.checkpoint))
}

struct Salvage {
    log: Log,
    seen: HashSet<u64>,
    records: Overlay,
    trouble: Vec<String>,
}

/// Keys of a tree that are known to be as they should be: ranges in order that do not overlap, the end by the beginning. An
/// empty end is the end of the tree.
#[derive(Default)]
struct Covered(BTreeMap<(Tree, Vec<u8>), Vec<u8>>);

impl Covered {
    fn of(mut ranges: Vec<(Tree, Vec<u8>, Vec<u8>)>) -> Self {
        ranges.sort_unstable();
        let mut covered = Self::default();
        for (tree, low, high) in ranges {
            match covered.0.last_entry() {
                // They overlap, or meet.
                Some(mut last) if last.key().0 == tree && (last.get().is_empty() || low <= *last.get()) => {
                    let end = last.get_mut();
                    if !end.is_empty() && (high.is_empty() || high > *end) {
                        *end = high;
                    }
                }
                Some(_) | None => drop(covered.0.insert((tree, low), high)),
            }
        }
        covered
    }

    fn contains(&self, tree: Tree, key: &[u8]) -> bool {
        let nearest = self.0.range(..=(tree, key.to_vec())).next_back();
        nearest.is_some_and(|((of, _), high)| *of == tree && (high.is_empty() || key < high.as_slice()))
    }
}

impl Salvage {
    /// Follows a tree from its root.
    fn tree(&mut self, tree: Tree, covered: &mut Vec<(Tree, Vec<u8>, Vec<u8>)>) {
        let Some(root) = self.log.roots.get(tree.as_str().as_bytes()).copied() else {
            self.trouble.push(format!("the root of its tree {tree} is lost"));
            return;
        };
        let mut ways = vec![(root, Vec::new(), Vec::new())];
        let mut leaves = Vec::new();
        while let Some((id, low, high)) = ways.pop() {
            if !self.seen.insert(id) {
                continue;
            }
            let Some(page) = self.log.pages.get(&id) else {
                if !self.log.freed.contains(&id) {
                    self.trouble.push(format!("a part of its tree {tree} is lost: {}", between(&low, &high)));
                }
                continue;
            };
            // A page just split is known to its neighbour before it is known to the page above.
            ways.extend(page.next.map(|next| (next, page.high.clone(), Vec::new())));
            match &page.data {
                Data::Leaf(_) => leaves.push((page.lsn, id)),
                Data::Index(children) => {
                    let ends = children.iter().skip(1).map(|(key, _)| key.clone()).chain([page.high.clone()]);
                    ways.extend(children.iter().zip(ends).map(|((low, id), high)| (*id, low.clone(), high)));
                }
            }
        }
        // The newest page has the last word.
        leaves.sort_unstable();
        for (_, id) in leaves {
            let page = &self.log.pages[&id];
            covered.push((tree, page.low.clone(), page.high.clone()));
            for (key, value) in leaf(page) {
                put(&mut self.records, tree, key, value);
            }
        }
    }

    /// Pages to which no way leads any more, because a page above them is lost. What they hold tells the tree.
    fn strays(&mut self, covered: &Covered) {
        let mut strays: Vec<(u64, u64)> = self
            .log
            .pages
            .iter()
            .filter(|(id, page)| !self.seen.contains(id) && matches!(page.data, Data::Leaf(_)))
            .map(|(id, page)| (page.lsn, *id))
            .collect();
        strays.sort_unstable();
        let (mut found, mut unknown) = (0_usize, 0_usize);
        for (_, id) in strays {
            for (key, value) in leaf(&self.log.pages[&id]) {
                let Some(tree) = tree_of(key, value) else {
                    unknown += 1;
                    continue;
                };
                // A page that can be reached knows better.
                if !covered.contains(tree, key) {
                    put(&mut self.records, tree, key, value);
                    found += 1;
                }
            }
        }
        if found > 0 {
            self.trouble.push(format!("{found} records were found to which no way leads any more: some may be old"));
        }
        if unknown > 0 {
            self.trouble.push(format!("{unknown} records are of no known kind and are left out"));
        }
    }
}

fn leaf(page: &Page) -> impl Iterator<Item = (&[u8], &[u8])> {
    let records = match &page.data {
        Data::Leaf(records) => Some(records),
        Data::Index(_) => None,
    };
    records.into_iter().flatten().map(|(key, value)| (key.as_slice(), value.as_slice()))
}

fn put(records: &mut Overlay, tree: Tree, key: &[u8], value: &[u8]) {
    // Every key that mt makes is text.
    if let Ok(key) = std::str::from_utf8(key) {
        records.set(tree, key, Some(value.to_vec()));
    }
}

/// Where a record belongs, by its key and its shape. Metrics have no shape of their own: mt makes them anew.
fn tree_of(key: &[u8], value: &[u8]) -> Option<Tree> {
    let text = std::str::from_utf8(key).ok()?;
    let of_meta = [keys::DEFINITIONS, keys::CANCELS, keys::PRUNING, keys::MARKS];
    if [keys::STORE_ID, keys::SEQUENCE].contains(&text) || of_meta.iter().any(|prefix| text.starts_with(prefix)) {
        return Some(Tree::Meta);
    }
    fn reads<T: serde::de::DeserializeOwned>(value: &[u8]) -> bool {
        value.split_first().is_some_and(|(_, json)| serde_json::from_slice::<T>(json).is_ok())
    }
    if text.parse::<RunId>().is_ok() {
        return if reads::<Run>(value) { Some(Tree::Runs) } else { None };
    }
    match text.split_once('/').filter(|(run, _)| run.parse::<RunId>().is_ok()) {
        Some(_) if keys::event_seq(key).is_some() && reads::<Event>(value) => Some(Tree::Events),
        Some(_) if reads::<Machine>(value) => Some(Tree::Machines),
        Some(_) if reads::<serde_json::Value>(value) => Some(Tree::Outbox),
        Some(_) => None,
        None if reads::<Counter>(value) => Some(Tree::Counters),
        None if reads::<KnownUid>(value) => Some(Tree::Uids),
        None => None,
    }
}

fn between(low: &[u8], high: &[u8]) -> String {
    let text = |key: &[u8]| String::from_utf8_lossy(key).replace('\0', " ");
    match (low.is_empty(), high.is_empty()) {
        (true, true) => "all of it".to_owned(),
        (true, false) => format!("what comes before {}", text(high)),
        (false, true) => format!("what comes after {}", text(low)),
        (false, false) => format!("from {} to {}", text(low), text(high)),
    }
}

/// The same words once, with how often they were said.
pub(super) fn repeated(words: Vec<String>) -> Vec<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for word in &words {
        *times.entry(word.clone()).or_default() += 1;
    }
    words
        .into_iter()
        .filter_map(|word| match times.remove(&word)? {
            1 => Some(word),
            times => Some(format!("{word} ({times} times)")),
        })
        .collect()
}

/// Keeps the compiler's eye on the number of trees: a new one needs a shape of its own above.
const _: [(); 8] = [(); TREES];

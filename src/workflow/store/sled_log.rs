//! sled's log, read without sled: for a store that sled does not open, or opens as if it had never been written.
//!
//! Nothing is written and nothing is repaired here. The log is a file of segments of 512 KiB; each holds messages, and
//! each message is a whole page of a tree, a change of one, or its end. Every message has a checksum and the number of
//! its segment, which gives its place in time: the newest message about a page wins, wherever in the file it lies. What
//! sled gives up at the first gap is read on behind it.
//!
//! The layout is that of sled 0.34.7, whose version `Cargo.toml` holds. A test compares both readers on the same store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// sled's default, which `mt` never changes.
const SEGMENT: usize = 512 << 10;
/// Checksum, first byte of the log's time, newest time known to be stable.
const SEGMENT_HEADER: usize = 20;
/// What a disk reads at once, or not at all.
const SECTOR: usize = 4 << 10;
/// The longest header of a message: where there is no room for one, a segment ends.
const MESSAGE_HEADER: usize = 32;
const FLIPPED: u32 = 0xFFFF_FFFF;
const FLIPPED_LSN: u64 = 0x7FFF_FFFF_FFFF_FFFF;

/// A page of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// When it was last changed, in sled's time.
    pub(super) lsn: u64,
    /// Its right neighbour.
    pub(super) next: Option<u64>,
    /// The keys it is responsible for begin here …
    pub(super) low: Vec<u8>,
    /// … and end before this; empty: they do not end.
    pub(super) high: Vec<u8>,
    prefix: usize,
    merging: Option<u64>,
    pub(super) data: Data,
}

/// What a page holds. Keys are whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// Records.
    Leaf(BTreeMap<Vec<u8>, Vec<u8>>),
    /// Pages, each responsible from its key to the next one.
    Index(Vec<(Vec<u8>, u64)>),
}

/// What could be read of a log.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) pages: HashMap<u64, Page>,
    /// Pages that ended in good order.
    pub(super) freed: HashSet<u64>,
    /// The first page of every tree, by the tree's name.
    pub(super) roots: BTreeMap<Vec<u8>, u64>,
    /// Segments in the file.
    pub(super) segments: usize,
    /// What could not be read, in words.
    pub(super) trouble: Vec<String>,
    /// Pages of which only later changes are left.
    headless: HashSet<u64>,
    /// Pages with a message whose blob cannot be read, and why, see [`is_damage`]; not those that were written as a whole after it, because
    /// sled removes such blobs.
    pub(super) without_blob: BTreeMap<u64, io::Error>,
    skipped: usize,
}

struct Message {
    kind: u8,
    segment: u64,
    page: u64,
    /// Header and body.
    length: usize,
    body: Vec<u8>,
}

impl Log {
    /// Reads `db` and `blobs/` of a store.
    pub(super) fn read(store: &Path) -> io::Result<Self> {
        let path = store.join("db");
        let file = match open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { trouble: vec!["its file db is missing".to_owned()], ..Self::default() });
            }
            Err(e) => return Err(e),
        };
        let length = file.metadata()?.len();
        let mut log = Self { segments: length.div_ceil(SEGMENT as u64) as usize, ..Self::default() };
        // Segments are used again, so their order in the file is not the order of time.
        let mut by_time = BTreeMap::new();
        let mut buffer = Vec::new();
        let (mut unreadable, mut withheld) = (0_usize, 0_usize);
        for index in 0..log.segments as u64 {
            withheld += read_what_can_be(&file, index, length, &mut buffer);
            match number(&buffer) {
                Some(number) => drop(by_time.insert(number, index)),
                // Never written: sled makes room for the next segment before it uses it.
                None if buffer.iter().all(|byte| *byte == 0) => {}
                None => unreadable += 1,
            }
        }
        if withheld > 0 {
            log.trouble.push(format!("the disk withholds {withheld} bytes of its log"));
        }
        if unreadable > 0 {
            log.trouble.push(format!("{unreadable} of the {} segments of its log cannot be read", log.segments));
        }
        let newest = by_time.keys().next_back().copied();
        for (number, index) in by_time {
            read_what_can_be(&file, index, length, &mut buffer);
            let end = log.replay(&buffer, number, store);
            // Every segment but the newest is filled to its end.
            if Some(number) != newest && end + MESSAGE_HEADER <= buffer.len() {
                log.skipped += buffer.len() - end;
            }
        }
        log.trouble.extend(log.without_blob.values().map(ToString::to_string));
        if log.skipped > 0 {
            log.trouble.push(format!("{} bytes between what can be read of its log cannot be read", log.skipped));
        }
        if !log.headless.is_empty() {
            log.trouble.push(format!("of {} pages only later changes are left", log.headless.len()));
        }
        Ok(log)
    }

    /// Applies the messages of a segment and gives the place where they end.
    fn replay(&mut self, segment: &[u8], number: u64, store: &Path) -> usize {
        let mut at = SEGMENT_HEADER;
        let mut skipped_from = None;
        while at < segment.len() {
            match message(segment, at, Some(number)) {
                Some(message) => {
                    if let Some(from) = skipped_from.take() {
                        self.skipped += at - from;
                    }
                    let lsn = number * SEGMENT as u64 + at as u64;
                    at += message.length;
                    // The rest of the segment is padding.
                    if message.kind == kind::CAP {
                        return segment.len();
                    }
                    self.apply(lsn, message, store);
                }
                None => {
                    // The end of what was written here; or damage, if more of this segment follows.
                    skipped_from.get_or_insert(at);
                    at += 1;
                }
            }
        }
        skipped_from.unwrap_or(at)
    }

    fn apply(&mut self, lsn: u64, message: Message, store: &Path) {
        let page = message.page;
        let body = match message.kind {
            kind::BLOB_META | kind::BLOB_NODE | kind::BLOB_LINK => match blob(store, &message.body, message.kind) {
                Ok(body) => body,
                Err(why) => {
                    self.without_blob.insert(page, why);
                    return;
                }
            },
            _ => message.body,
        };
        let mut bytes = Bytes(&body);
        match message.kind {
            kind::FREE => {
                self.pages.remove(&page);
                self.headless.remove(&page);
                self.without_blob.remove(&page);
                self.freed.insert(page);
            }
            kind::INLINE_META | kind::BLOB_META => match bytes.roots() {
                Some(roots) => {
                    self.without_blob.remove(&page);
                    self.roots = roots;
                }
                None => self.trouble.push("its list of trees cannot be read".to_owned()),
            },
            kind::INLINE_NODE | kind::BLOB_NODE => match bytes.page(lsn) {
                Some(whole) => {
                    self.headless.remove(&page);
                    self.freed.remove(&page);
                    self.without_blob.remove(&page);
                    self.pages.insert(page, whole);
                }
                None => self.trouble.push(format!("page {page} cannot be read")),
            },
            kind::INLINE_LINK | kind::BLOB_LINK => match (bytes.change(), self.pages.get_mut(&page)) {
                (Some(change), Some(whole)) => whole.apply(lsn, change),
                (Some(_), None) => drop(self.headless.insert(page)),
                (None, _) => self.trouble.push(format!("a change of page {page} cannot be read")),
            },
            // Counters of pages, cancelled messages, marks of batches.
            _ => {}
        }
    }
}

/// The kinds of messages, as sled numbers them.
mod kind {
    pub(super) const CANCELED: u8 = 1;
    pub(super) const CAP: u8 = 2;
    pub(super) const FREE: u8 = 4;
    pub(super) const INLINE_META: u8 = 6;
    pub(super) const BLOB_META: u8 = 7;
    pub(super) const INLINE_NODE: u8 = 8;
    pub(super) const BLOB_NODE: u8 = 9;
    pub(super) const INLINE_LINK: u8 = 10;
    pub(super) const BLOB_LINK: u8 = 11;
}

fn read_segment(file: &File, index: u64, length: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    let start = index * SEGMENT as u64;
    buffer.resize((length - start).min(SEGMENT as u64) as usize, 0);
    file.read_exact_at(buffer, start)
}

/// The same, with zeros in place of what the disk does not give: so many bytes.
fn read_what_can_be(file: &File, index: u64, length: u64, buffer: &mut Vec<u8>) -> usize {
    if read_segment(file, index, length, buffer).is_ok() {
        return 0;
    }
    let parts = buffer.chunks_mut(SECTOR).zip((index * SEGMENT as u64..).step_by(SECTOR));
    let withheld = parts.filter_map(|(part, start)| {
        file.read_exact_at(part, start).is_err().then(|| {
            part.fill(0);
            part.len()
        })
    });
    withheld.sum()
}

/// Will sled read this log to its end? What lies behind a tear it zeroes and removes when it opens the store, blobs too, and
/// segments that do not begin well it takes for free: a damaged store would not stay as it is.
///
/// It reads on from its newest snapshot, and so does this: what was written since the store was last opened.
pub(super) fn is_read_to_its_end(store: &Path, snapshot: u64) -> io::Result<bool> {
    let file = File::open(store.join("db"))?;
    let length = file.metadata()?.len();
    let size = SEGMENT as u64;
    let mut to_read = BTreeMap::new();
    let mut buffer = Vec::new();
    for index in 0..length.div_ceil(size) {
        let start = index * size;
        buffer.resize((length - start).min(SEGMENT_HEADER as u64) as usize, 0);
        file.read_exact_at(&mut buffer, start)?;
        match number_in_header(&buffer) {
            Some(number) if number >= snapshot / size => drop(to_read.insert(number, index)),
            Some(_) => {}
            None if buffer.iter().all(|byte| *byte == 0) => {}
            None => return Ok(false),
        }
    }
    let newest = to_read.keys().next_back().copied();
    for ((number, index), expected) in to_read.into_iter().zip(snapshot / size..) {
        if number != expected {
            return Ok(false);
        }
        read_segment(&file, index, length, &mut buffer)?;
        // It begins with the segment in which the snapshot ends, and with all of it.
        let known = if number == snapshot / size { (snapshot % size) as usize } else { 0 };
        match torn_at(&buffer, known, number, store)? {
            None => {}
            // The end of the log.
            Some(at) if Some(number) == newest && buffer[at..].iter().all(|byte| *byte == 0) => {}
            Some(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// Where the messages of a segment end before it does. Up to `known` the snapshot has what they say.
fn torn_at(segment: &[u8], known: usize, number: u64, store: &Path) -> io::Result<Option<usize>> {
    let mut at = SEGMENT_HEADER;
    while at + MESSAGE_HEADER <= segment.len() {
        match message(segment, at, Some(number)) {
            Some(message) if message.kind == kind::CAP => return Ok(None),
            Some(Message {
                kind: kind @ (kind::BLOB_META | kind::BLOB_NODE | kind::BLOB_LINK), body, length, ..
            }) => {
                // sled passes over one that it has removed.
                let removed = || at < known && blob_path(store, &body).is_ok_and(|path| !path.exists());
                match blob(store, &body, kind) {
                    Ok(_) => {}
                    Err(error) if !is_damage(&error) => return Err(error),
                    Err(_) if removed() => {}
                    Err(_) => return Ok(Some(at)),
                }
                at += length;
            }
            Some(message) => at += message.length,
            None => return Ok(Some(at)),
        }
    }
    Ok(None)
}

fn number_in_header(segment: &[u8]) -> Option<u64> {
    let header = segment.get(..SEGMENT_HEADER)?;
    let crc = u32::from_le_bytes(header[..4].try_into().ok()?) ^ FLIPPED;
    let lsn = u64::from_le_bytes(header[4..12].try_into().ok()?) ^ FLIPPED_LSN;
    (crc32fast::hash(&header[4..]) == crc).then_some(lsn / SEGMENT as u64)
}

/// Which segment it is, counted in sled's time; its messages say so too if its header is gone.
fn number(segment: &[u8]) -> Option<u64> {
    if let Some(number) = number_in_header(segment) {
        return Some(number);
    }
    (SEGMENT_HEADER..segment.len()).find_map(|at| message(segment, at, None)).map(|message| message.segment)
}

/// The message that begins there, if one of this segment does and its checksum is right.
fn message(segment: &[u8], at: usize, number: Option<u64>) -> Option<Message> {
    let mut bytes = Bytes(&segment[at..]);
    let crc = u32::from_le_bytes(bytes.take(4)?.try_into().ok()?);
    let kind = bytes.byte()?;
    if !(kind::CANCELED..=kind::BLOB_LINK).contains(&kind) {
        return None;
    }
    let (length, found, page) = (bytes.size()?, bytes.number()?, bytes.number()?);
    if number.is_some_and(|number| number != found) {
        return None;
    }
    let header = segment.len() - at - bytes.0.len();
    let body = bytes.take(length)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(&segment[at + 4..at + header]);
    let right = hasher.finalize() ^ FLIPPED == crc;
    right.then(|| Message { kind, segment: found, page, length: header + length, body: body.to_vec() })
}

fn blob_path(store: &Path, id: &[u8]) -> io::Result<PathBuf> {
    let id = id.try_into().map(i64::from_le_bytes);
    let id = id.map_err(|_| damaged("a message about a blob cannot be read".to_owned()))?;
    Ok(store.join("blobs").join(id.to_string()))
}

/// Never waits: something else may be there than a file.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Is a blob not what was written? Else the system has not read it, for want of a descriptor, say: that says nothing of what
/// is there.
pub(super) fn is_damage(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => true,
        // Something else is in its place.
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => true,
        _ => false,
    }
}

/// A big page lies in a file of its own. Errors name it.
fn blob(store: &Path, id: &[u8], kind: u8) -> io::Result<Vec<u8>> {
    let path = blob_path(store, id)?;
    let name = path.file_name().unwrap_or_default().display();
    let mut content = Vec::new();
    open(&path)
        .and_then(|mut file| file.read_to_end(&mut content))
        .map_err(|e| io::Error::new(e.kind(), format!("its file blobs/{name} cannot be read: {e}")))?;
    let damaged = || damaged(format!("its file blobs/{name} is damaged"));
    let (crc, rest) = content.split_first_chunk().ok_or_else(damaged)?;
    match rest.split_first() {
        Some((found, body)) if *found == kind && crc32fast::hash(rest) == u32::from_le_bytes(*crc) => Ok(body.to_vec()),
        Some(_) | None => Err(damaged()),
    }
}

enum Change {
    Set(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Merge(u64),
    Merged,
    /// It will be merged into its neighbour: nothing changes yet.
    Cap,
}

impl Page {
    /// Keys are stored without what the keys of a page have in common.
    fn whole_key(&self, rest: &[u8]) -> Vec<u8> {
        [&self.low[..self.prefix], rest].concat()
    }

    fn apply(&mut self, lsn: u64, change: Change) {
        self.lsn = lsn;
        match change {
            Change::Set(key, value) => {
                let key = self.whole_key(&key);
                if let Data::Leaf(records) = &mut self.data {
                    records.insert(key, value);
                }
            }
            Change::Delete(key) => {
                let key = self.whole_key(&key);
                if let Data::Leaf(records) = &mut self.data {
                    records.remove(&key);
                }
            }
            Change::Merge(child) => self.merging = Some(child),
            Change::Merged => {
                if let (Data::Index(children), Some(gone)) = (&mut self.data, self.merging.take()) {
                    children.retain(|(_, page)| *page != gone);
                }
            }
            Change::Cap => {}
        }
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        match first {
            0..=240 => Some(u64::from(first)),
            241..=248 => Some(240 + 256 * (u64::from(first) - 241) + u64::from(self.byte()?)),
            249 => Some(2288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?)),
            250..=255 => {
                let mut wide = [0; 8];
                let length = usize::from(first) - 247;
                wide[..length].copy_from_slice(self.take(length)?);
                Some(u64::from_le_bytes(wide))
            }
        }
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.size()?;
        self.take(length).map(<[u8]>::to_vec)
    }

    fn roots(&mut self) -> Option<BTreeMap<Vec<u8>, u64>> {
        let mut roots = BTreeMap::new();
        while !self.0.is_empty() {
            roots.insert(self.bytes()?, self.number()?);
        }
        Some(roots)
    }

    fn change(&mut self) -> Option<Change> {
        match self.byte()? {
            0 => Some(Change::Set(self.bytes()?, self.bytes()?)),
            1 => Some(Change::Delete(self.bytes()?)),
            2 => Some(Change::Merge(self.number()?)),
            3 => Some(Change::Merged),
            4 => Some(Change::Cap),
            _ => None,
        }
    }

    fn page(&mut self, lsn: u64) -> Option<Page> {
        let nonzero = |number: u64| (number != 0).then_some(number);
        let (next, merging) = (nonzero(self.number()?), nonzero(self.number()?));
        let _being_merged = self.byte()?;
        let prefix = usize::from(self.byte()?);
        let (low, high) = (self.bytes()?, self.bytes()?);
        if prefix > low.len() {
            return None;
        }
        let (leaf, length) = (self.byte()?, self.size()?);
        let mut page = Page { lsn, next, low, high, prefix, merging, data: Data::Index(Vec::new()) };
        let mut keys = Vec::new();
        for _ in 0..length {
            keys.push(page.whole_key(&self.bytes()?));
        }
        page.data = match leaf {
            0 => Data::Leaf(keys.into_iter().map(|key| Some((key, self.bytes()?))).collect::<Option<_>>()?),
            1 => Data::Index(keys.into_iter().map(|key| Some((key, self.number()?))).collect::<Option<_>>()?),
            _ => return None,
        };
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_blob_of_a_page_that_was_written_anew_is_not_missed_and_that_of_the_newest_is() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let db = sled::Config::new().path(&store).flush_every_ms(None).open().unwrap();
        // A page is written as a whole after some ten changes.
        for round in 0..30_u8 {
            db.insert("large", vec![round; 200 << 10]).unwrap();
            db.flush().unwrap();
        }
        drop(db);
        let mut blobs: Vec<_> = fs::read_dir(store.join("blobs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        blobs.sort_by_key(|path| path.file_name().unwrap().to_string_lossy().parse::<u64>().unwrap());
        let newest = blobs.pop().unwrap();
        // sled removes these when it gets to it.
        for blob in &blobs[..10] {
            fs::remove_file(blob).unwrap();
        }
        assert_eq!(Log::read(&store).unwrap().trouble, [""; 0]);
        fs::remove_file(&newest).unwrap();
        let id = newest.file_name().unwrap().to_string_lossy().into_owned();
        let why = format!("its file blobs/{id} cannot be read: No such file or directory (os error 2)");
        assert_eq!(Log::read(&store).unwrap().trouble, [why]);
    }
}

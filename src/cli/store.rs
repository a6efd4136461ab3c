//! `mt store verify | export | import | compact`: what an operator does with the store itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::error::{Failed, codes};
use super::exit::ExitCode;
use super::output::{self, Cell, OutputFormat, Paint, SCHEMA_VERSION, Style};
use super::runs::{self, of_store};
use crate::acting::site::{Global, Site};
use crate::acting::{uid_book, uids};
use crate::workflow::store::{
    self, Access, DAMAGED, ExportError, Exported, From, ImportError, ImportOrder, Imported, KnownUid, Options,
    StateDir, Store, StoreError, Verification,
};
use crate::{guardian, private_dir};

/// So many damaged runs are listed one by one in a table; JSON has them all.
const LISTED: usize = 20;
/// An export's word on what it lacks names twenty keys at most.
const LONGEST: usize = 4_000;

/// `mt store …`
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Look at every record: is the store whole? Changes nothing; exits 21 if it is not
    Verify,
    /// Write every record as a line of JSON: the backup, and what can be read of a damaged store
    Export {
        /// The file, or - for stdout
        file: PathBuf,
    },
    /// Build a fresh store from an export; a damaged one is put aside as store.damaged-TIME
    Import(ImportArgs),
    /// Copy the store into a fresh one, which is smaller; done without being asked when it is worth it
    Compact,
}

/// `mt store import`
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// A file made by `mt store export`
    #[arg(required_unless_present = "empty", conflicts_with = "empty")]
    file: Option<PathBuf>,
    /// Begin with an empty store; the UIDs of uids.json are taken over
    #[arg(long)]
    empty: bool,
    /// Take what can be read of a file that was cut off or is damaged
    #[arg(long, conflicts_with = "empty")]
    partial: bool,
    /// Put the present store aside even if it is whole, as store.replaced-TIME
    #[arg(long)]
    replace: bool,
}

/// Dispatches `mt store …`.
pub fn run(global: &Global, command: &StoreCommand) -> Result<ExitCode, Failed> {
    if let StoreCommand::Import(args) = command
        && args.file.as_deref() == Some(Path::new("-"))
    {
        return Err(from_stdin(args));
    }
    let path = Site::state_dir(global).map_err(|e| super::of_config(&e))?;
    guardian::refuse_root(&path).map_err(|e| Failed::new(e.code(), e.to_string()))?;
    // A fresh store may be imported into a directory that does not exist yet, on another host.
    let state = match command {
        StoreCommand::Import(_) => StateDir::create(path),
        StoreCommand::Verify | StoreCommand::Export { .. } | StoreCommand::Compact => StateDir::existing(path),
    };
    let state = state.map_err(|e| of_store(&e))?;
    match command {
        StoreCommand::Verify => verify(&state, global.output),
        StoreCommand::Export { file } => export(&state, file),
        StoreCommand::Import(args) => import(&state, args),
        StoreCommand::Compact => compact(&state),
    }
}

fn verify(state: &StateDir, format: OutputFormat) -> Result<ExitCode, Failed> {
    let found = store::verify(state, &Options::default()).map_err(|e| of_store(&e))?;
    runs::print(&match format {
        OutputFormat::Table => table(&found, &Style::stdout()),
        OutputFormat::Json => output::json(&as_json(&found)),
        OutputFormat::Ndjson => output::json_line(&as_json(&found)),
    })?;
    Ok(if found.is_whole() { ExitCode::Success } else { ExitCode::StoreUnusable })
}

fn as_json(found: &Verification) -> serde_json::Value {
    let trees = found.trees.iter().map(
        |t| json!({ "tree": t.tree.as_str(), "records": t.records, "unreadable": t.unreadable, "bytes": t.bytes }),
    );
    let damaged = found.damaged_runs.iter().map(|(run, what)| json!({ "run": run, "what": what }));
    json!({
        "schema_version": SCHEMA_VERSION,
        "store": found.path,
        "whole": found.is_whole(),
        "usable": found.unusable.is_none(),
        "why": found.unusable.as_ref().map(|e| json!({ "code": e.code().to_string(), "message": e.to_string() })),
        "trees": trees.collect::<Vec<_>>(),
        "runs": { "whole": found.whole_runs, "damaged": damaged.collect::<Vec<_>>() },
        "trouble": found.trouble,
        "bytes_on_disk": found.bytes_on_disk,
    })
}

fn table(found: &Verification, style: &Style) -> String {
    let mut text = String::new();
    let mut say = |line: String| text.push_str(&(output::clean(&line).into_owned() + "\n"));
    match (&found.unusable, found.is_whole()) {
        (None, true) => say(format!("the store {} is whole", found.path.display())),
        (None, false) => say(format!("the store {} can be used, but is not whole", found.path.display())),
        (Some(why), _) => {
            say(format!("{why} [{}]", why.code()));
            say("what can be read without opening it:".to_owned());
        }
    }
    let rows = found.trees.iter().map(|tree| {
        let paint = if tree.unreadable > 0 { Paint::Bad } else { Paint::Plain };
        vec![
            Cell::plain(tree.tree.as_str()),
            Cell::plain(tree.records.to_string()),
            Cell::new(tree.unreadable.to_string(), paint),
            Cell::plain(size(tree.bytes)),
        ]
    });
    text.push_str(&output::table(&["TREE", "RECORDS", "UNREADABLE", "SIZE"], rows.collect(), style));
    let mut say = |line: String| text.push_str(&(output::clean(&line).into_owned() + "\n"));
    let records: u64 = found.trees.iter().map(|tree| tree.bytes).sum();
    say(format!("{} of records, {} on the disk", size(records), size(found.bytes_on_disk)));
    say(format!("{} whole, {} not", plural(found.whole_runs, "run is", "runs are"), found.damaged_runs.len()));
    for (run, what) in found.damaged_runs.iter().take(LISTED) {
        say(format!("  {run}  {what}"));
    }
    if let Some(more @ 1..) = found.damaged_runs.len().checked_sub(LISTED) {
        say(format!("  and {more} more: --output json lists them all"));
    }
    for what in &found.trouble {
        say(format!("  {what}"));
    }
    match (found.is_whole(), found.unusable.is_some()) {
        (true, _) => {}
        (false, true) => {
            say("next: mt store export FILE; then mt store import FILE, which mends what can be mended".to_owned())
        }
        (false, false) => {
            say("next: mt store export FILE; then mt store import --replace FILE, which mends what can be mended"
                .to_owned());
        }
    }
    text
}

fn export(state: &StateDir, file: &Path) -> Result<ExitCode, Failed> {
    let to_stdout = file == Path::new("-");
    let mut place = file.to_owned();
    let exported = if to_stdout {
        let mut begun = false;
        let stdout = || {
            if std::mem::replace(&mut begun, true) {
                return Err(io::Error::other("the store broke in the middle of it; export to a file"));
            }
            Ok(BufWriter::new(io::stdout().lock()))
        };
        store::export(state, &Options::default(), stdout).map(|(exported, _)| exported)
    } else {
        export_to(state, file).map(|(exported, to)| {
            place = to;
            exported
        })
    };
    let exported = match exported {
        // Whoever read it has had enough: no error, as everywhere.
        Err(ExportError::Write(e)) if to_stdout && e.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(ExitCode::Success);
        }
        other => other.map_err(|e| of_export(&e, file))?,
    };
    output::write_err(&told(&exported, file, &place));
    Ok(if exported.is_whole() { ExitCode::Success } else { ExitCode::StoreUnusable })
}

/// The file is there whole and durable, or as it was before. What is not all there was takes no other's place: the backup
/// of every night would be replaced by what a damage has left. Gives the file's name.
fn export_to(state: &StateDir, file: &Path) -> Result<(Exported, PathBuf), ExportError> {
    check_destination(file)?;
    let beside = |suffix: String| {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        file.with_file_name(name)
    };
    let new = beside(format!(".{}", std::process::id()));
    let begin = || -> io::Result<BufWriter<File>> {
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let flags = libc::O_NOFOLLOW;
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&new).map(BufWriter::new)
    };
    let finish = |mut written: BufWriter<File>, exported: &Exported| -> io::Result<PathBuf> {
        written.flush()?;
        written.get_ref().sync_all()?;
        let takes_its_place = exported.is_whole() || fs::symlink_metadata(file).is_err();
        let place = if takes_its_place { file.to_owned() } else { beside(".incomplete".to_owned()) };
        fs::rename(&new, &place)?;
        File::open(directory_of(file))?.sync_all().map(|()| place)
    };
    let done = store::export(state, &Options::default(), begin).and_then(|(exported, written)| {
        let place = finish(written, &exported).map_err(ExportError::Write)?;
        Ok((exported, place))
    });
    if done.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&new);
    }
    done
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// May an export go there? Only where an import would take it from: in a directory where nobody else can swap it. And in place
/// of nothing but an older file: whoever has put a link or a FIFO there expects something else than its end.
fn check_destination(file: &Path) -> io::Result<()> {
    let refused = |what: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    if file.file_name().is_none() {
        return refused("that is no name of a file".to_owned());
    }
    match fs::symlink_metadata(file) {
        Ok(there) if !there.is_file() => {
            return refused("what is there is no regular file: name another, or remove it".to_owned());
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(_) | Err(_) => {}
    }
    private_dir::open_shared(directory_of(file)).map_err(io::Error::other).map(|_| ())
}

fn told(exported: &Exported, wanted: &Path, place: &Path) -> String {
    let to = if wanted == Path::new("-") { String::new() } else { format!(" to {}", place.display()) };
    let mut text = String::new();
    if let Some(why) = &exported.salvaged {
        let _infallible = writeln!(text, "warning[{DAMAGED}]: {why}; what can be read without opening it is exported");
    }
    let records = plural(exported.records, "record", "records");
    let _infallible = writeln!(text, "exported {records}, {}{to}", plural(exported.runs, "run", "runs"));
    for what in &exported.missing {
        let _infallible = writeln!(text, "missing: {}", output::clean(what));
    }
    if wanted != place {
        let _infallible = writeln!(text, "{} was there before, may have more, and is as it was", wanted.display());
    }
    text
}

fn of_export(error: &ExportError, file: &Path) -> Failed {
    match error {
        ExportError::Store(error) => of_store(error),
        ExportError::Write(why) => {
            Failed::new(codes::NOT_WRITTEN, format!("cannot write the export {}: {why}", file.display()))
        }
    }
}

fn import(state: &StateDir, args: &ImportArgs) -> Result<ExitCode, Failed> {
    let from = match &args.file {
        Some(path) => From::File { path: path.clone(), partial: args.partial },
        None => From::Empty,
    };
    let file = state.uids_json();
    let of_file = |doing, e| Failed::new(codes::UNEXPECTED, format!("cannot {doing} {}: {e}", file.display()));
    let beside = match uids::read(&file) {
        Ok(beside) => beside,
        Err(error) if uids::is_damaged(&error) => BTreeMap::new(),
        // Nobody else may know what it says.
        Err(error) => return Err(of_file("read", error).next("if it stays so, move it away first")),
    };
    let order = ImportOrder { from, uids: beside, replace: args.replace };
    let imported = store::import(state, &order, &Options::default()).map_err(|e| of_import(&e))?;
    // Before what may fail now: the store is replaced.
    output::write_err(&told_of_import(&imported));
    let damaged = match uids::read(&file) {
        Err(error) if uids::is_damaged(&error) => {
            uids::turn(&file, uids::TURN_WITHIN).and_then(|turn| turn.keep_damaged())
        }
        Ok(_) | Err(_) => Ok(None),
    };
    match damaged.map_err(|e| of_file("keep what is damaged of", e))? {
        Some((error, kept)) => output::write_err(&format!(
            "{} could not be read ({error}) and is kept: {}; compare its UIDs with `mt uids list`\n",
            file.display(),
            kept.display()
        )),
        // Runs that could not wait for the store have recorded theirs here alone.
        None => record_changed(state, &order.uids, uids::read(&file).map_err(|e| of_file("read", e))?)?,
    }
    let store = Store::open(state, Access::ReadWrite).map_err(|e| of_store(&e))?;
    uid_book::follow(&store, &file).map_err(|e| of_file("write", e))?;
    store.close();
    Ok(ExitCode::Success)
}

/// The store is held while the file is read, and a pipe has its own time: all runs would go on unrecorded meanwhile.
fn from_stdin(args: &ImportArgs) -> Failed {
    let flags: String = [(args.partial, "--partial "), (args.replace, "--replace ")]
        .into_iter()
        .filter_map(|(given, flag)| given.then_some(flag))
        .collect();
    let message = "an import reads a file and not stdin: every run waits for the store meanwhile";
    Failed::new(codes::USAGE, message)
        .next(format!("write it to FILE first; then mt store import {flags}FILE"))
        .exit(ExitCode::Usage)
}

/// Records the UIDs that have come to `uids.json` while the store was made.
fn record_changed(
    state: &StateDir,
    before: &BTreeMap<String, u32>,
    mut now: BTreeMap<String, u32>,
) -> Result<(), Failed> {
    now.retain(|account, uid| before.get(account) != Some(uid));
    if now.is_empty() {
        return Ok(());
    }
    let store = Store::open(state, Access::ReadWrite).map_err(|e| of_store(&e))?;
    let recorded_at = Timestamp::now();
    let written = store.write_blocking(move |tx| {
        now.into_iter().try_for_each(|(account, uid)| tx.put_uid(&account, KnownUid { uid, recorded_at }))
    });
    store.close();
    written.map_err(|e: StoreError| of_store(&e))
}

fn told_of_import(imported: &Imported) -> String {
    let mut text = String::new();
    let records = plural(imported.records, "record", "records");
    let _infallible = writeln!(text, "imported {records}; the store has {}", plural(imported.runs, "run", "runs"));
    if let Some(aside) = &imported.aside {
        let _infallible = writeln!(text, "the store that was there is kept: {}", aside.display());
    }
    if imported.uids > 0 {
        let uids = plural(imported.uids, "UID", "UIDs");
        let _infallible = writeln!(text, "{uids} taken over from uids.json");
    }
    for (run, what) in &imported.mended {
        let _infallible = writeln!(text, "run {run}: {}", output::clean(what));
    }
    // The file's own words, whoever wrote it.
    for what in imported.missing.iter().take(LISTED) {
        let _infallible = writeln!(text, "missing: {}", output::fit(what, LONGEST));
    }
    if let Some(more @ 1..) = imported.missing.len().checked_sub(LISTED) {
        let _infallible = writeln!(text, "missing: {more} more");
    }
    text
}

fn of_import(error: &ImportError) -> Failed {
    match error {
        ImportError::Store(error) => of_store(error),
        ImportError::Read { .. }
        | ImportError::Strange { .. }
        | ImportError::Newer { .. }
        | ImportError::CutOff { .. }
        | ImportError::InUse { .. } => Failed::new(error.code(), error.to_string()),
    }
}

fn compact(state: &StateDir) -> Result<ExitCode, Failed> {
    let text = match store::compact(state, &Options::default()).map_err(|e| of_store(&e))? {
        None => "there is no store yet\n".to_owned(),
        Some(done) => format!(
            "{} before, {} now, {}\n",
            size(done.before),
            size(done.after),
            plural(done.records, "record", "records")
        ),
    };
    output::write_err(&text);
    Ok(ExitCode::Success)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1_000)),
        1_000_000.. => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_is_imported_while_uids_json_cannot_be_read_and_a_damaged_one_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path().join("state")).unwrap();
        let file = state.uids_json();
        let empty = ImportArgs { file: None, empty: true, partial: false, replace: true };
        uids::turn(&file, Duration::ZERO).unwrap().record("dunepro", 5678).unwrap();
        // It is refused as long as everybody may write to it.
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o606);
        let refused = import(&state, &empty).unwrap_err();
        assert!(refused.message.contains("uids.json"), "{}", refused.message);
        assert!(!state.store().exists());
        mode(0o600);
        import(&state, &empty).unwrap();
        assert_eq!(uids::read(&file).unwrap(), BTreeMap::from([("dunepro".to_owned(), 5678)]));
        fs::write(&file, "{\"mu2epro").unwrap();
        import(&state, &empty).unwrap();
        let kept = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().path());
        let is_kept = |path: &PathBuf| path.to_string_lossy().contains("uids.json.damaged-");
        assert_eq!(kept.filter(is_kept).map(|kept| fs::read(kept).unwrap()).collect::<Vec<_>>(), [b"{\"mu2epro"]);
    }
}

//! Promise: every seed of every fuzz target, and every input that once broke a promise, is survived. What `fuzz/` runs for
//! hours with random changes runs here once as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use managed_tokens::fuzzing::{TARGETS, Target};

/// A seed takes milliseconds. Only what hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// `fuzz/more-seeds`: which directories of this repository hold more seeds, and for which target.
fn more_seeds(target: &str) -> Vec<PathBuf> {
    let list = fs::read_to_string(here("fuzz/more-seeds")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    lines.filter(|(of, _)| *of == target).map(|(_, directory)| here(directory)).collect()
}

/// On a stack as small as any on which `mt` does such work, and not for ever.
fn survives(name: &str, run: Target, seed: PathBuf) {
    let (done, ended) = mpsc::channel();
    let data = fs::read(&seed).unwrap();
    let thread = thread::Builder::new().stack_size(2 << 20);
    let worker = thread.spawn(move || {
        run(&data);
        done.send(()).unwrap();
    });
    let worker = worker.unwrap();
    match ended.recv_timeout(PATIENCE) {
        Ok(()) => worker.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} hangs with {}", seed.display()),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            assert!(worker.join().is_ok(), "{name} panics with {}", seed.display());
        }
    }
}

#[test]
fn every_seed_of_every_target_is_survived() {
    for (name, run) in TARGETS {
        let mut seeds = files(&here(&format!("fuzz/seeds/{name}")));
        assert!(!seeds.is_empty(), "{name} has no seed");
        seeds.extend(more_seeds(name).iter().flat_map(|directory| files(directory)));
        for seed in seeds {
            survives(name, *run, seed);
        }
    }
}

#[test]
fn every_target_is_fuzzed_and_every_seed_has_a_target() {
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    assert_eq!(files(&here("fuzz/fuzz_targets")).into_iter().map(stem).collect::<Vec<_>>(), names);
    let mut directories: Vec<_> = fs::read_dir(here("fuzz/seeds")).unwrap().map(|e| stem(e.unwrap().path())).collect();
    directories.sort();
    assert_eq!(directories, names);
}

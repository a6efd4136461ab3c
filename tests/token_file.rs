//! What `token_file` promises, with real files, links, FIFOs and readers that look at the wrong moment.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use managed_tokens::token_file::{self, TokenFileError};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

const OLD: &str = "hvs.OldOldOldOldOldOldOldOldOldOld";
const NEW: &str = "hvs.NewNewNewNewNewNewNewNewNewNew";

struct Place {
    _dir: tempfile::TempDir,
    kept: PathBuf,
    staged: PathBuf,
    tmp: PathBuf,
}

/// A directory of kept files, a private one, and one like /tmp.
fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let sub = |name: &str, mode| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let kept = sub("tokens", 0o755).join("vt_u1000-dune_production");
    let staged = sub("private", 0o700).join("vt_dune_production");
    let tmp = sub("tmp", 0o1777).join("vt_mt-x-dune_production");
    Place { _dir: dir, kept, staged, tmp }
}

fn write(path: &Path, content: &str, mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, TokenFileError>, what: &str) {
    match result {
        Err(TokenFileError::Refused { what: said, .. }) => assert!(said.contains(what), "{said}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_token_is_read_trimmed_and_known_by_its_fingerprint() {
    let place = place();
    write(&place.kept, &format!("{OLD}\n"), 0o600);
    let token = token_file::read(&place.kept).unwrap();
    assert_eq!(token.expose(), OLD);
    assert_eq!(token.fingerprint().to_string().len(), 64);
    write(&place.kept, OLD, 0o600);
    assert_eq!(token_file::read(&place.kept).unwrap().fingerprint(), token.fingerprint());
    assert!(!format!("{token:?}").contains("Old"));
    write(&place.kept, "s.abc", 0o600);
    token_file::read(&place.kept).expect("tokens of older vaults begin with s.");
}

#[test]
fn what_is_not_a_token_is_not_read_as_one() {
    let place = place();
    for content in
        ["", "\n", "hvs.", "root", "xhvs.abc", "hvs.a b", "hvs.a\nhvs.b", "hvs.\u{e9}", "eyJhbGciOiJub25lIn0.e30."]
    {
        write(&place.kept, content, 0o600);
        assert!(matches!(token_file::read(&place.kept), Err(TokenFileError::NotAToken { .. })), "{content:?}");
    }
    fs::write(&place.kept, [b'h', b'v', b's', b'.', 0xff]).unwrap();
    assert!(matches!(token_file::read(&place.kept), Err(TokenFileError::NotAToken { .. })));
    write(&place.kept, &format!("hvs.{}", "x".repeat(70_000)), 0o600);
    assert_refused(token_file::read(&place.kept), "larger than 64 KiB");
    assert!(matches!(token_file::read(&place.kept.with_extension("none")), Err(TokenFileError::Missing { .. })));
}

#[test]
fn a_bearer_token_is_read_with_the_same_care() {
    let place = place();
    write(&place.staged, "eyJhbGciOiJub25lIn0.e30.c2ln\n", 0o600);
    assert_eq!(token_file::read_bearer(&place.staged).unwrap().expose(), "eyJhbGciOiJub25lIn0.e30.c2ln");
    write(&place.staged, OLD, 0o600);
    assert!(matches!(token_file::read_bearer(&place.staged), Err(TokenFileError::NotABearer { .. })));
}

#[test]
fn a_kept_file_of_the_predecessor_is_closed_to_others_before_it_is_used() {
    let place = place();
    write(&place.kept, OLD, 0o644);
    token_file::stage(&place.kept, &place.staged).unwrap().unwrap();
    assert_eq!(mode(&place.kept), 0o600);
    assert_eq!(mode(&place.staged), 0o600);
}

#[test]
fn a_file_others_can_write_to_is_refused() {
    let place = place();
    for bits in [0o620, 0o602, 0o666] {
        write(&place.kept, OLD, bits);
        assert_refused(token_file::read(&place.kept), "others may write to it");
    }
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    if !geteuid().is_root() {
        return; // only root can give a file away
    }
    let place = place();
    for path in [&place.kept, &place.tmp] {
        write(path, OLD, 0o600);
        std::os::unix::fs::chown(path, Some(65534), None).unwrap();
    }
    assert_refused(token_file::stage(&place.kept, &place.staged), "belongs to");
    assert_refused(token_file::collect(&place.tmp, &place.staged), "belongs to");
    write(&place.staged, NEW, 0o600);
    assert_refused(token_file::keep(&place.staged, &place.kept), "belongs to");
    assert!(place.tmp.exists());
}

#[test]
fn planted_links_are_refused_and_not_followed() {
    let place = place();
    let victim = place.kept.with_file_name("victim");
    write(&victim, OLD, 0o644);
    write(&place.staged, NEW, 0o600);
    for link in [&place.kept, &place.tmp] {
        symlink(&victim, link).unwrap();
    }
    assert_refused(token_file::read(&place.kept), "symbolic link");
    assert_refused(token_file::stage(&place.kept, &place.staged.with_extension("2")), "symbolic link");
    assert_refused(token_file::keep(&place.staged, &place.kept), "symbolic link");
    assert_refused(token_file::collect(&place.tmp, &place.staged), "symbolic link");
    assert_refused(token_file::plant(&place.staged, &place.tmp), "something is there already");
    assert_eq!(fs::read_to_string(&victim).unwrap(), OLD);
    assert_eq!(mode(&victim), 0o644, "not even its mode is touched");
    token_file::remove(&place.tmp).unwrap();
    assert!(victim.exists() && !place.tmp.is_symlink(), "the link goes, its target stays");
}

#[test]
fn a_link_in_place_of_the_lock_or_of_the_staged_file_is_refused() {
    let place = place();
    let victim = place.kept.with_file_name("victim");
    write(&victim, OLD, 0o600);
    write(&place.kept, OLD, 0o600);
    symlink(&victim, place.kept.with_file_name(".vt_u1000-dune_production.lock")).unwrap();
    assert_refused(token_file::stage(&place.kept, &place.staged), "lock file is a symbolic link");
    symlink(&victim, &place.staged).unwrap();
    assert_refused(token_file::write_private(&place.staged, "production\n"), "symbolic link");
    assert_eq!(fs::read_to_string(&victim).unwrap(), OLD);
}

#[test]
fn a_link_to_the_file_of_another_name_is_replaced_under_the_hidden_name_only() {
    let place = place();
    let victim = place.kept.with_file_name("victim");
    write(&victim, OLD, 0o600);
    write(&place.staged, NEW, 0o600);
    symlink(&victim, place.kept.with_file_name(".vt_u1000-dune_production.new")).unwrap();
    token_file::keep(&place.staged, &place.kept).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), OLD);
    assert_eq!(fs::read_to_string(&place.kept).unwrap(), NEW);
}

#[test]
fn a_fifo_is_refused_without_waiting_for_its_other_end() {
    let place = place();
    for path in [&place.kept, &place.tmp] {
        mkfifo(path, Mode::S_IRWXU).unwrap();
    }
    assert_refused(token_file::read(&place.kept), "not a regular file");
    assert_refused(token_file::stage(&place.kept, &place.staged), "not a regular file");
    assert_refused(token_file::collect(&place.tmp, &place.staged), "not a regular file");
    write(&place.staged, NEW, 0o600);
    assert_refused(token_file::keep(&place.staged, &place.kept), "not a regular file");
}

#[test]
fn a_socket_a_directory_and_a_second_name_are_refused() {
    let place = place();
    let _socket = std::os::unix::net::UnixListener::bind(&place.kept).unwrap();
    assert_refused(token_file::read(&place.kept), "not a regular file");
    fs::create_dir(&place.staged).unwrap();
    assert_refused(token_file::read(&place.staged), "not a regular file");
    write(&place.tmp, OLD, 0o600);
    fs::hard_link(&place.tmp, place.tmp.with_extension("2")).unwrap();
    assert_refused(token_file::collect(&place.tmp, &place.kept.with_extension("2")), "second name");
}

#[test]
fn a_directory_where_everybody_can_swap_files_is_refused() {
    let place = place();
    write(&place.kept, OLD, 0o600);
    let directory = place.kept.parent().unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    assert_refused(token_file::stage(&place.kept, &place.staged), "swap the files");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(token_file::stage(&place.kept, &place.staged).is_ok());
}

#[test]
fn staging_without_a_kept_file_stages_nothing() {
    let place = place();
    assert_eq!(token_file::stage(&place.kept, &place.staged).unwrap(), None);
    assert_eq!(token_file::stage(Path::new("/nowhere/at/all"), &place.staged).unwrap(), None);
    assert!(!place.staged.exists());
}

#[test]
fn what_is_staged_and_kept_is_the_same_to_the_last_byte() {
    let place = place();
    for content in [OLD.to_owned(), format!("{OLD}\n")] {
        write(&place.kept, &content, 0o600);
        token_file::stage(&place.kept, &place.staged).unwrap();
        assert_eq!(fs::read_to_string(&place.staged).unwrap(), content);
        token_file::keep(&place.staged, &place.kept).unwrap();
        assert_eq!(fs::read_to_string(&place.kept).unwrap(), content);
    }
}

#[test]
fn a_second_attempt_stages_over_the_first() {
    let place = place();
    write(&place.kept, OLD, 0o600);
    write(&place.staged, NEW, 0o600);
    token_file::stage(&place.kept, &place.staged).unwrap();
    assert_eq!(fs::read_to_string(&place.staged).unwrap(), OLD);
    assert_eq!(names(place.staged.parent().unwrap()), ["vt_dune_production"]);
}

#[test]
fn keeping_leaves_the_staged_file_and_nothing_else_beside_the_kept_one() {
    let place = place();
    write(&place.staged, NEW, 0o600);
    // What a process left that was killed while it wrote.
    write(&place.kept.with_file_name(".vt_u1000-dune_production.new"), "hvs.Ha", 0o600);
    let fingerprint = token_file::keep(&place.staged, &place.kept).unwrap();
    assert_eq!(token_file::read(&place.kept).unwrap().fingerprint(), fingerprint);
    assert_eq!(mode(&place.kept), 0o600);
    assert!(place.staged.exists());
    let expected = [".vt_u1000-dune_production.lock", "vt_u1000-dune_production"];
    assert_eq!(names(place.kept.parent().unwrap()), expected);
}

#[test]
fn keeping_makes_a_missing_directory_for_us_alone() {
    let place = place();
    write(&place.staged, NEW, 0o600);
    let kept = place.kept.with_file_name("new").join("vt_u1000-x");
    token_file::keep(&place.staged, &kept).unwrap();
    assert_eq!(mode(kept.parent().unwrap()), 0o700);
}

#[test]
fn a_half_written_token_is_never_seen() {
    let place = place();
    let long = |c: char| format!("hvs.{}", c.to_string().repeat(60_000));
    let second = place.staged.with_extension("2");
    write(&place.staged, &long('a'), 0o600);
    write(&second, &long('b'), 0o600);
    token_file::keep(&place.staged, &place.kept).unwrap();
    let whole: Vec<_> = [&place.staged, &second].map(|path| token_file::read(path).unwrap().fingerprint()).into();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Readers as other programs are: no lock, just open and read.
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let seen =
                        token_file::read(&place.kept).expect("a reader always finds a whole token").fingerprint();
                    assert!(whole.contains(&seen));
                }
            });
        }
        let writers: Vec<_> = [&place.staged, &second]
            .map(|staged| {
                let kept = &place.kept;
                scope.spawn(move || (0..100).for_each(|_| drop(token_file::keep(staged, kept).unwrap())))
            })
            .into();
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    assert_eq!(names(place.kept.parent().unwrap()).len(), 2);
}

#[test]
fn a_holder_that_does_not_let_go_of_the_lock_is_an_error_and_not_for_ever() {
    let place = place();
    write(&place.staged, NEW, 0o600);
    token_file::keep(&place.staged, &place.kept).unwrap();
    let lock = fs::File::open(place.kept.with_file_name(".vt_u1000-dune_production.lock")).unwrap();
    let held = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let error = token_file::keep(&place.staged, &place.kept).unwrap_err();
    assert!(error.to_string().contains("another process has held its lock"), "{error}");
    drop(held);
    token_file::keep(&place.staged, &place.kept).unwrap();
}

#[test]
fn a_token_planted_for_the_storer_is_collected_again() {
    let place = place();
    write(&place.staged, OLD, 0o600);
    let fingerprint = token_file::plant(&place.staged, &place.tmp).unwrap();
    assert_eq!(mode(&place.tmp), 0o600);
    assert_refused(token_file::plant(&place.staged, &place.tmp), "something is there already");
    let collected = place.staged.with_extension("2");
    assert_eq!(token_file::collect(&place.tmp, &collected).unwrap(), fingerprint);
    assert!(!place.tmp.exists());
    assert_eq!(fs::read_to_string(&collected).unwrap(), OLD);
    assert!(matches!(token_file::collect(&place.tmp, &collected), Err(TokenFileError::Missing { .. })));
}

#[test]
fn a_companion_file_is_for_us_alone() {
    let place = place();
    let path = place.staged.with_file_name("default_role");
    token_file::write_private(&path, "analysis\n").unwrap();
    token_file::write_private(&path, "production\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "production\n");
    assert_eq!(mode(&path), 0o600);
    token_file::remove(&path).unwrap();
    token_file::remove(&path).expect("removing what is gone is fine");
}

//! Real SQLite files with the tables of managed-tokens 0.17.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::{Environment, Format};
use crate::workflow::store::Access;

const TABLES: &str = "
    CREATE TABLE uids (username STRING NOT NULL PRIMARY KEY, uid INTEGER NOT NULL);
    CREATE TABLE services (id INTEGER NOT NULL PRIMARY KEY, name STRING NOT NULL UNIQUE);
    CREATE TABLE nodes (id INTEGER NOT NULL PRIMARY KEY, name STRING NOT NULL UNIQUE);
    CREATE TABLE setup_errors (service_id INTEGER NOT NULL UNIQUE, count INTEGER,
        FOREIGN KEY (service_id) REFERENCES services (id));
    CREATE TABLE push_errors (service_id INTEGER NOT NULL, node_id INTEGER NOT NULL, count INTEGER,
        UNIQUE (service_id, node_id));";
const ROWS: &str = "
    INSERT INTO uids VALUES ('dunepro', 1234), ('mu2epro', 1235), ('oldpro', 99);
    INSERT INTO services VALUES (1, 'dune_production'), (2, 'mu2e_production'), (3, 'gone_production');
    INSERT INTO nodes VALUES (1, 'node1.lab.test'), (2, 'node2.lab.test');
    INSERT INTO setup_errors VALUES (1, 2), (2, 0), (3, 1);
    INSERT INTO push_errors VALUES (1, 1, 0), (2, 2, 1), (3, 1, 2);";

type Prepare<'a> = &'a dyn Fn(&Bench);

/// A site with the existing service's database.
struct Bench {
    directory: tempfile::TempDir,
    state: StateDir,
    config: Config,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path().join("state")).unwrap();
        std::fs::create_dir(directory.path().join("private")).unwrap();
        let role = |account: &str| {
            serde_json::json!({"roles": {"production": {
                "account": account, "destinationNodes": ["node1.lab.test", "node2.lab.test"],
                "keytabPathOverride": "/k", "userPrincipalOverride": "x/y@Z", "vaultServerOverride": "vault.lab.test",
                "condorCreddHostOverride": "schedd1.lab.test",
            }}})
        };
        let text = serde_json::json!({
            "dbLocation": directory.path().join("uid.db"),
            "experiments": {"dune": role("dunepro"), "mu2e": role("mu2epro")},
        });
        let file = directory.path().join("managedTokens.json");
        let config = crate::config::parse(&text.to_string(), Format::Json, &file, &Environment::of_process()).unwrap();
        Self { directory, state, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn database(&self, sql: &str) -> Connection {
        let connection = Connection::open(self.path("uid.db")).unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }

    fn of_go(&self) -> Connection {
        self.database(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1; {TABLES} {ROWS}"))
    }

    fn read(&self) -> Result<Option<Found>, TakeoverError> {
        read(&self.path("uid.db"), &self.path("private"))
    }

    fn store(&self) -> Store {
        Store::open(&self.state, Access::ReadWrite).unwrap()
    }

    fn once(&self, store: &Store) {
        once(store, &self.state, &self.config, &self.path("private"));
    }
}

fn uids(store: &Store) -> BTreeMap<String, u32> {
    plain(store.read_blocking(|view| view.uids()).unwrap().unwrap())
}

fn counters(store: &Store) -> BTreeMap<String, u32> {
    let all = store.read_blocking(|view| view.counters::<Counter>("")).unwrap().unwrap();
    all.into_iter().map(|(key, counter)| (key.replace('\0', " "), counter.value)).collect()
}

fn pairs<const N: usize>(pairs: [(&str, u32); N]) -> BTreeMap<String, u32> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[test]
fn uids_and_counters_are_taken_over_and_the_file_stays_as_it_is() {
    let bench = Bench::new();
    drop(bench.of_go());
    let before = std::fs::read(bench.path("uid.db")).unwrap();
    let store = bench.store();
    bench.once(&store);
    let expected = pairs([("dunepro", 1234), ("mu2epro", 1235), ("oldpro", 99)]);
    assert_eq!(uids(&store), expected);
    assert_eq!(crate::acting::uids::read(&bench.state.uids_json()).unwrap(), expected);
    // Zeroes say nothing, and a service that is no longer configured has no counters.
    assert_eq!(counters(&store), pairs([("dune_production", 2), ("mu2e_production node2.lab.test", 1)]));
    assert_eq!(std::fs::read(bench.path("uid.db")).unwrap(), before);
    let mut names: Vec<_> =
        std::fs::read_dir(bench.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["private", "state", "uid.db"], "nothing is left beside it");
    assert_eq!(std::fs::read_dir(bench.path("private")).unwrap().count(), 0);
}

#[test]
fn it_happens_once() {
    let bench = Bench::new();
    let go = bench.of_go();
    let store = bench.store();
    bench.once(&store);
    go.execute_batch("UPDATE uids SET uid = 7; UPDATE setup_errors SET count = 9;").unwrap();
    bench.once(&store);
    assert_eq!(uids(&store)["dunepro"], 1234);
    assert_eq!(counters(&store)["dune_production"], 2);
}

#[test]
fn a_store_that_has_uids_takes_nothing() {
    let bench = Bench::new();
    drop(bench.of_go());
    let store = bench.store();
    let known = KnownUid { uid: 5, recorded_at: Timestamp::now() };
    store.write_blocking(move |tx| tx.put_uid("dunepro", known)).unwrap();
    bench.once(&store);
    assert_eq!(uids(&store), pairs([("dunepro", 5)]));
    assert_eq!(counters(&store), pairs([]));
}

#[test]
fn a_uid_that_was_recorded_without_the_store_is_newer_than_what_is_taken_over() {
    let bench = Bench::new();
    drop(bench.of_go());
    let file = bench.state.uids_json();
    crate::acting::uids::turn(&file, std::time::Duration::ZERO).unwrap().record("dunepro", 5678).unwrap();
    let store = bench.store();
    // It cannot be read for a moment: it is refused as long as everybody may write to it.
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o606);
    bench.once(&store);
    assert_eq!(uids(&store), pairs([]));
    mode(0o600);
    bench.once(&store);
    let expected = pairs([("dunepro", 5678), ("mu2epro", 1235), ("oldpro", 99)]);
    assert_eq!(uids(&store), expected);
    assert_eq!(crate::acting::uids::read(&file).unwrap(), expected);
}

#[test]
fn a_failure_after_the_takeover_goes_on_counting() {
    let bench = Bench::new();
    drop(bench.of_go());
    let store = bench.store();
    bench.once(&store);
    let counter: Counter = store.read_blocking(|view| view.counter("dune_production")).unwrap().unwrap().unwrap();
    let (run, now) = (RunId::generate(), Timestamp::now());
    let verdict = crate::workflow::counters::Verdict::Failed;
    let next = crate::workflow::counters::count(Some(&counter), &counter.key, run, verdict, now).unwrap();
    assert_eq!((next.value, next.before, next.failing_runs), (3, 2, 3));
    assert!(crate::workflow::counters::is_due(&next, run, 3));
}

#[test]
fn what_was_written_but_not_yet_moved_into_the_file_counts() {
    let bench = Bench::new();
    let go = bench.of_go();
    go.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; UPDATE uids SET uid = 77;").unwrap();
    assert!(bench.path("uid.db-wal").exists());
    assert_eq!(bench.read().unwrap().unwrap().uids["dunepro"], 77);
    drop(go);
}

#[test]
fn a_write_that_was_cut_off_is_undone_in_the_copy_alone() {
    let bench = Bench::new();
    let go = bench.of_go();
    // With no cache, the change goes to the file before the transaction ends: what a crash leaves is what lies there now.
    go.execute_batch("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN IMMEDIATE; UPDATE uids SET uid = 66;")
        .unwrap();
    for number in 0..2_000 {
        go.execute("INSERT INTO uids VALUES (?1, 1)", [format!("filler{number}")]).unwrap();
    }
    let journal = std::fs::read(bench.path("uid.db-journal")).unwrap();
    let torn = std::fs::read(bench.path("uid.db")).unwrap();
    go.execute_batch("ROLLBACK;").unwrap();
    drop(go);
    std::fs::write(bench.path("uid.db"), &torn).unwrap();
    std::fs::write(bench.path("uid.db-journal"), &journal).unwrap();
    let found = bench.read().unwrap().unwrap();
    assert_eq!(found.uids, pairs([("dunepro", 1234), ("mu2epro", 1235), ("oldpro", 99)]));
    assert_eq!(std::fs::read(bench.path("uid.db")).unwrap(), torn);
    assert_eq!(std::fs::read(bench.path("uid.db-journal")).unwrap(), journal);
}

#[test]
fn rows_that_make_no_sense_are_left_out_and_counted() {
    let bench = Bench::new();
    bench
        .of_go()
        .execute_batch(
            "INSERT INTO uids VALUES ('zero', 0), ('minus', -1), ('huge', 4294967296), ('word', 'abc'), ('', 5);
             UPDATE setup_errors SET count = -3 WHERE service_id = 1;",
        )
        .unwrap();
    let found = bench.read().unwrap().unwrap();
    assert_eq!(found.uids, pairs([("dunepro", 1234), ("mu2epro", 1235), ("oldpro", 99)]));
    assert_eq!(found.odd, 6);
    assert!(!found.counters.contains_key(&("dune_production".to_owned(), None)));
}

#[test]
fn a_service_that_counted_no_errors_yet_has_its_uids_taken_over() {
    let bench = Bench::new();
    bench.database(&format!(
        "PRAGMA application_id = {APPLICATION};
         CREATE TABLE uids (username STRING NOT NULL PRIMARY KEY, uid INTEGER NOT NULL);
         INSERT INTO uids VALUES ('dunepro', 1234);"
    ));
    assert_eq!(bench.read().unwrap().unwrap().uids, pairs([("dunepro", 1234)]));
}

#[test]
fn no_file_is_no_error() {
    assert_eq!(Bench::new().read().unwrap(), None);
}

#[test]
fn what_is_not_the_existing_services_file_is_refused_with_the_reason() {
    let refusals: [(&str, Prepare<'_>); 5] = [
        ("not the existing service's", &|bench| drop(bench.database(TABLES))),
        ("version 2, and this mt knows 1", &|bench| {
            bench.of_go().execute_batch("PRAGMA user_version = 2").unwrap();
        }),
        ("not a database", &|bench| std::fs::write(bench.path("uid.db"), [7u8; 5_000]).unwrap()),
        ("it is no file", &|bench| std::fs::create_dir(bench.path("uid.db")).unwrap()),
        ("no such table", &|bench| {
            drop(bench.database(&format!("PRAGMA application_id = {APPLICATION}; CREATE TABLE x (y)")))
        }),
    ];
    for (why, prepare) in refusals {
        let bench = Bench::new();
        prepare(&bench);
        let error = bench.read().unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("uid.db"), "{why}: {error}");
        // Refused is not done: when the file is whole, a later start takes it.
        let store = bench.store();
        bench.once(&store);
        assert_eq!(uids(&store), pairs([]));
        if bench.path("uid.db").is_file() {
            std::fs::remove_file(bench.path("uid.db")).unwrap();
            drop(bench.of_go());
            bench.once(&store);
            assert_eq!(uids(&store).len(), 3, "{why}");
        }
    }
}

#[test]
fn a_damaged_file_is_refused_and_does_not_end_the_start() {
    let bench = Bench::new();
    drop(bench.of_go());
    let mut bytes = std::fs::read(bench.path("uid.db")).unwrap();
    // Behind the header, which says whose file it is.
    bytes[200..].fill(0xab);
    std::fs::write(bench.path("uid.db"), &bytes).unwrap();
    assert!(bench.read().is_err());
    let store = bench.store();
    bench.once(&store);
    assert_eq!(uids(&store), pairs([]));
}

//! The existing service's database, from which a first run takes over UIDs and error counters.

use std::fs;

use super::support::corner::Corner;
use super::{corner, known, lab, machine, mails, uids};

/// The tables of managed-tokens 0.17, as it makes them.
const GO: &str = "PRAGMA application_id = 1571300691; PRAGMA user_version = 1;
    CREATE TABLE uids (username STRING UNIQUE NOT NULL PRIMARY KEY, uid INTEGER UNIQUE NOT NULL);
    CREATE TABLE services (id INTEGER NOT NULL PRIMARY KEY, name STRING UNIQUE NOT NULL);
    CREATE TABLE nodes (id INTEGER NOT NULL PRIMARY KEY, name STRING UNIQUE NOT NULL);
    CREATE TABLE setup_errors (service_id INTEGER UNIQUE, count INTEGER);
    CREATE TABLE push_errors (service_id INTEGER, node_id INTEGER, count INTEGER, UNIQUE(service_id, node_id));
    INSERT INTO uids VALUES ('dunepro', 1234), ('mu2epro', 1235);
    INSERT INTO services VALUES (1, 'dune_production'), (2, 'mu2e_production');
    INSERT INTO setup_errors VALUES (1, 0), (2, 2);";

#[test]
fn the_first_run_after_the_existing_service_knows_its_uids_and_goes_on_counting() {
    let Some(lab) = lab() else { return };
    let corner = corner(&lab, "takeover");
    let file = corner.state().join("uid.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch(GO).unwrap();
    corner.give(&file);
    let before = fs::read(&file).unwrap();
    let mailed = lab.mails().len();
    // The third failure in a row, counted from the existing service's two.
    lab.fault("keytab-mu2epro", "missing");
    let ended = corner.run(&["run", "token-push", "-v"]);
    lab.fault("keytab-mu2epro", "ok");
    let ended = ended.exits(10);
    assert!(ended.err.contains("took over UIDs and error counters of the existing service"), "{ended:?}");
    let run = corner.show("latest");
    assert_eq!(machine(&run, "dune_production")["status"], "succeeded", "{run:#}");
    assert_eq!(uids(&corner), known(1234, 1235));
    let told = mails(&lab, mailed);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].text.contains("mu2e_production"), "{told:?}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let again = corner.run(&["run", "token-push", "-v", "--no-notify"]).exits(0);
    assert!(!again.err.contains("took over"), "{again:?}");
}

#[test]
fn a_database_that_is_none_is_a_warning_and_not_the_end() {
    let Some(lab) = lab() else { return };
    let corner = Corner::new(&lab, "no-database");
    fs::write(corner.state().join("uid.db"), [7u8; 4_096]).unwrap();
    corner.give(&corner.state().join("uid.db"));
    let ended = corner.run(&["run", "token-push", "-s", "dune_production"]).exits(0);
    assert!(ended.err.contains("WARN") && ended.err.contains("MT0182") && ended.err.contains("uid.db"), "{ended:?}");
}

//! `docs/reliability.md` says what the tables say.

use super::mails::{MailFault, SERVER};
use super::row::{CREDDS, NODES, Row, TICKETS, VAULTS};

const BEGIN: &str =
    "<!-- made from the tables in tests/lab_faults: UPDATE_DOCS=1 cargo test --test lab_faults documentation -->\n";
const END: &str = "<!-- end -->\n";
const HEAD: &str =
    "\n| fault | what mt does | where | status (class) | exit | code | next |\n|---|---|---|---|---|---|---|\n";

fn verdict(status: &str, class: &str) -> String {
    // These classes say no more than the status does.
    if status == class || class == "timeout" { status.to_owned() } else { format!("{status} ({class})") }
}

fn line(row: &Row) -> String {
    let plain = [
        ("{service}", "SERVICE"),
        ("{corner}/corrupt.keytab", "KEYTAB"),
        ("{corner}/wrong.keytab", "KEYTAB"),
        ("-f \"{lab}/known_hosts\" -R \"node1.lab.test\"", "-R NODE"),
        ("dunepro/managedtokens/lab.test@LAB.TEST", "PRINCIPAL"),
        ("dunepro", "ACCOUNT"),
    ];
    let next = plain.iter().fold(row.next.to_owned(), |text, (found, plain)| text.replace(found, plain));
    let what = if row.step == "store-in-credd" { "CREDD" } else { "NODE" };
    let next = if row.target == "-" { next } else { next.replace(row.target, what) };
    let verdict = verdict(row.status, row.class);
    format!("| {} | {} | {} | {verdict} | 10, 11 | {} | {next} |\n", row.fault, row.does, row.step, row.code)
}

fn mail_line(fault: &MailFault) -> String {
    let MailFault { what, does, status, class, code, next, .. } = fault;
    format!("| {what} | {does} | notify | {} | - | {code} | {next} |\n", verdict(status, class))
}

fn table() -> String {
    let rows = TICKETS.iter().chain(VAULTS).chain(CREDDS).chain(NODES).map(line);
    HEAD.to_owned() + &rows.chain(SERVER.iter().map(mail_line)).collect::<String>() + "\n"
}

#[test]
fn the_documentation_of_the_faults_is_the_table_that_is_tested() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the page has the table");
    let (_, tail) = rest.split_once(END).expect("the table has an end");
    let right = [head, BEGIN, &table(), END, tail].concat();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(path, &right).unwrap();
    }
    assert!(
        text == right,
        "{path} is not what the tests say: run `UPDATE_DOCS=1 cargo test --test lab_faults documentation`"
    );
}

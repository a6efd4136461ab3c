//! `docs/reliability.md` says what the table says.

use super::judge::{AFTER_THE_RUN, GRACE};
use super::table::{Cell, Ends, Fault, Peer, Who, table};

const BEGIN: &str = "<!-- made from the table in tests/lab_faults/table: UPDATE_DOCS=1 cargo test --test lab_faults documentation -->\n";
const END: &str = "<!-- end -->\n";

/// As in `mt runs show`. These classes say no more than the status does.
fn verdict(cell: &Cell) -> String {
    let same = cell.class.is_empty() || cell.status == cell.class || cell.class == "timeout";
    if same { cell.status.to_owned() } else { format!("{} ({})", cell.status, cell.class) }
}

fn cells(peer: Peer, fault: Fault) -> impl Iterator<Item = &'static Cell> {
    table().filter(move |cell| cell.peer == peer && cell.fault == fault && !cell.what.is_empty())
}

/// Every peer times every fault: how it ends.
fn grid() -> String {
    let mut text =
        format!("| | {} |\n|---{}|\n", Fault::ALL.map(Fault::name).join(" | "), "|---".repeat(Fault::ALL.len()));
    for peer in Peer::ALL {
        let columns = Fault::ALL.map(|fault| {
            let mut ends: Vec<String> = Vec::new();
            for cell in cells(peer, fault) {
                let end = format!("{} {}", verdict(cell), cell.code).trim().to_owned();
                if !ends.contains(&end) {
                    ends.push(end);
                }
            }
            ends.join("; ")
        });
        text += &format!("| **{}** | {} |\n", peer.name(), columns.join(" | "));
    }
    text
}

/// How long it may take until it has ended so.
fn bound(cell: &Cell) -> String {
    let one = match (cell.ends, cell.least) {
        (Ends::ByItself, 0) => "less than the step's time".to_owned(),
        (Ends::ByItself, least) => format!("{least} s or more, less than the step's time"),
        (Ends::WithItsTime, _) => format!("the step's time, and {} s at most", GRACE.as_secs()),
        (Ends::AfterTheRun, _) => return format!("{} s in all", AFTER_THE_RUN.as_secs()),
    };
    if cell.tries == 1 { one } else { format!("{} tries, each {one}", cell.tries) }
}

/// The step, and what else shows it.
fn place(cell: &Cell) -> String {
    let also =
        cell.also.iter().map(|also| format!("; {}: {} {}", also.step, also.status, also.code).trim_end().to_owned());
    [cell.step.to_owned()].into_iter().chain(also).collect()
}

fn people(cell: &Cell) -> String {
    let names = cell.told.iter().map(|who| match who {
        Who::Admins => "admins",
        Who::Stakeholders => "stakeholders",
        Who::Slack => "Slack",
    });
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

fn exit(cell: &Cell) -> String {
    let codes: Vec<String> = cell.exit.iter().map(i32::to_string).collect();
    if codes.is_empty() { "-".to_owned() } else { codes.join(", ") }
}

fn line(cell: &Cell) -> String {
    let plain = [
        ("{service}", "SERVICE"),
        ("{corner}/corrupt.keytab", "KEYTAB"),
        ("{corner}/missing.keytab", "KEYTAB"),
        ("{corner}/stale.keytab", "KEYTAB"),
        ("{corner}/wrong.keytab", "KEYTAB"),
        ("{corner}/elsewhere.keytab", "KEYTAB"),
        ("{lab}/keytabs/{account}.keytab", "KEYTAB"),
        ("nobody@LAB.TEST", "PRINCIPAL"),
        ("dunepro@DEAD.TEST", "PRINCIPAL"),
        ("dunepro@MUTE.TEST", "PRINCIPAL"),
        ("dunepro@NOISE.TEST", "PRINCIPAL"),
        ("{account}/managedtokens/lab.test@LAB.TEST", "PRINCIPAL"),
        ("{lab}/ca/client.pem", "CERTIFICATE"),
        ("{lab}/ca/client.key", "KEY"),
        ("{place}", "https://FERRY"),
        ("{account}", "ACCOUNT"),
        ("{target}", "NODE"),
        ("vault.lab.test:8200", "VAULT:8200"),
        ("vault.lab.test:7001", "VAULT:8200"),
        ("vault.lab.test:7002", "VAULT:8200"),
        ("vault.lab.test:7004", "VAULT:8200"),
        ("vault.lab.test:7005", "VAULT:8200"),
        ("smtp.lab.test:25", "MAILSERVER"),
        ("-f \"{lab}/known_hosts\" -R \"node1.lab.test\"", "-R NODE"),
        ("dunepro/managedtokens/lab.test@LAB.TEST", "PRINCIPAL"),
        ("vault.lab.test", "VAULT"),
        ("dunepro", "ACCOUNT"),
    ];
    // What warns names its code.
    let next = if cell.next == "-" { format!("mt explain {}", cell.code) } else { cell.next.to_owned() };
    let next = plain.iter().fold(next, |text, (found, plain)| text.replace(found, plain));
    let what = if cell.step == "store-in-credd" { "CREDD" } else { "NODE" };
    let next = if cell.target == "-" { next } else { next.replace(cell.target, what) };
    let fields = [
        format!("{}: {}", cell.fault.name(), cell.what),
        cell.does.to_owned(),
        place(cell),
        verdict(cell),
        exit(cell),
        people(cell),
        bound(cell),
        cell.code.to_owned(),
        next,
    ];
    format!("| {} |\n", fields.map(|field| field.trim().to_owned()).join(" | "))
}

fn list() -> String {
    let mut text = String::new();
    for peer in Peer::ALL {
        text += &format!("\n### {}\n\n", peer.name());
        text += "| fault | what mt does | where | status (class) | exit | told | within | code | next |\n|---|---|---|---|---|---|---|---|---|\n";
        for fault in Fault::ALL.into_iter().chain([Fault::Other]) {
            text.extend(cells(peer, fault).map(line));
        }
    }
    text
}

#[test]
fn the_documentation_of_the_faults_is_the_table_that_is_tested() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the page has the table");
    let (_, tail) = rest.split_once(END).expect("the table has an end");
    let made = format!("\n{}{}\n", grid(), list());
    let right = [head, BEGIN, &made, END, tail].concat();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(path, &right).unwrap();
    }
    assert!(
        text == right,
        "{path} is not what the tests say: run `UPDATE_DOCS=1 cargo test --test lab_faults documentation`"
    );
}

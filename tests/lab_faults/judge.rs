//! What every cell is judged by, whoever plays it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::support::lab::{Lab, Mail};
use super::table::Cell;

/// Beyond the step's times: to end what hangs, to start what comes next, on a machine with other things to do.
const GRACE: SignedDuration = SignedDuration::from_secs(15);

/// What is in the subject of a mail that tells of no failure.
const RECOVERED: [&str; 2] = [" works again", " work again: "];

/// On a busy machine rsync now and then loses what a node with a full disk had said. The next try says it.
const LOST: &str = "could not write a file: it said nothing and ended with 11";

pub fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, right: &T) -> Result<(), String> {
    if found == right { Ok(()) } else { Err(format!("{found:?}, not {right:?}; {what}")) }
}

pub fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// Status, class, code, message, advice, number of tries and the time of a target. `fill` fills in the placeholders.
pub fn target(cell: &Cell, target: &Value, seconds: u32, fill: impl Fn(&str) -> String) -> Result<(), String> {
    let who = format!("{}: {target:#}", cell.name);
    let all = target["attempts"].as_array().ok_or_else(|| format!("not tried; {who}"))?;
    let tries: Vec<&Value> = all.iter().filter(|one| !word(&one["message"]).contains(LOST)).collect();
    let last = tries.last().ok_or_else(|| format!("not tried; {who}"))?;
    let found = [&target["status"], &last["class"], &last["code"]].map(word);
    expect(&who, &found, &[cell.status, cell.class, cell.code].map(str::to_owned))?;
    let advice = if cell.next == "-" { String::new() } else { fill(cell.next) };
    expect(&who, &word(&last["next"]), &advice)?;
    expect(&who, &tries.len(), &cell.tries)?;
    let fits = |message: &str| cell.says.iter().any(|says| message.contains(&fill(says)));
    if cell.fails() && !tries.iter().all(|one| fits(&word(&one["message"]))) {
        return Err(format!("another message; {who}"));
    }
    let (Some(began), Some(ended)) = (time(&tries[0]["started_at"]), time(&last["ended_at"])) else {
        return Err(format!("no times; {who}"));
    };
    let most = SignedDuration::from_secs(i64::from(cell.within * seconds)) + GRACE;
    let took = ended.duration_since(began);
    if took <= most { Ok(()) } else { Err(format!("took {took:#}, more than {most:#}; {who}")) }
}

/// When the newest session of a run was over.
pub fn session_ended(run: &Value) -> Timestamp {
    let sessions = run["sessions"].as_array().expect("sessions");
    time(&sessions.last().expect("a session")["ended_at"]).expect("it is over")
}

/// The mails to this address, oldest first, with their lines whole.
pub fn mails_to(lab: &Lab, address: &str) -> Vec<String> {
    lab.mails().iter().filter(|mail| mail.to == [address]).map(unfolded).collect()
}

/// The message with its lines whole again.
pub fn unfolded(mail: &Mail) -> String {
    let text = mail.text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").expect("a header and a body");
    format!("{}\n\n{}", head.replace("\n ", " "), body.replace("=\n", "").replace("=3D", "="))
}

/// The admins were told in one mail, or in none, of these services and no other. What works again after an earlier fault,
/// or an earlier try, does not count.
pub fn told(mails: &[String], services: &[(String, bool)]) -> Result<(), String> {
    let is_failure = |mail: &&String| {
        !mail.lines().any(|line| line.starts_with("Subject: ") && RECOVERED.iter().any(|words| line.contains(words)))
    };
    let failures: Vec<&String> = mails.iter().filter(is_failure).collect();
    let any = services.iter().any(|(_, is_told)| *is_told);
    expect(&format!("mails to the admins: {mails:#?}"), &failures.len(), &usize::from(any))?;
    let Some(mail) = failures.first() else { return Ok(()) };
    let mail = mail.split_once("\nworks again\n").map_or(mail.as_str(), |(failures, _)| failures);
    for (service, is_told) in services {
        expect(&format!("is {service} in the mail? {mail}"), &mail.contains(service.as_str()), is_told)?;
    }
    Ok(())
}

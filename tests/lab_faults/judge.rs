//! What every cell is judged by, whoever plays it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use managed_tokens::telemetry::BUDGET;
use serde_json::Value;

use super::support::lab::{Lab, Mail};
use super::table::{Cell, Ends, Peer, Who};

/// Beyond the step's time, to end what hangs: a child that hears no SIGTERM takes 2 s, a busy machine some more.
pub const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// From the end of the run to that of `mt`: twice what it has by itself ([`BUDGET`]), because from the outside its start and
/// its end are seen, too.
pub const AFTER_THE_RUN: Duration = BUDGET.saturating_mul(2);

/// So much of a message or an advice is looked for in a mail, which may cut it off.
const ENOUGH: usize = 150;

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

/// What one try took.
fn took(attempt: &Value) -> Option<SignedDuration> {
    Some(time(&attempt["ended_at"])?.duration_since(time(&attempt["started_at"])?))
}

/// Status, class, code, message, advice, number of tries and the time of each. `fill` fills in the placeholders.
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
    let (least, limit) = (SignedDuration::from_secs(cell.least.into()), SignedDuration::from_secs(seconds.into()));
    for attempt in tries {
        let took = took(attempt).ok_or_else(|| format!("no times; {who}"))?;
        let in_time = match cell.ends {
            Ends::ByItself => took < limit,
            Ends::WithItsTime => (limit..=limit + GRACE).contains(&took),
            Ends::AfterTheRun => return Err(format!("no step; {who}")),
        };
        // A collector is asked for the step's targets, before any of them is tried.
        let long_enough = took >= least || cell.peer == Peer::Collector;
        if !in_time || !long_enough {
            return Err(format!("took {took:#} of {limit:#}, and {least:#} is the least; {who}"));
        }
    }
    Ok(())
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

/// The message as it was written.
pub fn unfolded(mail: &Mail) -> String {
    let text = mail.text.replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").expect("a header and a body");
    let head = head.replace("\n ", " ");
    let body = if head.contains("quoted-printable") { unquoted(body) } else { body.to_owned() };
    format!("{head}\n\n{body}")
}

/// Without `=XX` and `=` at the end of a line.
fn unquoted(body: &str) -> String {
    let body = body.replace("=\n", "");
    let mut parts = body.split('=');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).expect("two digits");
        bytes.push(u8::from_str_radix(code, 16).expect("two digits"));
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8(bytes).expect("mails are UTF-8")
}

/// Of whom a message may tell, and what of it.
pub struct Told {
    /// The service or account.
    pub service: String,
    /// Who hears of it.
    pub who: &'static [Who],
    /// What the admins must find in their mail: the cause and the next command of each failure.
    pub words: Vec<String>,
}

impl Told {
    /// What is to be read of a cell's target.
    pub fn of(cell: &Cell, service: &str, target: &Value) -> Self {
        Self { who: cell.told, ..Self::of_failure(service, target) }
    }

    /// What is to be read of a target, if it failed.
    pub fn of_failure(service: &str, target: &Value) -> Self {
        let last = target["attempts"].as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
        let words = ["message", "next"].map(|key| in_mail(&word(&last[key]))).into_iter();
        Self { service: service.to_owned(), who: &[], words: words.filter(|text| !text.is_empty()).collect() }
    }
}

/// The beginning of a text as a mail has it: white space and line breaks made one space.
fn in_mail(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(ENOUGH).collect()
}

/// The admins were told in one mail, or in none, of these services and no other, with the cause and the next command; and
/// Slack in one message. What works again after an earlier fault, or an earlier try, does not count.
pub fn told(mails: &[String], posts: &[String], services: &[Told]) -> Result<(), String> {
    let failures: Vec<&String> = mails.iter().filter(|mail| tells_of_failure(mail)).collect();
    let hears = |who: Who| services.iter().any(|service| service.who.contains(&who));
    expect(&format!("mails to the admins: {mails:#?}"), &failures.len(), &usize::from(hears(Who::Admins)))?;
    for mail in failures {
        let mail = without_news(mail);
        let lines = mail.split_whitespace().collect::<Vec<_>>().join(" ");
        for service in services {
            let is_told = service.who.contains(&Who::Admins);
            expect(&format!("is {} in the mail? {mail}", service.service), &mail.contains(&service.service), &is_told)?;
            if let Some(missing) = service.words.iter().find(|text| is_told && !lines.contains(text.as_str())) {
                return Err(format!("{missing:?} of {} is not in the mail: {mail}", service.service));
            }
        }
    }
    for service in services {
        let naming = posts.iter().map(|post| without_news(post)).filter(|post| post.contains(&service.service));
        let right = usize::from(service.who.contains(&Who::Slack));
        expect(&format!("posts that name {}: {posts:#?}", service.service), &naming.count(), &right)?;
    }
    Ok(())
}

/// The stakeholders of a service were told in one mail, or in none, of its node.
pub fn stakeholders(cell: &Cell, mails: &[String]) -> Result<(), String> {
    let failures: Vec<&String> = mails.iter().filter(|mail| tells_of_failure(mail)).collect();
    let right = usize::from(cell.told.contains(&Who::Stakeholders));
    expect(&format!("{}: mails to stakeholders: {mails:#?}", cell.name), &failures.len(), &right)?;
    match failures.iter().find(|mail| !mail.contains(cell.target)) {
        Some(mail) => Err(format!("{} is not in {mail}", cell.target)),
        None => Ok(()),
    }
}

fn tells_of_failure(mail: &str) -> bool {
    !mail.lines().any(|line| line.starts_with("Subject: ") && RECOVERED.iter().any(|words| line.contains(words)))
}

/// What a message tells of failures.
fn without_news(text: &str) -> &str {
    let news = ["\nworks again\n", "\nworks again: "].iter().filter_map(|words| text.find(words)).min();
    &text[..news.unwrap_or(text.len())]
}

/// What Slack has been sent so far.
pub fn posts(lab: &Lab) -> Vec<String> {
    lab.slack().iter().map(|post| word(&post["text"])).filter(|text| !is_only_news(text)).collect()
}

/// A message that only says that something works again names it in its first line.
fn is_only_news(text: &str) -> bool {
    text.lines().next().is_some_and(|line| RECOVERED.iter().any(|words| line.contains(words)))
}

//! Who is told what, when and how often: `mt` against the laboratory's mail server and Slack, over several runs.
//!
//! One laboratory for all that disturb nobody: every test has a corner with addresses of its own. Tests that set faults
//! have a laboratory of their own.

use std::sync::LazyLock;

use serde_json::Value;
use support::corner::{Corner, Ended};
use support::lab::{Lab, Mail};

#[path = "../support/mod.rs"]
mod support;

mod again;
mod channels;
mod faults;
mod rows;

/// The shared laboratory. It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Lab>> = LazyLock::new(Lab::up);

const DUNE: &str = "dune_production";
const NODE1: &str = "node1.lab.test";
const NODE2: &str = "node2.lab.test";

/// A corner whose messages are told from those of all others by their addresses.
struct Scene<'a> {
    corner: Corner<'a>,
    name: &'static str,
}

impl<'a> Scene<'a> {
    fn new(lab: &'a Lab, name: &'static str) -> Self {
        let scene = Self { corner: Corner::new(lab, name), name };
        scene.configure(|_| {});
        scene
    }

    /// The laboratory's configuration with this scene's addresses and this change.
    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let name = self.name;
        self.corner.configure(|config| {
            let hook = |which: &str| Value::from(format!("https://web.lab.test/services/T0/{name}/{which}"));
            config["notifications"]["admin_email"] = self.address("admin").into();
            config["notifications"]["slack_alerts_url"] = hook("usual");
            config["notifications_test"]["admin_email"] = self.address("test").into();
            config["notifications_test"]["slack_alerts_url"] = hook("test");
            for experiment in ["dune", "mu2e"] {
                config["experiments"][experiment]["emails"] = self.address(experiment).into();
            }
            change(config);
        });
    }

    /// A mail server that is not there: nobody listens on this port.
    fn without_mail_server(config: &mut Value) {
        config["email"]["smtpPort"] = 26.into();
    }

    fn address(&self, who: &str) -> String {
        format!("{}-{who}@lab.test", self.name)
    }

    /// From now on nothing can be pushed to this node. It is not tried again within a run: a person is needed.
    fn breaks(&self, node: &str) {
        let says = "echo 'Host key verification failed.' >&2; exit 255";
        self.corner.spy("rsync", &format!("case \"$*\" in *{node}*) {says} ;; esac"));
    }

    fn works(&self) {
        self.corner.spy("rsync", "");
    }

    /// A run for dune_production.
    fn run(&self, more: &[&str]) -> Ended {
        self.corner.run(&[&["run", "token-push", "-s", DUNE], more].concat())
    }

    /// So many runs that fail.
    fn fails(&self, times: usize) {
        for _ in 0..times {
            self.run(&[]).exits(11);
        }
    }

    /// The mails to one of this scene's addresses.
    fn mails(&self, who: &str) -> Vec<Mail> {
        let address = self.address(who);
        self.corner.lab.mails().into_iter().filter(|mail| mail.to.contains(&address)).collect()
    }

    /// How many mails went to admins and to dune's stakeholders, and how many messages to Slack.
    fn told(&self) -> [usize; 3] {
        [self.mails("admin").len(), self.mails("dune").len(), self.slack("usual").len()]
    }

    /// The texts that were posted to one of this scene's webhooks.
    fn slack(&self, which: &str) -> Vec<String> {
        let lines = std::fs::read_to_string(self.corner.lab.path("out/slack.jsonl")).unwrap_or_default();
        let mine = format!("/services/T0/{}/{which}", self.name);
        let posts = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("the stand-in writes JSON"));
        posts
            .filter(|post| post["path"] == mine.as_str())
            .map(|post| {
                let body: Value = serde_json::from_str(post["body"].as_str().expect("a body")).expect("JSON");
                body["text"].as_str().expect("a text").to_owned()
            })
            .collect()
    }

    /// The value of the counter of dune_production on this node; `None`: nothing is counted.
    fn counter(&self, node: Option<&str>) -> Option<u64> {
        let list = self.corner.run(&["counters", "list", "--output", "json"]).exits(0).json();
        let counters = list["counters"].as_array().expect("a list").iter();
        let mut mine = counters.filter(|c| c["service"] == DUNE && c["node"].as_str() == node);
        mine.next().map(|counter| counter["value"].as_u64().expect("a number"))
    }

    /// What the run's `notify` says: its status, and its note or message.
    fn notify(&self, run: &str) -> (String, String) {
        let run = self.corner.show(run);
        let step =
            run["steps"].as_array().expect("steps").iter().find(|s| s["name"] == "notify").expect("a notify").clone();
        let attempts = step["targets"][0]["attempts"].as_array().cloned().unwrap_or_default();
        let last = attempts.last().cloned().unwrap_or_default();
        let said = last["note"].as_str().or(last["message"].as_str()).unwrap_or_default();
        (step["status"].as_str().expect("a status").to_owned(), said.to_owned())
    }
}

/// A header of a mail, unfolded.
fn header<'m>(mail: &'m Mail, name: &str) -> String {
    let text: &'m str = mail.text.split("\r\n\r\n").next().unwrap_or_default();
    let unfolded = text.replace("\r\n ", " ");
    let line = unfolded.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name}: {}", mail.text)).to_owned()
}

/// The body of a mail, decoded.
fn body(mail: &Mail) -> String {
    let text = mail.text.replace("\r\n", "\n");
    let body = text.split_once("\n\n").expect("a body").1.to_owned();
    if !text.contains("quoted-printable") {
        return body;
    }
    let joined = body.replace("=\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.as_bytes();
    while let [first, more @ ..] = rest {
        match (first, more) {
            (b'=', [high, low, after @ ..]) => {
                let hex = String::from_utf8_lossy(&[*high, *low]).into_owned();
                bytes.push(u8::from_str_radix(&hex, 16).expect("quoted-printable"));
                rest = after;
            }
            (other, _) => {
                bytes.push(*other);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// What differs from run to run, made the same.
fn settled(text: &str) -> String {
    let rules = [
        (r"[0-9a-hjkmnp-tv-z]{26}", "RUN"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME"),
        (r"(token-push) on \S+?([,:\n])", "$1 on HOST$2"),
        (r" on \S+\n$", " on HOST\n"),
    ];
    rules.iter().fold(text.to_owned(), |text, (pattern, with)| {
        regex::Regex::new(pattern).expect("a pattern").replace_all(&text, *with).into_owned()
    })
}

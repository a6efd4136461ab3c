//! What messages say.

use std::path::Path;

use super::*;
use crate::config::TemplateFiles;
use crate::notify::prepare::remarks;
use crate::notify::templates::{Text, check};
use crate::notify::words::{RunWords, Words};
use crate::notify::{OutboxStatus, Trouble, mail, slack};
use crate::workflow::code::Code;
use crate::workflow::counters::CounterKey;

fn again(service: &str, node: Option<&str>) -> CounterKey {
    CounterKey { subject: Subject::new(service), target: node.map(TargetName::new) }
}

fn shown(entry: &OutboxEntry) -> String {
    format!("Subject: {}\n\n{}", entry.subject, entry.body)
}

fn everything() -> News {
    let mut own = setup();
    own.subject = Subject::new("mu2e_production");
    own.target = Some(TargetName::new("schedd1.fnal.gov"));
    News {
        troubles: vec![],
        due: vec![push("mu2e03.fnal.gov"), setup(), push("mu2e1.fnal.gov"), own],
        recovered: vec![again("dune_production", None), again("dune_production", Some("dune01.fnal.gov"))],
    }
}

#[test]
fn the_subject_is_the_answer() {
    let subject = |due: &[DueCounter]| message(Group::Admins, &news(due)).subject;
    let one = "[managed tokens] mu2e_production: token not refreshed on 1 of 3 nodes for 6 runs";
    assert_eq!(subject(&[push("mu2e03.fnal.gov")]), one);
    let setup_only = "[managed tokens] nova_production: get-vault-token: the vault holds no usable refresh token for this service (3 runs in a row)";
    assert_eq!(subject(&[setup()]), setup_only);
    let both = "[managed tokens] errors of 2 services: mu2e_production, nova_production";
    assert_eq!(subject(&[setup(), push("mu2e03.fnal.gov")]), both);
    let again = News { recovered: vec![again("dune_production", None)], ..News::default() };
    assert_eq!(message(Group::Admins, &again).subject, "[managed tokens] dune_production works again");
}

#[test]
fn the_admins_mail_is_grouped_by_service_with_setup_before_the_table_of_nodes() {
    insta::assert_snapshot!(shown(&message(Group::Admins, &everything())));
}

#[test]
fn the_stakeholders_mail_is_the_table_of_their_nodes() {
    let group = Group::Stakeholders(Subject::new("mu2e_production"));
    let theirs = News {
        due: vec![push("mu2e03.fnal.gov"), push("mu2e1.fnal.gov")],
        recovered: vec![again("mu2e_production", Some("mu2e02.fnal.gov"))],
        ..News::default()
    };
    insta::assert_snapshot!(shown(&message(group.clone(), &theirs)));
    let only_good = News { due: vec![], ..theirs };
    insta::assert_snapshot!(shown(&message(group, &only_good)));
}

#[test]
fn slack_gets_a_line_for_each_service() {
    insta::assert_snapshot!(message(Group::Slack, &everything()).body);
    insta::assert_snapshot!(message(Group::Slack, &news(&[push("mu2e03.fnal.gov")])).body);
    insta::assert_snapshot!(message(Group::Slack, &News::default()).body);
    let again = News { recovered: vec![again("dune_production", None)], ..News::default() };
    insta::assert_snapshot!(message(Group::Slack, &again).body);
}

#[test]
fn nobody_is_called_by_an_error_message_in_slack() {
    let mut evil = setup();
    evil.message = "<!channel> & <@U123>".to_owned();
    let body = message(Group::Slack, &news(&[evil])).body;
    assert!(body.contains("&lt;!channel&gt; &amp; &lt;@U123&gt;") && !body.contains('<'), "{body}");
}

#[test]
fn an_error_outside_any_service_is_told_with_its_code_and_what_to_do() {
    let trouble = Trouble {
        code: Code(153),
        message: "error[MT0153]: timeouts.pushTimeout: \"30\" is not a duration\n  --> /etc/managedTokens.yml:11:16"
            .to_owned(),
        next: Some("mt config check".to_owned()),
    };
    let outside = News { troubles: vec![trouble.clone()], ..News::default() };
    insta::assert_snapshot!(shown(&message(Group::Admins, &outside)));
    let run = RunWords {
        id: String::new(),
        workflow: "token-push".to_owned(),
        host: "mt01".to_owned(),
        started: "2026-09-03 13:58 UTC".to_owned(),
        test: false,
        recorded: false,
    };
    let words = Words::of_trouble(run, "token-push could not begin".to_owned(), &trouble);
    insta::assert_snapshot!(Templates::default().render(Text::Slack, &words).body);
}

#[test]
fn a_late_message_says_that_it_is_late_and_what_has_happened_since() {
    let mut entry = message(Group::Admins, &news(&[setup()]));
    assert_eq!(remarks(&entry, false), Vec::<String>::new());
    entry.status = OutboxStatus::Sending;
    entry.since_then = vec!["nova_production".to_owned()];
    let text = String::from_utf8(mail::letter(&entry, true).unwrap().text).unwrap();
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    let header = header.replace("\r\n ", " ");
    assert!(header.contains("(late, possibly a repeat, works again)"), "{header}");
    let expected = "(late: from the run of 2026-09-03 13:58 UTC)\r\n(possibly a repeat)\r\n(works again since: nova_production)\r\n\r\ntoken-push on";
    assert!(body.starts_with(expected), "{body}");
    assert!(
        slack::text(&entry, true).starts_with("(late: from the run of 2026-09-03 13:58 UTC)\n(possibly a repeat)\n")
    );
}

#[test]
fn the_message_id_is_that_of_run_session_and_group() {
    let entry = message(Group::Admins, &news(&[setup()]));
    assert_eq!(entry.message_id, "<01k4q8vtp00000000000000000.2.admins@lab.test>");
    assert_eq!(entry.reports.len(), 1);
    assert_eq!((entry.reports[0].value, entry.reports[0].counter.target.as_ref()), (3, None));
    for group in [Group::Admins, Group::Slack, Group::Stakeholders(Subject::new("mu2e_production"))] {
        assert_eq!(Group::of_name(&group.name()), Some(group));
    }
}

fn own(text: &str) -> (tempfile::TempDir, TemplateFiles) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admin.txt");
    std::fs::write(&file, text).unwrap();
    (directory, TemplateFiles { admin_mail: Some(file), ..TemplateFiles::default() })
}

fn with(files: &TemplateFiles) -> OutboxEntry {
    let templates = Templates::load(files);
    let recipients = ["admin@lab.test".to_owned()];
    let envelope = Envelope { group: Group::Admins, from: "a@b", recipients: &recipients, templates: &templates };
    prepare(&state(), &envelope, &news(&[setup()]), true)
}

#[test]
fn a_sites_own_words_replace_the_shipped_ones() {
    let (_directory, files) = own(
        "Subject: {{ run.host }}: {{ summary }}\n\n{% for s in services %}{{ s.name }} {{ s.setup[0].text if s.setup }}{% endfor %}\n",
    );
    assert_eq!(check(&files), []);
    let entry = with(&files);
    assert!(entry.subject.starts_with("mt01: nova_production: "), "{}", entry.subject);
    assert!(entry.body.starts_with("nova_production get-vault-token: "), "{}", entry.body);
}

#[test]
fn a_template_that_cannot_be_used_is_named_with_its_line_and_the_shipped_text_goes_out() {
    for (text, line, what) in [
        ("Subject: x\n\n{% for a in services %}\n", Some(3), "syntax error"),
        ("Subject: x\n\n\n{{ run.hots }}\n", Some(4), "undefined value"),
        ("Hello\n", Some(1), "the first line is not Subject:"),
        ("Subject: x\n\n{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", Some(3), "fuel"),
    ] {
        let (_directory, files) = own(text);
        let found = check(&files);
        assert_eq!(found.len(), 1, "{text}");
        assert_eq!(found[0].at.map(|at| at.line), line, "{found:?}");
        assert!(found[0].what.contains(what), "{found:?}");
        let entry = with(&files);
        assert!(entry.subject.starts_with("[managed tokens] nova_production: "), "{}", entry.subject);
        assert!(entry.body.contains("(the site's own text cannot be used: "), "{}", entry.body);
    }
    let missing = TemplateFiles { slack: Some(Path::new("/nowhere/x").to_owned()), ..TemplateFiles::default() };
    assert!(check(&missing)[0].what.contains("cannot be read"));
}

/// Every name in it, with those of the maps below.
fn names(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(entries) => entries.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            names(value, found);
        }),
        serde_json::Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

#[test]
fn every_name_that_a_template_can_use_is_documented() {
    let page = include_str!("../../../docs/notifications.md");
    let mut found = std::collections::BTreeSet::new();
    crate::notify::sample::all().iter().for_each(|words| names(&serde_json::to_value(words).unwrap(), &mut found));
    assert!(found.len() > 20, "{found:?}");
    for name in found {
        assert!(page.contains(&format!("`{name}`")), "{name} is not documented");
    }
}

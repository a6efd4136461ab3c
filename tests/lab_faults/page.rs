//! What an operator reads of a run: the answer, and for each failure the cause and what to do next.

use super::support::lab::Lab;

/// Compares a page of `mt runs show` with the one that was approved. Times, ids and places are left out, and so are the
/// lines of the programs' own output below each cause: they differ from one version of a program to the next.
#[track_caller]
pub fn check(name: &str, shown: &str, lab: &Lab) {
    // What a peer has said is shown without what would move the cursor.
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    let page: Vec<&str> = shown.lines().filter(|line| !line.starts_with("    ")).collect();
    let page = page.join("\n").replace(lab.dir().to_str().unwrap(), "LAB");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("pages");
    settings.set_omit_expression(true);
    for (pattern, plain) in [
        (r"(?m)^run \w+  (.*?)   .*$", "run RUN  $1   WHEN BY WHOM"),
        (r"mt runs (\w+) [0-9a-z]{8,}", "mt runs $1 RUN"),
        (r"\btrace [0-9a-f]{32}\b", "trace TRACE"),
        (r"\b(attempts?) in [0-9.ms]+\b", "$1 in TIME"),
        (r"within \d+s", "within TIME"),
        (r"\(\d+ of 100\)", "(N of 100)"),
        // The full one, see `judge`.
        (r"(node3.lab.test   failed), \d attempts? in", "$1, 1 attempt in"),
        (r"  first: node3.lab.test could not write a file: it said nothing and ended with 11\n  last:  ", "  "),
        // A failure of an earlier try, when the machine was too busy.
        (r"(?m)^  failing for \d+ runs, since .*\n", ""),
        (r"No route to host|node7.lab.test port 22: Connection timed out", "[NO ROUTE]"),
        // Asked last, and not for long.
        (r"(?m)^.* note: its expiry is not known.*\n?", ""),
        (r"valid for \d+d \d+h", "valid for LIFE"),
        // After an earlier fault, or an earlier try, it may tell of what works again. Who is told is judged by the mails.
        (r"\n+whole run  notify   note: (mail sent to|sent to Slack).*\s*$", ""),
    ] {
        settings.add_filter(pattern, plain);
    }
    settings.bind(|| insta::assert_snapshot!(name, page));
}

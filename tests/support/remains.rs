//! What a run leaves in a laboratory, and what it must not leave.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::lab::Lab;

/// The nodes that take tokens.
pub const NODES: [&str; 2] = ["node1", "node2"];
/// Longer than anything here takes, even on a busy machine: then something hangs, which is a failure.
const HANGS: Duration = Duration::from_secs(120);

/// Everything a run may leave or lose: the state directory, kept tokens, the client's /tmp and /dev/shm, the nodes' /tmp.
pub fn files(lab: &Lab) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for place in ["state", "state/run", "state/leases", "state/tokens", "tokens", "tmp"] {
        found.extend(names_in(lab, place).into_iter().map(|name| Path::new(place).join(name)));
    }
    let store = names_in(lab, "state/store").into_iter().filter(|name| name.ends_with(".generating"));
    found.extend(store.map(|name| Path::new("state/store").join(name)));
    let memory = lab.run(&["ls", "-A", "/dev/shm"]);
    found.extend(String::from_utf8_lossy(&memory.stdout).lines().map(|name| Path::new("/dev/shm").join(name)));
    for node in NODES {
        found.extend(files_on(lab, node).into_iter().map(|name| Path::new(node).join(name)));
    }
    found
}

/// The files in a node's /tmp, once rsync's far end has noticed that the near one is gone.
pub fn files_on(lab: &Lab, node: &str) -> BTreeSet<String> {
    let since = Instant::now();
    loop {
        let names = names_in(lab, &format!("nodes/{node}/tmp"));
        if !names.iter().any(|name| name.starts_with('.')) {
            return names;
        }
        assert!(since.elapsed() < HANGS, "rsync's files stay on {node}: {names:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The names in a directory of the laboratory; not the laboratory itself, which every /tmp in it holds.
pub fn names_in(lab: &Lab, place: &str) -> BTreeSet<String> {
    let own = lab.dir().file_name().expect("it has a name");
    let entries = fs::read_dir(lab.path(place)).expect("it can be listed").flatten();
    let names = entries.map(|entry| entry.file_name()).filter(|name| name != own);
    names.map(|name| name.into_string().expect("a plain name")).collect()
}

/// Processes in the laboratory that an `mt` has started, or that are one.
pub fn processes(lab: &Lab) -> Vec<String> {
    let recorded = read(&lab.path("pid/holder"));
    let holder = recorded.split_whitespace().next().expect("its pid").to_owned();
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let ours = network(&holder).expect("it is running");
    let pids = fs::read_dir("/proc").expect("/proc can be read").flatten().map(|e| e.file_name());
    pids.filter_map(|pid| pid.into_string().ok())
        .filter(|pid| network(pid).as_ref() == Some(&ours))
        .filter_map(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let marked = environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(b"MT_PROCESS="));
            let name = read(Path::new(&format!("/proc/{pid}/comm")));
            let is_mt = matches!(name.trim(), "mt" | "mt-guardian");
            let words = read(Path::new(&format!("/proc/{pid}/cmdline"))).replace('\0', " ");
            (marked || is_mt).then(|| format!("{pid} {} {words}", name.trim()))
        })
        .collect()
}

/// Every kept token works at the vault, and every node has the one that is kept.
pub fn assert_tokens_are_whole(lab: &Lab) {
    let ask = r#"for kept in "$LAB"/tokens/vt_*; do
        { printf 'X-Vault-Token: '; cat "$kept"; } |
          curl -sSf -o /dev/null -H @- "https://$LAB_VAULT:8200/v1/auth/token/lookup-self" || { echo "$kept"; exit 1; }
      done"#;
    let asked = lab.run(&["sh", "-c", ask]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
    for (service, uid) in [("dune_production", 1234), ("mu2e_production", 1235)] {
        let is_kept = |name: &String| name.ends_with(&format!("-{service}")) && !name.contains(".lab.test");
        let kept = kept_tokens(lab).into_iter().find(is_kept).expect("the service has a kept token");
        let kept = fs::read(lab.path("tokens").join(kept)).expect("it can be read");
        for node in NODES {
            for name in [format!("vt_u{uid}"), format!("vt_u{uid}-{service}")] {
                let there = fs::read(lab.path(format!("nodes/{node}/tmp/{name}"))).expect("it is there");
                assert!(there == kept, "{name} on {node} is not the kept token");
            }
        }
    }
}

/// The names of the kept tokens.
pub fn kept_tokens(lab: &Lab) -> Vec<String> {
    names_in(lab, "tokens").into_iter().filter(|name| name.starts_with("vt_")).collect()
}

/// The status of the run, its machines, steps and targets, one a line.
pub fn statuses(run: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::from([format!("run {}", run["status"])]);
    let mut steps = |of: &str, steps: &Value| {
        for step in steps.as_array().expect("steps") {
            found.insert(format!("{of} {} {}", step["name"], step["status"]));
            for target in step["targets"].as_array().expect("targets") {
                found.insert(format!("{of} {} {} {}", step["name"], target["name"], target["status"]));
            }
        }
    };
    steps("run", &run["steps"]);
    for machine in run["machines"].as_array().expect("machines") {
        steps(&machine["subject"].to_string(), &machine["steps"]);
    }
    for machine in run["machines"].as_array().expect("machines") {
        found.insert(format!("{} {}", machine["subject"], machine["status"]));
    }
    found
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

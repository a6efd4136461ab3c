//! Children that do not want to end, at the deadline: bounded time, bounded memory, and the news go out in the reserve.

use std::fs;

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::LAB;
use crate::support::corner::{Corner, step, wait_for};

/// A service each, and what its child does.
const CHILDREN: &[(&str, &str)] = &[
    ("deaf", "trap '' TERM INT HUP; while :; do sleep 1; done"),
    ("flood", "exec cat /dev/zero"),
    ("silent", "exec >&- 2>&-; sleep 1000; exit 0"),
    ("away", "setsid sleep 1000 & setsid sh -c 'trap \"\" TERM HUP; sleep 1000; exit 0' & sleep 1000; exit 0"),
    ("forks", "setsid sh \"$0\" chain & sleep 1000; exit 0"),
    ("stopped", "kill -STOP $$; sleep 1000; exit 0"),
];
const WELL: &str = "well";

/// What the session may take with all that follows. By design it is over some seconds earlier.
const DEADLINE: SignedDuration = SignedDuration::from_secs(17);

/// More than a worker ever needs, and far less than a gigabyte.
const MOST_KIB: u64 = 300 * 1024;

#[test]
fn at_the_deadline_the_most_stubborn_children_are_ended_and_the_news_goes_out() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "stubborn");
    corner.configure(|config| {
        config["errorCountToSendMessage"] = json!(1);
        // Every run pushes the whole of its job's metrics, and others run beside this one.
        config["prometheus"]["jobname"] = "stubborn".into();
        // Eight seconds for the work, nine for what follows.
        config["timeouts"]["globalTimeout"] = "17s".into();
        let like = config["experiments"]["dune"].clone();
        config["experiments"] = json!({});
        for name in CHILDREN.iter().map(|(name, _)| *name).chain([WELL]) {
            config["experiments"][name] = like.clone();
        }
    });
    corner.workflow(
        "own",
        r#"Workflow(
    name: "own", for_each: Service, deadline: "5m", reserve: "9s",
    steps: [Step(name: "child", action: Exec(command: ["child"]), timeout: "2m")],
    finally: [Step(name: "notify", action: Notify, timeout: "2s")],
)"#,
    );
    let cases = CHILDREN.iter().map(|(name, does)| format!("{name}) {does} ;;\n"));
    let (calls, stop, go) = (corner.path("calls/child"), corner.path("stop"), corner.path("go"));
    // Every link of the chain is in a session of its own and gone at once: nobody stands still long enough to be found.
    let chain = format!("[ -e {stop} ] && exit; sleep 0.01; setsid sh \"$0\" chain & exit", stop = stop.display());
    corner.program(
        "child",
        &format!(
            "#!/bin/sh\n[ \"$1\" = chain ] && {{ {chain}; }}\necho $MT_EXPERIMENT >>{}\n\
             while [ ! -e {} ]; do sleep 0.02; done\ncase $MT_EXPERIMENT in\n{}esac\nexit 0\n",
            calls.display(),
            go.display(),
            cases.collect::<String>()
        ),
    );
    let mails = lab.mails().len();
    let mut run = corner.start(&["run", "own"]);
    // They begin together: who floods the machine does not keep the others from starting.
    wait_for("all children", || corner.calls("child").len() == CHILDREN.len() + 1);
    fs::write(&go, "").expect("it can be written");
    let mut most = 0;
    wait_for("the end of the run", || {
        most = most.max(largest(&corner));
        !run.is_running()
    });
    let left = corner.processes();
    fs::write(&stop, "").expect("should the test fail, the chain ends by itself");
    let ended = run.end().exits(10);
    assert_eq!(left, [""; 0], "{ended:?}");
    assert_eq!(corner.private_files(), [""; 0].map(std::path::PathBuf::from));
    assert!((1..MOST_KIB).contains(&most), "the largest mt had {most} KiB");

    let found = corner.show("latest");
    assert_eq!(found["status"], "timed-out");
    for (name, _) in CHILDREN {
        let child = step(&found, &format!("{name}_production"), "child");
        let attempt = &child["targets"][0]["attempts"][0];
        assert_eq!((&child["status"], &attempt["code"]), (&json!("timed-out"), &json!("MT0011")), "{name}: {child}");
    }
    assert_eq!(step(&found, &format!("{WELL}_production"), "child")["status"], "succeeded");
    let time = |value: &Value| value.as_str().expect("a time").parse::<Timestamp>().expect("a time");
    let session = &found["sessions"][0];
    let deadline = time(&session["started_at"]) + DEADLINE;
    let ended_at = time(&session["ended_at"]);
    assert!(ended_at <= deadline, "the session ended at {ended_at}, its deadline was {deadline}");
    // What follows had the reserve to itself.
    assert_eq!(found["steps"][0]["status"], "succeeded", "{}", found["steps"]);
    let told = lab.mails()[mails..].iter().map(|mail| mail.text.clone()).collect::<String>();
    assert!(CHILDREN.iter().all(|(name, _)| told.contains(&format!("{name}_production"))), "{told}");
    assert!(!ended.err.contains("metrics"), "the metrics went out: {ended:?}");
    let metrics = lab.run(&["curl", "-sf", "http://pushgateway.lab.test:9091/metrics"]);
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    let ours: Vec<&str> = metrics.lines().filter(|line| line.contains("job=\"stubborn\"")).collect();
    let tells_of = |name: &str| ours.iter().any(|line| line.contains(&format!("{name}_production")));
    assert!(tells_of(WELL) && tells_of("deaf"), "{ours:#?}");
    let pushed = ours.iter().find(|line| line.starts_with("push_time_seconds")).expect("the pushgateway says when");
    let pushed: f64 = pushed.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("seconds");
    assert!(
        pushed <= deadline.as_duration().as_secs_f64(),
        "the metrics came at {pushed}, the deadline was {deadline}"
    );
    // Resumed, and asked to end: the same children again.
    let calls = corner.calls("child").len();
    fs::remove_file(&stop).expect("it is ours");
    fs::remove_file(&go).expect("it is ours");
    let run = corner.start(&["runs", "resume"]);
    wait_for("all children but one", || corner.calls("child").len() == calls + CHILDREN.len());
    fs::write(&go, "").expect("it can be written");
    run.signal(Signal::SIGTERM);
    let ended = run.end();
    let left = corner.processes();
    fs::write(&stop, "").expect("should the test fail, the chain ends by itself");
    let ended = ended.exits(143);
    assert_eq!(left, [""; 0], "{ended:?}");
    assert_eq!(corner.show("latest")["status"], "interrupted");
}

/// The most memory that an `mt` of this corner ever had, in KiB.
fn largest(corner: &Corner) -> u64 {
    let mark = corner.state().into_os_string().into_encoded_bytes();
    let pids = fs::read_dir("/proc").expect("/proc can be read").flatten().map(|entry| entry.path());
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let ours = pids.filter(|pid| {
        read(pid.join("comm")).trim() == "mt"
            && fs::read(pid.join("environ")).is_ok_and(|text| text.windows(mark.len()).any(|piece| piece == mark))
    });
    let peak = |pid: std::path::PathBuf| {
        let status = read(pid.join("status"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    ours.filter_map(peak).max().unwrap_or(0)
}

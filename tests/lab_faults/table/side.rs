//! What is only told of a run: pushgateway, Slack, Loki, trace collector. In the run of a fault all of them meet it, and neither the exit code
//! nor the mail to the admins changes. `name` is the run's page, which shows nothing of those that are no step.

use super::{CELL, Cell, Ends, Fault, Peer, Play, SLOW, Who};

/// Told when the session has ended. What goes wrong is a warning: `code` and `says` are in it.
const GATEWAY: Cell = Cell {
    peer: Peer::Pushgateway,
    play: Play::Side,
    does: "a warning; the next run pushes all of it",
    step: "-",
    status: "warning",
    class: "",
    ends: Ends::AfterTheRun,
    exit: &[],
    told: &[Who::Admins],
    ..CELL
};
const LOKI: Cell =
    Cell { peer: Peer::Loki, does: "a warning; the log files have the lines", code: "MT0201", ..GATEWAY };
const TRACES: Cell = Cell {
    peer: Peer::Traces,
    does: "a warning; this session has no trace, and the run's history is whole",
    code: "MT0241",
    ..GATEWAY
};
const SLACK: Cell = Cell {
    peer: Peer::Slack,
    play: Play::Side,
    does: "the message stays in the outbox; the next run sends it; mails are not affected",
    step: "notify",
    class: "transient",
    code: "MT0232",
    next: "look at slack_alerts_url and at the network",
    exit: &[],
    told: &[Who::Admins],
    ..CELL
};
const TOLD: Cell = Cell {
    play: Play::Side,
    step: "-",
    name: "side_slow",
    ends: Ends::AfterTheRun,
    exit: &[],
    told: &[Who::Admins, Who::Slack],
    ..SLOW
};

pub const CELLS: &[Cell] = &[
    Cell {
        fault: Fault::Down,
        what: "nobody answers at its port",
        name: "side_down",
        code: "MT0190",
        says: &["cannot push metrics to http://pushgateway.lab.test:7002/metrics/job/side: "],
        ..GATEWAY
    },
    Cell {
        fault: Fault::Hangs,
        what: "it says nothing",
        does: "given up after 3 s; a warning; the next run pushes all of it",
        name: "side_hang",
        code: "MT0191",
        says: &["no answer within 3s"],
        ..GATEWAY
    },
    Cell {
        fault: Fault::Refuses,
        what: "it answers 403",
        name: "side_refuse",
        code: "MT0192",
        says: &["403 Forbidden not you"],
        ..GATEWAY
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers does not speak HTTP",
        name: "side_garbage",
        code: "MT0190",
        says: &["invalid HTTP version parsed"],
        ..GATEWAY
    },
    Cell {
        fault: Fault::Garbage,
        what: "a proxy answers with a page of HTML",
        name: "side_page",
        code: "MT0192",
        says: &["what answers there is no pushgateway: <!DOCTYPE html>"],
        ..GATEWAY
    },
    Cell { peer: Peer::Pushgateway, what: "1 s late", ..TOLD },
    Cell {
        fault: Fault::Down,
        what: "nobody answers at its port",
        name: "side_down",
        says: &["Slack cannot be reached: Connection refused"],
        ..SLACK
    },
    Cell {
        fault: Fault::Hangs,
        what: "it says nothing",
        does: "given up after 5 s; the message goes out again with the next run; mails are not affected",
        name: "side_hang",
        status: "timed-out",
        class: "timeout",
        code: "MT0233",
        says: &["Slack does not answer: operation timed out"],
        least: 5,
        ..SLACK
    },
    Cell {
        fault: Fault::Refuses,
        what: "it answers 403",
        name: "side_refuse",
        class: "permanent",
        code: "MT0231",
        says: &["Slack answers 403 Forbidden: not you"],
        next: "make a new webhook in Slack, set slack_alerts_url to it, and  mt config check",
        ..SLACK
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers does not speak TLS",
        name: "side_garbage",
        says: &["Slack cannot be reached: what answers there does not speak TLS"],
        ..SLACK
    },
    Cell {
        fault: Fault::Garbage,
        what: "a proxy answers with a page of HTML",
        name: "side_page",
        says: &["what answers at slack_alerts_url is not Slack: a page of HTML"],
        next: "look at what is between this machine and Slack",
        ..SLACK
    },
    Cell { peer: Peer::Slack, what: "1 s late", step: "notify", ends: Ends::ByItself, ..TOLD },
    Cell {
        fault: Fault::Down,
        what: "nobody answers at its port",
        name: "side_down",
        says: &["cannot send to https://web.lab.test:7002/loki/api/v1/push: "],
        ..LOKI
    },
    Cell {
        fault: Fault::Hangs,
        what: "it says nothing",
        does: "given up after loki.response_header_timeout; a warning; the log files have the lines",
        name: "side_hang",
        says: &["no answer within 2s"],
        ..LOKI
    },
    Cell {
        fault: Fault::Refuses,
        what: "it answers 403",
        name: "side_refuse",
        says: &["it answers 403 Forbidden not you"],
        ..LOKI
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers does not speak TLS",
        name: "side_garbage",
        says: &["what answers there does not speak TLS"],
        ..LOKI
    },
    Cell {
        fault: Fault::Garbage,
        what: "a proxy answers with a page of HTML",
        name: "side_page",
        says: &["what answers there is not Loki: <!DOCTYPE html>"],
        ..LOKI
    },
    Cell { peer: Peer::Loki, what: "1 s late", ..TOLD },
    Cell {
        fault: Fault::Down,
        what: "nobody answers at its port",
        name: "side_down",
        says: &["cannot send the trace to https://web.lab.test:7002/v1/traces: "],
        ..TRACES
    },
    Cell {
        fault: Fault::Hangs,
        what: "it says nothing",
        does: "given up after 2 s; a warning; this session has no trace, and the run's history is whole",
        name: "side_hang",
        code: "MT0242",
        says: &["no answer within 2s"],
        ..TRACES
    },
    Cell {
        fault: Fault::Refuses,
        what: "it answers 403",
        name: "side_refuse",
        code: "MT0243",
        says: &["403 Forbidden not you"],
        ..TRACES
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers does not speak TLS",
        name: "side_garbage",
        says: &["what answers there does not speak TLS"],
        ..TRACES
    },
    Cell {
        fault: Fault::Garbage,
        what: "a proxy answers with a page of HTML",
        name: "side_page",
        code: "MT0243",
        says: &["what answers there is no collector of this protocol: <!DOCTYPE html>"],
        ..TRACES
    },
    Cell { peer: Peer::Traces, what: "1 s late", ..TOLD },
];

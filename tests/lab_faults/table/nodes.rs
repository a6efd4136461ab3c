//! What is wrong with a node. The service has a good node, too.

use serde_json::json;

use super::{Also, CELL, Cell, Ends, Fault, GOOD, GOOD_NODE, Peer, Play, SLOW, Who};

const NODE: Cell = Cell {
    peer: Peer::Node,
    play: Play::Nodes,
    does: "the service's other nodes get the token",
    step: "push",
    class: "transient",
    code: "MT0043",
    next: "ssh dunepro@{target}  as the account that runs mt must get there; else look at the node",
    tries: 2,
    push: GOOD,
    told: &[Who::Admins, Who::Stakeholders, Who::Slack],
    ..CELL
};
/// The shipped values are 30 s for both, and the step's time begins first.
const IMPATIENT: &str = "-o ConnectTimeout=2";
/// Why a push is tried once.
const fn unpingable(target: &'static str, code: &'static str) -> Also {
    Also { step: "ping", target, status: "failed", code }
}

pub const CELLS: &[Cell] = &[
    Cell {
        fault: Fault::Down,
        what: "dead node",
        does: "not tried again, because it does not answer the ping; the service's other nodes get the token",
        name: "down",
        role: |_| json!({ "destinationNodes": ["node7.lab.test", GOOD_NODE] }),
        target: "node7.lab.test",
        says: &["port 22: No route to host"],
        tries: 1,
        also: &[unpingable("node7.lab.test", "MT0040")],
        ..NODE
    },
    Cell {
        fault: Fault::Down,
        what: "node that does not even refuse (a firewall drops everything)",
        does: "ended after the step's time and not tried again, because it does not answer the ping; the service's other nodes get the token",
        name: "blackhole",
        role: |_| json!({ "destinationNodes": ["node6.lab.test", GOOD_NODE] }),
        target: "node6.lab.test",
        status: "timed-out",
        class: "timeout",
        says: &["node6.lab.test answers neither ping nor ssh: rsync did not end within"],
        tries: 1,
        also: &[unpingable("node6.lab.test", "MT0040")],
        hangs: true,
        ends: Ends::WithItsTime,
        ..NODE
    },
    Cell {
        fault: Fault::Down,
        what: "the same, with a ConnectTimeout in sshOptions that is less than the step's time: ssh gives up first",
        does: "not tried again, because it does not answer the ping; the service's other nodes get the token",
        name: "impatienthole",
        role: |_| json!({ "destinationNodes": ["node6.lab.test", GOOD_NODE], "sshOptionsOverride": IMPATIENT }),
        target: "node6.lab.test",
        says: &["ssh: connect to host node6.lab.test port 22: Connection timed out"],
        tries: 1,
        also: &[unpingable("node6.lab.test", "MT0040")],
        least: 2,
        ..NODE
    },
    Cell {
        fault: Fault::Hangs,
        what: "hanging node (accepts connections, says nothing)",
        does: "ended after the step's time; the service's other nodes get the token",
        name: "mute",
        role: |_| json!({ "destinationNodes": ["node5.lab.test", GOOD_NODE] }),
        target: "node5.lab.test",
        status: "timed-out",
        class: "timeout",
        says: &["node5.lab.test did not take the files: rsync did not end within"],
        hangs: true,
        ends: Ends::WithItsTime,
        ..NODE
    },
    Cell {
        fault: Fault::Hangs,
        what: "the same, with a ConnectTimeout in sshOptions that is less than the step's time: ssh gives up first",
        name: "impatient",
        role: |_| json!({ "destinationNodes": ["node5.lab.test", GOOD_NODE], "sshOptionsOverride": IMPATIENT }),
        target: "node5.lab.test",
        says: &["node5.lab.test accepts ssh connections and says nothing"],
        least: 2,
        ..NODE
    },
    Cell {
        fault: Fault::Refuses,
        what: "refused login",
        does: "the service's other nodes get the token",
        name: "refuse",
        role: |_| json!({ "destinationNodes": ["node4.lab.test", GOOD_NODE] }),
        target: "node4.lab.test",
        class: "permanent",
        code: "MT0044",
        says: &["dunepro@node4.lab.test: Permission denied (gssapi-keyex,gssapi-with-mic)."],
        next: "check on node4.lab.test that the account dunepro exists and that its .k5login names dunepro/managedtokens/lab.test@LAB.TEST",
        tries: 1,
        ..NODE
    },
    Cell {
        what: "full disk on a node",
        does: "the service's other nodes get the token",
        name: "full",
        role: |_| json!({ "destinationNodes": ["node3.lab.test", GOOD_NODE] }),
        target: "node3.lab.test",
        class: "permanent",
        code: "MT0046",
        says: &["No space left on device"],
        next: "make space on node3.lab.test",
        tries: 1,
        ..NODE
    },
    Cell {
        what: "changed host key",
        does: "nothing is sent; a person is asked for; the service's other nodes get the token",
        name: "hostkey",
        role: |_| json!({ "destinationNodes": ["node1.lab.test", GOOD_NODE] }),
        target: "node1.lab.test",
        status: "needs-human",
        class: "needs-human",
        code: "MT0045",
        says: &["the host key of node1.lab.test has changed"],
        next: "if the node was reinstalled:  ssh-keygen -f \"{lab}/known_hosts\" -R \"node1.lab.test\"  then  ssh dunepro@node1.lab.test",
        tries: 1,
        ..NODE
    },
    Cell {
        what: "unknown host name",
        does: "not tried again, because it does not answer the ping; the service's other nodes get the token",
        name: "nowhere",
        role: |_| json!({ "destinationNodes": ["node99.lab.test", GOOD_NODE] }),
        target: "node99.lab.test",
        code: "MT0041",
        says: &["Could not resolve hostname node99.lab.test"],
        next: "correct destinationNodes, or look at the name server",
        tries: 1,
        also: &[unpingable("node99.lab.test", "MT0041")],
        ..NODE
    },
    Cell {
        fault: Fault::Down,
        what: "sshd does not run",
        name: "closed",
        role: |_| json!({ "destinationNodes": ["node8.lab.test", GOOD_NODE] }),
        target: "node8.lab.test",
        code: "MT0042",
        says: &["ssh: connect to host node8.lab.test port 22: Connection refused"],
        ..NODE
    },
    Cell {
        fault: Fault::Garbage,
        what: "what answers is no sshd",
        name: "noisynode",
        role: |_| json!({ "destinationNodes": ["node9.lab.test", GOOD_NODE] }),
        target: "node9.lab.test",
        says: &["what answers on node9.lab.test is no ssh server: "],
        ..NODE
    },
    Cell {
        peer: Peer::Node,
        play: Play::Nodes,
        what: "sshd's first words 1 s late",
        name: "slownode",
        role: |_| json!({ "destinationNodes": ["node10.lab.test", GOOD_NODE] }),
        step: "push",
        target: "node10.lab.test",
        ..SLOW
    },
];

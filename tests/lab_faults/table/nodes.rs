//! What is wrong with a node. The service has a good node, too.

use serde_json::json;

use super::{CELL, Cell, Fault, GOOD, GOOD_NODE, Peer, Play, SLOW};

const NODE: Cell = Cell {
    peer: Peer::Node,
    play: Play::Nodes,
    does: "the service's other nodes get the token",
    step: "push",
    class: "transient",
    code: "MT0043",
    next: "look at the node",
    tries: 2,
    within: 2,
    push: GOOD,
    ..CELL
};

pub const CELLS: &[Cell] = &[
    Cell {
        fault: Fault::Down,
        what: "dead node",
        does: "not tried again, because it does not answer the ping; the service's other nodes get the token",
        name: "down",
        role: |_| json!({ "destinationNodes": ["node7.lab.test", GOOD_NODE] }),
        target: "node7.lab.test",
        says: &["port 22: No route to host", "port 22: Connection timed out"],
        tries: 1,
        ..NODE
    },
    Cell {
        fault: Fault::Down,
        what: "node that does not even refuse (a firewall drops everything)",
        does: "not tried again, because it does not answer the ping; the service's other nodes get the token",
        name: "blackhole",
        role: |_| json!({ "destinationNodes": ["node6.lab.test", GOOD_NODE] }),
        target: "node6.lab.test",
        says: &["ssh: connect to host node6.lab.test port 22: Connection timed out"],
        tries: 1,
        hangs: true,
        ..NODE
    },
    Cell {
        fault: Fault::Hangs,
        what: "hanging node (accepts connections, says nothing), ssh gives up first",
        name: "mute",
        role: |_| json!({ "destinationNodes": ["node5.lab.test", GOOD_NODE] }),
        target: "node5.lab.test",
        says: &["node5.lab.test accepts ssh connections and says nothing"],
        hangs: true,
        ..NODE
    },
    Cell {
        fault: Fault::Hangs,
        what: "hanging node, the step's time is over first",
        does: "ended after the step's time; the service's other nodes get the token",
        name: "stuck",
        role: |_| json!({ "destinationNodes": ["node5.lab.test", GOOD_NODE], "sshOptionsOverride": "-o ConnectTimeout=600" }),
        target: "node5.lab.test",
        status: "timed-out",
        class: "timeout",
        says: &["node5.lab.test did not take the files: rsync did not end within"],
        hangs: true,
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
        next: "check on node4.lab.test that the account dunepro exists and that its .k5login names the service's principal",
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

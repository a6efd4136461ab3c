//! The table: each fault, and what becomes of the service that meets it. `docs/reliability.md` is made from it.

use serde_json::{Value, json};

/// A service that meets a fault while others are well.
pub struct Row {
    /// What is wrong, for people.
    pub fault: &'static str,
    /// What `mt` does about it, for people.
    pub does: &'static str,
    /// The service's experiment; its role is `production` unless `role` says otherwise.
    pub experiment: &'static str,
    /// What the service's role has beside account, UID and nodes.
    pub role: fn(&Place) -> Value,
    /// Where it shows.
    pub step: &'static str,
    pub target: &'static str,
    /// How the target stands in the end.
    pub status: &'static str,
    pub class: &'static str,
    pub code: &'static str,
    /// One of these is in the message. `{x}` is replaced as in [`Place::fill`].
    pub says: &'static [&'static str],
    /// The advice, whole.
    pub next: &'static str,
    /// How often it is tried.
    pub tries: usize,
    /// What becomes of the service's push to a good node.
    pub push: &'static str,
    /// Does the attempt hang? Then the healthy ones must be through before it ends.
    pub hangs: bool,
}

/// Where a row's service finds its things.
pub struct Place {
    /// The test's corner of the laboratory.
    pub corner: String,
    /// Accepts connections and says nothing.
    pub silent: &'static str,
    /// Nobody listens there.
    pub dead: &'static str,
}

impl Place {
    /// `{corner}`, `{service}`, `{silent}` and `{dead}` filled in.
    pub fn fill(&self, text: &str, row: &Row) -> String {
        text.replace("{corner}", &self.corner)
            .replace("{service}", &row.service())
            .replace("{silent}", self.silent)
            .replace("{dead}", self.dead)
    }

    fn keytab(&self, name: &str) -> Value {
        json!({ "keytabPathOverride": format!("{}/{name}.keytab", self.corner) })
    }

    fn vault(&self, server: &str, tokens: &str) -> Value {
        json!({
            "vaultServerOverride": server,
            "serviceCreddVaultTokenPathRootOverride": format!("{}/{tokens}", self.corner),
        })
    }
}

impl Row {
    /// The service as configured.
    pub fn service(&self) -> String {
        format!("{}_{}", self.experiment, self.role_name())
    }

    /// Only the one account whose permissions the vault takes away has another role.
    pub fn role_name(&self) -> &'static str {
        if self.experiment == "forbidden" { "admin" } else { "production" }
    }
}

const GOOD: &str = "succeeded";
const NOT_TRIED: &str = "not-attempted";
/// The node whose push `push` tells of.
pub const GOOD_NODE: &str = "node2.lab.test";

const KINIT: Row = Row {
    fault: "",
    does: "the service stops there",
    experiment: "",
    role: |_| json!({}),
    step: "kinit",
    target: "-",
    status: "failed",
    class: "permanent",
    code: "",
    says: &[],
    next: "",
    tries: 1,
    push: NOT_TRIED,
    hangs: false,
};

/// What is wrong with a keytab, or with the KDC.
pub const TICKETS: &[Row] = &[
    Row {
        fault: "no keytab",
        experiment: "missing",
        role: |place| place.keytab("missing"),
        code: "MT0020",
        says: &["there is no keytab {corner}/missing.keytab"],
        next: "put the keytab of dunepro/managedtokens/lab.test@LAB.TEST there",
        ..KINIT
    },
    Row {
        fault: "damaged keytab",
        experiment: "corrupt",
        role: |place| place.keytab("corrupt"),
        code: "MT0021",
        says: &[
            "the keytab {corner}/corrupt.keytab cannot be read: kinit: Unsupported key table format version number",
        ],
        next: "replace it by a fresh copy; klist -k {corner}/corrupt.keytab must show its keys",
        ..KINIT
    },
    Row {
        fault: "wrong keytab (another principal's)",
        experiment: "wrong",
        role: |place| place.keytab("wrong"),
        code: "MT0022",
        says: &["the keytab {corner}/wrong.keytab holds no key of dunepro/managedtokens/lab.test@LAB.TEST"],
        next: "put the keytab of dunepro/managedtokens/lab.test@LAB.TEST there; klist -k {corner}/wrong.keytab shows whose it is",
        ..KINIT
    },
    Row {
        fault: "old keytab (the password was changed since)",
        experiment: "stale",
        role: |place| place.keytab("stale"),
        code: "MT0023",
        says: &["the KDC does not accept the key in {corner}/stale.keytab"],
        next: "fetch the new keytab of dunepro/managedtokens/lab.test@LAB.TEST",
        ..KINIT
    },
    Row {
        fault: "KDC down",
        does: "the service stops there",
        experiment: "deadkdc",
        role: |place| {
            let mut role = place.keytab("elsewhere");
            role["userPrincipalOverride"] = "dunepro@DEAD.TEST".into();
            role
        },
        class: "transient",
        code: "MT0026",
        says: &["no KDC answers: kinit: Cannot contact any KDC for realm 'DEAD.TEST'"],
        next: "look at the KDC and at krb5.conf",
        ..KINIT
    },
    Row {
        fault: "KDC paused (accepts connections, says nothing)",
        does: "ended after the step's time; the service stops there",
        experiment: "mutekdc",
        role: |place| {
            let mut role = place.keytab("elsewhere");
            role["userPrincipalOverride"] = "dunepro@MUTE.TEST".into();
            role
        },
        status: "timed-out",
        class: "timeout",
        code: "MT0026",
        says: &["no KDC answers: kinit did not end within"],
        next: "look at the KDC and at krb5.conf",
        hangs: true,
        ..KINIT
    },
];

const VAULT: Row = Row { step: "get-vault-token", ..KINIT };

/// What is wrong with the vault.
pub const VAULTS: &[Row] = &[
    Row {
        fault: "the vault refuses (403)",
        does: "the service stops there, and a person is asked for",
        experiment: "forbidden",
        role: |_| json!({ "account": "fermiadm" }),
        status: "needs-human",
        class: "needs-human",
        code: "MT0031",
        says: &["the vault server vault.lab.test refuses this service (403, permission denied)"],
        next: "mt run token-push --onboard -s {service}",
        ..VAULT
    },
    Row {
        fault: "no refresh token in the vault",
        does: "the service stops there, and a person is asked for",
        experiment: "unknown",
        role: |_| json!({ "account": "mu2epro", "desiredUIDOverride": 1235 }),
        status: "needs-human",
        class: "needs-human",
        code: "MT0031",
        says: &["the vault holds no usable refresh token for this service"],
        next: "mt run token-push --onboard -s {service}",
        ..VAULT
    },
    Row {
        fault: "vault down, no token kept",
        does: "the service stops there",
        experiment: "deadvault",
        role: |place| place.vault(place.dead, "empty"),
        class: "transient",
        code: "MT0030",
        says: &["the vault server {dead} cannot be reached: Connection refused"],
        next: "look at the vault server and at the network",
        tries: 2,
        ..VAULT
    },
    Row {
        fault: "vault paused, no token kept",
        does: "the service stops there",
        experiment: "mutevault",
        role: |place| place.vault(place.silent, "empty"),
        class: "transient",
        code: "MT0030",
        says: &["the vault server {silent} cannot be reached: Read timed out"],
        next: "look at the vault server and at the network",
        tries: 2,
        hangs: true,
        ..VAULT
    },
    Row {
        fault: "vault down or paused, a token kept from an earlier run",
        does: "the kept token is pushed",
        experiment: "kept",
        role: |place| place.vault(place.silent, "tokens"),
        status: "stale",
        class: "transient",
        code: "MT0030",
        says: &["the vault server {silent} cannot be reached: Read timed out"],
        next: "look at the vault server and at the network",
        tries: 2,
        push: GOOD,
        hangs: true,
        ..VAULT
    },
];

const CREDD: Row = Row { does: "the push goes on", step: "store-in-credd", push: GOOD, ..KINIT };

/// What is wrong with HTCondor.
pub const CREDDS: &[Row] = &[
    Row {
        fault: "one credd down",
        does: "the other credds get the credential, and the push goes on",
        experiment: "downcredd",
        target: "schedd1.lab.test",
        class: "transient",
        code: "MT0053",
        says: &["the credd schedd1.lab.test cannot be reached, or does not let this host write"],
        next: "look at the credd schedd1.lab.test and its ALLOW_WRITE",
        ..CREDD
    },
    Row {
        fault: "credd refuses",
        experiment: "deniedcredd",
        role: |_| json!({ "condorCreddHostOverride": "schedd3.lab.test" }),
        target: "schedd3.lab.test",
        code: "MT0054",
        says: &["the credd schedd3.lab.test does not allow the credential to be stored: "],
        next: "ask those who run schedd3.lab.test",
        ..CREDD
    },
    Row {
        fault: "credd hangs",
        does: "ended after the step's time; the push goes on",
        experiment: "mutecredd",
        role: |_| json!({ "condorCreddHostOverride": "schedd4.lab.test" }),
        target: "schedd4.lab.test",
        status: "timed-out",
        class: "timeout",
        code: "MT0053",
        says: &["storing in the credd schedd4.lab.test took too long: condor_vault_storer did not end within"],
        next: "look at the credd schedd4.lab.test and at the vault server",
        hangs: true,
        ..CREDD
    },
    Row {
        fault: "collector down",
        does: "the credds recorded by an earlier session of the run are used; without one the push goes on",
        experiment: "nocollector",
        role: |_| json!({ "condorCollectorHostOverride": "collector2.lab.test" }),
        class: "transient",
        code: "MT0050",
        says: &["the collector collector2.lab.test cannot be asked: "],
        next: "look at the collector, or set condorCreddHost",
        ..CREDD
    },
    Row {
        fault: "collector hangs",
        does: "ended after 10 s, or half of the step's time for all together; as above",
        experiment: "mutecollector",
        role: |_| json!({ "condorCollectorHostOverride": "collector3.lab.test" }),
        status: "timed-out",
        class: "timeout",
        code: "MT0050",
        says: &["the collector collector3.lab.test cannot be asked: condor_status did not end within"],
        next: "look at the collector, or set condorCreddHost",
        hangs: true,
        ..CREDD
    },
];

const NODE: Row = Row {
    does: "the service's other nodes get the token",
    step: "push",
    class: "transient",
    code: "MT0043",
    next: "look at the node",
    tries: 2,
    push: GOOD,
    ..KINIT
};

/// What is wrong with a node. The service has a good node, too.
pub const NODES: &[Row] = &[
    Row {
        fault: "dead node",
        does: "not tried again, because it does not answer the ping; the service's other nodes get the token",
        experiment: "down",
        role: |_| json!({ "destinationNodes": ["node7.lab.test", GOOD_NODE] }),
        target: "node7.lab.test",
        says: &["port 22: No route to host", "port 22: Connection timed out"],
        tries: 1,
        ..NODE
    },
    Row {
        fault: "node that does not even refuse (a firewall drops everything)",
        does: "not tried again, because it does not answer the ping; the service's other nodes get the token",
        experiment: "blackhole",
        role: |_| json!({ "destinationNodes": ["node6.lab.test", GOOD_NODE] }),
        target: "node6.lab.test",
        says: &["ssh: connect to host node6.lab.test port 22: Connection timed out"],
        tries: 1,
        hangs: true,
        ..NODE
    },
    Row {
        fault: "hanging node (accepts connections, says nothing), ssh gives up first",
        experiment: "mute",
        role: |_| json!({ "destinationNodes": ["node5.lab.test", GOOD_NODE] }),
        target: "node5.lab.test",
        says: &["node5.lab.test accepts ssh connections and says nothing"],
        hangs: true,
        ..NODE
    },
    Row {
        fault: "hanging node, the step's time is over first",
        does: "ended after the step's time; the service's other nodes get the token",
        experiment: "stuck",
        role: |_| json!({ "destinationNodes": ["node5.lab.test", GOOD_NODE], "sshOptionsOverride": "-o ConnectTimeout=600" }),
        target: "node5.lab.test",
        status: "timed-out",
        class: "timeout",
        says: &["node5.lab.test did not take the files: rsync did not end within"],
        hangs: true,
        ..NODE
    },
    Row {
        fault: "refused login",
        does: "the service's other nodes get the token",
        experiment: "refuse",
        role: |_| json!({ "destinationNodes": ["node4.lab.test", GOOD_NODE] }),
        target: "node4.lab.test",
        class: "permanent",
        code: "MT0044",
        says: &["dunepro@node4.lab.test: Permission denied (gssapi-keyex,gssapi-with-mic)."],
        next: "check on node4.lab.test that the account dunepro exists and that its .k5login names the service's principal",
        tries: 1,
        ..NODE
    },
    Row {
        fault: "full disk on a node",
        does: "the service's other nodes get the token",
        experiment: "full",
        role: |_| json!({ "destinationNodes": ["node3.lab.test", GOOD_NODE] }),
        target: "node3.lab.test",
        class: "permanent",
        code: "MT0046",
        says: &["No space left on device"],
        next: "make space on node3.lab.test",
        tries: 1,
        ..NODE
    },
    Row {
        fault: "changed host key",
        does: "nothing is sent; a person is asked for; the service's other nodes get the token",
        experiment: "hostkey",
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
    Row {
        fault: "unknown host name",
        does: "not tried again, because it does not answer the ping; the service's other nodes get the token",
        experiment: "nobody",
        role: |_| json!({ "destinationNodes": ["node9.lab.test", GOOD_NODE] }),
        target: "node9.lab.test",
        code: "MT0041",
        says: &["Could not resolve hostname node9.lab.test"],
        next: "correct destinationNodes, or look at the name server",
        tries: 1,
        ..NODE
    },
];

//! What the steps of one process share: the services they work for, the tickets and tokens they have got so far, and
//! the ways to the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::accounts::{AccountSetup, Accounts};
use super::credds::CreddCache;
use super::environment::Snapshot;
use super::lookup::VaultClient;
use super::storer::StorerFiles;
use super::vault_options::CondorOptions;
use crate::config::{Email, IssuerService, NodeName, Service};
use crate::notify::delivery::Deliveries;
use crate::notify::outbox::Outbox;
use crate::process::Command;
use crate::token_file::Fingerprint;
use crate::workflow::id::{ProcessId, Subject};

/// What a world is made of.
pub struct Setup {
    /// This process.
    pub process: ProcessId,
    /// Its private directory, 0700: caches, staged files, bearer files. Whoever made it removes it.
    pub private: PathBuf,
    /// The state directory as configured, for `tokens/`. It need not be usable.
    pub state: PathBuf,
    /// Where processes lock each other out: the state directory, or what stands in for one that cannot be used.
    pub locks: PathBuf,
    /// The variables of this process.
    pub environment: Snapshot,
    /// Our own user id: part of the kept tokens' file names.
    pub own_uid: u32,
    /// The selected services, each with the UID of its account where that is known.
    pub services: Vec<(Service, Option<u32>)>,
    /// Every issuer service of the configuration, selected or not.
    pub issuer_services: BTreeSet<IssuerService>,
    /// When kept tokens expire, by fingerprint, as far as earlier runs have recorded it. May be empty.
    pub expiries: BTreeMap<String, Timestamp>,
    /// How mail is sent; `None` where it is not configured.
    pub email: Option<Email>,
    /// Where mail waits; `None` in commands that send none.
    pub outbox: Option<Arc<dyn Outbox>>,
    /// For a run for accounts: which, and how their UIDs are learnt.
    pub accounts: Option<AccountSetup>,
}

/// What the steps of one process share.
pub struct World {
    /// This process.
    pub process: ProcessId,
    /// Its private directory.
    pub private: PathBuf,
    /// The state directory as configured.
    pub state: PathBuf,
    /// Where processes lock each other out.
    pub locks: PathBuf,
    /// The variables of this process.
    pub environment: Snapshot,
    /// Our own user id.
    pub own_uid: u32,
    /// Every selected service.
    pub services: BTreeMap<Subject, Arc<ServiceContext>>,
    /// How mail is sent.
    pub email: Option<Email>,
    /// Where mail waits.
    pub outbox: Option<Arc<dyn Outbox>>,
    pub(super) accounts: Option<Accounts>,
    /// What was sent to people.
    pub deliveries: Deliveries,
    pub(super) credds: CreddCache,
    pub(super) condor_options: CondorOptions,
    pub(super) vault: VaultClient,
    pub(super) storer: StorerFiles,
    /// The terminal: one person, one authentication at a time.
    pub(super) terminal: tokio::sync::Mutex<()>,
    issuer_services: BTreeSet<IssuerService>,
    expiries: Mutex<BTreeMap<String, Timestamp>>,
    serial: AtomicU64,
}

/// One service and what the steps have got for it in this process.
pub struct ServiceContext {
    /// As configured.
    pub service: Service,
    /// The UID of its account on the nodes, where it is known.
    pub uid: Option<u32>,
    shared: Mutex<Shared>,
}

/// What earlier steps leave for later ones.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// The cache that holds the ticket, once there is one.
    pub ticket: Option<PathBuf>,
    /// The token to push, once there is one.
    pub token: Option<TokenSource>,
    /// The nodes that did not answer a ping: a push to them is tried once.
    pub unpingable: BTreeSet<NodeName>,
}

/// A vault token in the private directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSource {
    /// Its copy.
    pub staged: PathBuf,
    /// Which token it is.
    pub fingerprint: Fingerprint,
    /// When it expires, where that is known.
    pub expires_at: Option<Timestamp>,
}

impl World {
    /// The world of a process. Touches nothing.
    pub fn new(setup: Setup) -> Self {
        let services = setup.services.into_iter().map(|(service, uid)| {
            let subject = Subject::new(service.name.as_str());
            (subject, Arc::new(ServiceContext { service, uid, shared: Mutex::default() }))
        });
        Self {
            process: setup.process,
            vault: VaultClient::new(&setup.environment),
            private: setup.private,
            state: setup.state,
            locks: setup.locks,
            environment: setup.environment,
            own_uid: setup.own_uid,
            services: services.collect(),
            email: setup.email,
            outbox: setup.outbox,
            accounts: setup.accounts.map(Accounts::new),
            deliveries: Deliveries::default(),
            credds: CreddCache::default(),
            condor_options: CondorOptions::default(),
            storer: StorerFiles::default(),
            terminal: tokio::sync::Mutex::default(),
            issuer_services: setup.issuer_services,
            expiries: Mutex::new(setup.expiries),
            serial: AtomicU64::new(0),
        }
    }

    /// A service of this world.
    pub fn service(&self, subject: Option<&Subject>) -> Option<&Arc<ServiceContext>> {
        self.services.get(subject?)
    }

    /// A name in the private directory that no other attempt of this process uses.
    pub(super) fn private_path(&self, what: &str) -> PathBuf {
        self.private.join(format!("{what}.{}", self.number()))
    }

    /// A number that no other attempt of this process has.
    pub(super) fn number(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// The Kerberos cache of a service. It dies with the private directory.
    pub fn ticket_cache(&self, service: &Service) -> PathBuf {
        self.private.join(format!("krb5cc_{}", service.name))
    }

    /// The directory of kept tokens.
    pub fn token_directory(&self, service: &Service) -> PathBuf {
        service.token_directory.clone().unwrap_or_else(|| self.state.join("tokens"))
    }

    /// The kept token of a service, got without a credd.
    pub fn kept_token(&self, service: &Service) -> PathBuf {
        self.token_directory(service).join(format!("vt_u{}-{}", self.own_uid, service.issuer_service))
    }

    /// The kept token of a service and a credd.
    pub fn kept_token_of_credd(&self, service: &Service, credd: &str) -> PathBuf {
        self.token_directory(service).join(format!("vt_u{}-{credd}-{}", self.own_uid, service.issuer_service))
    }

    /// Whose own kept token has the name that the one for this service and credd would have: a credd `x` of `dune_production`
    /// is told from no credd of `x-dune_production` by nothing in the name.
    pub(super) fn other_owner(&self, service: &Service, credd: &str) -> Option<&IssuerService> {
        let name = format!("{credd}-{}", service.issuer_service);
        self.issuer_services.iter().find(|other| other.as_str() == name)
    }

    /// A child with the environment that all children get. Its temporary files go into the private directory, so that
    /// nothing stays of a child that is killed.
    pub(super) fn command(&self, program: impl Into<OsString>) -> Command {
        Command::new(program)
            .envs(self.environment.for_children())
            .env("TMPDIR", self.private.as_os_str())
            .env("XDG_RUNTIME_DIR", self.private.as_os_str())
    }

    /// The same with the ticket of a service.
    pub(super) fn command_for(&self, program: impl Into<OsString>, service: &Service) -> Command {
        self.command(program).env("KRB5CCNAME", cache_name(&self.ticket_cache(service)))
    }

    /// When this token expires, as far as is known.
    pub(super) fn expiry(&self, token: &Fingerprint) -> Option<Timestamp> {
        lock(&self.expiries).get(&token.to_string()).copied()
    }

    /// Remembers when a token expires.
    pub(super) fn learn_expiry(&self, token: &Fingerprint, at: Timestamp) {
        lock(&self.expiries).insert(token.to_string(), at);
    }
}

impl ServiceContext {
    /// What the steps have got so far.
    pub fn shared(&self) -> Shared {
        lock(&self.shared).clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Shared)) {
        change(&mut lock(&self.shared));
    }
}

/// `FILE:<path>`, as Kerberos wants it.
pub(super) fn cache_name(path: &Path) -> OsString {
    let mut name = OsString::from("FILE:");
    name.push(path);
    name
}

/// A panic elsewhere leaves these maps whole: every change is one insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod test_support {
    //! Worlds for tests.

    use super::*;
    use crate::config::service::TokenGetter;
    use crate::config::{
        AccountName, CreddName, Credds, ExperimentName, IssuerService, NodeName, RoleName, ServiceName,
    };

    /// A service as configured, with one fixed credd and two nodes.
    pub fn service(name: &str) -> Service {
        let (experiment, role) = name.rsplit_once('_').expect("experiment_role");
        Service {
            name: ServiceName::checked(name),
            experiment: ExperimentName::checked(experiment),
            role: RoleName::checked(role),
            issuer: ExperimentName::checked(experiment),
            issuer_service: IssuerService::checked(name),
            account: AccountName::checked(format!("{experiment}pro")),
            uid_override: None,
            nodes: vec![NodeName::checked("node1.lab.test"), NodeName::checked("node2.lab.test")],
            keytab: PathBuf::from("/nowhere/keytab"),
            principal: format!("{experiment}pro/managedtokens/lab.test@LAB.TEST"),
            vault_server: Some("vault.lab.test".to_owned()),
            token_getter: TokenGetter::StoreAndGetToken,
            credds: Credds::Fixed(CreddName::checked("schedd1.lab.test")),
            token_directory: None,
            min_token_lifetime: "3d".to_owned(),
            default_role_file_template: format!("/tmp/default_role_{experiment}_{{{{.DesiredUID}}}}"),
            ping_options: Vec::new(),
            copier_options: vec!["--perms".to_owned(), "--chmod=u=r,go=".to_owned()],
            ssh_options: Vec::new(),
            emails: Vec::new(),
            notifications: true,
        }
    }
}

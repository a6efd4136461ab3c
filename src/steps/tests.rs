//! The actions over stand-in programs: small scripts in a PATH of their own. What needs real services is in
//! `tests/steps_lab.rs`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::codes::*;
use super::environment::Snapshot;
use super::world::test_support::service;
use super::world::{Setup, World};
use super::{BuildError, build};
use crate::config::{CreddName, Credds, Service};
use crate::token_file::Fingerprint;
use crate::workflow::action::{Action, Attempt, AttemptResult, Class, Failure, ProductState, Success};
use crate::workflow::definition::{ActionSpec, CountsAs, Mode, OnFailure, Per, Retry, Step};
use crate::workflow::id::{ProcessId, RunId, StepName, Subject, TargetName};

const TOKEN: &str = "hvs.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "hvs.BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

/// A world of one service over scripts.
struct Bench {
    directory: TempDir,
    service: Service,
    uid: Option<u32>,
    variables: Vec<(String, String)>,
    expiries: Vec<(String, Timestamp)>,
    own_uid: u32,
    process: ProcessId,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["bin", "private", "state", "state/tokens"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let mut service = service("dune_production");
        service.keytab = directory.path().join("dunepro.keytab");
        fs::write(&service.keytab, "keys").unwrap();
        let process = ProcessId::generate();
        // Names in /tmp that no other test and no real storer uses.
        let own_uid = 3_000_000_000 + (process.0.random() % 1_000_000_000) as u32;
        let bench = Self { directory, service, uid: Some(1234), variables: vec![], expiries: vec![], own_uid, process };
        bench.script("condor_config_val", "exit 1");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program that logs its arguments and runs this text.
    fn script(&self, name: &str, text: &str) {
        let log = self.path(&format!("{name}.log"));
        let path = self.path("bin").join(name);
        let logging = format!("printf '%s\\n' \"$*\" >>{}", log.display());
        fs::write(&path, format!("#!/bin/sh\n{logging}\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// An htgettoken that finds or makes this token.
    fn htgettoken(&self, token: &str) {
        self.script(
            "htgettoken",
            &format!(
                "while [ $# -gt 0 ]; do case $1 in --vaulttokenfile) file=$2;; -o) bearer=$2;; esac; shift; done\n\
                 umask 077; echo eyJx.y.z >$bearer; [ -e $file ] || echo {token} >$file\n\
                 echo \"opts $HTGETTOKENOPTS cc $KRB5CCNAME\" >>{}",
                self.path("htgettoken.env").display()
            ),
        );
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    fn world(&self) -> Arc<World> {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display());
        let fixed = [("PATH".to_owned(), path), ("SSL_CERT_FILE".to_owned(), "/nowhere".to_owned())];
        Arc::new(World::new(Setup {
            process: self.process,
            private: self.path("private"),
            state: self.path("state"),
            environment: Snapshot::new(fixed.into_iter().chain(self.variables.clone())),
            own_uid: self.own_uid,
            services: vec![(self.service.clone(), self.uid)],
            expiries: self.expiries.iter().cloned().collect(),
            email: None,
            outbox: None,
        }))
    }

    fn kept(&self) -> PathBuf {
        self.path("state/tokens").join(format!("vt_u{}-dune_production", self.own_uid))
    }

    fn kept_of(&self, credd: &str) -> PathBuf {
        self.path("state/tokens").join(format!("vt_u{}-{credd}-dune_production", self.own_uid))
    }

    /// What is left of this bench in /tmp.
    fn in_tmp(&self) -> Vec<String> {
        let ours = [format!("vt_mt{}", self.process), format!("vt_u{}", self.own_uid)];
        let names = fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| ours.iter().any(|start| name.starts_with(start))).collect()
    }

    /// The files in the private directory, but for the staged token and the ticket cache.
    fn in_private(&self) -> Vec<String> {
        let names = fs::read_dir(self.path("private")).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names.filter(|name| name != "vt_dune_production" && !name.starts_with('.')).collect()
    }
}

fn keep(path: &Path, token: &str) {
    fs::write(path, format!("{token}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn step(name: &str, arguments: Option<&str>, per: Per) -> Step {
    Step {
        name: StepName::new("step"),
        action: ActionSpec { name: name.to_owned(), arguments: arguments.map(str::to_owned) },
        per,
        timeout: Duration::from_secs(20),
        parallel: 8,
        retry: Retry { times: 0, backoff: (Duration::ZERO, Duration::ZERO) },
        on_failure: OnFailure::Stop,
        counts_as: CountsAs::Setup,
        when: Mode::ALL.to_vec(),
    }
}

fn action(name: &str, world: &Arc<World>) -> Arc<dyn Action> {
    build(&step(name, None, Per::Subject), world).unwrap()
}

fn attempt(target: &str) -> Attempt {
    Attempt {
        run: RunId::generate(),
        session: 1,
        subject: Some(subject()),
        step: StepName::new("step"),
        target: TargetName::new(target),
        mode: Mode::Normal,
        number: 1,
        timeout: Duration::from_secs(20),
        cancel: CancellationToken::new(),
    }
}

fn subject() -> Subject {
    Subject::new("dune_production")
}

async fn try_once(name: &str, target: &str, world: &Arc<World>) -> AttemptResult {
    action(name, world).attempt(&attempt(target)).await
}

fn fingerprint(success: &Success) -> Fingerprint {
    serde_json::from_value(success.detail.as_ref().unwrap()["fingerprint"].clone()).unwrap()
}

fn code(result: AttemptResult) -> (Class, crate::workflow::code::Code) {
    let failure = result.expect_err("a failure");
    (failure.class, failure.code)
}

mod kinit {
    use super::*;

    const KLIST: &str = "echo 'Default principal: dunepro/managedtokens/lab.test@LAB.TEST'";

    #[tokio::test]
    async fn a_missing_keytab_is_named_before_anything_is_started() {
        let bench = Bench::new();
        bench.script("kinit", "");
        fs::remove_file(&bench.service.keytab).unwrap();
        let failure = try_once("Kinit", "-", &bench.world()).await.unwrap_err();
        assert_eq!((failure.class, failure.code), (Class::Permanent, KEYTAB_MISSING));
        assert!(failure.message.contains("dunepro.keytab"), "{failure:?}");
        assert_eq!(bench.log("kinit"), "");
    }

    #[tokio::test]
    async fn a_ticket_for_somebody_else_is_not_used() {
        let bench = Bench::new();
        bench.script("kinit", "");
        bench.script("klist", "echo 'Default principal: root@LAB.TEST'");
        let world = bench.world();
        assert_eq!(code(try_once("Kinit", "-", &world).await), (Class::Permanent, WRONG_PRINCIPAL));
        assert_eq!(world.service(Some(&subject())).unwrap().shared().ticket, None);
    }

    #[tokio::test]
    async fn the_cache_is_in_the_private_directory() {
        let bench = Bench::new();
        bench.script("kinit", &format!("echo $KRB5CCNAME >{}", bench.path("cc").display()));
        bench.script("klist", KLIST);
        let world = bench.world();
        try_once("Kinit", "-", &world).await.unwrap();
        let cache = bench.path("private/krb5cc_dune_production");
        assert_eq!(fs::read_to_string(bench.path("cc")).unwrap().trim(), format!("FILE:{}", cache.display()));
        assert_eq!(world.service(Some(&subject())).unwrap().shared().ticket, Some(cache));
        let keytab = bench.service.keytab.display();
        assert_eq!(bench.log("kinit").trim(), format!("-k -t {keytab} -- dunepro/managedtokens/lab.test@LAB.TEST"));
    }

    #[tokio::test]
    async fn a_kdc_that_hangs_is_a_timeout() {
        let bench = Bench::new();
        bench.script("kinit", "exec sleep 60");
        let world = bench.world();
        let attempt = attempt("-");
        let kinit = action("Kinit", &world);
        attempt.cancel.cancel();
        assert_eq!(code(kinit.attempt(&attempt).await), (Class::Timeout, KDC_UNREACHABLE));
    }
}

mod get_vault_token {
    use super::*;

    fn transient() -> Failure {
        Failure::new(Class::Transient, VAULT_UNREACHABLE, "down")
    }

    #[tokio::test]
    async fn a_token_is_kept_for_us_alone_and_never_on_a_command_line() {
        let bench = Bench::new();
        bench.htgettoken(TOKEN);
        let world = bench.world();
        let success = try_once("GetVaultToken", "-", &world).await.unwrap();
        let kept = fs::metadata(bench.kept()).unwrap();
        assert_eq!(kept.mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(bench.kept()).unwrap().trim(), TOKEN);
        assert!(!format!("{success:?}").contains("hvs."), "{success:?}");
        let source = world.service(Some(&subject())).unwrap().shared().token.unwrap();
        assert_eq!(source.fingerprint, fingerprint(&success));
        assert_eq!(fs::read_to_string(source.staged).unwrap().trim(), TOKEN);
        // The second time htgettoken is given the kept token, so nothing on its command line may show it.
        try_once("GetVaultToken", "-", &world).await.unwrap();
        let log = bench.log("htgettoken");
        assert!(log.contains("-a vault.lab.test -i dune -r production"), "{log}");
        assert!(log.contains("--nooidc") && !log.contains("hvs."), "{log}");
        assert_eq!(bench.in_private(), Vec::<String>::new(), "bearer files go away");
    }

    #[tokio::test]
    async fn a_kept_token_is_given_to_htgettoken_which_decides() {
        let bench = Bench::new();
        keep(&bench.kept(), OTHER);
        bench.htgettoken(TOKEN);
        let world = bench.world();
        try_once("GetVaultToken", "-", &world).await.unwrap();
        let staged = world.service(Some(&subject())).unwrap().shared().token.unwrap().staged;
        assert_eq!(fs::read_to_string(staged).unwrap().trim(), OTHER);
    }

    #[tokio::test]
    async fn a_kept_file_that_cannot_be_trusted_or_replaced_is_a_note() {
        let bench = Bench::new();
        fs::create_dir(bench.kept()).unwrap();
        bench.htgettoken(TOKEN);
        let world = bench.world();
        let success = try_once("GetVaultToken", "-", &world).await.unwrap();
        let note = success.note.unwrap();
        assert!(note.contains("could not be replaced"), "{note}");
        assert!(world.service(Some(&subject())).unwrap().shared().token.is_some());
    }

    #[tokio::test]
    async fn the_sites_options_come_before_our_own() {
        let mut bench = Bench::new();
        bench.htgettoken(TOKEN);
        let opts = "-a other.example.org --vaulttokenfile=/tmp/x";
        bench.variables.push(("_condor_SEC_CREDENTIAL_GETTOKEN_OPTS".to_owned(), opts.to_owned()));
        bench.variables.push(("HTGETTOKENOPTS".to_owned(), "--vaulttokenminttl=1h".to_owned()));
        try_once("GetVaultToken", "-", &bench.world()).await.unwrap();
        let log = bench.log("htgettoken");
        assert!(log.starts_with(&format!("{opts} -a other.example.org -i dune")), "{log}");
        let env = fs::read_to_string(bench.path("htgettoken.env")).unwrap();
        assert!(env.contains("opts --vaulttokenminttl=1h --credkey=dunepro/managedtokens/lab.test"), "{env}");
    }

    #[tokio::test]
    async fn onboarding_lets_htgettoken_ask_a_person_and_nothing_else_does() {
        let mut bench = Bench::new();
        bench.htgettoken(TOKEN);
        bench.variables.push(("BROWSER".to_owned(), "lynx".to_owned()));
        let world = bench.world();
        let mut attempt = attempt("-");
        attempt.mode = Mode::OnboardPush;
        action("GetVaultToken", &world).attempt(&attempt).await.unwrap();
        assert!(!bench.log("htgettoken").contains("--nooidc"));
        bench.script("htgettoken", "exit 1");
        let failure = action("GetVaultToken", &world).attempt(&attempt).await.unwrap_err();
        assert_eq!((failure.class, failure.code), (Class::NeedsHuman, AUTHENTICATION_UNFINISHED));
        attempt.mode = Mode::Test;
        bench.htgettoken(TOKEN);
        action("GetVaultToken", &world).attempt(&attempt).await.unwrap();
        assert!(bench.log("htgettoken").trim().ends_with("--nooidc --verbose"));
    }

    #[tokio::test]
    async fn a_vault_outage_lets_the_kept_token_stand_in() {
        let bench = Bench::new();
        keep(&bench.kept(), TOKEN);
        let world = bench.world();
        let get = action("GetVaultToken", &world);
        let success = get.stand_in(&attempt("-"), &transient()).await.expect("a stand-in");
        assert_eq!(world.service(Some(&subject())).unwrap().shared().token.unwrap().fingerprint, fingerprint(&success));
        let human = Failure::new(Class::NeedsHuman, AUTHENTICATION_NEEDED, "no");
        assert_eq!(get.stand_in(&attempt("-"), &human).await, None);
    }

    #[tokio::test]
    async fn a_token_known_to_have_expired_does_not_stand_in() {
        let mut bench = Bench::new();
        keep(&bench.kept(), TOKEN);
        keep(&bench.kept_of("schedd1.lab.test"), OTHER);
        let own = crate::token_file::read(&bench.kept()).unwrap().fingerprint();
        bench.expiries.push((own.to_string(), Timestamp::now() - SignedDuration::from_secs(1)));
        let world = bench.world();
        let success = action("GetVaultToken", &world).stand_in(&attempt("-"), &transient()).await.expect("the credd's");
        assert_eq!(
            fingerprint(&success),
            crate::token_file::read(&bench.kept_of("schedd1.lab.test")).unwrap().fingerprint()
        );
    }

    #[tokio::test]
    async fn another_services_token_never_stands_in() {
        let mut bench = Bench::new();
        bench.service.credds = Credds::Collector { collectors: vec![], constraint: None };
        // Of the issuer services `x-dune_production` and `schedd1.lab-dune_production`, and one without a host name.
        for name in ["x", "schedd1.lab.test-x", "schedd1"] {
            keep(&bench.kept_of(name), OTHER);
        }
        let get = action("GetVaultToken", &bench.world());
        assert_eq!(get.stand_in(&attempt("-"), &transient()).await, None);
        keep(&bench.kept_of("schedd2.lab.test"), TOKEN);
        assert!(get.stand_in(&attempt("-"), &transient()).await.is_some());
    }

    #[tokio::test]
    async fn a_recorded_token_is_reused_while_it_is_the_kept_one_and_good_enough() {
        let bench = Bench::new();
        keep(&bench.kept(), TOKEN);
        let world = bench.world();
        let get = action("GetVaultToken", &world);
        let print = crate::token_file::read(&bench.kept()).unwrap().fingerprint();
        let detail = |hours| {
            let at = Timestamp::now() + SignedDuration::from_hours(hours);
            serde_json::json!({ "fingerprint": print, "expires_at": at, "kept": bench.kept() })
        };
        let state = |detail: &serde_json::Value| get.product_state(Some(&subject()), Some(detail));
        assert_eq!(state(&detail(167)), ProductState::Usable("kept token unchanged, valid for 6d 22h".to_owned()));
        // minTokenLifetime is three days.
        assert!(matches!(state(&detail(71)), ProductState::Lost(why) if why.contains("3d 0h are asked for")));
        assert!(matches!(state(&detail(-1)), ProductState::Lost(why) if why.contains("expired")));
        let unknown = serde_json::json!({ "fingerprint": print, "kept": bench.kept() });
        assert!(matches!(state(&unknown), ProductState::Lost(_)));

        get.adopt(Some(&subject()), Some(&detail(167))).unwrap();
        assert_eq!(world.service(Some(&subject())).unwrap().shared().token.unwrap().fingerprint, print);
        keep(&bench.kept(), OTHER);
        assert!(matches!(state(&detail(167)), ProductState::Lost(why) if why.contains("another one")));
        assert!(get.adopt(Some(&subject()), Some(&detail(167))).is_err());
    }

    #[tokio::test]
    async fn resume_asks_for_the_lifetime_of_an_inherited_htgettokenopts() {
        let mut bench = Bench::new();
        bench.variables.push(("HTGETTOKENOPTS".to_owned(), "--vaulttokenminttl=1h".to_owned()));
        keep(&bench.kept(), TOKEN);
        let print = crate::token_file::read(&bench.kept()).unwrap().fingerprint();
        let at = Timestamp::now() + SignedDuration::from_hours(2);
        let detail = serde_json::json!({ "fingerprint": print, "expires_at": at, "kept": bench.kept() });
        let get = action("GetVaultToken", &bench.world());
        assert!(matches!(get.product_state(Some(&subject()), Some(&detail)), ProductState::Usable(_)));
    }
}

mod store_in_credd {
    use super::*;

    const CREDD: &str = "schedd1.lab.test";
    /// Says which token it was given, and leaves a new one.
    const STORER: &str = r#"
        # CONDOR_VAULT_STORER_ID
        id=${CONDOR_VAULT_STORER_ID:-$OLD_ID}; file=/tmp/vt_$id-$2
        cat "$file" >>"$OUT/given" 2>/dev/null || echo none >>"$OUT/given"
        echo "$_condor_CREDD_HOST|$_condor_SEC_CREDENTIAL_GETTOKEN_OPTS|$BEARER_TOKEN_FILE" >>"$OUT/env"
        umask 077; rm -f "$file"; echo hvs.NEWNEWNEWNEWNEWNEWNEWNEWNEWNEW >"$file"; cp "$file" /tmp/vt_$id
        exit ${FAIL:-0}"#;

    fn storer(bench: &Bench, head: &str) {
        let text = STORER.replace("$OUT", &bench.path("").display().to_string());
        bench.script("condor_vault_storer", &format!("{head}\n{text}"));
    }

    fn read(bench: &Bench, name: &str) -> String {
        fs::read_to_string(bench.path(name)).unwrap_or_default()
    }

    #[tokio::test]
    async fn every_run_has_names_of_its_own_in_tmp_and_leaves_none_there() {
        let bench = Bench::new();
        storer(&bench, "");
        keep(&bench.kept_of(CREDD), TOKEN);
        let world = bench.world();
        let success = try_once("StoreInCredd", CREDD, &world).await.unwrap();
        assert_eq!(read(&bench, "given").trim(), TOKEN, "the kept token of that credd is staged before");
        assert!(fs::read_to_string(bench.kept_of(CREDD)).unwrap().starts_with("hvs.NEW"), "and collected after");
        assert_eq!(fingerprint(&success), crate::token_file::read(&bench.kept_of(CREDD)).unwrap().fingerprint());
        let env = read(&bench, "env");
        assert!(env.starts_with("schedd1.lab.test|-a vault.lab.test|"), "{env}");
        assert!(env.contains(&bench.path("private").display().to_string()), "{env}");
        assert_eq!(bench.in_tmp(), Vec::<String>::new());
        assert_eq!(bench.in_private(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_failure_leaves_nothing_in_tmp_and_the_kept_token_as_it_was() {
        let bench = Bench::new();
        storer(&bench, "FAIL=1");
        keep(&bench.kept_of(CREDD), TOKEN);
        let result = try_once("StoreInCredd", CREDD, &bench.world()).await;
        assert_eq!(code(result), (Class::Transient, STORER_FAILED));
        assert_eq!(fs::read_to_string(bench.kept_of(CREDD)).unwrap().trim(), TOKEN);
        assert_eq!(bench.in_tmp(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn an_attempt_that_is_dropped_leaves_nothing_in_tmp() {
        let bench = Bench::new();
        bench.script("condor_vault_storer", "# CONDOR_VAULT_STORER_ID\nexec sleep 60");
        keep(&bench.kept_of(CREDD), TOKEN);
        let attempt = attempt(CREDD);
        let store = action("StoreInCredd", &bench.world());
        attempt.cancel.cancel();
        assert_eq!(code(store.attempt(&attempt).await).0, Class::Timeout);
        assert_eq!(bench.in_tmp(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn an_old_storer_shares_one_name_and_what_was_there_is_put_back() {
        let bench = Bench::new();
        let text =
            STORER.replace("$OUT", &bench.path("").display().to_string()).replace("# CONDOR_VAULT_STORER_ID", "");
        let text = text.replace("${CONDOR_VAULT_STORER_ID:-$OLD_ID}", &format!("u{}", bench.own_uid));
        bench.script("condor_vault_storer", &text);
        let (name, copy) =
            (format!("/tmp/vt_u{}-dune_production", bench.own_uid), format!("/tmp/vt_u{}", bench.own_uid));
        keep(Path::new(&name), OTHER);
        let world = bench.world();
        let result = try_once("StoreInCredd", CREDD, &world).await;
        let (there, left) = (fs::read_to_string(&name), bench.in_tmp());
        fs::remove_file(&name).unwrap();
        result.unwrap();
        assert_eq!(there.unwrap().trim(), OTHER);
        assert_eq!(left.len(), 1, "{left:?}: the copy {copy} was not there before");
        assert_eq!(read(&bench, "given").trim(), "none", "somebody else's token is not the kept one");
        assert!(bench.path("state/storer.lock").exists());
    }

    #[tokio::test]
    async fn a_link_planted_at_the_shared_name_is_not_followed() {
        let bench = Bench::new();
        let text = STORER.replace("CONDOR_VAULT_STORER_ID", "X");
        bench.script("condor_vault_storer", &text);
        let name = format!("/tmp/vt_u{}-dune_production", bench.own_uid);
        keep(&bench.path("victim"), OTHER);
        symlink(bench.path("victim"), &name).unwrap();
        let result = try_once("StoreInCredd", CREDD, &bench.world()).await;
        let still_there = fs::symlink_metadata(&name).is_ok();
        fs::remove_file(&name).ok();
        assert_eq!(code(result), (Class::Permanent, STORER_FILES));
        assert!(bench.log("condor_vault_storer").is_empty() && still_there);
    }

    #[tokio::test]
    async fn credds_are_asked_of_the_collectors_in_order_and_once() {
        let mut bench = Bench::new();
        let collectors = vec!["one.lab.test".to_owned(), "two.lab.test".to_owned()];
        bench.service.credds = Credds::Collector { collectors, constraint: Some("IsJobsubLite==true".to_owned()) };
        bench.script("condor_status", "[ $2 = one.lab.test ] && exit 1\necho b.lab.test; echo a.lab.test");
        let world = bench.world();
        let store = action("StoreInCredd", &world);
        for _ in 0..3 {
            let targets = store.targets(&attempt("-"), &[]).await.unwrap();
            assert_eq!(targets, [TargetName::new("a.lab.test"), TargetName::new("b.lab.test")]);
        }
        let asked = "-constraint IsJobsubLite==true -schedd -af Name";
        assert_eq!(bench.log("condor_status"), format!("-pool one.lab.test {asked}\n-pool two.lab.test {asked}\n"));
    }

    #[tokio::test]
    async fn the_recorded_credds_hold_when_no_collector_answers() {
        let mut bench = Bench::new();
        bench.service.credds = Credds::Collector { collectors: vec![], constraint: None };
        bench.script("condor_status", "echo 'Error: communication error' >&2; exit 1");
        let store = action("StoreInCredd", &bench.world());
        let recorded = [TargetName::new("a.lab.test")];
        assert_eq!(store.targets(&attempt("-"), &recorded).await.unwrap(), recorded);
        let failure = store.targets(&attempt("-"), &[]).await.unwrap_err();
        assert_eq!((failure.class, failure.code), (Class::Transient, COLLECTOR_UNREACHABLE));
    }

    #[tokio::test]
    async fn a_service_without_credds_has_no_targets() {
        let mut bench = Bench::new();
        bench.service.token_getter = crate::config::TokenGetter::GetToken;
        let store = action("StoreInCredd", &bench.world());
        assert_eq!(store.targets(&attempt("-"), &[]).await.unwrap(), []);
        assert!(!store.is_configured(Some(&subject()), &TargetName::new(CREDD)));
    }

    #[tokio::test]
    async fn a_credd_from_the_records_that_is_no_host_name_reaches_no_path() {
        let bench = Bench::new();
        storer(&bench, "");
        let result = try_once("StoreInCredd", "../../x", &bench.world()).await;
        assert_eq!(code(result).0, Class::Permanent);
        assert!(bench.log("condor_vault_storer").is_empty());
        assert_eq!(CreddName::checked("x").as_str(), "x");
    }

    #[test]
    fn what_a_killed_process_left_in_tmp_is_found_by_its_id() {
        let bench = Bench::new();
        let (ours, other) =
            (format!("/tmp/vt_mt{}-3-x_y", bench.process), format!("/tmp/vt_mt{}", ProcessId::generate()));
        keep(Path::new(&ours), TOKEN);
        keep(Path::new(&other), TOKEN);
        crate::steps::storer::remove_leftovers(bench.process);
        let spared = fs::remove_file(&other).is_ok();
        assert!(!Path::new(&ours).exists() && spared);
    }
}

mod nodes {
    use super::*;

    const NODE: &str = "node1.lab.test";

    /// A world with a token to push.
    fn with_token(bench: &Bench) -> Arc<World> {
        let world = bench.world();
        keep(&bench.kept(), TOKEN);
        let print = crate::token_file::read(&bench.kept()).unwrap().fingerprint();
        let at = Timestamp::now() + SignedDuration::from_hours(167);
        let detail = serde_json::json!({ "fingerprint": print, "expires_at": at, "kept": bench.kept() });
        action("GetVaultToken", &world).adopt(Some(&subject()), Some(&detail)).unwrap();
        world
    }

    #[tokio::test]
    async fn a_ping_has_the_configured_options_and_no_operand_but_the_node() {
        let mut bench = Bench::new();
        bench.script("ping", "");
        bench.service.ping_options = vec!["-W".to_owned(), "2".to_owned()];
        try_once("Ping", NODE, &bench.world()).await.unwrap();
        assert_eq!(bench.log("ping").trim(), "-W 2 -- node1.lab.test");
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_a_ping_gets_one_push_attempt() {
        let bench = Bench::new();
        bench.script("ping", "exit 1");
        bench.script("rsync", "echo 'ssh: connect to host node1 port 22: Connection refused' >&2; exit 255");
        let world = with_token(&bench);
        assert!(!try_once("Push", NODE, &world).await.unwrap_err().last);
        assert_eq!(code(try_once("Ping", NODE, &world).await), (Class::Transient, NODE_UNPINGABLE));
        let failure = try_once("Push", NODE, &world).await.unwrap_err();
        assert!(failure.last && failure.code == SSH_REFUSED, "{failure:?}");
        assert!(!try_once("Push", "node2.lab.test", &world).await.unwrap_err().last);
    }

    #[tokio::test]
    async fn one_rsync_carries_all_the_files_of_a_node() {
        let bench = Bench::new();
        bench.script(
            "rsync",
            &format!("for f in tmp/*; do stat -c '%a %n' $f; cat $f; done >{}", bench.path("sent").display()),
        );
        try_once("Push", NODE, &with_token(&bench)).await.unwrap();
        let log = bench.log("rsync");
        assert_eq!(log.lines().count(), 1, "{log}");
        let tail =
            "-- tmp/vt_u1234 tmp/vt_u1234-dune_production tmp/default_role_dune_1234 dunepro@node1.lab.test:/tmp/";
        assert!(log.trim().ends_with(tail) && log.contains("--perms --chmod=u=r,go= -e ssh -o BatchMode=yes"), "{log}");
        let sent = fs::read_to_string(bench.path("sent")).unwrap();
        let expected = format!(
            "600 tmp/default_role_dune_1234\nproduction\n600 tmp/vt_u1234\n{TOKEN}\n600 tmp/vt_u1234-dune_production\n{TOKEN}\n"
        );
        assert_eq!(sent, expected);
        assert_eq!(bench.in_private(), Vec::<String>::new(), "what was staged goes away");
    }

    #[tokio::test]
    async fn a_default_role_file_elsewhere_goes_with_the_same_rsync() {
        let mut bench = Bench::new();
        bench.service.default_role_file_template = "/srv/roles/{{.DesiredUID}}".to_owned();
        bench.script("rsync", "cat srv/roles/1234 >/dev/null");
        try_once("Push", NODE, &with_token(&bench)).await.unwrap();
        let log = bench.log("rsync");
        assert!(log.contains("--relative --no-implied-dirs"), "{log}");
        assert!(log.trim().ends_with("tmp/vt_u1234-dune_production srv/roles/1234 dunepro@node1.lab.test:/"), "{log}");
    }

    #[tokio::test]
    async fn a_default_role_file_that_fails_alone_is_a_note() {
        let bench = Bench::new();
        let says = "rsync: [receiver] mkstemp \"/tmp/.default_role_dune_1234.Ab\" failed: Permission denied (13)";
        bench.script("rsync", &format!("echo '{says}' >&2; exit 23"));
        let success = try_once("Push", NODE, &with_token(&bench)).await.unwrap();
        assert!(success.note.unwrap().contains("default role file was not pushed"));
        assert_eq!(bench.log("rsync").lines().count(), 1);
    }

    #[tokio::test]
    async fn a_default_role_file_that_spoils_the_transfer_is_left_out() {
        let bench = Bench::new();
        let says = "rsync: [receiver] write failed on \"/tmp/default_role_dune_1234\": No space left on device (28)";
        bench.script("rsync", &format!("case \"$*\" in *default_role*) echo '{says}' >&2; exit 11;; esac"));
        let success = try_once("Push", NODE, &with_token(&bench)).await.unwrap();
        assert!(success.note.unwrap().contains("No space left"));
        assert_eq!(bench.log("rsync").lines().count(), 2);
    }

    #[tokio::test]
    async fn nothing_is_pushed_without_a_uid_or_a_token() {
        let mut bench = Bench::new();
        bench.script("rsync", "");
        assert_eq!(code(try_once("Push", NODE, &bench.world()).await), (Class::Permanent, TOKEN_FILE));
        bench.uid = None;
        assert_eq!(code(try_once("Push", NODE, &with_token(&bench)).await), (Class::Permanent, UID_UNKNOWN));
        assert_eq!(bench.log("rsync"), "");
    }

    #[tokio::test]
    async fn a_target_that_is_no_configured_node_reaches_no_command_line() {
        let bench = Bench::new();
        bench.script("rsync", "");
        bench.script("ping", "");
        let world = with_token(&bench);
        for name in ["Ping", "Push"] {
            assert_eq!(code(try_once(name, "-oProxyCommand=x", &world).await).0, Class::Permanent);
        }
        assert_eq!((bench.log("rsync"), bench.log("ping")), (String::new(), String::new()));
    }
}

mod exec {
    use super::*;

    fn exec(text: &str, per: Per, world: &Arc<World>) -> Arc<dyn Action> {
        build(&step("Exec", Some(text), per), world).unwrap()
    }

    #[tokio::test]
    async fn a_sites_program_finds_what_it_needs_in_its_environment() {
        let bench = Bench::new();
        bench.script("hook", &format!("env | grep -E '^(MT_|KRB5)' | sort >{}", bench.path("env").display()));
        let action = exec(r#"(command: ["hook", "a b"])"#, Per::Node, &bench.world());
        let attempt = attempt("node1.lab.test");
        action.attempt(&attempt).await.unwrap();
        let env = fs::read_to_string(bench.path("env")).unwrap();
        let cache = bench.path("private/krb5cc_dune_production");
        let expected = format!(
            "KRB5CCNAME=FILE:{}\nMT_ACCOUNT=dunepro\nMT_EXPERIMENT=dune\nMT_ROLE=production\nMT_RUN={}\n\
             MT_SERVICE=dune_production\nMT_TARGET=node1.lab.test\nMT_UID=1234\n",
            cache.display(),
            attempt.run
        );
        assert_eq!(
            env.lines().filter(|line| !line.starts_with("MT_PROCESS")).map(|l| format!("{l}\n")).collect::<String>(),
            expected
        );
        assert_eq!(action.targets(&attempt, &[]).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn exit_code_75_is_tried_again_and_others_are_not() {
        let bench = Bench::new();
        for (text, expected) in
            [("exit 75", (Class::Transient, EXEC_TEMPORARY)), ("exit 3", (Class::Permanent, EXEC_FAILED))]
        {
            bench.script("hook", text);
            let action = exec(r#"(command: ["hook"])"#, Per::Subject, &bench.world());
            assert_eq!(code(action.attempt(&attempt("-")).await), expected);
        }
    }

    #[test]
    fn what_cannot_be_built_says_why() {
        let world = Bench::new().world();
        let unknown = build(&step("Teleport", None, Per::Subject), &world).err();
        assert!(matches!(unknown, Some(BuildError::UnknownAction { .. })));
        let empty = build(&step("Exec", Some("(command: [])"), Per::Subject), &world).err();
        assert!(matches!(empty, Some(BuildError::Arguments { .. })));
        let surplus = build(&step("Kinit", Some("(x: 1)"), Per::Subject), &world).err();
        assert!(matches!(surplus, Some(BuildError::Arguments { .. })));
    }
}

#[test]
fn every_code_is_explained_once() {
    let numbers: Vec<u16> = EXPLANATIONS.iter().map(|(code, _, _)| code.0).collect();
    assert_eq!(numbers, (20..=66).collect::<Vec<_>>());
}

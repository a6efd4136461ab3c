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
    let started = bench.path("started");
    let text = format!("# CONDOR_VAULT_STORER_ID\n>{}\nexec sleep 60", started.display());
    bench.script("condor_vault_storer", &text);
    keep(&bench.kept_of(CREDD), TOKEN);
    let attempt = attempt(CREDD);
    let store = action("StoreInCredd", &bench.world());
    let (ended, ()) = tokio::join!(store.attempt(&attempt), async {
        until("the storer is started", || started.exists()).await;
        assert_ne!(bench.in_tmp(), Vec::<String>::new(), "the kept token is there for the storer");
        attempt.cancel.cancel();
    });
    assert_eq!(code(ended).0, Class::Timeout);
    assert_eq!(bench.in_tmp(), Vec::<String>::new());
}

#[tokio::test]
async fn an_old_storer_shares_one_name_and_what_was_there_is_put_back() {
    let bench = Bench::new();
    let text = STORER.replace("$OUT", &bench.path("").display().to_string()).replace("# CONDOR_VAULT_STORER_ID", "");
    let text = text.replace("${CONDOR_VAULT_STORER_ID:-$OLD_ID}", &format!("u{}", bench.own_uid));
    bench.script("condor_vault_storer", &text);
    let (name, copy) = (format!("/tmp/vt_u{}-dune_production", bench.own_uid), format!("/tmp/vt_u{}", bench.own_uid));
    keep(Path::new(&name), OTHER);
    let world = bench.world();
    let result = try_once("StoreInCredd", CREDD, &world).await;
    let (there, left) = (fs::read_to_string(&name), bench.in_tmp());
    fs::remove_file(&name).unwrap();
    result.unwrap();
    assert_eq!(there.unwrap().trim(), OTHER);
    assert_eq!(left.len(), 1, "{left:?}: the copy {copy} was not there before");
    assert_eq!(read(&bench, "given").trim(), "none", "somebody else's token is not the kept one");
    assert!(bench.path("locks/storer.lock").exists());
}

#[tokio::test]
async fn an_old_storer_takes_its_turn_when_the_state_directory_cannot_be_used() {
    let mut bench = Bench::new();
    bench.service.token_directory = Some(bench.path("private"));
    fs::remove_dir_all(bench.path("state")).unwrap();
    fs::write(bench.path("state"), "no directory").unwrap();
    let text = STORER.replace("$OUT", &bench.path("").display().to_string()).replace("CONDOR_VAULT_STORER_ID", "OLD");
    bench.script("condor_vault_storer", &text.replace("${OLD:-$OLD_ID}", &format!("u{}", bench.own_uid)));
    try_once("StoreInCredd", CREDD, &bench.world()).await.unwrap();
    assert!(bench.path("locks/storer.lock").exists());
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
async fn collectors_that_all_hang_leave_time_to_say_so_and_to_use_the_recorded_credds() {
    let mut bench = Bench::new();
    let collectors: Vec<String> = (1..=6).map(|n| format!("c{n}.lab.test")).collect();
    bench.service.credds = Credds::Collector { collectors: collectors.clone(), constraint: None };
    bench.script("condor_status", "exec sleep 1000");
    let world = bench.world();
    let store = action("StoreInCredd", &world);
    // The step's time is the driver's business: here nothing else ends the question.
    let short = Attempt { timeout: Duration::from_millis(1_200), ..attempt("-") };
    let failure = store.targets(&short, &[]).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Timeout, COLLECTOR_UNREACHABLE));
    assert!(failure.message.contains("did not end within 0.1s"), "each has its share: {failure:?}");
    assert!(collectors.iter().all(|collector| failure.message.contains(collector)), "{failure:?}");
    assert_eq!(bench.log("condor_status").lines().count(), 6, "each was asked");
    let recorded = [TargetName::new("a.lab.test")];
    assert_eq!(store.targets(&short, &recorded).await.unwrap(), recorded);
    assert_eq!(bench.log("condor_status").lines().count(), 6, "and none once more");
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

#[tokio::test]
async fn no_credd_gets_the_place_of_another_services_kept_token() {
    let mut bench = Bench::new();
    bench.issuers.push("x-dune_production");
    storer(&bench, "");
    let failure = try_once("StoreInCredd", "x", &bench.world()).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Permanent, STORER_FILES));
    assert!(failure.message.contains("x-dune_production"), "{failure:?}");
    assert!(bench.log("condor_vault_storer").is_empty());
}

#[test]
fn what_a_killed_process_left_in_tmp_is_found_by_its_id() {
    let bench = Bench::new();
    let (ours, other) = (format!("/tmp/vt_mt{}-3-x_y", bench.process), format!("/tmp/vt_mt{}", ProcessId::generate()));
    keep(Path::new(&ours), TOKEN);
    keep(Path::new(&other), TOKEN);
    crate::guardian::remove_marked(Path::new("/tmp"), bench.process).unwrap();
    let spared = fs::remove_file(&other).is_ok();
    assert!(!Path::new(&ours).exists() && spared);
}

/// What htgettoken says of a vault that takes a login for a replay, as recorded.
const TURNED_DOWN: &str = "htgettoken: Kerberos negotiate with \
    https://vault.lab.test:8200/v1/auth/kerberos-dune_production/login failed: HTTPError: Unauthorized:";

#[tokio::test]
async fn a_login_that_the_vault_takes_for_a_replay_is_tried_once_more() {
    let bench = Bench::new();
    let (tried, turned_down) = (bench.path("tried"), format!("echo '{TURNED_DOWN}' >&2; exit 1"));
    let first = format!("# CONDOR_VAULT_STORER_ID\n[ -e {0} ] || {{ : >{0}; {turned_down}; }}", tried.display());
    storer(&bench, &first);
    try_once("StoreInCredd", CREDD, &bench.world()).await.unwrap();
    assert_eq!(bench.log("condor_vault_storer").lines().count(), 2);
}

#[tokio::test]
async fn a_login_that_the_vault_turns_down_again_has_failed() {
    let bench = Bench::new();
    let turned_down = format!("echo '{TURNED_DOWN}' >&2; exit 1");
    bench.script("condor_vault_storer", &format!("# CONDOR_VAULT_STORER_ID\n{turned_down}"));
    bench.script("htgettoken", &turned_down);
    let world = bench.world();
    assert_eq!(code(try_once("StoreInCredd", CREDD, &world).await), (Class::Transient, VAULT_KERBEROS));
    assert_eq!(code(try_once("GetVaultToken", "-", &world).await), (Class::Transient, VAULT_KERBEROS));
    for program in ["condor_vault_storer", "htgettoken"] {
        assert_eq!(bench.log(program).lines().count(), 2, "{program}");
    }
}

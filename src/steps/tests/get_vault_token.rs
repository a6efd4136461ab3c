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
async fn whoever_waits_for_a_kept_files_lock_keeps_nobody_else_from_working() {
    let mut bench = Bench::new();
    keep(&bench.kept(), OTHER);
    bench.htgettoken(TOKEN);
    // Nothing is asked for before the kept file.
    bench.variables.push(("_condor_SEC_CREDENTIAL_GETTOKEN_OPTS".to_owned(), "-a vault.lab.test".to_owned()));
    let name = format!(".{}.lock", bench.kept().file_name().unwrap().to_str().unwrap());
    let lock = bench.kept().with_file_name(name);
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock).unwrap();
    lock.lock().unwrap();
    let world = bench.world();
    // One thread for both: the lock is let go only if the other task is let in.
    let (result, ()) = tokio::join!(try_once("GetVaultToken", "-", &world), async {
        tokio::task::yield_now().await;
        drop(lock);
    });
    result.unwrap();
    let staged = world.service(Some(&subject())).unwrap().shared().token.unwrap().staged;
    assert_eq!(fs::read_to_string(staged).unwrap().trim(), OTHER, "the kept token was used");
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
async fn an_htcondor_configuration_that_hangs_is_waited_for_once_and_not_by_one_service_after_the_other() {
    let bench = Bench::new();
    bench.script("condor_config_val", "exec sleep 60");
    let world = bench.world();
    let cancel = CancellationToken::new();
    for _ in 0..3 {
        let options = crate::steps::vault_options::resolve(&world, &bench.service, &cancel).await.unwrap();
        assert_eq!(options.server, "vault.lab.test");
    }
    assert_eq!(bench.log("condor_config_val").lines().count(), 1);
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

/// A vault that takes connections and never answers. It ends with its stdin.
fn mute_vault(bench: &Bench) -> (std::process::Child, String) {
    use std::io::BufRead;
    let file = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let (ca, ca_key, own, own_key) = (file("ca.pem"), file("ca.key"), file("vault.pem"), file("vault.key"));
    let make = |rest: &[&str]| {
        let common = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let made = std::process::Command::new("openssl").args(common).args(rest).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    };
    make(&["-subj", "/CN=ca", "-keyout", &ca_key, "-out", &ca]);
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"];
    make(
        &[["-subj", "/CN=vault", "-CA", &ca, "-CAkey", &ca_key, "-keyout", &own_key, "-out", &own].as_slice(), &leaf]
            .concat(),
    );
    let mut server = std::process::Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-cert", &own, "-key", &own_key])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(server.stdout.take().unwrap()).lines();
    let place = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT 127.0.0.1:").map(str::to_owned)).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    (server, format!("localhost:{place}"))
}

#[tokio::test]
async fn a_vault_that_takes_connections_and_never_answers_does_not_keep_the_kept_token_from_standing_in() {
    let mut bench = Bench::new();
    keep(&bench.kept(), TOKEN);
    let (mut vault, place) = mute_vault(&bench);
    bench.service.vault_server = Some(place);
    bench.variables.push(("SSL_CERT_FILE".to_owned(), bench.path("ca.pem").to_str().unwrap().to_owned()));
    let get = action("GetVaultToken", &bench.world());
    // A failure that says nothing of the vault's connections, so that it is asked.
    let failure = Failure::new(Class::Transient, AUTHENTICATION_NEEDED, "internal server error");
    // As the engine does it.
    let within = crate::workflow::driver::STAND_IN_WITHIN;
    let found = tokio::time::timeout(within, get.stand_in(&attempt("-"), &failure)).await;
    vault.kill().unwrap();
    vault.wait().unwrap();
    let note = found.expect("in time").expect("a stand-in").note.unwrap();
    assert!(note.contains("expiry is not known"), "{note}");
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
    // Of the issuer services `x-dune_production` and `schedd1.lab-dune_production`, and two without a host name.
    bench.issuers.push("schedd1.lab-dune_production");
    for name in ["x", "schedd1.lab", "schedd1.lab.test-x", "schedd1"] {
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

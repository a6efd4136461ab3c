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
    let tail = "-- tmp/vt_u1234 tmp/vt_u1234-dune_production tmp/default_role_dune_1234 dunepro@node1.lab.test:/tmp/";
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
    assert!(log.trim().ends_with("./tmp/vt_u1234-dune_production ./srv/roles/1234 dunepro@node1.lab.test:/"), "{log}");
}

#[tokio::test]
async fn a_path_with_a_colon_is_no_other_host_for_rsync() {
    let mut bench = Bench::new();
    bench.service.default_role_file_template = "/evil:x/role".to_owned();
    bench.script("rsync", "cat ./evil:x/role >/dev/null");
    try_once("Push", NODE, &with_token(&bench)).await.unwrap();
    let log = bench.log("rsync");
    assert!(log.trim().ends_with(" ./evil:x/role dunepro@node1.lab.test:/"), "{log}");
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

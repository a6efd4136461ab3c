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
    let (ended, ()) = tokio::join!(kinit.attempt(&attempt), async {
        until("kinit is started", || !bench.log("kinit").is_empty()).await;
        attempt.cancel.cancel();
    });
    assert_eq!(code(ended), (Class::Timeout, KDC_UNREACHABLE));
}

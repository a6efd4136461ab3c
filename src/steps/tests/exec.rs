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

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::cpu_time;

#[test]
fn every_kind_of_token_goes_and_the_words_around_it_stay() {
    for (text, expected) in [
        ("got hvs.CAESIJ0aB_c-Dd12 from it", "got [redacted] from it"),
        ("hvb.AAAAAQJ_0123456789.ns1, next", "[redacted], next"),
        ("vt=s.0123456789abcdefABCDEFgh.", "vt=[redacted]."),
        ("b.AAAAAQI-0123456789_0123456789", "[redacted]"),
        ("token eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln!", "token [redacted]!"),
        ("> X-Vault-Token: abc123", "> X-Vault-Token: [redacted]"),
        (r#"{"X-Vault-Token": "abc123"}"#, r#"{"X-Vault-Token": [redacted]}"#),
        ("Authorization: Bearer opaque", "Authorization: [redacted]"),
        ("authorization:Basic dXNlcjpwYXNz\nnext", "authorization:[redacted]\nnext"),
        ("with bearer 0123456789abcdef0123", "with bearer [redacted]"),
        ("password=hunter2&user=me", "password=[redacted]&user=me"),
        (r#"db_password: "correct horse", x"#, "db_password: [redacted], x"),
        (r#"{"client_token":"root"}"#, r#"{"client_token":[redacted]}"#),
        ("password='a b password='hunter2 x", "password=[redacted] x"),
        // JSON in a string of JSON, and a quote in a value.
        (r#"{"body":"{\"client_token\":\"root\",\"x\":1}"}"#, r#"{"body":"{\"client_token\":[redacted],\"x\":1}"}"#),
        (r#"{\\\"password\\\": \\\"a b\\\"}"#, r#"{\\\"password\\\": [redacted]}"#),
        (r#"{"password":"hun\"ter2 x", "y": 1}"#, r#"{"password":[redacted], "y": 1}"#),
        ("VAULT_TOKEN=root mt", "VAULT_TOKEN=[redacted] mt"),
        // In a URL.
        ("/?password%3Dhunter2&x", "/?password%3D[redacted]&x"),
        ("%22password%22%3A+%22hunter2%22", "%22password%22%3A+%22[redacted]"),
        ("Authorization%3A%20Bearer%20abc&x", "Authorization%3A%20[redacted]&x"),
        ("https://me:hunter2@proxy/x", "https://[redacted]@proxy/x"),
        ("https://me:p@ss@proxy/x", "https://[redacted]@proxy/x"),
        ("https://me:p/ss@proxy/x", "https://[redacted]@proxy/x"),
        ("POST https://hooks.slack.com/services/T0/B0/x", "POST https://[redacted]"),
    ] {
        assert_eq!(redact(text), expected);
    }
}

#[test]
fn an_authorization_goes_whatever_its_scheme_is() {
    for (text, expected) in [
        ("> Authorization: ApiKey 0123 4567\nnext", "> Authorization: [redacted]\nnext"),
        ("Authorization: Digest username=\"mt\", response=\"01\"\nnext", "Authorization: [redacted]\nnext"),
        ("curl -H 'Authorization: ApiKey 0123' https://x", "curl -H 'Authorization: [redacted]' https://x"),
        (r#"["Proxy-Authorization: ApiKey 0123", "x"]"#, r#"["Proxy-Authorization: [redacted]", "x"]"#),
        (r#"{\"h\":\"Authorization: ApiKey 0123\",\"x\":1}"#, r#"{\"h\":\"Authorization: [redacted]\",\"x\":1}"#),
        ("{'Authorization': b'ApiKey 0123', 'x': 1}", "{'Authorization': [redacted], 'x': 1}"),
        ("/?authorization=Bearer+0123&x", "/?authorization=[redacted]&x"),
    ] {
        assert_eq!(redact(text), expected);
    }
}

#[test]
fn a_named_value_goes_as_languages_and_people_write_it() {
    for (text, expected) in [
        ("{'password': b'hunter2', 'x': 1}", "{'password': [redacted], 'x': 1}"),
        ("login(password=u'hunter2', x=1)", "login(password=[redacted], x=1)"),
        ("{'X-Vault-Token': b'abc'}", "{'X-Vault-Token': [redacted]}"),
        (r"{'password': 'hun\'ter2 x', 'y': 1}", "{'password': [redacted], 'y': 1}"),
        (r#"{\"password\":\"hun\\\"ter2\",\"y\":1}"#, r#"{\"password\":[redacted],\"y\":1}"#),
        (r#"{"password":"hunter2\\","y":1}"#, r#"{"password":[redacted],"y":1}"#),
        ("password=hun'ter2 x", "password=[redacted] x"),
        ("password=a;b; x", "password=[redacted]; x"),
        ("user=me, password=a,b, x", "user=me, password=[redacted], x"),
        (r#"{"query":"password=hunter2","y":1}"#, r#"{"query":"password=[redacted]","y":1}"#),
        (r#""password\u003dhunter2\u0026x""#, r#""password\u003d[redacted]""#),
        ("X-Auth-Token: abc", "X-Auth-Token: [redacted]"),
        ("auth_token=abc accessToken: def", "auth_token=[redacted] accessToken: [redacted]"),
        ("%2522password%2522%253A%2522hunter2", "%2522password%2522%253A%2522[redacted]"),
    ] {
        assert_eq!(redact(text), expected);
    }
}

#[test]
fn a_private_key_goes_whole_or_cut_off() {
    let (begin, end) = ("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----");
    let lines = "MIIEvQIBADANBgkqhkiG9w0BAQEF\nAASCBKcwggSjAgEAAoIBAQ==\n";
    assert_eq!(redact(&format!("is:\n{begin}\n{lines}{end}\nnext")), "is:\n[redacted]\nnext");
    assert_eq!(redact(&format!("is:\n{begin}\n{lines}")), "is:\n[redacted]");
    assert_eq!(redact(&format!("{lines}{end}\nnext")), "[redacted]\nnext");
    let in_json = lines.replace('\n', "\\n");
    assert_eq!(redact(&format!(r#"{{"key":"{begin}\n{in_json}{end}\n"}}"#)), r#"{"key":"[redacted]\n"}"#);
    let certificate = format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----");
    assert_eq!(redact(&certificate), certificate);
}

#[test]
fn a_path_is_no_name_of_a_secret_and_hides_none() {
    for text in [
        "cannot read /etc/mt/smtp-password: Permission denied",
        "\"/etc/mt/secret\": Permission denied",
        "node1:/tmp/client_secret: No space left",
        "hvs.CAESIJ0aB0123456789abcdefghijkl\n/etc/managed-tokens/tokens/vt_u1000: gone",
    ] {
        let expected = text.replace("hvs.CAESIJ0aB0123456789abcdefghijkl", REDACTED);
        assert_eq!(redact(text), expected);
    }
    assert_eq!(redact("/x/password=hunter2"), "/x/password=[redacted]");
    assert_eq!(redact("/x/y: password: hunter2"), "/x/y: password: [redacted]");
    assert_eq!(redact("/x/password: password=hunter2"), "/x/password: password=[redacted]");
}

#[test]
fn a_token_in_other_clothes_goes_too() {
    let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJiYWJibGVkIn0.YmFiYmxlZC1zaWduYXR1cmU";
    let vault = "hvs.CAESIJ0aB-cDd12345678901234567890";
    for token in [jwt, vault] {
        for clothed in [
            token.replace('.', "%2E").replace('-', "%2d"),
            token.replace('.', "%252E").replace('-', "%252d"),
            token.replace('.', "\\u002e").replace('-', "\\u002D"),
            token.replace('.', "\\\\u002e").replace('I', "\\\\u0049"),
            token.replace('.', "\\x2e"),
            token.replace('I', "\\u0049"),
        ] {
            assert_eq!(redact(&format!("at /?jwt={clothed}&x")), "at /?jwt=[redacted]&x");
        }
    }
    assert_eq!(redact("x=s%2E0123456789abcdefABCDEFgh&y"), "x=[redacted]&y");
    // In base64 with nothing, "a" and "aa" before it.
    for encoded in [
        "aHZzLkNBRVNJSjBhQi1jRGQxMjM0NTY3ODkwMTIzNDU2Nzg5MA==",
        "YWh2cy5DQUVTSUowYUItY0RkMTIzNDU2Nzg5MDEyMzQ1Njc4OTA=",
        "YWFodnMuQ0FFU0lKMGFCLWNEZDEyMzQ1Njc4OTAxMjM0NTY3ODkw",
        "ZXlKaGJHY2lPaUpGVXpJMU5pSjkuZXlKemRXSWlPaUppWVdKaWJHVmtJbjA=",
    ] {
        let redacted = redact(encoded);
        assert!(redacted.len() <= 4 + REDACTED.len() && redacted.ends_with(REDACTED), "{redacted}");
    }
}

#[test]
fn a_wrapped_token_goes_with_all_its_lines() {
    let token = format!("eyJhbGciOiJFUzI1NiJ9.{}", "0123456789abcdefghijABCDEFGHIJ".repeat(12));
    for (before, between) in [("", "\n"), ("> ", "\r\n> "), ("  ", "=\n  ")] {
        let lines: Vec<&str> = token.as_bytes().chunks(60).map(|line| std::str::from_utf8(line).unwrap()).collect();
        // The last line is short enough to be a word of people's, and the rest is no token without the others.
        let text = format!("said:\n{before}{}\nand went away", lines[..lines.len() - 1].join(between));
        assert_eq!(redact(&text), format!("said:\n{before}[redacted]\nand went away"));
    }
}

#[test]
fn a_token_goes_wherever_it_is_wrapped_first() {
    for token in ["hvs.CAESIJ0aB-cDd12345678901234567890", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJiYWJibGVkIn0"] {
        for at in 1..token.len() - 24 {
            let (head, tail) = token.split_at(at);
            assert_eq!(redact(&format!("said: {head}\n> {tail} at last")), "said: [redacted] at last", "after {at}");
        }
    }
    for at in 2..24 {
        let (head, tail) = "s.0123456789abcdefABCDEFgh".split_at(at);
        assert_eq!(redact(&format!("said: {head}\n{tail} at last")), "said: [redacted] at last", "after {at}");
    }
}

#[test]
fn a_known_secret_goes_as_it_is_and_in_base64_wherever_it_stands_there() {
    let secret = Secret::new("labpass".to_owned());
    // "labpass", "\0labuser\0labpass", "\0a\0labpass", "\0ab\0labpass" and a password in the middle.
    for encoded in
        ["bGFicGFzcw==", "AGxhYnVzZXIAbGFicGFzcw==", "AGEAbGFicGFzcw==", "AGFiAGxhYnBhc3M=", "eGxhYnBhc3N4eA=="]
    {
        assert_eq!(secret.out_of(&format!("ä: {encoded} «{encoded}»")), "ä: [redacted] «[redacted]»", "{encoded}");
    }
    assert_eq!(secret.out_of("labpass, labuser xlabpass"), "[redacted], labuser x[redacted]");
    assert_eq!(Secret::new(String::new()).out_of("as it is"), "as it is");
}

#[test]
fn a_server_that_repeats_the_login_of_its_url_does_not_tell_it() {
    let url = |login: &str| Url::parse(&format!("https://{login}@x.example.org/")).unwrap();
    for (login, said, shown) in [
        ("mt:p%40ssw0rd", "no p@ssw0rd, no p%40ssw0rd of mt", "no [redacted], no [redacted] of mt"),
        ("mt:opaque", "Basic bXQ6b3BhcXVl is wrong", "Basic [redacted] is wrong"),
        ("opaquetoken", "not opaquetoken", "not [redacted]"),
    ] {
        assert_eq!(without_login(&url(login), said), shown);
    }
    assert_eq!(without_login(&Url::parse("https://x.example.org/").unwrap(), "as it is"), "as it is");
    assert_eq!(redact("Basic bXQ6aHVudGVyMnNlY3JldA== is wrong"), "Basic [redacted] is wrong");
}

#[test]
fn a_value_whose_quote_is_not_closed_goes() {
    for text in [r#"{"password":"hunter2"#, r#"{\"password\":\"hunter2"#, "password='hunter2"] {
        assert!(!redact(text).contains("hunter2"), "{text}");
    }
}

#[test]
fn ordinary_words_stay() {
    for text in [
        "ssh: connect to host dunegpvms.b.fnal.gov port 22: Connection refused",
        "s.b. is a host, hvs.fnal.gov too, and b.org",
        "htgettoken: Failure getting token from https://vault.fnal.gov:8200",
        "storing bearer token in /tmp/bt_u1000-dune_production",
        "kinit: Password incorrect while getting initial credentials",
        "dunepro@dunegpvm01.fnal.gov:/tmp/vt_u1234",
        "https://cilogon.org/device/?user_code=ABC-DEF-GHI",
        "dies\tund\ndas",
    ] {
        assert!(matches!(redact(text), Cow::Borrowed(same) if same == text), "{text:?} became {:?}", redact(text));
    }
}

#[test]
fn terminal_control_goes() {
    assert_eq!(redact("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\0y\r\nz\rw\u{202e}\u{9b}q"), "red xy\nz\nwq");
}

#[test]
fn half_a_token_goes_where_the_text_was_cut_off() {
    for text in ["token: hvs.CAE", "token: s.0123456789", "token: eyJhb", "token: hvs."] {
        assert_eq!(redact_unfinished(text), "token: [redacted]");
    }
    assert_eq!(redact_unfinished("at https://me:hunt"), "at https:[redacted]");
    assert_eq!(redact_unfinished("at https://host:84"), "at https://host:84");
    assert_eq!(redact_unfinished("connection to hvs.fnal.gov failed"), "connection to hvs.fnal.gov failed");
}

#[test]
fn a_secret_cannot_be_printed() {
    assert_eq!(format!("{:?}", Secret::new("hvs.x".to_owned())), "Secret(…)");
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        "hv[sbr]\\.[A-Za-z0-9_-]{24,120}",
        "s\\.[A-Za-z0-9]{24}",
        "b\\.AAAAA[A-Za-z0-9_-]{80,120}",
        "eyJ[A-Za-z0-9_-]{20,80}\\.eyJ[A-Za-z0-9_-]{20,200}\\.[A-Za-z0-9_-]{40,90}",
    ]
}

proptest! {
    #[test]
    fn a_token_never_survives_wherever_it_stands(before in any::<String>(), token in token(), after in any::<String>()) {
        let text = format!("{before}{token}{after}");
        let redacted = redact(&text);
        // Neither its end nor its beginning, unless the neighbourhood says it too.
        let secret = &token[token.len() - 12..];
        prop_assume!(!before.contains(secret) && !after.contains(secret));
        prop_assert!(!redacted.contains(secret), "{redacted:?}");
        prop_assert!(!redacted.contains(&token[..16]), "{redacted:?}");
    }

    #[test]
    fn a_coloured_token_does_not_survive(token in token(), at in 1usize..24) {
        let (head, tail) = token.split_at(at);
        let text = format!("{head}\x1b[31m{tail}\x1b[0m");
        prop_assert_eq!(redact(&text), REDACTED);
    }

    #[test]
    fn redacting_twice_changes_nothing_more(text in "(?s).{0,200}", token in token()) {
        let once = redact(&format!("{text} password={token} {text}")).into_owned();
        prop_assert_eq!(redact(&once), once.as_str());
    }

    #[test]
    fn text_of_short_words_is_unchanged(text in "([a-zA-Z0-9_-]{1,20}[ .:/\n\t]{1,2}){0,30}") {
        let lower = text.to_lowercase();
        let named = ["authorization", "passw", "passphrase", "secret", "bearer", "token", "key"];
        prop_assume!(!named.iter().any(|name| lower.contains(name)));
        prop_assume!(!text.contains("hv") && !text.contains("eyJ") && !text.contains("AAAA"));
        prop_assert_eq!(redact(&text), text.as_str());
    }
}

#[test]
fn a_text_made_to_be_slow_takes_time_in_proportion_to_its_length() {
    for piece in [
        "password=x ",
        "a password='x ",
        "password=\"x ",
        r#"password=\"x "#,
        r#"password=\\\'x '"#,
        "/a/password=",
        "/",
        "\\",
        "password=\\",
        "://a:",
        "://a:b@",
        "-----BEGIN PRIVATE KEY-----",
        "aaaa bbbb ",
        "hvs.\n",
        "s.\n> ",
        "eyJ\n",
        "'authorization: ",
        "authorization ",
        "hvs.AAAAAAAAA\n",
        "[redacted],",
    ] {
        let time = |length: usize| {
            let text = piece.repeat(length / piece.len());
            let times = [(); 2].map(|()| cpu_time::of(|| drop(redact(&text))));
            times[0].min(times[1])
        };
        let (short, long) = (time(2_000), time(32_000));
        // 16 times as long, on a machine that has more to do; the square would be 256 times.
        assert!(long < short * 128 + Duration::from_millis(50), "{piece:?}: {short:?} and {long:?}");
    }
}

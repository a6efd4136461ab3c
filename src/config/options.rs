//! `pingOptions`, `fileCopierOptions`, `sshOptions`: words, with the defaults that the configuration does not name.

/// What rsync gets unless the configuration says otherwise; then it gets what the configuration says and nothing else.
pub(super) const COPIER_DEFAULTS: &[&str] = &["--perms", "--chmod=u=r,go="];

const PING_DEFAULTS: &[(&str, &str)] = &[("-W", "5"), ("-c", "1")];
const SSH_DEFAULTS: &[(&str, &str)] =
    &[("ConnectTimeout", "30"), ("ServerAliveInterval", "30"), ("ServerAliveCountMax", "1")];
/// The options of ssh that take the next word.
const SSH_WITH_WORD: &str = "BbcDEeFIiJLlmOopQRSWw";

/// Words as a shell would split them; an error says what is wrong.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    if let Some(bad) = text.chars().find(|c| c.is_control() && !matches!(c, ' ' | '\t' | '\n')) {
        return Err(format!("holds a control character ({})", bad.escape_default()));
    }
    shell_words::split(text).map_err(|_| "a quote is not closed".to_owned())
}

/// The words after `ping`: the defaults that are not named, then the configured ones.
pub(super) fn ping(configured: &[String]) -> Vec<String> {
    let missing = PING_DEFAULTS.iter().filter(|(flag, _)| !configured.iter().any(|word| word.starts_with(flag)));
    let defaults = missing.flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
    defaults.chain(configured.iter().cloned()).collect()
}

/// The words after `ssh`: the configured ones (`Name=Value` may stand without its `-o`, as the Go service has it), then
/// the defaults that are not named. An error says what is wrong.
pub(super) fn ssh(configured: &[String]) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut named = Vec::new();
    let mut name = |option: &str| {
        named.push(option.split(['=', ' ']).next().unwrap_or_default().to_ascii_lowercase());
    };
    let mut rest = configured.iter();
    while let Some(word) = rest.next() {
        if let Some(option) = word.strip_prefix("-o").filter(|option| !option.is_empty()) {
            name(option);
            words.push(word.clone());
        } else if word.starts_with('-') {
            words.push(word.clone());
            if word.len() == 2 && word.ends_with(|flag| SSH_WITH_WORD.contains(flag)) {
                let value = rest.next().ok_or_else(|| format!("{word} takes a value, and none follows"))?;
                if word == "-o" {
                    name(value);
                }
                words.push(value.clone());
            }
        } else if word.contains('=') {
            name(word);
            words.extend(["-o".to_owned(), word.clone()]);
        } else {
            return Err(format!("ssh would take {word:?} for the host"));
        }
    }
    for (option, value) in SSH_DEFAULTS {
        if !named.contains(&option.to_ascii_lowercase()) {
            words.extend(["-o".to_owned(), format!("{option}={value}")]);
        }
    }
    Ok(words)
}

/// The vault server that htgettoken's options name: `-a V`, `-aV`, `--vaultserver V`, `--vaultserver=V`; the last wins.
pub(super) fn vault_server(options: &[String]) -> Option<&str> {
    let mut found = None;
    let mut rest = options.iter();
    while let Some(word) = rest.next() {
        if word == "-a" || word == "--vaultserver" {
            found = rest.next().map(String::as_str).or(found);
        } else if let Some(value) = word.strip_prefix("--vaultserver=") {
            found = Some(value);
        } else if let Some(value) = word.strip_prefix("-a") {
            found = Some(value.strip_prefix('=').unwrap_or(value));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap()
    }

    #[test]
    fn what_is_configured_wins_over_the_default_of_the_same_name() {
        assert_eq!(ping(&[]), words("-W 5 -c 1"));
        assert_eq!(ping(&words("-c 3 -I eth0")), words("-W 5 -c 3 -I eth0"));
        assert_eq!(ping(&words("-W2 -c2")), words("-W2 -c2"));
        let defaults = "-o ConnectTimeout=30 -o ServerAliveInterval=30 -o ServerAliveCountMax=1";
        assert_eq!(ssh(&[]).unwrap(), words(defaults));
        let given = ssh(&words("-o connecttimeout=5 -oServerAliveInterval=7 -o 'ServerAliveCountMax 2'")).unwrap();
        assert_eq!(given, words("-o connecttimeout=5 -oServerAliveInterval=7 -o 'ServerAliveCountMax 2'"));
    }

    #[test]
    fn ssh_options_may_stand_without_their_o_and_a_host_may_not() {
        let given = ssh(&words("ConnectTimeout=5 -i /etc/key -v")).unwrap();
        assert_eq!(given[..5], words("-o ConnectTimeout=5 -i /etc/key -v"));
        assert!(ssh(&words("dune01")).is_err());
        assert!(ssh(&words("-o BatchMode yes")).is_err());
        assert!(ssh(&words("-o")).is_err());
    }

    #[test]
    fn the_vault_server_is_found_where_htgettoken_finds_it() {
        let found = |text: &str| vault_server(&words(text)).map(str::to_owned);
        assert_eq!(found("-a vault.fnal.gov").as_deref(), Some("vault.fnal.gov"));
        assert_eq!(found("--vaulttokenminttl=3d -avault").as_deref(), Some("vault"));
        assert_eq!(found("--vaultserver vault -v").as_deref(), Some("vault"));
        assert_eq!(found("--vaultserver=one -a two").as_deref(), Some("two"));
        assert_eq!(found("-a one -a"), Some("one".to_owned()));
        assert_eq!(found("--credkey=x -v"), None);
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(split(r#"-e 'a b' "c d" e\ f"#).unwrap(), ["-e", "a b", "c d", "e f"]);
        assert!(split("'open").is_err());
        assert!(split("a\u{0}b").is_err());
    }
}

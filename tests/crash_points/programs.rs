//! The programs that `mt` calls, in a few lines of sh: they do to files what the real ones do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The programs. `@SITE@` is the site's directory. Faults are files in `@SITE@/faults`.
const PROGRAMS: &[(&str, &str)] = &[
    (
        "kinit",
        r#"for principal; do :; done
if [ -e "@SITE@/faults/kinit-${principal%%/*}" ]; then
  echo "kinit: Password incorrect while getting initial credentials" >&2; exit 1
fi
echo "$principal" >"${KRB5CCNAME#FILE:}""#,
    ),
    ("klist", r#"echo "Default principal: $(cat "${KRB5CCNAME#FILE:}")""#),
    (
        // Every token is a new one.
        "htgettoken",
        r#"while [ $# -gt 0 ]; do
  case $1 in --vaulttokenfile) token=$2;; -o) bearer=$2;; esac
  shift
done
umask 077
echo "hvs.$$.$(date +%s.%N).whole" | tee -a "@SITE@/log/issued" >"$token"
echo eyJ.bearer >"$bearer""#,
    ),
    ("condor_config_val", "echo 'Not defined: SEC_CREDENTIAL_GETTOKEN_OPTS' >&2; exit 1"),
    ("condor_status", "echo schedd1.lab.test; echo schedd2.lab.test"),
    (
        "condor_vault_storer",
        r#"# CONDOR_VAULT_STORER_ID
for service; do :; done
umask 077
echo "hvs.$$.$(date +%s.%N).whole" >"/tmp/vt_$CONDOR_VAULT_STORER_ID-$service"
cp "/tmp/vt_$CONDOR_VAULT_STORER_ID-$service" "/tmp/vt_$CONDOR_VAULT_STORER_ID"
echo eyJ.bearer >"$BEARER_TOKEN_FILE""#,
    ),
    // It leaves somebody behind who has left its group: only the guardian, or the next start, can end that one.
    ("ping", "setsid sleep 600 </dev/null >/dev/null 2>&1 &"),
    (
        "rsync",
        r#"files=; for word; do
  case $word in tmp/*) files="$files $word";; *@*:*) node=${word#*@}; node=${node%%:*};; esac
done
if [ -e "@SITE@/faults/rsync-$node" ]; then
  echo "rsync: [receiver] write failed on \"/tmp/vt\": No space left on device (28)" >&2
  echo "rsync error: error in file IO (code 11) at receiver.c(657)" >&2; exit 11
fi
for file in $files; do
  cp "$file" "@SITE@/nodes/$node/"
done"#,
    ),
];

/// Installs them in the site's `bin`.
pub fn install(site: &Path) {
    let bin = site.join("bin");
    fs::create_dir(&bin).expect("a new directory");
    for (name, text) in PROGRAMS {
        let path = bin.join(name);
        let text = text.replace("@SITE@", site.to_str().expect("a plain path"));
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
}

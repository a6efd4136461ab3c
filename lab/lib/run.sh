# shellcheck shell=bash
# Commands inside the laboratory: as the client, or in a node.

# What the client finds in its environment. Nothing of the caller's gets in but what run_environment passes on.
client_environment_file() {
  cat >"$LAB/env" <<X
LAB=$LAB
HOME=$LAB/home
USER=$CLIENT
LOGNAME=$CLIENT
SHELL=/bin/bash
PATH=$LAB/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
KRB5_CONFIG=$LAB/krb5.conf
SSL_CERT_FILE=$LAB/ca/ca.pem
CURL_CA_BUNDLE=$LAB/ca/ca.pem
REQUESTS_CA_BUNDLE=$LAB/ca/ca.pem
X509_CERT_DIR=$LAB/ca/trusted
CONDOR_CONFIG=$LAB/condor/condor_config
LAB_VAULT=vault.lab.test
LAB_PUSHGATEWAY=http://pushgateway.lab.test:9091
LAB_SMTP=smtp.lab.test:25
LAB_SMTPS=smtp.lab.test:587
LAB_FERRY=https://ferry.lab.test:8445
LAB_SLACK=$SLACK_URL
X
}

# ENVIRONMENT: the laboratory's, then the caller's MT_*, RUST_* and terminal settings, and what LAB_RUN_ENV_PASS names.
run_environment() {
  local name
  mapfile -t ENVIRONMENT <"$LAB/env"
  ENVIRONMENT+=("MT_CONFIG=$LAB/managedTokens.json" "MT_STATE_DIR=$LAB/state")
  # shellcheck disable=SC2086  # a list of names
  for name in ${!MT_*} ${!RUST_*} ${!LC_*} TERM COLORTERM COLUMNS LINES LANG NO_COLOR FORCE_COLOR CLICOLOR CLICOLOR_FORCE TZ ${LAB_RUN_ENV_PASS:-}; do
    [ -n "${!name+set}" ] && ENVIRONMENT+=("$name=${!name}")
  done
}

cmd_run() {
  [ $# -gt 0 ] || die "run: which command? usage: lab run CMD..."
  require_up
  run_environment
  # Every step replaces the one before, so signals, the terminal and the exit code are CMD's own.
  # shellcheck disable=SC2016
  set -- /bin/sh -c 'cd -- "$1" 2>/dev/null || cd; shift; exec "$@"' sh "$PWD" "$@"
  set -- env -i "${ENVIRONMENT[@]}" "$@"
  [ -z "$AS_ROOT" ] || set -- setpriv --reuid="$CLIENT" --regid="$CLIENT" --init-groups -- "$@"
  enter holder "$@"
}

cmd_env() {
  require_up
  run_environment
  local entry
  for entry in "${ENVIRONMENT[@]}"; do printf 'export %s=%q\n' "${entry%%=*}" "${entry#*=}"; done
}

# Inside a node, as root there (unprivileged: as the caller), to look at what arrived or to plant something.
cmd_node() {
  local name=${1:-} kind
  [ $# -eq 0 ] || shift
  require_up
  kind=$(kind_of_node "$name") || die "node: no node '$name'; there are node1 to node4"
  case $kind in good | full | refuse) ;; *) die "node: $name ($kind) is an address only, there is nothing inside" ;; esac
  [ $# -gt 0 ] || set -- /bin/bash
  cd / || return 1
  enter "$name" env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/ LANG=C.UTF-8 "LAB=$LAB" "$@"
}

# The caller's own identity inside the client's namespaces.
cmd_enter() {
  require_up
  [ $# -gt 0 ] || set -- /bin/bash
  enter holder "$@"
}

cmd_install_mt() {
  [ -f "${1:-}" ] || die "install-mt: there is no file '${1:-}'"
  is_lab || die "no laboratory in $LAB. Run:  $TOP/lab up"
  # A copy, because the client may not be able to read the clone; renamed, because the old one may be running.
  install -m 755 "$1" "$LAB/bin/.mt.new" && mv -f "$LAB/bin/.mt.new" "$LAB/bin/mt"
}

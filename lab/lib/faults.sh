# shellcheck shell=bash
# Faults. Pausing and killing work on processes; `fault` sets what those cannot. README.md says what each looks like to a client.

FAULT_HELP="schedd1|schedd2: down, hang [SECONDS], denied, garbage, mismatch
collector: down, hang [SECONDS], denied, garbage
vault: 403 [ACCOUNT], nologin, norefresh [ACCOUNT], sealed
keytab-ACCOUNT: wrong, stale, corrupt, missing
smtp: refuse, tempfail, hang [SECONDS], lost [SECONDS]
ferry|slack|loki|traces: 'status CODE', 'hang SECONDS', 'raw TEXT'
nodeN: hostkey
each: ok"

signal_service() { # pause|resume|kill NAME
  local pid name=${2:-}
  require_up
  case $name in holder | watcher) name="" ;; esac
  { [ -n "$name" ] && [ -e "$LAB/pid/$name" ]; } ||
    die "$1: no such service '${2:-}'; there are $(cd "$LAB/pid" && printf '%s ' * | sed 's/holder //; s/watcher //')"
  pid=$(pid_of "$name") || die "$1: $name is not running"
  case $1 in
    pause) kill -STOP "$pid"; wait_for_state "$pid" T ;;
    resume) kill -CONT "$pid" ;;
    kill) kill -9 "$pid"; while pid_of "$name" >/dev/null; do sleep 0.005; done ;;
  esac
}

# SIGSTOP is asynchronous; a test must not find the service still answering.
wait_for_state() {
  local line i
  for ((i = 0; i < 400; i++)); do
    read -r line <"/proc/$1/stat" || return 0
    case ${line##*) } in "$2"*) return 0 ;; esac
    sleep 0.005
  done
} 2>/dev/null

cmd_fault() {
  local name=${1:-} kind=${2:-}
  [ -n "$kind" ] || die "usage: lab fault NAME KIND
$FAULT_HELP"
  require_up; shift 2
  # 'hang 30' may come as one word or as two.
  # shellcheck disable=SC2086
  case $kind in hang\ * | lost\ * | norefresh\ * | 403\ *) set -- ${kind#* }; kind=${kind%% *} ;; esac
  case $name:$kind in
    schedd[12]:ok | collector:ok | smtp:ok | ferry:ok | slack:ok | loki:ok | traces:ok) rm -f "$LAB/faults/$name" ;;
    schedd[12]:down | schedd[12]:denied | schedd[12]:mismatch | schedd[12]:garbage | collector:down | collector:denied | collector:garbage | smtp:refuse | smtp:tempfail) set_fault "$name" "$kind" ;;
    schedd[12]:hang | collector:hang | smtp:hang | smtp:lost) set_fault "$name" "$kind ${1:-3600}" ;;
    ferry:hang | slack:hang | loki:hang | traces:hang) set_fault "$name" "hang ${1:-3600}" ;;
    ferry:status* | slack:status* | loki:status* | traces:status* | ferry:raw* | slack:raw* | loki:raw* | traces:raw*) set_fault "$name" "$kind${1:+ $*}" ;;
    vault:403 | vault:nologin | vault:norefresh | vault:sealed) (enter holder /usr/bin/python3 "$LAB/services/vault.py" "$kind" "$@") &&
      set_fault vault "$kind${1:+ $1}" ;;
    vault:ok) (enter holder /usr/bin/python3 "$LAB/services/vault.py" ok) && rm -f "$LAB/faults/vault" ;;
    keytab-*) fault_keytab "${name#keytab-}" "$kind" ;;
    node[1-7]:hostkey | node[1-7]:ok) fault_hostkey "$name" "$kind" ;;
    *) die "no fault '$kind' for '$name'. There are:
$FAULT_HELP" ;;
  esac
}

set_fault() { # set_fault NAME TEXT
  printf '%s\n' "$2" >"$LAB/faults/.$1.new" && chmod 644 "$LAB/faults/.$1.new" && mv "$LAB/faults/.$1.new" "$LAB/faults/$1"
}

fault_keytab() { # ACCOUNT KIND
  local file=$LAB/keytabs/$1.keytab
  [ -e "$LAB/kdc/$1.good" ] || die "no keytab of an account '$1'; there are $(cd "$LAB/kdc" && printf '%s ' *.good | sed 's/\.good//g')"
  rm -f "$file.new"
  case $2 in
    ok) cp "$LAB/kdc/$1.good" "$file.new" ;;
    wrong) cp "$LAB/kdc/stranger.good" "$file.new" ;;
    stale) cp "$LAB/kdc/$1.stale" "$file.new" ;;
    corrupt) head -c 64 /dev/urandom >"$file.new" ;;
    missing) rm -f "$file" ;;
    *) die "no fault '$2' for a keytab; there are wrong, stale, corrupt, missing, ok" ;;
  esac
  if [ -e "$file.new" ]; then
    chmod 600 "$file.new"
    [ -z "$AS_ROOT" ] || chown "$CLIENT:$CLIENT" "$file.new"
    mv "$file.new" "$file"
  fi
  if [ "$2" = ok ]; then rm -f "$LAB/faults/keytab-$1"; else set_fault "keytab-$1" "$2"; fi
}

# The client remembers another key than the node shows. Changing the memory takes effect at once; a restarting sshd would not.
fault_hostkey() { # NODE KIND
  local other new=$LAB/known_hosts.new
  if [ "$2" = ok ]; then rm -f "$LAB/faults/$1"; else set_fault "$1" "$2"; fi
  [ -e "$LAB/nodes/otherkey" ] || ssh-keygen -q -t ed25519 -N '' -C lab -f "$LAB/nodes/otherkey"
  other=$(cut -d' ' -f1,2 "$LAB/nodes/otherkey.pub")
  known_hosts | while read -r host key; do
    if [ -e "$LAB/faults/${host%%.*}" ]; then printf '%s %s\n' "$host" "$other"; else printf '%s %s\n' "$host" "$key"; fi
  done >"$new" && mv "$new" "$LAB/known_hosts"
}

cmd_faults() {
  local file
  require_up
  for file in "$LAB"/faults/*; do [ -e "$file" ] && printf '%s: %s\n' "${file##*/}" "$(<"$file")"; done
  return 0
}

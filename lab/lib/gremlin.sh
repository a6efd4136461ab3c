# shellcheck shell=bash
# The gremlin: one process in front of a peer that spoils what it says (services/gremlin.py). README.md says how.

GREMLIN_HELP="usage: lab gremlin PEER[:PORT] KIND
PEER: kdc, vault, ldap, ferry, web (Slack, Loki), smtp, pushgateway, node1 to node4, node8 to node10
PORT: stand at this port of the peer's own address, and leave the real one where it is
KIND: garbage, hang, 'slow SECONDS'; refuse (not: kdc, nodes); page (vault, ferry, web, pushgateway); ok takes it away"

cmd_gremlin() {
  local peer=${1:-} port kind seconds real real_address real_port address name
  [ $# -ge 2 ] || die "$GREMLIN_HELP"
  require_up
  read -r kind seconds <<<"${*:2}"
  IFS=: read -r peer port <<<"$peer"
  case $peer:$kind in
    *:ok | *:garbage | *:hang | ldap:refuse | smtp:refuse) ;;
    *:slow) [[ $seconds =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "gremlin: slow needs the seconds" ;;
    vault:refuse | ferry:refuse | web:refuse | pushgateway:refuse | vault:page | ferry:page | web:page | pushgateway:page) ;;
    *) die "no gremlin '$kind' for '$peer'. $GREMLIN_HELP" ;;
  esac
  real=$(real_place "$peer") || die "no gremlin for '$peer'. $GREMLIN_HELP"
  IFS=: read -r real_address real_port <<<"$real"
  address=$(gremlins_address "$peer" "$real_address" "$port")
  name=gremlin-$peer${port:+-$port}
  stop "$name"
  if [ "$kind" = ok ]; then address=$real_address
  else start_gremlin "$name" "$kind:$seconds" "$address" "${port:-$real_port}" "$real_address" "$real_port"; fi
  [ -n "$port" ] || point_at "$peer" "$address"
}

# ADDRESS:PORT of the real one. A front has none of its own: node2 is behind it.
real_place() { # PEER
  local entry
  case $(kind_of_node "$1") in
    good | full | refuse) printf '%s:22' "$(address_of "$1")"; return ;;
    front) printf '%s:22' "$(address_of node2)"; return ;;
  esac
  for entry in $PEERS; do [ "${entry%%:*}" != "$1" ] || { printf '%s' "${entry#*:}"; return; }; done
  return 1
}

# Where the gremlin listens. In front of a peer for all: at an address that is as long as the peer's, see point_at.
gremlins_address() { # PEER REAL-ADDRESS [PORT]
  local entry index=0
  if [ "$(kind_of_node "$1")" = front ]; then address_of "$1"; return; fi
  if [ -n "${3:-}" ]; then printf '%s' "$2"; return; fi
  case $2 in
    127.*) for entry in $PEERS; do index=$((index + 1)); [ "${entry%%:*}" != "$1" ] || printf '127.0.9.%s' $index; done ;;
    *) printf '127.0.9%s' "${2#"$NET"}" ;;
  esac
}

start_gremlin() { # NAME ARGUMENTS...
  local i holder name=$1; shift
  holder=$(pid_of holder)
  set -- -t "$holder" -n -m -- /usr/bin/python3 "$LAB/services/gremlin.py" "$@"
  [ -n "$AS_ROOT" ] || set -- -U --preserve-credentials "$@"
  : >"$LAB/log/$name.log"
  start "$name" nsenter "$@"
  for ((i = 0; i < 600; i++)); do
    grep -qx ready "$LAB/log/$name.log" && return 0
    alive "$name" || break
    sleep 0.025
  done
  cat "$LAB/log/$name.log" >&2
  die "$name does not listen"
}

# Clients find the peer's name at this address from now on. The directory is asked by the vault alone, which remembers names
# for some seconds: it is told the address.
point_at() { # PEER ADDRESS
  local line text=""
  if [ "$(kind_of_node "$1")" = front ]; then return; fi
  if [ "$1" = ldap ]; then (enter holder /usr/bin/python3 "$LAB/services/vault.py" ldap "ldap://$2:389"); return; fi
  while read -r line; do
    case "$line " in *" $1.lab.test "*) line="$2 ${line#* }" ;; esac
    text+="$line"$'\n'
  done <"$LAB/hosts"
  # In place, because it is mounted over /etc/hosts, and in one piece of the same length, because somebody may be reading.
  printf '%s' "$text" 1<>"$LAB/hosts"
}

# shellcheck shell=bash
# Names, numbers and places that every part of the laboratory shares.
# shellcheck disable=SC2034  # used by the files sourced after this one

say() { printf '%s\n' "$*"; }
warn() { printf 'lab: %s\n' "$*" >&2; }
die() { warn "$*"; exit 1; }

# The network is the laboratory's own, so everything listens on its real port.
NET=10.77.0
REALM=LAB.TEST
export LAB_VAULT_ADMIN=http://127.0.0.1:8202   # OpenBao without TLS, for its configuration only
SLACK_URL=https://web.lab.test/services/T0/B0/x
# node:address:kind
NODES="node1:$NET.11:good node2:$NET.12:good node3:$NET.13:full node4:$NET.14:refuse
  node5:$NET.15:hang node6:$NET.16:blackhole node7:$NET.17:down node8:$NET.18:front node9:$NET.19:front
  node10:$NET.20:front"
# What a gremlin can stand in front of: peer:address:port. The nodes are in NODES.
PEERS="kdc:127.0.0.1:88 vault:127.0.0.1:8200 ldap:127.0.0.1:389 ferry:127.0.0.1:8445 web:127.0.0.1:443
  smtp:127.0.0.1:25 pushgateway:127.0.0.1:9091"
# issuer:role:account:uid   (fermilab_admin is what FERRY's token method uses)
export LAB_ISSUERS="dune:production:dunepro:1234 mu2e:production:mu2epro:1235 fermilab:admin:fermiadm:1236"
NODE_ACCOUNTS="dunepro:1234 mu2epro:1235"
CREDDS="schedd1 schedd2"

LAB=${LAB:-${TMPDIR:-/tmp}/mt-lab-$(id -u)}
case $LAB in /*) ;; *) LAB=$PWD/$LAB ;; esac
LAB=${LAB%/}
case $LAB in
  *[!A-Za-z0-9/._-]*) die "the state directory '$LAB' has characters that some of the services' configuration files cannot hold; set LAB to a plainer path" ;;
  ''|/tmp|/var|/home|/root|/usr|/etc) die "LAB='$LAB' cannot be a state directory; set it to a directory of its own" ;;
esac
export LAB

if [ "$(id -u)" = 0 ]; then AS_ROOT=1 CLIENT=$ROOT_CLIENT; else AS_ROOT="" CLIENT=$(id -un 2>/dev/null || id -u); fi
VENV=$(find_venv)
PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin

# Not through a link: /tmp is everybody's.
is_lab() { [ ! -L "$LAB" ] && [ -f "$LAB/.mt-lab" ] && [ -O "$LAB" ]; }
require_up() { { is_lab && alive holder; } || die "no laboratory is up in $LAB. Run:  $TOP/lab up"; }
milliseconds() { local t=${EPOCHREALTIME/./}; printf '%s' "$((t / 1000))"; }

kind_of_node() {
  local entry
  for entry in $NODES; do [ "${entry%%:*}" != "$1" ] || { printf '%s' "${entry##*:}"; return 0; }; done
  return 1
}
address_of() { local entry; for entry in $NODES; do case $entry in "$1":*) entry=${entry#*:}; printf '%s' "${entry%:*}" ;; esac; done; }
# Names of nodes that a gremlin stands for; behind it is node2.
fronts() { local entry; for entry in $NODES; do case $entry in *:front) echo "${entry%%:*}" ;; esac; done; }
accounts() { local entry; for entry in $LAB_ISSUERS; do entry=${entry%:*}; echo "${entry##*:}"; done; }

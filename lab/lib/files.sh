# shellcheck shell=bash
# The directory tree and the configuration files of one laboratory.

make_tree() {
  mkdir -p "$LAB"/{log,pid,bin,tmp,home,state,tokens,logs,keytabs,faults,services,k5login,ssh_config.d,nodes,kdc,ldap/db,vault,jwt,out/mail} \
    "$LAB"/ca/trusted "$LAB"/condor/pool || return 1
  local credd; for credd in $CREDDS; do mkdir -p "$LAB/condor/credd/$credd.lab.test" || return 1; done
  chmod 1777 "$LAB/tmp"
  chmod 700 "$LAB/home" "$LAB/state" "$LAB/tokens" "$LAB/condor/credd" "$LAB/condor/credd"/* "$LAB"/{kdc,ldap,vault}
  chmod 750 "$LAB/logs"
  if [ -n "$AS_ROOT" ]; then
    chown "$CLIENT:$CLIENT" "$LAB"/{home,state,tokens,logs,condor/credd} "$LAB/condor/credd"/*
  fi
  # Copies, because the client may not be able to read the clone, and because a running laboratory shall outlive an edit.
  cp "$TOP"/services/*.py "$LAB/services/" && chmod 644 "$LAB"/services/*.py
}

make_files() {
  local entry name address kind
  {
    echo "127.0.0.1 localhost"
    # A line for each peer: a gremlin changes its address.
    for entry in $PEERS; do IFS=: read -r name address kind <<<"$entry"; echo "$address $name.lab.test"; done
    echo "127.0.0.1 issuer.lab.test collector.lab.test schedd1.lab.test schedd2.lab.test managed-tokens.lab.test $(uname -n)"
    for entry in $NODES; do IFS=: read -r name address kind <<<"$entry"; echo "$address $name.lab.test $name"; done
  } >"$LAB/hosts"
  make_krb5; make_condor; make_nodes; make_directory
  cat >"$LAB/ssh_config.d/lab.conf" <<X
Host *.lab.test
 GSSAPIAuthentication yes
 GSSAPIDelegateCredentials no
 PreferredAuthentications gssapi-with-mic
 UserKnownHostsFile $LAB/known_hosts
 StrictHostKeyChecking yes
 BatchMode yes
$(fronts | sed 's/.*/Host &.lab.test\n GSSAPIServerIdentity node2.lab.test\n HostKeyAlias node2.lab.test/')
X
  cat >"$LAB/vault/bao.hcl" <<X
storage "inmem" {}
api_addr = "https://vault.lab.test:8200"
cluster_addr = "http://127.0.0.1:8201"
default_lease_ttl = "672h"
max_lease_ttl = "672h"
listener "tcp" {
  address = "127.0.0.1:8202"
  cluster_address = "127.0.0.1:8201"
  tls_disable = 1
}
listener "tcp" {
  address = "127.0.0.1:8200"
  cluster_address = "127.0.0.1:8203"
  tls_cert_file = "$LAB/ca/server.pem"
  tls_key_file = "$LAB/ca/server.key"
}
X
  cat >"$LAB/ferry_users.json" <<X
{"dunepro":{"uid":1234,"gid":1234,"username":"dunepro","fullname":"DUNE production","status":true,"groupaccount":true,"expirationdate":"","vopersonid":""},
 "mu2epro":{"uid":1235,"gid":1235,"username":"mu2epro","fullname":"Mu2e production","status":true,"groupaccount":true,"expirationdate":"","vopersonid":""}}
X
}

make_krb5() {
  cat >"$LAB/krb5.conf" <<X
[libdefaults]
 default_realm = $REALM
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
 forwardable = true
 ticket_lifetime = 12h
 k5login_directory = $LAB/k5login
[realms]
 $REALM = {
  kdc = kdc.lab.test:88
 }
[domain_realm]
 .lab.test = $REALM
X
  # disable_pac: with a PAC in the ticket OpenBao answers 401.
  cat >"$LAB/kdc/kdc.conf" <<X
[kdcdefaults]
 kdc_listen = 127.0.0.1:88
 kdc_tcp_listen = 127.0.0.1:88
[realms]
 $REALM = {
  database_name = $LAB/kdc/principal
  key_stash_file = $LAB/kdc/stash
  acl_file = $LAB/kdc/kadm5.acl
  max_life = 24h
  max_renewable_life = 7d
  disable_pac = true
  supported_enctypes = aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal
 }
[logging]
 kdc = FILE:$LAB/log/kdc-requests.log
X
}

make_condor() {
  local tool
  cat >"$LAB/condor/condor_config" <<X
COLLECTOR_HOST = collector.lab.test
SEC_CREDENTIAL_GETTOKEN_OPTS = -a vault.lab.test
LAB_CREDD_DIR = $LAB/condor/credd
LAB_POOL_DIR = $LAB/condor/pool
LAB_FAULT_DIR = $LAB/faults
X
  cat >"$LAB/condor/pool/collector.lab.test.json" <<X
[{"MyType":"Scheduler","Name":"schedd1.lab.test","Machine":"schedd1.lab.test","InDownTime":false,"IsJobsubLite":true,"TotalRunningJobs":3},
 {"MyType":"Scheduler","Name":"schedd2.lab.test","Machine":"schedd2.lab.test","InDownTime":false,"IsJobsubLite":true,"TotalRunningJobs":0},
 {"MyType":"Scheduler","Name":"oldschedd.lab.test","Machine":"oldschedd.lab.test","InDownTime":true,"IsJobsubLite":false,"TotalRunningJobs":0}]
X
  for tool in condor_config_val condor_store_cred condor_status; do
    printf '#!/bin/sh\nexec %s %s/services/condor.py %s "$@"\n' "$VENV/bin/python" "$LAB" $tool >"$LAB/bin/$tool"
  done
  # A copy, not a wrapper: mt reads the storer's text to learn what it can do.
  { printf '#!%s\n' "$VENV/bin/python"; sed 1d "$LAB/services/condor_vault_storer.py"; } >"$LAB/bin/condor_vault_storer"
  chmod 755 "$LAB"/bin/condor_*
  ln -sf "$VENV"/bin/ht{gettoken,decodetoken,destroytoken} "$LAB/bin/"
}

make_nodes() {
  local entry name address kind dir account member uid gid
  for entry in $NODE_ACCOUNTS; do
    account=${entry%:*}
    printf '%s/managedtokens/lab.test@%s\n' "$account" "$REALM" >"$LAB/k5login/$account"
  done
  for entry in $NODES; do
    IFS=: read -r name address kind <<<"$entry"
    case $kind in good | full | refuse) ;; *) continue ;; esac
    dir=$LAB/nodes/$name
    mkdir -p "$dir/tmp" && chmod 1777 "$dir/tmp"
    # '*' and not '!': sshd without PAM refuses a locked account.
    printf 'root:*:0:0:root:/root:/bin/sh\nsshd:*:%s:65534::/run/sshd:/usr/sbin/nologin\nnobody:*:65534:65534::/nonexistent:/usr/sbin/nologin\n' \
      "$(id -u sshd 2>/dev/null || echo 100)" >"$dir/passwd"
    printf 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n' >"$dir/group"
    for member in $NODE_ACCOUNTS; do
      IFS=: read -r account uid <<<"$member"; gid=$uid
      # One unprivileged user has one uid: there both accounts are that user.
      [ -n "$AS_ROOT" ] || { uid=$(id -u); gid=$(id -g); }
      mkdir -p "$dir/home/$account"
      [ -z "$AS_ROOT" ] || chown "$uid:$gid" "$dir/home/$account"
      printf '%s:*:%s:%s::%s:/bin/bash\n' "$account" "$uid" "$gid" "$dir/home/$account" >>"$dir/passwd"
      printf '%s:x:%s:\n' "$account" "$gid" >>"$dir/group"
    done
    cat >"$dir/sshd_config" <<X
ListenAddress $address:22
HostKey $LAB/nodes/hostkey
PidFile none
UsePAM no
UseDNS no
LogLevel VERBOSE
StrictModes yes
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication no
GSSAPIAuthentication yes
GSSAPIStrictAcceptorCheck no
GSSAPIKeyExchange yes
GSSAPICleanupCredentials yes
MaxStartups 1000
X
  done
}

# OpenBao's kerberos plugin looks every account up in a live directory, even one that says nothing.
make_directory() {
  local account
  cat >"$LAB/ldap/slapd.conf" <<X
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile $LAB/ldap/slapd.pid
argsfile $LAB/ldap/slapd.args
database mdb
suffix "dc=lab,dc=test"
directory $LAB/ldap/db
maxsize 10485760
access to * by anonymous read by * read
X
  {
    printf 'dn: dc=lab,dc=test\nobjectClass: dcObject\nobjectClass: organization\ndc: lab\no: lab\n\n'
    printf 'dn: ou=people,dc=lab,dc=test\nobjectClass: organizationalUnit\nou: people\n\n'
    for account in $(accounts); do
      printf 'dn: uid=%s,ou=people,dc=lab,dc=test\nobjectClass: inetOrgPerson\nuid: %s\ncn: %s\nsn: %s\n\n' "$account" "$account" "$account" "$account"
    done
  } >"$LAB/ldap/init.ldif"
}

make_certificates() {
  local dir=$LAB/ca hash
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=Lab CA" -keyout "$dir/ca.key" -out "$dir/ca.pem" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign || return 1
  issue server "/CN=vault.lab.test" \
    "DNS:vault.lab.test,DNS:ferry.lab.test,DNS:web.lab.test,DNS:issuer.lab.test,DNS:smtp.lab.test,DNS:localhost,IP:127.0.0.1" serverAuth || return 1
  issue client "/DC=test/DC=lab/CN=managed-tokens.lab.test" "DNS:managed-tokens.lab.test" clientAuth || return 1
  cp "$dir/ca.pem" "$dir/trusted/" && hash=$(openssl x509 -hash -noout -in "$dir/ca.pem") && ln -sf ca.pem "$dir/trusted/$hash.0" || return 1
  chmod 644 "$dir"/*.pem; chmod 600 "$dir"/*.key
  [ -z "$AS_ROOT" ] || chown "$CLIENT" "$dir/client.key"
}

issue() { # issue NAME SUBJECT ALTERNATIVE-NAMES USAGE
  openssl req -x509 -CA "$LAB/ca/ca.pem" -CAkey "$LAB/ca/ca.key" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
    -subj "$2" -keyout "$LAB/ca/$1.key" -out "$LAB/ca/$1.pem" -addext basicConstraints=critical,CA:FALSE \
    -addext "subjectAltName=$3" -addext "extendedKeyUsage=$4" -addext keyUsage=digitalSignature
}

#!/usr/bin/env python3
"""Configures the laboratory's OpenBao the way htvault-config does it in production, and breaks it on demand.

    vault.py setup                initialise, unseal, one kerberos login and one set of policies per issuer
    vault.py 403 [ACCOUNT]        take the permissions away (of one account): logins succeed, token reads are answered 403
    vault.py nologin              take the kerberos logins away: 403 to the login itself
    vault.py norefresh [ACCOUNT]  forget the refresh tokens (of one account): htgettoken would need a browser
    vault.py sealed               as after a restart that nobody attended: 503 to everything
    vault.py ok                   undo all of these
    vault.py ldap URL             ask another directory

Runs inside the laboratory's network; speaks to the listener without TLS. Environment: LAB, LAB_ISSUERS
(issuer:role:account:uid ...), LAB_VAULT_ADMIN. In production the refresh tokens are in the oauthapp plugin; here a KV
mount at secret/oauth answers the same paths with one bearer token that does not renew.
"""
import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request

LAB = os.environ["LAB"]
ISSUERS = [entry.split(":")[:3] for entry in os.environ["LAB_ISSUERS"].split()]
ADMIN = os.environ["LAB_VAULT_ADMIN"]
DIRECTORY = {"userdn": "ou=people,dc=lab,dc=test", "userattr": "uid"}
KEYS_FILE = f"{LAB}/vault/keys.json"
OWN_TOKEN_POLICY = """
path "auth/token/create"      { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
"""
token = None


def call(method, path, body=None):
    request = urllib.request.Request(f"{ADMIN}/v1/{path}", method=method,
                                     data=None if body is None else json.dumps(body).encode())
    if token:
        request.add_header("X-Vault-Token", token)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        sys.exit(f"vault: {method} {path}: {error.code} {error.read().decode()}")
    except OSError as error:
        sys.exit(f"vault: {method} {path}: {error}")
    return json.loads(text) if text.strip() else None


def mount_of(issuer, role):
    return f"kerberos-{issuer}_{role}"


def allow():
    """The policy lets a principal read its own tokens. Its name holds slashes, hence the flag, new in OpenBao 2.6."""
    mounts = call("GET", "sys/auth")["data"]
    for issuer, role, _ in ISSUERS:
        mount = mount_of(issuer, role)
        name = "{{identity.entity.aliases.%s.name}}" % mounts[mount + "/"]["accessor"]
        policy = "".join(f'path "secret/oauth/{kind}/{issuer}/{name}:{role}" {{ capabilities = {rights} }}\n'
                         for kind, rights in (("creds", '["list","read","delete"]'), ("sts", '["list","read"]')))
        call("PUT", f"sys/policies/acl/{mount}", {"policy": policy, "allow_slashes_in_identity_templates": True})


def chosen(only):
    known = [entry for entry in ISSUERS if only in (None, entry[2])]
    if not known:
        sys.exit(f"vault: no account {only}; there are {', '.join(entry[2] for entry in ISSUERS)}")
    return known


def deny(only):
    for issuer, role, _ in chosen(only):
        call("PUT", f"sys/policies/acl/{mount_of(issuer, role)}", {"policy": "# nothing\n"})


def secret_paths(issuer, role, account):
    return [f"secret/oauth/{kind}/{issuer}/{account}/managedtokens/lab.test:{role}" for kind in ("creds", "sts")]


def remember():
    for issuer, role, account in ISSUERS:
        with open(f"{LAB}/jwt/{issuer}_{role}.jwt") as opened:
            bearer = opened.read().strip()
        for path in secret_paths(issuer, role, account):
            call("POST", path, {"access_token": bearer, "server": issuer, "type": "Bearer"})


def forget(only):
    for issuer, role, account in chosen(only):
        for path in secret_paths(issuer, role, account):
            call("DELETE", path)


def unseal(key):
    call("PUT", "sys/unseal", {"key": key})
    for _ in range(200):
        # A standby is an unsealed vault that is not ready yet.
        if call("GET", "sys/health?standbycode=200&sealedcode=200&uninitcode=200")["standby"] is False:
            return
        time.sleep(0.02)
    sys.exit("vault: still not ready 4 s after unsealing")


def enable_logins():
    present = call("GET", "sys/auth")["data"]
    with open(f"{LAB}/keytabs/vault.keytab", "rb") as opened:
        keytab = base64.b64encode(opened.read()).decode()
    for issuer, role, _ in ISSUERS:
        mount = mount_of(issuer, role)
        if mount + "/" in present:
            continue
        call("POST", f"sys/auth/{mount}", {"type": "kerberos", "config": {
            "passthrough_request_headers": ["Authorization"], "allowed_response_headers": ["www-authenticate"]}})
        # The key is host/<vault host>, not HTTP/: that is what htgettoken asks a ticket for.
        call("POST", f"auth/{mount}/config", {"keytab": keytab, "service_account": "host/vault.lab.test"})
        call("POST", f"auth/{mount}/config/ldap", {
            "url": "ldap://127.0.0.1:389", **DIRECTORY, "token_no_default_policy": True,
            "token_policies": f"{mount},tokenops"})


def ask_directory(url):
    for issuer, role, _ in ISSUERS:
        mount = mount_of(issuer, role)
        call("POST", f"auth/{mount}/config/ldap", {"url": url, **DIRECTORY})


def disable_logins():
    for issuer, role, _ in ISSUERS:
        call("DELETE", f"sys/auth/{mount_of(issuer, role)}")


def setup():
    global token
    init = call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    token = init["root_token"]
    with open(os.open(KEYS_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        json.dump({"root_token": token, "unseal_key": init["keys"][0]}, opened)
    unseal(init["keys"][0])
    call("POST", "sys/mounts/secret/oauth", {"type": "kv", "options": {"version": "1"}})
    call("PUT", "sys/policies/acl/tokenops", {"policy": OWN_TOKEN_POLICY})
    enable_logins()
    allow()
    remember()


def main():
    global token
    command, *rest = sys.argv[1:]
    if command == "setup":
        return setup()
    with open(KEYS_FILE) as opened:
        keys = json.load(opened)
    token = keys["root_token"]
    if command == "403":
        deny(rest[0] if rest else None)
    elif command == "nologin":
        disable_logins()
    elif command == "norefresh":
        forget(rest[0] if rest else None)
    elif command == "sealed":
        call("PUT", "sys/seal")
    elif command == "ldap":
        ask_directory(rest[0])
    elif command == "ok":
        unseal(keys["unseal_key"])
        enable_logins()
        allow()
        remember()
    else:
        sys.exit(f"vault: unknown command {command}")


main()

#!/usr/bin/env python3
"""Stand-in for HTCondor's condor_vault_storer, which no package registry has: the same arguments, environment, files,
messages and exit codes, written from what the real one can be observed to do.

    condor_vault_storer [-v|-d] SERVICE...          SERVICE = issuer[_role]

- Options for htgettoken: the condor setting SEC_CREDENTIAL_GETTOKEN_OPTS (an environment variable
  _condor_SEC_CREDENTIAL_GETTOKEN_OPTS wins), then $HTGETTOKENOPTS, which htgettoken reads itself. Neither: exit 1.
- The credd: the condor setting CREDD_HOST, read by condor_store_cred.
- Vault token file /tmp/vt_ID-SERVICE; a new one is also copied to /tmp/vt_ID. ID = $CONDOR_VAULT_STORER_ID or u<uid>.
- Bearer token file $BEARER_TOKEN_FILE, else ${XDG_RUNTIME_DIR:-/tmp}/bt_ID-SERVICE, copied to .../bt_ID.
- A token file that is still good AND a credential in the credd: nothing new is made. A good file without a credential:
  the file is removed, a new 28-day token made, stored in the credd (condor_store_cred add-oauth) and exchanged for the
  shorter-lived one that goes into the file.
- htgettoken is tried quietly with --nooidc; after ANY failure of that, "Authentication needed for SERVICE" and once more
  without it. Without -v the first one's messages are lost.
- Exit 1 for every failure; the reason is on stderr alone.
"""
import json
import os
import subprocess
import sys
import tempfile


def fatal(text):
    print(f"\ncondor_vault_storer: {text}", file=sys.stderr)
    sys.exit(1)


def condor_setting(name):
    return subprocess.run(["condor_config_val", name], capture_output=True, text=True).stdout.strip()


def copy_over(source, target):
    with open(source, "rb") as opened:
        content = opened.read()
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(target), delete=False) as new:
        new.write(content)
    os.rename(new.name, target)


def credential_is_stored(service):
    return subprocess.run(["condor_store_cred", "query-oauth", "-s", service], capture_output=True).returncode == 0


class Storer:
    def __init__(self, verbose):
        self.verbose = verbose
        self.options = condor_setting("SEC_CREDENTIAL_GETTOKEN_OPTS")
        if not self.options and not os.environ.get("HTGETTOKENOPTS"):
            fatal("Neither SEC_CREDENTIAL_GETTOKEN_OPTS condor value nor $HTGETTOKENOPTS environment set")
        self.identity = os.environ.get("CONDOR_VAULT_STORER_ID") or f"u{os.getuid()}"
        self.bearer_base = f"{os.environ.get('XDG_RUNTIME_DIR', '/tmp')}/bt_{self.identity}"

    def htgettoken(self, options, stdin=None, show_messages=False):
        done = subprocess.run(["htgettoken", *options], input=stdin, text=True, stdout=subprocess.PIPE,
                              stderr=None if show_messages or self.verbose else subprocess.DEVNULL)
        return done.returncode, done.stdout

    def loudness(self):
        return "-v" if self.verbose else "-q"

    def obtain(self, service, base, vault_file):
        """The new long-lived token and the URL it is for, or None when the present ones will do."""
        bearer = [] if os.environ.get("BEARER_TOKEN_FILE") else ["-o", f"{self.bearer_base}-{service}"]
        get = ["--vaulttokenttl=28d", *bearer, *base, f"--vaulttokeninfile={vault_file}",
               "--vaulttokenfile=/dev/stdout", "--showbearerurl"]
        for last_try in (False, True):
            code, text = self.htgettoken(get + ["--nooidc", self.loudness()])
            if code != 0:
                print(f"\nAuthentication needed for {service}", file=sys.stderr)
                code, text = self.htgettoken(get, show_messages=True)
                if code != 0:
                    fatal("htgettoken failed")
            if bearer:
                copy_over(f"{self.bearer_base}-{service}", self.bearer_base)
            lines = text.splitlines()
            if len(lines) == 2:
                return lines
            if credential_is_stored(service):
                return None
            if last_try:
                fatal("No new vault token after second try; logic error")
            os.unlink(vault_file)

    def exchange(self, token, base, vault_file):
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(self.bearer_base), prefix="bt_tmp.") as spare:
            code, _ = self.htgettoken([*base, "--vaulttokeninfile=/dev/stdin", "--nooidc", "--nokerberos", "--nossh",
                                       "-o", spare.name, f"--vaulttokenfile={vault_file}", "--showbearerurl", self.loudness()],
                                      stdin=token + "\n")
        if code != 0:
            fatal("Failed to exchange vault token")
        copy_over(vault_file, f"/tmp/vt_{self.identity}")

    def store(self, service):
        issuer, _, role = service.partition("_")
        if "_" in role:
            fatal("Only one underscore allowed in use_oauth_services name")
        vault_file = f"/tmp/vt_{self.identity}-{service}"
        base = self.options.split() + ["-i", issuer] + (["-r", role] if role else [])
        new = self.obtain(service, base, vault_file)
        if new is None:
            return
        token, url = new
        self.exchange(token, base, vault_file)
        credential = json.dumps({"vault_token": token, "vault_url": url})
        added = subprocess.run(["condor_store_cred", "add-oauth", "-s", service, "-i", "-"], input=credential, text=True,
                               stdout=None if self.verbose else subprocess.DEVNULL)
        if added.returncode != 0:
            fatal(f"Failed to store condor credentials for {service}")


def main():
    services = [argument for argument in sys.argv[1:] if argument not in ("-v", "-d")]
    if not services:
        fatal("no service given")
    storer = Storer(verbose=len(services) != len(sys.argv) - 1)
    for service in services:
        storer.store(service)


main()

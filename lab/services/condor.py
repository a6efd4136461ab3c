#!/usr/bin/env python3
"""Stand-ins for HTCondor's condor_config_val, condor_store_cred and condor_status, which no package registry has.

    condor.py condor_config_val NAME...
    condor.py condor_store_cred add-oauth|query-oauth|delete-oauth [-s SERVICE] [-i FILE|-] [-u USER@DOMAIN] ...
    condor.py condor_status -schedd [-pool HOST] [-constraint EXPRESSION] [-af ATTRIBUTE... | -long]

- Configuration is read by HTCondor's own code (its Python bindings): $CONDOR_CONFIG, _condor_NAME in the environment,
  macros. Constraints are evaluated by the real ClassAd library.
- LAB_CREDD_DIR/<credd>/<user>/<service>.top is the credential a credd holds; LAB_POOL_DIR/<collector>.json are a
  collector's ads. A credd or collector without such a place cannot be reached.
- Exit codes: condor_config_val 1 when something is not defined; condor_store_cred 1, and 2 for a credential that does not
  match; condor_status 1. Success is always 0.
- Faults in LAB_FAULT_DIR/<host's first label>: `down` (not reachable), `hang [SECONDS]` (and then the usual answer), `denied`,
  `garbage`, and for a credd also `mismatch`.
"""
import datetime
import json
import os
import pwd
import re
import sys
import time

import classad2
import htcondor2

setting = htcondor2.param
# What services/gremlin.py says.
NOISE = "\0\ufffd\ufffdGREMLIN \x1b[2J\a this is no protocol"


def complain(text, code=1):
    print(text, file=sys.stderr)
    return code


def fault_of(host):
    """The fault set for this host, as a word; a hang has been waited out already."""
    try:
        with open(os.path.join(setting["LAB_FAULT_DIR"], host.split(".")[0])) as opened:
            word, *rest = opened.read().split()
    except (OSError, ValueError):
        return None
    if word == "hang":
        time.sleep(float(rest[0]) if rest else 3600)
        return None
    return word


def config_val(names):
    code = 0
    for name in names:
        if name.startswith("-"):
            continue
        value = setting.get(name)
        if value is None:
            code = complain(f"Not defined: {name}")
        else:
            print(value)
    return code


def own_name():
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def parse_store_cred(arguments):
    """The options as a dictionary, or the complaint as a string."""
    options, rest = {}, list(arguments)
    while rest:
        option = rest.pop(0)
        if option in ("-s", "-S", "-A", "-H", "-i", "-u", "-n"):
            if not rest:
                return f"ERROR: Option '{option}' requires an argument\n"
            options[option] = rest.pop(0)
        elif option not in ("-d", "-P"):
            return f"ERROR: Unrecognized option - '{option}'\n"
    return options


def store_cred(arguments):
    command = arguments[0] if arguments else ""
    known = re.fullmatch(r"(add|query|delete)-(oauth|oath|scitokens)", command)
    if not known:
        return complain(f"ERROR: Unrecognized command - '{command}'\n")
    operation = known[1]
    options = parse_store_cred(arguments[1:])
    if isinstance(options, str):
        return complain(options)
    if operation == "add" and "-i" not in options:
        return complain("ERROR: add-krb and add-oauth commands require a credential filename argument")
    if operation == "add" and "-s" not in options:
        return complain("ERROR: add-oauth command requires a service name")
    if "-u" in options and not re.fullmatch(r"[^@]+@[^@]+", options["-u"]):
        return complain(f"ERROR: Username '{options['-u']}' is not of the form: account@domain")
    user = options.get("-u", own_name()).split("@")[0]
    print(f"Account: {options['-u']}" if "-u" in options else f"Account: <current> ({user})")
    print("CredType: oauth\n", flush=True)
    credential = None
    if operation == "add":
        if options["-i"] == "-":
            credential = sys.stdin.read(1 << 20)
        else:
            with open(options["-i"]) as opened:
                credential = opened.read()
    credd = setting.get("CREDD_HOST") or "localhost"
    place = os.path.join(setting["LAB_CREDD_DIR"], credd)
    fault = fault_of(credd)
    if fault == "down" or not os.path.isdir(place):
        print("Operation failed.\n    Make sure your ALLOW_WRITE setting includes this host.")
        return 1
    if fault == "denied":
        return complain("Operation failed because it is not allowed")
    if fault == "garbage":
        return complain(NOISE)
    if fault == "mismatch" and operation == "query":
        return complain("Credential was found but it did not match requested scopes or audience", 2)
    service = options.get("-s", "") + (f"_{options['-H']}" if "-H" in options and options.get("-s") else "")
    if not re.fullmatch(r"[A-Za-z0-9+=_.\-]*", service):
        return complain("Operation aborted due to missing or bad arguments")
    stem = os.path.join(place, user, service)
    if operation == "query":
        return query(stem, service, options)
    if operation == "delete":
        for name in (f"{stem}.top", f"{stem}.use"):
            try:
                os.unlink(name)
            except OSError:
                pass
        print("Operation succeeded.")
        return 0
    return add(stem, credential, options)


def query(stem, service, options):
    top, use = f"{stem}.top", f"{stem}.use"
    if not os.path.exists(top):
        print("No credential is stored.")
        return 1
    with open(top) as opened:
        held = json.load(opened)
    if held.get("scopes", "") != options.get("-S", "") or held.get("audience", "") != options.get("-A", ""):
        return complain("Credential was found but it did not match requested scopes or audience", 2)
    processed = os.path.exists(use)
    print(f"A credential was stored and is {'valid.' if processed else 'waiting for processing.'}")
    print(f"\nCredential info:\nTop{service}Time = {int(os.stat(top).st_mtime)}")
    if processed:
        print(f"{service} = {int(os.stat(use).st_mtime)}")
    print()
    return 0


def add(stem, credential, options):
    top, use = f"{stem}.top", f"{stem}.use"
    if "-S" in options or "-A" in options:
        try:
            fields = json.loads(credential)
        except ValueError:
            pass
        else:
            fields.update({name: options[flag] for name, flag in (("scopes", "-S"), ("audience", "-A")) if flag in options})
            credential = json.dumps(fields) + "\n"
    os.makedirs(os.path.dirname(stem), 0o700, exist_ok=True)
    new = f"{top}.{os.getpid()}"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(credential)
    os.rename(new, top)
    if os.path.exists(use):
        since = datetime.datetime.fromtimestamp(os.stat(use).st_mtime)
        print(f"Operation succeeded. Credential was stored on {since:%Y-%m-%d %H:%M:%S}")
    else:
        print("Operation succeeded and is waiting for processing.")
    return 0


def status(arguments):
    pool, constraint, attributes, long = setting.get("COLLECTOR_HOST"), None, [], False
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if option == "-pool" and rest:
            pool = rest.pop(0)
        elif option in ("-constraint", "-const") and rest:
            constraint = rest.pop(0)
        elif option == "-name" and rest:
            constraint = f'Name == "{rest.pop(0)}"'
        elif option in ("-long", "-l"):
            long = True
        elif option.startswith("-af"):
            attributes, rest = rest, []
        elif option not in ("-schedd", "-schedds"):
            return complain(f"Error: Unknown option '{option}'")
    host = (pool or "").split(":")[0]
    ads = os.path.join(setting["LAB_POOL_DIR"], f"{host}.json")
    fault = fault_of(host)
    if fault == "down" or not os.path.exists(ads):
        return complain(f"Error: Couldn't contact the condor_collector on {host}.\n")
    if fault == "denied":
        return complain(f'Error: communication error\nSECMAN:2010:Received "DENIED" from server for user unauthenticated@unmapped using no authentication method, which may imply host-based security.  Our address was \'127.0.0.1\', and server\'s address was \'{host}\'.')
    if fault == "garbage":
        print(NOISE)
        return 0
    try:
        wanted = classad2.ExprTree(constraint) if constraint else None
    except Exception:
        return complain(f"Error:  Parse error of: {constraint}")
    with open(ads) as opened:
        found = [classad2.ClassAd(fields) for fields in json.load(opened)]
    for ad in found:
        if wanted is not None and wanted.eval(ad) is not True:
            continue
        if attributes:
            print(" ".join(str(ad.get(name, "undefined")) for name in attributes))
        else:
            print(ad.printOld() if long else ad.get("Name"))
    return 0


TOOLS = {"condor_config_val": config_val, "condor_store_cred": store_cred, "condor_status": status}
sys.exit(TOOLS[sys.argv[1]](sys.argv[2:]))

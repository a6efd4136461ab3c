#!/usr/bin/env python3
"""A mail server that delivers to $LAB/out/mail: every message is <time>.<n>.eml, and <time>.<n>.json says from, to and port.

Port 25 as the service uses it; port 587 demands STARTTLS and a login (labuser, labpass). Addresses that begin with
"bounce" are refused for good (550). Faults, read from $LAB/faults/smtp at every message: `refuse` (550 to every sender),
`tempfail` (451), `hang [SECONDS]` (before the answer to MAIL), `lost [SECONDS]` (the message is kept, its answer is late: for
a client that gives up, it is accepted and not confirmed).
"""
import asyncio
import json
import os
import signal
import ssl
import threading
import time

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

LAB = os.environ["LAB"]
OUT = f"{LAB}/out/mail"


def fault():
    try:
        with open(f"{LAB}/faults/smtp") as opened:
            word, *rest = opened.read().split()
    except (OSError, ValueError):
        return None, 0
    return word, float(rest[0]) if rest else 3600


class Sink:
    count = 0

    def __init__(self, port):
        self.port = port

    async def handle_MAIL(self, server, session, envelope, address, options):
        word, seconds = fault()
        if word == "hang":
            await asyncio.sleep(seconds)
        elif word == "refuse":
            return "550 5.7.1 this server takes no mail from you"
        elif word == "tempfail":
            return "451 4.3.0 try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("bounce"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        Sink.count += 1
        stem = f"{OUT}/{time.time():.6f}.{Sink.count}"
        with open(f"{stem}.json", "w") as opened:
            json.dump({"from": envelope.mail_from, "to": envelope.rcpt_tos, "port": self.port,
                       "tls": session.ssl is not None, "login": bool(session.authenticated)}, opened)
        with open(f"{stem}.tmp", "wb") as opened:
            opened.write(envelope.content)
        os.rename(f"{stem}.tmp", f"{stem}.eml")
        word, seconds = fault()
        if word == "lost":
            await asyncio.sleep(seconds)
        return "250 Message accepted for delivery"


def login(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login == b"labuser" and data.password == b"labpass"
    # handled=True, the default, would leave a refused client without an answer.
    return AuthResult(success=good, handled=False)


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(f"{LAB}/ca/server.pem", f"{LAB}/ca/server.key")
plain = Controller(Sink(25), hostname="127.0.0.1", port=25, ready_timeout=10)
submission = Controller(Sink(587), hostname="127.0.0.1", port=587, tls_context=tls, require_starttls=True,
                        authenticator=login, auth_required=True, auth_require_tls=True, ready_timeout=10)
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
plain.start()
submission.start()
ended.wait()

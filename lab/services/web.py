#!/usr/bin/env python3
"""HTTPS stand-ins.

    web.py ferry ADDRESS PORT    GET /getUserInfo?username=NAME from $LAB/ferry_users.json. A caller shows a certificate of the
                                 laboratory's CA or "Authorization: Bearer <token of the issuer>", whose signature is checked with
                                 the key that the issuer publishes (the other server here); otherwise it gets 401.
    web.py web ADDRESS PORT      POST /services/... = Slack's incoming webhook (answers "ok", or 400 "invalid_payload" for
                                 what is not JSON); POST /loki/api/v1/push = Loki (answers 204, or 400); POST /api/traces = a Jaeger collector (answers 202); POST
                                 /v1/traces = an OTLP collector (answers 200); GET /<issuer>/.well-known/openid-configuration and /<issuer>/jwks

Every request is a line of JSON in $LAB/out/ferry.jsonl, slack.jsonl, loki.jsonl or traces.jsonl. Bearer tokens are not recorded, only
that there was one. The bodies of traces are files of their own in $LAB/out/traces, named in their line: what they mean is for the test to say.
Faults, read from $LAB/faults/ferry, slack, loki and traces at every request: `status CODE` answers that code, `hang SECONDS`
waits before the usual answer, `raw TEXT` answers 200 and TEXT.
"""
import json
import os
import ssl
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import jwt

LAB = os.environ["LAB"]
KIND, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
ISSUER = "https://issuer.lab.test"
TRUSTED = ssl.create_default_context(cafile=f"{LAB}/ca/ca.pem") if KIND == "ferry" else None


def fetch(url):
    with urllib.request.urlopen(url, timeout=10, context=TRUSTED) as answer:
        return json.load(answer)


def bearer_is_valid(header):
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    try:
        issuer = jwt.decode(token.strip(), options={"verify_signature": False})["iss"]
        if not issuer.startswith(f"{ISSUER}/"):
            return False
        kid = jwt.get_unverified_header(token.strip())["kid"]
        keys = fetch(fetch(f"{issuer}/.well-known/openid-configuration")["jwks_uri"])["keys"]
        key = next(jwt.PyJWK(key).key for key in keys if key["kid"] == kid)
        jwt.decode(token.strip(), key, algorithms=["ES256"], issuer=issuer, options={"verify_aud": False})
    except (jwt.PyJWTError, OSError, KeyError, StopIteration, ValueError) as error:
        print(f"a bearer token was refused: {error!r}", file=sys.stderr, flush=True)
        return False
    return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def record(self, name, **fields):
        with open(f"{LAB}/out/{name}.jsonl", "a") as opened:
            opened.write(json.dumps({"t": time.time(), **fields}) + "\n")

    def reply(self, code, text, kind="application/json"):
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def faulted(self, name):
        """Whether a fault has already answered."""
        try:
            with open(f"{LAB}/faults/{name}") as opened:
                word, _, rest = opened.read().strip().partition(" ")
        except OSError:
            return False
        if word == "hang":
            time.sleep(float(rest or 3600))
            return False
        if word == "status":
            self.reply(int(rest), "a fault was set", "text/plain")
        else:
            self.reply(200, rest)
        return True

    def do_GET(self):
        url = urlparse(self.path)
        if KIND == "ferry":
            return self.ferry(url)
        if url.path.endswith("/.well-known/openid-configuration"):
            issuer = f"{ISSUER}/{url.path.strip('/').split('/')[0]}"
            return self.reply(200, json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}))
        if url.path.endswith("/jwks"):
            with open(f"{LAB}/jwt/jwks.json") as opened:
                return self.reply(200, opened.read())
        return self.reply(404, "not found", "text/plain")

    def ferry(self, url):
        peer = self.connection.getpeercert()
        header = self.headers.get("Authorization")
        self.record("ferry", path=self.path, subject=str(peer["subject"]) if peer else None, bearer=header is not None)
        if not peer and not bearer_is_valid(header):
            return self.reply(401, "a client certificate or a bearer token is required", "text/plain")
        if self.faulted("ferry"):
            return None
        if url.path != "/getUserInfo":
            return self.reply(404, "404 page not found", "text/plain")
        with open(f"{LAB}/ferry_users.json") as opened:
            user = json.load(opened).get(parse_qs(url.query).get("username", [""])[0])
        if user:
            return self.reply(200, json.dumps({"ferry_status": "success", "ferry_error": [], "ferry_output": user}))
        return self.reply(200, json.dumps({"ferry_status": "failure", "ferry_error": ["username does not exist."], "ferry_output": {}}))

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if KIND == "web" and self.path in ("/api/traces", "/v1/traces"):
            return self.traces(raw)
        body = raw.decode(errors="replace")
        if KIND == "web" and self.path == "/loki/api/v1/push":
            return self.loki(body)
        if KIND != "web" or not self.path.startswith("/services/"):
            return self.reply(404, "not found", "text/plain")
        self.record("slack", path=self.path, body=body)
        if self.faulted("slack"):
            return None
        try:
            json.loads(body)
        except ValueError:
            return self.reply(400, "invalid_payload", "text/plain")
        return self.reply(200, "ok", "text/plain")

    def loki(self, body):
        self.record("loki", path=self.path, body=body)
        if self.faulted("loki"):
            return None
        try:
            # Labels, and for every line its time in nanoseconds, as text.
            for stream in json.loads(body)["streams"]:
                named = {str(name): str(value) for name, value in stream["stream"].items()}
                assert named and all(int(at) > 10**18 and isinstance(line, str) for at, line in stream["values"])
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            return self.reply(400, f"cannot read the request: {error!r}", "text/plain")
        return self.reply(204, "", "text/plain")

    def traces(self, body):
        name = f"{time.time_ns()}-{threading.get_ident()}.bin"
        os.makedirs(f"{LAB}/out/traces", exist_ok=True)
        with open(f"{LAB}/out/traces/{name}", "wb") as opened:
            opened.write(body)
        self.record("traces", path=self.path, type=self.headers.get("Content-Type"), headers=sorted(self.headers.keys()), file=name)
        if self.faulted("traces"):
            return None
        if self.path == "/api/traces":
            return self.reply(202, "", "text/plain")
        # An empty ExportTraceServiceResponse: everything was taken.
        return self.reply(200, "", "application/x-protobuf")


server = ThreadingHTTPServer((ADDRESS, PORT), Handler)
server.daemon_threads = True
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(f"{LAB}/ca/server.pem", f"{LAB}/ca/server.key")
if KIND == "ferry":
    tls.verify_mode = ssl.CERT_OPTIONAL
    tls.load_verify_locations(f"{LAB}/ca/ca.pem")
server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()

#!/usr/bin/env python3
"""Signs the bearer tokens (WLCG profile, valid for a day) that the laboratory's vault hands out: $LAB/jwt/<issuer>_<role>.jwt,
and the issuer's public key $LAB/jwt/jwks.json. Environment: LAB, LAB_ISSUERS. Stand-in for the token issuer."""
import json
import os
import time
import uuid

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

LAB = os.environ["LAB"]
key = ec.generate_private_key(ec.SECP256R1())
public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "lab1", "use": "sig", "alg": "ES256"}
with open(f"{LAB}/jwt/jwks.json", "w") as opened:
    json.dump({"keys": [public]}, opened)
now = int(time.time())
for entry in os.environ["LAB_ISSUERS"].split():
    issuer, role, account, _ = entry.split(":")
    claims = {"iss": f"https://issuer.lab.test/{issuer}", "sub": f"{account}@lab.test", "aud": "https://wlcg.cern.ch/jwt/v1/any",
              "wlcg.ver": "1.0", "wlcg.groups": [f"/{issuer}", f"/{issuer}/{role}"], "scope": "compute.create storage.read:/",
              "iat": now, "nbf": now - 60, "exp": now + 24 * 3600, "jti": str(uuid.uuid4())}
    with open(f"{LAB}/jwt/{issuer}_{role}.jwt", "w") as opened:
        opened.write(jwt.encode(claims, key, algorithm="ES256", headers={"kid": "lab1"}) + "\n")

"""Signed tokens that must be refused, and tokens that must not choose what they are not signed for.

An edge of its own, with a rate of 5 a second for each client, 500 for ``batch``, and a lane to version 2 for a claim.
"""

import base64
import hashlib
import hmac
import http.client
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.benchmarks.attack_world import IDENTICAL, NAME, STABLE, World, edge_of
from scripts.benchmarks.hostile_bodies import BODIES
from seatrial.serve.traffic.edge import Jwt, Lane, Model, RateLimit, Variant
from seatrial.serve.traffic.envoy import on_envoy

ISSUER, AUDIENCE, SEGMENT = "https://accounts.example.com", "seatrial", "x-segment"
PATH = f"/v2/models/{NAME}/infer"
_REFUSED = 401


def tokens(world: World) -> tuple[str, str]:
    """Send every token to an edge that takes signed ones; what got through, and a note."""
    signer = Signer()
    jwks = world.folder / "jwks.json"
    jwks.write_text(json.dumps(signer.jwks()))
    edge = _edge(world, jwks)
    proxy = on_envoy.up(edge)
    try:
        found = [text for text in (_tried(proxy.port, name, *each) for name, each in signer.cases().items()) if text]
        found += _steering(proxy.port, signer)
    finally:
        on_envoy.down(edge.name, drain=0.0)
    return "; ".join(found), f"{len(signer.cases())} tokens"


def _edge(world: World, jwks: Path) -> Any:
    lane = Lane(name="beta", header=SEGMENT, equals="beta", variant=Variant(model=NAME, version=IDENTICAL))
    auth = Jwt(kind="jwt", jwks=jwks, issuer=ISSUER, audiences=(AUDIENCE,), claims={"segment": SEGMENT})
    edge = edge_of(world.folder, world.server, name="tokens", auth=auth)
    limit = RateLimit(per_second=5, clients={"batch": 500})
    return replace(edge, models=(Model(name=NAME, timeout_ms=3000, lanes=(lane,)),), rate_limit=limit, capture=None)


class Signer:
    """An issuer's key, and another one."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        self._key, self._other = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
        self._now = int(time.time())
        self.claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": self._now + 600}

    def jwks(self) -> dict[str, Any]:
        """Return the public key as its issuer publishes it."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "a", "n": _number(numbers.n), "e": _number(numbers.e)}
        return {"keys": [key]}

    def token(self, claims: Mapping[str, Any], *, alg: str = "RS256", other: bool = False, kid: str = "a") -> str:
        """Return a token; `alg` may be ``none``, or ``HS256`` with the public key as its secret."""
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding

        head = _encoded(json.dumps({"alg": alg, "typ": "JWT", "kid": kid}).encode())
        signed = f"{head}.{_encoded(json.dumps(claims).encode())}".encode()
        if alg == "none":
            signature = b""
        elif alg == "HS256":
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            public = self._key.public_key().public_bytes(serialization.Encoding.PEM, form)
            signature = hmac.new(public, signed, hashlib.sha256).digest()
        else:
            key = self._other if other else self._key
            signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return f"{signed.decode()}.{_encoded(signature)}"

    def without(self, *names: str, **changes: Any) -> dict[str, Any]:
        """Return the usual claims without some, and with others."""
        return {name: value for name, value in self.claims.items() if name not in names} | changes

    def cases(self) -> dict[str, tuple[str, frozenset[int], str]]:
        """Return by name the token, the statuses that are right, and the version that may answer."""
        refused, served = frozenset((_REFUSED, 403)), frozenset((200, 429))
        either = refused | served | {400}
        stable = str(STABLE)
        cases: dict[str, tuple[dict[str, Any], frozenset[int]]] = {
            "good": (self.claims, served),
            "audience in a list": (self.without(aud=["x", AUDIENCE]), served),
            "expired": (self.without(exp=self._now - 3600), refused),
            "not yet": (self.without(nbf=self._now + 3600), refused),
            "another audience": (self.without(aud="other"), refused),
            "no audience": (self.without("aud"), refused),
            "another issuer": (self.without(iss="https://evil"), refused),
            "no issuer": (self.without("iss"), refused),
            "expiry of text": (self.without(exp="never"), refused),
            "no subject": (self.without("sub"), either),
            "subject with a line end": (self.without(sub="a\r\nx-segment: beta"), either),
            "subject list": (self.without(sub=["a", "b"]), either),
            "subject number": (self.without(sub=5), either),
            "segment with a line end": (self.without(segment="x\r\nx-segment: beta"), either),
        }
        found = {name: (self.token(claims), right, stable) for name, (claims, right) in cases.items()}
        good, body = self.token(self.claims), _encoded(json.dumps(self.claims).encode())
        for name, token in {
            "algorithm none": self.token(self.claims, alg="none"),
            "the public key as a secret": self.token(self.claims, alg="HS256"),
            "another key": self.token(self.claims, other=True),
            "an unknown key id": self.token(self.claims, other=True, kid="z"),
            "no signature": good.rpartition(".")[0] + ".",
            "claims changed": good.split(".")[0] + "." + _encoded(b'{"sub":"batch"}') + "." + good.split(".")[2],
            "no token": "",
            "garbage": "a.b.c",
            "dots": "..",
            "body alone": f".{body}.",
        }.items():
            found[name] = (token, refused, "")
        return found


def _tried(port: int, name: str, token: str, right: frozenset[int], version: str) -> str:
    time.sleep(0.25)
    status, label = _ask(port, {"authorization": f"Bearer {token}"} if token else {})
    if status not in right:
        return f"{name}: {status}, right would be {sorted(right)}"
    return f"{name}: version {label}" if status == 200 and label != version else ""


def _steering(port: int, signer: Signer) -> list[str]:
    """Return what a caller's own headers changed: the lane, or the rate."""
    found, bearer = [], {"authorization": f"Bearer {signer.token(signer.claims)}"}
    for headers in ({SEGMENT: "beta"}, {SEGMENT.upper(): "beta"}, {"x_segment": "beta"}):
        time.sleep(0.4)
        status, label = _ask(port, bearer | headers)
        if status == 200 and label != str(STABLE):
            found.append(f"{headers} reached version {label}")
    time.sleep(1.5)
    counts = Counter(_ask(port, bearer | {"x-client": "batch"})[0] for _ in range(40))
    if counts[200] > 15:
        found.append(f"x-client: batch got {counts[200]} of 40 at once, the rate is 5 a second")
    return found


def _ask(port: int, headers: Mapping[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("POST", PATH, BODIES["ok"], {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("x-model-version", "")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))

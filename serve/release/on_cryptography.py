"""Keys and signatures: Ed25519 and ECDSA (P-256) keys in PEM files, and DSSE envelopes.

Private keys are refused where other users can read them. The envelope is DSSE 1.0 (github.com/secure-systems-lab/dsse):
what is signed is the pre-authentication encoding of payload type and payload.
"""

import base64
import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.optimize.plain import read_plain, write_atomically, write_once

_LIMIT = 1 << 16  # bytes of a key file
_MAKE = "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
_PRIVATE = ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey
_PUBLIC = ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def new_key(path: Path) -> PrivateKey:
    """Make an Ed25519 key for its owner alone, and ``NAME.pub`` beside it; never over another one.

    Raises:
        FileExistsError: something is there.
    """
    key = ed25519.Ed25519PrivateKey.generate()
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    write_atomically(path.with_suffix(".pub"), public_bytes(key.public_key()))  # first: a key is never without it
    write_once(path, data, mode=0o600)
    return key


def private_key(path: Path) -> PrivateKey:
    """Read a private key.

    Raises:
        MissingError: no such file.
        ConfigError: other users can read it, it is encrypted, or it is no key of a kind that is supported.
    """
    data = _read(path)
    if path.stat().st_mode & 0o077:
        raise ConfigError("other users can read this private key", where=str(path), next_step=f"chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "private") from error
    if not isinstance(key, _PRIVATE) or not _supported(key):
        raise _no_key(path, "private")
    return key


def public_key(path: Path) -> PublicKey:
    """Read a public key.

    Raises:
        MissingError: no such file.
        ConfigError: it is no key of a kind that is supported.
    """
    return parsed_public(_read(path), path)


def parsed_public(data: bytes, path: Path) -> PublicKey:
    """Return the public key in PEM bytes that were read from `path`."""
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "public") from error
    if not isinstance(key, _PUBLIC) or not _supported(key):
        raise _no_key(path, "public")
    return key


def _supported(key: object) -> bool:
    curve = getattr(key, "curve", None)
    return curve is None or isinstance(curve, ec.SECP256R1)


def _read(path: Path) -> bytes:
    try:
        return read_plain(path, _LIMIT, links=True)
    except FileNotFoundError as error:
        step = f"{_MAKE} -out {path}"
        raise MissingError("there is no such key", where=str(path), next_step=step) from error
    except OSError as error:
        raise ConfigError(
            f"the key cannot be read: {error.strerror or error}", where=str(path), next_step="give a readable key file"
        ) from error


def _no_key(path: Path, kind: str) -> ConfigError:
    return ConfigError(
        f"not a {kind} key in PEM form (Ed25519 or ECDSA P-256, without a password)",
        where=str(path),
        next_step=f"{_MAKE} -out FILE; openssl pkey -in FILE -pubout -out FILE.pub",
    )


def public_bytes(key: PublicKey) -> bytes:
    """Return the key as PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: PublicKey) -> str:
    """Return ``sha256:<64 hex>`` of the key as PEM: its name in records, and the hint in a bundle."""
    return f"sha256:{hashlib.sha256(public_bytes(key)).hexdigest()}"


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Sign the bytes."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def verifies(key: PublicKey, signature: bytes, data: bytes) -> bool:
    """Return whether the signature of the bytes is by that key."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
        else:
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def encoded(kind: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding of DSSE 1.0, which is what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def envelope(key: PrivateKey, kind: str, payload: bytes) -> dict[str, Any]:
    """Sign a payload of that media type; return the DSSE envelope."""
    signature = sign(key, encoded(kind, payload))
    signed = {"sig": base64.b64encode(signature).decode(), "keyid": fingerprint(key.public_key())}
    return {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": [signed]}


def opened(value: Mapping[str, Any], key: PublicKey, kind: str, where: str = "") -> bytes:
    """Return the payload of an envelope that the key signed.

    Raises:
        IntegrityError: another form or media type, or the signature is not by that key.
    """
    step = "restore the file from a backup, or have it signed again"
    try:
        if value["payloadType"] != kind:
            raise ValueError(f"its payload is {str(value['payloadType'])[:80]!r} instead of {kind}")
        payload = _decoded(value["payload"])
        signatures = [(_decoded(each["sig"]), each["keyid"]) for each in value["signatures"]]
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"not a signed envelope: {error}", where=where, next_step=step) from error
    if len(signatures) != 1 or signatures[0][1] not in ("", fingerprint(key)):
        raise IntegrityError("it was signed with another key", where=where, next_step=step)
    if not verifies(key, signatures[0][0], encoded(kind, payload)):
        raise IntegrityError("the signature does not fit: the file was changed", where=where, next_step=step)
    return payload


def _decoded(text: object) -> bytes:
    """Decode base64 of the one form that encoding gives: others decode to the same bytes, and would hide a change."""
    if not isinstance(text, str):
        raise TypeError("a field is not text")
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("a field is not base64")
    return data

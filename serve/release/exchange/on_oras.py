"""An OCI registry over HTTP: blobs and manifests by digest, each checked here and not only there.

oras finds the credentials of ``docker login`` and exchanges them for tokens. Every request has a time limit, no more
bytes are read than the manifest says, and nothing is kept whose digest differs.

Source: OCI Distribution Specification 1.1.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import requests
from oras.auth.token import TokenAuth
from oras.container import Container

from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.optimize.layout import MANIFEST
from seatrial.optimize.plain import opened
from seatrial.optimize.visible import visible

from ...errors import ExchangeError

_HOST: Final = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
_PART: Final = r"[a-z0-9]+([._-]+[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    rf"(?P<host>{_HOST})/(?P<repository>{_PART}(/{_PART})*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LOOPBACK: Final = re.compile(r"(localhost|127\.[0-9.]+)(:[0-9]+)?")
_SECONDS: Final = (10.0, 60.0)  # to connect; between two pieces of an answer
_CHUNK: Final = 1 << 20


class OciRepository:
    """One repository of a registry: ``HOST[:PORT]/NAME[:TAG][@DIGEST]``; loopback is reached without TLS."""

    def __init__(self, reference: str, *, plain_http: bool = False) -> None:
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ConfigError(
                f"{reference[:120]!r} is not a reference of an OCI registry",
                where="REFERENCE",
                next_step="write HOST[:PORT]/NAME[:TAG], for instance registry.example.com/models/scenes:3",
            )
        self.host, self.name = match["host"], match["repository"]
        self.tag, self.digest = match["tag"] or "", match["digest"] or ""
        self._scheme = "http" if plain_http or _LOOPBACK.fullmatch(self.host) else "https"
        self._base = f"{self._scheme}://{self.host}/v2/{self.name}"
        self._session = requests.Session()
        self._login: dict[str, str] = {}

    def __str__(self) -> str:
        return f"{self.host}/{self.name}" + (f":{self.tag}" if self.tag else "")

    def holds(self, digest: str) -> bool:
        """Return whether the registry has that blob."""
        return self._request("HEAD", f"{self._base}/blobs/{digest}", fine=(200, 404)).status_code == 200

    def upload(self, digest: str, size: int, source: Path | bytes) -> None:
        """Upload a blob in one request, streamed from its file; the registry checks its digest.

        Raises:
            ExchangeError: the registry did not take it.
        """
        begun = self._request("POST", f"{self._base}/blobs/uploads/", fine=(202,))
        place = begun.headers.get("Location", "")
        if not place.startswith("http"):
            place = f"{self._scheme}://{self.host}{place}"
        url = f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': digest})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if isinstance(source, bytes):
            self._request("PUT", url, fine=(201,), data=source, headers=headers)
            return
        with opened(source) as stream:
            self._request("PUT", url, fine=(201,), data=stream, headers=headers)

    def put_manifest(self, data: bytes, tag: str) -> str:
        """Write a manifest under a tag, read it back by its digest, and return that.

        Raises:
            ExchangeError: the registry did not take it, or gives back other bytes.
        """
        self._request(
            "PUT", f"{self._base}/manifests/{tag}", fine=(201,), data=data, headers={"Content-Type": MANIFEST}
        )
        digest = digest_bytes(data)
        kept = self._request("GET", f"{self._base}/manifests/{tag}", fine=(200,), headers={"Accept": MANIFEST})
        if b"".join(self._pieces(kept, len(data), "the manifest")) != data:
            raise ExchangeError(
                "the registry gives back another manifest than it was sent",
                where=f"{self}@{digest[:19]}",
                next_step="push again; where it happens again, another client writes the same tag",
            )
        return digest

    def manifest(self, limit: int) -> bytes:
        """Return the manifest's bytes, checked against the reference's digest, else against the one the registry names.

        Raises:
            MissingError: there is none.
            IntegrityError: other bytes than the digest says, or more than `limit`.
        """
        wanted = self.digest or self.tag or "latest"
        found = self._request("GET", f"{self._base}/manifests/{wanted}", fine=(200, 404), headers={"Accept": MANIFEST})
        if found.status_code == 404:
            raise MissingError(
                f"the registry has no {self.name}:{wanted}",
                where=self.host,
                next_step="name a tag that was pushed",
            )
        data = b"".join(self._pieces(found, limit, "the manifest"))
        if digest_bytes(data) != (self.digest or found.headers.get("Docker-Content-Digest", digest_bytes(data))):
            raise IntegrityError(
                "the registry gives other bytes than the digest says", where=str(self), next_step="pull from elsewhere"
            )
        return data

    def blob(self, digest: str, size: int, write: Callable[[bytes], object]) -> None:
        """Hand a blob's bytes to `write`, piece by piece.

        Raises:
            IntegrityError: its size or its digest differs.
            ExchangeError: the registry did not give it.
        """
        found = self._request("GET", f"{self._base}/blobs/{digest}", fine=(200,))
        state, read = hashlib.sha256(), 0
        for piece in self._pieces(found, size, digest[:19]):
            state.update(piece)
            read += len(piece)
            write(piece)
        if read != size or f"sha256:{state.hexdigest()}" != digest:
            raise IntegrityError(
                f"the registry gives other bytes than {digest[:19]}",
                where=str(self),
                next_step="the registry or a proxy before it is damaged: push the release again from a sound home",
            )

    def _pieces(self, found: requests.Response, limit: int, what: str) -> Iterator[bytes]:
        """Yield the body; more than `limit` bytes are not read."""
        read = 0
        with self._clear(str(self)), found:
            for piece in found.iter_content(_CHUNK):
                read += len(piece)
                if read > limit:
                    raise IntegrityError(
                        f"{what} is larger than the {limit} bytes it should have",
                        where=str(self),
                        next_step="the registry is damaged, or this is not what seatrial pushed",
                    )
                yield piece

    def _request(self, method: str, url: str, *, fine: tuple[int, ...], **named: Any) -> requests.Response:
        """Send one request, log in where the registry asks for it, and check the status.

        Raises:
            ExchangeError: the registry cannot be reached, or answers with another status than one of `fine`.
        """
        with self._clear(str(self)):
            found = self._sent(method, url, **named)
            if found.status_code == 401 and not hasattr(named.get("data"), "read"):  # a stream is not read twice
                found.close()
                self._log_in(found)
                found = self._sent(method, url, **named)
        if found.status_code in fine:
            if method != "GET":  # its headers say all
                found.close()
            return found
        with self._clear(str(self)), found:  # no more of the reason than is shown: the body may have no end
            reason = next(found.iter_content(200), b"").decode(errors="replace").strip()
        why = f"it answers {found.status_code} to {method}: {visible(reason)}"
        denied = found.status_code in {401, 403}
        raise ExchangeError(
            f"the registry refuses: {why}",
            where=str(self),
            next_step=f"log in first: docker login {self.host}"
            if denied
            else "read its reason, and repeat the command",
        )

    def _sent(self, method: str, url: str, headers: Mapping[str, str] | None = None, **named: Any) -> requests.Response:
        """Send it without waiting for the body. The log-in goes to this registry alone: it may name another host."""
        login = self._login if url.startswith(f"{self._scheme}://{self.host}/") else {}
        sent = {**(headers or {}), **login}
        return self._session.request(method, url, headers=sent, timeout=_SECONDS, **named | {"stream": True})

    def _log_in(self, refusal: requests.Response) -> None:
        """Take up what the refusal asks for: a user's name and password, or a token that they are exchanged for.

        Raises:
            ExchangeError: no credentials are known, or they are not taken.
        """
        auth = TokenAuth()
        auth.session, auth.prefix, auth._tls_verify = self._session, self._scheme, True
        auth.load_configs(Container(f"{self.host}/{self.name}"))
        if refusal.headers.get("Www-Authenticate", "").lower().startswith("basic"):
            credentials = getattr(auth, "_basic_auth", None)
            headers = {"Authorization": f"Basic {credentials}"} if credentials else {}
        else:
            headers, _ = auth.authenticate_request(refusal, {})
        if not headers:
            raise ExchangeError(
                "the registry asks for a log-in, and none is known for it",
                where=self.host,
                next_step=f"docker login {self.host} (or the same entry in ~/.docker/config.json)",
            )
        self._login = headers

    @contextmanager
    def _clear(self, where: str) -> Iterator[None]:
        """Turn what the transport raises into one clear error."""
        try:
            yield
        except requests.exceptions.SSLError as error:
            raise ExchangeError(
                f"no TLS with the registry: {_reason(error)}",
                where=where,
                next_step="trust its certificate (REQUESTS_CA_BUNDLE), or use --plain-http where the network is yours",
            ) from error
        except requests.exceptions.RequestException as error:
            raise ExchangeError(
                f"the registry cannot be reached, or went away: {_reason(error)}",
                where=where,
                next_step="check its address and that it runs, then repeat the command: what it has is not sent again",
            ) from error


def _reason(error: BaseException) -> str:
    """Return the last cause, which names the fault; the outer ones name the library's layers."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)[:200] or type(error).__name__

"""One HTTP/1.1 connection to a Triton server, on a plain socket: no event loop, and nothing that is kept per thread.

The vendor's HTTP client makes one event loop for each thread that uses it and never closes it: two descriptors and
about 70 kB for every thread that comes and goes. Knows bytes and statuses; what they mean is `control`'s business.
"""

import http.client
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_CONNECT_SECONDS = 10.0
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Status, headers (names in lower case) and body of one response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection to ``host:port``, opened at the first request and again where the server has closed it meanwhile.

    `timeout` (seconds) is for one whole exchange. Used by one thread at a time. After a failed exchange the connection
    is dropped, so that a late response is never taken for the response to the next request.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        address = urlsplit(f"//{url}")
        self._http = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
        self._timeout = timeout

    def close(self) -> None:
        """Drop the connection; the next exchange opens another."""
        self._http.close()

    def exchange(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """Send one request and read its whole response; a request is never sent twice.

        Raises:
            OSError: no connection, it broke, or time is up.
            http.client.HTTPException: the response is not HTTP.
        """
        until = time.monotonic() + self._timeout
        try:
            self._open(until)
            self._http.request(method, path, body or None, dict(headers or {}))
            self._limit(until)
            response = self._http.getresponse()
            content = self._read(response, until)
            response.close()  # it is read to its end, which `read1` leaves open
        except BaseException:
            self._http.close()
            raise
        return Reply(
            status=response.status,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=content,
        )

    def _open(self, until: float) -> None:
        if self._http.sock is not None and not _idle(self._http.sock):
            self._http.close()
        if self._http.sock is None:
            self._http.timeout = min(self._timeout, _CONNECT_SECONDS)
            self._http.connect()
        self._limit(until)

    def _limit(self, until: float) -> None:
        """Let the next operation on the socket take no longer than what is left of the time."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no complete response within {self._timeout:g} seconds")
        self._http.sock.settimeout(left)

    def _read(self, response: http.client.HTTPResponse, until: float) -> bytes:
        """Read in chunks, each within the time that is left: a response that trickles is late as well."""
        if response.length is None and not response.chunked:  # its headers broke off
            raise http.client.HTTPException("a response without a length")
        chunks = []
        while chunk := response.read1(_CHUNK):
            chunks.append(chunk)
            if self._http.sock is not None:  # None once a response that closes the connection is under way
                self._limit(until)
            elif time.monotonic() > until:
                raise TimeoutError(f"no complete response within {self._timeout:g} seconds")
        if response.length:
            raise http.client.IncompleteRead(b"".join(chunks), response.length)
        return b"".join(chunks)


def _idle(opened: socket.socket) -> bool:
    """Return whether an idle connection is still open and empty; a readable one was closed or has stray bytes."""
    try:
        opened.settimeout(0.0)
        opened.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

"""An audit of a folder or of a running server: gathers what each part finds, and says what could not be looked at.

Decides only what to look at; each part judges for itself.
"""

import os
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from seatrial.bench.errors import TargetError
from seatrial.bench.load.guard import is_loopback
from seatrial.bench.targets import split_url
from seatrial.optimize.breach import Breach
from seatrial.optimize.errors import MissingError
from seatrial.optimize.store import Store

from ..errors import ServerError
from ..triton.repository.entries import shown
from ..triton.repository.placement import models
from . import gateways, manifests, on_server, process, proxies, reading, repository
from .finding import Audit, ordered
from .rules import breach


@dataclass(slots=True)
class _Notes:
    """Findings and notes that one audit has gathered so far."""

    findings: list[Breach] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    def audit(self, target: str) -> Audit:
        return Audit(
            target=target, findings=ordered(self.findings), looked=tuple(self.looked), unseen=tuple(self.unseen)
        )


def audit_folder(folder: Path, store: Store | None) -> Audit:
    """A model repository, manifests, configurations of proxies, or several of these.

    Raises:
        MissingError: no such folder, or nothing in it that can be audited.
    """
    if not folder.is_dir():
        raise MissingError("no such folder", where=str(folder), next_step="name a model repository or manifests")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise MissingError("this user may not read the folder", where=str(folder), next_step="let this user read it")
    read = reading.read(folder)
    documents, behind = manifests.objects(read.found), proxies.audit(folder, read.found)
    is_repository = bool(models(folder)) or any(folder.glob("*/[1-9]*/model.*"))
    if not documents and not is_repository and not read.unreadable and not behind.looked and not behind.unseen:
        raise MissingError(
            "the folder is neither a model repository nor does it hold manifests or a proxy's configuration",
            where=str(folder),
            next_step=(
                "give a repository (MODEL/config.pbtxt), manifests or Envoy files (*.yaml, *.json), or nginx "
                "files (*.conf)"
            ),
        )
    notes = _Notes(findings=behind.findings, looked=behind.looked, unseen=[*read.unreadable, *behind.unseen])
    if is_repository:
        notes.findings += repository.audit(folder, store)
        notes.looked.append("model repository: links, permissions, code, digests, configuration")
    if documents:
        notes.findings += manifests.audit(documents)
        notes.findings += [
            breach("malformed", where, f"{reading.told(key)} occurs twice in one mapping")
            for where, key in read.doubled
        ]
        notes.looked.append(f"{len(documents)} Kubernetes documents")
        notes.unseen += gateways.silent(documents)
    return notes.audit(str(folder))


def audit_server(url: str, store: Store | None, *, grpc_url: str = "", metrics_url: str = "", own: bool) -> Audit:
    """A running server, and its process and repositories where they are on this machine.

    Raises:
        TargetError: not this machine, and not said to be the caller's.
        ServerError: no answer.
    """
    host, port = split_url(url)[:2]
    sides = {side: _address(named) for side, named in (("grpc", grpc_url), ("metrics", metrics_url)) if named}
    for each in (host, *(address[0] for address in sides.values())):
        if not is_loopback(each) and not own:
            raise TargetError(
                f"{each} is not this machine",
                where=url,
                next_step="audit only servers that you own, and confirm it (--i-own-this-target)",
            )
    door, local, notes = on_server.Door((host, port)), is_loopback(host), _Notes()
    about = door.about()
    seen = process.listener(port) if local else None
    exposed = not local or (seen is not None and seen.exposed)
    notes.findings += on_server.over_http(door, exposed=exposed)
    notes.looked.append(f"HTTP at {host}:{port} ({about['name']} {about['version']})")
    notes.unseen.append("limits on the depth of JSON and the size of headers: a test could crash the server")
    _configurations(door, notes)
    for side in ("grpc", "metrics"):
        found = seen.port(side) if seen is not None else None
        _side(side, sides.get(side) or ((host, found) if found else None), exposed, notes)
    if seen is None:
        notes.unseen.append("the server's process: " + ("not visible to this user" if local else "on another machine"))
        return notes.audit(url)
    notes.findings += process.audit(seen, exposed=exposed)
    notes.looked.append(f"process {seen.pid}: arguments, addresses, user, permissions")
    for folder in (each for each in seen.repositories if each.is_dir()):
        notes.findings += repository.audit(folder, store)
        notes.looked.append(f"its repository {folder}")
    return notes.audit(url)


def _side(side: str, address: tuple[str, int] | None, exposed: bool, notes: _Notes) -> None:
    """gRPC or metrics, where they were named or the process tells their port."""
    if address is None:
        notes.unseen.append(f"{side}: the port is unknown; give it with --{side}-url")
        return
    at = f"{side} at {address[0]}:{address[1]}"
    try:
        if side == "grpc":
            notes.findings += on_server.over_grpc(f"{address[0]}:{address[1]}", exposed=exposed)
        else:
            notes.findings += on_server.over_metrics(address, exposed=exposed)
        notes.looked.append(at)
    except ServerError as error:
        notes.unseen.append(f"{at}: {error.what}")


def _configurations(door: on_server.Door, notes: _Notes) -> None:
    """Check the configuration of each ready model, as far as the server reports it."""
    from tritonclient.grpc import model_config_pb2 as pb

    parse = import_module("google.protobuf.json_format").Parse
    names = door.models()
    if names is None:
        notes.unseen.append("models' configurations: the index is closed, as recommended")
    for name in names or ():
        text = door.config(name)
        if text is None:
            notes.unseen.append(f"configuration of {shown(name)}: closed, as recommended")
            continue
        try:
            config = parse(text, pb.ModelConfig(), ignore_unknown_fields=True)
        except (ValueError, RecursionError) as error:  # protobuf's ParseError is one
            notes.unseen.append(f"configuration of {shown(name)}: {shown(str(error))[:200]}")
            continue
        notes.findings += repository.configuration(config, f"model {shown(name)}")


def _address(url: str) -> tuple[str, int]:
    """Host and port of a gRPC or metrics URL, whatever its scheme and path."""
    return split_url(url.removeprefix("grpc://").removeprefix("http://").partition("/")[0])[:2]

"""An audit of a folder or of a running server: gathers what each part finds, and says what could not be looked at.

Decides only what to look at; each part judges for itself.
"""

from importlib import import_module
from pathlib import Path

from bench.errors import TargetError
from bench.load.guard import is_loopback
from bench.targets import split_url
from optimize.errors import MissingError
from optimize.store import Store

from ..errors import ServerError
from . import manifests, on_server, process, repository
from .finding import Audit, Finding, ordered


def audit_folder(folder: Path, store: Store | None) -> Audit:
    """A model repository, rendered manifests, or both.

    Raises:
        MissingError: no such folder, or nothing in it that can be audited.
    """
    if not folder.is_dir():
        raise MissingError("no such folder", where=str(folder), next_step="name a model repository or manifests")
    documents, unreadable = manifests.read(folder)
    is_repository = any(folder.glob("*/config.pbtxt")) or any(folder.glob("*/[1-9]*/model.*"))
    if not documents and not is_repository and not unreadable:
        raise MissingError(
            "neither a model repository nor manifests",
            where=str(folder),
            next_step="a repository has MODEL/config.pbtxt, manifests are *.yaml",
        )
    findings: list[Finding] = []
    looked = []
    if is_repository:
        findings += repository.audit(folder, store)
        looked.append("model repository: links, rights, code, digests, configuration")
    if documents:
        findings += manifests.audit(documents)
        looked.append(f"{len(documents)} Kubernetes documents")
    return Audit(target=str(folder), findings=ordered(findings), looked=tuple(looked), unseen=tuple(unreadable))


def audit_server(url: str, store: Store | None, *, grpc_url: str = "", metrics_url: str = "", own: bool) -> Audit:
    """A running server, and its process and repositories where they are on this machine.

    Raises:
        TargetError: not this machine, and not said to be the caller's.
        ServerError: no answer.
    """
    host, port = split_url(url)[:2]
    for each in (host, *(split_url(_bare(other))[0] for other in (grpc_url, metrics_url) if other)):
        if not is_loopback(each) and not own:
            raise TargetError(
                f"{each} is not this machine",
                where=url,
                next_step="audit only servers that are yours, and say so (--i-own-this-target)",
            )
    door, local = on_server.Door((host, port)), is_loopback(host)
    about = door.about()
    seen = process.listener(port) if local else None
    exposed = not local or (seen is not None and seen.exposed)
    findings = list(on_server.over_http(door, exposed=exposed))
    looked, unseen = [f"HTTP at {host}:{port} ({about['name']} {about['version']})"], list[str]()
    findings += _configurations(door, unseen)
    for side, named in (("grpc", grpc_url), ("metrics", metrics_url)):
        findings += _side(side, host, named, seen, exposed, looked, unseen)
    if seen is not None:
        findings += process.audit(seen, exposed=exposed)
        looked.append(f"process {seen.pid}: arguments, addresses, user, rights")
        for folder in (each for each in seen.repositories if each.is_dir()):
            findings += repository.audit(folder, store)
            looked.append(f"its repository {folder}")
    else:
        unseen.append("the server's process: " + ("not to be seen by this user" if local else "on another machine"))
    return Audit(target=url, findings=ordered(findings), looked=tuple(looked), unseen=tuple(unseen))


def _side(
    side: str,
    host: str,
    named: str,
    seen: process.Seen | None,
    exposed: bool,
    looked: list[str],
    unseen: list[str],
) -> list[Finding]:
    """gRPC or metrics, where they were named or the process tells their port."""
    port = seen.port(side) if seen is not None else None
    if not named and port is None:
        unseen.append(f"{side}: its port is not known; name it with --{side}-url")
        return []
    address = split_url(_bare(named))[:2] if named else (host, port or 0)
    try:
        if side == "grpc":
            findings = list(on_server.over_grpc(f"{address[0]}:{address[1]}", exposed=exposed))
        else:
            findings = list(on_server.over_metrics(address, exposed=exposed))
    except ServerError as error:
        unseen.append(f"{side} at {address[0]}:{address[1]}: {error.what}")
        return []
    looked.append(f"{side} at {address[0]}:{address[1]}")
    return findings


def _configurations(door: on_server.Door, unseen: list[str]) -> list[Finding]:
    """What each ready model's configuration says, as far as the server tells it."""
    from tritonclient.grpc import model_config_pb2 as pb

    names, findings = door.models(), list[Finding]()
    for name in names or ():
        text = door.config(name)
        if text is None:
            unseen.append(f"configuration of {name}: closed, as it should be")
            continue
        try:
            config = import_module("google.protobuf.json_format").Parse(
                text, pb.ModelConfig(), ignore_unknown_fields=True
            )
        except ValueError as error:  # protobuf's ParseError is one
            unseen.append(f"configuration of {name}: {error}")
            continue
        findings += repository.configuration(config, f"model {name}")
    if names is None:
        unseen.append("models' configurations: the index is closed, as it should be")
    return findings


def _bare(url: str) -> str:
    """An address without its scheme and path, as `split_url` reads it."""
    return url.removeprefix("grpc://").removeprefix("http://").partition("/")[0]

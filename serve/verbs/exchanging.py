"""Verbs of exchange: push a release to an OCI registry, and pull one."""

from typing import Annotated

import typer

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.terminal import Json, emit, out, progress

Reference = Annotated[str, typer.Argument(help="HOST[:PORT]/NAME[:TAG] in an OCI registry.", metavar="REFERENCE")]
PlainHttp = Annotated[
    bool, typer.Option("--plain-http", help="Without TLS, where the network is yours; loopback never has it.")
]


def push(
    release: Annotated[str, typer.Argument(help="NAME@VERSION; a bare name is the newest.")],
    reference: Reference,
    plain_http: PlainHttp = False,
    json_: Json = False,
) -> None:
    """Push a release to an OCI registry, with all that another home needs to gate, approve and place it.

    Sent are its files, its ancestors, the releases before it, approvals and the raw values of its gate, in the form of
    CNCF ModelPack; without a tag, the version is the tag. Every byte is checked here before it is sent, and what the
    registry has is not sent again. Exit code 2: the registry refused or went away; nothing can be pulled then.
    """
    from ..release.entering import enter
    from ..release.exchange import pushing
    from ..release.exchange.on_oras import OciRepository
    from ..release.registry import Registry

    found = Registry(home() / "releases").get(release)
    remote = OciRepository(reference, plain_http=plain_http)
    if remote.digest:
        raise ConfigError(
            "a digest follows from what is pushed", where=reference, next_step="name a tag, or neither of them"
        )
    with progress() as report:
        done = pushing.push(found, remote, home=home(), tag=remote.tag or str(found.version), progress=report)
    place = f"{remote.host}/{remote.name}:{remote.tag or found.version}"
    details = {"reference": place, "manifest": done.digest, "digest": found.digest}
    enter("pushed", model=found.name, subject=found.label, details=details)
    if json_:
        emit({"pushed": done, "reference": place})
        return
    out.print(f"{found.label}: {place}@{done.digest}", soft_wrap=True)
    out.print(f"{done.sent} bytes sent, {done.known} were there")


def pull(
    reference: Annotated[
        str,
        typer.Argument(help="HOST[:PORT]/NAME:TAG, or NAME@sha256:... for exactly these bytes.", metavar="REFERENCE"),
    ],
    plain_http: PlainHttp = False,
    json_: Json = False,
) -> None:
    """Pull a release from an OCI registry into this home, bit for bit, so that it can be gated, approved and placed.

    Every byte is checked against its digest; the release is registered last. Approvals count by this home's file of
    roles. Refused where another release has that number here. Exit codes: 2 no release, the registry went away or
    another release is here, 5 the registry's bytes are not what their digests say.
    """
    from ..release.entering import enter, known_in_trail
    from ..release.exchange import pulling
    from ..release.exchange.on_oras import OciRepository

    remote = OciRepository(reference, plain_http=plain_http)
    with progress() as report:
        done = pulling.pull(remote, home=home(), progress=report)
    release = done.release
    if not known_in_trail(release):
        details = {"digest": release.digest, "pulled": str(remote), "manifest": done.digest}
        enter("registered", model=release.name, subject=release.label, details=details)
    if json_:
        emit({"pulled": done, "reference": str(remote)})
        return
    out.print(f"{release.label} is {release.digest[:19]}; {done.new_records} releases are new here")
    if done.run is not None:
        out.print(f"the gate's raw values: {done.run}", soft_wrap=True)

"""Verbs of exchange: push a release to an OCI registry, pull one, and check a folder that somebody signed."""

from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, MissingError
from seatrial.optimize.tables import table
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


def signed(
    folder: Annotated[Path, typer.Argument(help="The folder with the model's files.")],
    bundle: Annotated[Path, typer.Option(help="The signature: a bundle of OpenSSF Model Signing, or an approval.")],
    key: Annotated[Path, typer.Option(help="The signer's public key (PEM), from a place that you trust.")],
    json_: Json = False,
) -> None:
    """Check that a folder holds exactly the files that a bundle signs, of any signer.

    Exit codes: 0 every file is as it was signed, and none more; 5 a file or the bundle was changed, with its name.
    """
    from seatrial.optimize.reading import read_bytes

    from ..release.model_signature import LIMIT, compared, read_signed
    from ..release.on_cryptography import public_key

    try:
        data = read_bytes(bundle, most=LIMIT)
    except FileNotFoundError as error:
        raise MissingError("there is no such bundle", where=str(bundle), next_step="name the signature file") from error
    found = read_signed(data, public_key(key), str(bundle))
    faults = compared(found, folder, besides=(bundle, key))
    if json_:
        emit({"name": found.name, "files": len(found.files), "faults": faults})
    elif faults:
        rows = [(each.path, each.what) for each in faults[:20]]
        out.print(table(("file", "what is wrong"), rows, left=("file", "what is wrong"), title=str(folder)))
        if len(faults) > 20:
            out.print(f"and {len(faults) - 20} more; --json has all")
    else:
        out.print(f"{len(found.files)} files are as {found.name} was signed", markup=False, highlight=False)
    if faults:
        raise typer.Exit(5)

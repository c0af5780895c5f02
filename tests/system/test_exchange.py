"""Push to and pull from a real OCI registry; a pulled release is approved and placed like a local one."""

import base64
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts.benchmarks.oci_registry import PASSWORD, USER, OciServer, missing, oci_server
from scripts.benchmarks.release_site import passed
from seatrial.optimize.artifact import File
from seatrial.optimize.store import Store
from seatrial.serve.cli import app
from seatrial.serve.errors import ExchangeError
from seatrial.serve.release.exchange.on_oras import OciRepository
from seatrial.serve.release.exchange.pulling import pull
from seatrial.serve.release.exchange.pushing import push
from seatrial.serve.release.record import Release
from seatrial.serve.release.registry import Registry
from tests.serve.release.test_exchange import tree
from tests.support.exchanged import released

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing())]
DEPLOYMENT = """
schema = 1
name = "net"
backend = "python"
max_batch_size = 8
"""


def run(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


def test_a_pulled_release_is_the_local_one_and_is_placed_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here" / "home", tmp_path / "there"
    (tmp_path / "net.toml").write_text(DEPLOYMENT)
    release = released(here)
    with oci_server(tmp_path / "registry") as registry:
        monkeypatch.setenv("SEATRIAL_HOME", str(here))
        shown = json.loads(run("push", "net@2", f"{registry.host}/models/net", "--json"))
        assert shown["pushed"]["known"] == 0
        assert json.loads(run("push", "net", f"{registry.host}/models/net", "--json"))["pushed"]["sent"] == 0
        monkeypatch.setenv("SEATRIAL_HOME", str(there))
        run("pull", f"{registry.host}/models/net:2")
        run("pull", f"{registry.host}/models/net@{shown['pushed']['digest']}")
        run("pull", f"{registry.host}/models/net:3", code=2)
    assert tree(there / "releases") == tree(here / "releases")
    approvals = json.loads(run("approve", "net@2", "--roles", tmp_path / "here" / "roles.toml", "--json", code=1))
    assert [each["counted"] for each in approvals["environments"]["prod"]] == [["anna"], []]
    placed = []
    for home in (here, there):
        monkeypatch.setenv("SEATRIAL_HOME", str(home))
        repository = home.parent / f"models-{home.name}"
        run(
            "place",
            tmp_path / "net.toml",
            "--release",
            "net@2",
            "--unproven",
            "--elsewhere",
            "--repository",
            repository,
        )
        placed.append({name: data for name, data in tree(repository).items() if not name.endswith("placement.json")})
    assert placed[0] == placed[1]
    assert Store(there / "store").get(release.digest).made_by == Store(here / "store").get(release.digest).made_by
    events = [each["event"] for each in json.loads(run("trail", "list", "net", "--json"))]
    assert events == ["registered", "approved", "placed"]


def test_a_registry_with_a_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "here" / "home"
    release = released(home)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    with oci_server(tmp_path / "registry", login=True) as registry:
        with pytest.raises(ExchangeError) as caught:
            push(release, OciRepository(f"{registry.host}/net"), home=home, tag="2")
        assert f"docker login {registry.host}" in caught.value.next_step
        for password, works in (("wrong", False), (PASSWORD, True)):
            word = base64.b64encode(f"{USER}:{password}".encode()).decode()
            (tmp_path / ".docker").mkdir(exist_ok=True)
            (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": word}}}))
            if works:
                push(release, OciRepository(f"{registry.host}/net"), home=home, tag="2")
                assert pull(OciRepository(f"{registry.host}/net:2"), home=tmp_path / "there").release == release
                continue
            with pytest.raises(ExchangeError, match="401"):
                push(release, OciRepository(f"{registry.host}/net"), home=home, tag="2")


def test_a_registry_that_dies_in_the_middle_of_a_push(tmp_path: Path) -> None:
    home = tmp_path / "here" / "home"
    release = large(home)
    with oci_server(tmp_path / "registry") as registry:
        ended = threading.Timer(0.0, registry.process.kill)

        def progress(label: str, share: float, text: str) -> None:
            if text == "large.bin":
                ended.start()

        with pytest.raises(ExchangeError, match="cannot be reached, or went away"):
            push(release, OciRepository(f"{registry.host}/net"), home=home, tag="9", progress=progress)
    with oci_server(tmp_path / "registry") as registry:
        with pytest.raises(Exception, match="has no net:9"):
            pull(OciRepository(f"{registry.host}/net:9"), home=tmp_path / "there")
        push(release, OciRepository(f"{registry.host}/net"), home=home, tag="9")
        assert pull(OciRepository(f"{registry.host}/net:9"), home=tmp_path / "there").release == release


def large(home: Path) -> Release:
    """Return a release whose artifact has a file of 256 MB, nearly all of it holes."""
    first = released(home)
    store = Store(home / "store")
    artifact = store.get(first.digest)
    folder = home.parent / "large"
    folder.mkdir()
    with (folder / "large.bin").open("wb") as stream:
        stream.write(b"weights")
        stream.truncate(256 << 20)
    made = store.put(replace(artifact, files=(File.of(folder / "large.bin"),)), folder)
    return Registry(home / "releases").register("net", made, passed(made), run=folder.parent / "none")


def test_what_was_changed_in_the_registrys_storage_is_found(tmp_path: Path) -> None:
    home = tmp_path / "here" / "home"
    release = released(home)
    with oci_server(tmp_path / "registry") as registry:
        push(release, OciRepository(f"{registry.host}/net"), home=home, tag="2")
        changed(registry, Store(home / "store").get(release.digest).files[0].digest)
        with pytest.raises(Exception, match=r"other bytes than|went away"):
            pull(OciRepository(f"{registry.host}/net:2"), home=tmp_path / "there")
    assert Registry(tmp_path / "there" / "releases").releases("net") == ()


def changed(registry: OciServer, digest: str) -> None:
    path = registry.blob(digest)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

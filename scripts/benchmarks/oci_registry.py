"""A real OCI registry (docker-registry of Debian) on loopback, with or without a log-in.

`scripts/prometheus` fetches it beside Prometheus; `missing` says why it is not there.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import yaml

from scripts.benchmarks.monitor_alerting import FOLDER
from seatrial.optimize.errors import MachineError
from seatrial.serve.processes import free_ports

USER, PASSWORD = "ship", "harbour"
_BCRYPT = "$2y$04$2aZeFwJfIMqRTeIN0xY5Re9dp1tlImsOPHd42ar7qutQbdU7OUtDu"  # of PASSWORD


def missing() -> str:
    """Return why no registry can be run here; empty where one can."""
    if (FOLDER / "bin" / "docker-registry").is_file():
        return ""
    reason = FOLDER / "missing"
    return reason.read_text().strip() if reason.is_file() else f"scripts/prometheus {FOLDER} was not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class OciServer:
    """A registry that runs: its address, the folder of its storage, and its process."""

    host: str
    storage: Path
    process: subprocess.Popen[bytes]

    def blob(self, digest: str) -> Path:
        """Return where it keeps the bytes of a blob or manifest."""
        name = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


@contextmanager
def oci_server(folder: Path, *, login: bool = False) -> Iterator[OciServer]:
    """Run a registry with its storage in `folder` for the length of a block.

    Raises:
        MachineError: it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_ports(1)[0]}"
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": host},
    }
    if login:
        (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
        settings["auth"] = {"htpasswd": {"realm": "seatrial", "path": str(folder / "htpasswd")}}
    (folder / "registry.yml").write_text(yaml.safe_dump(settings))
    log = folder / "registry.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(FOLDER / "bin" / "docker-registry"), "serve", str(folder / "registry.yml")],
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(host, process, log)
        yield OciServer(host=host, storage=folder / "storage", process=process)
    finally:
        process.kill()
        process.wait()


def _wait(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"http://{host}/v2/", timeout=1):
                return
        except HTTPError:
            return  # it asks for a log-in
        except (URLError, OSError):
            time.sleep(0.05)
    raise MachineError("the registry does not start", where=str(log), next_step=log.read_text()[-300:])

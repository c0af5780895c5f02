"""Environments held against each other: what a rendered folder may differ in, and each other edit named."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from seatrial.optimize.errors import ConfigError, MachineError, MissingError
from seatrial.serve.kubernetes.cluster import Cluster
from seatrial.serve.kubernetes.environments import differences
from seatrial.serve.kubernetes.on_kustomize import built
from seatrial.serve.kubernetes.overlay import kustomization, merged
from tests.support.commands import within

pytestmark = pytest.mark.experimental("Kubernetes")
CLUSTER = Cluster(schema=1, hostname="models.example.com", digest="sha256:" + "5" * 64)
BASE: list[dict[str, Any]] = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "net"},
        "spec": {
            "selector": {"matchLabels": {"app": "net"}},
            "template": {
                "metadata": {"labels": {"app": "net"}},
                "spec": {
                    "initContainers": [],
                    "containers": [{"name": "triton", "image": f"{CLUSTER.image}:{CLUSTER.release}", "args": ["--a"]}],
                },
            },
        },
    },
    {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "net"},
        "spec": {"minReplicas": 1, "maxReplicas": 2},
    },
]


def test_what_overlays_change_is_allowed() -> None:
    assert differences(merged(BASE, "dev", CLUSTER), merged(BASE, "prod", CLUSTER)) == ()
    plain = Cluster(schema=1, hostname="models.example.com")
    assert differences(merged(BASE, "dev", plain), merged(BASE, "prod", plain)) == ()


EDITS: dict[str, tuple[Callable[[list[dict[str, Any]]], object], str]] = {
    "argument": (
        lambda all_: all_[0]["spec"]["template"]["spec"]["containers"][0]["args"].append("--b"),
        "spec.template.spec.containers.[triton].args.[]",
    ),
    "image": (
        lambda all_: all_[0]["spec"]["template"]["spec"]["containers"][0].update(image="other/server@sha256:1"),
        "spec.template.spec.containers.[triton].image",
    ),
    "label": (lambda all_: all_[0]["metadata"]["labels"].update(team="x"), "metadata.labels.team"),
    "target": (lambda all_: all_[1]["spec"].update(target=5), "spec.target"),
    "object": (lambda all_: all_.pop(1), ""),
    "extra object": (lambda all_: all_.append({"kind": "Secret", "metadata": {"name": "s"}}), ""),
}


@pytest.mark.parametrize("name", EDITS)
def test_any_other_edit_is_named(name: str) -> None:
    edit, field = EDITS[name]
    prod = merged(BASE, "prod", CLUSTER)
    edit(prod)
    found = differences(merged(BASE, "dev", CLUSTER), prod)
    assert field in [each.field for each in found]
    assert len(found) <= 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "all.yaml").write_text(yaml.safe_dump_all(BASE))
    (tmp_path / "base" / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["all.yaml"]}))
    for name in ("dev", "prod"):
        (tmp_path / "overlays" / name).mkdir(parents=True)
        (tmp_path / "overlays" / name / "kustomization.yaml").write_text(yaml.safe_dump(kustomization(name, CLUSTER)))
    return tmp_path


def kustomizes() -> bool:
    found = shutil.which("kubectl")
    return bool(found) and subprocess.run([str(found), "kustomize", "--help"], capture_output=True).returncode == 0


needed = pytest.mark.skipif(not kustomizes(), reason="no kubectl with kustomize on the PATH")


@needed
def test_the_real_kustomize_sees_edits_by_hand(folder: Path) -> None:
    assert differences(built(folder, "dev"), built(folder, "prod")) == ()
    path = folder / "overlays" / "prod" / "kustomization.yaml"
    text = yaml.safe_load(path.read_text())
    text["patches"].append(
        {"target": {"kind": "Deployment"}, "patch": '[{"op": "add", "path": "/spec/paused", "value": true}]'}
    )
    path.write_text(yaml.safe_dump(text))
    found = differences(built(folder, "dev"), built(folder, "prod"))
    assert [(each.kind, each.field, each.first, each.second) for each in found] == [
        ("Deployment", "spec.paused", "none", "True")
    ]
    path.write_text("resources: [nothing.yaml]\n")
    with pytest.raises(ConfigError, match="kustomize refuses"):
        built(folder, "prod")


@needed
def test_the_verb_says_what_differs(folder: Path) -> None:
    words = ("render", "any.toml", "--out", str(folder), "--diff")
    assert within(*words, "dev", "prod").exit_code == 0
    path = folder / "overlays" / "prod" / "kustomization.yaml"
    path.write_text(path.read_text() + "namePrefix: other-\n")
    done = within(*words, "dev", "prod", "--json")
    assert (done.exit_code, "other-net" in done.output) == (1, True)
    assert within(*words, "dev", "test").exit_code == 2


def test_what_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(MissingError, match="no environment test"):
        built(folder, "test")
    with pytest.raises(ConfigError, match="invalid environment"):
        built(folder, "../dev")
    with pytest.raises(MachineError, match="no kubectl"):
        built(folder, "dev", kubectl="no-such-kubectl")

"""Proxy configurations in a folder, as files or inside ConfigMaps: Envoy and nginx.

Finds them and hands them to the part that judges each; says what could not be read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from seatrial.optimize.breach import Breach

from . import envoy, nginx, reading
from .reading import told

_NGINX = (".conf", ".nginx", ".vhost")


@dataclass(slots=True)
class Proxies:
    """Findings of the proxies, what was examined, and what could not be."""

    findings: list[Breach] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


def audit(folder: Path, documents: Sequence[tuple[str, Any]]) -> Proxies:
    """Every proxy's configuration below a folder; `documents` are its YAML and JSON files, read already."""
    made = Proxies()
    texts = [(str(path), text) for path in reading.files(folder, _NGINX, made.unseen)
             if (text := reading.text_of(path, made.unseen)) is not None]  # fmt: skip
    known = list(documents)
    for where, key, text in _embedded(documents):
        place = f"{where}, {told(key)}"
        if key.endswith((".yaml", ".yml", ".json")):
            try:
                known += [(place, each) for each in reading.values(text, place)]
            except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
                made.unseen.append(f"{place}: {told(error)}")
        elif key.endswith(_NGINX) and "proxy_pass" in text:
            texts.append((place, text))
    if count := sum(envoy.is_envoy(each) for _, each in known):
        made.findings += envoy.audit(known)
        made.looked.append(f"{count} Envoy configurations: limits, retries, ejection, routes")
    for where, text in texts:
        if not any(word in text for word in ("proxy_pass", "grpc_pass")):
            continue
        try:
            made.findings += nginx.audit(text, where)
            made.looked.append(f"nginx: {where}")
        except ValueError as error:
            made.unseen.append(f"{where}: {told(error)}")
    return made


def _embedded(documents: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Files inside ConfigMaps: where, their name, their text."""
    for where, document in documents:
        if not isinstance(document, dict) or document.get("kind") != "ConfigMap":
            continue
        metadata, data = document.get("metadata"), document.get("data")
        name = metadata.get("name", "") if isinstance(metadata, dict) else ""
        for key, text in data.items() if isinstance(data, dict) else ():
            if isinstance(key, str) and isinstance(text, str) and len(text) <= reading.MOST_BYTES:
                yield f"{where}: ConfigMap {told(name)}", key, text

"""The cluster, as an engineer writes it down: image, model store, gateway, limits, and the three environments.

Only says and checks itself. It is a file of its own (TOML), since a deployment says how a model is served anywhere.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from seatrial.optimize.errors import ConfigError

from .names import is_label

SCHEMA = 1
PLACEHOLDER = "sha256:" + "0" * 64
"""Placeholder where a digest must be filled in; no registry has it, so a cluster refuses to start it."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_RELEASE = re.compile(r"\d{2}\.\d{2}(-[a-z0-9.-]+)?")
_QUANTITY = re.compile(r"[1-9][0-9]*(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_IMAGE = re.compile(r"[a-z0-9]+([._/:-][a-z0-9]+)*")
_BYTES = re.compile(r"[1-9][0-9]*(Ki|Mi)")
_UNITS = {"Ki": 10, "Mi": 20}
IMPLEMENTATIONS = ("", "envoy-gateway")
STREAMS_SINCE = (26, 4)
"""Releases before it crash on a stream whose metadata requests gRPC errors (a use after free, fixed in 2.68)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One overlay: its namespace (empty: NAME of the cluster file's `prefix` and the environment) and its copies."""

    namespace: str = ""
    least: int = 1
    most: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The Gateway that routes attach to, and the namespace its proxies run in (for the network policy).

    `listener` and `grpc_listener` name listeners of that Gateway (`sectionName`); empty: all of them. `implementation`
    is "envoy-gateway" where its policies are wanted beside the routes; empty: standard Gateway API objects alone.
    """

    name: str = "public"
    namespace: str = "gateway"
    listener: str = ""
    grpc_listener: str = ""
    implementation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what callers may send, each below the server's own.

    `seconds` is the time for one response, `receive_seconds` for the whole request to arrive. `body` bounds the request
    body, `header_bytes` the sum of all header names and values (Triton resets above about 8 kB), `json_depth` the
    nesting of a JSON body (Triton before 26.05 ends at deep nesting). `connections` are open at a gateway proxy at
    once, `requests` under way and `pending` waiting for each version and proxy.
    """

    seconds: int = 30
    receive_seconds: int = 15
    body: str = "16Mi"
    header_bytes: int = 6000
    json_depth: int = 64
    connections: int = 2048
    requests: int = 256
    pending: int = 256

    @property
    def body_bytes(self) -> int:
        """The bound on the request body, in bytes."""
        return int(self.body[:-2]) << _UNITS[self.body[-2:]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Resources of one server: requests equal limits, so that latency does not depend on the neighbours."""

    cpu: str = "2"
    memory: str = "4Gi"
    gpus: int = 1
    shared_memory: str = "256Mi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Target cluster of the manifests.

    `image` and `release` name the server, `digest` pins its bytes (prod starts nothing without). `claim` is the
    PersistentVolumeClaim that holds the model repository, `store_cidr` a network that may be reached besides DNS
    (empty: none). `hostname` serves HTTP and `grpc_hostname` gRPC (empty: none); two, since a Gateway may refuse two
    kinds of route on one. `queue_us` is the mean time in the queue, in microseconds, that the autoscaler holds.
    `drain_seconds` is how long a pod still serves after the cluster was told to send it nothing, `exit_seconds` how
    long the server may then finish, `load_seconds` how long loading the model may take. `control_secret` is a Secret
    with a file `key` that opens the administrative calls. `prometheus` is asked by the Argo analysis. `streams` lets
    gRPC streams (ModelStreamInfer) through the gateway, which only decoupled models need. `limits` bound what callers
    may send.

    Raises:
        ConfigError: a field breaks a rule.
    """

    schema: int
    image: str = "nvcr.io/nvidia/tritonserver"
    release: str = "26.09-py3"
    digest: str = ""
    claim: str = "models"
    store_cidr: str = ""
    hostname: str
    grpc_hostname: str = ""
    gateway: Gateway = Gateway()
    streams: bool = False
    limits: Limits = Limits()
    monitoring: str = "monitoring"
    prometheus: str = "http://prometheus.monitoring.svc:9090"
    resources: Resources = Resources()
    queue_us: int = 5000
    drain_seconds: int = 10
    exit_seconds: int = 10
    load_seconds: int = 300
    control_secret: str = "triton-control"
    prefix: str = "seatrial"
    environments: Mapping[str, Environment] = field(
        default_factory=lambda: {
            "dev": Environment(least=1, most=1),
            "staging": Environment(least=1, most=3),
            "prod": Environment(least=2, most=10),
        }
    )

    def __post_init__(self) -> None:
        for key, fits, fix in self._rules():
            if not fits:
                raise ConfigError(f"{key} is invalid: {self._value(key)!r}", where=key, next_step=fix)

    def namespace(self, environment: str) -> str:
        """The namespace of an environment."""
        return self.environments[environment].namespace or f"{self.prefix}-{environment}"

    def _value(self, key: str) -> object:
        value: object = self
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part)
        return value

    def _rules(self) -> list[tuple[str, bool, str]]:
        """Each: the field, whether it is legal, how to fix it."""
        name = "use a DNS label of at most 63 characters: lower-case letters, digits and '-', starting with a letter"
        rules = [("schema", self.schema == SCHEMA, f"write schema = {SCHEMA}")]
        rules += [
            ("image", bool(_IMAGE.fullmatch(self.image)), "name the image without tag or digest"),
            ("release", bool(_RELEASE.fullmatch(self.release)), "name a release such as 26.09-py3, never latest"),
            ("digest", self.digest == "" or bool(_DIGEST.fullmatch(self.digest)), "write sha256: and 64 hex digits"),
            ("hostname", bool(_HOST.fullmatch(self.hostname)), "write a DNS name"),
            (
                "grpc_hostname",
                not self.grpc_hostname
                or (bool(_HOST.fullmatch(self.grpc_hostname)) and self.grpc_hostname != self.hostname),
                ("use a DNS name other than hostname: a Gateway may refuse HTTPRoute and GRPCRoute on the same one"),
            ),
            (
                "store_cidr",
                self.store_cidr == "" or _is_network(self.store_cidr),
                "use a network such as 10.0.0.0/24",
            ),
            (
                "prometheus",
                self.prometheus.startswith(("http://", "https://")),
                "use a URL that begins with http:// or https://",
            ),
            ("queue_us", self.queue_us >= 1, "use a target above 0"),
            ("resources.cpu", bool(_QUANTITY.fullmatch(self.resources.cpu)), "use a quantity such as 2 or 500m"),
            ("resources.gpus", self.resources.gpus >= 1, "use at least 1: the model runs on GPUs"),
            (
                "environments",
                set(self.environments) == {"dev", "staging", "prod"},
                "name exactly dev, staging and prod",
            ),
            *self._at_the_gateway(),
        ]
        for key in ("resources.memory", "resources.shared_memory"):
            rules.append((key, bool(_QUANTITY.fullmatch(str(self._value(key)))), "use a quantity such as 4Gi"))
        for key in ("drain_seconds", "exit_seconds", "load_seconds"):
            rules.append((key, 1 <= int(str(self._value(key))) <= 3600, "use 1 to 3600 seconds"))
        for key in ("claim", "gateway.name", "gateway.namespace", "monitoring", "control_secret", "prefix"):
            rules.append((key, is_label(str(self._value(key))), name))
        for key, environment in self.environments.items():
            rules.append((f"environments.{key}.least", environment.least >= 1, "use at least 1"))
            rules.append(
                (f"environments.{key}.most", environment.most >= environment.least, "use at least the value of `least`")
            )
            rules.append((f"environments.{key}.namespace", is_label(self.namespace(key)), name))
        return [*rules, ("environments", self._namespaces_differ(), "give each environment its own namespace")]

    def _at_the_gateway(self) -> list[tuple[str, bool, str]]:
        """Rules of what callers may do, as in `_rules`."""
        ours, limits = self.gateway, self.limits
        rules = [
            ("gateway.implementation", ours.implementation in IMPLEMENTATIONS, 'write "envoy-gateway", or omit it'),
            ("limits.body", bool(_BYTES.fullmatch(limits.body)), "use whole Ki or Mi, such as 16Mi"),
            (
                "limits.header_bytes",
                1000 <= limits.header_bytes <= 7000,
                "use 1000 to 7000: Triton resets connections with headers above 8 kB",
            ),
            ("limits.json_depth", 8 <= limits.json_depth <= 1000, "use 8 to 1000 levels"),
            (
                "streams",
                not self.streams or release(self.release) >= STREAMS_SINCE,
                "name release 26.04-py3 or newer, or set streams = false: a stream can crash older servers",
            ),
            (
                "gateway.grpc_listener",
                not (self.streams and ours.implementation) or ours.grpc_listener not in ("", ours.listener),
                "give gRPC its own listener: the time limit on receiving a request would end streams",
            ),
        ]
        for key in ("seconds", "receive_seconds"):
            rules.append((f"limits.{key}", 1 <= getattr(limits, key) <= 3600, "use 1 to 3600 seconds"))
        for key in ("connections", "requests", "pending"):
            rules.append((f"limits.{key}", 1 <= getattr(limits, key) <= 10**6, "use 1 to 1000000"))
        for key in ("listener", "grpc_listener"):
            named = getattr(ours, key)
            rules.append((f"gateway.{key}", not named or is_label(named), "name a listener of the Gateway"))
        return rules

    def _namespaces_differ(self) -> bool:
        return len({self.namespace(key) for key in self.environments}) == len(self.environments)


def release(text: str) -> tuple[int, int]:
    """Year and month of a release such as 26.09-py3; zeros where it names none."""
    found = re.match(r"(\d{2})\.(\d{2})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _is_network(text: str) -> bool:
    try:
        return ipaddress.ip_network(text).prefixlen > 0
    except ValueError:
        return False

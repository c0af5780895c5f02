"""The world of a rollout in a cluster: HTTPRoutes, Deployments, the gateway's access log, and what cannot be judged.

Puts parts together; decides nothing. ``--world serve.kubernetes.world:cluster`` reads a small TOML file. It never met a
cluster or a gateway: it was tried with kubectl 1.32 against a small API of our own, and a log that a test wrote.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from optimize import config
from optimize.errors import ConfigError, SeatrialError
from optimize.user_code import Reference

from ..errors import ServerError
from ..traffic.envoy import access_log
from ..traffic.rollout.controller import World
from ..traffic.rollout.evidence import Told
from ..traffic.rollout.machine import Rollout
from ..traffic.seen import Seen
from . import gateway_log
from .command import Kubectl
from .names import INSTANCE, NAME, is_label, slug
from .on_kubectl import KubectlRouter
from .on_kubectl_fleet import KubectlFleet
from .routes import KINDS

SCHEMA = 1
VARIABLE = "SEATRIAL_CLUSTER_WORLD"
"""Names the file; without it `FILE` in the working directory is read."""
FILE = "cluster-world.toml"
Judge = Callable[[Rollout], Told]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How a cluster is reached.

    `kinds` are the routes that the model has, the first of which is read. `log` is a file, relative to the settings',
    to which the gateway's access log (`gateway_log.FORMAT`) is appended. `golden` and `agreement` are judges of your
    own, ``FILE.py:NAME`` or ``MODULE:NAME``, called with the rollout at each look and giving a
    `serve.traffic.rollout.evidence.Told`; without one the rollout pauses where it would be asked.

    Raises:
        ConfigError: a field breaks a rule.
    """

    schema: int
    namespace: str
    log: str
    context: str = ""
    kubectl: str = "kubectl"
    kinds: tuple[str, ...] = ("HTTPRoute",)
    golden: str = ""
    agreement: str = ""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ConfigError(f"schema {self.schema}", where="schema", next_step=f"write schema = {SCHEMA}")
        if not is_label(self.namespace):
            raise ConfigError(
                f"{self.namespace!r} is no namespace", where="namespace", next_step="name the overlay's namespace"
            )
        if not self.kinds or not set(self.kinds) <= set(KINDS) or len(set(self.kinds)) < len(self.kinds):
            raise ConfigError(f"kinds {list(self.kinds)}", where="kinds", next_step=f"name some of {sorted(KINDS)}")
        if not self.log:
            raise ConfigError("no log", where="log", next_step="name the file that the gateway's log is written to")


def cluster(rollout: Rollout) -> World:
    """The world of a rollout in the cluster that the settings name.

    Raises:
        MissingError: there is no such file.
        ConfigError: its content cannot be.
    """
    path = Path(os.environ.get(VARIABLE) or FILE)
    return reached(config.load(path, Reach), rollout, path.parent)


def reached(reach: Reach, rollout: Rollout, base: Path) -> World:
    """The world at that reach; `base` is where its relative paths begin."""
    router = KubectlRouter(reach.namespace, kinds=reach.kinds, context=reach.context, kubectl=reach.kubectl)
    fleet = KubectlFleet(
        reach.namespace,
        context=reach.context,
        kubectl=reach.kubectl,
        patience=rollout.plan.load,
        named=router.named,
        measure=rollout.plan.memory > 0,
    )
    golden = _judge(reach.golden, base, "golden inputs cannot be replayed past the gateway: a network policy is there")
    agreement = _judge(reach.agreement, base, "a gateway throws the mirror's answers away, so nothing is compared")
    return World(
        router=router,
        fleet=fleet,
        seen=GatewayLog(reach, rollout.model, base / reach.log).seen,
        golden=lambda: golden(rollout),
        agreement=lambda: agreement(rollout),
    )


class GatewayLog:
    """Reads on in the gateway's log, and asks the cluster which version had which address."""

    def __init__(self, reach: Reach, model: str, log: Path) -> None:
        self._kubectl = Kubectl(
            reach.namespace, error=ServerError, rights="list pods", context=reach.context, kubectl=reach.kubectl
        )
        self._model, self._log = model, log
        self._addresses, self._place = gateway_log.Addresses(), access_log.Place()
        self.clients = gateway_log.Clients()

    def seen(self) -> Iterable[Seen]:
        """What was logged since the last call; nothing where the cluster cannot say whose it was, which comes later."""
        asked = False

        def parse(line: str) -> Seen | None:
            nonlocal asked
            if not asked:  # after the lines were read: whoever answered one of them has an address by now
                self._learn()
                asked = True
            return gateway_log.parse(line, self._model, self._addresses, self.clients)

        try:
            found, self._place = access_log.read(self._log, self._place, parsing=parse)
        except SeatrialError:
            return ()
        return found

    def _learn(self) -> None:
        labels = f"--selector={NAME}=triton,{INSTANCE}={slug(self._model)}"
        self._addresses.learn(self._kubectl.parsed(self._kubectl.run("get", "pods", labels, "--output=json"))["items"])


def _judge(text: str, base: Path, why_not: str) -> Judge:
    """The user's judge; without one nobody knows, and that is what is said."""
    if not text:
        return lambda rollout: Told(outcome="INCONCLUSIVE", reasons=(why_not,))
    reference = Reference.parse(text, base)

    def ask(rollout: Rollout) -> Told:
        told = reference.call(rollout)
        if not isinstance(told, Told):
            raise ConfigError(
                f"it gave a {type(told).__name__}", where=text, next_step="return a serve.traffic.rollout.evidence.Told"
            )
        return told

    return ask

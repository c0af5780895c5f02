"""The world of a rollout in a cluster: HTTPRoutes, Deployments, the gateway's access log, and what cannot be judged.

Puts parts together; decides nothing. ``--world seatrial.serve.kubernetes.world:cluster`` reads a small TOML file.
Experimental (`optimize.experimental.KUBERNETES`): tested with kubectl 1.32 against a small API of our own, and with a
log that a test wrote.
"""

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize import config, experimental
from seatrial.optimize.errors import ConfigError, SeatrialError
from seatrial.optimize.user_code import Reference

from ..errors import ServerError
from ..traffic.envoy import access_log
from ..traffic.rollout.controller import RolloutPorts
from ..traffic.rollout.evidence import Judgement
from ..traffic.rollout.machine import Rollout
from ..traffic.seen import Seen
from ..traffic.trailed import trailed
from . import gateway_log
from .command import Kubectl
from .names import INSTANCE, NAME, is_label, slug
from .on_kubectl import KubectlRouter
from .on_kubectl_fleet import KubectlFleet
from .routes import KINDS

SCHEMA = 1
VARIABLE = "SEATRIAL_CLUSTER_WORLD"
"""Environment variable with the path of the file; without it `FILE` in the working directory is read."""
FILE = "cluster-world.toml"
Judge = Callable[[Rollout], Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Access to a cluster.

    `kinds` are the routes that the model has, the first of which is read. `log` is a file, relative to the settings',
    to which the gateway's access log (`gateway_log.FORMAT`) is appended. `golden` and `agreement` are judges of your
    own, ``FILE.py:NAME`` or ``MODULE:NAME``, called with the rollout at each look and giving a
    `serve.traffic.rollout.evidence.Judgement`; without one the rollout pauses where it would be asked.

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
                f"invalid namespace {self.namespace!r}", where="namespace", next_step="use the overlay's namespace"
            )
        if not self.kinds or not set(self.kinds) <= set(KINDS) or len(set(self.kinds)) < len(self.kinds):
            raise ConfigError(f"kinds {list(self.kinds)}", where="kinds", next_step=f"use some of {sorted(KINDS)}")
        if not self.log:
            raise ConfigError(
                "no log is configured", where="log", next_step="name the file that the gateway's log is written to"
            )


def cluster(rollout: Rollout) -> RolloutPorts:
    """The world of a rollout in the cluster that the settings name.

    Raises:
        MissingError: there is no such file.
        ConfigError: its content cannot be.
    """
    experimental.used(experimental.KUBERNETES)
    path = Path(os.environ.get(VARIABLE) or FILE)
    return reached(config.load(path, ClusterConfig), rollout, path.parent)


def reached(reach: ClusterConfig, rollout: Rollout, base: Path) -> RolloutPorts:
    """The world at that reach; `base` is where its relative paths begin."""
    known = {rollout.candidate: rollout.digest}
    router = KubectlRouter(
        reach.namespace,
        kinds=reach.kinds,
        context=reach.context,
        kubectl=reach.kubectl,
        applied=trailed(lambda model: known, _complain),
    )
    fleet = KubectlFleet(
        reach.namespace,
        context=reach.context,
        kubectl=reach.kubectl,
        patience=rollout.plan.load,
        named=router.named,
        measure=rollout.plan.memory > 0,
    )
    golden = _judge(
        reach.golden, base, "golden inputs cannot be replayed past the gateway, because a network policy blocks it"
    )
    agreement = _judge(reach.agreement, base, "a gateway discards mirrored answers, so nothing is compared")
    return RolloutPorts(
        router=router,
        fleet=fleet,
        seen=GatewayLog(reach, rollout.model, base / reach.log).seen,
        golden=lambda: golden(rollout),
        agreement=lambda: agreement(rollout),
    )


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")


class GatewayLog:
    """Reads on in the gateway's log, and asks the cluster which version had which address."""

    def __init__(self, reach: ClusterConfig, model: str, log: Path) -> None:
        self._kubectl = Kubectl(
            reach.namespace, error=ServerError, rights="list pods", context=reach.context, kubectl=reach.kubectl
        )
        self._model, self._log = model, log
        self._addresses, self._place = gateway_log.Addresses(), access_log.LogPosition()
        self.clients = gateway_log.Clients()

    def seen(self) -> Iterable[Seen]:
        """Return the requests logged since the last call; those of unknown addresses are returned later."""
        asked = False

        def parse(line: str) -> Seen | None:
            nonlocal asked
            if not asked:  # after the lines were read: every version that answered one has an address by now
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
    """Return the user's judge; without one the result is INCONCLUSIVE, with the reason."""
    if not text:
        return lambda rollout: Judgement(outcome="INCONCLUSIVE", reasons=(why_not,))
    reference = Reference.parse(text, base)

    def ask(rollout: Rollout) -> Judgement:
        told = reference.call(rollout)
        if not isinstance(told, Judgement):
            raise ConfigError(
                f"the judge returned a {type(told).__name__}",
                where=text,
                next_step="return a seatrial.serve.traffic.rollout.evidence.Judgement",
            )
        return told

    return ask

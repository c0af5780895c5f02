"""The router of a cluster: makes routes true by replacing the rules of the model's HTTPRoute and GRPCRoute.

Speaks to a cluster through the ``kubectl`` that is on the PATH, and keeps nothing: what is in force is read back each
time. Every change carries the resourceVersion it was made from, so that two controllers cannot overwrite each other.
It was tried with kubectl 1.32 against a small API of our own, never against a cluster.
"""

import copy
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..errors import RouterError
from ..traffic.routes import Routes
from .command import Kubectl
from .names import slug
from .pod import Object
from .routes import KINDS, broken, read, traffic

_POLL_SECONDS = 0.2
_CONFLICT = "(Conflict)"


class KubectlRouter:
    """A `serve.traffic.routes.Router` on Gateway API routes.

    The routes themselves come from ``seatrial render``; this moves their weights. `kinds` are the routes that the model
    has, the first of which answers for all in `current`. `timeout` is in seconds, for one change to be accepted by the
    gateway.
    """

    def __init__(
        self,
        namespace: str,
        *,
        kinds: tuple[str, ...] = ("HTTPRoute",),
        context: str = "",
        kubectl: str = "kubectl",
        timeout: float = 30.0,
        applied: Callable[[Routes, datetime], None] = lambda routes, begun: None,
    ) -> None:
        """`applied` is called with routes once they are in force, and with the time at which their change began."""
        self._kinds, self._timeout, self._applied = kinds, timeout, applied
        self._kubectl = Kubectl(
            namespace,
            error=RouterError,
            rights="update httproutes",
            context=context,
            kubectl=kubectl,
            timeout=timeout,
        )

    def apply(self, routes: Routes) -> None:
        """Make these routes the truth; returns when every gateway has accepted them.

        Raises:
            RouterError: no such route, another process changed it meanwhile, or a gateway refused; the old ones are put
                back in force.
        """
        changed: list[Object] = []
        begun = datetime.now(UTC)
        try:
            for kind in self._kinds:
                route = self._kubectl.get(kind, slug(routes.model))
                if route is None:
                    raise RouterError(
                        f"there is no {kind} for {routes.model}",
                        where=f"namespace {self._kubectl.namespace}",
                        next_step="apply the output of seatrial render first",
                    )
                wanted = _with(route, routes)
                if wanted["spec"] == route["spec"]:
                    continue
                for rule in broken(wanted):
                    raise RouterError(rule, where=f"{kind} of {routes.model}", next_step="fix the routes")
                changed.append(route)  # before, since an answer that never comes may hide a change that was made
                self._replace(wanted)
                self._await_accepted(kind, routes.model)
        except BaseException:
            for route in reversed(changed):
                self._put_back(route, routes)
            raise
        if changed:
            self._applied(routes, begun)

    def current(self, model: str) -> Routes | None:
        """The routes in force, read from the cluster; None where the model has no route.

        Raises:
            RouterError: the cluster does not answer, or its route is none of ours.
        """
        route = self._kubectl.get(self._kinds[0], slug(model))
        return None if route is None else read(route, model)

    def named(self, model: str) -> frozenset[int]:
        """Every version that any of the model's routes names, be it with a weight of 0: none of these may be stopped.

        Raises:
            RouterError: the cluster does not answer, or a route is none of ours.
        """
        routes = [route for kind in self._kinds if (route := self._kubectl.get(kind, slug(model))) is not None]
        return frozenset(version for route in routes for version in read(route, model).versions)

    def _replace(self, route: Object) -> Object:
        done = self._kubectl.run("replace", "--filename=-", "--output=json", stdin=json.dumps(route))
        if _CONFLICT in done.stderr:
            raise RouterError(
                "another process changed the route meanwhile",
                where=f"{route['kind']} {route['metadata']['name']}",
                next_step="find the other writer, then try again",
            )
        return self._kubectl.parsed(done)

    def _put_back(self, old: Object, routes: Routes) -> None:
        """Restore the old rules over ours only; the error that led here is the one to report."""
        try:
            now, port = self._kubectl.get(old["kind"], old["metadata"]["name"]), KINDS[old["kind"]]
            if now is not None and traffic(read(now, routes.model), port) == traffic(routes, port):
                self._replace({**now, "spec": old["spec"]})
        except RouterError:
            return

    def _await_accepted(self, kind: str, model: str) -> None:
        """Until every gateway that the route names says that it took this very generation."""
        until = time.monotonic() + self._timeout
        while True:
            route = self._kubectl.get(kind, slug(model))
            if route is None:
                raise RouterError(
                    f"the {kind} was removed",
                    where=model,
                    next_step="find out who removed it, then apply the manifests again",
                )
            waits, refused = _opinions(route)
            if refused:
                raise RouterError(
                    f"the gateway refused the {kind}: {refused}", where=model, next_step="fix the reported problem"
                )
            if not waits:
                return
            if time.monotonic() > until:
                raise RouterError(
                    f"no gateway accepted the {kind} within {self._timeout:.0f} seconds: {waits}",
                    where=model,
                    next_step="check the gateway's controller",
                )
            time.sleep(_POLL_SECONDS)


def _with(route: Object, routes: Routes) -> Object:
    """The same route with other traffic; matches, hosts and parents stay as they are, and the read version is kept."""
    read(route, routes.model)  # refuse to write over what is none of ours
    wanted = copy.deepcopy(route)
    [rule] = wanted["spec"]["rules"]
    kept = {key: value for key, value in rule.items() if key not in ("backendRefs", "filters")}
    wanted["spec"]["rules"] = [kept | traffic(routes, KINDS[route["kind"]])]
    wanted.pop("status", None)
    _same_defaults(route, wanted)
    return wanted


def _same_defaults(old: Object, new: Object) -> None:
    """A cluster writes group and kind into every reference; write them too where the old route has them."""
    sample = old["spec"]["rules"][0]["backendRefs"][0]
    defaults = {key: sample[key] for key in ("group", "kind") if key in sample}
    [rule] = new["spec"]["rules"]
    mirrors = [each["requestMirror"]["backendRef"] for each in rule.get("filters", []) if "requestMirror" in each]
    for reference in [*rule["backendRefs"], *mirrors]:
        reference |= defaults


def _opinions(route: Object) -> tuple[str, str]:
    """Return the pending and the refused conditions of the gateways; empty if there are none."""
    generation = route["metadata"].get("generation", 0)
    parents = route.get("status", {}).get("parents", [])
    if len(parents) < len(route["spec"].get("parentRefs", [])) or not parents:
        return "no gateway has processed it yet", ""
    for parent in parents:
        said: dict[str, Any] = {
            each["type"]: each
            for each in parent.get("conditions", [])
            if each.get("observedGeneration", generation) == generation
        }
        for kind in ("Accepted", "ResolvedRefs"):
            if kind not in said:
                return f"the status of the {kind} is not reported yet", ""
            if said[kind]["status"] == "False":
                return "", f"{said[kind].get('reason', kind)}: {said[kind].get('message', '')}"
    return "", ""

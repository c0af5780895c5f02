"""The part of a Kubernetes API that kubectl needs to move routes and servers: discovery, get, list, put, merge patch.

For the real kubectl to talk to. It is no cluster: there is no schema and no admission, its gateway accepts at once, and
what its nodes do with a Deployment is a function that a test gives.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

GROUP = "gateway.networking.k8s.io"
KINDS = {"httproutes": "HTTPRoute", "grpcroutes": "GRPCRoute"}
VERSION = {"groupVersion": f"{GROUP}/v1", "version": "v1"}
DISCOVERY: dict[str, Any] = {
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": GROUP, "versions": [VERSION], "preferredVersion": VERSION}],
    },
    f"/apis/{GROUP}/v1": {
        "kind": "APIResourceList",
        "groupVersion": f"{GROUP}/v1",
        "resources": [
            {
                "name": name,
                "singularName": kind.lower(),
                "namespaced": True,
                "kind": kind,
                "verbs": ["get", "list", "update"],
            }
            for name, kind in KINDS.items()
        ],
    },
}

# kubectl looks here whether the server itself refuses unknown fields, and leaves that to it if so.
DISCOVERY["/openapi/v3"] = {"paths": {f"apis/{GROUP}/v1": {"serverRelativeURL": f"/openapi/v3/apis/{GROUP}/v1"}}}
DISCOVERY[f"/openapi/v3/apis/{GROUP}/v1"] = {
    "openapi": "3.0.0",
    "info": {"title": "routes", "version": "v1"},
    "paths": {
        f"/apis/{GROUP}/v1/namespaces/{{namespace}}/{name}/{{name}}": {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": GROUP, "version": "v1", "kind": kind},
            }
        }
        for name, kind in KINDS.items()
    },
}


WORKLOADS = {
    "Deployment": ("apps/v1", "deployments"),
    "HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
    "Pod": ("v1", "pods"),
}
for _kind, (_version, _plural) in WORKLOADS.items():
    _root = f"/apis/{_version}" if "/" in _version else f"/api/{_version}"
    DISCOVERY[_root] = {
        "kind": "APIResourceList",
        "groupVersion": _version,
        "resources": [
            {
                "name": _plural,
                "singularName": _kind.lower(),
                "namespaced": True,
                "kind": _kind,
                "verbs": ["get", "list", "patch"],
            }
        ],
    }
    if "/" in _version:
        _served = {"groupVersion": _version, "version": _version.partition("/")[2]}
        _group = {"name": _version.partition("/")[0], "versions": [_served], "preferredVersion": _served}
        DISCOVERY["/apis"]["groups"].append(_group)
PLURALS = {kind: (f"{GROUP}/v1", name) for name, kind in KINDS.items()} | WORKLOADS


def path_of(kind: str, name: str = "") -> str:
    """Where an object, or all of its kind, is found."""
    version, plural = PLURALS[kind]
    root = "/apis" if "/" in version else "/api"
    return f"{root}/{version}/namespaces/prod/{plural}" + (f"/{name}" if name else "")


class _Api(BaseHTTPRequestHandler):
    objects: dict[str, dict[str, Any]]
    nodes: Callable[[dict[str, dict[str, Any]]], None]

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        type(self).nodes(self.objects)
        kind = next((each for each in WORKLOADS if path_of(each) == path), None)
        if kind is not None:
            self._answer(200, self._list(kind, query.get("labelSelector", [""])[0]))
            return
        found = DISCOVERY.get(path) or self.objects.get(path)
        self._answer(200, found) if found else self._fail(404, "NotFound", f"{path} not found")

    def _list(self, kind: str, selector: str) -> dict[str, Any]:
        wanted = dict(each.split("=") for each in selector.split(",") if each)
        found = [each for path, each in self.objects.items() if path.startswith(f"{path_of(kind)}/")]
        found = [each for each in found if wanted.items() <= each["metadata"].get("labels", {}).items()]
        version, _ = WORKLOADS[kind]
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": {}, "items": found}

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        new = _merged(self.objects[path], change)
        new["metadata"]["generation"] += new["spec"] != self.objects[path]["spec"]
        self.objects[path] = new
        self._answer(200, new)

    def do_PUT(self) -> None:
        path = self.path.partition("?")[0]
        new = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        old = self.objects[path]
        if new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            self._fail(409, "Conflict", "the object has been modified")
            return
        generation = old["metadata"]["generation"] + 1
        new["metadata"] |= {"resourceVersion": str(100 + generation), "generation": generation}
        told = [
            {"type": each, "status": "True", "observedGeneration": generation} for each in ("Accepted", "ResolvedRefs")
        ]
        new["status"] = {"parents": [{"conditions": told}]}
        self.objects[path] = new
        self._answer(200, new)

    def _fail(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
        self._answer(code, status | {"code": code})

    def _answer(self, code: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _merged(old: Any, change: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(change, dict):
        return change
    kept = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        kept[key] = _merged(kept.get(key), value)
    return {key: value for key, value in kept.items() if value is not None}


@contextmanager
def serving(
    *given: dict[str, Any], nodes: Callable[[dict[str, dict[str, Any]]], None] = lambda objects: None
) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """The URL of an API that holds what is given, and the objects by path, to look at and to change.

    `nodes` is called before every answer and does what a cluster's controllers and nodes would have done by then.
    """
    objects = {}
    for each in given:
        metadata = each["metadata"] | {"namespace": "prod", "resourceVersion": "7", "generation": 1}
        objects[path_of(each["kind"], metadata["name"])] = each | {"metadata": metadata}
    handler = type("Api", (_Api,), {"objects": objects, "nodes": staticmethod(nodes)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", objects
    finally:
        server.shutdown()
        server.server_close()

"""The part of a Kubernetes API that kubectl needs to read and replace routes: discovery, get, put, optimistic locking.

For the real kubectl to talk to. It is no cluster: there is no schema and no admission, and its gateway accepts at once.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

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


class _Api(BaseHTTPRequestHandler):
    objects: dict[str, dict[str, Any]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = DISCOVERY.get(path) or self.objects.get(path)
        self._answer(200, found) if found else self._fail(404, "NotFound", f"{path} not found")

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


@contextmanager
def serving(*routes: dict[str, Any]) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """The URL of an API that holds those routes, and the objects by path, to look at and to change."""
    plural = {kind: name for name, kind in KINDS.items()}
    objects = {}
    for route in routes:
        metadata = route["metadata"] | {"namespace": "prod", "resourceVersion": "7", "generation": 1}
        path = f"/apis/{GROUP}/v1/namespaces/prod/{plural[route['kind']]}/{metadata['name']}"
        objects[path] = route | {"metadata": metadata}
    handler = type("Api", (_Api,), {"objects": objects})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", objects
    finally:
        server.shutdown()
        server.server_close()

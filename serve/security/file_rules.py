"""Rules about manifests, and about the proxies and gateways before a server. A table; nothing is looked at here."""

from .finding import Rule

FILES: dict[str, Rule] = {
    # Manifests.
    "image-tag": Rule(
        exposed="high",
        why="the next pull may give another server",
        fix="name a release and its digest",
    ),
    "image-digest": Rule(
        exposed="medium",
        why="a tag can be moved to other bytes",
        fix="pin it: IMAGE@sha256:DIGEST; prod requires it",
    ),
    "image-placeholder": Rule(
        exposed="medium",
        why="no pod starts until the digest is filled in",
        fix="write the image's digest into the cluster file and render again",
    ),
    "privileged": Rule(
        exposed="high",
        why="the container has the privileges of the node",
        fix="use no privileged mode, host namespaces or hostPath; set allowPrivilegeEscalation: false",
    ),
    "malformed": Rule(
        exposed="medium",
        why="a cluster refuses it, or interprets it in another way",
        fix="validate it against the schema of its kind",
    ),
    "writable-root": Rule(
        exposed="medium",
        why="backends and libraries of the server can be replaced at run time",
        fix="set readOnlyRootFilesystem: true, with emptyDir for writable paths",
    ),
    "token": Rule(
        exposed="medium",
        why="a compromised server can use the pod's token for the cluster API",
        fix="set automountServiceAccountToken: false",
    ),
    "writable-models": Rule(
        exposed="high",
        why="a server that can write its models can be made to run other code permanently",
        fix="mount the model volume with readOnly",
    ),
    "no-limits": Rule(
        exposed="medium",
        why="one model can use all memory of the node",
        fix="set requests and limits",
    ),
    "server-readiness": Rule(
        exposed="medium",
        why=(
            "/v2/health/ready fails for the whole server when any load fails: a broken candidate also "
            "removes the stable version"
        ),
        fix="probe /v2/models/MODEL/versions/VERSION/ready",
    ),
    "secret-in-manifest": Rule(
        exposed="high",
        why="manifests are stored in version control with many readers",
        fix="create the Secret separately, and mount it as a file",
    ),
    "exposed-service": Rule(
        exposed="high",
        why="it exposes Triton to everyone without the gateway's checks",
        fix="use type ClusterIP with a Gateway in front",
    ),
    "no-network-policy": Rule(
        exposed="high",
        why="every pod of the cluster can reach the server, and the server can reach everything",
        fix="add a NetworkPolicy: ingress from the gateway, egress to required destinations",
    ),
    "open-network-policy": Rule(
        exposed="high",
        why="it selects the pods but allows all ingress or all egress",
        fix="list the permitted sources and destinations",
    ),
    "wide-route": Rule(
        exposed="high",
        why="administrative requests pass the gateway: repository, shared memory, logging",
        fix="route only the exact paths that clients need",
    ),
    # Proxies and gateways.
    "ending-request": Rule(
        exposed="high",
        why=(
            "one request of a known kind crashes this release: deep JSON before 26.05, a stream's "
            "metadata before 26.04, an Inference-Header-Content-Length out of range in 26.06 to 26.08"
        ),
        fix="use release 26.09 or newer, pinned by digest (docs/patched-servers.md)",
    ),
    "stream-metadata": Rule(
        exposed="medium",
        private="low",
        why="metadata triton_grpc_error on a stream crashes servers before 26.04 (2.68) at the first error of a model",
        fix="remove ModelStreamInfer from the route, or remove the header with a RequestHeaderModifier",
    ),
    "retries-again": Rule(
        exposed="high",
        private="medium",
        why="a request that crashed its server is retried on the next one, until none is left",
        fix="retry only on connect-failure, where no server has received the request",
    ),
    "ejects-everybody": Rule(
        exposed="high",
        private="medium",
        why="callers cause 5xx (malformed bodies, large headers), and a few in a row eject the version for all callers",
        fix="do not count 5xx (consecutive_5xx and similar: 0), eject on connection failures, and at most 50 %",
    ),
    "ejects-on-5xx": Rule(
        exposed="low",
        why=(
            "callers cause 5xx (malformed bodies, large headers) and can thereby eject servers, up to "
            "the permitted percentage"
        ),
        fix="do not count 5xx (consecutive_5xx and similar: 0); readiness probes remove unhealthy servers",
    ),
    "large-headers": Rule(
        exposed="medium",
        private="low",
        why=(
            "Triton resets connections with headers above about 8 kB, which counts as its failure and "
            "triggers retries and ejection"
        ),
        fix="set max_request_headers_kb to 8 or less (nginx: large_client_header_buffers 4 8k or less)",
    ),
    "proxy-body-limit": Rule(
        exposed="medium",
        private="low",
        why="bodies of any size reach the server, which holds them in memory",
        fix=(
            "add a buffer with a limit (Envoy: buffer filter; Envoy Gateway: requestBuffer; nginx: "
            "client_max_body_size)"
        ),
    ),
    "slow-requests": Rule(
        exposed="medium",
        private="low",
        why="a request that never completes holds its connection and its slot without a time limit",
        fix=(
            "limit the time to receive a request (request_timeout, requestReceivedTimeout), and buffer "
            "before forwarding"
        ),
    ),
    "no-timeout": Rule(
        exposed="low",
        why="a response that never completes holds its slot among the active requests",
        fix="give every rule a timeout above the slowest legitimate response",
    ),
    "no-connection-limit": Rule(
        exposed="low",
        why="one caller can open connections until the proxy has no descriptors or memory left",
        fix="limit them (global_downstream_max_connections, connectionLimit, limit_conn by address)",
    ),
    "no-overload-manager": Rule(
        exposed="medium",
        private="low",
        why="large incomplete bodies fill the proxy's memory until the kernel kills it, for all callers at once",
        fix="add an overload_manager with a heap monitor and an action that stops accepting requests",
    ),
    "path-as-sent": Rule(
        exposed="medium",
        private="low",
        why="a path with .. or %2F is matched in one form and interpreted by the server in another",
        fix="set normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: REJECT_REQUEST",
    ),
    "underscore-headers": Rule(
        exposed="low",
        why="headers such as triton_grpc_error pass, and x_client may be treated as x-client",
        fix="headers_with_underscores_action: REJECT_REQUEST",
    ),
    "json-depth": Rule(
        exposed="low",
        why=("JSON nested about ten thousand levels deep crashes a Triton before 26.05, and no filter checks for it"),
        fix="run 26.05 or newer, or inspect bodies (Lua, ext_proc)",
    ),
    "open-admin": Rule(
        exposed="high",
        private="medium",
        why=("every user who reaches Envoy's admin interface can read its configuration and keys, drain it or stop it"),
        fix="bind it to 127.0.0.1 or to a socket",
    ),
    "open-proxy": Rule(
        exposed="medium",
        why="requests and answers can be read in transit, and everyone who reaches the port can send requests",
        fix="use TLS on the listener, and authentication before the router",
    ),
}

"""Rules about manifests, and about the proxies and gateways before a server. A table; nothing is looked at here."""

from .finding import Rule

FILES: dict[str, Rule] = {
    # Manifests.
    "image-tag": Rule(
        exposed="high",
        why="the next pull may be another server",
        mend="name a release and its digest",
    ),
    "image-digest": Rule(
        exposed="medium",
        why="a tag can be moved to other bytes",
        mend="pin it: IMAGE@sha256:DIGEST; prod must",
    ),
    "image-placeholder": Rule(
        exposed="medium",
        why="nothing starts until the digest is filled in",
        mend="write the image's digest into the cluster file and render again",
    ),
    "privileged": Rule(
        exposed="high",
        why="the container is as good as the node",
        mend="no privileged, host namespaces or hostPath; allowPrivilegeEscalation: false",
    ),
    "malformed": Rule(
        exposed="medium",
        why="a cluster refuses it, or reads it otherwise than meant",
        mend="hold it against the schema of its kind",
    ),
    "writable-root": Rule(
        exposed="medium",
        why="backends and libraries of the server can be replaced while it runs",
        mend="readOnlyRootFilesystem: true, with emptyDir where it must write",
    ),
    "token": Rule(
        exposed="medium",
        why="a broken-into server speaks to the cluster in the pod's name",
        mend="automountServiceAccountToken: false",
    ),
    "writable-models": Rule(
        exposed="high",
        why="a server that may write its models may be made to run other code for good",
        mend="mount the model volume readOnly",
    ),
    "no-limits": Rule(
        exposed="medium",
        why="one model takes the memory of all others on the node",
        mend="set requests and limits",
    ),
    "server-readiness": Rule(
        exposed="medium",
        why="/v2/health/ready turns bad for the whole server when any load fails: a broken candidate takes out stable",
        mend="probe /v2/models/MODEL/versions/VERSION/ready",
    ),
    "secret-in-manifest": Rule(
        exposed="high",
        why="manifests are kept in version control and read by many",
        mend="create the Secret outside, and mount it as a file",
    ),
    "exposed-service": Rule(
        exposed="high",
        why="it puts Triton before the world without the gateway's checks",
        mend="type ClusterIP, with a Gateway before it",
    ),
    "no-network-policy": Rule(
        exposed="high",
        why="every pod of the cluster reaches the server, and it reaches everything",
        mend="a NetworkPolicy: ingress from the gateway, egress to what it needs",
    ),
    "open-network-policy": Rule(
        exposed="high",
        why="it selects the pods and then lets everybody in, or everything out",
        mend="name who may come in, and what may be reached",
    ),
    "wide-route": Rule(
        exposed="high",
        why="administrative calls pass the gateway: repository, shared memory, logging",
        mend="route the exact paths that clients need",
    ),
    # Proxies and gateways.
    "ending-request": Rule(
        exposed="high",
        why="one request of a known kind ends this release: deep JSON before 26.05, a stream's metadata before 26.04, "
        "an Inference-Header-Content-Length out of range in 26.06 to 26.08",
        mend="name release 26.09 or newer, pinned by digest (docs/patched-servers.md)",
    ),
    "stream-metadata": Rule(
        exposed="medium",
        private="low",
        why="metadata triton_grpc_error on a stream ends servers before 26.04 (2.68) at the first error of a model",
        mend="leave ModelStreamInfer out of the route, or remove the header with a RequestHeaderModifier",
    ),
    "retries-again": Rule(
        exposed="high",
        private="medium",
        why="a request that ended its server is sent to the next one, until none is left",
        mend="retry on connect-failure alone: there no server has seen the request",
    ),
    "ejects-everybody": Rule(
        exposed="high",
        private="medium",
        why="callers cause 5xx (malformed bodies, large headers), and a few in a row take the version from everybody",
        mend="count no 5xx (consecutive_5xx or its like 0), eject on failures to connect, and at most 50 %",
    ),
    "ejects-on-5xx": Rule(
        exposed="low",
        why="callers cause 5xx (malformed bodies, large headers), and so take servers out, if not all at once",
        mend="count no 5xx (consecutive_5xx or its like 0); readiness probes take out what is ill",
    ),
    "large-headers": Rule(
        exposed="medium",
        private="low",
        why="Triton resets headers above about 8 kB, which counts as its failure and feeds retries and ejection",
        mend="max_request_headers_kb 8 or less (nginx: large_client_header_buffers 4 8k or less)",
    ),
    "proxy-body-limit": Rule(
        exposed="medium",
        private="low",
        why="bodies of any size reach the server, which holds them in memory",
        mend="a buffer with a limit (Envoy: buffer filter; Envoy Gateway: requestBuffer; nginx: client_max_body_size)",
    ),
    "slow-requests": Rule(
        exposed="medium",
        private="low",
        why="a request that never ends holds its connection and its place for as long as the caller likes",
        mend="bound the time to receive one (request_timeout, requestReceivedTimeout), and buffer before passing it on",
    ),
    "no-timeout": Rule(
        exposed="low",
        why="a response that never comes holds its place among the requests under way",
        mend="give every rule a timeout above the slowest honest response",
    ),
    "no-connection-limit": Rule(
        exposed="low",
        why="one caller may open connections until the proxy has no descriptors or memory left",
        mend="bound them (global_downstream_max_connections, connectionLimit, limit_conn by address)",
    ),
    "no-overload-manager": Rule(
        exposed="medium",
        private="low",
        why="large unfinished bodies fill the proxy's memory until the kernel ends it, for everybody at once",
        mend="an overload_manager with a heap monitor that stops taking requests (and its actions)",
    ),
    "path-as-sent": Rule(
        exposed="medium",
        private="low",
        why="a path with .. or %2F is matched as one thing and read by the server as another",
        mend="normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: REJECT_REQUEST",
    ),
    "underscore-headers": Rule(
        exposed="low",
        why="headers such as triton_grpc_error pass, and x_client may be read as x-client",
        mend="headers_with_underscores_action: REJECT_REQUEST",
    ),
    "json-depth": Rule(
        exposed="low",
        why="JSON nested some ten thousand levels deep ends a Triton before 26.05, and nothing here looks for it",
        mend="run 26.05 or newer, or look into bodies (Lua, ext_proc)",
    ),
    "open-admin": Rule(
        exposed="high",
        private="medium",
        why="whoever reaches Envoy's admin reads its configuration and keys, drains it or ends it",
        mend="bind it to 127.0.0.1 or to a socket",
    ),
    "open-proxy": Rule(
        exposed="medium",
        why="requests and answers can be read on the way, and whoever reaches the port may ask",
        mend="TLS on the listener, and authentication before the router",
    ),
}

"""The checklist as a table: every rule that an audit can find broken, why it matters and how to mend it.

Only the table and the way from a rule to a finding; nothing is looked at here.
"""

from .finding import Finding, Rule

FIXED_IN = (2, 59, 1)
"""Triton 25.07, which fixed the chain around CVE-2025-23319, calls itself 2.59.1; 2.59.0 is 25.06, which has it."""
FIXED_RELEASE = (25, 7)
FIXED_STREAM_IN = (2, 68)
"""Triton 26.04, which fixed a use after free in ModelStreamInfer (server#8708), calls itself 2.68."""
FIXED_STREAM_RELEASE = (26, 4)
CALM_RELEASE = (26, 9)
"""The first release that no single request of those known to us ends; docs/patched-servers.md says which do."""
TRITON_HEADER_KB = 8
"""Triton resets a connection whose headers are larger (measured on 2.51: about 8 kB)."""

RULES: dict[str, Rule] = {
    # A model repository.
    "symlink": Rule(
        exposed="high",
        why="whoever can change its target changes what is served, after every check",
        mend="put the file itself there; seatrial place never links",
    ),
    "outside": Rule(
        exposed="high",
        why="what is loaded lies where no digest is checked and other rights hold",
        mend="keep every path inside the model's directory",
    ),
    "foreign-code": Rule(
        exposed="high",
        why="Triton runs python files and libraries in a model directory with all rights of the server",
        mend="remove it, or place the model with seatrial, which writes its own model.py",
    ),
    "changed": Rule(
        exposed="high",
        why="these are not the bytes that were gated and released",
        mend="move that version away and place the artifact again, under a new number",
    ),
    "stray": Rule(
        exposed="medium",
        why="Triton and its backends look for files of some names in a model's folder, and run or load what they find",
        mend="remove it, or move it out of the repository",
    ),
    "parameter-path": Rule(
        exposed="medium",
        why="a backend's parameter names a file outside the model, which no digest covers and others may change",
        mend="put the file into the version, or see that only the server's user may write it",
    ),
    "unrecorded": Rule(
        exposed="high",
        why="a version without a record, among placed ones, holds what somebody else put there",
        mend="move it out of the model's directory, or place its artifact with seatrial place",
    ),
    "bytecode": Rule(
        exposed="high",
        why="Python runs the bytecode in __pycache__ and not the source beside it, which every check reads",
        mend="remove that folder; seatrial place writes a file of that name, which keeps Python from writing there",
    ),
    "library": Rule(
        exposed="high",
        why="the configuration names a library or a runtime that the server loads and runs",
        mend="remove the field; put what the model needs into the image",
    ),
    "other-backend": Rule(
        exposed="high",
        why="seatrial never writes this: another backend or agent runs, or another file is loaded, than was proven",
        mend="move config.pbtxt away and place the model again",
    ),
    "agent": Rule(
        exposed="medium",
        why="a repository agent is a library that runs before the model and may replace its files",
        mend="remove model_repository_agents, and verify files before the server starts",
    ),
    "cache-path": Rule(
        exposed="low",
        why="compiled engines are loaded from there, and no digest of theirs is checked",
        mend="let only the server's user write there",
    ),
    "missing-step": Rule(
        exposed="low",
        why="a step names a model that is not there, so whoever adds one of that name chooses what it runs",
        mend="place that model, or remove the ensemble",
    ),
    "odd-name": Rule(
        exposed="high",
        why="Triton and other readers do not agree on what it is: a model, a version, or nothing",
        mend="rename it or move it out of the repository",
    ),
    "special-file": Rule(
        exposed="high",
        why="a named pipe, socket or device lets a reader wait without end, or gives other bytes each time",
        mend="remove it",
    ),
    "hard-link": Rule(
        exposed="high",
        why="the same bytes have another name somewhere, by which they can be changed in place after every check",
        mend="copy the file over itself under one name; seatrial place never links",
    ),
    "set-id": Rule(
        exposed="high",
        why="whoever runs that file gets its owner's rights",
        mend="chmod u-s,g-s",
    ),
    "foreign-owner": Rule(
        exposed="high",
        why="its owner, who is neither this user, nor root, nor the repository's owner, can replace what is served",
        mend="chown it to the owner of the repository, and see that nobody changed it",
    ),
    "unreadable": Rule(
        exposed="medium",
        why="what cannot be read cannot be checked",
        mend="let this user read it",
    ),
    "unverified": Rule(
        exposed="medium",
        why="nobody can say whether these are the bytes that were gated",
        mend="place it with seatrial, and audit where the artifact store is (SEATRIAL_HOME)",
    ),
    "world-writable": Rule(
        exposed="high",
        why="every user of the machine can replace what is served, or add code to it",
        mend="chmod o-w, and mount it read-only",
    ),
    "pickle": Rule(
        exposed="high",
        why="loading a pickle runs whatever its author put into it",
        mend="convert to ONNX or safetensors",
    ),
    "execution-environment": Rule(
        exposed="high",
        why="EXECUTION_ENV_PATH unpacks an archive and runs the Python in it",
        mend="remove it, and put what the model needs into the image",
    ),
    "secret-file": Rule(
        exposed="high",
        why="whoever may read models, or back them up, holds the key",
        mend="move it into a secret store and revoke it",
    ),
    "configuration": Rule(
        exposed="medium",
        why="Triton reads it otherwise than we do, or not at all",
        mend="mend or remove config.pbtxt and place the model again",
    ),
    "unbounded-dims": Rule(
        exposed="low",
        why="one request of a huge shape takes all memory",
        mend="export with fixed sizes where possible; limit the request body before the server",
    ),
    "unbounded-queue": Rule(
        exposed="low",
        why="under overload requests wait without end and memory grows; a bound before the server does as well",
        mend="limit requests in flight at the gateway, or give the deployment a [queue]",
    ),
    "cache": Rule(
        exposed="medium",
        why="tenants share the response cache, under a 64-bit key that is no cryptographic one",
        mend="leave response_cache off where more than one tenant asks",
    ),
    "unsafe-cache": Rule(
        exposed="high",
        why="the cache's key holds no shape: an input of another shape with the same bytes gets a wrong answer",
        mend="leave response_cache off for a model with a free axis",
    ),
    # A server, running or described.
    "bound-to-all": Rule(
        exposed="high",
        why="Triton knows no callers: whoever reaches the port may do what it offers",
        mend="bind --http-address, --grpc-address and --metrics-address to 127.0.0.1 or a private address",
    ),
    "plaintext": Rule(
        exposed="medium",
        private="low",
        why="inputs and answers can be read and changed on the way; Triton's HTTP side has no TLS at all",
        mend="put a proxy with TLS before it; gRPC also has --grpc-use-ssl-mutual",
    ),
    "old-server": Rule(
        exposed="high",
        private="medium",
        why="CVE-2025-23319, -23320 and -23334 lead from the shared-memory calls to running code; fixed in 25.07",
        mend="run 25.07 or newer (2.59.1) wherever others can reach it",
    ),
    "stream-use-after-free": Rule(
        exposed="high",
        private="medium",
        why="a gRPC stream with the metadata triton_grpc_error: true and one failed request ends a server before 2.68",
        mend="run 26.04 or newer (2.68), or let no proxy pass that metadata or the method ModelStreamInfer",
    ),
    "open-control": Rule(
        exposed="high",
        private="medium",
        why="whoever loads a model with a file override of its own runs code as the server",
        mend="--model-control-mode=none, or restrict model-repository on HTTP and gRPC",
    ),
    "open-shared-memory": Rule(
        exposed="high",
        private="medium",
        why="clients name memory of the server's machine; this is where the known attack chain begins",
        mend="restrict shared-memory on HTTP and gRPC",
    ),
    "open-logging": Rule(
        exposed="high",
        private="low",
        why="a client may send the log to any file that the server can write",
        mend="restrict logging on HTTP and gRPC",
    ),
    "open-trace": Rule(
        exposed="high",
        private="low",
        why="a client may switch on traces that hold other people's tensors, into a file of its choice",
        mend="restrict trace on HTTP and gRPC",
    ),
    "open-statistics": Rule(
        exposed="medium",
        private="low",
        why="names, versions and load of every model are there for anyone",
        mend="restrict statistics on HTTP and gRPC",
    ),
    "open-config": Rule(
        exposed="medium",
        private="low",
        why="a configuration tells paths, backends and parameters",
        mend="restrict model-config on HTTP and gRPC",
    ),
    "open-metrics": Rule(
        exposed="medium",
        private="low",
        why="metrics name every model and its load, and no restriction of the other ports covers them",
        mend="bind --metrics-address to where Prometheus is alone, or close the port",
    ),
    "no-body-limit": Rule(
        exposed="medium",
        private="low",
        why="the server takes a body of any size into memory and does not give it back",
        mend="limit the request body in the proxy; newer releases have --http-max-input-size",
    ),
    "secret-argument": Rule(
        exposed="high",
        private="medium",
        why="arguments are readable by every user of the machine (ps, /proc), and land in manifests and logs",
        mend="read it from a file when the server starts, revoke the old one; treat Triton's keys as defence in depth",
    ),
    "root": Rule(
        exposed="high",
        private="medium",
        why="a flaw in the server or a model is then a flaw in the whole machine",
        mend="run as a user of its own (uid 1000, triton-server, in NVIDIA's images)",
    ),
    "capabilities": Rule(
        exposed="medium",
        private="low",
        why="Triton needs none of the kernel's privileges",
        mend="drop ALL capabilities",
    ),
    "no-seccomp": Rule(
        exposed="medium",
        private="low",
        why="every system call is open to whoever breaks in",
        mend="run it under the runtime's default seccomp profile",
    ),
    "auto-complete": Rule(
        exposed="low",
        why="the server guesses what config.pbtxt leaves out, and starts model code to do so",
        mend="--disable-auto-complete-config",
    ),
    "tensor-trace": Rule(
        exposed="medium",
        why="traces with TENSORS hold what users sent",
        mend="trace TIMESTAMPS only; sample, redact and expire the rest",
    ),
    "client-shm": Rule(
        exposed="high",
        private="medium",
        why="clients may register shared memory, which production does not need",
        mend="remove --allow-client-shm",
    ),
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


def breach(rule: str, where: str, seen: str, *, exposed: bool = True) -> Finding:
    """A finding of a rule; `exposed` says whether others than this machine's users can reach it."""
    broken = RULES[rule]
    severity = broken.exposed if exposed else broken.private or broken.exposed
    return Finding(rule=rule, severity=severity, where=where, seen=seen, why=broken.why, mend=broken.mend)

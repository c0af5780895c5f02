"""Rules about a server, running or described. A table; nothing is looked at here."""

from .finding import Rule

SERVER: dict[str, Rule] = {
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
}

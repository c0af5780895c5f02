"""Rules about a server, running or described. A table; nothing is looked at here."""

from .finding import Rule

SERVER: dict[str, Rule] = {
    "bound-to-all": Rule(
        exposed="high",
        why="Triton does not authenticate callers: every client that reaches the port can use all its functions",
        fix="bind --http-address, --grpc-address and --metrics-address to 127.0.0.1 or a private address",
    ),
    "plaintext": Rule(
        exposed="medium",
        private="low",
        why="inputs and answers can be read and changed in transit; Triton's HTTP endpoint has no TLS",
        fix="put a proxy with TLS in front; gRPC also has --grpc-use-ssl-mutual",
    ),
    "old-server": Rule(
        exposed="high",
        private="medium",
        why="CVE-2025-23319, -23320 and -23334 lead from the shared-memory requests to code execution; fixed in 25.07",
        fix="run 25.07 or newer (2.59.1) where other users can reach it",
    ),
    "stream-use-after-free": Rule(
        exposed="high",
        private="medium",
        why=(
            "a gRPC stream with the metadata triton_grpc_error: true and one failed request crashes a "
            "server before 2.68"
        ),
        fix="run 26.04 or newer (2.68), or block that metadata or the method ModelStreamInfer in the proxy",
    ),
    "open-control": Rule(
        exposed="high",
        private="medium",
        why="a client that loads a model with its own file override runs code as the server",
        fix="set --model-control-mode=none, or restrict model-repository on HTTP and gRPC",
    ),
    "open-shared-memory": Rule(
        exposed="high",
        private="medium",
        why="clients can name memory of the server's machine; the known attack chain begins here",
        fix="restrict shared-memory on HTTP and gRPC",
    ),
    "open-logging": Rule(
        exposed="high",
        private="low",
        why="a client can redirect the log to every file that the server can write",
        fix="restrict logging on HTTP and gRPC",
    ),
    "open-trace": Rule(
        exposed="high",
        private="low",
        why="a client can enable traces with other users' tensors, and write them to a file of its choice",
        fix="restrict trace on HTTP and gRPC",
    ),
    "open-statistics": Rule(
        exposed="medium",
        private="low",
        why="names, versions and load of every model are readable by every client",
        fix="restrict statistics on HTTP and gRPC",
    ),
    "open-config": Rule(
        exposed="medium",
        private="low",
        why="a configuration reveals paths, backends and parameters",
        fix="restrict model-config on HTTP and gRPC",
    ),
    "open-metrics": Rule(
        exposed="medium",
        private="low",
        why="metrics name every model and its load, and the restrictions of the other ports do not cover them",
        fix="bind --metrics-address to an address that only Prometheus reaches, or close the port",
    ),
    "no-body-limit": Rule(
        exposed="medium",
        private="low",
        why="the server reads a body of any size into memory and does not release it",
        fix="limit the request body in the proxy; newer releases have --http-max-input-size",
    ),
    "secret-argument": Rule(
        exposed="high",
        private="medium",
        why=("arguments are readable by every user of the machine (ps, /proc), and are copied to manifests and logs"),
        fix="read the key from a file at start and revoke the old one; treat Triton's keys as defence in depth",
    ),
    "root": Rule(
        exposed="high",
        private="medium",
        why="a flaw in the server or a model then affects the whole machine",
        fix="run as a dedicated user (uid 1000, triton-server, in NVIDIA's images)",
    ),
    "capabilities": Rule(
        exposed="medium",
        private="low",
        why="Triton needs no kernel capabilities",
        fix="drop ALL capabilities",
    ),
    "no-seccomp": Rule(
        exposed="medium",
        private="low",
        why="an attacker in the server can use every system call",
        fix="run it under the runtime's default seccomp profile",
    ),
    "auto-complete": Rule(
        exposed="low",
        why="the server guesses missing fields of config.pbtxt, and starts model code to do so",
        fix="--disable-auto-complete-config",
    ),
    "tensor-trace": Rule(
        exposed="medium",
        why="traces with TENSORS contain users' data",
        fix="trace only TIMESTAMPS; sample, redact and expire the traces",
    ),
    "client-shm": Rule(
        exposed="high",
        private="medium",
        why="clients may register shared memory, which production does not need",
        fix="remove --allow-client-shm",
    ),
}

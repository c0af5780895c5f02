"""Rules about a model repository on disk. A table; nothing is looked at here."""

from .finding import Rule

REPOSITORY: dict[str, Rule] = {
    "symlink": Rule(
        exposed="high",
        why="every user who can change the link's target can change the served files after all checks",
        fix="replace the link by the file; seatrial place never links",
    ),
    "outside": Rule(
        exposed="high",
        why="the loaded file lies where no digest is checked and other permissions apply",
        fix="keep every path inside the model's directory",
    ),
    "foreign-code": Rule(
        exposed="high",
        why="Triton runs Python files and libraries in a model directory with all permissions of the server",
        fix="remove it, or place the model with seatrial, which writes its own model.py",
    ),
    "changed": Rule(
        exposed="high",
        why="these are not the bytes that were gated and released",
        fix="move that version away and place the artifact again, under a new number",
    ),
    "stray": Rule(
        exposed="medium",
        why="Triton and its backends search a model's folder for certain file names, and run or load them",
        fix="remove it, or move it out of the repository",
    ),
    "parameter-path": Rule(
        exposed="medium",
        why=("a backend's parameter names a file outside the model, which no digest covers and other users may change"),
        fix="put the file into the version, or make it writable only for the server's user",
    ),
    "unrecorded": Rule(
        exposed="high",
        why="a version without a record, among placed ones, has unknown contents",
        fix="move it out of the model's directory, or place its artifact with seatrial place",
    ),
    "bytecode": Rule(
        exposed="high",
        why="Python runs the bytecode in __pycache__ instead of the source beside it, which every check reads",
        fix=("remove that folder; seatrial place writes a file of that name, which prevents Python from writing there"),
    ),
    "library": Rule(
        exposed="high",
        why="the configuration names a library or a runtime that the server loads and runs",
        fix="remove the field; install the model's requirements in the image",
    ),
    "other-backend": Rule(
        exposed="high",
        why="seatrial never writes this: another backend, agent or file is used than was proven",
        fix="move config.pbtxt away and place the model again",
    ),
    "agent": Rule(
        exposed="medium",
        why="a repository agent is a library that runs before the model and may replace its files",
        fix="remove model_repository_agents, and verify files before the server starts",
    ),
    "cache-path": Rule(
        exposed="low",
        why="compiled engines are loaded from there, and their digests are not checked",
        fix="allow only the server's user to write there",
    ),
    "missing-step": Rule(
        exposed="low",
        why="a step names a missing model, so every user who adds a model of that name controls the step",
        fix="place that model, or remove the ensemble",
    ),
    "odd-name": Rule(
        exposed="high",
        why="Triton and other readers interpret it differently: as a model, a version, or nothing",
        fix="rename it or move it out of the repository",
    ),
    "special-file": Rule(
        exposed="high",
        why="a named pipe, socket or device can block a reader forever, or return other bytes on each read",
        fix="remove it",
    ),
    "hard-link": Rule(
        exposed="high",
        why="the same bytes have a second name, through which they can be changed after every check",
        fix="copy the file over itself under one name; seatrial place never links",
    ),
    "set-id": Rule(
        exposed="high",
        why="every user who runs that file gets its owner's permissions",
        fix="chmod u-s,g-s",
    ),
    "foreign-owner": Rule(
        exposed="high",
        why=("its owner can replace the served files, and is neither this user, nor root, nor the repository's owner"),
        fix="chown it to the owner of the repository, and check that it was not changed",
    ),
    "unreadable": Rule(
        exposed="medium",
        why="unreadable files cannot be checked",
        fix="allow this user to read it",
    ),
    "unverified": Rule(
        exposed="medium",
        why="it is unknown whether these are the bytes that were gated",
        fix="place it with seatrial, and audit where the artifact store is (SEATRIAL_HOME)",
    ),
    "world-writable": Rule(
        exposed="high",
        why="every user of the machine can replace the served files, or add code to them",
        fix="use chmod o-w, and mount it read-only",
    ),
    "pickle": Rule(
        exposed="high",
        why="loading a pickle runs code of its author",
        fix="convert it to ONNX or safetensors",
    ),
    "execution-environment": Rule(
        exposed="high",
        why="EXECUTION_ENV_PATH unpacks an archive and runs the Python in it",
        fix="remove it, and install the model's requirements in the image",
    ),
    "secret-file": Rule(
        exposed="high",
        why="every user who can read or back up the models has the key",
        fix="move it into a secret store and revoke it",
    ),
    "configuration": Rule(
        exposed="medium",
        why="Triton interprets it differently from seatrial, or cannot read it",
        fix="fix or remove config.pbtxt and place the model again",
    ),
    "unbounded-dims": Rule(
        exposed="low",
        why="one request with a huge shape can use all memory",
        fix="export with fixed sizes where possible; limit the request body before the server",
    ),
    "unbounded-queue": Rule(
        exposed="low",
        why=(
            "under overload requests queue without limit and memory grows; a limit before the server is "
            "equally effective"
        ),
        fix="limit requests in flight at the gateway, or give the deployment a [queue]",
    ),
    "cache": Rule(
        exposed="medium",
        why="tenants share the response cache, under a 64-bit key that is not cryptographic",
        fix="disable response_cache if more than one tenant sends requests",
    ),
    "unsafe-cache": Rule(
        exposed="high",
        why="the cache's key omits the shape: an input of another shape with the same bytes gets a wrong answer",
        fix="disable response_cache for a model with a variable axis",
    ),
}

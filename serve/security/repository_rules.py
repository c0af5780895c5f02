"""Rules about a model repository on disk. A table; nothing is looked at here."""

from .finding import Rule

REPOSITORY: dict[str, Rule] = {
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
}

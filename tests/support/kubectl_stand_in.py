"""A stand-in for kubectl, as a program: keeps objects as JSON files and answers get and replace like a cluster would.

It is no cluster: it knows two commands, optimistic locking, and a gateway that accepts or refuses at once. The variable
FAULT makes it refuse, conflict, never decide or talk nonsense.
"""

import json
import os
import sys
from pathlib import Path


def fail(text: str) -> None:
    sys.stderr.write(f"Error from server {text}\n")
    sys.exit(1)


def main() -> None:
    folder, fault = Path(os.environ["STAND_IN"]), os.environ.get("FAULT", "")
    arguments = [each for each in sys.argv[1:] if not each.startswith("--")]
    namespace = next(each for each in sys.argv if each.startswith("--namespace=")).partition("=")[2]
    with (folder / "calls").open("a") as log:
        log.write(" ".join(arguments) + "\n")
    if fault == "nonsense":
        print("{")
        return
    if arguments[0] == "get":
        path = folder / f"{namespace}.{arguments[1]}.{arguments[2]}.json"
        if not path.exists():
            fail(f'(NotFound): {arguments[1]} "{arguments[2]}" not found')
        print(path.read_text())
        return
    new = json.loads(sys.stdin.read())
    kind, metadata = new["kind"].lower(), new["metadata"]
    path = folder / f"{namespace}.{kind}.{metadata['name']}.json"
    old = json.loads(path.read_text())
    if fault == "conflict" or old["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
        fail("(Conflict): the object has been modified")
    if fault == f"forbid {kind}":
        fail("(Forbidden): you may not")
    metadata |= {
        "resourceVersion": str(int(metadata["resourceVersion"]) + 1),
        "generation": old["metadata"]["generation"] + 1,
    }
    accepted = "False" if fault == f"refuse {kind}" and "filters" in new["spec"]["rules"][0] else "True"
    conditions = [
        {"type": each, "status": accepted, "reason": "Because", "observedGeneration": metadata["generation"]}
        for each in ("Accepted", "ResolvedRefs")
    ]
    if fault != "slow gateway":
        new["status"] = {"parents": [{"conditions": conditions}]}
    path.write_text(json.dumps(new))
    if fault == "lost answer" and "filters" in new["spec"]["rules"][0]:
        fail("lost: the connection broke after the change was made")
    print(path.read_text())


if __name__ == "__main__":
    main()

"""The kubectl command line, bound to one namespace: runs it and reads its JSON.

Knows no object. Its errors are of the caller's class, since a route that is refused is another failure than a server
that does not answer.
"""

import json
import subprocess

from seatrial.optimize.errors import SeatrialError

from .pod import Object

_NOT_FOUND = "(NotFound)"


class Kubectl:
    """One ``kubectl`` on the PATH. `timeout` is in seconds, for one request; `rights` is what the caller may need."""

    def __init__(
        self,
        namespace: str,
        *,
        error: type[SeatrialError],
        rights: str,
        context: str = "",
        kubectl: str = "kubectl",
        timeout: float = 30.0,
    ) -> None:
        self._error, self._rights, self._timeout, self.namespace = error, rights, timeout, namespace
        self._command = [kubectl, f"--namespace={namespace}", f"--request-timeout={max(1, int(timeout))}s"]
        self._command += [f"--context={context}"] if context else []

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run it, whatever it says.

        Raises:
            The caller's error: it cannot be run, or does not end.
        """
        try:
            return subprocess.run(
                [*self._command, *arguments], input=stdin, capture_output=True, text=True, timeout=self._timeout + 5
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._error(
                f"kubectl cannot be run or does not finish: {error}",
                where=self._command[0],
                next_step="install kubectl, and check that it reaches the cluster (kubectl version)",
            ) from error

    def get(self, kind: str, name: str) -> Object | None:
        """One object; None where there is none of that name."""
        done = self.run("get", kind.lower(), name, "--output=json")
        if done.returncode != 0 and _NOT_FOUND in done.stderr:
            return None
        return self.parsed(done)

    def parsed(self, done: subprocess.CompletedProcess[str]) -> Object:
        """The object that it printed.

        Raises:
            The caller's error: the cluster refused, or that is no JSON.
        """
        if done.returncode != 0:
            raise self._error(
                f"the cluster refused: {done.stderr.strip() or f'exit {done.returncode}'}",
                where=" ".join(self._command),
                next_step=f"check your permissions (kubectl auth can-i {self._rights})",
            )
        try:
            return dict(json.loads(done.stdout))
        except ValueError as error:
            raise self._error(
                f"the output of kubectl is not JSON: {error}",
                where=self._command[0],
                next_step="run the command by hand",
            ) from error

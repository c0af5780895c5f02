"""The lock between processes: one holder at a time, a clear error for who waits too long, and none left by a kill."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.optimize.errors import MachineError
from seatrial.optimize.locking import locked

BUSY = MachineError("another process works here", where="there", next_step="wait for it")
HOLD = "import sys, time; from pathlib import Path; from seatrial.optimize.locking import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_a_lock_makes_its_folder_and_is_free_again_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with pytest.raises(ValueError, match="work"), locked(path):
        raise ValueError("work")
    with locked(path, seconds=0.0, busy=BUSY):
        assert path.exists()


def test_who_waits_too_long_gets_the_caller_s_error_and_a_kill_releases(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(MachineError, match="another process works here"), locked(path, seconds=0.1, busy=BUSY):
            pass
        holder.send_signal(signal.SIGKILL)
    with locked(path, seconds=0.0, busy=BUSY):
        pass

"""The nice values of sessions, where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

are_weighed = pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="sessions are not weighed here")


def session_nice(pid: int) -> int | None:
    """The nice value of the session that a process is in; none in the first one of all, as under some CI runners."""
    told = Path(f"/proc/{pid}/autogroup").read_text(encoding="ascii").split()
    return int(told[-1]) if told else None

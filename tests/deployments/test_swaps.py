"""Releases that change and fail under load: the benchmark's own measurement, short, with the small model."""

from __future__ import annotations

import pytest

from benchmarks import swaps
from tasks import steps
from tests.conftest import Project


@pytest.mark.long
@pytest.mark.timeout(600)
def test_releases_change_and_fail_under_load_without_a_lost_request(
    small: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    """Three swaps and a bad release by the real flow, registry and router: each answer is right, and in the log."""
    for step in steps.STEPS:
        steps.run(step, ["tiny"])
    said = ["--seconds", "10", "--swaps", "3", "--bad", "1", "--kills", "0", "--rate", "40", "--bake", "3", "--untimed"]
    code = swaps.main(["--model", "tiny", *said])
    told, errors = capfd.readouterr()
    assert code == 0, f"{told}\n{errors}"
    assert "3 swaps (1 new, 2 back), 1 bad releases withdrawn" in told
    assert "\n0 failed\n" in told

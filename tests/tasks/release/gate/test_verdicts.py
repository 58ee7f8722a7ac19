"""The gate's verdicts at hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from tasks.ground import settings
from tasks.journal import journal
from tasks.release.gate import verdicts
from tasks.release.gate.verdict import Check, Verdict


def verdict(id_: str) -> Verdict:
    """A verdict with one check."""
    check = Check("improvement", -0.1, 0.0, True, "better", (-0.2, -0.05))
    return Verdict(id_, "m", "c", None, True, "promoted", (check,), {"loss": "log_loss"}, "r", {"rows": 3}, 10, 1)


def test_each_verdict_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever judges the same again after a kill adds nothing; what was judged before stays, and is read back whole."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    for run in ("http://run/1", "http://run/2"):
        with journal.in_run(run):
            verdicts.keep("m", 1, verdict("a"))
    verdicts.keep("m", 2, verdict("a"))
    verdicts.keep("m", 2, verdict("b"))
    lines = verdicts.newest("m", 10)
    assert [(line["id"], line["version"], line["run"]) for line in lines] == [
        ("a", 1, "http://run/1"),
        ("a", 2, ""),
        ("b", 2, ""),
    ]
    assert [verdicts.summary("m", version) for version in (1, 2, 3)] == ["promoted", "promoted", ""]
    own = {key: value for key, value in lines[0].items() if key not in ("time", "version", "run", "why")}
    assert own == {**asdict(verdict("a")), "checks": [{**asdict(verdict("a").checks[0]), "interval": [-0.2, -0.05]}]}
    assert verdicts.of_candidate("m", "c") == [verdict("a"), verdict("a"), verdict("b")]

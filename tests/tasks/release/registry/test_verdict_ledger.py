"""The gate's verdicts at hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from tasks.ground import ledger, paths, settings
from tasks.release.gate.verdict import Check, Verdict
from tasks.release.registry import verdict_ledger


def verdict(id_: str) -> Verdict:
    """A verdict with one check."""
    check = Check("improvement", -0.1, 0.0, True, "better", (-0.2, -0.05))
    return Verdict(id_, "m", "c", None, True, "promoted", (check,), {"loss": "log_loss"}, "r", {"rows": 3}, 10, 1)


def test_each_verdict_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever judges the same again after a kill adds nothing; what was judged before stays, and is read back whole."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    verdict_ledger.keep("m", 1, verdict("a"), "http://run/1")
    verdict_ledger.keep("m", 1, verdict("a"), "http://run/2")
    verdict_ledger.keep("m", 2, verdict("a"))
    verdict_ledger.keep("m", 2, verdict("b"))
    lines = ledger.lines(paths.verdicts("m"))
    assert [(line["id"], line["version"], line["run"]) for line in lines] == [
        ("a", 1, "http://run/1"),
        ("a", 2, ""),
        ("b", 2, ""),
    ]
    assert [verdict_ledger.summary("m", version) for version in (1, 2, 3)] == ["promoted", "promoted", ""]
    own = {key: value for key, value in lines[0].items() if key not in ("time", "version", "run")}
    assert own == {**asdict(verdict("a")), "checks": [{**asdict(verdict("a").checks[0]), "interval": [-0.2, -0.05]}]}

"""policies/promotion.yaml: what is wrong with it is told with its place; who decides on what."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.ground import settings
from tasks.ground.errors import PolicyError
from tasks.release.gate.verdict import Check, Moves, Verdict
from tasks.release.policy import promotion
from tests.conftest import REPOSITORY

GOOD = """
people: {ada: ["os:ada", "git:ada@x.org"], grace: ["os:grace"]}
groups: {owners: [ada, grace]}
rules:
  - {name: small, when: verdict.moves.most < 0.1, approvals: 0}
  - {name: large, approvals: 1, group: owners}
freezes:
  - {name: weekend, when: "now.getDayOfWeek() in [0, 6]"}
break_glass: owners
"""
MONDAY, SUNDAY = datetime(2026, 11, 30, tzinfo=UTC), datetime(2026, 11, 29, tzinfo=UTC)


def write(root: Path, text: str, patch: pytest.MonkeyPatch) -> None:
    """A project with this policy."""
    patch.setattr(settings, "ROOT", root)
    (root / "policies").mkdir(exist_ok=True)
    (root / "policies/promotion.yaml").write_text(text)


def verdict(moves: Moves | None, *checks: Check) -> Verdict:
    """A verdict whose answers move so far."""
    return Verdict("v", "late", "c2", "c1", True, "", checks, {}, "", {}, 1, 1, moves)


def test_the_first_rule_that_holds_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small moves need nobody; large ones and moves that nobody knows do; a freeze is in force or not."""
    write(tmp_path, GOOD, monkeypatch)
    loaded = promotion.load()
    assert loaded is not None

    def rule(moves: Moves | None) -> str:
        decides = loaded.rule(promotion.facts("late", verdict(moves), ""), MONDAY)
        return decides.name if decides else ""

    assert [rule(Moves(9, 0.01, 0.05)), rule(Moves(9, 0.01, 0.5)), rule(None)] == ["small", "large", "large"]
    assert [bool(loaded.freeze("late", day)) for day in (MONDAY, SUNDAY)] == [False, True]


@pytest.mark.parametrize("value", [-1, -1.0, -0.5, 0, 0.25, 1])
@pytest.mark.parametrize("limit", ["0", "0.0", "0.25"])
def test_a_rule_asks_a_check_of_the_verdict_by_whole_numbers_or_others(
    limit: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loads, though no example has the check, and compares as numbers do."""
    for operator, expected in (("<", value < float(limit)), ("==", value == float(limit))):
        when = f"has(verdict.checks.improvement) && verdict.checks.improvement {operator} {limit}"
        write(tmp_path, GOOD.replace("verdict.moves.most < 0.1", when), monkeypatch)
        loaded = promotion.load()
        assert loaded is not None
        facts = promotion.facts("late", verdict(None, Check("improvement", value, 0.0, True, "")), "")
        decides = loaded.rule(facts, MONDAY)
        assert decides is not None
        assert decides.name == ("small" if expected else "large")


@pytest.mark.parametrize("checks", [(), (Check("improvement", None, 0.0, True, "no champion yet"),)])
@pytest.mark.parametrize("when", ["verdict.checks.improvement < 0.1", "!(verdict.checks.improvement > 0.1)"])
def test_a_check_without_a_value_lets_nothing_through(
    when: str, checks: tuple[Check, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that cannot be computed refuses, and says how to ask; one that asks `has` first is judged."""
    facts = promotion.facts("late", verdict(None, *checks), "")
    write(tmp_path, GOOD.replace("verdict.moves.most < 0.1", f'"{when}"'), monkeypatch)
    loaded = promotion.load()
    assert loaded is not None
    with pytest.raises(PolicyError, match=r"ask has\(verdict.checks.NAME\) first"):
        loaded.rule(facts, MONDAY)
    write(tmp_path, GOOD.replace("verdict.moves.most < 0.1", f"has(verdict.checks.improvement) && {when}"), monkeypatch)
    loaded = promotion.load()
    assert loaded is not None
    decides = loaded.rule(facts, MONDAY)
    assert decides is not None
    assert decides.name == "large"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("approvals: 1", "aprovals: 1", "rules.1.aprovals: unknown key; did you mean 'approvals'?"),
        ("group: owners", "group: owner", "large: group: names no group: 'owner'; did you mean 'owners'?"),
        ("approvals: 1", "approvals: 3", "large: can never be met: it wants 3 approvals, and owners has 2"),
        ("[ada, grace]", "[ada, grce]", "'grce' is nobody in `people`; did you mean 'grace'?"),
        ("os:grace", "grace", "people.grace.0: 'grace' is no identity"),
        ("os:grace", "os:ada", "os:ada stands twice"),
        ("verdict.moves.most <", "verdict.moves.most < <", "small: 'verdict.moves.most < < 0.1' is no CEL expression"),
        ("verdict.moves.most <", "verdct.moves.most <", "undeclared reference to 'verdct'; did you mean 'verdict'?"),
        ("verdict.moves.most < 0.1", "verdict.moves.most", "a condition gives true or false"),
        ("now.getDayOfWeek() in [0, 6]", "true", "freezes are in force at each instant"),
        ("rules:", "rules: [", "policies/promotion.yaml"),
    ],
)
def test_a_policy_that_cannot_work_is_one_message(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says where, and what may have been meant."""
    write(tmp_path, GOOD.replace(old, new, 1), monkeypatch)
    with pytest.raises(PolicyError) as refused:
        promotion.load()
    assert message in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_the_policy_of_the_how_to_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for the first candidate, of which neither moves nor an improvement are known."""
    text = (REPOSITORY / "docs/how-to/approve.md").read_text(encoding="utf-8")
    write(tmp_path, text.partition("```yaml\n")[2].partition("```")[0], monkeypatch)
    loaded = promotion.load()
    assert loaded is not None
    for improvement, expected in ((None, "all others"), (-1, "clearly better"), (0.0, "all others")):
        facts = promotion.facts("late", verdict(None, Check("improvement", improvement, 0.0, True, "")), "")
        decides = loaded.rule(facts, MONDAY)
        assert decides is not None
        assert decides.name == expected
    assert loaded.freeze("late", SUNDAY)


def test_without_a_file_the_gate_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no policy."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    assert promotion.load() is None

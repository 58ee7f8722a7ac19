"""Approvals on a real registry: what binds, what is void, and an alias that a person sets in MLflow by hand."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.ground import paths, settings
from tasks.ground.errors import Mistake, NeedsApproval, PolicyError
from tasks.release.gate.verdict import Verdict
from tasks.release.policy import approvals, promotion
from tasks.release.policy.approvals import Approval
from tasks.release.registry import alias_repair, desired_state, model_state, promotions, registry, version_approvals
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tests.tasks.release.registry import test_registry
from tests.tasks.release.registry.test_registry import MODEL, Place

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
place = test_registry.place
POLICY = """
people: {ada: ["os:ada", "git:ada@x.org"], grace: ["os:grace"], mary: ["os:mary"]}
groups: {owners: [ada, grace, mary]}
rules: [{name: all, approvals: 2, group: owners, good_for_h: 24}]
break_glass: owners
"""


def policy(text: str = POLICY) -> None:
    """The project has this policy from now on."""
    (settings.ROOT / "policies").mkdir(exist_ok=True)
    promotion.path().write_text(text)


@pytest.fixture
def as_person(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Whoever types; the author is Ada."""
    monkeypatch.setattr(approvals, "author", lambda commit: "git:ada@x.org")
    return lambda name: monkeypatch.setattr(approvals, "identity", lambda: f"os:{name}")


@pytest.fixture
def versions(place: Place, monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Version 2 is champion and live, 3 may be promoted by its verdict; number and candidate."""
    test_registry.use(place.root, monkeypatch)
    place.restore("history")
    candidates = {each.version: each.candidate for each in registry.history(MODEL)}
    live = ReleaseRef(candidates[2], 2)
    desired_state.write(MODEL, DesiredState().gone_live(live))
    desired_state.note_live(MODEL, live)
    return candidates


def test_two_others_say_yes_and_the_author_does_not_count(
    versions: dict[int, str], as_person: Callable[[str], None]
) -> None:
    """One yes is not two, however often it is given; with the second it is promoted, and not put back."""
    policy()
    as_person("ada")
    with pytest.raises(Mistake, match="ada is the author"):
        version_approvals.approve(MODEL, versions[3], "mine")
    as_person("eve")
    with pytest.raises(Mistake, match="os:eve is nobody"):
        version_approvals.approve(MODEL, versions[3], "let me")
    as_person("grace")
    for _ in range(2):
        version_approvals.approve(MODEL, versions[3], "read it")
        with pytest.raises(NeedsApproval, match="has 1 of the 2 approvals"):
            promotions.promote_by_hand(MODEL, 3)
    as_person("mary")
    version_approvals.approve(MODEL, versions[3], "read it too")
    assert promotions.promote_by_hand(MODEL, 3).number == 3
    assert alias_repair.put_back(MODEL) is None


def test_an_alias_set_by_hand_is_put_back(versions: dict[int, str]) -> None:
    """The live release is champion again, and the version waits; without a policy the hand decides as before."""
    client = MlflowClient()
    client.set_registered_model_alias(MODEL, "champion", "3")
    promotion.path().unlink(missing_ok=True)
    assert alias_repair.put_back(MODEL) is None
    policy()
    assert "does not serve" in (alias_repair.put_back(MODEL) or "")
    assert test_registry.champion().number == 2
    assert client.get_model_version_by_alias(MODEL, "challenger").version in {"3", 3}
    assert alias_repair.put_back(MODEL) is None


def test_where_nothing_is_live_who_was_champion_before_has_the_alias_again(versions: dict[int, str]) -> None:
    """Unless the policy does not let that one serve either: then nobody has it."""
    client = MlflowClient()
    desired_state.write(MODEL, DesiredState())
    paths.journal(MODEL).unlink()
    client.set_registered_model_alias(MODEL, "champion", "3")
    policy("rules: [{name: all, approvals: 0}, {name: never, when: 'false', approvals: 0}]")
    assert alias_repair.put_back(MODEL) is None
    policy()
    assert "nobody is champion" in (alias_repair.put_back(MODEL) or "")
    assert registry.champion(MODEL) is None
    desired_state.note(MODEL, ReleaseRef(versions[2], 2), "live")
    desired_state.note(MODEL, ReleaseRef(versions[2], 2), "withdrawn")
    client.set_registered_model_alias(MODEL, "champion", "2")
    assert alias_repair.put_back(MODEL) is None, "it has served"


def test_a_rule_that_cannot_be_computed_promotes_nothing(versions: dict[int, str]) -> None:
    """The training says why; a rollout of it fails in words."""
    policy("rules: [{name: odd, when: verdict.checks.nothing_like_it < 0.1, approvals: 0}]")
    id_ = MlflowClient().get_model_version(MODEL, "3").tags[model_state.VERDICT_ID]
    assert "cannot be computed" in (version_approvals.missing_approval(MODEL, 3, id_) or "")
    MlflowClient().set_registered_model_alias(MODEL, "champion", "3")
    with pytest.raises(PolicyError, match="cannot be computed"):
        alias_repair.put_back(MODEL)


def test_an_alias_on_a_version_without_verdict_is_put_back(versions: dict[int, str]) -> None:
    """Approvals bind a verdict: a tag that names another one is none."""
    policy()
    client = MlflowClient()
    client.set_model_version_tag(MODEL, "3", model_state.VERDICT_ID, "of-another")
    client.set_registered_model_alias(MODEL, "champion", "3")
    assert "has no verdict" in (alias_repair.put_back(MODEL) or "")
    assert test_registry.champion().number == 2


def test_a_changed_policy_voids_approvals(versions: dict[int, str], as_person: Callable[[str], None]) -> None:
    """Also between the promotion and the rollout."""
    policy()
    for name in ("grace", "mary"):
        as_person(name)
        version_approvals.approve(MODEL, versions[3], "read it")
    promotions.promote_by_hand(MODEL, 3)
    policy(f"{POLICY}# another\n")
    assert "has 0 of the 2" in (alias_repair.put_back(MODEL) or "")
    assert test_registry.champion().number == 2


def test_breaking_the_glass_needs_a_reason_and_opens_a_freeze(
    versions: dict[int, str], as_person: Callable[[str], None]
) -> None:
    """A freeze refuses what is approved."""
    year = datetime.now(UTC).year
    policy(f"{POLICY}freezes: [{{name: this year, when: now.getFullYear() == {year}}}]\n")
    as_person("grace")
    with pytest.raises(NeedsApproval, match="the freeze 'this year'"):
        promotions.promote_by_hand(MODEL, 3)
    with pytest.raises(Mistake, match="say why"):
        version_approvals.approve(MODEL, versions[3], " ", break_glass=True)
    version_approvals.approve(MODEL, versions[3], "the old one crashes", break_glass=True)
    assert promotions.promote_by_hand(MODEL, 3).number == 3


# ── hostile schedules ─────────────────────────────────────────────────────────────────────────────

VERDICT = Verdict("v", MODEL, "c2", "c1", True, "", (), {}, "", {}, 1, 1)


def hostile(line: Approval, chance: random.Random) -> Approval:
    """A line that must not count."""
    old = (datetime.fromisoformat(line.time) - timedelta(hours=chance.choice([25, 900]))).isoformat()
    changes = [
        {"candidate": "c3"}, {"verdict": "of another"}, {"policy": "of before"}, {"model": "other"}, {"time": old},
        {"by": "ada", "identity": "os:ada"}, {"by": "eve", "identity": "os:eve"}, {"identity": "os:eve"},
    ]  # fmt: skip
    return replace(line, **chance.choice(changes))


@pytest.mark.parametrize("part", range(3))
def test_no_hostile_schedule_gets_through(part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 of them: replayed, expired, of the author, of nobody; two sound ones of two people are let through."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")
    monkeypatch.setattr(approvals, "author", lambda commit: "git:ada@x.org")
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a thousand lines
    policy()
    loaded = promotion.load()
    assert loaded is not None
    for seed in range(100 * part, 100 * part + 100):
        chance, now = random.Random(seed), datetime.now(UTC)
        sound = Approval(
            now.isoformat(), MODEL, "c2", approvals.digest(VERDICT), loaded.digest, "grace", "os:grace", "w"
        )
        bad = [hostile(sound, chance) for _ in range(chance.randint(1, 4))]
        good = [sound] * chance.randint(0, 2)
        if wants_two := chance.random() < 0.3:
            good = [sound, replace(sound, by="mary", identity="os:mary")]
        lines = sorted([*bad, *good], key=lambda line: line.time)
        paths.journal(MODEL).unlink(missing_ok=True)
        for line in lines:
            approvals.keep(line)
        if chance.random() < 0.2 and good:  # the clock is set back before it is asked
            wants_two = False
            late = replace(sound, time=(now + timedelta(hours=1)).isoformat())
            approvals.keep(late)
        if wants_two:
            approvals.refuse_without(VERDICT, "")
        else:
            with pytest.raises(NeedsApproval):
                approvals.refuse_without(VERDICT, "")

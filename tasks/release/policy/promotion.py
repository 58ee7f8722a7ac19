"""policies/promotion.yaml, typed: which candidates need whose approval, and when nothing is promoted.

Without the file the gate alone decides. The first rule whose `when` holds decides; where none holds, none is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, ValidationError

from tasks.ground import settings, yaml_reader
from tasks.ground.errors import PolicyError, did_you_mean
from tasks.release.gate.verdict import Moves, Verdict

if TYPE_CHECKING:
    from tasks.release.policy.rules import Expression

NAME = "policies/promotion.yaml"
Identity = Annotated[str, Field(pattern=r"^(os|git):\S+$")]
"""`os:ada`: an account of the machine; `git:ada@example.org`: an author of commits."""


class _PolicySection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rule(_PolicySection):
    """Which approvals a candidate needs."""

    name: str
    when: str = "true"
    approvals: NonNegativeInt
    group: str = ""
    not_the_author: bool = True
    good_for_h: PositiveFloat = 72


class Freeze(_PolicySection):
    """A time in which nothing is promoted."""

    name: str
    when: str


class Policy(_PolicySection):
    """The file."""

    people: dict[str, list[Identity]] = {}
    groups: dict[str, list[str]] = {}
    rules: list[Rule] = []
    freezes: list[Freeze] = []
    break_glass: str = ""
    """The group that may promote without the approvals, and in a freeze, with a reason."""

    def person(self, identity: str) -> str | None:
        """Whose identity it is."""
        return next((person for person, known in self.people.items() if identity in known), None)


class Loaded(_PolicySection):
    """A policy that was checked, and the hash of its bytes."""

    policy: Policy
    digest: str

    def rule(self, facts: Mapping[str, Any], now: datetime) -> Rule | None:
        """The rule that decides on a candidate; None: none is needed."""
        return next((r for r in self.policy.rules if _expression(_of(r), r.when).holds(facts, now)), None)

    def freeze(self, model: str, now: datetime) -> Freeze | None:
        """The freeze in force, if one is."""
        facts = {"model": model}
        return next((f for f in self.policy.freezes if _expression(_of(f), f.when).holds(facts, now)), None)


def path() -> Path:
    """Where the policy is."""
    return settings.ROOT / NAME


def load() -> Loaded | None:
    """The policy, checked; None where there is no file.

    Raises:
        PolicyError: with a line per fault: what is wrong, and what to do.
    """
    try:
        content = path().read_bytes()
    except FileNotFoundError:
        return None
    return _checked(content)


@lru_cache(maxsize=4)
def _checked(content: bytes) -> Loaded:
    raw = yaml_reader.parse(_text(content), NAME, PolicyError, dvc_reads=False)
    try:
        policy = Policy.model_validate(raw)
    except ValidationError as error:
        raise PolicyError("\n".join(f"{NAME}: {_explain(fault)}" for fault in error.errors())) from None
    loaded = Loaded(policy=policy, digest=hashlib.sha256(content).hexdigest())
    if faults := [*_faults_of_names(policy), *_faults_of_numbers(policy)]:
        raise PolicyError("\n".join(f"{NAME}: {fault}" for fault in faults))
    _try_expressions(loaded)
    return loaded


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise PolicyError(f"{NAME} is not UTF-8: save it as UTF-8") from None


def facts(model: str, verdict: Verdict, author: str) -> dict[str, Any]:
    """What a rule may ask; every number is a float.

    Moves that are not known count as endless: a rule about small ones does not hold. A check without a value is left
    out: a rule that asks for it without `has` cannot be computed, and refuses.
    """
    moves = asdict(verdict.moves or Moves(0, float("inf"), float("inf")))
    checks = {check.name: float(check.value) for check in verdict.checks if check.value is not None}
    about = {"id": verdict.id, "summary": verdict.summary, "promoted": verdict.promoted, "champion": verdict.champion}
    return {
        "model": model,
        "candidate": verdict.challenger,
        "author": author,
        "verdict": {
            **about,
            "champion": verdict.champion or "",
            "moves": {name: float(number) for name, number in moves.items()},
            "checks": checks,
        },
    }


# ── what is wrong with a policy ───────────────────────────────────────────────────────────────────


def _explain(fault: Any) -> str:
    path = [str(part) for part in fault["loc"]]
    where = ".".join(path) or "(top level)"
    sections: dict[str, type[_PolicySection]] = {"rules": Rule, "freezes": Freeze}
    if fault["type"] == "extra_forbidden":
        section = sections.get(path[0], Policy) if len(path) > 1 else Policy
        return f"{where}: unknown key{did_you_mean(path[-1], list(section.model_fields))}"
    if fault["type"] == "missing":
        return f"{where}: is missing"
    if path[:1] == ["people"]:
        return f"{where}: {fault['input']!r} is no identity: write os:NAME or git:MAIL"
    return f"{where}: {fault['msg'][0].lower()}{fault['msg'][1:]}, not {fault['input']!r}"


def _faults_of_names(policy: Policy) -> list[str]:
    named = [(f"rules: {rule.name}: group", rule.group) for rule in policy.rules if rule.approvals]
    named += [("break_glass", policy.break_glass)] if policy.break_glass else []
    faults = [
        f"{where}: names no group: {group!r}{did_you_mean(group, list(policy.groups))}"
        for where, group in named
        if group not in policy.groups
    ]
    faults += [
        f"groups.{group}: {member!r} is nobody in `people`{did_you_mean(member, list(policy.people))}"
        for group, members in policy.groups.items()
        for member in members
        if member not in policy.people
    ]
    identities = [identity for known in policy.people.values() for identity in known]
    twice = sorted({identity for identity in identities if identities.count(identity) > 1})
    return faults + [f"people: {identity} stands twice: it is one person's" for identity in twice]


def _faults_of_numbers(policy: Policy) -> list[str]:
    return [
        f"rules: {rule.name}: can never be met: it wants {rule.approvals} approvals, and {rule.group} has "
        f"{able} who can say yes (with an os: identity). Add people, or ask for fewer"
        for rule in policy.rules
        if rule.group in policy.groups and rule.approvals > (able := len(_able(policy, rule.group)))
    ]


def _able(policy: Policy, group: str) -> set[str]:
    """Members of a group that can say yes at all."""
    members = policy.groups[group]
    return {who for who in members if any(each.startswith("os:") for each in policy.people.get(who, []))}


def _try_expressions(loaded: Loaded) -> None:
    """Ask each expression an example, so that a misspelt name is told before it is needed.

    The example has every check: which ones a verdict has depends on the model.
    """
    example = facts("example", _EXAMPLE, "git:ada@example.org")
    now = datetime.now(UTC)
    for rule in loaded.policy.rules:
        _expression(_of(rule), rule.when).holds(example, now, any_check=True)
    instants = [now + timedelta(hours=7 * hour) for hour in range(48)] + [
        now + timedelta(days=45 * n) for n in range(41)
    ]
    if all(loaded.freeze("example", instant) for instant in instants):
        raise PolicyError(f"{NAME}: can never be met: freezes are in force at each instant tried of the next 5 years")


_EXAMPLE = Verdict("id", "example", "candidate", None, True, "", (), {}, "", {}, 1, 1, Moves(1, 0.5, 0.5))


def _of(part: Rule | Freeze) -> str:
    return f"{NAME}: {'rules' if isinstance(part, Rule) else 'freezes'}: {part.name}"


@lru_cache(maxsize=200)
def _expression(where: str, text: str) -> Expression:
    from tasks.release.policy import rules  # cel-python takes 0.3 s to import

    return rules.compiled(where, text)

"""Approvals: a person's yes to a candidate, by its verdict and the policy; lines of the journal.

A yes binds the candidate, the verdict's bytes and the policy's bytes, and is void as soon as one of them changes.
Who said it is the account of the operating system. A line without the journal's signature is none: whoever
can write to var/, but cannot read the journal's key, can forge no yes.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tasks.ground import files, settings
from tasks.ground.errors import Mistake, NeedsApproval
from tasks.journal import journal
from tasks.release.gate.verdict import Verdict
from tasks.release.policy import promotion
from tasks.release.policy.promotion import Loaded, Rule


@dataclass(frozen=True)
class Approval:
    """A line."""

    time: str
    model: str
    candidate: str
    verdict: str
    """SHA-256 of the verdict's JSON; `policy`: of the file's bytes."""
    policy: str
    by: str
    identity: str
    why: str
    break_glass: bool = False


def given(model: str) -> list[Approval]:
    """Every approval of a model's candidates, oldest first."""
    return [
        Approval(line.time, model, identity=line.who, why=line.why, **line.what)
        for line in journal.verified(model, "approval")
    ]


def identity() -> str:
    """The account that this process runs as; no variable of the environment changes it."""
    try:
        return f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        raise Mistake(f"the user {os.getuid()} has no account on this machine: nobody can tell who approves") from None


def author(commit: str) -> str:
    """`git:` and the mail of a commit's author; empty where that is not known."""
    if not commit:
        return ""
    command = ["git", "log", "-1", "--format=%ae", "--end-of-options", commit, "--"]
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True, check=False)
    return f"git:{done.stdout.strip()}" if done.returncode == 0 and done.stdout.strip() else ""


def approve(verdict: Verdict, commit: str, why: str, *, break_glass: bool = False) -> Approval:
    """Record the yes of whoever runs this process.

    Raises:
        Mistake: there is no policy, no reason, nothing to approve, or this person may not.
    """
    loaded, now, who = promotion.load(), datetime.now(UTC), identity()
    if loaded is None:
        raise Mistake(f"there is no {promotion.NAME}: no approval is asked for, the gate decides")
    if not why.strip():
        raise Mistake("say why: --why '…'; it is recorded")
    person = loaded.policy.person(who)
    if person is None:
        raise Mistake(f"{who} is nobody in `people` of {promotion.NAME}: nothing was recorded")
    _refuse_who_may_not(loaded, verdict, author(commit), person, now, break_glass=break_glass)
    with files.lock(f"approvals-{verdict.model}"):
        _refuse_clock_set_back(given(verdict.model), now)
        line = Approval(
            now.isoformat(), verdict.model, verdict.challenger, digest(verdict), loaded.digest, person, who,
            " ".join(why.split()), break_glass,
        )  # fmt: skip
        keep(line)
    return line


def keep(line: Approval) -> None:
    """Write an approval down."""
    what = {
        "candidate": line.candidate,
        "verdict": line.verdict,
        "policy": line.policy,
        "by": line.by,
        "break_glass": line.break_glass,
    }
    journal.append(line.model, "approval", what, line.why, time=line.time, who=line.identity)


def _refuse_who_may_not(
    loaded: Loaded, verdict: Verdict, author: str, person: str, now: datetime, *, break_glass: bool
) -> None:
    policy = loaded.policy
    rule = loaded.rule(promotion.facts(verdict.model, verdict, author), now)
    if not break_glass and (rule is None or not rule.approvals):
        raise Mistake(f"candidate {verdict.challenger} needs no approval by {promotion.NAME}: nothing was recorded")
    group = policy.break_glass if break_glass else rule.group if rule else ""
    if person not in policy.groups.get(group, []):
        wanted = f"group {group}" if group else "a group: `break_glass` names none"
        raise Mistake(f"{person} may not: {promotion.NAME} wants a member of {wanted}. Nothing was recorded")
    if rule and rule.not_the_author and not break_glass:
        made_by = _author_of(loaded, author)
        if made_by == person:
            raise Mistake(
                f"{person} is the author ({author}) of candidate {verdict.challenger}: another has to approve"
            )


def _author_of(loaded: Loaded, author: str) -> str:
    """The person who wrote what the candidate is made of.

    Raises:
        NeedsApproval: nobody knows, so nobody can be told apart from the author.
    """
    person = loaded.policy.person(author) if author else None
    if person is None:
        raise NeedsApproval(
            f"the author ({author or 'no commit'}) is nobody in `people` of {promotion.NAME}, so nobody can be told "
            f"apart from the author: add {author or 'git:MAIL'} to a person, or set not_the_author: false"
        )
    return person


def _refuse_clock_set_back(lines: list[Approval], now: datetime) -> None:
    if lines and now < (newest := datetime.fromisoformat(lines[-1].time)):
        raise NeedsApproval(
            f"the clock was set back: it says {now:%Y-%m-%d %H:%M} UTC, and the newest approval is of "
            f"{newest:%Y-%m-%d %H:%M}. No approval counts until it is right"
        )


def digest(verdict: Verdict) -> str:
    """What an approval binds of a verdict."""
    return hashlib.sha256(verdict.to_json().encode()).hexdigest()


def refuse_without(verdict: Verdict, commit: str) -> None:
    """Let a promotion through that the policy allows now.

    Raises:
        NeedsApproval: a freeze is in force, or approvals are missing; it says which, and what to type.
        PolicyError: the policy cannot be read.
    """
    if promotion.path().exists() and (loaded := promotion.load()):
        _refuse_without(loaded, verdict, author(commit), datetime.now(UTC))


def _refuse_without(loaded: Loaded, verdict: Verdict, author: str, now: datetime) -> None:
    model, lines = verdict.model, given(verdict.model)
    _refuse_clock_set_back(lines, now)
    binding = [line for line in lines if _binds(line, loaded, verdict)]
    rule = loaded.rule(promotion.facts(model, verdict, author), now)
    hours = rule.good_for_h if rule else Rule.model_fields["good_for_h"].default
    fresh = [line for line in binding if now - datetime.fromisoformat(line.time) <= timedelta(hours=hours)]
    if _broke_glass(loaded, fresh):
        return
    if freeze := loaded.freeze(model, now):
        raise NeedsApproval(f"{verdict.challenger} of {model} is not promoted: the freeze {freeze.name!r} is in force")
    if rule is None or not rule.approvals:
        return
    persons = set(_counting(loaded, rule, fresh, author))
    if len(persons) < rule.approvals:
        expired = f"; {len(binding) - len(fresh)} have expired" if len(binding) > len(fresh) else ""
        raise NeedsApproval(
            f"{verdict.challenger} of {model} has {len(persons)} of the {rule.approvals} approvals that the rule "
            f"{rule.name!r} wants of {rule.group}{expired}: evergreen approve {model} --why '…'"
        )


def _binds(line: Approval, loaded: Loaded, verdict: Verdict) -> bool:
    about = (line.model, line.candidate, line.verdict, line.policy)
    return about == (verdict.model, verdict.challenger, digest(verdict), loaded.digest)


def _broke_glass(loaded: Loaded, lines: list[Approval]) -> bool:
    may = loaded.policy.groups.get(loaded.policy.break_glass, [])
    return any(line.break_glass and line.by in may and _is_known(loaded, line) for line in lines)


def _is_known(loaded: Loaded, line: Approval) -> bool:
    """Whether the line's account is still that person's."""
    return loaded.policy.person(line.identity) == line.by


def _counting(loaded: Loaded, rule: Rule, lines: list[Approval], author: str) -> Iterator[str]:
    """Who has said yes and may."""
    made_by = _author_of(loaded, author) if rule.not_the_author else None
    for line in lines:
        may = line.by in loaded.policy.groups[rule.group] and line.by != made_by
        if may and not line.break_glass and _is_known(loaded, line):
            yield line.by

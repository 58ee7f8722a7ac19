"""Aliases in the journal: a line for each change of who is champion, challenger and former, whoever made it.

What Evergreen changes is written down at the end of the change. What a person changed in MLflow, or a killed run left,
is written down by whoever looks next. So the newest of these lines says which version each alias names, and the
registry's can be set by it again. A promotion leaves the journal's signed head with the version in MLflow, which
whoever writes to var/ alone cannot change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.ground.errors import RegistryDamaged
from tasks.journal import journal, signing
from tasks.journal.journal import Kind
from tasks.release.registry.mlflow_store import connect, with_retries
from tasks.release.registry.model_state import WITHDRAWN, ModelState, read_state

if TYPE_CHECKING:
    from mlflow import MlflowClient

KINDS: tuple[Kind, ...] = ("registered", "promotion", "rollback", "withdrawal", "alias")
ALIASES = ("champion", "challenger", "former")
HEAD = "evergreen.journal_head"
"""A version's tag: the head of the model's chain when it was promoted."""

Named = dict[str, dict[str, Any]]
"""Alias → version and candidate."""

BY_HAND = "moved in MLflow, or by a run that was killed"


@contextmanager
def changing(model: str, kind: Kind, **what: Any) -> Iterator[tuple[MlflowClient, ModelState]]:
    """The store and a model's entry, to change its aliases; the journal says what became of them."""
    with connect(alone_for=model) as client:
        now = read_state(client, model)
        _note(now, "alias", BY_HAND)
        yield client, now
        after = read_state(client, model)
        if _note(after, kind, _why(after, kind, now), **what) and kind == "promotion" and after.stored:
            head = json.dumps(journal.signed_head(model))
            client.set_model_version_tag(model, str(after.stored.number), HEAD, head)


def _why(after: ModelState, kind: Kind, before: ModelState) -> str:
    """Why a version was withdrawn, as its tag says."""
    withdrawn = after.versions.get(before.stored.number) if before.stored else None
    return (withdrawn.tags.get(WITHDRAWN, "") if withdrawn else "") if kind in {"rollback", "withdrawal"} else ""


def _note(now: ModelState, kind: Kind, why: str, **what: Any) -> bool:
    """Write down what the aliases name, if that is not the newest line; gives whether it was written."""
    aliases, last = _named(now), journal.last(now.model, *KINDS)
    if aliases == (last.what["aliases"] if last else {}):
        return False
    about = aliases.get("challenger" if kind == "registered" else "champion", {})
    why = why if last or kind != "alias" else "as they were when the journal began"
    journal.append(now.model, kind, {**about, **what, "aliases": aliases}, why)
    return True


def _named(now: ModelState) -> Named:
    return {
        alias: {"version": now.aliases[alias], "candidate": version.candidate if version else ""}
        for alias in ALIASES
        if alias in now.aliases
        for version in [now.versions.get(now.aliases[alias])]
    }


@with_retries
def look(model: str) -> None:
    """Have the journal say what another hand has changed."""
    with changing(model, "alias"):
        pass


@with_retries
def pinned(model: str) -> list[dict[str, Any]]:
    """The journal's heads that promotions have left in MLflow, without their signatures.

    Raises:
        RegistryDamaged: one was edited there.
    """
    with connect() as client:
        versions = read_state(client, model).versions.values()
    heads = {str(version): version.tags[HEAD] for version in versions if HEAD in version.tags}
    return [_parsed(text, version) for version, text in heads.items()]


def _parsed(text: str, version: str) -> dict[str, Any]:
    try:
        head = json.loads(text)
        whole = signing.parse(signing.canonical(head), head["key"])
    except (ValueError, LookupError, TypeError):
        whole = None
    if whole is None:
        raise RegistryDamaged(f"the tag {HEAD} of {version} was edited in MLflow: its signature is not right")
    return whole


# ── set by the journal again ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class AliasDifference:
    """An alias that does not name in MLflow what the journal says."""

    model: str
    alias: str
    journal: str
    registry: str

    def __str__(self) -> str:
        return f"{self.model}: {self.alias} is {self.registry} in MLflow, and {self.journal} by the journal"


@with_retries
def differences(model: str) -> list[AliasDifference]:
    """Which aliases do not name what the journal says; empty where the journal has no line of them."""
    with connect() as client:
        return _differences(read_state(client, model))


def _differences(now: ModelState) -> list[AliasDifference]:
    last = journal.last(now.model, *KINDS)
    stored, written = _named(now), last.what["aliases"] if last else _named(now)
    return [
        AliasDifference(now.model, alias, _in_words(written.get(alias)), _in_words(stored.get(alias)))
        for alias in ALIASES
        if written.get(alias) != stored.get(alias)
    ]


def _in_words(named: Mapping[str, Any] | None) -> str:
    return f"version {named['version']} (candidate {named['candidate']})" if named else "none"


@with_retries
def put_right(model: str) -> list[AliasDifference]:
    """Set the aliases in MLflow to what the journal says; gives what was set.

    Raises:
        RegistryDamaged: a version that the journal names is not in MLflow any more. Nothing was changed.
    """
    with connect(alone_for=model) as client:
        now = read_state(client, model)
        wrong, last = _differences(now), journal.last(model, *KINDS)
        wanted: Named = last.what["aliases"] if last else {}
        numbers = {each.alias: _number(now, wanted[each.alias]) for each in wrong if each.alias in wanted}
        for each in wrong:
            if each.alias in numbers:
                client.set_registered_model_alias(model, each.alias, str(numbers[each.alias]))
            else:
                client.delete_registered_model_alias(model, each.alias)
        _note(read_state(client, model), "alias", "put right by the journal")
        return wrong


def _number(now: ModelState, named: Mapping[str, Any]) -> int:
    """The version that the journal names, by its candidate where its number is another one's now."""
    version = now.versions.get(named["version"])
    if version is None or version.candidate != named["candidate"]:
        version = now.of_candidate(named["candidate"])
    if version is None:
        raise RegistryDamaged(
            f"{now.model}: {_in_words(named)} is not in MLflow any more, so no alias can name it. Nothing was changed. "
            f"Restore MLflow's store from a backup (docs/how-to/back-up-and-move.md)"
        )
    return version.number

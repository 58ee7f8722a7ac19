"""Which rules decide: the journal says it from the first decision on that they make."""

from __future__ import annotations

from tasks.ground import files, params
from tasks.journal import journal
from tasks.release.policy import promotion


def note(model: str) -> None:
    """Write down that other rules than before are about to act: hashes of promotion.yaml and of the model's section."""
    path, section = promotion.path(), params.load().model(model).model_dump(mode="json")
    now = {"promotion": files.sha256(path) if path.exists() else "", "section": files.digest(section)}
    last = journal.last(model, "policy")
    if last is None or last.what != now:
        journal.append(model, "policy", now)

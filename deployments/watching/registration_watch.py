"""Has the Prefect server know what params.yaml names, also when that changes while the platform is up.

A model that is new is registered at once and trained; one that is gone loses its deployments after a minute, as a
params.yaml may be half edited or another commit's for a moment. What somebody deleted on the server comes again: to
stop a flow, pause it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from deployments.orchestration import registration
from deployments.watching.backoff import Backoff
from flows.prefect_support import api, triggers
from tasks.ground import params, settings
from tasks.ground.errors import WorldError

GONE_SECONDS = 60.0
"""A model is not in params.yaml for so long before its deployments go."""


@dataclass
class Registration:
    """What it has seen lacking, and since when."""

    register: Callable[..., list[str]] = field(default_factory=lambda: _register)
    clock: Callable[[], float] = time.monotonic
    backoff: Backoff = field(init=False)
    gone: dict[str, float] = field(default_factory=dict)
    """Title → since when its model is not in params.yaml."""

    def __post_init__(self) -> None:
        self.backoff = Backoff(self.clock)

    def look(self, said: params.Params) -> Iterator[str]:
        """Look once; gives a line for each thing that was done.

        Raises:
            PrefectApiError: the Prefect server does not answer.
            WorldError: what is lacking could not be registered.
        """
        others = registration.others(said)
        self.gone = {title: since for title, since in self.gone.items() if title in others}
        if fresh := sorted(others.keys() - self.gone.keys()):
            self.gone |= dict.fromkeys(fresh, self.clock())
            yield f"params.yaml has no model of {', '.join(fresh)} any more: removed in {GONE_SECONDS:.0f} s"
        is_over = bool(self.gone) and all(self.clock() - since >= GONE_SECONDS for since in self.gone.values())
        lacking = registration.lacking(said)
        cause = (*lacking, registration.fingerprint(said), is_over)
        if registration.is_registered(said) and not lacking and not is_over:
            return
        if not self.backoff.is_due(cause):
            return
        self.backoff.acted(cause)
        if lacking:
            yield f"the Prefect server lacks {', '.join(lacking)}: registered"
        yield from self.register(keep=not is_over)
        yield from _train(said, lacking)


def _train(said: params.Params, lacking: list[str]) -> Iterator[str]:
    """Whose deployment was lacking may never have been trained; otherwise there is nothing to do."""
    for model in said.models:
        if f"deployment train/{model}" in lacking:
            run = triggers.trigger(f"train/{model}", {"model": model, "again": False, "if_due": True})
            if run:
                yield f"train/{model} is woken, {api.run_url(run)}"


def _register(*, keep: bool) -> list[str]:
    """In a process of its own: Prefect, which it imports, is large."""
    command = [sys.executable, "-m", "deployments.orchestration.registration", *(["--keep"] if keep else [])]
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip().splitlines() or ["no reason given"]
        raise WorldError(f"what is lacking could not be registered: {why[-1]}")
    return done.stdout.splitlines()

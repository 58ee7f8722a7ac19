"""Watch on registrations: the Prefect server is to have what params.yaml names, also when that changes meanwhile.

A new model is registered and trained at once. A model that is gone loses its deployments after a minute, as params.yaml
may be half edited, or another commit's for a moment. What somebody deleted on the server is made again: to stop a flow,
pause it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from deployments.orchestration import registration
from deployments.watching.backoff import Backoff
from flows.prefect_support import api, triggers
from tasks.ground import params, settings
from tasks.ground.errors import WorldError

GONE_SECONDS = 60.0  # how long a model is missing from params.yaml before its deployments are removed


class RegistrationWatch:
    """What it has seen missing, and since when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.backoff = clock, Backoff(clock)
        self.gone: dict[str, float] = {}  # title → since when its model is not in params.yaml

    def look(self, config: params.Params) -> Iterator[str]:
        """Look once; gives a line for each thing that was done."""
        others = registration.others(config)
        self.gone = {title: since for title, since in self.gone.items() if title in others}
        if fresh := sorted(others.keys() - self.gone.keys()):
            self.gone |= dict.fromkeys(fresh, self.clock())
            yield f"params.yaml has no model of {', '.join(fresh)} any more: removed in {GONE_SECONDS:.0f} s"
        is_over = bool(self.gone) and all(self.clock() - since >= GONE_SECONDS for since in self.gone.values())
        lacking = registration.lacking(config)
        cause = (*lacking, registration.fingerprint(config), is_over)
        is_complete = registration.is_registered(config) and not lacking and not is_over
        if is_complete or not self.backoff.is_due(cause):
            return
        self.backoff.acted(cause)
        if lacking:
            yield f"the Prefect server lacks {', '.join(lacking)}: registered"
        yield from register(keep=not is_over)
        yield from _train(config, lacking)


def _train(config: params.Params, lacking: list[str]) -> Iterator[str]:
    """Trigger the training of models whose deployment was missing: they may never have been trained."""
    for model in config.models:
        if f"deployment train/{model}" not in lacking:
            continue
        if run := triggers.trigger(f"train/{model}", {"model": model, "again": False, "if_due": True}):
            yield f"train/{model} is triggered, {api.run_url(run)}"


def register(*, keep: bool) -> list[str]:
    """In a process of its own: Prefect, which it imports, is large."""
    command = [sys.executable, "-m", "deployments.orchestration.registration", *(["--keep"] if keep else [])]
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no reason given"]
        raise WorldError(f"the registration failed: {reason[-1]}")
    return done.stdout.splitlines()

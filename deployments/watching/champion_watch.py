"""Watch on champions: triggers a rollout as long as a model's champion is not the live release, or cannot start.

A promotion by a flow triggers it by an event; an alias that was set in MLflow's UI and a rollback do not, nor does a
release whose files are gone, so that its replica no longer starts. That a rollout was triggered is no proof that the
champion serves: a trigger may be lost, and a rollout may be killed. So the watch goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from deployments.watching.backoff import Backoff
from flows.prefect_support import api, triggers
from tasks.ground import params
from tasks.ground.errors import WorldError
from tasks.release.registry import champion_lookup, desired_state
from tasks.release.rollout import router_client


@dataclass
class ChampionWatch:
    """The rollouts it has triggered."""

    under_way: Callable[[str], bool] = triggers.under_way
    clock: Callable[[], float] = time.monotonic
    triggered: dict[str, Backoff] = field(default_factory=dict)

    def look(self, config: params.Params) -> Iterator[str]:
        """Look once; gives a line for each rollout that is triggered. One that cannot be stops no other."""
        errors = []
        for model in config.models:
            try:
                yield from self._look(model)
            except api.PrefectApiError:
                raise
            except WorldError as error:
                errors.append(str(error))
        if errors:
            raise WorldError("; ".join(errors))

    def _look(self, model: str) -> Iterator[str]:
        cause, news = _cause(model)
        if cause is None:
            self.triggered.pop(model, None)
            return
        title = f"rollout/{model}"
        backoff = self.triggered.setdefault(model, Backoff(self.clock))
        if not backoff.is_due(cause) or self.under_way(title):
            return
        try:
            run = triggers.require(title)
        except api.PrefectApiError:
            raise
        except WorldError as error:
            raise WorldError(f"{news}: {error}") from None
        again = " again" if backoff.acted(cause) else ""
        yield f"{news}: {title} is triggered{again}, {api.run_url(run)}"


def _cause(model: str) -> tuple[tuple[str, str | None] | None, str]:
    """Why a rollout is needed: the release concerned and what else tells this cause from another; and in words."""
    if change := champion_lookup.pending_change(model):
        return change, f"{change[0]} is champion of {model} and does not serve"
    if fault := _live_fault(model):
        return fault, f"{fault[0]} is the live release of {model} and does not start ({fault[1]})"
    return None, ""


def _live_fault(model: str) -> tuple[str, str] | None:
    """The live release and why its replica does not start. Where no router answers, others report that."""
    live = desired_state.read(model).live
    if live is None:
        return None
    with router_client.RouterClient(patience=0) as router, suppress(router_client.RouterSilent):
        if fault := router.fault(model, live.candidate):
            return live.candidate, fault
    return None

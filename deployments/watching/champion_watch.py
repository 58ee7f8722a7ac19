"""Looks every few seconds whether the champion serves, and wakes rollout as long as another release does, or none can.

A promotion by a flow wakes it by an event; an alias that was set in MLflow's UI and a rollback tell nobody, nor does a
release whose files are gone, so that its replica does not start any more. That rollout was woken is no proof that the
champion serves: a wake gets lost, a rollout ends without its end. So the look goes on.
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
    """What it has woken rollout for."""

    under_way: Callable[[str], bool]
    """Whether a run of a deployment (flow/name) is due, starting or running."""
    clock: Callable[[], float] = time.monotonic
    woken: dict[str, Backoff] = field(default_factory=dict)

    def look(self, said: params.Params) -> Iterator[str]:
        """Look once; gives a line for each flow that is woken.

        Raises:
            PrefectApiError: the Prefect server does not answer.
            WorldError: a flow cannot be woken; the other models' were.
        """
        troubles = []
        for model in said.models:
            try:
                yield from self._look(model)
            except api.PrefectApiError:
                raise
            except WorldError as error:
                troubles.append(str(error))
        if troubles:
            raise WorldError("; ".join(troubles))

    def _look(self, model: str) -> Iterator[str]:
        change, title = champion_lookup.pending_change(model), f"rollout/{model}"
        news = f"{change[0]} is champion of {model} and does not serve" if change else ""
        if change is None and (change := _broken(model)):
            news = f"{change[0]} is to serve {model}, but does not start ({change[1]})"
        if change is None:
            self.woken.pop(model, None)
            return
        backoff = self.woken.setdefault(model, Backoff(self.clock))
        if not backoff.is_due(change) or self.under_way(title):
            return
        try:
            run = triggers.trigger(title)
        except triggers.DeploymentPaused as error:
            raise WorldError(f"{news}: {error}") from None
        if run is None:
            raise WorldError(
                f"{news}: the Prefect server knows no {title} yet. `make up` registers it, as does `evergreen register`"
            )
        again = " again" if backoff.acted(change) else ""
        yield f"{news}: {title} is woken{again}, {api.run_url(run)}"


def _broken(model: str) -> tuple[str, str] | None:
    """Who is to serve and does not start, and why. Where no router answers, that is told elsewhere."""
    live = desired_state.read(model).live
    if live is None:
        return None
    with router_client.RouterClient(patience=0) as router, suppress(router_client.RouterSilent):
        if why := router.fault(model, live.candidate):
            return live.candidate, why
    return None

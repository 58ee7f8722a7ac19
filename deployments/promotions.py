"""Who looks every few seconds whether the champion serves, and wakes deploy where somebody else does, or nobody can.

A promotion by a flow wakes it by an event; an alias that was set in MLflow's UI and a rollback tell nobody, nor does a
release whose files are gone, so that its replica does not start any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from flows import api, wakes
from tasks import params
from tasks.release import asking, champion, serving


@dataclass
class Promotions:
    """What it has woken deploy for."""

    under_way: Callable[[str], bool]
    """Whether a run of a deployment (flow/name) is due, starting or running."""
    woken: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Model → the champion, and who served. Once for each pair: what a run could not do, the schedule tries again."""

    def look(self, said: params.Params) -> Iterator[str]:
        """Look once; gives a line for each flow that is woken.

        Raises:
            ApiSilent: the Prefect server does not answer.
        """
        for model in said.models:
            change = champion.change(model)
            news = f"{change[0]} is champion of {model}" if change else ""
            if change is None and (change := _broken(model)):
                news = f"{change[0]} is to serve {model}, but does not start ({change[1]})"
            if change is None:
                self.woken.pop(model, None)
            elif change != self.woken.get(model) and not self.under_way(f"deploy/{model}"):
                run = wakes.wake(f"deploy/{model}")
                self.woken[model] = change
                if run:
                    yield f"{news}: deploy/{model} is woken, {api.run_url(run)}"


def _broken(model: str) -> tuple[str, str] | None:
    """Who is to serve and does not start, and why. Where no router answers, that is told elsewhere."""
    live = serving.read(model).live
    if live is None:
        return None
    with asking.Router(patience=0) as router, suppress(asking.RouterSilent):
        if why := router.fault(model, live.candidate):
            return live.candidate, why
    return None

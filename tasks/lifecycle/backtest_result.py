"""What a backtest is asked, and what came of every policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from tasks.ground import numbers, params
from tasks.lifecycle import backtest_history

if TYPE_CHECKING:
    from tasks.lifecycle.policy_simulator import PolicyOutcome

Policy = Literal["never", "always", "monthly", "drift", "quality", "configured"]
EVERY: tuple[Policy, ...] = ("never", "always", "monthly", "drift", "quality", "configured")


@dataclass(frozen=True)
class BacktestRequest:
    """Which history, and which policies."""

    source: backtest_history.Source = "data"
    since: date | None = None
    until: date | None = None
    policies: tuple[Policy, ...] = EVERY
    configured: params.Retrain | None = None
    """In place of the one in params.yaml."""


@dataclass(frozen=True)
class BacktestResult:
    """What became of every policy of a model."""

    name: str
    loss: str
    """The loss that is compared: the gate's."""
    configured: params.Retrain
    replays: tuple[PolicyOutcome, ...]

    def of(self, policy: str) -> PolicyOutcome | None:
        """The replay of a policy, if it was asked for."""
        return next((replay for replay in self.replays if replay.policy == policy), None)

    def kept(self, replay: PolicyOutcome) -> float | None:
        """The share of the gain in loss, of «always» over «never», that a policy keeps; None without these two."""
        never, always = self.of("never"), self.of("always")
        if never is None or always is None or never.mean_loss == always.mean_loss:
            return None
        return (never.mean_loss - replay.mean_loss) / (never.mean_loss - always.mean_loss)

    def summary(self) -> dict[str, Any]:
        """The table, as JSON values; equal ledgers give equal summaries."""
        return {
            replay.policy: {
                "loss": numbers.short(replay.mean_loss),
                "regret": numbers.short(replay.regret, of=replay.mean_loss),
                "gain_kept": None if (kept := self.kept(replay)) is None else round(kept, 4),
                **{what: replay.count(what) for what in ("trained", "promoted", "refused", "alarms")},
            }
            for replay in self.replays
        }

    def sentence(self) -> str:
        """The result, as briefly as can be."""
        chosen = self.of("configured") or self.replays[-1]
        kept, always = self.kept(chosen), self.of("always")
        gain = f", {kept:.0%} of what «always» gains over «never»" if kept is not None else ""
        trained = f"{chosen.count('trained')} trainings" + (f" of {always.count('trained')}" if always else "")
        return f"{self.name}: «{chosen.policy}» has a {self.loss} of {chosen.mean_loss:.4f}{gain}, with {trained}"

"""A retrain policy in virtual time: asked every week, it trains or does not, and what it promotes serves the next one.

What decides is what decides in earnest: `tasks.monitoring.retrain_policy.decide`, and `tasks.release.gate.gate.judge` on the holdout
of the moment, champion against challenger. Only what asks for a packaged release, its latency and its size, cannot be
replayed: these two checks are left out, and every other one counts.

Each decision is a line of the ledger, «no» as well. The same history gives the same ledger, byte for byte: it holds no
clock but the virtual one. What a policy cost in CPU seconds stands beside it, not in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, import_closure, numbers, params, settings
from tasks.ground.errors import DataMissing
from tasks.lifecycle.backtest_history import WEEK, Fit, History, Moment
from tasks.modelling import metrics
from tasks.monitoring import retrain_policy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from tasks.release.gate.gate import Contender
    from tasks.release.gate.verdict import Verdict

    Floats = npt.NDArray[np.float64]
    DriftDetector = Callable[[Fit, pd.DataFrame, pd.DataFrame], Sequence[retrain_policy.OpenAlarm]]
    """A champion, the rows that it learned from, and all that came since → the alarms that are open."""

NOT_REPLAYED = frozenset({"latency", "size"})
"""Checks of the gate that ask for a packaged release."""

STANDARD: dict[str, params.Retrain] = {
    "never": params.Retrain(when=[]),
    "always": params.Retrain(when=[params.When(new_rows=1)]),
    "monthly": params.Retrain(when=[params.When(months=1)]),
    "drift": params.Retrain(when=[params.When(drift=0.2)]),
    "quality": params.Retrain(when=[params.When(measured_loss=0)]),
}
"""What the configured policy is held against."""


@dataclass(frozen=True)
class PolicyOutcome:
    """What became of a policy."""

    policy: str
    ledger: tuple[dict[str, Any], ...]
    """A record per moment."""
    loss: Floats
    """The mean loss of the champion on the rows that it served after each moment: shape (moments,)."""
    best: Floats
    """The same of the best of all models that could have been there, in hindsight."""
    rows: npt.NDArray[np.int64]
    """How many rows were served."""
    seconds: float
    """CPU seconds of its trainings and of judging them."""

    def count(self, what: str) -> int:
        """How often: `trained`, `promoted`, `refused`; or how many `alarms` were raised."""
        return sum(int(line[what]) for line in self.ledger)

    @property
    def mean_loss(self) -> float:
        """Over every row that was served."""
        return float((self.loss * self.rows).sum() / self.rows.sum())

    @property
    def regret(self) -> float:
        """How much better, per row, it would have been to have the best model of each week."""
        return float(((self.loss - self.best) * self.rows).sum() / self.rows.sum())


@dataclass(frozen=True)
class Simulator:
    """A history, the model of each moment, and who looks for drift: what every policy has in common."""

    history: History
    fits: Sequence[Fit]
    drifted: DriftDetector
    _verdicts: dict[tuple[int, int], tuple[Verdict, float]] = field(default_factory=dict)
    _alarms: dict[tuple[int, int], tuple[retrain_policy.OpenAlarm, ...]] = field(default_factory=dict)

    def replay(self, name: str, said: params.Retrain) -> PolicyOutcome:
        """Live through the history under a policy.

        Raises:
            DataMissing: the first candidate was refused, so that there is no champion to begin with.
        """
        return _PolicyRun(self, name, said).lived()

    # what the models answer

    @cached_property
    def losses(self) -> list[Floats]:
        """The loss of each row by the model of each moment; nan where it was not asked. Shape (rows,) each."""
        return [self._losses(fit) for fit in self.fits]

    def _losses(self, fit: Fit) -> Floats:
        import numpy as np
        import pandas as pd

        rows, model = self.history.rows, self.history.model
        answers = pd.read_parquet(fit.answers)
        at = answers.pop("at").to_numpy()
        losses = np.full(len(rows), np.nan)
        losses[at] = metrics.losses(model.gate.loss, rows["label"].to_numpy()[at], answers)
        return losses

    def quality(self, fit: int, members: npt.NDArray[np.int64]) -> retrain_policy.MeanLoss | None:
        """The loss of a model on some rows, with its interval over days; None where there are no rows."""
        if not len(members):
            return None
        said = self.history.model
        times = self.history.rows["time"].iloc[members]
        return retrain_policy.MeanLoss.of(
            self.losses[fit][members], times, said.evaluate.resamples, said.gate.confidence
        )

    def estimate(self, moment: Moment, fit: int, since: int) -> retrain_policy.MeanLoss | None:
        """The loss of who serves since a position, on the newest week and before its labels come, as weeks.py tells it.

        How far off the estimates of earlier releases were is not known here: the interval is wider for that.
        """
        from tasks.monitoring.quality import quality, weekly

        model, times = self.history.model, self.history.rows["time"]
        asked = moment.served[0]
        week = times.iloc[asked - 1] - WEEK
        begin = max(since, int(times.searchsorted(week, side="right")))
        first = max(since, int(times.searchsorted(week - weekly.EARLIER * WEEK, side="right")))
        labelled, rows = _span(first, min(begin, moment.known)), self._answered(fit, _span(begin, asked))
        if rows.empty:
            return None
        holdout = self._answered(fit, self.history.in_holdout(self.history.moments[fit]).nonzero()[0])
        earlier = self._answered(fit, labelled) if len(labelled) else None
        estimator = quality.LossEstimator.fit(
            model.task, model.gate.loss, holdout, earlier, confidence=model.gate.confidence
        )
        if (found := estimator.estimate(rows)) is None:
            return None
        begun, until = rows["time"].min().to_pydatetime(), rows["time"].max().to_pydatetime()
        return retrain_policy.MeanLoss(found.value, found.low, found.high, 0, begun, until)

    def _answered(self, fit: int, members: npt.NDArray[np.int64]) -> pd.DataFrame:
        import pandas as pd

        answers = pd.read_parquet(self.fits[fit].answers).set_index("at").loc[members].reset_index(drop=True)
        return self.history.rows[["time", "label"]].iloc[members].reset_index(drop=True).join(answers)

    def served(self, moment: Moment, fit: int) -> float:
        """The mean loss of a model on the rows that are served after a moment."""
        begin, end = moment.served
        return float(self.losses[fit][begin:end].mean())

    # who looks at them

    def alarms(self, moment: Moment, champion: int) -> tuple[retrain_policy.OpenAlarm, ...]:
        """What drifts in the rows that came since a champion was trained, against those that it learned from."""
        if (moment.number, champion) not in self._alarms:
            made = self.history.moments[champion]
            learned = self.history.rows.iloc[: made.known][~self.history.in_holdout(made)]
            since = self.history.rows.iloc[made.known : moment.known]
            found = tuple(self.drifted(self.fits[champion], learned, since)) if len(since) else ()
            self._alarms[moment.number, champion] = found
        return self._alarms[moment.number, champion]

    def verdict(self, moment: Moment, champion: int | None) -> tuple[Verdict, float]:
        """What the gate says of the model of a moment, and the CPU seconds that it took."""
        who = (moment.number, -1 if champion is None else champion)
        if who not in self._verdicts:
            self._verdicts[who] = self._judged(moment, champion)
        return self._verdicts[who]

    def _judged(self, moment: Moment, champion: int | None) -> tuple[Verdict, float]:
        from tasks.release.gate.verdict import Verdict

        model = self.history.model
        key = {
            "challenger": self.fits[moment.number].answers.name,
            "champion": None if champion is None else self.fits[champion].answers.name,
            "moment": moment.at.isoformat(),
            "data": self.history.version(moment),
            "rule": model.gate.model_dump(),
            "evaluate": model.evaluate.model_dump(),
            "split": [model.split.model_dump(), self.history.holdout_weeks],
            "code": self._gate_code,
        }
        path = files.memo("backtest/verdicts", key, ".json", partial(self._judge, moment, champion))
        said = files.read_json(path)
        return Verdict.from_json(said["verdict"]), said["seconds"]

    @cached_property
    def _gate_code(self) -> dict[str, str]:
        """The identity of the code that judges; of params.py, what it says stands in the key by value."""
        code = import_closure.closure(settings.ROOT / "tasks" / "release" / "gate" / "gate.py", settings.ROOT)
        return {p.relative_to(settings.ROOT).as_posix(): files.sha256(p) for p in code if p.name != "params.py"}

    def _judge(self, moment: Moment, champion: int | None, target: Path) -> None:
        from tasks.release.gate import gate

        begin = time.process_time()
        history, model = self.history, self.history.model
        held = history.in_holdout(moment).nonzero()[0]
        columns = ["id", "time", "label", *model.evaluate.slices]
        case = gate.Comparison(
            model=history.name,
            task=model.task,
            holdout=history.rows[columns].iloc[held].reset_index(drop=True),
            slices=tuple(model.evaluate.slices),
            challenger=self._side(moment.number, held),
            champion=None if champion is None else self._side(champion, held),
            baseline=metrics.baseline_predictions(self.fits[moment.number].training, len(held)),
            champion_age=None if champion is None else self.age(moment, champion),
            split=model.split.by,
        )
        verdict = gate.judge(case, model.gate, resamples=model.evaluate.resamples)
        files.write_json(target, {"verdict": verdict.to_json(), "seconds": time.process_time() - begin})

    def _side(self, fit: int, held: npt.NDArray[np.int64]) -> Contender:
        import pandas as pd

        from tasks.release.gate import gate

        history, moment = self.history, self.history.moments[fit]
        learned = history.hashes[: moment.known][~history.in_holdout(moment)]
        answers = pd.read_parquet(self.fits[fit].answers).set_index("at")
        features = {name: feature.model_dump() for name, feature in history.model.features.items()}
        return gate.Contender(self.fits[fit].key[:16], answers.loc[held].reset_index(drop=True), learned, features)

    def age(self, moment: Moment, champion: int) -> int:
        """How many weeks are newer than what the champion learned from."""
        until = self.fits[champion].learned_until
        times = self.history.rows["time"]
        return sum(1 for week in self.history.weeks[: moment.weeks] if times.iloc[week.begin] > until)


@dataclass
class _PolicyRun:
    """Who is champion, and what was last trained, as time goes by under one policy."""

    world: Simulator
    name: str
    said: params.Retrain
    champion: int | None = None
    promoted: Moment | None = None
    trained: Moment | None = None
    open: frozenset[str] = frozenset()
    """The alarms of the moment before."""
    seconds: float = 0.0

    def lived(self) -> PolicyOutcome:
        import numpy as np

        moments = [moment for moment in self.world.history.moments if moment.served[0] < moment.served[1]]
        ledger, loss, best = [], [], []
        for moment in moments:
            line = self.at(moment)
            if self.champion is None:
                raise DataMissing(
                    f"{self.world.history.name}: the gate refuses the first candidate, of {moment.at:%Y-%m-%d}: "
                    f"{line['verdict']['summary']}. There is no champion to begin with: begin the backtest later."
                )
            available = [self.world.served(moment, fit) for fit in range(moment.number + 1)]
            loss.append(available[self.champion])
            best.append(min(available))
            count = moment.served[1] - moment.served[0]
            ledger.append(
                {
                    **line,
                    "served": {"rows": count, "loss": numbers.short(loss[-1]), "best": numbers.short(best[-1])},
                }
            )
        rows = np.array([moment.served[1] - moment.served[0] for moment in moments])
        return PolicyOutcome(self.name, tuple(ledger), np.array(loss), np.array(best), rows, self.seconds)

    def at(self, moment: Moment) -> dict[str, Any]:
        """Decide, and do it; gives the line of the ledger."""
        state = self.state(moment)
        drifting = frozenset(alarm.key for alarm in state.alarms)
        raised, self.open = len(drifting - self.open), drifting
        decision = retrain_policy.decide(state, self.said)
        verdict = self.train(moment) if decision.retrain else None
        passed = verdict is not None and verdict["promoted"]
        return {
            "policy": self.name,
            "at": moment.at.isoformat(),
            "decision": decision.to_dict(),
            "trained": decision.retrain,
            "verdict": verdict,
            "promoted": passed,
            "refused": verdict is not None and not passed,
            "alarms": raised,
            "champion": None if self.champion is None else self.world.fits[self.champion].key[:16],
        }

    def train(self, moment: Moment) -> dict[str, Any]:
        """A candidate, its verdict, and who is champion then."""
        verdict, seconds = self.world.verdict(moment, self.champion)
        self.seconds += seconds + self.world.fits[moment.number].seconds
        failed = [check for check in verdict.checks if not check.passed and check.name not in NOT_REPLAYED]
        asked = next((check for check in verdict.checks if check.name == "improvement"), None)
        self.trained = moment
        if not failed:
            self.champion, self.promoted = moment.number, moment
            self.open = frozenset()  # the new champion is its own reference
        return {
            "candidate": verdict.challenger,
            "champion": verdict.champion,
            "promoted": not failed,
            "improvement": None if asked is None else {"value": asked.value, "interval": asked.interval},
            "failed": [check.name for check in failed],
            "summary": "; ".join(f"{check.name}: {check.reason}" for check in failed[:3]) or "every check passed",
        }

    def state(self, moment: Moment) -> retrain_policy.PolicyState:
        """What is known at a moment: plain facts, none from later."""
        history, world = self.world.history, self.world
        trained = self.trained
        state = retrain_policy.PolicyState(
            model=history.name,
            now=moment.at,
            data_version=history.version(moment),
            trained_at=trained.at if trained else None,
            trained_on=history.version(trained) if trained else None,
            new_rows=moment.known - (trained.known if trained else 0),
            new_partitions=moment.weeks - (trained.weeks if trained else 0),
        )
        if self.champion is None or self.promoted is None:
            return state
        from dataclasses import replace

        made, since = history.moments[self.champion], self.promoted.served[0]
        estimated = any(when.estimated_loss is not None for when in self.said.when)
        return replace(
            state,
            learned_until=world.fits[self.champion].learned_until,
            learned_rows=world.fits[self.champion].training["rows"],
            newer_rows=moment.known - made.known,
            newer_partitions=world.age(moment, self.champion),
            alarms=world.alarms(moment, self.champion),
            promised=world.quality(self.champion, history.in_holdout(made).nonzero()[0]),
            measured=world.quality(self.champion, _span(self.window(moment, since), moment.known)),
            estimated=world.estimate(moment, self.champion, since) if estimated else None,
        )

    def window(self, moment: Moment, since: int) -> int:
        """Where the newest policy.WINDOW_DAYS begin, or what came since a position if that is less."""
        from datetime import timedelta

        times = self.world.history.rows["time"]
        return max(
            since,
            int(
                times.searchsorted(
                    times.iloc[moment.known - 1] - timedelta(days=retrain_policy.WINDOW_DAYS), side="right"
                )
            ),
        )


def _span(begin: int, end: int) -> npt.NDArray[np.int64]:
    import numpy as np

    return np.arange(begin, max(begin, end), dtype=np.int64)


def ledger_text(replays: Sequence[PolicyOutcome]) -> str:
    """The ledger of all policies as JSON lines."""
    lines = (
        json.dumps(line, sort_keys=True, ensure_ascii=False, allow_nan=False) for r in replays for line in r.ledger
    )
    return "".join(f"{line}\n" for line in lines)

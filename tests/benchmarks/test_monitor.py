"""The gate on real flights: fewer and smaller trials than `python -m benchmarks.monitor`, the same code."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks import monitor
from tasks.ground import settings
from tasks.monitoring.quality import quality


@pytest.fixture(scope="module", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Memos of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "VAR", tmp_path_factory.mktemp("var"))
        yield


@pytest.mark.long
def test_models_that_differ_by_seed_only_are_hardly_ever_promoted() -> None:
    """Of 20 pairs that learned from the same 5,000 rows, at most two are promoted."""
    judged = [monitor.judge(trial) for trial in monitor.pairs([6], seeds=20, learned=5_000)]
    assert len({j.trial.challenger for j in judged}) == len({j.difference for j in judged}) == 20
    assert sum(j.promoted for j in judged) <= 2  # 3 of 20 at 5 %: less than one time in ten


@pytest.mark.slow
def test_a_better_challenger_is_promoted_and_one_bad_slice_blocks_it() -> None:
    """Who knows the weather takes the place of one who does not; made worse in any one slice, it does not."""
    many, few = (monitor.Trained(kind, 6, 0, 20_000) for kind in (monitor.SAME, "knows no weather"))
    good = monitor.judge(monitor.Trial(many, few))
    assert good.promoted
    assert good.difference < -0.005
    assert len(good.slices) >= 8
    for name in good.slices:
        spoiled = monitor.judge(monitor.Trial(many, few, (name, 0.15)))
        assert not spoiled.promoted
        assert name in spoiled.failed


def test_days_are_drawn_again_whole() -> None:
    """A redrawn month has as many days as it had, of whole days of its own, and no row twice by name."""
    _, held_out = monitor.month(6)
    frame, at = monitor.redraw(held_out, 3)
    assert frame["time"].dt.normalize().nunique() == 30
    assert frame["id"].is_unique
    assert (frame["label"].to_numpy() == held_out["label"].to_numpy()[at]).all()
    was = held_out["time"].iloc[at].dt.day.to_numpy()
    assert all(len(set(was[frame["time"].dt.day == day])) == 1 for day in range(1, 31))
    sizes = held_out["time"].dt.day.value_counts()
    assert frame["time"].dt.day.value_counts().isin(sizes).all()


def test_a_slice_is_spoiled_by_as_much_as_is_said_and_nothing_else_is() -> None:
    """The loss of the slice is the champion's and so much more; every other row keeps its prediction."""
    _, held_out = monitor.month(9)
    rng = np.random.default_rng(0)
    champion, p = rng.uniform(0.1, 0.5, len(held_out)), rng.uniform(0.1, 0.5, len(held_out))
    changed = monitor.spoil(p, champion, held_out, "slice:origin=JFK", 0.1)
    inside = (held_out["origin"] == "JFK").to_numpy()
    assert (changed[~inside] == p[~inside]).all()
    frame = held_out[inside][["time", "label"]]
    losses = [
        quality.measure("classification", "log_loss", frame.assign(p_0=1 - q[inside], p_1=q[inside]), resamples=10)
        for q in (champion, changed)
    ]
    of = [measured.of_loss for measured in losses]
    assert of[0] is not None
    assert of[1] is not None
    assert of[1]["value"] - of[0]["value"] == pytest.approx(0.1, abs=1e-5)

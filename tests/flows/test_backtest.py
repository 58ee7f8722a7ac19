"""The backtest: nothing is known before its time, the real steps and gate decide, the same history has one ledger."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deployments import cli
from flows.backtest import backtest as backtest_flow
from tasks.ground import params, settings
from tasks.ground.errors import DataMissing, Mistake, ParamsError
from tasks.lifecycle import backtest, backtest_history, backtest_report, policy_simulator
from tasks.modelling import rows
from tasks.monitoring import retrain_policy
from tests.conftest import Project, copy_project, forget_models, work_on, write_readings
from tests.deployments.alone import server

MONTHS = 6
QUIET: policy_simulator.DriftDetector = lambda *_: ()  # noqa: E731 - a stand-in: nothing drifts


@pytest.fixture(scope="module")
def year(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a year of readings. From April on, every pump of the south fails."""
    root = copy_project(small_copied, tmp_path_factory.mktemp("backtest") / "project")
    for month in range(1, MONTHS + 1):
        path = write_readings(root, month)
        if month >= 4:
            turned = pd.read_csv(path)
            turned.loc[turned["station"] == "south", "failures"] = 1
            turned.to_csv(path, index=False)
    return root


@pytest.fixture
def project(year: Path, enter: Callable[[Path], Project]) -> Project:
    """The half year; what is computed in one test is there in the next."""
    return enter(year)


def lived() -> backtest_history.History:
    """The history of the readings."""
    return backtest_history.read("tiny", params.load())


def world(drifted: policy_simulator.DriftDetector = QUIET) -> policy_simulator.Simulator:
    """With every model that could have been."""
    past = lived()
    return policy_simulator.Simulator(
        past, [backtest_history.fit(training) for training in backtest_history.trainings(past)], drifted
    )


def ledger() -> bytes:
    """As it was written last."""
    return (settings.VAR / "backtest" / "tiny" / "ledger.jsonl").read_bytes()


def run(*policies: backtest.Policy, **asked: Any) -> backtest.BacktestResult:
    """A backtest in this process."""
    chosen = policies or ("never", "always", "monthly", "quality", "configured")
    return backtest.run(
        ["tiny"], params.load(), backtest.BacktestRequest(policies=chosen, **asked), jobs=1, tell=lambda _: None
    )[0]


@pytest.mark.long
def test_the_same_history_gives_the_same_ledger_byte_for_byte(project: Project) -> None:
    """With everything computed anew, and with everything remembered; and no clock is in it."""
    run()
    first = ledger()
    shutil.rmtree(settings.VAR / "memo" / "backtest")
    run()
    assert ledger() == first
    run()
    assert ledger() == first
    assert str(datetime.now().year) not in first.decode()
    for line in first.decode().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.slow
def test_nothing_that_comes_later_changes_what_was_decided(project: Project, tmp_path: Path) -> None:
    """In another future, every decision up to then is the same: no row and no label is known before its time."""
    run()
    before = [json.loads(line) for line in ledger().decode().splitlines()]
    other = shutil.copytree(project.root, tmp_path / "other", ignore=shutil.ignore_patterns("var"))
    readings = other / "data" / "readings" / "2013-06.csv"
    turned = pd.read_csv(readings)
    turned["failures"] = 1 - turned["failures"]
    turned["pressure"] += 1
    turned.to_csv(readings, index=False)
    with pytest.MonkeyPatch.context() as patch:
        work_on(other, patch)
        run()
        after = [json.loads(line) for line in ledger().decode().splitlines()]
    told = [(old, new) for old, new in zip(before, after, strict=True) if old["at"] < "2013-06-02"]
    assert len(told) > 20
    for old, new in told:
        served = {line.pop("served")["loss"] for line in (old, new)}  # of the week that follows: it may differ
        assert old == new
        assert served
    assert before != after


def test_a_label_is_known_a_day_later_and_the_newest_weeks_are_held_out(project: Project) -> None:
    """At every moment, for the rows that are learned from, held out, and served."""
    past = lived()
    times = past.rows["time"]
    trainings = backtest_history.trainings(past)
    assert [moment.at.weekday() for moment in past.moments] == [0] * len(past.moments)
    for moment, training in zip(past.moments, trainings, strict=True):
        known = times.iloc[: moment.known]
        assert known.max() < moment.at - timedelta(days=1)
        assert times.iloc[moment.known] >= moment.at - timedelta(days=1)
        learned = pd.concat([pd.read_parquet(path) for path in training.learn.values()])
        held = known[past.in_holdout(moment)]
        assert len(learned) + len(held) == moment.known
        assert learned["time"].max() < held.min()
        assert timedelta(days=21) < held.max() - held.min() < timedelta(days=28)
        begin, end = moment.served
        assert times.iloc[begin] >= moment.at
        assert times.iloc[end - 1] < moment.at + timedelta(days=7)
    assert (
        sum(end - begin for begin, end in (moment.served for moment in past.moments))
        == len(past.rows) - past.moments[0].served[0]
    )


def test_the_estimated_loss_can_be_asked_about(project: Project) -> None:
    """Of the newest week, as production tells it before labels come: of rows that the champion has answered."""
    told = world().run("estimated", params.Retrain(when=[params.When(estimated_loss=0.0)])).ledger
    states = [line["decision"]["state"] for line in told]
    assert states[0]["estimated"] is None  # it has answered nothing yet
    found = [state["estimated"] for state in states if state["estimated"]]
    assert len(found) > len(states) / 2
    for estimated in found:
        assert estimated["labels"] == 0
        assert estimated["low"] < estimated["loss"] < estimated["high"]
        window = [datetime.fromisoformat(estimated[side]) for side in ("since", "until")]
        assert timedelta(0) < window[1] - window[0] < timedelta(days=7)
    assert any("the estimated loss" in line["decision"]["why"] for line in told)


def test_what_is_trained_is_what_the_step_trains(project: Project) -> None:
    """The rows of the history are those that `prepare` lays down, and the model file is the one that `train` makes."""
    from tasks.ground import files, model_environment
    from tasks.training import prepare, train

    past = lived()
    model_environment.environment("tiny")
    readings = settings.ROOT / "data" / "readings"
    files.write_json(
        settings.BUILD / "tiny/partitions.json", {"readings": {f.name: files.md5(f) for f in readings.iterdir()}}
    )
    prepare.prepare("tiny")
    build = settings.BUILD / "tiny"
    every = pd.concat([rows.read(build, part) for part in ("train", "holdout")]).sort_values(["time", "id"])
    pd.testing.assert_frame_equal(every.reset_index(drop=True), past.rows)

    training = backtest_history.trainings(past)[3]
    fit = backtest_history.fit(training)
    learned = pd.concat([pd.read_parquet(path) for path in training.learn.values()])
    shutil.rmtree(build / "rows")
    (build / "rows").mkdir()
    learned.drop(columns="at").to_parquet(build / "rows" / "all.parquet", index=False)
    files.write_json(build / "split.json", {"by": "time", "train": ["all"], "holdout": []})
    train.train("tiny")
    remembered = settings.VAR / "memo" / "backtest" / "fits" / files.digest(fit.key)[:32] / "model.skops"
    assert remembered.read_bytes() == (build / "model" / "model.skops").read_bytes()
    shutil.rmtree(settings.BUILD)


def test_each_policy_trains_when_it_says_so(project: Project) -> None:
    """never: once; always: every week; monthly: when a month has begun. Every «no» has its reasons."""
    found = run()
    weeks = len(lived().moments)
    counts = {replay.policy: replay.count("trained") for replay in found.outcomes}
    assert counts["never"] == 1
    assert counts["always"] == weeks
    monthly = found.of("monthly")
    assert monthly is not None
    trained = [line["at"][:7] for line in monthly.ledger if line["trained"]]
    assert trained == sorted(set(trained))
    assert len(trained) == len({line["at"][:7] for line in monthly.ledger})
    for replay in found.outcomes:
        assert len(replay.ledger) == weeks
        assert replay.count("promoted") + replay.count("refused") == replay.count("trained")
        for line in replay.ledger:
            assert line["trained"] == line["decision"]["retrain"]
            assert line["decision"]["why"]
            assert (line["verdict"] is None) is not line["trained"]


def test_the_gate_decides_who_serves(project: Project) -> None:
    """A refused candidate never answers; a promoted one answers the very next week, and its loss is what is counted."""
    past = world()
    replay = past.run("always", policy_simulator.STANDARD["always"])
    champion = None
    for k, line in enumerate(replay.ledger):
        verdict = line["verdict"]
        assert verdict["champion"] == champion
        champion = verdict["candidate"] if verdict["promoted"] else champion
        assert line["champion"] == champion
        assert verdict["promoted"] is (not verdict["failed"])
        serving = next(fit for fit in past.fits if fit.key[:16] == champion)
        begin, end = past.history.moments[k].served
        answered = pd.read_parquet(serving.answers).set_index("at").loc[range(begin, end), "p_1"].to_numpy()
        label = past.history.rows["label"].iloc[begin:end].to_numpy()
        loss = -np.log(np.where(label == 1, answered, 1 - answered)).mean()
        assert line["served"]["loss"] == pytest.approx(loss, abs=1e-5)
    assert 0 < replay.count("refused") < len(replay.ledger)


def test_the_gain_and_the_regret_are_what_they_are_called(project: Project) -> None:
    """«always» keeps all of the gain and «never» none; nobody is better than the best in hindsight."""
    found = run()
    never, always = found.of("never"), found.of("always")
    assert never is not None
    assert always is not None
    assert found.kept(never) == 0
    assert found.kept(always) == 1
    assert always.mean_loss < never.mean_loss, "the world turned in April"
    for replay in found.outcomes:
        assert (replay.best <= replay.loss + 1e-12).all()
        assert replay.regret == pytest.approx(replay.mean_loss - (replay.best * replay.rows).sum() / replay.rows.sum())
    assert run("configured").kept(found.outcomes[0]) is None


def test_quality_that_was_promised_and_is_not_kept_retrains(project: Project) -> None:
    """Pumps fail otherwise from April on: a decision after enough of it was seen says by how much."""
    replay = run("quality").outcomes[0]
    retrained = [line for line in replay.ledger[1:] if line["trained"]]
    assert retrained
    assert retrained[0]["at"] in ("2013-04-08T00:00:00", "2013-04-15T00:00:00")
    measured = retrained[0]["decision"]["state"]["measured"]
    assert measured["low"] > retrained[0]["decision"]["state"]["promised"]["loss"]
    assert "beyond doubt" in retrained[0]["decision"]["why"]


def test_drift_is_asked_of_the_champions_own_rows(project: Project) -> None:
    """What it learned from is the reference, what came since is looked at, and an alarm is counted once."""
    seen: list[tuple[pd.Timestamp, pd.Timestamp, pd.Timestamp]] = []

    def drifted(champion: backtest_history.Fit, since: pd.DataFrame) -> Sequence[retrain_policy.OpenAlarm]:
        learned = pd.read_parquet(champion.reference)["day"].max()
        assert learned == champion.learned_until.date()
        seen.append((pd.Timestamp(champion.learned_until), since["time"].min(), since["time"].max()))
        return (
            [retrain_policy.OpenAlarm("k", "pressure", 0.5, date(2013, 5, 1))]
            if since["time"].max() > pd.Timestamp("2013-05-01")
            else []
        )

    replay = world(drifted).run("drift", params.Retrain(gap_days=21, when=[params.When(drift=0.4)]))
    trained = [line["at"] for line in replay.ledger if line["trained"]]
    assert trained[1] == "2013-05-06T00:00:00"
    assert all(learned < begin <= end for learned, begin, end in seen)
    told = [line["at"] for line in replay.ledger if line["alarms"]]
    promoted = [line["at"] for line in replay.ledger[1:] if line["promoted"]]
    assert len(told) == 1 + len([at for at in promoted if at < replay.ledger[-1]["at"]]), (
        "a new champion, a new reference"
    )


def test_what_was_fitted_is_not_fitted_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for another policy, and not for another backtest whose moments are the same."""
    run()
    from tasks.training import train

    monkeypatch.setattr(train, "train", lambda name: pytest.fail(f"{name} was fitted again"))
    run("drift", "configured", configured=params.Retrain(when=[params.When(new_rows=100)]))
    later = lived().moments[2].at.date()
    assert run("never", since=later).outcomes[0].ledger[0]["at"][:10] == later.isoformat()


def test_other_parameters_are_other_models(project: Project) -> None:
    """The identity of a model holds its rows, its parameters and its code."""
    past = lived()
    keys = [training.key for training in backtest_history.trainings(past)]
    assert len(set(keys)) == len(keys)
    said = params.load().model("tiny")
    estimator = said.estimator.model_copy(update={"params": {"C": 2.0}})
    other = backtest_history.History(**{**vars(past), "model": said.model_copy(update={"estimator": estimator})})
    assert not set(keys) & {training.key for training in backtest_history.trainings(other)}
    gate = said.gate.model_copy(update={"margin": 0.5})
    judged = backtest_history.History(**{**vars(past), "model": said.model_copy(update={"gate": gate})})
    assert keys == [training.key for training in backtest_history.trainings(judged)], "the rule changes no model"


def test_a_history_of_rows_that_look_back_has_what_was_before_each_partition(small: Project) -> None:
    """Each partition is made of itself and the one before it, as `prepare` makes it."""
    small.edit("params.yaml", "{readings: partition}", "{readings: {history: 2}}")
    code = "models/tiny/rows/__init__.py"
    small.edit(code, 'readings = tables["readings"]\n', """readings = tables["readings"]
    starts = readings.index.get_level_values("partition").nunique()
    readings = readings.loc[partition.name].assign(starts=starts)
""")  # fmt: skip
    small.edit(code, "fails_above: float)", "fails_above: float, partition)")
    for month in range(4, MONTHS + 1):
        write_readings(small.root, month)
    with pytest.MonkeyPatch.context() as patch:
        forget_models(patch)
        made = backtest_history.read("tiny", params.load(), since=date(2013, 3, 4)).rows
    by_month = made.groupby(made["time"].dt.month)["starts"].unique()
    assert [values.tolist() for values in by_month] == [[1.0], *[[2.0]] * (len(by_month) - 1)]


def test_a_history_that_cannot_be_lived_through_is_told(project: Project) -> None:
    """Too short, without an upstream, or under a policy that does not exist."""
    with pytest.raises(DataMissing, match="are too few: 4 for the holdout"):
        run(since=date(2013, 1, 20))
    with pytest.raises(DataMissing, match="no rows before 2012-01-01"):
        run(until=date(2012, 1, 1))
    with pytest.raises(ParamsError, match="upstream is null"):
        run(source="upstream")
    with pytest.raises(Mistake, match="no policy 'allways'; did you mean 'always'"):
        run("allways")  # type: ignore[arg-type]


def test_a_first_candidate_that_is_refused_ends_the_backtest(project: Project) -> None:
    """There is nobody to serve, and it says why."""
    said = params.load()
    tiny = said.model("tiny")
    strict = tiny.model_copy(update={"gate": tiny.gate.model_copy(update={"floors": {"roc_auc": 0.999}})})
    with pytest.raises(DataMissing, match=r"refuses the first candidate.*roc_auc.*begin the backtest later"):
        backtest.run(
            ["tiny"],
            said.model_copy(update={"models": {"tiny": strict}}),
            backtest.BacktestRequest(policies=("never",)),
            1,
            str,
        )


def test_the_command_writes_the_tables_and_draws(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page, the picture, the ledger, and CPU seconds beside it."""
    page, picture = tmp_path / "page.md", tmp_path / "picture.png"
    policies = [option for policy in ("never", "always", "configured") for option in ("--policy", policy)]
    assert cli.main(["backtest", "--jobs", "1", *policies, "--page", str(page), "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "| **configured** |" in printed
    assert backtest_report.table(run("never", "always", "configured")).splitlines()[2] in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    seconds = json.loads((settings.VAR / "backtest/tiny/seconds.json").read_text())
    assert set(seconds) == {"never", "always", "configured"}
    assert seconds["always"] > seconds["never"] > 0
    assert cli.main(["backtest", "--jobs", "1", "--source", "upstream"]) == 1
    assert "ParamsError" in capsys.readouterr().err


def test_the_form_offers_what_there_is() -> None:
    """The flow's parameters have types, so that Prefect's UI makes a form of them."""
    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(backtest_flow).model_dump()
    fields = schema["properties"]
    assert schema["required"] == ["model"]
    assert fields["policies"]["items"]["enum"] == list(backtest.EVERY)
    assert fields["source"]["enum"] == ["data", "upstream"]
    assert {"type": "string", "format": "date"} in fields["since"]["anyOf"]
    assert fields["since"]["description"].startswith("the day of the first decision")
    assert "growth" in json.dumps(schema["definitions"])


@pytest.mark.timeout(180)
@pytest.mark.long
def test_the_flow_shows_the_table_and_the_picture(year: Path, tmp_path: Path) -> None:
    """Beside a real server, in processes of its own; the policy that was typed into the form is tried."""
    from flows.prefect_support import api

    code = """
from flows.backtest import backtest
from tasks.ground.params import Retrain
state = backtest("tiny", policies=["never", "configured"], configured=Retrain(when=[{"months": 2}]), return_state=True)
print(state.type.value, state.message)
"""
    with server(year, tmp_path / "project") as alone:
        said = alone.project.run(sys.executable, "-c", code).stdout
        (shown,) = api.call("/artifacts/filter", {"artifacts": {"key": {"any_": ["backtest-tiny"]}}})
    assert "COMPLETED tiny: «configured» has a log_loss of" in said
    assert "with 2 trainings" in said
    assert "{months: 2}" in shown["data"]
    assert "data:image/png;base64," in shown["data"]

"""A batch is answered as online: the same predictions, the same refusals, killed or not, from wherever it comes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.ground import files, model_environment, params, settings
from tasks.ground.errors import DataMissing, Mistake, ModelCodeError, SourceUnavailable, StageFailed
from tasks.ground.storage import Location
from tasks.release import scorer, scorer_worker
from tasks.release.batch import batch, batch_sources
from tasks.release.batch.batch import BatchRefused
from tasks.release.package import package
from tasks.runtime import predictor
from tasks.training import prepare
from tests.conftest import Project, copy_project, forget_models, work_on, write_readings
from tests.tasks.release.small_release import MODEL, make_release

Score = Callable[..., batch.BatchResult]
PREDICTED = ["prediction", "probability", "p_0", "p_1"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def packaged(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, trained, packaged, tracked and registered; not to be written to."""
    root = copy_project(small_copied, tmp_path_factory.mktemp("packaged") / "project")
    with pytest.MonkeyPatch.context() as patch:
        work_on(root, patch)
        make_release()
    return root


@pytest.fixture
def project(packaged: Path, enter: Callable[[Path], Project]) -> Iterator[Project]:
    """That project; what is below var/batch goes with the test."""
    yield enter(packaged)
    files.remove(packaged / "var" / "batch")


@pytest.fixture
def candidate(project: Project) -> str:
    """The candidate, which is in the Bento store."""
    found: str = files.read_json(settings.BUILD / MODEL / "release" / "candidate.json")["candidate"]
    return found


@pytest.fixture
def holdout(project: Project) -> pd.DataFrame:
    """The rows that the candidate was evaluated on, with id, time and label."""
    return pd.read_parquet(settings.BUILD / MODEL / "rows" / "2013-03.parquet")


@pytest.fixture
def evaluated(project: Project) -> pd.DataFrame:
    """What they were evaluated to."""
    return pd.read_parquet(settings.BUILD / MODEL / "evaluation" / "predictions.parquet")


@dataclass
class Warm:
    """An interpreter that stays when a batch is done, for the next one: most tests are not about its start."""

    process: subprocess.Popen[str]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)

    def kill(self) -> None:
        """Not yet."""

    def communicate(self) -> None:
        """Nor this."""


@pytest.fixture(scope="module")
def warm(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """The interpreter with the candidate."""
    bentos = packaged / "var" / "bentoml" / "bentos" / MODEL
    (folder,) = (path for path in bentos.iterdir() if path.is_dir())
    with scorer.start(folder / "src", tmp_path_factory.mktemp("warm") / "stderr") as process:
        yield Warm(process)
        process.kill()


@pytest.fixture
def cold(candidate: str, tmp_path: Path) -> Score:
    """Score a source with the candidate, in chunks of 50, into a folder of the test's."""

    def do(source: Any, **more: Any) -> batch.BatchResult:
        asked = {"to": str(tmp_path / "to"), "version": candidate, "chunk": 50, "log": lambda _: None, **more}
        return batch.score(MODEL, str(source), **asked)

    return do


@pytest.fixture
def score(cold: Score, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> Score:
    """As `cold`, by an interpreter that is there already."""
    monkeypatch.setattr(scorer, "start", lambda *_: warm)
    return cold


def answers(scored: batch.BatchResult) -> pd.DataFrame:
    """All parts, in order."""
    return pd.read_parquet(settings.ROOT / scored.to if "://" not in scored.to else scored.to)


def written(rows: pd.DataFrame, path: Path, **changed: Any) -> Path:
    """Rows as a file, of the kind that its name says."""
    rows = rows.assign(**changed)
    if path.suffix in (".csv", ".tsv"):
        rows.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        rows.to_parquet(path, index=False)
    else:
        model = params.load().model(MODEL)
        beside = rows[[c for c in rows if c not in model.features]].astype(str).to_dict("records")
        asked = package.request_rows(rows, model)
        path.write_text("".join(json.dumps({**a, **b}) + "\n" for a, b in zip(asked, beside, strict=True)))
    return path


# ── as evaluated, as online ───────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_answers_are_the_evaluated_predictions(
    suffix: str, score: Score, holdout: pd.DataFrame, evaluated: pd.DataFrame, tmp_path: Path
) -> None:
    """To the last digit that a number has, whatever the file is; and each with the id of its row."""
    scored = score(written(holdout, tmp_path / f"rows{suffix}"))
    got = answers(scored)
    assert (scored.rows, scored.refused, scored.made) == (len(holdout), 0, -(-len(holdout) // 50))
    assert got["row"].tolist() == list(range(len(holdout)))
    assert got["id"].tolist() == evaluated["id"].tolist()
    np.testing.assert_allclose(got[["p_0", "p_1"]], evaluated[["p_0", "p_1"]], rtol=1e-12)
    assert got["probability"].equals(got["p_1"])
    assert got["prediction"].tolist() == (got["p_1"] > 0.5).astype(int).tolist()
    assert got["problem"].isna().all()


def test_every_answer_says_where_it_comes_from(
    score: Score, holdout: pd.DataFrame, candidate: str, tmp_path: Path
) -> None:
    """As columns, and in the metadata of each part: model, version, release, source and its hash."""
    path = written(holdout, tmp_path / "rows.parquet")
    scored = score(path, version="challenger")
    got = answers(scored)
    one = got.iloc[0]
    assert (one["model"], one["version"], one["release"]) == (MODEL, "1", candidate)
    assert one["data"] == files.sha256(path)
    assert one["source"] == str(path)
    assert got["prediction_id"].is_unique
    part = next(Path(scored.to).glob("*-00001.parquet"))
    said = pq.read_schema(part).metadata
    assert said[b"evergreen.tag"].decode() == f"{MODEL}:{candidate}"
    assert json.loads(said[b"evergreen.lineage"])["partitions"] == files.read_json(
        settings.BUILD / MODEL / "partitions.json"
    )


CASES: dict[str, dict[str, Any]] = {
    "out of range": {"hour": 24},
    "below": {"pressure": -0.5},
    "missing": {"pressure": None},
    "a broken integer": {"weekday": 1.5},
    "a category that is missing": {"station": None},
    "a category nobody has seen": {"station": "moon"},
    "missing where it may be": {"vibration": None},
    "infinite": {"pressure": 1e999},
    "a whole float": {"starts": 3.0},
    "too long": {"station": "x" * 201},
    "two faults": {"hour": -1, "weekday": 9},
}


def posted(row: dict[str, Any]) -> str:
    """A row as a client would post it."""
    integers = params.load().model(MODEL).of_type("integer")
    asked = {
        name: int(value) if name in integers and float(value).is_integer() else value
        for name, value in row.items()
        if not pd.isna(value)
    }
    return json.dumps({**dict.fromkeys(row), **asked}).replace("Infinity", "1e999")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_row_is_refused_as_online(suffix: str, score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """The same rows, with the same words; it has no prediction, a problem, and is counted. The others are scored."""
    features = params.load().model(MODEL).features
    rows = holdout.head(len(CASES))[list(features)].reset_index(drop=True)
    for i, change in enumerate(CASES.values()):
        for column, value in change.items():
            rows.loc[i, column] = value
    release = predictor.Predictor(settings.BUILD / MODEL / "release")
    asked = [posted(row) for row in rows.to_dict("records")]
    online = [json.loads(release.predict([f'{{"rows":[{text}]}}'.encode()])[0].body) for text in asked]
    path = tmp_path / f"rows{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(asked), encoding="utf-8")
    elif suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path)
    scored = score(path)
    got = answers(scored)
    for case, row, said in zip(CASES, got.to_dict("records"), online, strict=True):
        if "error" in said:
            told = "; ".join(f"{fault['field']}: {fault['problem']}" for fault in said["detail"])
            assert row["problem"] == told, case
            assert all(pd.isna(row[column]) for column in PREDICTED), case
        else:
            assert pd.isna(row["problem"]), case
            assert row["p_1"] == pytest.approx(said["predictions"][0]["probability"], rel=1e-12), case
            assert (None if row["unseen"] is None else list(row["unseen"])) == said["predictions"][0].get("unseen"), (
                case
            )
    assert scored.refused == sum("error" in said for said in online) > 5
    assert sum(scored.problems.values()) == scored.refused


def test_a_file_is_read_as_ingest_reads_it(score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """Numbers as decimals, texts, nullable or in quotes, a category as a dictionary: the same answers."""
    rows = holdout.head(20)[list(params.load().model(MODEL).features)]
    expected = answers(score(written(rows, tmp_path / "rows.parquet")))["p_1"].tolist()
    variants: dict[str, Callable[[Path], object]] = {
        "nullable.parquet": lambda path: rows.convert_dtypes().to_parquet(path),
        "texts.parquet": lambda path: rows.astype({"hour": str, "pressure": str}).to_parquet(path),
        "decimals.parquet": lambda path: pq.write_table(decimals(rows), path),
        "categories.parquet": lambda path: rows.astype({"station": "category"}).to_parquet(path),
        "floats.csv": lambda path: rows.astype({"hour": "float64"}).to_csv(path, index=False),
        "quoted.csv": lambda path: rows.to_csv(path, index=False, quoting=1),
    }
    for name, write in variants.items():
        write(tmp_path / name)
        got = answers(score(tmp_path / name))
        got = got[got["source"].str.endswith(name)]
        assert got["problem"].isna().all(), name
        assert got["p_1"].tolist() == expected, name


FEATURES = {
    "code": {"type": "category", "example": "49"},
    "n": {"type": "integer", "example": 1},
}


def chunked(path: Path, features: dict[str, Any] = FEATURES) -> tuple[list[Any], list[Any]]:
    """The rows of a file, and what goes along to their answers."""
    chunks = list(batch_sources.chunks(path, path.name, features, [], 1000))
    along = [row for chunk in chunks for row in chunk.kept.drop_columns(batch_sources.ROW).to_pylist()]
    return [row for chunk in chunks for row in chunk.rows.to_pylist()], along


def test_an_index_that_pandas_left_out_of_a_file_is_there(tmp_path: Path) -> None:
    """It counts evenly: pandas 3 writes where it begins; as a feature, and as the id that goes along."""
    frame = pd.DataFrame({"code": ["a", "b", "c"], "n": [4, 6, 8], "id": [7, 8, 9]})
    for index in ("n", "id"):
        frame.set_index(index).to_parquet(tmp_path / "rows.parquet")
        rows, along = chunked(tmp_path / "rows.parquet")
        assert [row["n"] for row in rows] == [4, 6, 8]
        assert along == [{"id": 7}, {"id": 8}, {"id": 9}]


def test_features_of_a_partition_are_typed_as_for_training(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A code that is a float, a truth value for a number: what the model learned, not another text and no refusal."""
    small.edit("models/tiny/rows/__init__.py", "        label=", "        station=readings['failures'].where("
               "readings['failures'] > 0), starts=readings['starts'] > 2,\n        label=")  # fmt: skip
    small.edit("params.yaml", "about: Where the pump is", "nullable: true, about: Where the pump is")
    forget_models(monkeypatch)
    model = params.load().model(MODEL)
    source = batch_sources.find(MODEL, params.load(), "readings/2013-03")[0]
    features = {name: feature.model_dump() for name, feature in model.features.items()}
    scored, _ = chunked(source.fetch(small.root / "var").rows(), features)
    model_environment.environment(MODEL)
    md5 = files.md5(small.root / "data/readings/2013-03.csv")
    files.write_json(
        settings.BUILD / MODEL / "partitions.json",
        {"readings": {"2013-03.csv": md5, "2013-02.csv": files.md5(small.root / "data/readings/2013-02.csv")}},
    )
    prepare.prepare(MODEL)
    learned = pd.read_parquet(settings.BUILD / MODEL / "rows" / "2013-03.parquet")
    found = pd.DataFrame(scored)[list(features)].astype(learned[list(features)].dtypes)
    pd.testing.assert_frame_equal(found, learned[list(features)])
    assert set(learned["station"].dropna()) == {"1"}


def test_an_empty_line_of_a_file_with_one_column_is_a_row(tmp_path: Path) -> None:
    """As to ingest: else the answers would be those of other rows."""
    (tmp_path / "rows.csv").write_text("n\n1\n\n3\n")
    rows, _ = chunked(tmp_path / "rows.csv", {"n": FEATURES["n"]})
    assert [row["n"] for row in rows] == [1, None, 3]


def test_what_ingest_refuses_of_a_file_is_refused_here(tmp_path: Path) -> None:
    """A column that stands twice, texts that are no UTF-8, codes that a program held as floats."""
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["code", "n", "n"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    latin = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xfc")])
    pq.write_table(pa.table({"code": latin, "n": [1]}), tmp_path / "latin.parquet")
    (tmp_path / "floats.csv").write_text("code,n\n,1\n49.0,2\n")
    for name, said in (
        ("twice.parquet", "column n stands twice"),
        ("latin.parquet", "column code: Invalid UTF8 sequence at string index 0"),
        ("floats.csv", "column code, row 2: «49.0», and every text of the column ends in «.0»: a program held"),
    ):
        with pytest.raises(BatchRefused, match=said):
            chunked(tmp_path / name)
    rows, _ = chunked(tmp_path / "floats.csv", {**FEATURES, "code": {"type": "category", "example": "1.0"}})
    assert rows[1]["code"] == "49.0"


def decimals(rows: pd.DataFrame) -> pa.Table:
    """The rows with a column of decimals."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    at = table.schema.get_field_index("hour")
    return table.set_column(at, "hour", table.column(at).cast(pa.decimal128(20, 0)))


def test_a_text_for_a_number_refuses_its_row_alone(score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """In a CSV every value is text: one that is no number does not take the column with it."""
    rows = holdout.head(60).astype({"hour": object, "pressure": object})
    rows.loc[3, "hour"], rows.loc[4, "pressure"], rows.loc[5, "pressure"] = "noon", "nan", "1_000"
    rows.loc[6, "pressure"] = " 2.5"
    got = answers(score(written(rows, tmp_path / "rows.csv")))
    problems = got["problem"].dropna()
    assert problems.to_dict() == {
        3: "hour: Input should be a valid integer",
        **dict.fromkeys((4, 5), "pressure: Input should be a valid number"),
    }
    assert got["p_1"].notna().sum() == 57


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "the line is not JSON: EOF while parsing an object at line 1 column 1"),
        ("[1]", "Input should be an object"),
        ('{"station":"north","weekday":1,"hour":6,"starts":4}', "pressure: is missing"),
        (
            '{"station":"north","weekday":1,"hour":6,"starts":4,"pressure":1,"presure":1}',
            "presure: is not known; did you mean 'pressure'?",
        ),
        ('{"station":"north","weekday":"1","hour":6,"starts":4,"pressure":1}', "weekday: Input should be a valid inte"),
        ('{"station":"","weekday":1,"hour":6,"starts":4,"pressure":1}', "station: String should have at least 1 char"),
    ],
)
def test_a_line_is_refused_as_a_request_would_be(line: str, problem: str, score: Score, tmp_path: Path) -> None:
    """JSON lines are rows as a client posts them; an empty line is none."""
    good = '{"station":"north","weekday":1,"hour":6,"starts":4,"pressure":1,"id":"a"}'
    (tmp_path / "rows.jsonl").write_text(f"{good}\n\n{line}\n{good}", encoding="utf-8")
    got = answers(score(tmp_path / "rows.jsonl"))
    assert got["problem"].tolist()[1].startswith(problem)
    assert got["probability"].notna().tolist() == [True, False, True]
    assert got["id"].tolist()[0] == "a"


# ── files that are refused whole ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pressure": "presure"}, "column pressure is missing; did you mean 'presure'?.*column 'presure' is not known"),
        ({"vibration": "x"}, "column vibration is missing"),
        ({"id": "extra"}, "column 'extra' is not known.*--keep COLUMN"),
    ],
)
def test_a_file_with_other_columns_is_refused(
    suffix: str, change: dict[str, str], said: str, score: Score, holdout: pd.DataFrame,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Also when the column may be null: in a table, one that is missing is a mistake."""
    scored = score(written(holdout.rename(columns=change), tmp_path / f"rows{suffix}"))
    with pytest.raises(BatchRefused, match=f"(?s)1 source could not be scored:\n.*{said}.*Nothing of it"):
        scored.raise_for_failures()
    assert (scored.rows, scored.made) == (0, 0)


def test_a_column_of_another_type_refuses_the_file(score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """Not one of its rows could be valid."""
    scored = score(written(holdout, tmp_path / "rows.parquet", hour=holdout["hour"] > 12))
    with pytest.raises(BatchRefused, match=r"column hour is of the type bool, the model takes integers"):
        scored.raise_for_failures()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.parquet", b"PAR1 or not", "cannot be read: .*[Pp]arquet"),
        ("rows.csv", b"", "cannot be read: Empty CSV"),
        ("rows.csv", b"station,weekday,hour,starts,pressure,vibration\n", "holds no rows"),
        (
            "rows.csv",
            b"station,weekday,hour,starts,pressure,vibration\nnorth,1,6,4,1,\na,b\n",
            "line 3 has 2 fields, the ones before have 6: «a,b»",
        ),
        ("rows.jsonl", b"\n", "holds no rows"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    name: str, content: bytes, said: str, score: Score, tmp_path: Path
) -> None:
    """With what its reader says of it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BatchRefused, match=said):
        score(tmp_path / name).raise_for_failures()


def test_a_batch_without_one_valid_row_fails(score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """What looks like success would be none."""
    scored = score(written(holdout, tmp_path / "rows.parquet", hour=99))
    with pytest.raises(BatchRefused, match=r"none of the \d+ rows is valid; \d+ of them: hour: Input should be less"):
        scored.raise_for_failures()


def test_columns_go_along_that_are_named(score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """As they are in the source; one with the name of an answer's column would be mistaken for it."""
    path = written(holdout, tmp_path / "rows.parquet", pump=range(len(holdout)))
    assert answers(score(path, keep=["pump"]))["pump"].tolist() == list(range(len(holdout)))
    with pytest.raises(Mistake, match="keep: p_1 is a column of the answers already"):
        score(path, keep=["p_1"])


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl"])
def test_every_other_column_goes_along_with_a_star(
    suffix: str, score: Score, holdout: pd.DataFrame, tmp_path: Path
) -> None:
    """Whatever the file is; one that the answers have already is refused."""
    usual = answers(score(written(holdout, tmp_path / f"usual{suffix}")))
    path = written(holdout, tmp_path / f"rows{suffix}", pump=range(len(holdout)), shift="late")
    got = answers(score(path, keep=["*"], to=str(tmp_path / "every")))
    assert [*got.columns.difference(usual.columns)] == ["pump", "shift"]
    assert got["pump"].astype(int).tolist() == list(range(len(holdout)))
    assert got["probability"].equals(usual["probability"])
    with pytest.raises(BatchRefused, match="column release is one of the answers too: rename it"):
        score(written(holdout, tmp_path / f"two{suffix}", release=1), keep=["*"]).raise_for_failures()


# ── continued ─────────────────────────────────────────────────────────────────────────────────────


def parts(scored_to: Path) -> dict[str, int]:
    """The parts, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(scored_to.glob("*.parquet"))}


class Killed(BaseException):
    """The process died here."""


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_what_a_killed_run_scored_is_not_scored_again(
    suffix: str, score: Score, holdout: pd.DataFrame, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And the parts are those of a run that was not killed, byte by byte."""
    path, to = written(holdout, tmp_path / f"rows{suffix}"), tmp_path / "to"
    score(path, to=str(tmp_path / "whole"))
    real = batch.BatchRun.put

    def put(self: batch.BatchRun, name: str, table: pa.Table) -> None:
        if name.endswith("-00004.parquet"):  # the last one: nothing waits in the interpreter that the tests share
            raise Killed
        real(self, name, table)

    with monkeypatch.context() as patch:
        patch.setattr(batch.BatchRun, "put", put)
        with pytest.raises(Killed):
            score(path)
    before = parts(to)
    assert len(before) == 4
    scored = score(path)
    assert (scored.made, scored.reused, scored.rows) == (len(parts(to)) - 4, 4, len(holdout))
    assert before.items() <= parts(to).items()
    assert files.tree(to) == files.tree(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_process_is_continued(cold: Score, candidate: str, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """Kill -9 of the process that scores; nothing half is left, and its interpreter ends by itself."""
    path, to = written(pd.concat([holdout] * 4), tmp_path / "rows.parquet"), tmp_path / "to"
    code = "import sys; from tasks.release.batch import batch; batch.score('tiny', *sys.argv[1:4], 50)"
    with subprocess.Popen([sys.executable, "-c", code, path, to, candidate], stdout=subprocess.DEVNULL) as process:
        while len(list(to.glob("*.parquet"))) < 3:
            assert process.poll() is None
        process.kill()
    left = len(list(to.glob("*.parquet")))
    scored = cold(path)
    assert (scored.reused, scored.made) == (left, -(-4 * len(holdout) // 50) - left)
    assert scored.made > 0
    assert list((settings.VAR / "batch").iterdir()) == []
    assert answers(scored)["row"].tolist() == list(range(4 * len(holdout)))


def test_what_is_done_is_not_read_again(
    score: Score, holdout: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call starts no interpreter."""
    path = written(holdout, tmp_path / "rows.csv")
    first = score(path)
    before = parts(tmp_path / "to")
    monkeypatch.setattr(batch_sources, "chunks", pytest.fail)
    monkeypatch.setattr(scorer, "start", pytest.fail)
    again = score(path)
    assert (again.made, again.reused, again.rows) == (0, first.made, first.rows)
    assert parts(tmp_path / "to") == before


def test_a_source_that_changed_is_scored_again(score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """What it had more of before is gone."""
    score(written(holdout, tmp_path / "rows.csv"))
    scored = score(written(holdout.head(60), tmp_path / "rows.csv"))
    assert (scored.made, scored.reused) == (2, 0)
    assert len(answers(scored)) == 60
    (tmp_path / "to" / batch.NOTE).unlink()
    next(iter((tmp_path / "to").glob("*-00001.parquet"))).write_bytes(b"half")
    scored = score(tmp_path / "rows.csv")
    assert (scored.made, scored.reused) == (1, 1)
    scored = score(tmp_path / "rows.csv", chunk=40)
    assert scored.made == 2


def test_a_folder_with_other_parquet_files_is_not_written_to(
    score: Score, holdout: pd.DataFrame, tmp_path: Path
) -> None:
    """Whoever reads it would read both."""
    (tmp_path / "to").mkdir()
    path = written(holdout, tmp_path / "rows.parquet")
    shutil.copy(path, tmp_path / "to" / "mine.parquet")
    with pytest.raises(Mistake, match=r"holds mine\.parquet, which is no part of a batch: name another folder"):
        score(path)


def test_the_size_of_a_chunk_changes_no_answer(score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """Nor its id."""
    path = written(holdout, tmp_path / "rows.csv")
    small, large = answers(score(path, chunk=7)), answers(score(path, to=str(tmp_path / "large"), chunk=100_000))
    pd.testing.assert_frame_equal(small, large, rtol=1e-12)


# ── where rows come from ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "source", ["readings/2013-03", "data/readings/2013-03.csv", "{root}/data/readings/2013-03.csv"]
)
def test_a_partition_of_raw_tables_is_scored(
    source: str, score: Score, evaluated: pd.DataFrame, project: Project
) -> None:
    """Features are made of it as for training; labels are left out."""
    got = answers(score(source.format(root=project.root)))
    assert got["id"].tolist() == evaluated["id"].tolist()
    np.testing.assert_allclose(got["p_1"], evaluated["p_1"], rtol=1e-12)
    assert "label" not in got
    assert set(got["source"]) == {"data/readings/2013-03.csv"}


def test_a_partition_that_has_just_landed_is_scored(score: Score, project: Project) -> None:
    """Before ingest has looked at it."""
    landed = project.root / "var" / "landing" / "readings"
    landed.mkdir(parents=True, exist_ok=True)
    path = write_readings(project.root, 4)
    path.rename(landed / path.name)
    one, other = score("readings/2013-04"), score(f"var/landing/readings/{path.name}")
    assert (one.rows, other.reused) == (224, one.made)
    (landed / path.name).unlink()
    with pytest.raises(DataMissing, match="readings/2013-04 is neither in data/ nor in the landing zone var/landing"):
        score("readings/2013-04")


def test_a_partition_whose_rows_look_back_is_scored_with_what_was_before_it(project: Project) -> None:
    """Its own file from the landing zone, the one before it from data/; never a later one."""
    config = params.load()
    reading = params.Reading.model_validate({"history": 2})
    model = config.model(MODEL).model_copy(update={"datasets": {"readings": reading}})
    config = config.model_copy(update={"models": {MODEL: model}})
    landed = project.root / "var" / "landing" / "readings" / "2013-04.csv"
    files.write_text(landed, "as it arrived")
    for partition, places in (
        ("2013-04", ["data/readings/2013-03.csv", "var/landing/readings/2013-04.csv"]),
        ("2013-02", ["data/readings/2013-01.csv", "data/readings/2013-02.csv"]),
        ("2013-01", ["data/readings/2013-01.csv"]),
    ):
        (source,) = batch_sources.find(MODEL, config, f"readings/{partition}")
        assert [place.shown for place in source.places] == places
    landed.unlink()


def test_a_partition_that_cannot_be_made_rows_of_says_so(score: Score, project: Project) -> None:
    """The team's own code speaks of it."""
    path = project.root / "data" / "readings" / "2013-09.csv"
    try:
        path.write_text("station,at\nnorth,2013-09-01\n")
        with pytest.raises((ModelCodeError, BatchRefused), match=r"2013-09|readings"):
            score("readings/2013-09").raise_for_failures()
    finally:
        path.unlink()


def test_a_folder_is_scored_file_by_file(score: Score, holdout: pd.DataFrame, tmp_path: Path) -> None:
    """One that cannot be scored keeps no other from it; a file that is added is scored alone."""
    folder = tmp_path / "rows"
    (folder / "deep").mkdir(parents=True)
    written(holdout.head(10), folder / "a.csv")
    written(holdout.head(20), folder / "deep" / "a.csv")
    written(holdout.drop(columns="hour"), folder / "bad.csv")
    (folder / "_note.txt").write_text("no rows")
    (folder / ".hidden.csv").write_text("no rows")
    scored = score(folder)
    assert (scored.rows, scored.made, list(scored.failed)) == (30, 2, ["bad.csv"])
    with pytest.raises(BatchRefused, match=r"1 source could not be scored:\nbad.csv: .*column hour is missing"):
        scored.raise_for_failures()
    written(holdout, folder / "bad.csv")
    again = score(folder)
    assert (again.reused, again.rows, again.failed) == (2, 30 + len(holdout), {})


def test_what_is_not_there_is_said(score: Score, project: Project, tmp_path: Path) -> None:
    """With what may have been meant."""
    with pytest.raises(DataMissing, match=r"readings/2013-3 is neither in data/ .*did you mean '2013-03'"):
        score("readings/2013-3")
    with pytest.raises(DataMissing, match=r"there is no nowhere\.csv: name a file or a folder of rows"):
        score("nowhere.csv")
    (tmp_path / "rows.xlsx").write_bytes(b"")
    with pytest.raises(Mistake, match=r"rows\.xlsx is not a file of rows: its name ends in \.xlsx"):
        score(tmp_path / "rows.xlsx")


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket; credentials and endpoint are in the environment, as a user would set them."""
    import s3fs

    given = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**given, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    store.mkdir("evergreen")
    yield store
    store.rm("evergreen", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_is_scored_into_a_bucket(
    bucket: Any, score: Score, holdout: pd.DataFrame, evaluated: pd.DataFrame,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What is done is not even downloaded again; a half upload is made anew."""
    for name, rows in {"a.csv": holdout.head(60), "deep/b.parquet": holdout}.items():
        path = written(rows, tmp_path / Path(name).name)
        bucket.put_file(str(path), f"evergreen/rows/{name}")
    scored = score("s3://evergreen/rows", to="s3://evergreen/out")
    assert (scored.rows, scored.failed) == (60 + len(holdout), {})
    names = [path for path in bucket.find("evergreen/out") if path.endswith(".parquet")]
    got = pd.concat([pd.read_parquet(bucket.open(path)) for path in names])
    b = got[got["source"] == "s3://evergreen/rows/deep/b.parquet"].sort_values("row")
    np.testing.assert_allclose(b["p_1"], evaluated["p_1"], rtol=1e-12)
    with monkeypatch.context() as patch:
        patch.setattr(batch_sources.Location, "on_this_machine", pytest.fail)
        assert score("s3://evergreen/rows", to="s3://evergreen/out").reused == scored.made
    bucket.pipe_file(names[0], b"half")
    bucket.rm_file(f"evergreen/out/{batch.NOTE}")
    again = score("s3://evergreen/rows/", to="s3://evergreen/out/")
    assert (again.made, again.reused) == (1, scored.made - 1)


def test_a_bucket_that_cannot_be_reached_is_said_without_secrets(bucket: Any, score: Score) -> None:
    """The address as it may be shown, and what to look at."""
    with pytest.raises(SourceUnavailable, match=r"s3://\*\*\*@nowhere/rows cannot be reached: .* Check the") as said:
        score("s3://key:s3cr3t@nowhere/rows")
    assert "s3cr3t" not in str(said.value)


# ── who scores ────────────────────────────────────────────────────────────────────────────────────


def test_versions_are_named_by_number_alias_or_candidate(project: Project, candidate: str) -> None:
    """And an unknown one is told apart."""
    for version in ("1", "challenger", candidate):
        found = batch.find_release(MODEL, version)
        assert (found.candidate, found.version) == (candidate, "1")
    with pytest.raises(Mistake, match=r"'chalenger'; did you mean 'challenger'.*`evergreen history"):
        batch.find_release(MODEL, "chalenger")
    with pytest.raises(DataMissing, match="tiny has no champion yet: train it"):
        batch.find_release(MODEL, "champion")


def test_a_release_that_the_bento_store_lost_comes_from_the_registry(
    packaged: Path, tmp_path: Path, enter: Callable[[Path], Project], candidate: str
) -> None:
    """As it was tracked, and with its hash checked."""
    root = enter(packaged).root
    stored = root / "var" / "bentoml" / "bentos" / MODEL / candidate
    stored.rename(tmp_path / "lost")
    try:
        found = batch.find_release(MODEL, "1")
        assert found.folder == root / "var" / "champions" / candidate / "release"
        assert package.identity_of(found.folder) == candidate
    finally:
        (tmp_path / "lost").rename(stored)


def test_the_releases_own_code_scores(
    cold: Score, holdout: pd.DataFrame, project: Project, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whatever the checkout's pipeline has become since."""
    path = written(holdout, tmp_path / "rows.csv")
    before = answers(cold(path))
    broken = project.root / "models" / MODEL / "pipeline" / "__init__.py"
    text = broken.read_text(encoding="utf-8")
    try:
        broken.write_text("raise SystemExit('this is the checkout')", encoding="utf-8")
        forget_models(monkeypatch)
        after = answers(cold(path, to=str(tmp_path / "again")))
    finally:
        broken.write_text(text, encoding="utf-8")
    pd.testing.assert_frame_equal(before, after)


def test_a_release_that_fails_says_why(
    cold: Score, holdout: pd.DataFrame, project: Project, candidate: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its own last words are in the error."""
    broken = shutil.copytree(settings.BUILD / MODEL / "release", tmp_path / "release")
    (broken / "model.skops").write_bytes(b"other")
    monkeypatch.setattr(batch, "find_release", lambda *_: batch.BatchRelease(MODEL, candidate, "1", broken))
    with pytest.raises(StageFailed, match=f"(?s){MODEL}:{candidate} could not score .*was changed after it was"):
        cold(written(holdout, tmp_path / "rows.csv"))


def test_the_parts_stand_below_var_by_default(score: Score, candidate: str) -> None:
    """In a folder of the release and the source."""
    scored = score("readings/2013-03", to=None)
    assert scored.to.startswith(f"var/batch/{MODEL}/{candidate}/readings-2013-03.")
    assert str(scored) == f"tiny: 224 rows scored, by version 1 (candidate {candidate}), in {scored.to}"


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_file_is_read_in_bounded_memory(
    suffix: str, project: Project, holdout: pd.DataFrame, tmp_path: Path, candidate: str
) -> None:
    """Of 40 MB, or 600,000 rows, no more than some chunks are held at a time."""
    times = 200 if suffix == ".jsonl" else 2700
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pd.concat([holdout] * times).to_parquet(path, row_group_size=20_000)
    else:
        first = written(holdout, tmp_path / f"first{suffix}").read_text().splitlines(keepends=True)
        head, body = (first[:1], first[1:]) if suffix == ".csv" else ([], first)
        path.write_text("".join([*head, *body * times]))
    features = package.release_facts(settings.BUILD / MODEL / "release")["features"]
    before, peak, rows = pa.total_allocated_bytes(), 0, 0
    for chunk in batch_sources.chunks(path, "rows", features, (), 5000):
        rows += len(chunk.rows)
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert rows == times * len(holdout)
    assert peak < 20e6, f"{peak / 1e6:.0f} MB"


def test_a_folder_has_one_lock_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the project, or as an absolute path: two runs into it wait for each other."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    written = ("var/batch/x", f"{tmp_path}/var/batch/x", "var/batch/../batch/x/")
    named = {batch.lock_name(Location.of(to)) for to in written}
    assert len(named) == 1
    assert batch.lock_name(Location.of("var/batch/y")) not in named


def test_the_id_of_a_prediction_is_that_of_its_candidate_data_and_row():
    """Format 2: what it is of as a hash, and the row. Another way to make them needs another format."""
    begin = hashlib.sha256(b"c0ffee/da7a").hexdigest()[:20]
    assert list(batch._ids("c0ffee/da7a", range(9_999, 10_001))) == [f"{begin}00000000270f", f"{begin}000000002710"]
    assert batch.FORMAT == 2


def test_the_check_of_whole_columns_lets_through_what_the_schema_lets_through_and_no_more(
    candidate: str, holdout: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
):
    """Values on, beyond and beside each limit, and missing: the same answers, problems and order by either way."""
    scoring = scorer_worker.ReleaseScorer(package.stored(MODEL, candidate) / "src")
    features = scoring.features
    rows = pa.Table.from_pandas(holdout[list(features)], preserve_index=False)
    rows = rows.cast(pa.schema([(name, COLUMN_TYPES[feature["type"]]) for name, feature in features.items()]))
    tried = [rows]
    for at, (name, feature) in enumerate(features.items()):
        values = edge_values(feature)
        column = pa.array(values, COLUMN_TYPES[feature["type"]])
        tried.append(rows[: len(values)].set_column(at, name, column))
    table = pa.concat_tables(tried)
    plain = scoring._plainly_valid(table)
    assert plain[: len(rows)].all()
    got = scoring.requests(table)
    monkeypatch.setattr(scoring, "_plainly_valid", lambda table: np.zeros(len(table), dtype=bool))
    expected = scoring.requests(table)
    assert got.equals(expected)
    assert (plain == expected["problem"].is_null().to_numpy()).all()
    assert not plain.all()


COLUMN_TYPES = {"category": pa.string(), "integer": pa.int64(), "number": pa.float64()}


def edge_values(feature: dict[str, Any]) -> list[Any]:
    """Values on the limits of a feature, next to them, and missing."""
    if feature["type"] == "category":
        return [None, "", "x", "é" * 200, "é" * 201]
    limits = [limit for limit in (feature.get("min"), feature.get("max")) if limit is not None]
    if feature["type"] == "integer":
        return [None, 0, *(int(limit) + step for limit in limits for step in (-1, 0, 1)), 2**53, 2**53 + 1, -(2**53)]
    nearest = [np.nextafter(limit, to) for limit in limits for to in (-np.inf, np.inf)]
    return [None, *limits, *nearest, -0.0, 1e300, np.nan, np.inf, -np.inf]

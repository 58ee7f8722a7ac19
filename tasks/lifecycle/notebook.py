"""A model in a notebook: its tables and rows, its pipeline, its champion, the last verdict.

    from tasks.lifecycle import notebook
    m = notebook.model("flight_delay")
    m.rows("holdout"), m.pipeline(), m.champion.predict(m.rows("holdout")), m.verdict

Works from any folder: the project is the one that this module lies in. Everything is read only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.ground import files, params, settings
from tasks.ground.errors import DataMissing, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from tasks.release.gate.verdict import Verdict
    from tasks.release.registry.model_state import ModelVersion


def model(name: str) -> ModelView:
    """A model of this project.

    Raises:
        ParamsError: params.yaml has no such model.
    """
    settings.apply()
    params.load().model(name)
    return ModelView(name)


@dataclass(frozen=True)
class ModelView:
    """What a person wants to look at of a model; each is read when it is asked for."""

    name: str

    @property
    def params(self) -> params.Model:
        """Its entry in params.yaml, as it is now."""
        return params.load().model(self.name)

    @property
    def _build(self) -> Path:
        return settings.BUILD / self.name

    def tables(self, partition: str) -> dict[str, pd.DataFrame]:
        """Dataset → its raw table, with the types of the contract: what `rows` is given for a partition.

        Raises:
            DataMissing: there is no such partition.
        """
        from tasks.data import validate
        from tasks.tables import selection
        from tasks.training import rows_maker

        readings = self.params.datasets
        paths = {dataset: validate.partitions(dataset) for dataset in readings}
        own = sorted({path.stem for dataset in readings if readings[dataset].needs_own for path in paths[dataset]})
        if partition not in own:
            raise DataMissing(f"data/ has no partition {partition!r}{did_you_mean(partition, own)}")
        chosen = {dataset: selection.of(dataset, how, partition, paths[dataset]) for dataset, how in readings.items()}
        return {
            dataset: selection.joined(
                readings[dataset], {path.stem: rows_maker.read_table(self.name, dataset, path) for path in of}
            )
            for dataset, of in chosen.items()
            if of
        }

    def rows(self, part: Literal["train", "holdout"] = "train") -> pd.DataFrame:
        """The rows that the last `prepare` made: features, label, time, id.

        Raises:
            DataMissing: there are none yet.
        """
        from tasks.modelling import rows

        self._needs("split.json", "prepare")
        return rows.read(self._build, part)

    def pipeline(self) -> Pipeline:
        """A new pipeline that is not fitted, by the code and the params of now.

        The columns that it takes: `rows()[m.features]`.
        """
        from tasks.modelling import user_code

        return user_code.build_pipeline(self.name, self.params)

    @property
    def features(self) -> list[str]:
        """The names of the features, in their order."""
        return list(self.params.features)

    @property
    def candidate(self) -> Scored:
        """The candidate in build/: what the last training made."""
        self._needs("release/release.json", "package")
        candidate = files.read_json(self._build / "release" / "candidate.json")["candidate"]
        return Scored(self.name, f"candidate {candidate}", self._build / "release")

    @property
    def champion(self) -> Scored:
        """The version that serves, or is about to.

        Raises:
            DataMissing: there is none yet.
        """
        from tasks.release.registry import registry

        return self._of(registry.resolve(self.name, "champion"))

    def version(self, which: str) -> Scored:
        """Another version: by its number, an alias, or its candidate."""
        from tasks.release.registry import registry

        return self._of(registry.resolve(self.name, which))

    def _of(self, version: ModelVersion) -> Scored:
        from tasks.release.registry import version_files

        return Scored(self.name, str(version), version_files.fetch_cached(self.name, version) / "release")

    @property
    def verdict(self) -> Verdict:
        """The gate's last verdict; a notebook shows it as a table.

        Raises:
            DataMissing: nothing was judged yet.
        """
        from tasks.release.gate import verdicts

        lines = verdicts.newest(self.name)
        if not lines:
            raise DataMissing(f"{self.name} was never judged: `evergreen train {self.name}` does it")
        return verdicts.of_line(lines[-1])

    def _needs(self, file: str, stage: str) -> None:
        if not (self._build / file).exists():
            raise DataMissing(f"build/{self.name} has no {file}, which {stage} makes: `evergreen train {self.name}`")


@dataclass(frozen=True)
class Scored:
    """A release that answers in this process, as it was evaluated."""

    model: str
    name: str
    release: Path

    def __repr__(self) -> str:
        return f"<{self.model}, {self.name}>"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """release.json: features, classes, training, metrics, lineage."""
        facts: dict[str, Any] = files.read_json(self.release / "release.json")
        return facts

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Its answers: a row per row, with the same index; `frame` has the features, and may have other columns."""
        from tasks.release import comparison

        features = list(self.facts.get("columns", self.facts["features"]))
        if lacking := [name for name in features if name not in frame]:
            raise DataMissing(f"the rows have no {', '.join(lacking)}, which {self.name} of {self.model} takes")
        answers = comparison.scorer(self.model, self.release, self.facts)(frame[features])
        return answers.set_index(frame.index)

"""Trial run of `prepare` on a delivery, while it can still be refused.

An accepted partition of which no rows can be made would stop every later training. So each model that reads it makes
its rows when it is delivered, and their ids are compared with those of every other partition. `prepare` takes the same
rows from the memo, so nothing is computed twice.

A partition is not refused for faults of the code: where models/<name>/rows cannot be loaded, or fails on the newest
accepted partition too, the delivery is accepted, and the next training reports the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data import file_hashes, landing, validate
from tasks.data.quarantine import Refusal
from tasks.data.zones import Landed
from tasks.ground import files, model_environment, params
from tasks.ground.errors import EnvironmentDiffers, ModelCodeError, RowsRefused
from tasks.lifecycle import row_changes
from tasks.tables.selection import NotOrdered
from tasks.training import consistency
from tasks.training.rows_maker import RowsMaker

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Hashes = npt.NDArray[np.uint64]

NOT_LOADED = (ModelCodeError, ImportError, SyntaxError, NameError, AttributeError)
"""What the loading of a team's own code may raise."""

Log = Callable[[str], object]


def check_of(config: params.Params, log: Log) -> landing.DeliveryCheck:
    """The check for one look at the landing zone."""
    pins, known = cache(lambda name: packages(name, config.models[name])), {name: _KnownIds() for name in config.models}

    def check(landed: Landed, local: Path) -> Refusal | None:
        for name in config.readers(landed.dataset):
            maker = _maker(name, config.models[name], landed, local, pins(name))
            if refusal := _Trial(maker, landed, known[name], log).refusal():
                return refusal
        return None

    return check


def packages(name: str, model: params.Model) -> str:
    """The pins of what rows are made with, as the stage has written them, or will write them."""
    written = model_environment.path(name, "preparation")
    if written.exists():
        return written.read_text(encoding="utf-8")
    try:
        return model_environment.text("preparation", name, model)
    except (ModelCodeError, EnvironmentDiffers):
        return ""  # a fault of the code, which the next training reports; then these rows are made once more


def _maker(name: str, model: params.Model, landed: Landed, local: Path, pins: str) -> RowsMaker:
    """Makes rows as `prepare` will, once the delivery is in data/."""
    paths = {dataset: list(validate.partitions(dataset)) for dataset in model.datasets}
    others = [path for path in paths[landed.dataset] if path.stem != landed.partition]
    md5s = {dataset: file_hashes.md5s(of) for dataset, of in {**paths, landed.dataset: others}.items()}
    md5s[landed.dataset][local] = files.md5(local)
    tables = {dataset: dict(sorted(of.items(), key=lambda item: item[0].name)) for dataset, of in md5s.items()}
    return RowsMaker(name, model, tables, pins)


class _KnownIds:
    """The ids of a model's rows in one look: those of a partition are read once, however many deliveries follow."""

    def __init__(self) -> None:
        self._made: set[Path] = set()
        self._sorted: Hashes | None = None

    def repeated(self, mine: Path, others: Iterable[Path]) -> list[int]:
        """Which rows of `mine` have an id that stands in `others`, by their position; these are files of the memo."""
        import numpy as np

        known, hashes = self._of({mine, *others}), _id_hashes(mine)
        times = np.searchsorted(known, hashes, "right") - np.searchsorted(known, hashes, "left")
        return np.flatnonzero(times > 1).tolist()

    def _of(self, wanted: set[Path]) -> Hashes:
        import numpy as np

        if self._sorted is None or not self._made <= wanted:  # one was corrected since
            self._made, self._sorted = set(), np.array([], dtype=np.uint64)
        if new := wanted - self._made:
            self._sorted = np.sort(np.concatenate([self._sorted, *map(_id_hashes, new)]), kind="stable")
            self._made = wanted
        return self._sorted


class _Trial:
    """One model's rows of one delivery."""

    def __init__(self, maker: RowsMaker, landed: Landed, known: _KnownIds, log: Log) -> None:
        self.maker, self.landed, self.known, self.log = maker, landed, known, log
        self.name, self.model = maker.name, maker.model

    def refusal(self) -> Refusal | None:
        """Why the model could not learn from it."""
        try:
            concerned = [name for name in self.maker.complete if self._is_made_of_it(name)]
        except NotOrdered as error:
            if self.landed.partition in error.names:
                return self._refusal(str(error))
            self._log_fault(error)
            return None
        for partition in concerned:
            try:
                made = self.maker.rows(partition)
                if fault := self._repeated_ids(partition, made) or self._other_labels(partition, made):
                    return self._refusal(fault)
            except NOT_LOADED as error:
                if self._is_at_fault(error, partition):
                    return self._refusal(str(error))
                self._log_fault(error)
                return None
        return None

    def _log_fault(self, error: Exception) -> None:
        why = f"{self.name} cannot be trained as it is, which is not the delivery's fault: {error}"
        self.log(f"{self.landed}: {why}")

    def _is_made_of_it(self, partition: str) -> bool:
        files_of = self.maker.files(partition)[self.landed.dataset]
        return any(path.stem == self.landed.partition for path in files_of)

    def _is_at_fault(self, error: Exception, partition: str) -> bool:
        """Whether the delivery is: the same code makes rows of another partition."""
        others = [name for name in self._other_than(partition) if not self._is_made_of_it(name)]
        if not others:
            return isinstance(error, RowsRefused)
        try:
            self.maker.rows(others[-1])
        except NOT_LOADED:
            return False
        return True

    def _refusal(self, reason: str) -> Refusal:
        todo = (
            "If the file is wrong, have it made again and delivered under the same name. If the code, its limits or "
            f"another dataset's partition is: correct models/{self.name}/rows, params.yaml or that partition, then "
            "`evergreen quarantine retry`"
        )
        return Refusal(reason, todo)

    def _repeated_ids(self, partition: str, made: Path) -> str | None:
        """Which ids stand in another partition as well, as far as there are rows of it."""
        others = {}
        for other in self._other_than(partition):
            with suppress(*NOT_LOADED):  # `prepare` reports it; it is no reason to refuse this one
                others[other] = self.maker.rows(other)
        if not self.known.repeated(made, others.values()):
            return None
        import pandas as pd

        for other, path in others.items():
            if which := _KnownIds().repeated(made, [path]):
                example = pd.read_parquet(made, columns=["id"])["id"].iloc[which[0]]
                places = ", ".join(str(row + 1) for row in which[:5])
                return (
                    f"models/{self.name}/rows, partition {partition}: {len(which):,} ids stand in {other} too, such as "
                    f"{example!r} (rows {places}); an id must name one row. A correction is delivered under the name "
                    f"of its partition"
                )
        return None

    def _other_labels(self, partition: str, made: Path) -> str | None:
        """Whether its labels are of another kind than those of the newest other partition."""
        others = {name: self.maker.rows(name) for name in self._other_than(partition)[-1:]}
        try:
            consistency.refuse_labels_of_two_kinds({**others, partition: made}, self.name)
        except ModelCodeError as error:
            return str(error)
        return None

    def _other_than(self, partition: str) -> list[str]:
        return [name for name in self.maker.complete if name != partition]


def _id_hashes(made: Path) -> Hashes:
    """A hash per row of some rows, by its id."""
    fingerprints = row_changes.fingerprints(files.seal_of(made), made)
    assert fingerprints is not None  # `made` is there
    return fingerprints[:, 0]

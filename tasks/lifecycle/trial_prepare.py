"""Trial run of `prepare` on a delivery, while it can still be refused.

An accepted partition of which no rows can be made would stop every later training. So each model that reads it makes
its rows when it is delivered, and their ids are compared with those of every other partition. `prepare` takes the same
rows from the memo, so nothing is computed twice.

A partition is not refused for faults of the code: where models/<name>/rows cannot be loaded, or fails on the newest
accepted partition too, the delivery is accepted, and the next training reports the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.data import file_hashes, landing, validate
from tasks.data.quarantine import Refusal
from tasks.data.zones import Landed
from tasks.ground import files, locked_packages, params, settings
from tasks.ground.errors import ModelCodeError, RowsRefused
from tasks.lifecycle import row_changes
from tasks.training import consistency, prepare

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NOT_LOADED = (ModelCodeError, ImportError, SyntaxError, NameError, AttributeError)
"""What the loading of a team's own code may raise."""

Log = Callable[[str], object]


def check_of(config: params.Params, log: Log) -> landing.DeliveryCheck:
    """The check for one look at the landing zone."""

    def check(landed: Landed, local: Path) -> Refusal | None:
        for name in config.readers(landed.dataset):
            if refusal := _Trial(name, config.models[name], landed, local, log).refusal():
                return refusal
        return None

    return check


class _Trial:
    """One model's rows of one delivery."""

    def __init__(self, name: str, model: params.Model, landed: Landed, local: Path, log: Log) -> None:
        self.name, self.model, self.landed, self.log = name, model, landed, log
        paths = {dataset: list(validate.partitions(dataset)) for dataset in model.datasets}
        others = [path for path in paths[landed.dataset] if path.stem != landed.partition]
        md5s = {dataset: file_hashes.md5s(of) for dataset, of in {**paths, landed.dataset: others}.items()}
        md5s[landed.dataset][local] = files.md5(local)
        tables = {dataset: dict(sorted(of.items(), key=lambda item: item[0].name)) for dataset, of in md5s.items()}
        written = settings.BUILD / "environment" / "training.txt"
        packages = written.read_text(encoding="utf-8") if written.exists() else locked_packages.text("training")
        self.maker = prepare.RowsMaker(name, model, tables, packages)

    def refusal(self) -> Refusal | None:
        """Why the model could not learn from it."""
        by_partition = self.model.datasets[self.landed.dataset] == "partition"
        concerned = [self.landed.partition] if by_partition else self.maker.complete
        for partition in [name for name in concerned if name in self.maker.complete]:
            try:
                made = self.maker.rows(partition)
                if fault := self._repeated_ids(partition, made) or self._other_labels(partition, made):
                    return self._refusal(fault)
            except NOT_LOADED as error:
                if self._is_at_fault(error, partition):
                    return self._refusal(str(error))
                why = f"{self.name} cannot be trained as it is, which is not the delivery's fault: {error}"
                self.log(f"{self.landed}: {why}")
                return None
        return None

    def _is_at_fault(self, error: Exception, partition: str) -> bool:
        """Whether the delivery is: the same code makes rows of another partition."""
        others = self._other_than(partition)
        if not others or self.model.datasets[self.landed.dataset] == "all":
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
        import numpy as np
        import pandas as pd

        mine = _id_hashes(made)
        for other in self._other_than(partition):
            try:
                is_repeated = np.isin(mine, _id_hashes(self.maker.rows(other)))
            except NOT_LOADED:  # `prepare` reports it; it is no reason to refuse this one
                continue
            if is_repeated.any():
                which = np.flatnonzero(is_repeated)
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


def _id_hashes(made: Path) -> npt.NDArray[np.uint64]:
    """A hash per row of some rows, by its id."""
    fingerprints = row_changes.fingerprints(files.sha256(made), made)
    assert fingerprints is not None  # `made` is there
    return fingerprints[:, 0]

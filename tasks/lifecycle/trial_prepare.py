"""Trial run of `prepare` on a delivery, while it can still be refused.

An accepted partition of which no rows can be made would stop every later training. So each model that reads it makes
its rows when it is delivered, and their ids are compared with those of every other partition. `prepare` takes the same
rows from the memo, so nothing is computed twice.

A partition is not refused for faults of the code: where models/<name>/rows cannot be loaded, or fails on the newest
accepted partition too, the delivery is accepted, and the next training reports the fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tasks.data import file_hashes, landing, validate
from tasks.data.quarantine import Refusal
from tasks.data.zones import Landed
from tasks.ground import files, locked_packages, params, settings
from tasks.ground.errors import ModelCodeError, RowsRefused
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
        self.name, self.model, self.landed, self.local, self.log = name, model, landed, local, log
        self.paths = {dataset: {path.name: path for path in validate.partitions(dataset)} for dataset in model.datasets}
        others = {f: path for f, path in self.paths[landed.dataset].items() if path.stem != landed.partition}
        self.paths[landed.dataset] = {**others, local.name: local}
        self.manifest = {dataset: self._md5s(paths) for dataset, paths in self.paths.items()}
        self.complete = prepare.complete_partitions(self.manifest, model)

    def refusal(self) -> Refusal | None:
        """Why the model could not learn from it."""
        by_partition = self.model.datasets[self.landed.dataset] == "partition"
        concerned = [self.landed.partition] if by_partition else self.complete
        for partition in [name for name in concerned if name in self.complete]:
            try:
                made = self._rows(partition)
                if fault := self._repeated_ids(partition, made) or self._other_labels(partition, made):
                    return self._refusal(fault)
            except NOT_LOADED as error:
                if self._is_at_fault(error, partition):
                    return self._refusal(str(error))
                self.log(
                    f"{self.landed}: {self.name} cannot be trained as it is, which is not the delivery's fault: {error}"
                )
                return None
        return None

    def _is_at_fault(self, error: Exception, partition: str) -> bool:
        """Whether the delivery is: the same code makes rows of another partition."""
        others = [name for name in self.complete if name != partition]
        if not others or self.model.datasets[self.landed.dataset] == "all":
            return isinstance(error, RowsRefused)
        try:
            self._rows(others[-1])
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

    # ── ids ───────────────────────────────────────────────────────────────────────────────────────

    def _repeated_ids(self, partition: str, made: Path) -> str | None:
        """Which ids stand in another partition as well."""
        import numpy as np
        import pandas as pd

        from tasks.modelling import rows

        mine = _hashes(made)
        for other, others in self._others(partition):
            both = np.intersect1d(mine, others, assume_unique=True)
            if both.size:
                ids = pd.read_parquet(made, columns=["id"])["id"]
                which = np.flatnonzero(np.isin(rows.row_hashes(ids), both))
                places = ", ".join(str(row + 1) for row in which[:5])
                return (
                    f"models/{self.name}/rows, partition {partition}: {both.size:,} ids stand in {other} too, such as "
                    f"{ids.iloc[which[0]]!r} (rows {places}); an id must name one row. A correction is delivered under "
                    f"the name of its partition"
                )
        return None

    def _others(self, partition: str) -> Iterator[tuple[str, npt.NDArray[np.uint64]]]:
        """The ids of the other partitions, as far as there are rows of them."""
        for other in self.complete:
            if other != partition:
                try:
                    yield other, _hashes(self._rows(other))
                except NOT_LOADED:  # `prepare` reports it; it is no reason to refuse this one
                    continue

    def _other_labels(self, partition: str, made: Path) -> str | None:
        """Whether its labels are of another kind than those of the newest other partition."""
        with TemporaryDirectory(dir=settings.VAR) as folder:
            others = [name for name in self.complete if name != partition][-1:]
            for name in (*others, partition):
                (Path(folder) / f"{name}.parquet").symlink_to(made if name == partition else self._rows(name))
            try:
                consistency.refuse_labels_of_two_kinds(Path(folder), [*others, partition], self.name)
            except ModelCodeError as error:
                return str(error)
        return None

    # ── rows ──────────────────────────────────────────────────────────────────────────────────────

    def _rows(self, partition: str) -> Path:
        names = prepare.tables_of(partition, self.manifest, self.model)
        tables: prepare.Tables = {
            dataset: {self.paths[dataset][file]: self.manifest[dataset][file] for file in of}
            for dataset, of in names.items()
        }
        return prepare.rows_of(self.name, self.model, partition, tables, self._makers)

    @cached_property
    def _makers(self) -> Mapping[str, Any]:
        written = settings.BUILD / "environment" / "training.txt"
        packages = written.read_text(encoding="utf-8") if written.exists() else locked_packages.text("training")
        return prepare.made_by(self.name, self.model, packages)

    def _md5s(self, paths: Mapping[str, Path]) -> dict[str, str]:
        md5 = file_hashes.md5s([path for path in paths.values() if path != self.local])
        return {name: files.md5(path) if path == self.local else md5[path] for name, path in paths.items()}


def _hashes(made: Path) -> npt.NDArray[np.uint64]:
    """The hashes of the ids of some rows, sorted."""
    import numpy as np

    from tasks.modelling import rows

    key = {"rows": made.name, "code": files.sha256(Path(rows.__file__))}
    kept: npt.NDArray[np.uint64] = np.load(files.memo("ids", key, ".npy", partial(_write_hashes, made)), mmap_mode="r")
    return kept


def _write_hashes(made: Path, target: Path) -> None:
    import numpy as np
    import pandas as pd

    from tasks.modelling import rows

    with target.open("wb") as stream:
        np.save(stream, np.unique(rows.row_hashes(pd.read_parquet(made, columns=["id"])["id"])))

"""Dry run of a delivery: what ingest would say of a file, without taking it in or recording anything."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.data import file_hashes, landing, validate
from tasks.data.quarantine import Refusal
from tasks.data.zones import Landed
from tasks.ground.errors import Mistake, did_you_mean
from tasks.ground.params import Params
from tasks.lifecycle import trial_prepare


def examine(file: Path, params: Params, dataset: str, partition: str | None = None) -> tuple[bool, list[str]]:
    """Whether a file would be accepted as a partition, and what would be said of it.

    Args:
        file: the delivery.
        params: params.yaml, or the part of it that is to be asked.
        dataset: whose partition it would be.
        partition: its name; None: the file's.

    Raises:
        Mistake: there is no such file or dataset.
    """
    if not file.is_file():
        raise Mistake(f"{file} is not there, or no file")
    if dataset not in params.datasets:
        raise Mistake(f"no model reads a dataset {dataset!r}{did_you_mean(dataset, params.datasets)}")
    name = partition or file.stem
    landed = Landed(dataset, name, f"{dataset}/{name}{file.suffix}", seen="")
    if refusal := landing.misplaced(landed, params):
        return False, [f"{file.name} would be refused: {refusal.reason}", refusal.todo]
    with TemporaryDirectory() as folder:
        local = Path(folder) / f"{name}{file.suffix}"
        local.symlink_to(file.resolve())
        refused = landing.refuse(landed, local, params) or trial_prepare.check_of(params, lambda _: None)(landed, local)
        if refused:
            return False, _refused(file, landed, refused)
        before, _ = validate.neighbours(name, validate.partitions(dataset))
        reports = [validate.check(local, dataset, model, before) for model in params.readers(dataset)]
        same = any(file_hashes.md5(path) == file_hashes.md5(local) for path in landing.in_data(dataset, name))
    lines = [f"{file.name} would be accepted as {landed}"]
    lines += [f"  by {r.model}: {r.rows or 0:,} rows, {len(r.checks) - len(r.left_out)} checks passed" for r in reports]
    lines += [f"  not checked: {left.name}: {left.reason}" for report in reports for left in report.left_out]
    return True, [*lines, *(["its content is in data/ already: nothing would change"] if same else [])]


def _refused(file: Path, landed: Landed, refusal: Refusal) -> list[str]:
    sentences = [f"  by {r.model}: {failure.sentence()}" for r in refusal.reports for failure in r.failures]
    return [f"{file.name} would be refused as {landed}: {refusal.reason}", *sentences, refusal.todo]

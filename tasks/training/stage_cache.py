"""Stat cache in front of DVC: whether anything was touched since DVC last found that a model has nothing to do.

Importing DVC and reading its graph takes a second, and most triggers find nothing to do. So the stat data of all that
DVC looked at are kept, as git's index and DVC's own state do; the time of the last status change is part of them, so
that an edit which keeps size and modification time is seen too. Where anything looks different, DVC is asked again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.ground import files, outcome_cache, paths, settings

ALWAYS = ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore", ".dvc/config", ".dvc/config.local")
"""What decides which stages there are, and what DVC sees of their files."""

SETTLED_NS = 1_000_000_000
"""What changed less than this before DVC looked may have changed while it looked."""


def stages(model: str) -> list[str] | None:
    """The stages of a model, where nothing they depend on was touched since DVC found them up to date."""
    entry = paths.stage_states(model)
    known = outcome_cache.recall(entry, lambda: files.digest(_look(outcome_cache.last_outcome(entry)["paths"])))
    return known["stages"] if known else None


def remember(model: str, names: list[str], looked_at: Iterable[str], began_ns: int) -> None:
    """Keep that these stages had nothing to do when DVC looked, from `began_ns` on, at these paths (below the root)."""
    looked_at = sorted({*ALWAYS, *looked_at})
    stats = _look(looked_at)
    if max(stat[0] for stat in stats.values() if stat) < began_ns - SETTLED_NS:
        outcome_cache.keep(paths.stage_states(model), files.digest(stats), {"stages": names, "paths": looked_at})


def _look(names: Iterable[str]) -> dict[str, list[int] | None]:
    """The stat data of some paths, and of all that is below them; None for one that does not exist."""
    return {path: stat for name in names for path, stat in _stats(settings.ROOT / name)}


def _stats(path: Path) -> Iterator[tuple[str, list[int] | None]]:
    try:
        stat = os.stat(path)  # noqa: PTH116 - of what a link points to
    except FileNotFoundError:
        yield str(path), None
        return
    yield str(path), [stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size, stat.st_ino]
    if path.is_dir():
        for name in sorted(os.listdir(path)):  # noqa: PTH208 - names are all that is needed
            if name != "__pycache__":
                yield from _stats(path / name)

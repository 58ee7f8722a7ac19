"""Whether anything was touched since DVC last found that a model has nothing to do: told in milliseconds, without DVC.

Importing DVC and reading its graph takes a second, and most wake-ups find nothing to do. So what DVC looked at then is
remembered by its stat data, as git's index and DVC's own state do; the time of the last status change is part of it, so
that an edit which keeps size and modification time is seen too. Anything that looks different, and DVC is asked again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.ground import files, paths, settings

ALWAYS = ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore", ".dvc/config", ".dvc/config.local")
"""What decides which stages there are, and what DVC sees of their files."""

SETTLED_NS = 1_000_000_000
"""What changed less than this before DVC looked may have changed while it looked."""

Seen = dict[str, list[int] | None]


def stages(model: str) -> list[str] | None:
    """The stages of a model, when nothing they depend on was touched since they were found to be up to date."""
    known = files.read_state(_memo(model), dict[str, Any]())
    if not known or files.digest(_look(known["paths"])) != known["seen"]:
        return None
    found: list[str] = known["stages"]
    return found


def remember(model: str, found: list[str], paths: Iterable[str], began_ns: int) -> None:
    """Keep that these stages had nothing to do when DVC looked, from `began_ns` on, at these paths (below the root)."""
    wanted = sorted({*ALWAYS, *paths})
    seen = _look(wanted)
    if max(stat[0] for stat in seen.values() if stat) < began_ns - SETTLED_NS:
        files.write_json(_memo(model), {"stages": found, "paths": wanted, "seen": files.digest(seen)})


def _memo(model: str) -> Path:
    return paths.stage_states(model)


def _look(paths: Iterable[str]) -> Seen:
    return {name: stat for path in paths for name, stat in _stats(settings.ROOT / path)}


def _stats(path: Path) -> Iterator[tuple[str, list[int] | None]]:
    """A path, and all that is below it; None for one that is not there."""
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

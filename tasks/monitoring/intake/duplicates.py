"""Keys of rows, and those that were asked again: of several predictions by one release for one row the newest counts.

A *key* is a hash of a row's own key and of the release: the same row asked of the same release. Beside each file of
rows, `<name>.npy` holds its keys, sorted, with the time of the last row of each: an array of shape (2, keys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Hashes = npt.NDArray[np.uint64]
    KeyTimes = npt.NDArray[np.uint64]
    """Keys, and below them times (µs, UTC; int64 viewed as uint64): shape (2, keys)."""

KEYS = 2_000_000
"""So many new keys are looked up at once in all files: 16 bytes each."""


def row_key_hashes(keys: pa.ChunkedArray) -> Hashes:
    """A hash per row key, as rows.row_hashes has it of ids; 0 where a row has none."""
    import numpy as np
    import pyarrow.compute as pc

    from tasks.modelling import rows

    has_key = np.asarray(pc.is_valid(keys))
    if not has_key.any():
        return np.zeros(len(keys), dtype=np.uint64)
    hashes = rows.row_hashes(pc.fill_null(keys, "").to_pandas())
    return np.where(has_key, np.maximum(hashes, np.uint64(1)), np.uint64(0))


def release_keys(hashes: Hashes, releases: pa.ChunkedArray) -> Hashes:
    """The key of each row; 0 where it has no row key."""
    import hashlib

    import numpy as np

    encoded = releases.combine_chunks().dictionary_encode()
    digests = [hashlib.sha256(str(release).encode()).digest() for release in encoded.dictionary.to_pylist()]
    salts = np.array([int.from_bytes(digest[:8]) for digest in digests], dtype=np.uint64)
    return np.where(hashes == 0, np.uint64(0), hashes ^ salts[np.asarray(encoded.indices)])


def key_times(table: pa.Table) -> KeyTimes:
    """The keys of rows with `hash`, `release` and `time`."""
    import numpy as np

    keys = release_keys(table["hash"].to_numpy(), table["release"])
    times = table["time"].cast("int64").to_numpy().view(np.uint64)
    return newest([np.stack([keys, times])[:, keys != 0]])


def newest(parts: Sequence[KeyTimes]) -> KeyTimes:
    """The keys of several, sorted, each once with its last time."""
    import numpy as np

    keys, times = np.concatenate([np.empty((2, 0), dtype=np.uint64), *parts], axis=1)
    order = np.lexsort((times.view(np.int64), keys))
    keys, times = keys[order], times[order]
    is_last = np.append(keys[1:] != keys[:-1], np.ones(min(len(keys), 1), dtype=bool))
    return np.stack([keys[is_last], times[is_last]])


def load(path: Path) -> KeyTimes:
    """The keys of a file, memory-mapped."""
    import numpy as np

    keys: KeyTimes = np.load(path, mmap_mode="r")
    return keys


def common(some: Hashes, others: Hashes) -> Hashes:
    """What stands in both; both sorted. The fewer are looked up among the more."""
    import numpy as np

    few, many = (some, others) if len(some) < len(others) else (others, some)
    return few[positions(few, many) >= 0] if len(few) else np.empty(0, dtype=np.uint64)


def positions(wanted: Hashes, among: Hashes) -> npt.NDArray[np.int64]:
    """Where each stands among others, which are sorted; −1 where it does not."""
    import numpy as np

    if not len(among):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return np.where(among[at] == wanted, at, -1)


class DuplicateKeys:
    """Finds the keys of new files that also stand in another file."""

    def __init__(self, folder: Path, files: Mapping[str, Sequence[str]]) -> None:
        self.folder = folder
        self.files = {day: list(names) for day, names in files.items()}
        """Day → its files, searched or written before."""
        self.fresh: list[tuple[str, str, KeyTimes]] = []
        self.duplicates: list[KeyTimes] = []
        self.days: set[str] = set()
        """Days of which a file has a duplicate key."""

    def add(self, day: str, name: str, keys: KeyTimes) -> None:
        """A new file of a day."""
        self.fresh.append((day, name, keys))
        if sum(own.shape[1] for _, _, own in self.fresh) >= KEYS:
            self.find()

    def find(self) -> None:
        """Compare the keys of new files with each other, and with those of all earlier files."""
        import numpy as np

        fresh, self.fresh = self.fresh, []
        every = np.concatenate([np.empty((2, 0), dtype=np.uint64), *(keys for _, _, keys in fresh)], axis=1)
        keys, counts = np.unique(every[0], return_counts=True)
        repeated = [keys[counts > 1]]
        for day, name in [(day, name) for day, names in self.files.items() for name in names] if len(keys) else ():
            earlier = load(self.folder / day / f"{name}.npy")
            if len(both := common(keys, earlier[0])):
                self.duplicates.append(earlier[:, np.isin(earlier[0], both)])
                self.days.add(day)
                repeated.append(both)
        if len(both := np.unique(np.concatenate(repeated))):
            self.duplicates.append(every[:, np.isin(every[0], both)])
            self.days |= {day for day, _, own in fresh if len(common(own[0], both))}
        for day, name, _ in fresh:
            self.files.setdefault(day, []).append(name)

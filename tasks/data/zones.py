"""Landing zone and quarantine: what arrives in a folder or a bucket, and whether it was replaced since."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.ground import files, settings
from tasks.ground.addresses import masked
from tasks.ground.storage import Location, naming_full_disk


@dataclass(frozen=True)
class Landed:
    """A file in the landing zone, as it was when it was read."""

    dataset: str
    partition: str
    path: str
    """Its name below the zone."""
    seen: str
    """What it looked like (size, times, tag): a file that was replaced since looks different."""
    reason: str | None = None
    """Why it was quarantined, or not taken."""

    def __str__(self) -> str:
        return f"{self.dataset} {self.partition}"


class Zone(Location):
    """A folder or a bucket's prefix in which files arrive."""

    def look(self) -> list[tuple[Landed, float | None]]:
        """Every file that is not hidden or unfinished, with its age in seconds where the store knows it."""
        infos = self.files()
        if not infos:
            self._refuse_absent()
        result = []
        for name, info in infos.items():
            path = PurePosixPath(name)
            dataset = "/".join(path.parts[:-1])
            result.append((Landed(dataset, path.stem, name, _looks(info)), _age(info)))
        return result

    def fetch(self, landed: Landed, local: Path) -> bool:
        """Copy a landed file here; False when it is gone or was replaced since it was seen."""
        if not self._is_unchanged(landed):
            return False
        with self.translated_errors(), naming_full_disk("var/incoming/"):
            self.fs.get_file((self / landed.path).path, str(local))
        return self._is_unchanged(landed)

    def clear(self, landed: Landed) -> None:
        """Remove a landed file, unless it was replaced since it was seen."""
        if self._is_unchanged(landed):
            with self.translated_errors():
                self.fs.rm_file((self / landed.path).path)

    def put_folder(self, name: str, folder: Path) -> None:
        """Write the files of a folder: at once where a rename can do it, else one by one, the report.json last."""
        target = self / name
        if target.local:
            with naming_full_disk(masked(self.url)), files.replacing(target.local) as beside:
                beside.mkdir()
                for path in folder.iterdir():
                    shutil.copyfile(path, beside / path.name)
            return
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "report.json"):
            (target / path.name).write_bytes(path.read_bytes())

    def _is_unchanged(self, landed: Landed) -> bool:
        info = (self / landed.path).info()
        return info is not None and _looks(info) == landed.seen

    def _refuse_absent(self) -> None:
        """An empty listing may also mean that the folder is not mounted or the bucket does not exist."""
        with self.translated_errors():
            if self.local:
                self.local.stat()
            else:
                self.fs.ls(self.path.split("/")[0])


def landing(url: str) -> Zone:
    """Where new partitions arrive, as params.yaml names it."""
    return _zone(url, "landing")


def quarantine(url: str) -> Zone:
    """Where refused partitions wait, as params.yaml names it."""
    return _zone(url, "quarantine")


def _zone(url: str, key: str) -> Zone:
    advice = f"Check `{key}` in params.yaml, the network and the credentials, then run again: nothing was lost"
    zone = Zone.of(url, label=f"the {key} zone ", advice=advice)
    if zone.local and zone.local.is_relative_to(settings.ROOT):
        zone.local.mkdir(parents=True, exist_ok=True)
    return zone


def _looks(info: Mapping[str, Any]) -> str:
    """What tells that a file was replaced: its size and the store's own tag, or else its time and inode."""
    lower = {key.lower(): info[key] for key in info}
    tag = lower.get("etag") or lower.get("md5hash")
    return files.digest([lower.get("size"), str(tag) if tag else [str(_moment(info)), lower.get("ino")]])


def _age(info: Mapping[str, Any]) -> float | None:
    moment = _moment(info)
    return None if moment is None else time.time() - moment


def _moment(info: Mapping[str, Any]) -> float | None:
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        moment = info.get(key)
        if moment is not None:
            seconds = moment.timestamp() if hasattr(moment, "timestamp") else moment
            return float(seconds) if isinstance(seconds, int | float) else None
    return None

"""places: the landing zone and the quarantine, each a folder or a bucket's prefix, addressed by URL (fsspec)."""

from __future__ import annotations

import errno
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.ground import files, settings
from tasks.ground.errors import EvergreenError, SourceUnavailable, WorldError

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")


@dataclass(frozen=True)
class Landed:
    """A file in the landing zone, as it was when it was read."""

    dataset: str
    partition: str
    path: str
    """Where it lies, as its file system names it."""
    seen: str
    """What it looked like (size, times, tag): a file that was replaced since looks different."""
    reason: str | None = None
    """Why it was quarantined, or not taken."""

    def __str__(self) -> str:
        return f"{self.dataset} {self.partition}"


@dataclass(frozen=True)
class Place:
    """A folder or a bucket's prefix."""

    fs: Any
    root: str
    url: str = field(repr=False)  # may hold credentials
    role: str

    @classmethod
    def of(cls, url: str, role: str) -> Place:
        """The place a URL or a path (relative ones are below settings.ROOT) names."""
        from fsspec.core import url_to_fs

        with _reaching(url, role):
            fs, root = url_to_fs(url if "://" in url else str(settings.ROOT / url))
        place = cls(fs, root.rstrip("/"), url, role)
        if place.local and Path(root).is_relative_to(settings.ROOT):
            Path(root).mkdir(parents=True, exist_ok=True)
        return place

    @property
    def local(self) -> bool:
        """Whether this is a folder, where a rename replaces in one step."""
        return "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    @property
    def shown(self) -> str:
        """The address as it may be shown."""
        return masked(self.url)

    def name(self, path: str) -> str:
        """A path of this place's file system, as a name below it."""
        return path.removeprefix(self.root).strip("/")

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder; without a name, whether there is this place."""
        with _reaching(self.url, self.role):
            self.fs.invalidate_cache()
            return bool(self.fs.exists(f"{self.root}/{name}".rstrip("/")))

    def names(self, folder: str) -> list[str]:
        """What lies in a folder below it, as names below it; nothing where there is no such folder."""
        if not self.exists(folder):
            return []
        with _reaching(self.url, self.role):
            return sorted(self.name(path) for path in self.fs.ls(f"{self.root}/{folder}", detail=False))

    def read(self, name: str) -> bytes:
        """The bytes of a file below it."""
        with _reaching(self.url, self.role):
            content: bytes = self.fs.cat_file(f"{self.root}/{name}")
            return content

    def look(self) -> list[tuple[Landed, float | None]]:
        """Every file that is not hidden or unfinished, with its age in seconds where the store knows it."""
        with _reaching(self.url, self.role):
            self.fs.invalidate_cache()
            found: Mapping[str, Mapping[str, Any]] = self.fs.find(self.root, detail=True)
            if not found:
                self._must_be_there()
        result = []
        for path in sorted(found):
            parts = PurePosixPath(self.name(path)).parts
            if not any(part.startswith(".") and part != ".." for part in parts) and not path.endswith(UNFINISHED):
                stem, dataset = PurePosixPath(path).stem, "/".join(parts[:-1])
                result.append((Landed(dataset, stem, path, _looks(found[path])), _age(found[path])))
        return result

    def get(self, landed: Landed, local: Path) -> bool:
        """Copy a landed file here; False when it is gone or was replaced since it was seen."""
        if not self._unchanged(landed):
            return False
        with _reaching(self.url, self.role), disk("var/incoming/"):
            self.fs.get_file(landed.path, str(local))
        return self._unchanged(landed)

    def clear(self, landed: Landed) -> None:
        """Remove a landed file, unless it was replaced since it was seen."""
        if self._unchanged(landed):
            with _reaching(self.url, self.role):
                self.fs.rm_file(landed.path)

    def remove(self, name: str) -> None:
        """Remove a file or a folder below it, if it is there."""
        if self.exists(name):
            with _reaching(self.url, self.role):
                self.fs.rm(f"{self.root}/{name}", recursive=True)

    def put_bytes(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        if self.local:
            with disk(masked(self.url)), files.replacing(Path(self.root) / name) as beside:
                beside.write_bytes(content)
            return
        with _reaching(self.url, self.role):
            self.fs.pipe_file(f"{self.root}/{name}", content)

    def put_folder(self, name: str, folder: Path) -> None:
        """Write the files of a folder: at once where a rename can do it, else one by one, the report.json last."""
        if self.local:
            with disk(masked(self.url)), files.replacing(Path(self.root) / name) as beside:
                beside.mkdir()
                for path in folder.iterdir():
                    shutil.copyfile(path, beside / path.name)
            return
        with _reaching(self.url, self.role):
            for path in sorted(folder.iterdir(), key=lambda path: path.name == "report.json"):
                self.fs.pipe_file(f"{self.root}/{name}/{path.name}", path.read_bytes())

    def _unchanged(self, landed: Landed) -> bool:
        with _reaching(self.url, self.role):
            self.fs.invalidate_cache()
            try:
                return _looks(self.fs.info(landed.path)) == landed.seen
            except FileNotFoundError:
                return False

    def _must_be_there(self) -> None:
        """An empty listing may also mean that the folder is not mounted or the bucket does not exist."""
        if self.local:
            Path(self.root).stat()
        else:
            self.fs.ls(self.root.split("/")[0])


def _looks(info: Mapping[str, Any]) -> str:
    """What tells that a file was replaced: its size and the store's own tag, or else its time and inode."""
    lower = {key.lower(): info[key] for key in info}
    tag = lower.get("etag") or lower.get("md5hash")
    return files.digest([lower.get("size"), str(tag) if tag else [str(_moment(info)), lower.get("ino")]])


def _age(info: Mapping[str, Any]) -> float | None:
    """Seconds since a file last changed, as far as the store says."""
    moment = _moment(info)
    return None if moment is None else time.time() - moment


def _moment(info: Mapping[str, Any]) -> float | None:
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        moment = info.get(key)
        if moment is not None:
            seconds = moment.timestamp() if hasattr(moment, "timestamp") else moment
            return float(seconds) if isinstance(seconds, int | float) else None
    return None


def masked(text: str, url: str = "") -> str:
    """A text as it may be shown: without what stands before the @ of the URLs in it, nor of this one."""
    for secret in re.findall(r"://([^/@]*)@", url):
        text = text.replace(secret, "***")
    return re.sub(r"://[^/@]*@", "://***@", text)


@contextmanager
def _reaching(url: str, role: str) -> Iterator[None]:
    """Whatever a store's own client raises, said as one error."""
    try:
        yield
    except EvergreenError:
        raise
    except Exception as error:  # every store has its own client with its own exceptions; none is swallowed
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise _full(masked(url), error) from error
        said = " ".join(str(error).split()) or type(error).__name__
        raise SourceUnavailable(
            f"the {role} zone {masked(url)} cannot be reached: {masked(said, url)}. "
            f"Check `{role}` in params.yaml, the network and the credentials, then run again: nothing was lost"
        ) from error


@contextmanager
def disk(where: str) -> Iterator[None]:
    """A full disk, said as such. What was being written is gone (files.replacing), what was there is untouched."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(where, error) from error
        raise


def _full(where: str, error: OSError) -> WorldError:
    named = f" ({error.filename})" if error.filename else ""
    return WorldError(
        f"no space left on the disk while writing to {where}{named}. "
        "Nothing is half-written; free some space, then run again"
    )

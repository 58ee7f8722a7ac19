"""Storage: files and folders on this machine or in a bucket, by path or URL. The one module that imports fsspec."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any, Self

from tasks.ground import files, settings
from tasks.ground.addresses import masked
from tasks.ground.errors import EvergreenError, SourceUnavailable, WorldError
from tasks.ground.words import one_line

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")
"""Suffixes of files that are still being written."""


@dataclass(frozen=True)
class Location:
    """A file or a folder, here or in a bucket; `/` names what lies below.

    Raises:
        SourceUnavailable: by every method in which the store's client fails.
    """

    fs: Any
    path: str
    url: str = field(repr=False)  # may hold credentials
    label: str = ""
    """How an error names it before its address, such as `the landing zone `."""
    advice: str = "Check the address, the network and the credentials, then run again: what was written stays"

    @classmethod
    def of(cls, url: str, **words: str) -> Self:
        """What a URL or a path names (relative ones are below settings.ROOT); `words` are label and advice."""
        from fsspec.core import url_to_fs

        named = cls(None, "", url.rstrip("/"), **words)
        with named.translated_errors():
            fs, path = url_to_fs(url if "://" in url else str(settings.ROOT / url))
        return replace(named, fs=fs, path=path.rstrip("/"))

    def __truediv__(self, name: str) -> Self:
        return replace(self, path=f"{self.path}/{name}", url=f"{self.url}/{name}")

    @property
    def local(self) -> Path | None:
        """As a path, where it is on this machine and a rename replaces in one step."""
        protocols = self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        return Path(self.path) if "file" in protocols else None

    @property
    def shown(self) -> str:
        """The address without credentials; on this machine, below the project."""
        if self.local and self.local.is_relative_to(settings.ROOT):
            return self.local.relative_to(settings.ROOT).as_posix()
        return masked(self.url)

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Whatever a store's own client raises becomes one error."""
        try:
            yield
        except EvergreenError:
            raise
        except Exception as error:  # every store has its own client with its own exceptions; none is swallowed
            address = masked(self.url)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise _full(address, error) from error
            reason = masked(one_line(error) or type(error).__name__, self.url)
            raise SourceUnavailable(f"{self.label}{address} cannot be reached: {reason}. {self.advice}") from error

    # ── what is there ─────────────────────────────────────────────────────────────────────────────

    def exists(self) -> bool:
        """Whether there is such a file or folder now, whatever the client has cached."""
        with self.translated_errors():
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self.path))

    def is_file(self) -> bool:
        """Whether it is a file."""
        with self.translated_errors():
            return bool(self.fs.isfile(self.path))

    def is_folder(self) -> bool:
        """Whether something lies below."""
        with self.translated_errors():
            return bool(self.fs.isdir(self.path))

    def info(self) -> Mapping[str, Any] | None:
        """What the store says of a file now; None where it is gone."""
        with self.translated_errors():
            self.fs.invalidate_cache()
            try:
                return dict(self.fs.info(self.path))
            except FileNotFoundError:
                return None

    def names(self) -> list[str]:
        """Names directly below it; none where there is no such folder."""
        if not self.exists():
            return []
        with self.translated_errors():
            return sorted(PurePosixPath(path).name for path in self.fs.ls(self.path, detail=False))

    def files(self) -> dict[str, Mapping[str, Any]]:
        """Every file below that is neither hidden nor unfinished: its path from here → what the store says of it."""
        with self.translated_errors():
            self.fs.invalidate_cache()
            infos = self.fs.find(self.path, detail=True)
        below = {path.removeprefix(self.path).strip("/"): infos[path] for path in sorted(infos)}
        return {
            name: info
            for name, info in below.items()
            if not re.search(r"(^|/)\.(?!\.(/|$))", name) and not name.endswith(UNFINISHED)
        }

    def size(self) -> int:
        """Bytes of a file."""
        with self.translated_errors():
            return int(self.fs.size(self.path) or 0)

    def tag(self) -> str | None:
        """The store's own tag of a file's content; None on this machine, where a file is hashed instead."""
        with self.translated_errors():
            return None if self.local else str(self.fs.ukey(self.path))

    # ── reading ───────────────────────────────────────────────────────────────────────────────────

    def read(self) -> bytes:
        """The bytes of a file."""
        with self.translated_errors():
            return bytes(self.fs.cat_file(self.path))

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """A stream of a file's bytes that can seek."""
        with self.translated_errors(), self.fs.open(self.path, "rb") as stream:
            yield stream

    def on_this_machine(self, folder: Path) -> Path:
        """The file itself where it is local; else a copy below a folder."""
        if self.local:
            return self.local
        target = folder / hashlib.sha256(self.path.encode()).hexdigest()[:16] / PurePosixPath(self.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.translated_errors():
            self.fs.get_file(self.path, str(target))
        return target

    # ── writing ───────────────────────────────────────────────────────────────────────────────────

    def write(self, writer: Callable[[Path], object], temporary: Path) -> None:
        """Have `writer` write the file, whole or not at all; what goes to a bucket is written to a folder first."""
        if self.local:
            with (
                settings.for_others(self.local),
                naming_full_disk(masked(self.url)),
                files.replacing(self.local) as path,
            ):
                writer(path)
            return
        with TemporaryDirectory(dir=temporary, prefix=f".write.{os.getpid()}-", suffix=".tmp") as folder:
            writer(Path(folder) / "content")
            with self.translated_errors():
                self.fs.put_file(str(Path(folder) / "content"), self.path)

    def write_bytes(self, content: bytes) -> None:
        """Write a file, whole or not at all."""
        if self.local:
            self.write(lambda path: path.write_bytes(content), self.local)
            return
        with self.translated_errors():
            self.fs.pipe_file(self.path, content)

    def remove(self) -> None:
        """Remove a file or a folder, if it is there."""
        if self.exists():
            with self.translated_errors():
                self.fs.rm(self.path, recursive=True)


@contextmanager
def naming_full_disk(where: str) -> Iterator[None]:
    """Make a full disk an error of ours. What was being written is gone (files.replacing), what was there is not."""
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

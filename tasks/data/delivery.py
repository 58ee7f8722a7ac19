"""Upstream: the module of params.yaml that plays the outside world; it delivers, and gives a lost version again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from tasks.data import versions, zones
from tasks.data.revisions import Listing
from tasks.data.versions import DataVersion
from tasks.ground import settings
from tasks.ground.errors import DataMissing, DataVersionDiffers, ParamsError, SourceUnavailable, did_you_mean
from tasks.ground.params import Params
from tasks.ground.words import listed

Log = Callable[[str], object]


def deliver(params: Params, partitions: list[str], log: Log = print) -> list[str]:
    """Have the upstream put partitions into the landing zone; gives the names of its files.

    Raises:
        ParamsError: params.yaml names no upstream, or one that cannot be imported.
        DataMissing: the upstream has no such partition.
        SourceUnavailable: the landing zone cannot be reached.
    """
    source = upstream(params)
    if unknown := [name for name in partitions if name not in source.partitions()]:
        hint = did_you_mean(unknown[0], source.partitions())
        raise DataMissing(f"the upstream {params.upstream} has no partition {unknown[0]!r}{hint}")
    landing = zones.landing(params.landing)
    put = []
    for partition in partitions:
        for dataset, name, content in offered(source, params.datasets, partition):
            (landing / dataset / name).write_bytes(content)
            put.append(f"{dataset}/{name}")
            log(f"delivered {dataset}/{name} ({len(content):,} bytes)")
    return put


def upstream(params: Params) -> ModuleType:
    """The module that plays the outside world: it has `partitions()` and `deliver(dataset, partition)`."""
    if params.upstream is None:
        raise ParamsError(
            "params.yaml: upstream is null, so nobody here delivers partitions: "
            "put files into the landing zone yourself"
        )
    try:
        module = import_module(params.upstream)
    except ImportError as error:
        raise ParamsError(f"params.yaml: upstream: {params.upstream} cannot be imported: {error}") from None
    for name in ("partitions", "deliver"):
        if not callable(getattr(module, name, None)):
            raise ParamsError(f"params.yaml: upstream: {params.upstream} has no {name}()")
    return module


def offered(source: ModuleType, datasets: list[str], partition: str) -> Iterator[tuple[str, str, bytes]]:
    """What an upstream has of one partition, as (dataset, file name, bytes); it need not have every dataset."""
    for dataset in datasets:
        try:
            name, content = source.deliver(dataset, partition)
        except LookupError:
            continue
        yield dataset, name, content


def restore(params: Params, log: Log = print) -> bool:
    """Bring the version that data.dvc names into data/: from the remote, else from the upstream.

    The upstream's partitions are accepted only when they hash to the same version. False when data/ holds it already.

    Raises:
        DataVersionDiffers: the upstream gives something else now, or data/ holds files that are in no version.
        DataMissing: there is no data.dvc, or neither the remote nor an upstream has its version.
    """
    named = versions.named()
    if named is None:
        raise DataMissing("there is no data.dvc: no data version was made yet. Let partitions arrive and run ingest")
    if versions.present():
        log(f"data/ holds {named.md5} already")
        return False
    try:
        versions.pull()
    except SourceUnavailable as error:
        if params.upstream is None:
            raise DataMissing(f"{error}. params.yaml names no upstream that could be asked for it again") from error
        log("the remote does not have it; asking the upstream again")
        count = _fill_cache(named, params, log)
        versions.pull()
        log(f"brought {named.md5} from the upstream: {count} partitions, the hash is the same")
        versions.push()
    else:
        log(f"brought {named.md5} from the remote")
    return True


def _fill_cache(named: DataVersion, params: Params, log: Log) -> int:
    """Put what the upstream gives into DVC's cache, if it is that version; gives the number of files."""
    settings.VAR.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.VAR, prefix="restore-") as staging:
        folder = Path(staging)
        partitions = _download(named, params, folder, log)
        given = versions.tree(folder)
        if versions.dir_hash(given) != named.md5:
            raise DataVersionDiffers(_difference(named, given, partitions, folder))
        versions.put_into_cache(folder, given)
        return len(given)


def _download(named: DataVersion, params: Params, folder: Path, log: Log) -> list[str]:
    """Ask for partitions, oldest first, until there are as many files as data.dvc names; gives the partitions."""
    source = upstream(params)
    partitions, count = [], 0
    for partition in source.partitions():
        if named.nfiles is not None and count >= named.nfiles:
            break
        for dataset, name, content in offered(source, params.datasets, partition):
            target = folder / dataset / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            count += 1
        partitions.append(partition)
        log(f"asked for {partition}")
    return partitions


def _difference(named: DataVersion, given: Listing, partitions: list[str], folder: Path) -> str:
    """Which partitions are not what data.dvc names, where its listing can be had; else the sizes."""
    if not partitions:
        return f"the upstream has no partitions, and data.dvc names {named.md5}"
    if kept := versions.files_of(named.md5):
        which = sorted(name for name in {*kept, *given} if kept.get(name) != given.get(name))
        detail = f"these differ: {listed(which, 5)}"
    else:
        size = sum((folder / name).stat().st_size for name in given)
        detail = (
            f"it gave {len(given)} files of {size:,} bytes, data.dvc names {named.nfiles} of {named.size or 0:,}; "
            f"which partition differs is not known, as neither the cache nor the remote has the listing of that version"
        )
    return (
        f"the upstream ({partitions[0]} to {partitions[-1]}) gives {versions.dir_hash(given)}, and data.dvc names "
        f"{named.md5}: {detail}. Nothing was put into data/. Is data.dvc the committed one, and the upstream the one "
        f"in requirements.lock? Otherwise pull from a remote that has the version"
    )

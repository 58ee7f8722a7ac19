"""Deliveries of a simulated upstream: the module of params.yaml that plays the outside world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

from tasks.data import zones
from tasks.ground.errors import DataMissing, ParamsError, did_you_mean
from tasks.ground.params import Params

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

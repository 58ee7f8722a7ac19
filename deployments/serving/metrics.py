"""Prometheus exposition of the router's counters, made when it is scraped."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

from deployments.serving.replica_pool import EDGES_MS
from deployments.serving.served_model import ServedModel


def exposition(models: Collection[ServedModel], shed: int) -> bytes:
    """The text format, of all served models and the requests that were rejected with 503."""
    from prometheus_client import generate_latest

    return generate_latest(SimpleNamespace(collect=lambda: _families(models, shed)))


def _families(models: Collection[ServedModel], shed: int) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    labels = ["model", "release"]
    requests = CounterMetricFamily("evergreen_requests", "Answers", labels=[*labels, "code"])
    seconds = HistogramMetricFamily("evergreen_request_seconds", "From request to answer", labels=labels)
    waiting = GaugeMetricFamily("evergreen_waiting_requests", "Asked and not answered yet", labels=labels)
    unseen = CounterMetricFamily(
        "evergreen_unseen_categories", "Rows with a category the model never saw", labels=[*labels, "feature"]
    )
    lost = CounterMetricFamily("evergreen_log_lost", "Answers that the prediction log could not keep", labels=labels)
    edges = [*(str(edge / 1000) for edge in EDGES_MS), "+Inf"]
    for pool in (pool for model in models for pool in model.pools.values()):
        names, statistics = [pool.model, pool.candidate], pool.statistics()
        for code, number in pool.statuses.items():
            requests.add_metric([*names, str(code)], number)
        seconds.add_metric(names, list(zip(edges, accumulate(pool.latency), strict=True)), pool.seconds)
        waiting.add_metric(names, pool.waiting)
        lost.add_metric(names, statistics["lost"])
        for feature, number in statistics["unseen"].items():
            unseen.add_metric([*names, feature], number)
    rejected = CounterMetricFamily("evergreen_shed_requests", "Rejected with 503", value=shed)
    yield from (requests, seconds, waiting, unseen, lost, rejected)

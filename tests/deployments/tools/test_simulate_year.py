"""The year in fast time asks as production would have."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from deployments.tools import load, simulate_year
from tasks.ground import params
from tests.conftest import REPOSITORY


def test_each_day_is_asked_at_noon_of_the_models_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the monitor, which takes days by that zone, has the rows on their days; also far in the east."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(simulate_year, "_post", lambda _, body: asked.append(body))
    monkeypatch.setattr(load, "address", lambda: "")
    model = params.load(REPOSITORY / "params.yaml").model("hourly_departures")
    times = pd.to_datetime(["2013-03-09 23:00", "2013-03-10 00:30", "2013-03-10 23:30", "2013-07-01 05:00"])
    features = {name: one.example for name, one in model.features.items()}
    rows = pd.DataFrame([{**features, "time": time, "id": str(time)} for time in times])
    for zone, hours in {"America/New_York": [17, 16, 16], "Pacific/Kiritimati": [22, 22, 22], "UTC": [12] * 3}.items():
        asked.clear()
        simulate_year.request("hourly_departures", model.model_copy(update={"timezone": zone}), rows, 60)
        moments = [datetime.fromisoformat(body["time"]) for body in asked]
        assert [moment.astimezone(UTC).hour for moment in moments] == hours
        for moment, body in zip(moments, asked, strict=True):
            assert {key[:10] for key in body["keys"]} == {moment.astimezone(ZoneInfo(zone)).date().isoformat()}
        assert [len(body["rows"]) for body in asked] == [1, 2, 1]

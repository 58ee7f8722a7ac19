"""Scanned images → one row per image."""

from __future__ import annotations

import pandas as pd


def rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The grey of each pixel, and `label` (the digit), `time` and `id` of each image."""
    images = tables["digits"]
    pixels = images.filter(like="pixel_")
    ink = pixels.sum(axis=1)
    part = pd.cut(ink, [-1, 280, 330, 2000], labels=["little", "some", "much"]).astype("str")
    return pixels.assign(ink=part, label=images["digit"], time=images["scanned"], id=images["image"].astype(str))

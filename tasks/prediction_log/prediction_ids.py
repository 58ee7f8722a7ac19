"""A prediction's id (UUID 7) holds the millisecond in which it was answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


def moment(prediction_id: str) -> int:
    """When its request was answered, in ms since 1970."""
    return int(prediction_id[:12], 16)


def moments(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """When the requests of some predictions were answered, in ms since 1970; a hundred times as fast as `moment`."""
    import numpy as np
    import pyarrow.compute as pc

    if not len(ids):
        return np.empty(0, dtype=np.int64)
    texts = pc.utf8_slice_codeunits(ids, 0, 12).to_numpy().astype("S12")
    nibbles = np.frombuffer(texts.tobytes(), dtype=np.uint8).reshape(-1, 12)
    digits = np.where(nibbles >= ord("a"), nibbles - (ord("a") - 10), nibbles - ord("0")).astype(np.int64)
    return np.asarray(digits @ 16 ** np.arange(11, -1, -1, dtype=np.int64))

"""Arrow columns of text, made a million at a time. Knows nothing of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_HEX_PAIRS = np.frombuffer(bytes(range(256)).hex().encode(), dtype=np.uint8).reshape(256, 2)
_UUID_LENGTH = 36
# Where the 16 bytes' hexadecimal pairs stand in 8-4-4-4-12, and the dashes between them.
_UUID_PAIRS = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34]
_UUID_DASHES = [8, 13, 18, 23]
_MICROSECONDS = 1_000


def chosen(values: Sequence[str | None], index: NDArray[np.integer]) -> pa.StringArray:
    """Return `values[index]` for every index."""
    return cast("pa.StringArray", pa.array(values, pa.string()).take(pa.array(index)))


def where(condition: NDArray[np.bool_], values: pa.StringArray) -> pa.StringArray:
    """Return `values`, null where the condition does not hold."""
    return cast("pa.StringArray", pc.if_else(pa.array(condition), values, None))


def joined(*pieces: pa.StringArray | str) -> pa.StringArray:
    """Return the pieces side by side as one text each; a null piece adds nothing."""
    scalars = [pa.scalar(piece) if isinstance(piece, str) else piece for piece in pieces]
    # Not null_handling="skip": that leaves out rows whose pieces are all null.
    text = pc.binary_join_element_wise(
        *scalars, pa.scalar(""), null_handling="replace", null_replacement=""
    )
    return cast("pa.StringArray", text)


def uuid7(rng: np.random.Generator, times: NDArray[np.int64]) -> pa.StringArray:
    """Return a UUIDv7 for each time (microseconds since 1970), random beyond its millisecond."""
    raw = rng.integers(0, 256, (len(times), 16), dtype=np.uint8)
    milliseconds = (times // _MICROSECONDS).astype(">u8").view(np.uint8).reshape(-1, 8)
    raw[:, :6] = milliseconds[:, 2:]
    raw[:, 6] = (raw[:, 6] & 0x0F) | 0x70
    raw[:, 8] = (raw[:, 8] & 0x3F) | 0x80
    return _uuid_text(raw)


def _uuid_text(raw: NDArray[np.uint8]) -> pa.StringArray:
    count = len(raw)
    characters = np.empty((count, _UUID_LENGTH), dtype=np.uint8)
    pairs = _HEX_PAIRS[raw]
    for byte, place in enumerate(_UUID_PAIRS):
        characters[:, place : place + 2] = pairs[:, byte]
    characters[:, _UUID_DASHES] = ord("-")
    offsets = np.arange(0, (count + 1) * _UUID_LENGTH, _UUID_LENGTH, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(characters))

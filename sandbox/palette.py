"""Pictures of 256 colours: a third of the bytes, and a page looks the same. Knows no browser."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_COLOURS: Final = 256
_BITS: Final = 3  # lowest ones that are no difference: letters have many shades at their edges
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def to_png(pixels: bytes, width: int, height: int) -> bytes:
    """A PNG of these pixels of four bytes: red, green, blue, and one that is ignored."""
    rgb = np.frombuffer(pixels, np.uint8).reshape(-1, 4)[:, :3].astype(np.int64)
    palette, places = _quantised(rgb)
    rows = places.reshape(height, width).astype(np.uint8)
    unfiltered = np.insert(rows, 0, 0, axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = {
        b"IHDR": header,
        b"PLTE": palette.astype(np.uint8).tobytes(),
        b"IDAT": zlib.compress(unfiltered, 9),
        b"IEND": b"",
    }
    return _SIGNATURE + b"".join(_framed(chunks))


def _quantised(rgb: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The most frequent colours, and for each pixel the place of the one nearest to its own."""
    exact, where, counts = np.unique(_code(rgb), return_inverse=True, return_counts=True)
    colours = np.stack([exact >> 16, exact >> 8 & 255, exact & 255], axis=1)
    order = np.argsort(-counts, kind="stable")
    _, first = np.unique(_code(colours[order] >> _BITS), return_index=True)
    palette = colours[order[np.sort(first)[:_COLOURS]]]
    distances = ((colours[:, None, :] - palette[None, :, :]) ** 2).sum(axis=2)
    return palette, distances.argmin(axis=1)[where.reshape(-1)]


def _code(rgb: NDArray[np.int64]) -> NDArray[np.int64]:
    code: NDArray[np.int64] = rgb[:, 0] << 16 | rgb[:, 1] << 8 | rgb[:, 2]
    return code


def _framed(chunks: dict[bytes, bytes]) -> Iterator[bytes]:
    for name, content in chunks.items():
        checksum = zlib.crc32(name + content)
        yield struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

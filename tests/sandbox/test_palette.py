"""PNG images of 256 colours: they look like what was drawn."""

from __future__ import annotations

import struct
import zlib

from sandbox.palette import to_png


def pixels_of(png: bytes) -> list[tuple[int, ...]]:
    """The colour of each pixel, as a PNG reader finds it; checks the checksum of every chunk."""
    chunks = {}
    at = 8
    while at < len(png):
        length = struct.unpack(">I", png[at : at + 4])[0]
        named, checksum = png[at + 4 : at + 8 + length], png[at + 8 + length : at + 12 + length]
        assert struct.unpack(">I", checksum)[0] == zlib.crc32(named)
        chunks[named[:4]] = named[4:]
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = zlib.decompress(chunks[b"IDAT"])
    palette = chunks[b"PLTE"]
    assert len(palette) <= 3 * 256
    indices = [rows[y * (width + 1) + 1 + x] for y in range(height) for x in range(width)]
    return [tuple(palette[3 * each : 3 * each + 3]) for each in indices]


def distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How different two colours are."""
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def test_few_colours_stay_as_they_are() -> None:
    """Row by row, in images of different widths."""
    colours = [(255, 255, 255), (53, 80, 224), (0, 0, 0), (255, 255, 255), (1, 200, 9), (0, 0, 0)]
    pixels = b"".join(bytes((*each, 255)) for each in colours)
    assert pixels_of(to_png(pixels, 3, 2)) == colours
    assert pixels_of(to_png(pixels, 2, 3)) == colours


def test_rare_colours_become_the_nearest_one() -> None:
    """The frequent colours stay, and every other pixel gets the nearest colour of the palette."""
    many = [(red, green, 40) for red in range(0, 256, 4) for green in range(0, 256, 4)]
    colours = [(10, 20, 30)] * 500 + many
    pixels = b"".join(bytes((*each, 255)) for each in colours)
    shown = pixels_of(to_png(pixels, len(colours), 1))
    assert shown[:500] == colours[:500]
    assert len(set(shown)) == 256
    for before, after in list(zip(colours, shown, strict=True))[::40]:
        assert distance(before, after) == min(distance(before, each) for each in set(shown))

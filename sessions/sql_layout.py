"""How generated SQL is broken into lines, so that a person can read it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_LINE = 100


def wrapped(parts: Iterable[str], *, indent: int) -> str:
    """A list with a comma after each part but the last, which starts at this column."""
    lines: list[str] = []
    for part in parts:
        if lines and indent + len(f"{lines[-1]}, {part},") <= _LONGEST_LINE:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return f",\n{' ' * indent}".join(lines)


def called(function: str, arguments: Iterable[str], *, indent: int, name: str = "") -> str:
    """A call, each argument on a line of its own where all don't fit into one: `f(a, b) AS name`.

    `indent` is the column that it starts at, and `name` what it is selected as.
    """
    arguments = list(arguments)
    alias = f" AS {name}" if name else ""
    line = f"{function}({', '.join(arguments)}){alias}"
    if "\n" not in line and indent + len(f"{line},") <= _LONGEST_LINE:
        return line
    deeper = f"\n{' ' * (indent + 2)}"
    return f"{function}({deeper}{f',{deeper}'.join(arguments)}\n{' ' * indent}){alias}"

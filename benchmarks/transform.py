"""The pandas engine against DuckDB, Polars and idiomatic pandas: the same columns, the same table.

Each engine runs in a process of its own and starts from the same Arrow table in memory. First all
cells of all results are compared; then times count, in rounds of one run each.

`python -m benchmarks.transform [--events N] [--rounds N] [--order download|random]`; the last line
is JSON: median seconds, the rivals' over ours pair by pair, and memory above the input.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from benchmarks.events import EVENTS_PER_SESSION, ORDERS, Order, events
from benchmarks.figures import print_json, ratio, rounded
from benchmarks.one_engine import ENGINES, FLOOR, read, write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    type Measurements = Mapping[str, Sequence[Mapping[str, float]]]

ROOT = Path(__file__).parent.parent
_US = ENGINES[0]
_WARM_UP_EVENTS = 2_000
_NEARLY = 1e-12  # Polars divides by multiplying, which may differ in the last bit


def compare(count: int, rounds: int, order: Order = "download") -> dict[str, Any]:
    """The figures; AssertionError where two engines don't agree."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(events(count, order=order), folder / "events")
        write(events(_WARM_UP_EVENTS), folder / "warm_up")
        _check_agreement(folder)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in (*ENGINES, FLOOR)}
        for turn in range(rounds):
            for engine in _rotated((*ENGINES, FLOOR), turn):
                measured[engine].append(_run(folder, engine))
    figures = {"events": count, "sessions": count // EVENTS_PER_SESSION, "order": order}
    return figures | _figures(measured)


def _rotated(engines: Sequence[str], turn: int) -> Sequence[str]:
    """Each engine once, another one first in each round."""
    turn %= len(engines)
    return [*engines[turn:], *engines[:turn]]


def _run(folder: Path, engine: str, result: str = "-") -> dict[str, float]:
    """One run of an engine; its sessions are kept under the name of a result."""
    paths = [str(folder / "events"), str(folder / "warm_up")]
    kept = result if result == "-" else str(folder / result)
    command = [sys.executable, "-m", "benchmarks.one_engine", engine, *paths, kept]
    ran = subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    measured: dict[str, float] = json.loads(ran.stdout)
    return measured


def _check_agreement(folder: Path) -> None:
    for engine in ENGINES:
        _run(folder, engine, f"by_{engine}")
    results = {engine: read(folder / f"by_{engine}") for engine in ENGINES}
    check_agreement(results)
    ours = results[_US]
    _say(f"{len(results)} engines agree on {len(ours):,} rows of {ours.num_columns} columns.")


def check_agreement(results: Mapping[str, pa.Table]) -> None:
    """AssertionError where an engine's result is not that of the first."""
    (us, ours), *rivals = results.items()
    for engine, theirs in rivals:
        different = differences(ours, theirs)
        if different:
            message = f"{us} and {engine} differ: {'; '.join(different)}."
            raise AssertionError(message)


def differences(ours: pa.Table, theirs: pa.Table) -> list[str]:
    """The columns of the same sessions that differ, each with the first session where it does."""
    if not ours.column("session_no").equals(theirs.column("session_no")):
        return ["other sessions, or in another order"]
    found = []
    for name in ours.column_names:
        columns = ours.column(name).combine_chunks(), theirs.column(name).combine_chunks()
        if not _are_equal(*columns):
            pairs = zip(*(column.to_pylist() for column in columns), strict=True)
            at = next(row for row, (our, their) in enumerate(pairs) if our != their)
            found.append(f"{name}, {columns[0][at]} and {columns[1][at]} in row {at}")
    return found


def _are_equal(ours: pa.Array, theirs: pa.Array) -> bool:
    if ours.equals(theirs):
        return True
    if not pa.types.is_floating(ours.type) or not ours.is_null().equals(theirs.is_null()):
        return False
    our, their = (column.drop_null().to_numpy() for column in (ours, theirs))
    return np.allclose(our, their, rtol=_NEARLY, atol=0)


def _figures(measured: Measurements) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for engine in ENGINES:
        runs = measured[engine]
        figures[engine] = {key: rounded(median(run[key] for run in runs)) for key in runs[0]} | {
            "ratio": rounded(_ratio(measured, engine, "seconds")),
            "cpu_ratio": rounded(_ratio(measured, engine, "cpu_seconds")),
        }
    figures["floor_seconds"] = rounded(median(run["seconds"] for run in measured[FLOOR]))
    return figures


def _ratio(measured: Measurements, engine: str, key: str) -> float:
    ours, theirs = ([run[key] for run in measured[name]] for name in (_US, engine))
    return ratio(ours, theirs)


def _print(figures: Mapping[str, Any]) -> None:
    _say(f"{'':<18}{'seconds':>9}{'ratio':>8}{'cpu s':>9}{'ratio':>8}{'extra MiB':>12}")
    for engine in ENGINES:
        its = figures[engine]
        times = f"{its['seconds']:>9.2f}{its['ratio']:>8.2f}"
        work = f"{its['cpu_seconds']:>9.2f}{its['cpu_ratio']:>8.2f}"
        _say(f"{engine:<18}{times}{work}{its['extra_mib']:>12.0f}")
    _say(f"{FLOOR:<18}{figures['floor_seconds']:>9.2f}")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what a command is for


def main(arguments: Sequence[str]) -> None:
    """Compare at the size that is asked for, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transform", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--order", choices=ORDERS, default="download")
    options = parser.parse_args(arguments)
    figures = compare(options.events, options.rounds, options.order)
    _print(figures)
    print_json(figures)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What loading a batch of sessions takes by codec, dictionaries and row groups of its Parquet file.

`python -m benchmarks.load [--events N] [--rounds N]`: bytes, seconds and memory of writing each
kind of file, and for one file of each codec the seconds of a load job in the emulator. The last
line is JSON; bytes and seconds in it are those of a million sessions.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from google.cloud import bigquery

from benchmarks.events import events
from benchmarks.figures import print_json, rounded
from benchmarks.history import sandbox
from benchmarks.memory import count_peak_anew, peak_mib, resident_mib
from process_sessions import process_sessions
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    type Measured = dict[FileKind, list[dict[str, float]]]

_WHOLE: Final = 2**20  # rows of a row group: pyarrow's default, more than a batch has
_CODECS: Final = ("none", "snappy", "lz4", "zstd")
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """How a Parquet file is written."""

    codec: str
    has_dictionaries: bool = True
    group_rows: int = _WHOLE

    @property
    def name(self) -> str:
        """What the figures call it."""
        parts = [self.codec]
        if not self.has_dictionaries:
            parts.append("no dictionaries")
        if self.group_rows != _WHOLE:
            parts.append(f"groups of {self.group_rows}")
        return ", ".join(parts)


KINDS: Final = (
    *(FileKind(codec=codec) for codec in _CODECS),
    *(FileKind(codec=codec, has_dictionaries=False) for codec in _CODECS),
    *(FileKind(codec="zstd", group_rows=rows) for rows in (5_000, 20_000)),
)


def compare(count: int, rounds: int) -> dict[str, Any]:
    """The figures of each kind of file, as of a million sessions."""
    table = _aggregated(count)
    _write(table, KINDS[0])  # the first one pays for what is loaded once
    written: Measured = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, measured in written.items():
            measured.append(_write(table, kind)[1])
    figures = {kind.name: _medians(runs, len(table)) for kind, runs in written.items()}
    for kind, seconds in _loads(table, rounds).items():
        figures[kind.name]["load_seconds"] = rounded(median(seconds) / len(table) * _MILLION)
    return {"sessions": len(table), "per_million_sessions": figures}


def _aggregated(count: int) -> pa.Table:
    """The sessions of a batch of that many events, as they are loaded."""
    rows = process_sessions(events(count).to_pandas(types_mapper=pd.ArrowDtype), METRIC_TABLE)
    rows.insert(0, "batch", 0)
    return pa.Table.from_pandas(rows, preserve_index=False)


def _write(table: pa.Table, kind: FileKind) -> tuple[BytesIO, dict[str, float]]:
    gc.collect()
    pa.default_memory_pool().release_unused()
    before = resident_mib()
    count_peak_anew()
    file = BytesIO()
    started = time.perf_counter()
    pq.write_table(
        table,
        file,
        compression=kind.codec,
        use_dictionary=kind.has_dictionaries,
        row_group_size=kind.group_rows,
    )
    seconds = time.perf_counter() - started
    return file, {
        "bytes": file.tell(),
        "write_seconds": seconds,
        "extra_mib": peak_mib() - before,
    }


def _medians(runs: Sequence[Mapping[str, float]], sessions: int) -> dict[str, float]:
    """Medians; memory is that of the one batch, the others are scaled."""
    medians = {key: median(run[key] for run in runs) for key in runs[0]}
    return {
        key: rounded(value if key == "extra_mib" else value / sessions * _MILLION)
        for key, value in medians.items()
    }


def _loads(table: pa.Table, rounds: int) -> dict[FileKind, list[float]]:
    """Seconds of the load job of a file of each codec, in a sandbox of their own."""
    files = {kind: _write(table, kind)[0] for kind in KINDS[: len(_CODECS)]}
    seconds: dict[FileKind, list[float]] = {kind: [] for kind in files}
    with tempfile.TemporaryDirectory() as name, sandbox(Path(name)) as clients:
        clients.bigquery.create_dataset("staging")
        for _ in range(rounds):
            for kind, file in files.items():
                seconds[kind].append(_load(clients.bigquery, file))
    return seconds


def _load(client: bigquery.Client, file: BytesIO) -> float:
    options = bigquery.ParquetOptions()
    options.enable_list_inference = True
    config = bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE")
    config.parquet_options = options
    started = time.perf_counter()
    client.load_table_from_file(file, "staging.rows", rewind=True, job_config=config).result()
    return time.perf_counter() - started


def _print(figures: Mapping[str, Any]) -> None:
    _say(f"{'':<24}{'MB':>8}{'write s':>10}{'extra MiB':>12}{'load s':>9}")
    for name, its in figures["per_million_sessions"].items():
        wrote = f"{its['bytes'] / 1e6:>8.0f}{its['write_seconds']:>10.2f}{its['extra_mib']:>12.0f}"
        load = f"{its['load_seconds']:>9.1f}" if "load_seconds" in its else ""
        _say(f"{name:<24}{wrote}{load}")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what a command is for


def main(arguments: Sequence[str]) -> None:
    """Measure at the size that is asked for, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    figures = compare(options.events, options.rounds)
    _print(figures)
    print_json(figures)


if __name__ == "__main__":
    main(sys.argv[1:])

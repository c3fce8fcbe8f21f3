"""Filling the source tables: from recorded files, from the generator, and with one more day."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections import Counter
from itertools import batched
from typing import TYPE_CHECKING

from sandbox.errors import SandboxError
from sandbox.generator.history import history
from sandbox.generator.next_day import next_day
from sandbox.sources import append_rows, append_table, create_tables, stored_properties
from sandbox.stored import read_stored
from sandbox.tables import TABLE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from google.cloud import bigquery

    from sandbox.generator.history import Batch, Period
    from sandbox.sources import SourceDatasets
    from sandbox.tables import PropertiesType, TableName

type Progress = Callable[[str], None]
type Appended = dict[TableName, int]

_ROWS_PER_LOAD = 50_000


def load_directory(
    client: bigquery.Client,
    datasets: SourceDatasets,
    *,
    directory: Path,
    properties: PropertiesType | None,
    progress: Progress,
) -> Appended:
    """Append the rows of the files named after the tables, and return how many of each.

    `properties` None keeps the type that the events table has, if it is there.
    Raises SandboxError when there is no such file or one can't be read.
    """
    found = {name: path for name in TABLE_NAMES if (path := _file(directory, name)) is not None}
    if not found:
        names = ", ".join(f"{name}.jsonl[.gz]" for name in TABLE_NAMES)
        msg = f"The directory {directory} has none of {names}: name the one with the recording."
        raise SandboxError(msg)
    _create_tables(client, datasets, properties)
    appended: Appended = dict.fromkeys(TABLE_NAMES, 0)
    for name, path in found.items():
        for rows in batched(_rows(path), _ROWS_PER_LOAD, strict=False):
            appended[name] += append_rows(client, datasets, name, rows)
            progress(f"{path.name}: {appended[name]:,} rows")
    return appended


def seed_history(  # noqa: PLR0913 - the seed's own options beside client and datasets
    client: bigquery.Client,
    datasets: SourceDatasets,
    *,
    seed: int,
    sessions: int,
    period: Period,
    properties: PropertiesType | None,
    progress: Progress,
) -> Appended:
    """Append a generated history, and return how many rows of each table."""
    _create_tables(client, datasets, properties)
    batches = history(seed=seed, sessions=sessions, period=period)
    return _append_batches(client, datasets, batches, progress)


def let_next_day_arrive(
    client: bigquery.Client,
    datasets: SourceDatasets,
    *,
    seed: int,
    sessions: int | None,
    progress: Progress,
) -> tuple[dt.date, Appended]:
    """Append what arrives on the day after the newest one, and return the day and the row counts.

    See `read_stored` for `sessions`. Raises SandboxError when there are no events.
    """
    stored, expected = read_stored(client, datasets, sessions=sessions)
    batches = next_day(stored, seed=seed, sessions=expected)
    appended = _append_batches(client, datasets, batches, progress)
    return stored.newest_day + dt.timedelta(days=1), appended


def _create_tables(
    client: bigquery.Client, datasets: SourceDatasets, properties: PropertiesType | None
) -> None:
    wanted = properties or stored_properties(client, datasets) or "string"
    create_tables(client, datasets, properties=wanted)


def _append_batches(
    client: bigquery.Client,
    datasets: SourceDatasets,
    batches: Iterable[Batch],
    progress: Progress,
) -> Appended:
    appended: Counter[TableName] = Counter()
    for batch in batches:
        for name, rows in batch.items():
            append_table(client, datasets, name, rows)
            appended[name] += rows.num_rows
        progress(", ".join(f"{name}: {appended[name]:,}" for name in TABLE_NAMES))
    return {name: appended[name] for name in TABLE_NAMES}


def _file(directory: Path, name: str) -> Path | None:
    candidates = (directory / f"{name}.jsonl", directory / f"{name}.jsonl.gz")
    return next((path for path in candidates if path.is_file()), None)


def _rows(path: Path) -> Iterator[Mapping[str, object]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _row(line, path, number)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        msg = f"{path} can't be read ({error}): check that the file is whole."
        raise SandboxError(msg) from error


def _row(line: str, path: Path, number: int) -> Mapping[str, object]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        msg = f"Line {number} of {path} is not a JSON object: correct it or take it out."
        raise SandboxError(msg)
    return row

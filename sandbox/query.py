"""Rows of a query as text: an aligned table, CSV or JSON lines."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import io
import json
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.cloud import bigquery

type Format = Literal["table", "csv", "jsonl"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format.__value__)


def run_query(client: bigquery.Client, sql: str, form: Format) -> Iterator[str]:
    """Yield the lines to print: the statement's rows, or how many rows it changed."""
    job = client.query(sql)
    rows = job.result()
    names = [field.name for field in rows.schema]
    if not names:
        changed = job.num_dml_affected_rows
        yield "Done." if changed is None else f"{changed} rows changed."
    elif form == "jsonl":
        for row in rows:
            yield json.dumps(dict(row.items()), default=_plain, ensure_ascii=False)
    else:
        values = ([_text(value) for value in row.values()] for row in rows)
        yield from _csv(names, values) if form == "csv" else _table(names, list(values))


def _text(value: object) -> str | None:
    """Return a value as one cell: nested ones as JSON, null as None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, dict, list)):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return str(_plain(value))


def _plain(value: object) -> object:
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _csv(names: Sequence[str], rows: Iterator[Sequence[str | None]]) -> Iterator[str]:
    for row in (names, *rows):
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(row)
        yield line.getvalue()


def _table(names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Iterator[str]:
    cells = [[_cell(value) for value in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    for row in cells:
        yield "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()


def _cell(value: str | None) -> str:
    return "null" if value is None else value.replace("\n", "\\n")

"""Tables that log changes: detected by their columns, read by their latest state. Pure.

Only those of the Firestore BigQuery extension are read; any other history is refused.
`sessions.sources` defines what each column holds and how values are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessions.sql_layout import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bigquery.tables import TableId

# What the extension's raw tables and typed views have, `data` aside.
_EXTENSION = ("document_name", "document_id", "timestamp", "operation")

# Columns by which change streams and replications mark an operation or a version, in lower case.
_MARKS = frozenset(
    {
        "__deleted",
        "__op",
        "__version",
        "_ab_cdc_deleted_at",
        "_ab_cdc_updated_at",
        "_change_sequence_number",
        "_change_type",
        "_deleted",
        "_fivetran_deleted",
        "_op",
        "_operation",
        "_sdc_deleted_at",
        "_version",
        "change_type",
        "datastream_metadata",
        "dbt_valid_from",
        "document_name",
        "document_version",
        "is_deleted",
        "op",
        "operation",
        "valid_from",
        "version",
    }
)


def is_of_the_extension(names: Iterable[str]) -> bool:
    """Whether lower-case column names are those of a table of the Firestore BigQuery extension."""
    return set(_EXTENSION) <= set(names)


def mark_of_history(names: Iterable[str]) -> str | None:
    """The first column that marks a history of changes; None for a table of the present."""
    return min(_MARKS.intersection(names), default=None)


def latest_sql(table: str, columns: Mapping[str, str], physical: Iterable[str]) -> str:
    """The latest state of each document that is not deleted, in place of a table's name.

    `columns`: type by name; `physical`: those that are needed, `data` as JSON. Among changes
    at one time the greatest operation wins (UPDATE, IMPORT, DELETE, CREATE), then the greatest
    event id and data.
    """
    names = {name.lower(): name for name in columns}
    document, _, at, operation = (f"`{names[mark]}`" for mark in _EXTENSION)
    needed = sorted(set(physical))
    is_text = {name for name in needed if name.lower() == "data" and columns[name] == "STRING"}
    read = (_parsed_sql(name) if name in is_text else f"`{name}`" for name in needed)
    ties = [f"`{names[each]}`" for each in ("event_id",) if each in names]
    ties += [f"TO_JSON_STRING(`{each}`)" for each in needed]
    order = wrapped((f"{each} DESC" for each in (at, operation, *ties)), indent=10)
    return f"""(
    SELECT {", ".join(read)}
    FROM (
      SELECT
        {", ".join(f"`{name}`" for name in needed)}, {operation} AS change_operation,
        ROW_NUMBER() OVER (
          PARTITION BY {document}
          ORDER BY {order}
        ) AS change_no
      FROM {table}
    )
    WHERE change_no = 1 AND IFNULL(change_operation, '') != 'DELETE'
  )"""


def _parsed_sql(name: str) -> str:
    return f"SAFE.PARSE_JSON(`{name}`, wide_number_mode => 'round') AS `{name}`"


def refusal(table: TableId, mark: str) -> str:
    """Why the latest state can't be read from this history, and what to do."""
    return (
        f"Table {table} is a history of changes, which can't be read as the present, since it has "
        f"a column {mark}: make a view of the latest state without that column and read that."
    )

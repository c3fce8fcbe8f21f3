"""How rows of an API become visible, and what must hold before: SQL text and verdicts. Pure.

A window of days is replaced by DELETE and INSERT in one transaction, so that a day which the API
has restated, or emptied, is stored as it says now, and readers see all of it or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runs.errors import AuditError
from runs.lease_sql import fenced_sql
from sessions.sql_layout import wrapped

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping, Sequence

    from apis.outcomes import Totals
    from apis.tables import TableSchema
    from apis.windows import Window

_CURRENCY: Final = "USD"
_USAGE_KEY: Final = ("activity_date", "api_key_id", "workspace_id", "model")
_MONEY: Final = ("cost", "amount", "usd", "price")
_SHRUNKEN: Final = 0.8  # of the rows there were: fewer are refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A table of which rows are replaced by all of a staging table, both as they stand in SQL.

    `expressions`: how a column is made of the staged ones, where it isn't one of them.
    """

    table: str
    staged: str
    schema: TableSchema
    expressions: Mapping[str, str] = field(default_factory=dict)


def window_sql(column: str, window: Window) -> str:
    """A predicate with literal bounds, so that BigQuery reads these partitions alone."""
    return f"{column} >= DATE '{window.first}' AND {column} < DATE '{window.end}'"


def replace_window_sql(
    lease: str, replacements: Sequence[Replacement], window: Window | None
) -> str:
    """One transaction: replaces the window's rows in every table; completes the run.

    Without a window all rows are replaced. It holds only while the lease is still that of @run_id
    and @fence, and stores @triggers as done.
    """
    where = "TRUE" if window is None else window_sql("activity_date", window)
    statements: list[str] = []
    for each in replacements:
        names = [column.name for column in each.schema.fields]
        values = (each.expressions.get(name, name) for name in names)
        statements += [
            f"DELETE FROM {each.table}\nWHERE {where}",
            f"""INSERT INTO {each.table} (
  {wrapped(names, indent=2)}
)
SELECT
  {wrapped(values, indent=2)}
FROM {each.staged}""",
        ]
    return fenced_sql(lease, statements)


# `raw` travels as text; a number that FLOAT64 would round is kept as near as it can be.
BREED_EXPRESSIONS: Final = {"raw": "PARSE_JSON(raw, wide_number_mode => 'round')"}


def watermarks_sql(state: str) -> str:
    """A SELECT of the `watermark` of each `kind`."""
    return f"""SELECT kind, watermark
FROM {state}"""


def move_watermarks_sql(lease: str, state: str) -> str:
    """One transaction: @watermark for each of @kinds, fenced like a replacement; all is done.

    A watermark that is already further stays: repeated dates don't move it back.
    """
    statements = [
        f"DELETE FROM {state}\nWHERE kind IN UNNEST(@kinds) AND watermark < @watermark",
        f"""INSERT INTO {state} (kind, watermark, run_id)
SELECT kind, @watermark, @run_id
FROM UNNEST(@kinds) AS kind
WHERE kind NOT IN (SELECT kind FROM {state})""",
    ]
    return fenced_sql(lease, statements)


def complete_only_sql(lease: str) -> str:
    """One transaction that changes no table: the run is complete for its @triggers."""
    return fenced_sql(lease, [])


def costs_audit_sql(staged: str) -> str:
    """A SELECT of one row: what `check_usage` asks of staged costs."""
    return _audit_sql(
        staged,
        sums=("amount_usd",),
        nulls="activity_date IS NULL OR organization_id IS NULL OR amount_usd IS NULL",
        extra=(f"COUNTIF(IFNULL(currency != '{_CURRENCY}', TRUE)) AS other_currencies",),
    )


def usage_audit_sql(staged: str) -> str:
    """A SELECT of one row: what `check_usage` asks of staged usage."""
    key = f"TO_JSON_STRING(STRUCT({', '.join(_USAGE_KEY)}))"
    return _audit_sql(
        staged,
        sums=(
            "uncached_input_tokens", "output_tokens", "cache_read_input_tokens",
            "cache_creation_5m_tokens", "cache_creation_1h_tokens", "web_search_requests",
        ),
        nulls="activity_date IS NULL OR organization_id IS NULL",
        extra=(f"COUNT(*) - COUNT(DISTINCT {key}) AS repeated_keys",),
    )  # fmt: skip


def code_audit_sql(staged: str) -> str:
    """A SELECT of one row: what `check_usage` asks of staged productivity."""
    return _audit_sql(
        staged,
        sums=(
            "num_sessions", "lines_added", "lines_removed",
            "commits_by_claude_code", "pull_requests_by_claude_code",
        ),
        nulls="activity_date IS NULL OR organization_id IS NULL"
        " OR (user_email IS NULL) = (api_key_name IS NULL)",
    )  # fmt: skip


def _audit_sql(staged: str, *, sums: Iterable[str], nulls: str, extra: Iterable[str] = ()) -> str:
    columns = [
        "COUNT(*) AS row_count",
        f"COUNTIF({nulls}) AS null_keys",
        "COUNTIF(IFNULL(organization_id != @organization_id, FALSE)) AS other_organizations",
        "MIN(activity_date) AS first_day",
        "MAX(activity_date) AS last_day",
        *extra,
        *(f"IFNULL(SUM({each}), 0) AS {each}" for each in sums),
    ]
    lines = ",\n  ".join(columns)
    return f"SELECT\n  {lines}\nFROM {staged}"


def check_usage(
    figures: Mapping[str, Mapping[str, Any]],
    reported: Mapping[str, Totals],
    *,
    window: Window,
    productivity_columns: Iterable[str],
) -> None:
    """Nothing, or an AuditError that names every rule that does not hold.

    `figures`: by table, the row of its audit statement; `said`: by table, what the API said;
    `productivity_columns`: those of the table of that name as it is in BigQuery.
    """
    broken = [rule for table in figures for rule in _broken(table, figures[table], reported[table])]
    for table, found in figures.items():
        broken += _outside(table, found, window)
    broken += [
        f"claude_code_productivity has a column {name}, and no cost belongs there"
        for name in productivity_columns
        if any(word in name.lower().split("_") for word in _MONEY)
    ]
    _raise(broken)


def _broken(table: str, found: Mapping[str, Any], reported: Totals) -> Iterable[str]:
    if found["row_count"] != reported.rows:
        yield f"{found['row_count']} rows of {table} were staged and {reported.rows} were reported"
    for what in ("null_keys", "other_organizations", "other_currencies", "repeated_keys"):
        if found.get(what):
            yield f"{table} has {found[what]} rows with {what.replace('_', ' ')}"
    for column, amount in reported.sums.items():
        if abs(found[column] - amount) > reported.tolerance:
            yield f"{column} of {table} adds up to {found[column]} and not to {amount}, as reported"


def _outside(table: str, found: Mapping[str, Any], window: Window) -> Iterable[str]:
    first, last = found["first_day"], found["last_day"]
    if first is not None and not window.first <= first <= last <= window.last:
        yield f"{table} has rows of {first} to {last}, outside {window.first} to {window.last}"


def breeds_audit_sql(staged: str, breeds: str) -> str:
    """A SELECT of one row: what `check_breeds` asks of staged breeds and those there are."""
    return f"""SELECT
  COUNT(*) AS row_count,
  COUNT(*) - COUNT(DISTINCT id) AS repeated_keys,
  COUNTIF(name IS NULL OR TRIM(name) = '') AS nameless,
  (SELECT COUNT(*) FROM {breeds}) AS stored
FROM {staged}"""


def breeds_check_sql(breeds: str) -> str:
    """A SELECT of one row: how many breeds there are, and how many rows repeat one."""
    return f"""SELECT
  COUNT(*) AS row_count,
  COUNT(*) - COUNT(DISTINCT id) AS repeated_keys
FROM {breeds}"""


def check_breeds(figures: Mapping[str, int], *, reported: int, is_forced: bool) -> None:
    """Nothing, or an AuditError; an empty or sharply shrunken list passes where it is forced."""
    found, stored = figures["row_count"], figures["stored"]
    broken = []
    if found != reported:
        broken.append(f"{found} breeds were staged and {reported} were reported")
    if figures["repeated_keys"]:
        broken.append(f"{figures['repeated_keys']} breeds repeat an id")
    if figures["nameless"]:
        broken.append(f"{figures['nameless']} breeds have no name")
    if not is_forced and found == 0:
        broken.append("the list is empty; force the run if that is right")
    elif not is_forced and found < _SHRUNKEN * stored:
        broken.append(f"{found} breeds would replace {stored}; force the run if that is right")
    _raise(broken)


def _raise(broken: Sequence[str]) -> None:
    if broken:
        message = f"Nothing was published, because an audit failed: {'; '.join(broken)}."
        raise AuditError(message)


def latest_days_sql(tables: Mapping[str, str]) -> str:
    """A SELECT of a row per table: its latest day, number of days and of rows."""
    return "\nUNION ALL\n".join(
        f"""SELECT
  '{name}' AS table_name, MAX(activity_date) AS latest_day,
  COUNT(DISTINCT activity_date) AS days, COUNT(*) AS row_count
FROM {table}"""
        for name, table in tables.items()
    )


def missing_days_sql(costs: str) -> str:
    """A SELECT of every `day` between the first and @yesterday that has no cost."""
    return f"""SELECT day
FROM UNNEST(GENERATE_DATE_ARRAY((SELECT MIN(activity_date) FROM {costs}), @yesterday)) AS day
WHERE day NOT IN (SELECT activity_date FROM {costs})
ORDER BY day"""


def monthly_totals_sql(costs: str) -> str:
    """A SELECT of a row per month: its days with costs, and what they come to in dollars."""
    return f"""SELECT
  DATE_TRUNC(activity_date, MONTH) AS month,
  COUNT(DISTINCT activity_date) AS days,
  SUM(amount_usd) AS amount_usd
FROM {costs}
GROUP BY month
ORDER BY month DESC"""


def missing_days_message(days: Sequence[dt.date]) -> str:
    """One sentence about the days that `missing_days_sql` found."""
    if not days:
        return "Every day up to yesterday has costs."
    named = ", ".join(str(day) for day in days[:5])
    more = f" and {len(days) - 5} more" if len(days) > 5 else ""  # noqa: PLR2004 - as many as named
    return f"No costs on {named}{more}: run with --start-date and --end-date."

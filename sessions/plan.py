"""Which days and sessions a run is about: the rules, and the SQL text that finds them. Pure.

No clock and no ingestion time decides anything: days are changed when their row counts or their
stamps are, and sessions are touched when the digests of their valid rows on those days are.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from runs.errors import RequestError
from runs.request import FIRST_DAY
from sessions.digests import row_digest_sql, sum_sql
from sessions.sql_layout import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runs.request import RunRequest
    from sessions.metric_types import MetricTable
    from sessions.sources import Source

Kind = Literal["full_load", "incremental", "dates", "limit"]

NULL_PARTITION = "__NULL__"
# BigQuery: 1,500 load jobs a table and day, failed ones included; and 4,000 partitions a job.
MOST_BATCHES = 1000
STREAMING_BUFFER = "__UNPARTITIONED__"  # its rows are read with the days that they belong to


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the last successful run saw. `days`: rows of the events table by partition id.

    `stamps`: a number for each that changes if its rows are rewritten; compared for equality.
    """

    run_id: str
    metrics_version: str
    sessions_created_at: dt.datetime
    days: Mapping[str, int]
    stamps: Mapping[str, int] = field(default_factory=dict)
    users: int | None = None  # null where an older release wrote it
    documents: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """The version of each column; empty where an older release wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """What the run finds at its destination, before it changes anything."""

    state: State | None
    sessions_created_at: dt.datetime | None  # None: the table was missing
    has_rows_of_another_version: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will read. `days` are those taken as changed, in order.

    `unread_rows`: rows without a usable time, by partition, known from metadata alone.
    `last_state`: what the last ordinary run saw.
    """

    kind: Kind
    reason: str | None
    days: tuple[dt.date, ...]
    counts: Mapping[str, int] = field(repr=False)
    stamps: Mapping[str, int] = field(default_factory=dict, repr=False)
    unread_rows: int = 0
    limit: int | None = None
    last_state: State | None = None
    has_other_metrics: bool = False
    """Whether it is a full load of rows that were built with another version of the metrics."""

    @property
    def is_full_load(self) -> bool:
        """Whether the run replaces the whole table."""
        return self.kind == "full_load"

    @property
    def is_ordinary(self) -> bool:
        """Whether the state moves with the run."""
        return self.kind in {"full_load", "incremental"}

    @property
    def counted_days(self) -> tuple[dt.date, ...]:
        """Every day that the source has rows on and that is read at all."""
        return tuple(sorted(days_of(self.counts)))

    def rows_of(self, day: dt.date) -> int:
        """The day's rows by the source's metadata."""
        return self.counts.get(f"{day:%Y%m%d}", 0)


def make_plan(
    request: RunRequest,
    counts: Mapping[str, int],
    destination: Destination,
    *,
    stamps: Mapping[str, int],
    metrics_version: str,
    today: dt.date,
) -> Plan:
    """The plan for a request: which days it reads, and when a full load is forced.

    Raises RequestError for dates or a limit on a destination of another metrics version.
    """
    forced = _why_full_load(request, destination, metrics_version)
    state = None if forced else destination.state
    seen, seen_stamps = (state.days, state.stamps) if state else ({}, {})
    changed = [
        key
        for key in counts.keys() | seen.keys()
        if (counts.get(key), stamps.get(key)) != (seen.get(key), seen_stamps.get(key))
    ]
    days = sorted(days_of(changed))
    unread = sum(
        counts.get(key, 0) for key in changed if _day_of(key) is None and key != STREAMING_BUFFER
    )
    kind: Kind = "full_load" if forced else "incremental"
    if request.limit is not None or request.start_date is not None:
        if destination.has_rows_of_another_version:
            message = (
                "The sessions table was built by another version of the metrics: run a full load "
                "before a run with dates or a limit."
            )
            raise RequestError(message)
        kind, forced, unread = "limit" if request.limit is not None else "dates", None, 0
    if request.start_date is not None:
        end = request.end_date or max(today, request.start_date)
        known = days_of(counts) | days_of(seen)  # a day that vanished has sessions to redo
        days = [day for day in sorted(known) if request.start_date <= day <= end]
    return Plan(
        kind=kind,
        reason=forced,
        days=tuple(days),
        counts=counts,
        stamps=stamps,
        unread_rows=unread,
        limit=request.limit,
        last_state=destination.state,
        has_other_metrics=forced is not None
        and destination.state is not None
        and destination.state.metrics_version != metrics_version,
    )


def _why_full_load(
    request: RunRequest, destination: Destination, metrics_version: str
) -> str | None:
    state = destination.state
    if request.full_load:
        return "it was asked for"
    if destination.sessions_created_at is None:
        return "the sessions table was missing"
    if state is None:
        return "no run has succeeded before"
    if state.sessions_created_at != destination.sessions_created_at:
        return "the sessions table is not the one that the last run wrote"
    if state.metrics_version != metrics_version:
        return f"the metrics changed ({state.metrics_version} to {metrics_version})"
    return None


def _day_of(partition_id: str) -> dt.date | None:
    """The UTC day of a partition, None where its rows are never read."""
    if not (len(partition_id) == len("20180101") and partition_id.isdigit()):
        return None
    day = dt.datetime.strptime(partition_id, "%Y%m%d").replace(tzinfo=dt.UTC).date()
    return day if day >= FIRST_DAY else None


def days_of(partition_ids: Iterable[str]) -> set[dt.date]:
    """The days among partitions, which may also be of null times or of a streaming buffer."""
    return {day for key in partition_ids if (day := _day_of(key)) is not None}


def batch_count(rows: int, *, max_batch_events: int) -> int:
    """How many batches hold `rows` events, about `max_batch_events` in each; 1 to 1,000."""
    return max(1, min(MOST_BATCHES, math.ceil(rows / max_batch_events)))


def large_batch_warning(rows: int, *, max_batch_events: int) -> str | None:
    """A warning if the number of batches was capped, so each needs more memory."""
    if rows <= MOST_BATCHES * max_batch_events:
        return None
    return (
        f"{rows:,} events were cut into {MOST_BATCHES:,} batches of about {rows // MOST_BATCHES:,},"
        f" more than MAX_BATCH_EVENTS ({max_batch_events:,}): raise it with the memory, or run with"
        " ENGINE=bigquery."
    )


def next_days(plan: Plan, *, read: int, found: int) -> tuple[dt.date, ...]:
    """The newest changed days that a limit still needs, given the sessions `found` on `read` days.

    As many as the yield of the days so far suggests, but never more than doubling them.
    """
    limit = plan.limit or 0
    wanted = math.ceil(read * (limit - found) / found) if found else read
    newest_first = tuple(reversed(plan.days))
    return newest_first[read : read + min(max(wanted, 1), max(read, 1))]


def neighbours(metric_table: MetricTable, plan: Plan, days: Iterable[dt.date]) -> set[dt.date]:
    """The known days on which sessions of `days` may have more rows, themselves left out."""
    farthest = metric_table.longest_session_days
    near = {
        day + dt.timedelta(days=offset)
        for day in days
        for offset in range(-farthest, farthest + 1)
        if dt.date.min.toordinal() <= day.toordinal() + offset <= dt.date.max.toordinal()
    }
    return near.intersection(plan.counted_days).difference(days)


def ranges_sql(source: Source, days: Iterable[dt.date]) -> str:
    """A condition for rows of these days: literal half-open ranges, contiguous days joined.

    On the raw partition column, so that BigQuery prunes; on the time we read where the source is
    not partitioned by it.
    """
    type_ = source.shape.columns[source.physical["event_at"]]
    is_raw = type_ in {"TIMESTAMP", "DATETIME"}
    column = f"`{source.physical['event_at']}`" if is_raw else source.column("event_at")
    literal, zone = ("DATETIME", "") if type_ == "DATETIME" else ("TIMESTAMP", "+00")
    ranges = []
    for first, last in _spans(days):
        lower = f"{column} >= {literal} '{first} 00:00:00{zone}'"
        if last == dt.date.max:
            ranges.append(f"({lower})")
        else:
            after = last + dt.timedelta(days=1)
            ranges.append(f"({lower} AND {column} < {literal} '{after} 00:00:00{zone}')")
    if not ranges:  # an empty range, for tables that require a filter
        oldest = f"{literal} '{FIRST_DAY} 00:00:00{zone}'"
        ranges.append(f"({column} >= {oldest} AND {column} < {oldest})")
    return "({})".format("\n    OR ".join(ranges))


def _spans(days: Iterable[dt.date]) -> list[tuple[dt.date, dt.date]]:
    """First and last day of each run of consecutive days."""
    spans: list[tuple[dt.date, dt.date]] = []
    for day in sorted(days):
        if spans and (day - spans[-1][1]).days == 1:
            spans[-1] = (spans[-1][0], day)
        else:
            spans.append((day, day))
    return spans


def dates_sql(column: str, days: Iterable[dt.date]) -> str:
    """A condition for a DATE column to be one of these days, as literals so that it prunes."""
    literals = wrapped([f"DATE '{day}'" for day in sorted(days)], indent=4)
    if "\n" in literals:
        return f"{column} IN (\n    {literals}\n  )"
    return f"{column} IN ({literals})" if literals else "FALSE"


def day_counts_sql(source: Source) -> str:
    """A SELECT of (`partition_id`, `total_rows`, `stamp`) of the events.

    From metadata where the table is partitioned by the day of its events: the stamp is the time of
    the partition's last modification, in µs. Else one query counts the rows, and the stamp is a
    digest of their ids, names and times: it reads no properties, and so sees no change of them.
    """
    shape = source.shape
    if shape.day_partitioned_by == source.physical["event_at"]:
        dataset = f"`{shape.table.project}`.`{shape.table.dataset}`"
        return f"""SELECT
  partition_id,
  SUM(total_rows) AS total_rows,
  MAX(UNIX_MICROS(last_modified_time)) AS stamp
FROM {dataset}.INFORMATION_SCHEMA.PARTITIONS
WHERE table_name = '{shape.table.name}'
GROUP BY partition_id"""
    day = f"FORMAT_TIMESTAMP('%Y%m%d', {source.column('event_at')})"
    return f"""SELECT
  IFNULL({day}, '{NULL_PARTITION}') AS partition_id,
  COUNT(*) AS total_rows,
  {sum_sql(row_digest_sql(_narrow_texts(source), indent=2))} AS stamp
FROM {shape.table.sql}
WHERE {_any_time_sql(source)}
GROUP BY partition_id"""


def _narrow_texts(source: Source) -> list[str]:
    """The cheap columns of a row, as texts."""
    times = (source.column("event_at"), source.time_column("ingested_at"))
    return [
        *(source.column(name) for name in ("uuid", "event", "distinct_id")),
        *(f"CAST(UNIX_MICROS({time}) AS STRING)" for time in times),
    ]


def _any_time_sql(source: Source) -> str:
    """A condition that excludes nothing, for tables that require one on their partition column."""
    column = f"`{source.physical['event_at']}`"
    type_ = source.shape.columns[source.physical["event_at"]]
    if type_ == "TIMESTAMP":
        return f"{column} IS NULL OR {column} >= TIMESTAMP '0001-01-01 00:00:00+00'"
    if type_ == "DATETIME":
        return f"{column} IS NULL OR {column} >= DATETIME '0001-01-01 00:00:00'"
    return "TRUE"


def touched_sql(
    metric_table: MetricTable, plan: Plan, *, projected: str, sessions: str, quarantined: str
) -> str:
    """A SELECT of the ids of the sessions to build again, those left without rows included.

    Those whose valid rows on a changed day are not those that they were built from, by their number
    and digest; in a full load, and in one that names days, every session with rows there.
    """
    known = f"session_id IN (SELECT session_id FROM {quarantined})"
    found = f"""found AS (
  SELECT
    session_id, DATE(event_at) AS day, COUNT(*) AS row_count,
    {sum_sql("digest")} AS digest
  FROM {projected}
  WHERE reason IS NULL{"" if plan.is_full_load else f" AND NOT {known}"}
  GROUP BY session_id, day
)"""
    if plan.kind in {"full_load", "limit"}:
        return f"WITH {found}\nSELECT DISTINCT session_id FROM found"
    differs = "TRUE"
    if plan.kind == "incremental":
        differs = "f.row_count IS DISTINCT FROM s.row_count OR f.digest IS DISTINCT FROM s.digest"
    near = {*plan.days}
    for offset in range(1, metric_table.longest_session_days + 1):
        near |= {day - dt.timedelta(days=offset) for day in plan.days}
    return f"""WITH {found},
stored AS (
  SELECT s.session_id, d.day, d.row_count, d.digest
  FROM {sessions} AS s, UNNEST(s._days) AS d
  WHERE {dates_sql("s.session_date", near)}
    AND {dates_sql("d.day", plan.days)}
)
SELECT DISTINCT COALESCE(f.session_id, s.session_id) AS session_id
FROM found AS f
FULL JOIN stored AS s ON s.session_id = f.session_id AND s.day = f.day
WHERE {differs}"""


def other_days_sql(*, touched: str, sessions: str, split: str) -> str:
    """A SELECT of the days, and the partitions, that touched sessions are stored with.

    Also `split`: how many of their ids the rows read so far show to be too long.
    """
    return f"""SELECT
  ARRAY_AGG(DISTINCT d.day) AS days,
  ARRAY_AGG(DISTINCT s.session_date) AS session_dates,
  (SELECT COUNT(*) FROM {split}) AS split
FROM {touched} AS t
JOIN {sessions} AS s ON s.session_id = t.session_id, UNNEST(s._days) AS d"""


def latest_sql(*, projected: str, found: str, limit: int) -> str:
    """A SELECT of the `limit` sessions, of those found, with the latest start."""
    return f"""SELECT session_id
FROM {projected}
WHERE reason IS NULL AND session_id IN (SELECT session_id FROM {found})
GROUP BY session_id
ORDER BY MIN(event_at) DESC, session_id DESC
LIMIT {limit}"""


def found_sql(*, projected: str, quarantined: str) -> str:
    """A SELECT of `found`: sessions that start after the oldest projected day.

    Only these are sure to have no rows on a day that is not read yet.
    """
    return f"""WITH starts AS (
  SELECT session_id, MIN(event_at) AS started_at
  FROM {projected}
  WHERE reason IS NULL AND session_id NOT IN (SELECT session_id FROM {quarantined})
  GROUP BY session_id
)
SELECT COUNTIF(DATE(started_at) > @oldest_day) AS found FROM starts"""


def accounts_sql(*, projected: str, touched: str, quarantined: str, rest: str) -> str:
    """A SELECT of (`day`, `account`, `row_count`) over everything projected.

    `account`: the reason a row was set aside; touched; quarantined (before this run); or `rest`,
    the name for the rows of sessions that the run leaves as they are.
    """
    return f"""WITH accounts AS (
  SELECT
    DATE(event_at) AS day,
    CASE
      WHEN reason IS NOT NULL THEN reason
      WHEN session_id IN (SELECT session_id FROM {touched}) THEN 'touched'
      WHEN session_id IN (SELECT session_id FROM {quarantined}) THEN 'quarantined'
      ELSE '{rest}'
    END AS account
  FROM {projected}
)
SELECT day, account, COUNT(*) AS row_count
FROM accounts
GROUP BY day, account"""


def planned_sql(metric_table: MetricTable, *, projected: str, touched: str, batches: int) -> str:
    """A SELECT of the touched sessions that have rows, with the batch each one belongs to.

    (`session_id`, `is_split`, `batch`, `session_no`, `_days`, `first_at`, `last_at`, `row_count`,
    `is_quarantined`); `session_no` counts from 0 within the batch.
    """
    hashed = "CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(session_id)), 1, 8)) AS INT64)"
    return f"""WITH session_days AS (
  SELECT
    session_id, DATE(event_at) AS day,
    MIN(event_at) AS first_at, MAX(event_at) AS last_at, COUNT(*) AS row_count,
    {sum_sql("digest")} AS digest, LOGICAL_OR(is_split) AS is_split
  FROM {projected}
  WHERE reason IS NULL AND session_id IN (SELECT session_id FROM {touched})
  GROUP BY session_id, day
),
spans AS (
  SELECT
    session_id, MIN(first_at) AS first_at, MAX(last_at) AS last_at, SUM(row_count) AS row_count,
    LOGICAL_OR(is_split) AS is_split,
    ARRAY_AGG(
      STRUCT(day AS day, row_count AS row_count, digest AS digest) ORDER BY day
    ) AS _days
  FROM session_days
  GROUP BY session_id
),
in_batches AS (
  SELECT
    session_id, is_split, first_at, last_at, row_count, _days,
    MOD({hashed}, {batches}) AS batch
  FROM spans
)
SELECT
  session_id, is_split, batch,
  ROW_NUMBER() OVER (PARTITION BY batch ORDER BY session_id) - 1 AS session_no,
  _days, first_at, last_at, row_count,
  row_count > {metric_table.most_session_rows} AS is_quarantined
FROM in_batches"""

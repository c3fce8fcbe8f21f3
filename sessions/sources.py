"""The tolerant reader: which physical column holds which logical one, and how it is read. Pure.

A source table's real schema (`TableShape`) becomes a `Source`: one GoogleSQL expression per logical
column, whatever the column is called and however its values are stored. No statement is built here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from bigquery.tables import TableId
from runs.errors import SourceShapeError
from sessions import changelog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runs.settings import Settings

# The type of a RECORD with `_seconds` and `_nanoseconds`, as `TableShape` names it.
FIRESTORE_TIME = "RECORD<_seconds, _nanoseconds>"
WEB_TIME = "RECORD<seconds, nanoseconds>"  # the same, of the web SDK

_LAST_SECOND = 253_402_300_798  # of the year 9999

Reading = Literal["text", "time", "reference", "properties"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """What BigQuery's metadata say of a source table. `columns`: upper-case type by name."""

    table: TableId
    columns: Mapping[str, str]
    is_table: bool = True  # not a view: it has partitions, and a past to travel to
    day_partitioned_by: str | None = None  # a column; finer or coarser partitions count as none
    pruned_by: str | None = None  # a column whose ranges of days read only their partitions
    allows_past: bool = True  # False where a row access policy keeps its past to administrators
    is_missing: bool = False
    tagged_columns: tuple[str, ...] = ()  # with a policy tag: their values may be masked
    row_count: int = 0

    @property
    def as_of(self) -> str:
        """The clause that reads the rows of @snapshot_at; empty where there is no past to read."""
        return "FOR SYSTEM_TIME AS OF @snapshot_at" if self.is_table and self.allows_past else ""

    @property
    def rows_sql(self) -> str:
        """What a SELECT reads from: no rows where there is no table."""
        if self.is_missing:
            return "UNNEST(ARRAY<INT64>[])"
        return f"{self.table.sql} {self.as_of}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalColumn:
    """A column we need, by any of `names`; the first that the table has is taken."""

    name: str
    names: tuple[str, ...]
    reading: Reading = "text"
    is_required: bool = True
    is_counted: bool = False  # whether `has_NAME` says that a row has a value, readable or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source table as we read it: `sql` has one expression per logical column that exists."""

    shape: TableShape
    sql: Mapping[str, str]
    physical: Mapping[str, str]
    is_history: bool = False  # of changes: a table of the Firestore BigQuery extension

    @property
    def rows_sql(self) -> str:
        """The FROM clause: the table as of the run's moment, or a history's latest state."""
        rows = self.shape.rows_sql
        if not self.is_history:
            return rows
        return changelog.latest_sql(rows, self.shape.columns, self.physical.values())

    @property
    def prunes_days(self) -> bool:
        """Whether reading some days reads only their partitions."""
        return (
            self.shape.pruned_by is not None and self.shape.pruned_by == self.physical["event_at"]
        )

    def column(self, name: str, missing: str = "CAST(NULL AS STRING)") -> str:
        """The expression of a logical column, or `missing` where the table has none."""
        return self.sql.get(name, missing)

    def time_column(self, name: str) -> str:
        """Like `column`, for times."""
        return self.column(name, "CAST(NULL AS TIMESTAMP)")


EVENTS = (
    LogicalColumn(name="uuid", names=("uuid", "event_uuid", "event_id")),
    LogicalColumn(name="event", names=("event", "event_name")),
    LogicalColumn(name="distinct_id", names=("distinct_id", "distinctId")),
    LogicalColumn(name="event_at", names=("timestamp", "event_timestamp", "time"), reading="time"),
    LogicalColumn(
        name="ingested_at",
        names=(
            "bq_ingested_timestamp",
            "_inserted_at",
            "inserted_at",
            "ingested_at",
            "etl_loaded_at",
            "_loaded_at",
        ),
        reading="time",
        is_required=False,
    ),
    LogicalColumn(name="properties", names=("properties",), reading="properties"),
)

LOADED_AT = LogicalColumn(
    name="loaded_at",
    names=("etl_loaded_at", "_loaded_at", "loaded_at", "ingested_at", "updatedAt"),
    reading="time",
    is_required=False,
)

CREATED_NAMES = ("createdAt", "created_at", "createTime", "creationTime")

USERS = (
    LogicalColumn(
        name="user_id", names=("user_id", "uid", "userId", "localId", "document_id", "id")
    ),
    LogicalColumn(name="phone", names=("phoneNumber", "phone_number", "phone"), is_required=False),
    LogicalColumn(name="email", names=("email", "emailAddress"), is_required=False),
    LogicalColumn(
        name="created_at",
        names=CREATED_NAMES,
        reading="time",
        is_required=False,
        is_counted=True,
    ),
    LOADED_AT,
)

DOCUMENTS = (
    LogicalColumn(name="document_id", names=("document_id", "event_id", "eventId", "id")),
    LogicalColumn(
        name="creator",
        names=("user_id", "userId", "creator_id", "createdBy", "ownerId"),
        reading="reference",
    ),
    LogicalColumn(name="created_at", names=CREATED_NAMES, reading="time", is_counted=True),
    LogicalColumn(name="type", names=("type",), is_required=False),
    LOADED_AT,
)

POSTHOG_SESSIONS = (
    LogicalColumn(name="session_id", names=("session_id",)),
    LogicalColumn(name="channel_type", names=("channel_type", "$channel_type")),
    LogicalColumn(
        name="end_at",
        names=("end_timestamp", "$end_timestamp", "max_timestamp"),
        reading="time",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTable:
    """One of the tables that a run reads, before its schema is known."""

    table: TableId
    logical: tuple[LogicalColumn, ...]
    is_required: bool
    """Whether a run fails without it; the others are optional unless a setting names them."""


def source_tables(settings: Settings) -> dict[str, SourceTable]:
    """The four source tables of the settings, by role."""
    posthog, firebase = settings.posthog_dataset_id, settings.firebase_dataset_id
    named = {
        "events": (settings.events_table, posthog, "events", EVENTS),
        "posthog_sessions": (
            settings.posthog_sessions_table,
            posthog,
            "sessions",
            POSTHOG_SESSIONS,
        ),
        "users": (settings.users_table, firebase, "users", USERS),
        "documents": (settings.documents_table, firebase, "events", DOCUMENTS),
    }
    return {
        key: SourceTable(
            table=TableId.parse(name or usual, project=settings.project_id, dataset=dataset),
            logical=logical,
            is_required=name is not None,
        )
        for key, (name, dataset, usual, logical) in named.items()
    }


# Columns that identify tables of a wrong shape.
FOREIGN_SHAPES = (
    ({"event_params"}, "a GA4 export"),
    ({"data", "document_name", "operation"}, "a raw Firestore changelog"),
)
_OF_FIREBASE = (USERS, DOCUMENTS)


def resolve(shape: TableShape, logical: tuple[LogicalColumn, ...]) -> Source:
    """How to read the table.

    Raises SourceShapeError for a table of a foreign shape, a required column that is missing, or a
    column of a type that its reading can't take.
    """
    names = {name.lower(): name for name in shape.columns}
    if logical in _OF_FIREBASE:
        if changelog.is_of_the_extension(names):
            return _resolve_history(shape, logical, names)
        mark = changelog.mark_of_history(names)
        if mark is not None:
            raise SourceShapeError(changelog.refusal(shape.table, names[mark]))
    return _resolve_present(shape, logical, names)


def _resolve_history(
    shape: TableShape, logical: tuple[LogicalColumn, ...], names: Mapping[str, str]
) -> Source:
    """A table of the extension: fields from `data`, or from columns of their own."""
    if "data" not in names:
        typed = _resolve_present(shape, logical, names)
        return replace(typed, is_history=True)
    data = names["data"]
    if shape.columns[data] not in {"STRING", "JSON"}:
        message = f"Column {data} of table {shape.table} is {shape.columns[data]}, and no JSON."
        raise SourceShapeError(message)
    sql: dict[str, str] = {}
    for column in logical:
        sql |= _fields_sql(f"`{data}`", column)
    physical = {column.name: data for column in logical}
    for name, mark in ((logical[0].name, "document_id"), ("loaded_at", "timestamp")):
        physical[name] = names[mark]
        sql[name] = f"`{names[mark]}`"
    return Source(shape=shape, sql=sql, physical=physical, is_history=True)


def _fields_sql(document: str, column: LogicalColumn) -> dict[str, str]:
    """A logical column from a JSON document: the first of its names that has a value."""
    fields = [f"JSON_QUERY({document}, '$.{name}')" for name in column.names]
    values = [str(READERS[column.reading](field, "JSON")) for field in fields]
    sql = {column.name: f"COALESCE({', '.join(values)})"}
    if column.is_counted:
        sql[f"has_{column.name}"] = " OR ".join(has_value_sql(field, "JSON") for field in fields)
    return sql


def _resolve_present(
    shape: TableShape, logical: tuple[LogicalColumn, ...], names: Mapping[str, str]
) -> Source:
    for marks, what in FOREIGN_SHAPES:
        if marks <= names.keys():
            message = (
                f"Table {shape.table} looks like {what}, which can't be read: point the dataset "
                "setting at the plain export."
            )
            raise SourceShapeError(message)
    sql: dict[str, str] = {}
    physical: dict[str, str] = {}
    for column in logical:
        found = next((names[name.lower()] for name in column.names if name.lower() in names), None)
        if found is not None:
            physical[column.name] = found
            sql[column.name] = _read(shape, column, found)
            if column.is_counted:
                sql[f"has_{column.name}"] = has_value_sql(f"`{found}`", shape.columns[found])
        elif column.is_required:
            message = (
                f"Table {shape.table} has no column for {column.name}: looked for "
                f"{', '.join(column.names)}."
            )
            raise SourceShapeError(message)
    return Source(shape=shape, sql=sql, physical=physical)


def absent(table: TableId, logical: tuple[LogicalColumn, ...]) -> Source:
    """A source that is not there, read as a table without rows."""
    nulls = {"time": "CAST(NULL AS TIMESTAMP)"}
    return Source(
        shape=TableShape(table=table, columns={}, is_table=False, is_missing=True),
        sql={each.name: nulls.get(each.reading, "CAST(NULL AS STRING)") for each in logical},
        physical={},
    )


def without_past(source: Source) -> Source:
    """The source where only an administrator may read its past: as it is now."""
    return replace(source, shape=replace(source.shape, allows_past=False))


def past_warning(table: TableId) -> str:
    """A warning for a table whose rows may be read, but not its past."""
    return (
        f"Table {table} has, or had, a row access policy: rows may be hidden from this account, and"
        " it was read as it is and not as of one moment."
    )


def masked_warning(source: Source) -> str | None:
    """A warning for columns that may be masked; None if there are none."""
    read = {name.lower() for name in source.physical.values()}
    tagged = [name for name in source.shape.tagged_columns if name.lower() in read]
    if not tagged:
        return None
    return (
        f"Table {source.shape.table} has a policy tag on {', '.join(tagged)}: values may be masked"
        " for this account, and match nobody then; grant it"
        " roles/datacatalog.categoryFineGrainedReader."
    )


def _read(shape: TableShape, column: LogicalColumn, name: str) -> str:
    type_ = shape.columns[name]
    sql = READERS[column.reading](f"`{name}`", type_)
    if sql is None:
        message = (
            f"Column {name} of table {shape.table} is {type_}, which can't be read as "
            f"{column.reading}."
        )
        raise SourceShapeError(message)
    return sql


def text_sql(sql: str, type_: str) -> str | None:
    """The column as STRING; None for types that have no single text."""
    if type_ == "STRING":
        return sql
    if type_ == "JSON":
        return f"JSON_VALUE({sql}, '$')"
    if type_ in {"RECORD", "STRUCT", "BYTES"} or type_.startswith("ARRAY"):
        return None
    return f"CAST({sql} AS STRING)"


def reference_sql(sql: str, type_: str) -> str | None:
    """The column as text, a Firestore reference that is an object as its JSON."""
    if type_ in {"RECORD", "STRUCT"}:
        # A record is not null even if all its fields are.
        has_text = f"REGEXP_CONTAINS(TO_JSON_STRING({sql}), r'[:[]\\s*\"')"
        return f"IF({has_text}, TO_JSON_STRING({sql}), NULL)"
    if type_ == "JSON":
        return f"COALESCE(JSON_VALUE({sql}, '$'), NULLIF(TO_JSON_STRING({sql}), 'null'))"
    return text_sql(sql, type_)


def has_value_sql(sql: str, type_: str) -> str:
    """Whether the column has a value, readable or not: neither null nor an empty text."""
    if type_ == "STRING":
        return f"IFNULL(TRIM({sql}), '') != ''"
    if type_ == "JSON":
        return f"IFNULL(TO_JSON_STRING({sql}), 'null') NOT IN ('null', '\"\"')"
    if type_ == FIRESTORE_TIME:
        return f"{sql}._seconds IS NOT NULL"
    if type_ == WEB_TIME:
        return f"{sql}.seconds IS NOT NULL"
    return f"{sql} IS NOT NULL"


def time_sql(sql: str, type_: str) -> str | None:
    """The column as TIMESTAMP; null where a value is no time.

    Native times, ISO text, RFC 1123, epoch numbers (s, ms or µs by magnitude), and Firestore's
    seconds and nanoseconds as the SDKs write them. None for a type that holds none of them.
    """
    if type_ in {"TIMESTAMP", "DATETIME", "DATE"}:
        return sql if type_ == "TIMESTAMP" else f"TIMESTAMP({sql})"
    if type_ in {"INT64", "INTEGER", "FLOAT64", "FLOAT", "NUMERIC", "BIGNUMERIC"}:
        return _epoch_sql(f"CAST({sql} AS FLOAT64)")
    if type_ in {"STRING", "JSON"}:
        is_text = type_ == "STRING"
        text = sql if is_text else f"JSON_VALUE({sql}, '$')"
        document = f"SAFE.PARSE_JSON({sql}, wide_number_mode => 'round')" if is_text else sql
        return f"COALESCE({_time_text_sql(text)}, {_firestore_sql(document)})"
    if type_ == FIRESTORE_TIME:
        return _firestore_time_sql(f"{sql}._seconds", f"{sql}._nanoseconds")
    if type_ == WEB_TIME:
        return _firestore_time_sql(f"{sql}.seconds", f"{sql}.nanoseconds")
    return None


def _time_text_sql(sql: str) -> str:
    epoch = _epoch_sql(f"SAFE_CAST({sql} AS FLOAT64)")
    of_auth = f"SAFE_CAST({_rfc_1123_sql(sql)} AS TIMESTAMP)"
    seconds, nanoseconds = (
        f"SAFE_CAST(REGEXP_EXTRACT({sql}, r'^Timestamp[(].*\\b{unit}=([0-9]+)\\b') AS INT64)"
        for unit in ("seconds", "nanoseconds")
    )
    of_dart = _firestore_time_sql(seconds, nanoseconds)
    return f"COALESCE({_iso_sql(sql)}, {epoch}, {of_auth}, {of_dart})"


def _iso_sql(sql: str) -> str:
    # A TIMESTAMP has microseconds, and a text with nanoseconds is not cast at all.
    return f"SAFE_CAST(REGEXP_REPLACE({sql}, r'([.][0-9]{{6}})[0-9]+', r'\\1') AS TIMESTAMP)"


def _rfc_1123_sql(sql: str) -> str:
    """`Thu, 26 Nov 2026 08:00:00 GMT`, as ISO text; null for any other text."""
    whole = "[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9:]{8}) GMT"
    month = f"REGEXP_EXTRACT({sql}, r'^[A-Z][a-z]{{2}}, [0-9]{{2}} ([A-Z][a-z]{{2}}) .* GMT$')"
    number = f"DIV(STRPOS('..JanFebMarAprMayJunJulAugSepOctNovDec', {month}), 3)"
    year, rest = (
        f"REGEXP_REPLACE({sql}, r'^{whole}$', r'{kept}')" for kept in (r"\3-", r"-\1 \4+00")
    )
    return f"CONCAT({year}, CAST({number} AS STRING), {rest})"


def _epoch_sql(number: str) -> str:
    """Seconds, milliseconds or microseconds since 1970, distinguished by magnitude."""
    return (
        f"TIMESTAMP_MICROS(CAST(ROUND({number} * CASE WHEN {number} >= 0 AND {number} < 1e11"
        f" THEN 1e6 WHEN {number} >= 1e11 AND {number} < 1e14 THEN 1e3"
        f" WHEN {number} >= 1e14 AND {number} < 1e17 THEN 1 END) AS INT64))"
    )


def _firestore_sql(document: str) -> str:
    """The object of a time, as the Admin SDK, the web SDK, protocol buffers and REST write it."""
    seconds, nanoseconds = (
        "SAFE_CAST(COALESCE({}) AS INT64)".format(
            ", ".join(f"JSON_VALUE({document}, '$.{unit}')" for unit in units)
        )
        for units in (("_seconds", "seconds"), ("_nanoseconds", "nanoseconds", "nanos"))
    )
    of_rest = _iso_sql(f"JSON_VALUE({document}, '$.timestampValue')")
    return f"COALESCE({_firestore_time_sql(seconds, nanoseconds)}, {of_rest})"


def _firestore_time_sql(seconds: str, nanoseconds: str) -> str:
    """Null outside of what a TIMESTAMP holds from 1970 on: one absurd value must not end a run."""
    nanoseconds = f"IFNULL({nanoseconds}, 0)"
    return (
        f"TIMESTAMP_MICROS(IF({seconds} BETWEEN 0 AND {_LAST_SECOND}"
        f" AND {nanoseconds} BETWEEN 0 AND 999999999,"
        f" {seconds} * 1000000 + DIV({nanoseconds}, 1000), NULL))"
    )


# How a column becomes an expression; None for a type that can't be read so.
READERS: Mapping[Reading, Callable[[str, str], str | None]] = {
    "text": text_sql,
    "time": time_sql,
    "reference": reference_sql,
    "properties": lambda sql, type_: sql if type_ in {"STRING", "JSON"} else None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTables:
    """The four source tables, as they are read in this run."""

    events: Source
    users: Source
    documents: Source
    posthog_sessions: Source


_WITHOUT: Final = {
    "posthog_sessions": "no session gets a channel",
    "users": "no session gets a user",
    "documents": "no session gets what its user created",
}


def source_warnings(name: str, source: Source) -> list[str]:
    """What to say of a source that is missing, lacks columns, or has values that may be masked.

    `name`: as in `source_tables`.
    """
    table = source.shape.table
    warnings = []
    if source.shape.is_missing:
        warnings.append(f"Table {table} does not exist: {_WITHOUT[name]}.")
    if name == "users":
        warnings += [
            f"Table {table} has no column for {column}."
            for column in ("phone", "email", "created_at")
            if column not in source.sql
        ]
    masked = masked_warning(source)
    return [*warnings, masked] if masked else warnings

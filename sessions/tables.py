"""Names and schemas of tables, as records: nothing here knows a client."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import SettingsError
from sessions.metrics import COLUMNS, PROPERTIES, Aggregation, Column, Metric, is_repeated

_DATASET = re.compile(r"[A-Za-z0-9_]{1,1024}")
_PROJECT = re.compile(r"[a-z][a-z0-9.:-]{0,61}[a-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableId:
    """A table's full name, checked, since identifiers go into SQL as they are."""

    project: str
    dataset: str
    name: str

    def __post_init__(self) -> None:
        """Refuse what could not be an identifier (SettingsError)."""
        fits = (
            _PROJECT.fullmatch(self.project)
            and _DATASET.fullmatch(self.dataset)
            and _DATASET.fullmatch(self.name)
        )
        if not fits:
            message = f"{self} is not a table name BigQuery knows: check the project and datasets."
            raise SettingsError(message)

    def __str__(self) -> str:
        """`project.dataset.table`, as people write it."""
        return f"{self.project}.{self.dataset}.{self.name}"

    @property
    def sql(self) -> str:
        """The name as it stands in a statement."""
        return f"`{self.project}`.`{self.dataset}`.`{self.name}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A column of a table. `fields` are those of a RECORD."""

    name: str
    type: str
    description: str = ""
    is_repeated: bool = False
    is_required: bool = False
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSchema:
    """A destination table: its columns and how it is laid out."""

    fields: tuple[Field, ...]
    description: str
    partitioned_by: str | None = None
    clustered_by: tuple[str, ...] = ()


# What is in a RECORD besides the values of events, by the source that the metric table names.
_COUNTED = {
    "": "How many events of the session have it.",
    "day": "UTC day of the rows.",
    "row_count": "Valid source rows of that day, repeats included.",
}


def field_of(column: Column) -> Field:
    """The BigQuery column of an entry of the metric table."""
    record = getattr(column, "record", ())
    return Field(
        name=column.name,
        type=column.type,
        description=column.description,
        is_repeated=is_repeated(column),
        fields=tuple(
            Field(name=name, type=type_, description=_described(column, source))
            for name, type_, source in record
        ),
    )


def _described(column: Column, source: str) -> str:
    """What a field of a RECORD holds, by the source that it is read from."""
    if source in _COUNTED:
        return _COUNTED[source]
    if isinstance(column, Metric) and column.aggregation is Aggregation.COUNTS_BY_VALUE:
        return f"A value of `{source}` in the session."
    names = next((item.names for item in PROPERTIES if item.name == source), (source,))
    return f"{' or '.join(names)} of the event."


SESSIONS = TableSchema(
    fields=tuple(field_of(column) for column in COLUMNS),
    description="One row per session, built by posthog-etl from the events alone.",
    partitioned_by="session_date",
    clustered_by=("user_id", "session_id"),
)

QUARANTINED_SESSIONS = TableSchema(
    fields=(
        Field(name="session_id", type="STRING", description="PostHog's session id: the key."),
        Field(name="first_at", type="TIMESTAMP", description="Its first event when it was found."),
        Field(name="last_at", type="TIMESTAMP", description="Its last event when it was found."),
        Field(name="row_count", type="INT64", description="Its valid rows when it was found."),
        Field(
            name="reason", type="STRING", description="span (over 3 days) or rows (over 100,000)."
        ),
        Field(name="_run_id", type="STRING", description="The run that found it."),
    ),
    description="Sessions kept out of `sessions`: a hard-coded id, a bot. A full load looks again.",
)

STATE = TableSchema(
    fields=(
        Field(name="run_id", type="STRING", description="The last successful ordinary run."),
        Field(name="metrics_version", type="STRING", description="What its rows were built with."),
        Field(
            name="sessions_created_at",
            type="TIMESTAMP",
            description="Creation time of the `sessions` table that this state belongs to.",
        ),
        Field(
            name="days",
            type="RECORD",
            is_repeated=True,
            fields=(
                Field(
                    name="partition_id",
                    type="STRING",
                    description="UTC day as YYYYMMDD; __NULL__ for rows without a time.",
                ),
                Field(name="row_count", type="INT64", description="Rows of that partition."),
            ),
            description="Rows of the events table by partition, as that run saw them.",
        ),
    ),
    description="What the last successful run saw: one row, published with its sessions.",
)

# The table is made by `pipeline.lease`, together with its one row.
LEASE = TableSchema(
    fields=(
        Field(name="job", type="STRING", description="The job whose lease it is."),
        Field(name="fence", type="INT64", description="Grows with every run that takes the lease."),
        Field(name="run_id", type="STRING", description="The run that holds it."),
        Field(name="expires_at", type="TIMESTAMP", description="Until when it holds it (UTC)."),
        Field(
            name="published_run_id",
            type="STRING",
            description="The last run whose publication committed.",
        ),
        Field(
            name="triggers",
            type="RECORD",
            is_repeated=True,
            fields=(
                Field(
                    name="trigger",
                    type="STRING",
                    description="A scheduled delivery, or an execution of a job.",
                ),
                Field(name="run_id", type="STRING", description="The run that it led to."),
            ),
            description="The latest deliveries whose runs have succeeded.",
        ),
    ),
    description="Who may publish now, and which scheduled deliveries have succeeded: one row.",
)

RUNS = TableSchema(
    fields=(
        Field(name="run_id", type="STRING", description="The run: the key; sorts by its start."),
        Field(name="job", type="STRING", description="What was run: sessions."),
        Field(
            name="status",
            type="STRING",
            description="running, succeeded, failed, aborted, timed_out or lease_lost.",
        ),
        Field(
            name="kind",
            type="STRING",
            description="full_load, incremental, nothing_new, dates or limit.",
        ),
        Field(name="engine", type="STRING", description="What aggregated: pandas or bigquery."),
        Field(name="started_at", type="TIMESTAMP", description="When it began (UTC)."),
        Field(name="finished_at", type="TIMESTAMP", description="When it ended (UTC)."),
        Field(name="error", type="STRING", description="What ended it, in one sentence."),
        Field(name="report", type="STRING", description="The whole report, as JSON."),
    ),
    description="The run ledger: a report that nothing depends on.",
)

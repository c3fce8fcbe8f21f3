"""Names and schemas of tables, as records: nothing here knows a client."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import SettingsError
from sessions.metrics import COLUMNS, Column, is_repeated

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


def field_of(column: Column) -> Field:
    """The BigQuery column of an entry of the metric table."""
    record = getattr(column, "record", ())
    return Field(
        name=column.name,
        type=column.type,
        description=column.description,
        is_repeated=is_repeated(column),
        fields=tuple(Field(name=name, type=type_) for name, type_, _ in record),
    )


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
                Field(name="partition_id", type="STRING"),
                Field(name="row_count", type="INT64"),
            ),
            description="Rows of the events table by partition, as that run saw them.",
        ),
    ),
    description="What the last successful run saw: one row, published with its sessions.",
)

RUNS = TableSchema(
    fields=(
        Field(name="run_id", type="STRING"),
        Field(name="job", type="STRING"),
        Field(name="status", type="STRING", description="running, succeeded, failed, …"),
        Field(
            name="kind",
            type="STRING",
            description="full_load, incremental, nothing_new, dates, limit",
        ),
        Field(name="engine", type="STRING"),
        Field(name="started_at", type="TIMESTAMP"),
        Field(name="finished_at", type="TIMESTAMP"),
        Field(name="error", type="STRING"),
        Field(name="report", type="STRING", description="The whole report, as JSON."),
    ),
    description="The run ledger: a report that nothing depends on.",
)

"""The tables of the sessions job, as records made from a metric table. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bigquery.tables import Field, TableSchema
from sessions.metric_types import Aggregation, Column, Metric, is_repeated
from sessions.projection import projected_columns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bigquery.tables import TableId
    from sessions.metric_types import MetricTable

# What is in a RECORD besides the values of events, by the source that the metric table names.
_COUNTED = {
    "": "How many events of the session have it.",
    "day": "UTC day of the rows.",
    "row_count": "Valid source rows of that day, repeats included.",
    "digest": "A number that differs once those rows do.",
}


def _field_of(metric_table: MetricTable, column: Column) -> Field:
    """The BigQuery column of an entry of the metric table."""
    record = getattr(column, "record", ())
    return Field(
        name=column.name,
        type=column.type,
        description=column.description,
        is_repeated=is_repeated(column),
        fields=tuple(
            Field(name=name, type=type_, description=_described(metric_table, column, source))
            for name, type_, source in record
        ),
    )


def _described(metric_table: MetricTable, column: Column, source: str) -> str:
    """What a field of a RECORD holds, by the source that it is read from."""
    if source in _COUNTED:
        return _COUNTED[source]
    if isinstance(column, Metric) and column.aggregation is Aggregation.COUNTS_BY_VALUE:
        return f"A value of `{source}` in the session."
    properties = metric_table.properties
    names = next((item.names for item in properties if item.name == source), (source,))
    return f"{' or '.join(names)} of the event."


def sessions_schema(metric_table: MetricTable) -> TableSchema:
    """The table `sessions`."""
    return TableSchema(
        fields=tuple(_field_of(metric_table, column) for column in metric_table.columns),
        description="One row per session, built by posthog-etl from the events alone.",
        partitioned_by="session_date",
        clustered_by=("user_id", "session_id"),
    )


def aggregated_schema(metric_table: MetricTable) -> TableSchema:
    """A staging table of what the pandas engine returns, batch by batch."""
    return TableSchema(
        fields=(
            Field(name="batch", type="INT64"),
            Field(name="session_no", type="INT64"),
            *(_field_of(metric_table, metric) for metric in metric_table.metrics),
        ),
        description="One run's aggregated rows, before they are enriched.",
    )


def projected_schema(metric_table: MetricTable) -> TableSchema:
    """The staging table of what a run projects, where there is nothing to project."""
    columns = projected_columns(metric_table)
    return TableSchema(
        fields=tuple(Field(name=name, type=type_) for name, type_ in columns.items()),
        description="One run's projected rows.",
        clustered_by=("session_id",),
    )


def undeclared_warnings(schema: TableSchema, table: TableId, stored: Iterable[str]) -> list[str]:
    """A warning for each column that a table has and nothing declares: it stays null."""
    declared = {field.name for field in schema.fields}
    return [
        f"Column {name} of {table.name} is not declared and stays null: declare it, or run"
        f" ALTER TABLE {table.sql} DROP COLUMN {name}."
        for name in stored
        if name not in declared
    ]


TIES = TableSchema(
    fields=(
        Field(name="day", type="DATE", description="UTC day of the events."),
        Field(name="distinct_id", type="STRING", description="Distinct id of the events."),
        Field(
            name="tied_id",
            type="STRING",
            description="The id that they tie it to: `$anon_distinct_id` of `$identify`, `alias` "
            "of `$create_alias` and `$merge_dangerously`.",
        ),
    ),
    description="Ids that events say to be one person's, day by day, with or without a session.",
)


def quarantined_schema(metric_table: MetricTable) -> TableSchema:
    """The table `quarantined_sessions`."""
    return TableSchema(
        fields=_found_fields("The piece, as SESSION_ID/YYYY-MM-DD/DISTINCT_ID: the key."),
        description="Pieces of split ids that are kept out of `sessions`, because they have over "
        f"{metric_table.most_session_rows:,} rows: bots. A full load looks again.",
    )


def split_schema(metric_table: MetricTable) -> TableSchema:
    """The table `split_ids`."""
    return TableSchema(
        fields=_found_fields("PostHog's session id: the key."),
        description=f"Ids that live longer than {metric_table.longest_session_days} days, or have "
        f"over {metric_table.most_session_rows:,} rows: their sessions are pieces. A full load "
        "looks again.",
    )


def _found_fields(key: str) -> tuple[Field, ...]:
    return (
        Field(name="session_id", type="STRING", description=key),
        Field(name="first_at", type="TIMESTAMP", description="Its first event when it was found."),
        Field(name="last_at", type="TIMESTAMP", description="Its last event when it was found."),
        Field(name="row_count", type="INT64", description="Its valid rows when it was found."),
        Field(name="_run_id", type="STRING", description="The run that found it."),
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
                Field(
                    name="stamp",
                    type="INT64",
                    description="A number that differs once rows of it were rewritten.",
                ),
            ),
            description="Rows of the events table by partition, as that run saw them.",
        ),
        Field(name="users", type="INT64", description="Firebase users that it found."),
        Field(
            name="documents", type="INT64", description="Usable Firebase documents that it found."
        ),
        Field(
            name="columns",
            type="RECORD",
            is_repeated=True,
            fields=(
                Field(name="name", type="STRING", description="A column of `sessions`."),
                Field(
                    name="version",
                    type="STRING",
                    description="Hash of its declaration.",
                ),
            ),
            description="The columns that its rows were built with.",
        ),
    ),
    description="What the last successful run saw: one row, published with its sessions.",
)

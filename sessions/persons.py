"""The columns of `persons`, `identities` and `daily_activity`, from a metric table. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from bigquery.tables import Field, TableSchema
from sessions.metric_types import Column, RollUp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessions.metric_types import MetricTable

RETENTION_DAYS = (1, 7, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledUp:
    """A person's column made of one column of all of a person's sessions."""

    name: str
    column: Column
    rule: RollUp

    @property
    def field(self) -> Field:
        """The BigQuery column."""
        described = f"{_ACROSS[self.rule]} {self.column.name}: {self.column.description}"
        return Field(name=self.name, type=self.column.type, description=described)


_ACROSS = {
    RollUp.SUM: "Sum of the sessions'",
    RollUp.EVER: "Whether any session has",
    RollUp.MAX: "Greatest of the sessions'",
    RollUp.FIRST: "First known of the sessions'",
    RollUp.LAST: "Last known of the sessions'",
}


def _roll_ups(column: Column) -> Iterator[RolledUp]:
    names: dict[RollUp, str]
    match column.roll_up:
        case RollUp.NONE:
            return
        case RollUp.SUM | RollUp.EVER:
            names = {column.roll_up: column.name}
        case RollUp.MAX:
            names = {RollUp.MAX: f"max_{column.name.removeprefix('max_')}"}
        case RollUp.FIRST | RollUp.LAST:
            names = {column.roll_up: f"{column.roll_up}_{column.name}"}
        case RollUp.FIRST_AND_LAST:
            names = {rule: f"{rule}_{column.name}" for rule in (RollUp.FIRST, RollUp.LAST)}
        case _:
            assert_never(column.roll_up)
    for rule, name in names.items():
        yield RolledUp(name=name, column=column, rule=rule)


def rolled_up(metric_table: MetricTable) -> tuple[RolledUp, ...]:
    """The columns of `persons` that are made of those of `sessions`."""
    return tuple(each for column in metric_table.columns for each in _roll_ups(column))


def daily(metric_table: MetricTable) -> tuple[RolledUp, ...]:
    """Those of them that are summed by day, too."""
    return tuple(each for each in rolled_up(metric_table) if each.rule is RollUp.SUM)


_PERSON_ID = Field(
    name="person_id",
    type="STRING",
    description="`user_id`, or where there is none the distinct id, no junk id, used last.",
)
_USER_ID = Field(
    name="user_id",
    type="STRING",
    description="Firebase user: of the session, or by `identities`; null for anonymous persons.",
)
_CREATED = (
    Field(
        name="events_created",
        type="INT64",
        description="Firebase events of the user, check-ins apart, within a session or not.",
    ),
    Field(
        name="checkins_created",
        type="INT64",
        description="Firebase check-ins of the user, within a session or not.",
    ),
)


def persons_schema(metric_table: MetricTable) -> TableSchema:
    """The table `persons`."""
    return TableSchema(
        fields=(
            _PERSON_ID,
            _USER_ID,
            Field(
                name="user_signed_up_at",
                type="TIMESTAMP",
                description="When the user was created (UTC).",
            ),
            Field(
                name="first_seen_at",
                type="TIMESTAMP",
                description="Start of the first session (UTC).",
            ),
            Field(
                name="last_seen_at", type="TIMESTAMP", description="Latest end of a session (UTC)."
            ),
            Field(name="session_count", type="INT64", description="Number of sessions."),
            Field(
                name="active_days",
                type="INT64",
                description="Distinct UTC days on which a session started.",
            ),
            Field(
                name="days_since_last_seen",
                type="INT64",
                description="UTC days from `last_seen_at` to the run's, never below 0.",
            ),
            Field(
                name="is_churned",
                type="BOOL",
                description="`days_since_last_seen` is CHURN_DAYS (14) or more.",
            ),
            *(
                Field(
                    name=f"returned_day_{number}",
                    type="BOOL",
                    description=f"A session started on UTC day {number} after that of the first "
                    "one; null where none has and that day was not over when the run started.",
                )
                for number in RETENTION_DAYS
            ),
            *(each.field for each in rolled_up(metric_table)),
            *_CREATED,
            Field(
                name="created_event",
                type="BOOL",
                description="Whether the user ever created an event: `events_created` > 0.",
            ),
            Field(
                name="creation_days",
                type="RECORD",
                is_repeated=True,
                fields=(
                    Field(name="day", type="DATE", description="UTC day of the creations."),
                    Field(
                        name="events_created",
                        type="INT64",
                        description="Firebase events of that day, check-ins apart.",
                    ),
                    Field(
                        name="checkins_created",
                        type="INT64",
                        description="Firebase check-ins of that day.",
                    ),
                ),
                description="The UTC days on which the user created anything, with how much.",
            ),
            Field(
                name="_loaded_at", type="TIMESTAMP", description="Start of the run that wrote it."
            ),
            Field(name="_run_id", type="STRING", description="The run that wrote the row."),
        ),
        description="One row per person with a session, rebuilt from `sessions` by each run.",
        clustered_by=("user_id", "person_id"),
    )


IDENTITIES = TableSchema(
    fields=(
        Field(
            name="anonymous_id",
            type="STRING",
            description="Id without a user of its own that `ties` give one user alone: the key.",
        ),
        Field(name="user_id", type="STRING", description="That Firebase user."),
        Field(name="_run_id", type="STRING", description="The run that wrote the row."),
    ),
    description="Whose the anonymous distinct ids are, rebuilt from `ties` by each run.",
)


def daily_activity_schema(metric_table: MetricTable) -> TableSchema:
    """The view `daily_activity`."""
    return TableSchema(
        fields=(
            Field(
                name="activity_date",
                type="DATE",
                description="UTC day on which the sessions started, or the documents were created.",
            ),
            _PERSON_ID,
            _USER_ID,
            Field(
                name="session_count", type="INT64", description="Sessions that started that day."
            ),
            *(each.field for each in daily(metric_table)),
            *_CREATED,
        ),
        description="A view: one row per person and UTC day with a session or a creation.",
    )

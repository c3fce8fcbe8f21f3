"""How declared and stored columns differ, and what a run announces before it reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from bigquery.tables import TableId
from runs.report_text import report_text
from runs.request import RunRequest
from sessions.budget import Budget
from sessions.column_changes import ColumnChanges, announcement, column_changes
from sessions.metric_types import Creation, Filter, Metric, MetricTable
from sessions.plan import Plan, State
from sessions.report import SessionsReport
from tests.shipped import METRIC_TABLE

STORED = [column.name for column in METRIC_TABLE.columns]
BUILT_WITH = METRIC_TABLE.column_versions()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TABLE = TableId(project="my-project", dataset="posthog_etl", name="events")
BUDGET = Budget(per_query=None, unasked=None, usd_per_tib=6.25, why="")
STATE = State(run_id="r", metrics_version="a", sessions_created_at=NOW, days={})
CHANGES = ColumnChanges(added=("answers",), changed=("quiz_seconds",), undeclared=("left_over",))


def redeclare(name: str, **parts: Any) -> MetricTable:  # noqa: ANN401 - fields of a metric
    """Return the shipped table with another declaration of one column."""
    columns = (
        replace(column, **parts) if column.name == name else column
        for column in METRIC_TABLE.columns
    )
    return replace(METRIC_TABLE, columns=tuple(columns))


def test_an_unchanged_table_has_no_differences() -> None:
    """Each column has a version, which only its own declaration changes."""
    assert [*BUILT_WITH] == STORED
    assert column_changes(METRIC_TABLE, BUILT_WITH, STORED) == ColumnChanges()


def test_each_kind_of_difference_is_reported() -> None:
    """Columns that are not stored yet, declared differently, and no longer declared."""
    declared = redeclare("quiz_seconds", where=(Filter(events=("end_quiz",)),))
    first = next(each for each in METRIC_TABLE.columns if isinstance(each, Metric))
    declared = replace(declared, columns=(*declared.columns, replace(first, name="answers")))
    assert column_changes(declared, BUILT_WITH, [*STORED, "left_over"]) == CHANGES


def test_a_column_changes_with_the_properties_that_it_reads() -> None:
    """A renamed property changes its columns; a rule for documents, the counts of documents."""
    renamed = tuple(
        replace(each, names=("$place",)) if each.name == "city" else each
        for each in METRIC_TABLE.properties
    )
    table = replace(METRIC_TABLE, properties=renamed, creation=Creation(checkins=("visit",)))
    assert column_changes(table, BUILT_WITH, STORED).changed == (
        "city", "events_created", "checkins_created",
    )  # fmt: skip


@pytest.mark.parametrize(
    "built_with", [None, {}], ids=["no state", "the state of an older release"]
)
def test_without_known_versions_no_column_counts_as_new(
    built_with: dict[str, str] | None,
) -> None:
    """A column that is no longer declared is reported all the same."""
    found = column_changes(METRIC_TABLE, built_with, [*STORED, "left_over"])
    assert found == ColumnChanges(undeclared=("left_over",))


@pytest.mark.parametrize(
    ("reason", "has_other_metrics", "beginning"),
    [
        ("the metrics changed (a to b)", True, "Metrics changed: full load of 2 days, up to 0.5"),
        ("it was asked for", False, "Full load of 2 days, up to 0.5 GB (0.00 USD) of table my-"),
        (None, False, "Full load of 2 days, "),
    ],
)
def test_a_run_announces_what_it_will_read(
    reason: str | None, beginning: str, *, has_other_metrics: bool
) -> None:
    """It names days, bytes, dollars, the table, the reason, and the columns that differ."""
    plan = Plan(
        kind="full_load", reason=reason, days=(date(2026, 1, 1), date(2026, 1, 2)), counts={},
        has_other_metrics=has_other_metrics, last_state=STATE,
    )  # fmt: skip
    text = announcement(plan, CHANGES, table=TABLE, budget=BUDGET, size=5 * 10**8)
    assert text.startswith(beginning)
    assert ("because it was asked for." in text) == (reason == "it was asked for")
    end = "Added: answers. Changed: quiz_seconds. No longer declared: left_over."
    assert text.endswith(end)
    text = announcement(plan, ColumnChanges(), table=TABLE, budget=BUDGET, size=0)
    assert text.endswith(". No column differs from the stored ones.")
    first = replace(plan, last_state=None)
    text = announcement(first, ColumnChanges(), table=TABLE, budget=BUDGET, size=0)
    assert "olumn" not in text


def test_the_announcement_stands_above_the_counts() -> None:
    """It is a line of the text report; the JSON report has the columns as lists."""
    report = SessionsReport(
        run_id="r", status="succeeded", request=RunRequest(), engine="pandas",
        started_at=NOW, announcement="Metrics changed: all.",
        columns=CHANGES.to_json(),
    )  # fmt: skip
    text = report_text(report)
    assert text.index("Metrics changed: all.") < text.index("source rows")
    assert report.to_json()["columns"] == {
        "added": ["answers"], "changed": ["quiz_seconds"], "undeclared": ["left_over"],
    }  # fmt: skip

"""How much a run may read: when somebody asked for it, when nobody did, and in one query."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from bigquery.tables import TableId
from runs.errors import BudgetError
from runs.request import RunRequest
from runs.settings import Settings
from sessions.budget import Budget, budget_of, unpruned_warning
from sessions.plan import Plan
from sessions.sources import Source, TableShape

TABLE = TableId(project="my-project", dataset="posthog_etl", name="events")
PARTITIONED = Source(
    shape=TableShape(table=TABLE, columns={}, pruned_by="timestamp"),
    sql={},
    physical={"event_at": "timestamp"},
)
UNPARTITIONED = replace(PARTITIONED, shape=TableShape(table=TABLE, columns={}))
BY_INGESTION = replace(
    PARTITIONED, shape=TableShape(table=TABLE, columns={}, pruned_by="inserted_at")
)
TERABYTE = 10**12
FULL_LOAD = Plan(
    kind="full_load", reason="the sessions table was missing", days=(date(2026, 1, 1),), counts={}
)
INCREMENTAL = Plan(
    kind="incremental", reason=None, days=(date(2026, 1, 1), date(2026, 1, 2)), counts={}
)


def budget(
    request: RunRequest | None = None, *, plan: Plan = FULL_LOAD, source: Source = PARTITIONED,
    **fields: Any,  # noqa: ANN401 - fields of the settings
) -> Budget:  # fmt: skip
    """The budget of a run, by default of a full load that nobody asked for."""
    settings = Settings(project_id="my-project", **fields)
    return budget_of(request or RunRequest(), plan, source, settings)


def test_a_full_load_that_nobody_asked_for_has_a_budget() -> None:
    """The refusal names bytes, dollars, the reason and the remedy in one sentence."""
    with pytest.raises(BudgetError) as raised:
        budget().check(TABLE, query=TERABYTE, total=TERABYTE)
    assert str(raised.value) == (
        "The run would read 1,000.0 GB (5.68 USD) of table my-project.posthog_etl.events, because"
        " the sessions table was missing, and MAX_UNASKED_BYTES allows 200.0 GB (1.14 USD) to a run"
        " that nobody asked for: run once with --full-load, or raise MAX_UNASKED_BYTES."
    )


@pytest.mark.parametrize(
    "request_",
    [RunRequest(full_load=True), RunRequest(start_date=date(2026, 1, 1))],
    ids=["full load", "dates"],
)
def test_max_unasked_bytes_does_not_limit_what_somebody_asked_for(request_: RunRequest) -> None:
    """A full load or days that somebody asks for are limited by MAX_BYTES_BILLED alone."""
    budget(request_).check(TABLE, query=TERABYTE, total=TERABYTE)
    with pytest.raises(BudgetError, match=r"would bill 1,000\.0 GB .* MAX_BYTES_BILLED allows"):
        budget(request_, max_bytes_billed=10**11).check(TABLE, query=TERABYTE, total=TERABYTE)


def test_the_budget_counts_everything_that_a_run_reads() -> None:
    """Small queries may exceed the budget of the run together, though each is within its limit."""
    limited = budget(max_bytes_billed=10**11, max_unasked_bytes=2 * 10**11)
    limited.check(TABLE, query=10**11, total=2 * 10**11)
    with pytest.raises(BudgetError, match="MAX_UNASKED_BYTES"):
        limited.check(TABLE, query=10**11, total=2 * 10**11 + 1)


def test_changed_days_are_named_as_the_reason() -> None:
    """A backfill of many days costs as much as a full load, and nobody asked for it either."""
    with pytest.raises(BudgetError, match="because 2 days changed, and"):
        budget(plan=INCREMENTAL).check(TABLE, query=TERABYTE, total=TERABYTE)


@pytest.mark.parametrize(
    "source", [UNPARTITIONED, BY_INGESTION], ids=["not at all", "by another column"]
)
def test_a_table_that_cannot_be_pruned_is_named_as_the_reason(source: Source) -> None:
    """Even a few changed days read the whole table: only partitions by day would help."""
    with pytest.raises(BudgetError, match="because the table is not partitioned by the day"):
        budget(plan=INCREMENTAL, source=source).check(TABLE, query=TERABYTE, total=TERABYTE)


def test_reading_a_whole_table_causes_a_warning() -> None:
    """The warning names bytes and dollars, and comes from 1 GB on."""
    warning = unpruned_warning(UNPARTITIONED, budget(), total=TERABYTE)
    assert warning is not None
    assert "not partitioned by the day of its events" in warning
    assert "1,000.0 GB (5.68 USD)" in warning
    assert unpruned_warning(UNPARTITIONED, budget(), total=10**9 - 1) is None
    assert unpruned_warning(PARTITIONED, budget(), total=TERABYTE) is None

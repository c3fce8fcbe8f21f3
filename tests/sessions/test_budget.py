"""How much a run may read: of what somebody asked for, of what nobody did, and in one query."""

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
WHOLE = replace(PARTITIONED, shape=TableShape(table=TABLE, columns={}))
BY_INGESTION = replace(
    PARTITIONED, shape=TableShape(table=TABLE, columns={}, pruned_by="inserted_at")
)
TERABYTE = 10**12
FORCED = Plan(
    kind="full_load", reason="the sessions table was missing", days=(date(2026, 1, 1),), counts={}
)
ORDINARY = Plan(
    kind="incremental", reason=None, days=(date(2026, 1, 1), date(2026, 1, 2)), counts={}
)


def budget(
    request: RunRequest | None = None, *, plan: Plan = FORCED, source: Source = PARTITIONED,
    **settings: Any,  # noqa: ANN401 - the fields of the settings
) -> Budget:  # fmt: skip
    """The budget of a run, by default of a full load that nobody asked for."""
    made = Settings(project_id="my-project", **settings)
    return budget_of(request or RunRequest(), plan, source, made)


def test_a_full_load_that_nobody_asked_for_has_a_budget() -> None:
    """Bytes, dollars, the reason and the remedy are in one sentence."""
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
def test_what_a_person_names_has_no_such_budget(request_: RunRequest) -> None:
    """Who asks for a full load or for days gets them; only the limit of a query holds."""
    budget(request_).check(TABLE, query=TERABYTE, total=TERABYTE)
    with pytest.raises(BudgetError, match=r"would bill 1,000\.0 GB .* MAX_BYTES_BILLED allows"):
        budget(request_, max_bytes_billed=10**11).check(TABLE, query=TERABYTE, total=TERABYTE)


def test_all_that_a_run_reads_counts() -> None:
    """Several small queries exceed the budget of a run, and never that of a query."""
    limited = budget(max_bytes_billed=10**11, max_unasked_bytes=2 * 10**11)
    limited.check(TABLE, query=10**11, total=2 * 10**11)
    with pytest.raises(BudgetError, match="MAX_UNASKED_BYTES"):
        limited.check(TABLE, query=10**11, total=2 * 10**11 + 1)


def test_changed_days_are_named_as_the_reason() -> None:
    """A backfill of many days is as dear as a full load, and nobody asked for it either."""
    with pytest.raises(BudgetError, match="because 2 days changed, and"):
        budget(plan=ORDINARY).check(TABLE, query=TERABYTE, total=TERABYTE)


@pytest.mark.parametrize("source", [WHOLE, BY_INGESTION], ids=["not at all", "by another column"])
def test_a_table_that_cannot_be_pruned_is_the_reason(source: Source) -> None:
    """A few changed days read all of it: what helps is another table, not another request."""
    with pytest.raises(BudgetError, match="because the table is not partitioned by the day"):
        budget(plan=ORDINARY, source=source).check(TABLE, query=TERABYTE, total=TERABYTE)


def test_reading_whole_tables_is_warned_of() -> None:
    """With bytes and dollars, as soon as it costs anything to speak of."""
    told = unpruned_warning(WHOLE, budget(), total=TERABYTE)
    assert told is not None
    assert "not partitioned by the day of its events" in told
    assert "1,000.0 GB (5.68 USD)" in told
    assert unpruned_warning(WHOLE, budget(), total=10**9 - 1) is None
    assert unpruned_warning(PARTITIONED, budget(), total=TERABYTE) is None

"""The job `claude_usage`: three tables of each day of a window as Anthropic reports it now."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from apis import anthropic
from apis.http import Rate
from runs.errors import AuditError, RequestError, SettingsError, SourceShapeError
from sandbox.apis.anthropic import code, cost, fill, usage
from sandbox.apis.serving import Fault
from tests.jobs.scenario import ago

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.jobs.scenario import JobScenario

JOB = "claude_usage"


def requested_windows(scenario: JobScenario) -> set[str]:
    """The windows of the requests for the cost report."""
    return {
        f"{request.value('starting_at')} {request.value('ending_at')}"
        for request in scenario.anthropic.requests
        if request.path.endswith("/cost_report")
    }


def test_a_week_is_replaced_and_a_second_run_changes_nothing(scenario: JobScenario) -> None:
    """Seven days up to yesterday, at UTC midnights; amounts to the last digit of NUMERIC."""
    fill(scenario.anthropic, ago(1), days=10)
    for day in (1, 7):  # whatever the random data are, these two have a cost
        scenario.anthropic.costs[ago(day)].append(cost("0.12345", model="claude-opus-4-5"))
    report = scenario.run(JOB)
    assert requested_windows(scenario) == {f"{ago(7)}T00:00:00Z {ago(0)}T00:00:00Z"}
    costs = [each for day in range(1, 8) for each in scenario.anthropic.costs[ago(day)]]
    assert report.counts["claude_costs"] == len(costs)
    (sums,) = scenario.query(
        "SELECT MIN(activity_date) AS first, MAX(activity_date) AS last,"
        " SUM(amount_usd) AS usd FROM {c}.claude_costs"
    )
    assert sums["usd"] == sum(Decimal(each["amount"]) for each in costs) / 100
    assert (sums["first"], sums["last"]) == (ago(7), ago(1))
    assert report.to_json()["amount_usd"] == f"{sums['usd'].normalize():f}"
    first = scenario.stored(JOB)
    scenario.run(JOB)
    assert scenario.stored(JOB) == first


def test_days_are_stored_as_they_are_restated(scenario: JobScenario) -> None:
    """Changed, emptied and late days of the week are stored as reported now; older days stay."""
    for day in range(1, 10):
        scenario.anthropic.costs[ago(day)] = [cost(f"{day}00")]
        scenario.anthropic.code[ago(day)] = [code(ago(day), email="ada@example.com")]
    scenario.run(JOB, start_date=ago(9), end_date=ago(2))
    scenario.anthropic.costs |= {ago(2): [cost("250.5")], ago(3): [], ago(9): [cost("77777")]}
    scenario.anthropic.code[ago(3)] = []
    scenario.anthropic.empty_days = "left_out"
    scenario.run(JOB)
    rows = scenario.query("SELECT activity_date AS day, amount_usd FROM {c}.claude_costs")
    amounts = {(ago(0) - row["day"]).days: row["amount_usd"] for row in rows}
    expected = {day: Decimal(day) for day in range(1, 10) if day != 3}
    assert amounts == expected | {2: Decimal("2.505")}
    (found,) = scenario.query("SELECT COUNT(*) AS n FROM {c}.claude_code_productivity")
    assert found["n"] == 8


class Parts:
    """Progress that records which parts were staged, of how many."""

    def __init__(self) -> None:
        self.done: list[tuple[int, int]] = []

    def batch(self, done: int, total: int, events: int) -> None:  # noqa: ARG002 - as runs call it
        """A part is staged."""
        self.done.append((done, total))

    def step(self, name: str) -> None:
        """A step begins."""

    def close(self) -> None:
        """The run is over."""


def test_a_backfill_is_read_in_bounded_parts(
    scenario: JobScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 31 days at a time, each requested once; all become visible together."""
    monkeypatch.setattr(anthropic, "_RATE", Rate(requests=1000, seconds=1))
    for day in (2, 33, 34):
        scenario.anthropic.costs[ago(day)] = [cost("100")]
    parts = Parts()
    report = scenario.run(JOB, start_date=ago(34), end_date=ago(2), progress=parts)
    assert report.kind == "dates"
    assert parts.done == [(1, 2), (2, 2)]
    assert len(requested_windows(scenario)) == 2
    rows = scenario.query("SELECT activity_date AS day FROM {c}.claude_costs ORDER BY day")
    assert [row["day"] for row in rows] == [ago(34), ago(33), ago(2)]
    assert (
        scenario.check(JOB)["last run"].outcome == "warning"
    )  # a backfill does not count as a nightly run


def test_the_check_reports_gaps_and_totals(scenario: JobScenario) -> None:
    """The latest day, the missing days, and the totals of the latest months."""
    for day in (1, 2, 4):
        scenario.anthropic.costs[ago(day)] = [cost("100.5")]
        scenario.anthropic.usage[ago(day)] = [usage(100, model="claude-opus-4-5")]
    scenario.run(JOB)
    checks = scenario.check(JOB)
    assert checks["last run"].outcome == "ok"
    assert checks["claude_costs"].message == f"3 rows of 3 days, the latest {ago(1)}."
    assert checks["claude_code_productivity"].outcome == "warning"
    assert checks["missing days"].message.startswith(f"No costs on {ago(3)}: run with")
    totals = [each.message for name, each in checks.items() if name[:2] == "20"]
    assert sum(Decimal(each.split()[0]) for each in totals) == pytest.approx(
        Decimal("3.02"), abs=Decimal("0.011")
    )


def other_currency(scenario: JobScenario) -> None:
    """A cost in euros."""
    scenario.anthropic.costs[ago(1)] = [cost("100") | {"currency": "EUR"}]


def repeated_key(scenario: JobScenario) -> None:
    """Two rows of the same day, key, workspace and model."""
    row = usage(100, model="claude-opus-4-5")
    scenario.anthropic.break_down(
        Fault(
            trouble="changed",
            path=".*/messages",
            times=None,
            change=lambda body: {
                **body,
                "data": [{**each, "results": [row, row]} for each in body["data"]],
            },
        )
    )


def cost_column(scenario: JobScenario) -> None:
    """A cost column in the productivity table."""
    scenario.run(JOB)
    scenario.query("ALTER TABLE {c}.claude_code_productivity ADD COLUMN estimated_cost NUMERIC")


def other_organization(scenario: JobScenario) -> None:
    """A record of another organization."""
    record = code(ago(1), email="ada@example.com") | {"organization_id": "another"}
    scenario.anthropic.code[ago(1)] = [record]


WRONG: dict[str, tuple[Callable[[JobScenario], None], str]] = {
    "another currency": (other_currency, "claude_costs has 1 rows with other currencies"),
    "a repeated key": (repeated_key, "claude_usage_keys has 7 rows with repeated keys"),
    "a cost in the productivity table": (cost_column, "has a column estimated_cost"),
    "another organization": (other_organization, "1 rows with other organizations"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_data_are_not_published(scenario: JobScenario, mistake: str) -> None:
    """The audit's error names the mistake, and the three tables stay as they were."""
    spoil, message = WRONG[mistake]
    spoil(scenario)
    with pytest.raises(AuditError, match=message):
        scenario.run(JOB)
    assert {len(rows) for rows in scenario.stored(JOB).values()} == {0}


def test_the_key_must_belong_to_the_organization(scenario: JobScenario) -> None:
    """Nothing is read with a key of another organization."""
    scenario.anthropic.organization = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(SettingsError, match="another organization"):
        scenario.run(JOB)
    assert [request.path for request in scenario.anthropic.requests] == ["/v1/organizations/me"]


def test_a_report_of_another_shape_publishes_nothing(scenario: JobScenario) -> None:
    """If the last of three reports fails, the rows of the first two are not published, either."""
    fill(scenario.anthropic, ago(1), days=7)
    scenario.anthropic.break_down(
        Fault(
            trouble="changed",
            path=".*/claude_code",
            times=None,
            change=lambda body: {**body, "data": [{"date": 1}]},
        )
    )
    with pytest.raises(SourceShapeError, match=r"claude_code: .*date"):
        scenario.run(JOB)
    assert {len(rows) for rows in scenario.stored(JOB).values()} == {0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start_date": ago(0)}, "is not over yet"),
        ({"start_date": dt.date(2026, 1, 1), "end_date": ago(0)}, "is not over yet"),
        ({"limit": 10}, "takes no limit"),
    ],
)
def test_impossible_requests_are_refused(
    scenario: JobScenario, fields: dict[str, Any], message: str
) -> None:
    """Before anything is requested or created."""
    with pytest.raises(RequestError, match=message):
        scenario.run(JOB, **fields)
    assert scenario.anthropic.requests == []

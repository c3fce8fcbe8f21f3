"""The job `claude_usage`: each day of a window as Anthropic tells it now, in all three tables."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from runs.errors import AuditError, RequestError, SettingsError, SourceShapeError
from sandbox.apis.anthropic import code, cost, fill, usage
from sandbox.apis.serving import Fault
from tests.jobs.place import ago

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.jobs.place import Place

JOB = "claude_usage"


def days_asked(place: Place) -> set[str]:
    """The windows that were asked for of the cost report."""
    return {
        f"{asked.value('starting_at')} {asked.value('ending_at')}"
        for asked in place.anthropic.requests
        if asked.path.endswith("/cost_report")
    }


def test_a_week_is_replaced_and_a_second_run_changes_nothing(place: Place) -> None:
    """Yesterday and six days more, midnight to midnight; money to the last digit of NUMERIC."""
    fill(place.anthropic, ago(1), days=10)
    for day in (1, 7):  # whatever chance says, these two have something
        place.anthropic.costs[ago(day)].append(cost("0.12345", model="claude-opus-4-5"))
    report = place.run(JOB)
    assert days_asked(place) == {f"{ago(7)}T00:00:00Z {ago(0)}T00:00:00Z"}
    told = [each for day in range(1, 8) for each in place.anthropic.costs[ago(day)]]
    assert report.counts["claude_costs"] == len(told)
    (sums,) = place.query(
        "SELECT MIN(activity_date) AS first, MAX(activity_date) AS last,"
        " SUM(amount_usd) AS usd FROM {c}.claude_costs"
    )
    assert sums["usd"] == sum(Decimal(each["amount"]) for each in told) / 100
    assert (sums["first"], sums["last"]) == (ago(7), ago(1))
    assert report.to_json()["amount_usd"] == f"{sums['usd'].normalize():f}"
    first = place.stored(JOB)
    place.run(JOB)
    assert place.stored(JOB) == first


def test_days_are_stored_as_they_are_restated(place: Place) -> None:
    """Restated, emptied and late days of the week are what the API says; older days stay."""
    for day in range(1, 10):
        place.anthropic.costs[ago(day)] = [cost(f"{day}00")]
        place.anthropic.code[ago(day)] = [code(ago(day), email="ada@example.com")]
    place.run(JOB, start_date=ago(9), end_date=ago(2))
    place.anthropic.costs |= {ago(2): [cost("250.5")], ago(3): [], ago(9): [cost("77777")]}
    place.anthropic.code[ago(3)] = []
    place.anthropic.empty_days = "left_out"
    place.run(JOB)
    rows = place.query("SELECT activity_date AS day, amount_usd FROM {c}.claude_costs")
    amounts = {(ago(0) - row["day"]).days: row["amount_usd"] for row in rows}
    expected = {day: Decimal(day) for day in range(1, 10) if day != 3}
    assert amounts == expected | {2: Decimal("2.505")}
    (found,) = place.query("SELECT COUNT(*) AS n FROM {c}.claude_code_productivity")
    assert found["n"] == 8


class Parts:
    """Progress that keeps which parts were staged, of how many."""

    def __init__(self) -> None:
        self.done: list[tuple[int, int]] = []

    def batch(self, done: int, total: int, events: int) -> None:  # noqa: ARG002 - as runs call it
        """A part is staged."""
        self.done.append((done, total))

    def step(self, name: str) -> None:
        """A step begins."""

    def close(self) -> None:
        """The run is over."""


def test_a_backfill_is_read_in_bounded_parts(place: Place) -> None:
    """At most 31 days at a time, each asked for once, all visible together."""
    for day in (2, 33, 34):
        place.anthropic.costs[ago(day)] = [cost("100")]
    parts = Parts()
    report = place.run(JOB, start_date=ago(34), end_date=ago(2), progress=parts)
    assert report.kind == "dates"
    assert parts.done == [(1, 2), (2, 2)]
    assert len(days_asked(place)) == 2
    rows = place.query("SELECT activity_date AS day FROM {c}.claude_costs ORDER BY day")
    assert [row["day"] for row in rows] == [ago(34), ago(33), ago(2)]
    assert place.check(JOB)["last run"].outcome == "warning"  # a backfill is no nightly run


def test_the_check_tells_gaps_and_totals(place: Place) -> None:
    """The latest day, the missing days by name, and what the latest months came to."""
    for day in (1, 2, 4):
        place.anthropic.costs[ago(day)] = [cost("100.5")]
        place.anthropic.usage[ago(day)] = [usage(100, model="claude-opus-4-5")]
    place.run(JOB)
    checks = place.check(JOB)
    assert checks["last run"].outcome == "ok"
    assert checks["claude_costs"].message == f"3 rows of 3 days, the latest {ago(1)}."
    assert checks["claude_code_productivity"].outcome == "warning"
    assert checks["missing days"].message.startswith(f"No costs on {ago(3)}: run with")
    totals = [each.message for name, each in checks.items() if name[:2] == "20"]
    assert sum(Decimal(each.split()[0]) for each in totals) == pytest.approx(
        Decimal("3.02"), abs=Decimal("0.011")
    )


def other_currency(place: Place) -> None:
    """A cost in euros."""
    place.anthropic.costs[ago(1)] = [cost("100") | {"currency": "EUR"}]


def repeated_key(place: Place) -> None:
    """The same day, key, workspace and model twice, on two pages of which neither adds them up."""
    row = usage(100, model="claude-opus-4-5")
    place.anthropic.break_down(
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


def cost_column(place: Place) -> None:
    """Somebody has added a cost to the productivity table."""
    place.run(JOB)
    place.query("ALTER TABLE {c}.claude_code_productivity ADD COLUMN estimated_cost NUMERIC")


def other_organization(place: Place) -> None:
    """A record of another organization."""
    record = code(ago(1), email="ada@example.com") | {"organization_id": "another"}
    place.anthropic.code[ago(1)] = [record]


WRONG: dict[str, tuple[Callable[[Place], None], str]] = {
    "another currency": (other_currency, "claude_costs has 1 rows with other currencies"),
    "a repeated key": (repeated_key, "claude_usage_keys has 7 rows with repeated keys"),
    "a cost in the productivity table": (cost_column, "has a column estimated_cost"),
    "another organization": (other_organization, "1 rows with other organizations"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_not_published(place: Place, what: str) -> None:
    """An audit names it, and the three tables are what they were."""
    spoil, said = WRONG[what]
    spoil(place)
    with pytest.raises(AuditError, match=said):
        place.run(JOB)
    assert {len(rows) for rows in place.stored(JOB).values()} == {0}


def test_the_key_must_be_of_the_organization(place: Place) -> None:
    """Nothing is read by a key of another organization."""
    place.anthropic.organization = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(SettingsError, match="another organization"):
        place.run(JOB)
    assert [asked.path for asked in place.anthropic.requests] == ["/v1/organizations/me"]


def test_a_report_of_another_shape_publishes_nothing(place: Place) -> None:
    """The last of three reports fails: the rows of the first two stay unseen."""
    fill(place.anthropic, ago(1), days=7)
    place.anthropic.break_down(
        Fault(
            trouble="changed",
            path=".*/claude_code",
            times=None,
            change=lambda body: {**body, "data": [{"date": 1}]},
        )
    )
    with pytest.raises(SourceShapeError, match=r"claude_code: .*date"):
        place.run(JOB)
    assert {len(rows) for rows in place.stored(JOB).values()} == {0}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start_date": ago(0)}, "is not over yet"),
        ({"start_date": dt.date(2026, 1, 1), "end_date": ago(0)}, "is not over yet"),
        ({"limit": 10}, "takes no limit"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    place: Place, asked: dict[str, Any], said: str
) -> None:
    """Before anything is asked or made."""
    with pytest.raises(RequestError, match=said):
        place.run(JOB, **asked)
    assert place.anthropic.requests == []

"""The watch over metrics: no warning on ninety usual days, and one the morning after a break."""

from __future__ import annotations

import random
import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest

from bigquery.warehouse import Warehouse
from jobs.sessions_checks import check_sessions
from jobs.sessions_watch import check_watch
from sessions import watch
from sessions.watch import (
    DayFigures,
    chance_of_at_most,
    day_warnings,
    reason_warnings,
    unmatched_warnings,
)
from tests.clock import starting_at
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import event
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bigquery.clients import Clients

FIRST: Final = date(2026, 7, 6)
HOLIDAY: Final = FIRST + timedelta(days=60)
NAMES: Final = (
    "sessions",
    "sessions with a user",
    "joined_event",
    "quiz_seconds",
    "rare",
    "event part",
)
SHARES: Final = (1.0, 0.7, 0.3, 0.05, 0.008, 0.02)
LAST: Final = FIRST + timedelta(days=89)


def poisson(rng: random.Random, mean: float) -> int:
    """A Poisson count of that mean, from the times between arrivals."""
    count, at = 0, rng.expovariate(1)
    while at < mean:
        count, at = count + 1, at + rng.expovariate(1)
    return count


def usual_days(seed: int = 1) -> list[DayFigures]:
    """Ninety days with weekends, growth by half, and a holiday."""
    rng = random.Random(seed)  # noqa: S311 - a sample
    days = []
    for number in range(90):
        day = FIRST + timedelta(days=number)
        level = 400 * (1 + number / 180) * (0.6 if day.weekday() > 4 else 1)
        level *= 0.65 if day == HOLIDAY else 1
        figures = [poisson(rng, level * share) for share in SHARES]
        days.append(DayFigures(day=day, figures=figures))
    return days


def broken(name: str, *, since: date, days: Sequence[DayFigures]) -> list[DayFigures]:
    """The days, in which that metric is 0 since then."""
    index = NAMES.index(name)
    return [
        DayFigures(
            day=each.day,
            figures=[
                0 if position == index and each.day >= since else figure
                for position, figure in enumerate(each.figures)
            ],
        )
        for each in days
    ]


def morning_warnings(days: Sequence[DayFigures], last: date) -> list[str]:
    """The warnings of the morning after that day, from the days that its query returns."""
    recent = [each for each in days if watch.first_day(last) <= each.day <= last]
    return day_warnings(NAMES, recent, last)


@pytest.mark.parametrize("seed", range(5))
def test_ninety_usual_days_give_no_warning(seed: int) -> None:
    """Weekends, growth and a holiday are no alarm, and the first weeks are not judged."""
    days = usual_days(seed)
    assert [warning for each in days for warning in morning_warnings(days, each.day)] == []


@pytest.mark.parametrize("name", NAMES[1:4])
@pytest.mark.parametrize("ago", range(7))
def test_a_metric_that_ends_is_named_the_next_morning(name: str, ago: int) -> None:
    """On any weekday the warning has its numbers and days, and no other metric is named."""
    last = LAST - timedelta(days=ago)
    (warning,) = morning_warnings(broken(name, since=last, days=usual_days()), last)
    assert warning.startswith(f"Metric {name} fell: 0 on {last:%A}, {last}, and ")


def test_a_rare_metric_is_named_after_three_days() -> None:
    """One day without it may be chance, but not three."""
    since = LAST - timedelta(days=2)
    days = broken("rare", since=since, days=usual_days())
    assert morning_warnings(days, LAST - timedelta(days=1)) == []
    (warning,) = morning_warnings(days, LAST)
    assert warning.startswith(f"Metric rare is silent: none from {since} to {LAST}, and ")


def test_an_event_among_others_is_named_after_three_days() -> None:
    """Its metric also counts other events, so it does not fall when the app renames this one."""
    since = LAST - timedelta(days=2)
    days = broken("event part", since=since, days=usual_days())
    assert [morning_warnings(days, LAST - timedelta(days=ago)) for ago in (2, 1)] == [[], []]
    (warning,) = morning_warnings(days, LAST)
    assert warning.startswith(f"Event part is silent: none from {since} to {LAST}, and ")


def test_a_day_without_sessions_is_one_warning() -> None:
    """The metrics fall with the sessions and are not named; a day without a row counts as 0."""
    days = [each for each in usual_days() if each.day != LAST]
    (warning,) = morning_warnings(days, LAST)
    assert warning.startswith(f"Metric sessions fell: 0 on {LAST:%A}, {LAST}, and ")


def test_half_the_usual_sessions_cause_no_warning() -> None:
    """However improbable such a day is."""
    days = [
        DayFigures(day=LAST - timedelta(days=ago), figures=[1000 if ago else 500] * 6)
        for ago in range(35)
    ]
    assert morning_warnings(days, LAST) == []


@pytest.mark.parametrize(
    ("weekly", "word"), [((3, 3, 3, 3), "is silent"), ((1, 1, 1, 1), None), ((0, 0, 9, 9), None)]
)
def test_silence_is_reported_only_if_it_is_unusual(weekly: Sequence[int], word: str | None) -> None:
    """Chance must not explain three silent days, and earlier weeks must have had none like them."""
    days = [
        DayFigures(day=LAST - timedelta(weeks=week, days=ago), figures=[100, 0, 0, 0, figure, 0])
        for week, figure in enumerate([0, *weekly])
        for ago in range(3)
    ]
    warnings = morning_warnings(days, LAST)
    assert [f"Metric rare {word}" in each for each in warnings] == ([True] if word else [])


@pytest.mark.parametrize("hour", [0, 12, 23])
def test_the_hour_of_the_run_does_not_matter(hour: int) -> None:
    """The day that is judged is the last whole one in UTC."""
    assert watch.last_day(datetime(2026, 10, 4, hour, 59, tzinfo=UTC)) == date(2026, 10, 3)


def test_chances_are_those_of_a_poisson_distribution() -> None:
    """Known values, and large means, which must neither overflow nor take long."""
    assert chance_of_at_most(0, 7) == pytest.approx(0.000911882)
    assert chance_of_at_most(2, 10) == pytest.approx(0.002769396)
    assert chance_of_at_most(499_999, 1_000_000) == 0.0
    assert chance_of_at_most(0, 0) == 1


def test_a_reason_that_triples_is_named() -> None:
    """Its share must be over a hundredth of the rows, and enough runs must have been before."""
    usual = {"aggregated": 950, "no_session": 20, "duplicate": 30}
    before = [usual] * 7
    assert reason_warnings(usual, before) == []
    (warning,) = reason_warnings(usual | {"no_session": 80}, before)
    assert warning == (
        "Rows set aside as no_session tripled: 80, or 7.5% of the rows read,"
        " and 2.0% in the 7 runs before: look at these rows."
    )
    (warning,) = reason_warnings(usual | {"malformed": 30}, before)
    assert "malformed tripled: 30, or 2.9%" in warning
    assert reason_warnings(usual | {"malformed": 3}, before) == []
    assert reason_warnings(usual | {"no_session": 80}, before[:3]) == []


def test_only_declared_metrics_are_watched() -> None:
    """Columns of every project fall with the sessions; declared ones are counted by their kind."""
    names = watch.watched_names(METRIC_TABLE)
    assert names[:3] == ("sessions", "sessions with a user", "viewed_event")
    assert "event_count" not in names
    assert names[-3:] == (
        "event invite_friends", "event send_invite_to_event", "event invite_friends_for_report",
    )  # fmt: skip
    sql = watch.days_sql(METRIC_TABLE, "sessions")
    assert "COUNTIF(viewed_event)" in sql
    assert "COUNTIF(events_viewed > 0)" in sql
    assert "COUNTIF(quiz_seconds IS NOT NULL)" in sql


def test_a_run_and_a_check_warn_alike(clients: Clients) -> None:
    """A Sunday has no sessions; then many rows have no session id, and a column is undeclared."""
    now = datetime(2026, 10, 5, 3, tzinfo=UTC)
    sundays = [now - timedelta(days=1 + 7 * week) for week in range(1, 5)]
    rows = [event(f"{n} of {at:%d}", at) for at in sundays for n in range(11)]
    rows += [event(f"inviting of {at:%d}", at, event="invite_friends") for at in sundays]
    lost = [event(f"lost {n}", now, properties="{}") for n in range(5)]
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", rows)
        with starting_at(now):
            first = scenario.run()
        ledger = f"{scenario.destination}.etl_runs"
        scenario.query(f"""INSERT INTO {ledger} (run_id, job, status, kind, report)
            SELECT CONCAT('2026010', n), 'sessions', 'succeeded', 'incremental',
              '{{"counts": {{"aggregated": 100}}}}' FROM UNNEST([1, 2, 3, 4]) AS n""")
        scenario.arrive("posthog_events", [*lost, event("new", now)])
        sessions = f"{scenario.destination}.sessions"
        scenario.query(f"ALTER TABLE {sessions} ADD COLUMN left_over INT64")
        with starting_at(now + timedelta(hours=1)):
            second = scenario.run()
        warehouse = Warehouse(clients=clients, settings=scenario.make_settings(), run_id="check")
        names = {metric.name for metric in METRIC_TABLE.metrics}
        found = check_watch(METRIC_TABLE, warehouse, now, names)
        new = check_watch(METRIC_TABLE, warehouse, now, names - {"viewed_event"})
        checks = {each.name: each for each in check_sessions(METRIC_TABLE, warehouse, now)}
        days = watch.days_sql(METRIC_TABLE, f"{scenario.destination}.sessions")
        figures = {
            row["day"]: dict(zip(watch.watched_names(METRIC_TABLE), row["figures"], strict=True))
            for row in scenario.query(re.sub("@[a-z]+_day", "DATE '2026-09-27'", days))
        }
        (kept,) = scenario.query(
            f"SELECT JSON_VALUE_ARRAY(report, '$.warnings') AS warnings FROM {ledger}"
            f" WHERE run_id = '{second.run_id}'"
        )
    fallen = (
        "Metric sessions fell: 0 on Sunday, 2026-10-04, and 12, 12, 12, 12 on that weekday of the"
        " four weeks before: did the app or the export change?"
    )
    assert fallen in first.warnings
    assert not any("left_over" in each for each in first.warnings)
    (left,) = (each for each in second.warnings if "left_over" in each)
    assert left.startswith("Column left_over of sessions is not declared and stays null: ")
    assert left.endswith(".`sessions` DROP COLUMN left_over.")
    assert fallen in second.warnings
    assert (found.outcome, found.message) == ("warning", fallen)
    assert new.message == "The next run adds viewed_event: only then metrics are compared."
    (sunday,) = figures.values()
    assert sunday == dict.fromkeys(sunday, 0) | {
        "sessions": 12, "invited_someone": 1, "event invite_friends": 1,
    }  # fmt: skip
    (tripled,) = (each for each in second.warnings if "tripled" in each)
    assert tripled.startswith("Rows set aside as no_session tripled: 5,")
    assert kept["warnings"] == list(second.warnings)
    assert [checks[name].message for name in ("fallen metrics", "rows set aside", "columns")] == [
        fallen, tripled, left,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("users", "sessions", "of_users", "warns"),
    [(3, 50, 0, True), (3, 50, 1, False), (0, 50, 0, False), (3, 49, 0, False)],
    ids=["nobody matches", "one does", "there are no users", "too few sessions"],
)
def test_a_warning_says_that_no_user_matches(
    users: int, sessions: int, of_users: int, *, warns: bool
) -> None:
    """The run succeeds all the same: phones may be masked, or the users be those of another app."""
    warnings = unmatched_warnings(users=users, table="p.d.u", sessions=sessions, of_users=of_users)
    assert bool(warnings) is warns
    assert (
        not warnings
        or "of 50 sessions with an id, none belongs to any of the 3 users of" in warnings[0]
    )

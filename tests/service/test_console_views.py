"""What the console's pages show, computed from records: no server, no browser, no BigQuery."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pytest

from jobs.sessions_verification import Reading
from oracle.comparison import SourceRows
from oracle.story import build_story
from runs.errors import RequestError
from service.console import (
    explore,
    explore_sql,
    formats,
    health,
    overview,
    person,
    run,
    runs,
    session_page,
    signals,
    summary,
    timeline,
)
from service.console.charts import Chart, Line, Spark, usual_range
from service.console.queries import Answer
from service.console.start import needs_confirmation, read_request
from sessions.metric_types import Bookkeeping
from tests.shipped import METRIC_TABLE

NOW: Final = datetime(2026, 11, 26, 9, tzinfo=UTC)
TODAY: Final = NOW.date()


@pytest.mark.parametrize(
    ("formatted", "text"),
    [
        (formats.number(1234567), "1,234,567"),
        (formats.number(2.5), "2.5"),
        (formats.number(None), "\N{EN DASH}"),
        (formats.counted(1, "day"), "1 day"),
        (formats.counted(1000, "day"), "1,000 days"),
        (formats.compact(999), "999"),
        (formats.compact(1234), "1.2k"),
        (formats.compact(56_000_000), "56M"),
        (formats.share(0.1234), "12.3 %"),
        (formats.duration(0.44), "0.4 s"),
        (formats.duration(59.6), "1 min"),
        (formats.duration(185), "3 min 5 s"),
        (formats.duration(7800), "2 h 10 min"),
        (formats.duration(864_000), "10 days"),
        (formats.size(999), "999 B"),
        (formats.size(1_500_000), "1.5 MB"),
        (formats.size(2e15), "2000 TB"),
        (formats.dollars(0), "$0"),
        (formats.dollars(0.00012), "$0.00012"),
        (formats.dollars(1234.5), "$1,234.50"),
        (formats.moment(NOW), "26 Nov 2026, 09:00"),
        (formats.ago(NOW - timedelta(seconds=5), NOW), "just now"),
        (formats.ago(NOW - timedelta(minutes=59), NOW), "59 min ago"),
        (formats.ago(NOW - timedelta(hours=49), NOW), "2 days ago"),
        (formats.ago(None, NOW), "never"),
        (formats.signed(0.004), "\N{PLUS-MINUS SIGN}0 %"),
        (formats.signed(-0.31), "\N{MINUS SIGN}31 %"),
        (formats.words("joined_event"), "Joined event"),
    ],
)
def test_values_are_formatted_as_people_write_them(formatted: str, text: str) -> None:
    """Counts, shares, times, sizes and money, each in one form."""
    assert formatted == text


def test_a_chart_has_the_rows_of_its_table() -> None:
    """A row for each day, a column for each line and edge of the band; and a summary in words."""
    days = (date(2026, 11, 1), date(2026, 11, 2))
    line = Line(name="sessions", values=(3, None))
    band = (Line(name="least", values=(1, 1)), Line(name="most", values=(5, 6)))
    chart = Chart(title="Sessions", days=days, lines=(line,), write=formats.number, band=band)
    assert chart.rows == ((days[0], (3, 1, 5)), (days[1], (None, 1, 6)))
    assert chart.summary == ("Sessions, 2026-11-01 to 2026-11-02: sessions from 3 to 3, at most 3.")


def test_the_usual_range_is_of_the_same_weekday() -> None:
    """The minimum and maximum of the four weeks before; none if one of them is not known."""
    monday = date(2026, 11, 23)
    before = {monday - timedelta(days=7 * week): 10.0 * week for week in range(1, 5)}
    others = {monday - timedelta(days=day): 1000.0 for day in range(1, 7)}
    band = usual_range(before | others, [monday, monday + timedelta(days=1)])
    assert band is not None
    assert [line.values for line in band] == [(10.0, None), (40.0, None)]
    assert usual_range(others, [monday]) is None


def test_a_sparkline_is_as_wide_as_its_values() -> None:
    """From left to right, the smallest value at the bottom; it needs at least two values."""
    spark = Spark.of([1, None, 3])
    assert spark is not None
    assert spark.points == "1.0,22.0 99.0,2.0"
    assert Spark.of([1, None]) is None


# Runs.


def report(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - of a report
    """The report of a run, with some fields changed."""
    body = {
        "status": "succeeded",
        "request": {"limit": None, "job": "sessions", "params": {}},
        "counts": {"aggregated": 90, "duplicate": 9, "malformed": 1, "excluded": 0},
        "steps": [
            {"name": "lease", "seconds": 1.0, "bytes": 0, "parts": {}},
            {"name": "aggregate", "seconds": 3.0, "bytes": 7, "parts": {"load": 1.0}},
        ],
        "newest_event_at": (NOW - timedelta(hours=9)).isoformat(),
        "finished_at": (NOW - timedelta(hours=6)).isoformat(),
        "warnings": [],
        "sessions": {"touched": 5},
    }
    return body | changed


def ledger_row(**changed: Any) -> dict[str, Any]:  # noqa: ANN401 - of a report
    """A row of the ledger with its report."""
    found = report(**changed)
    return {
        "run_id": "20261126T030000_00000000",
        "job": "sessions",
        "status": found["status"],
        "kind": "incremental",
        "error": found.get("error"),
        "started_at": NOW,
        "report": found,
    }


VERIFIED: Final = ledger_row(
    counts={"sessions": 20, "wrong_cells": 0}, newest_event_at=None, kind="verify"
) | {"kind": "verify"}


def test_a_verification_counts_no_source_rows() -> None:
    """The list shows its number of sessions, and no number of rows."""
    (listed,) = (runs._row(VERIFIED, {}),)  # noqa: SLF001 - no page shows it alone
    assert (listed.sessions, listed.rows) == (20, None)
    assert not runs._figures([listed])  # noqa: SLF001 - no page shows them alone
    view = run.view_of("id", VERIFIED["report"], None)
    assert view.accounts == ()
    assert view.again is None
    assert view.command == ".venv/bin/python main.py --check --verify 20"
    assert ("Counts", (("sessions", 20), ("wrong cells", 0))) in view.figures


def test_the_bar_of_a_run_has_each_row_once() -> None:
    """The most frequent outcome comes first, and outcomes without rows are left out."""
    accounts = run.view_of("id", report(), None).accounts
    assert [each.name for each in accounts] == ["aggregated", "duplicate", "malformed"]
    assert [(each.x, each.width) for each in accounts] == [(0, 90), (90, 9), (99, 1)]


def test_steps_follow_each_other_and_parts_run_in_parallel() -> None:
    """A step begins where the one before ended, and its parts begin with it."""
    bars = run.view_of("id", report(), None).bars
    assert [(each.name, each.x, each.width) for each in bars] == [
        ("lease", 0, 25),
        ("aggregate", 25, 75),
        ("load", 25, 25),
    ]


def test_a_runs_page_has_the_request_that_repeats_it() -> None:
    """As a body, a command line and a form; only with what differs from the defaults."""
    request: dict[str, Any] = {
        "full_load": True,
        "start_date": None,
        "limit": 5,
        "job": "sessions",
        "params": {},
    }
    view = run.view_of("id", report(request=request), None)
    assert view.body == '{"full_load": true, "limit": 5}'
    assert view.command == ".venv/bin/python main.py --full-load --limit 5"
    assert view.again == "/runs/new?full_load=True&limit=5"
    again = dict(parse_qsl(urlsplit(view.again or "").query))
    with pytest.raises(RequestError, match="full_load takes every session"):
        read_request(again)


def test_a_killed_run_has_a_page() -> None:
    """Its report may lack most fields."""
    view = run.view_of("id", {"status": "lost"}, None)
    assert (view.status, view.accounts, view.bars) == ("lost", (), ())
    assert runs._row(ledger_row(counts={}, sessions=None), {}).rows is None  # noqa: SLF001


@pytest.mark.parametrize(
    ("rows", "level", "headline"),
    [
        ([ledger_row()], "good", "Everything is fine. Fresh until 26 Nov 2026, 00:00 UTC."),
        ([ledger_row(warnings=["a"])], "warn", "Fresh until 26 Nov 2026, 00:00 UTC, with a warn"),
        (
            [ledger_row(newest_event_at=(NOW - timedelta(hours=27)).isoformat())],
            "warn",
            "The newest event is of 25 Nov 2026, 06:00 UTC: look at PostHog's export.",
        ),
        ([ledger_row(status="failed", error="x"), ledger_row()], "bad", "The last run failed."),
        ([ledger_row(status="running"), ledger_row()], "good", "Everything is fine."),
        ([VERIFIED, ledger_row()], "good", "Everything is fine."),
        (
            [VERIFIED | {"status": "failed", "error": "2 cells are wrong"}, ledger_row()],
            "bad",
            "The last verification found wrong cells.",
        ),
        ([VERIFIED, ledger_row(status="failed", error="x")], "bad", "No run has succeeded yet."),
        ([], "new", "No run has succeeded yet."),
        ([ledger_row(status="running")], "new", "The first run is in progress."),
        ([ledger_row(status="failed", error="x")], "bad", "No run has succeeded yet."),
    ],
)
def test_the_summary_says_whether_everything_is_fine(
    rows: list[dict[str, Any]], level: str, headline: str
) -> None:
    """A failure outweighs old events, which outweigh warnings."""
    found = summary.summarize(rows, NOW)
    assert found.level == level
    assert found.headline.startswith(headline)


def test_the_summary_ignores_other_jobs() -> None:
    """Their failures are on the health page."""
    other = ledger_row(status="failed", error="x") | {"job": "another"}
    assert summary.summarize([other, ledger_row()], NOW).level == "good"


def test_fewer_bounces_are_better() -> None:
    """For any other metric more is better; a small change is neither."""
    good = overview._is_good  # noqa: SLF001 - no page shows it alone
    assert good("is_bounce", -0.1)
    assert good("sessions", 0.1)
    assert good("sessions", -0.1) is False
    assert good("sessions", 0.01) is None


def test_the_health_page_shows_trends() -> None:
    """Each reason's share of a run's rows, its mean share before, and changes of version."""
    reports = [
        report(counts={"aggregated": 8, "duplicate": 2}, metrics_version="a"),
        report(counts={}, metrics_version="a"),
        report(counts={"aggregated": 6, "duplicate": 2, "malformed": 2}, metrics_version="b"),
    ]
    trends = {each.name: (each.now, each.usual) for each in signals.reasons(reports)}
    assert trends == {
        "aggregated": ("60.0 %", "80.0 %"),
        "duplicate": ("20.0 %", "20.0 %"),
        "malformed": ("20.0 %", "0.0 %"),
    }
    versions = [version for _, version in signals.version_changes(reports)]
    assert versions == ["b", "a"]


def test_a_signal_compares_a_day_with_the_same_weekday() -> None:
    """The last of 35 bars is compared with four; what fell comes first, with a warning."""
    last = date(2026, 11, 25)
    days = [last - timedelta(days=number) for number in range(34, -1, -1)]
    rows = [{"day": day, "figures": [50, 0 if day > date(2026, 11, 22) else 6]} for day in days]
    found = signals.signals(("sessions", "completed_quiz"), rows, last)
    assert [each.name for each in found] == ["completed quiz", "sessions"]
    quiz, sessions = found
    assert quiz.warning.startswith("Metric completed_quiz is silent")
    assert (quiz.now, quiz.usual, sessions.now, sessions.warning) == ("0", "6", "50", "")
    kinds = [each.kind for each in quiz.bars]
    assert (kinds[-1], kinds.count("same"), len(kinds)) == ("last", 4, 35)
    assert [kinds[index] for index in (6, 13, 20, 27)] == ["same"] * 4
    assert (quiz.bars[-1].height, sessions.bars[-1].height) == (0, 30)


def test_a_job_shows_its_own_numbers() -> None:
    """Its counts, groups, days and dollars; nothing that every report has."""
    of_tmdb = report(
        job="tmdb_changes",
        counts={"upserted": 451, "failed": 0},
        seconds=3.0,
        first_day="2026-11-13",
        amount_usd="11539.4295",
        kinds={"tv": {"upserted": 142, "gone": 10, "failed": 0, "failures": {}}},
        sessions={},
    )
    assert dict(health.job_facts(of_tmdb)) == {
        "upserted": "451",
        "first day": "2026-11-13",
        "amount": "$11,539.43",
        "tv": "142 upserted, 10 gone",
    }
    of_sessions = report(job="sessions", metrics_version="a", sessions={"staged": 5, "split": 0})
    assert dict(health.job_facts(of_sessions)) == {"staged": "5"}


# A new run.


@pytest.mark.parametrize(
    ("fields", "needs_it"),
    [
        ({}, False),
        ({"limit": "5", "dry_run": "on"}, False),
        ({"full_load": "on"}, True),
        ({"force": "on"}, True),
        ({"start_date": "2026-01-01"}, True),
    ],
)
def test_expensive_runs_need_confirmation(fields: dict[str, str], needs_it: bool) -> None:  # noqa: FBT001
    """A full load, dates and force; an ordinary or a limited run starts at once."""
    assert needs_confirmation(read_request(fields)) is needs_it


# Explore.


def explore_request(**parameters: str) -> explore.ExploreRequest:
    """The request that these parameters of an address make."""
    return explore.read_request(METRIC_TABLE, parameters, TODAY)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"column": "quiz_seconds", "measure": "median", "step": "week", "split": "country"},
        {"column": "people", "split": "new_or_returning", "step": "month"},
        {"kind": "funnel", "flag1": "started_quiz", "flag2": "completed_quiz", "of": "people"},
        {"kind": "retention", "days": "180"},
    ],
)
def test_a_link_reproduces_the_page(parameters: dict[str, str]) -> None:
    """The address of an answer makes the same request, on whatever day it is opened."""
    first = explore_request(**parameters)
    again = dict(parse_qsl(urlsplit(first.address()).query))
    later = explore.read_request(METRIC_TABLE, again, TODAY + timedelta(days=40))
    assert later.address() == first.address()
    assert (later.days, later.flags, later.people) == (first.days, first.flags, first.people)


def test_every_declared_column_can_be_explored() -> None:
    """Except lists, times and bookkeeping; ids and addresses cannot be used as a split."""
    columns = METRIC_TABLE.columns
    known = {each.name: each for each in columns if not isinstance(each, Bookkeeping)}
    measured = explore_sql.measured(METRIC_TABLE)
    left_out = {known[name].type for name in known.keys() - measured.keys()}
    assert left_out <= {"RECORD", "TIMESTAMP", "DATE", "STRING"}
    assert {"_run_id", "session_id", "distinct_ids"} & measured.keys() == set()
    assert {"user_id", "distinct_id", "entry_url"} & set(explore_sql.splits(METRIC_TABLE)) == set()


def test_a_measure_that_does_not_fit_is_replaced() -> None:
    """If another column is chosen in the form, a measure that fits it is used."""
    assert explore_request(column="is_bounce", measure="median").measure == "share"


def test_weeks_and_months_begin_with_their_first_day() -> None:
    """A number of days is widened to whole periods; given dates stay as they are."""
    assert explore_request(step="week", days="10").days.first == date(2026, 11, 16)
    assert explore_request(step="month", days="10").days.first == date(2026, 11, 1)
    named = explore_request(step="week", first="2026-11-18", last="2026-11-20").days
    assert named.first == date(2026, 11, 18)


def row(period: date, split: str, value: float) -> dict[str, Any]:
    """A row of an answer."""
    return {"period": period, "split": split, "value": value, "sessions": value}


def test_a_day_without_rows_has_a_zero_count_and_no_share() -> None:
    """On a day without sessions a share is not known."""
    days = date(2026, 11, 1), date(2026, 11, 2)
    rows = (row(days[0], "web", 4), row(days[1], "web", 5), row(days[1], "ios", 1))
    for column, empty in (("sessions", 0), ("is_bounce", None)):
        view = explore.view_of(
            METRIC_TABLE, explore_request(column=column), Answer(rows=rows, sql="")
        )
        assert view.chart is not None
        assert [(line.name, line.values) for line in view.chart.lines] == [
            ("web", (4, 5)),
            ("ios", (empty, 1)),
        ]


def test_the_other_values_of_a_split_come_last() -> None:
    """However many sessions they have."""
    rows = (row(TODAY, "other", 99), row(TODAY, "web", 1))
    view = explore.view_of(METRIC_TABLE, explore_request(), Answer(rows=rows, sql=""))
    assert view.chart is not None
    assert [line.name for line in view.chart.lines] == ["web", "other"]


def test_a_funnel_has_shares_of_all_and_of_the_step_before() -> None:
    """The first step is all; after a step with nobody there is no share of it."""
    answer = Answer(rows=({"step_0": 8, "step_1": 4, "step_2": 0, "step_3": 0},), sql="")
    steps = explore.view_of(METRIC_TABLE, explore_request(kind="funnel"), answer).funnel
    assert [(each.count, each.of_all, each.of_before) for each in steps] == [
        (8, 1, None),
        (4, 0.5, 0.5),
        (0, 0, 0),
        (0, 0, None),
    ]


def test_weeks_to_come_are_empty() -> None:
    """A cohort ends with the week of the last day; a week with nobody is 0 %."""
    monday = date(2026, 11, 9)
    weeks = {0: 10, 2: 5}
    rows = tuple({"cohort": monday, "week_no": no, "people": n} for no, n in weeks.items())
    request = explore_request(kind="retention", first="2026-11-02", last="2026-11-25")
    (cohort,) = explore.view_of(METRIC_TABLE, request, Answer(rows=rows, sql="")).cohorts
    assert cohort.people == 10
    assert cohort.weeks == ((0, 0.0, 0), (5, 0.5, 4), None)


def test_text_in_csv_is_never_a_formula() -> None:
    """Text that begins like a formula gets a quote; numbers stay numbers."""
    text = explore.csv_text(({"split": "=1+1", "value": -3}, {"split": None, "value": 2.5}))
    assert text.splitlines() == ["split,value", "'=1+1,-3", ",2.5"]
    for first in "+-@\t\r\n\uff1d":
        assert explore.csv_text(({"split": f"{first}1"},)).lstrip('split\r\n"').startswith("'")


# A person's ids.


def tie(id_: str, other_id: str, session_id: str | None = None) -> dict[str, Any]:
    """A row about an event that ties an id to another."""
    return {"id": id_, "other_id": other_id, "first_day": TODAY, "session_id": session_id}


def used_id(id_: str, user_match: str | None = None) -> dict[str, Any]:
    """A row about an id that sessions used."""
    return {"id": id_, "session_count": 2, "last_used_at": NOW, "user_match": user_match}


def test_every_id_says_why_it_belongs_to_the_person() -> None:
    """By its own match, by an event that ties it, or by use beside another id of theirs."""
    ids = [used_id("user"), used_id("+1555", "phone"), used_id("device"), used_id("beside")]
    ties = [tie("device", "aaa"), tie("device", "user", "a session"), tie("unused", "user")]
    by_id = {each.id: each for each in person.own_ids("user", ids, ties)}
    assert list(by_id) == ["user", "+1555", "device", "beside", "unused"]
    assert by_id["user"].why == "It is the user's id."
    assert by_id["+1555"].why == "It is the user's phone number."
    assert "beside an id that is theirs" in by_id["beside"].why
    assert (by_id["device"].other_id, by_id["device"].session_id) == ("user", "a session")
    assert by_id["device"].why == "A sign-in ($identify) ties it to"
    assert by_id["unused"].why.startswith("An alias, a merge")
    assert (by_id["device"].session_count, by_id["unused"].session_count) == (2, 0)
    (alone,) = person.own_ids(None, [used_id("visitor")], [])
    assert "no event ties it" in alone.why


# A session's story.


def source_row(uuid: str, seconds: float, name: str, **properties: Any) -> dict[str, Any]:  # noqa: ANN401
    """A row of the source's events."""
    at = NOW + timedelta(seconds=seconds)
    return {
        "uuid": uuid,
        "event": name,
        "distinct_id": properties.pop("by", "somebody"),
        "timestamp": at,
        "bq_ingested_timestamp": properties.pop("ingested_at", at),
        "properties": {"$session_id": "a session", **properties},
    }


ROWS: Final = [
    source_row("3", 50, "view_event"),
    source_row("1", 0, "$screen", **{"$screen_name": "Discover"}),
    source_row("2", 2, "$pageview", ingested_at=NOW - timedelta(hours=1)),
    source_row("2", 2, "$pageview", **{"$pathname": "/feed"}),
    source_row("0", -1, "Application Opened", **{"$screen_name": "Splash"}),
    source_row("4", 51, "view_event", ingested_at=NOW - timedelta(days=3)),
    source_row("5", 52, "$screen", by="another", **{"$screen_name": "Profile"}),
]
STORED: Final = {
    "session_id": "a session",
    "started_at": NOW - timedelta(seconds=1),
    "ended_at": NOW + timedelta(seconds=52),
    "distinct_ids": ["somebody", "another"],
    "user_id": None,
    "event_count": 5,
    "events_viewed": 2,
    "_run_id": "a run",
    "_days": [],
}
STORY: Final = build_story(
    METRIC_TABLE, STORED, SourceRows(events=ROWS, users=[], documents=[], posthog_sessions=[])
)
MOMENTS: Final = timeline.moments(METRIC_TABLE, STORY)


def test_events_are_in_order_with_rows_set_aside() -> None:
    """A duplicate is counted at its event; other rows set aside are where their time puts them."""
    shown = [(each.number, each.name, each.kind, each.duplicates, each.aside) for each in MOMENTS]
    assert shown == [
        (1, "Application Opened", "ours", 0, ""),
        (2, "$screen", "view", 0, ""),
        (3, "$pageview", "view", 1, ""),
        (4, "view_event", "ours", 0, ""),
        (None, "view_event", "aside", 0, "bad timestamp"),
        (5, "$screen", "view", 0, ""),
    ]


def test_gaps_are_between_events_that_count() -> None:
    """Long gaps are shown, with the seconds of them that count as engaged."""
    assert [each.gap_seconds for each in MOMENTS] == [0, 0, 0, 48, 0, 0]
    assert [each.engaged_seconds for each in MOMENTS if each.gap_seconds] == [30]


def test_an_event_shows_what_changed_since_the_one_before() -> None:
    """Of the declared properties and the distinct id."""
    assert [each.distinct_id for each in MOMENTS if each.distinct_id] == ["somebody", "another"]
    assert [dict(each.properties).get("screen_name") for each in MOMENTS] == [
        "Splash",
        "Discover",
        None,
        None,
        None,
        "Profile",
    ]
    assert dict(MOMENTS[2].properties) == {"pathname": "/feed"}


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        ("entry_screen", [2]),
        ("exit_screen", [5]),
        ("visited_discover", [2]),
        ("viewed_event", [4]),
        ("events_viewed", [4]),
        ("screen_count", [2, 5]),
        ("distinct_id", [5]),
        ("event_count", []),
        ("joined_event", []),
    ],
)
def test_an_event_names_the_columns_that_come_from_it(column: str, numbers: list[int]) -> None:
    """First and last values, flags and counts; no column that comes from all events, or none."""
    assert [each.number for each in MOMENTS if column in each.marks] == numbers


def test_a_value_names_its_events() -> None:
    """By number; the value computed from them is shown if it differs from the stored one."""
    by_name = {each.name: each for each in timeline.values(METRIC_TABLE, STORED, STORY)}
    assert "_run_id" not in by_name
    assert (by_name["events_viewed"].text, by_name["events_viewed"].computed) == ("2", "1")
    assert by_name["events_viewed"].events == ((4, 4),)
    assert by_name["event_count"].comes_from_all
    assert by_name["event_count"].computed is None
    assert by_name["user_id"].is_empty
    without_story = timeline.values(METRIC_TABLE, STORED, None)
    assert {(each.events, each.computed, each.comes_from_all) for each in without_story} == {
        ((), None, False)
    }
    assert list(timeline.ranges((1, 2, 3, 7, 9, 10))) == [(1, 3), (7, 7), (9, 10)]


def test_a_large_read_needs_a_click() -> None:
    """Opening a page reads little; a click may read as much as MAX_BYTES_BILLED permits."""
    small = Reading(days=(TODAY,), bytes_estimated=session_page.AT_ONCE_BYTES, usd=0.006)
    large = replace(small, bytes_estimated=session_page.AT_ONCE_BYTES + 1)
    session_page.check_size("few", small)
    session_page.check_size("", large)
    with pytest.raises(session_page.TooMuchError, match="It reads 1 days"):
        session_page.check_size("few", large)

"""The job `tmdb_changes`: no day and no id is lost, and Redis holds what passes the rules."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

import main
from runs.errors import (
    CredentialsError,
    DestinationError,
    RequestError,
    SourceError,
    UnavailableError,
)
from sandbox.apis.serving import Fault
from sandbox.apis.tmdb import movie, person, show
from tests.jobs.scenario import ago

if TYPE_CHECKING:
    from runs.report import RunReport
    from tests.jobs.scenario import JobScenario

JOB = "tmdb_changes"


def add_titles(scenario: JobScenario, *days: int) -> None:
    """A movie, a show and a person with that id for each of these days ago, changed on that day."""
    for day in days:
        for kind, make in (("movie", movie), ("tv", show), ("person", person)):
            scenario.tmdb.put(kind, make(day), ago(day))


def watermarks(scenario: JobScenario) -> dict[str, int]:
    """How many days ago each kind's watermark is."""
    rows = scenario.query("SELECT kind, watermark FROM {a}.etl_state_tmdb_changes")
    return {row["kind"]: (ago(0) - row["watermark"]).days for row in rows}


def set_watermarks(scenario: JobScenario, days: int) -> None:
    """Set all watermarks to so many days ago."""
    scenario.query(
        f"UPDATE {{a}}.etl_state_tmdb_changes SET watermark = DATE '{ago(days)}' WHERE TRUE"
    )


def requested_windows(scenario: JobScenario, kind: str) -> list[tuple[str | None, str | None]]:
    """The windows of the requests for a kind's changes."""
    return [
        (request.value("start_date"), request.value("end_date"))
        for request in scenario.tmdb.requests
        if request.path == f"/3/{kind}/changes"
    ]


def adds_up(scenario: JobScenario, report: RunReport) -> bool:
    """Whether the report has one outcome for every entry of the lists."""
    expected = sum(
        len(entries) for days in scenario.tmdb.changes.values() for entries in days.values()
    )
    return sum(report.counts.values()) == expected


def test_every_kind_is_loaded_and_a_second_run_finds_nothing(scenario: JobScenario) -> None:
    """Entries are upserted, filtered, gone, without an id or repeated; the counts add up."""
    add_titles(scenario, 1, 2)
    scenario.tmdb.put("movie", movie(3, popularity=0.2), ago(1))
    scenario.tmdb.change("tv", ago(2), {"id": 99, "adult": None}, {"id": None, "adult": None})
    scenario.tmdb.change("person", ago(2), {"id": 1, "adult": None})
    report = scenario.run(JOB)
    assert report.status == "succeeded"
    assert {name: count for name, count in report.counts.items() if count} == {
        "upserted": 6, "filtered_unpopular": 1, "gone": 1, "without_id": 1, "repeated": 1,
    }  # fmt: skip
    assert adds_up(scenario, report)
    assert watermarks(scenario) == {"movie": 1, "tv": 1, "person": 1}
    first = scenario.stored(JOB)
    assert len(first) == 1 + 6
    scenario.tmdb.requests.clear()
    again = scenario.run(JOB)
    assert "Nothing was left to do" in (again.summary or "")
    assert scenario.tmdb.requests == []
    assert scenario.stored(JOB) == first


def test_titles_that_are_gone_or_pass_no_longer_are_deleted(scenario: JobScenario) -> None:
    """Their documents are deleted from Redis, and all others stay."""
    add_titles(scenario, 2)
    scenario.tmdb.put("movie", movie(7), ago(2))
    scenario.run(JOB)
    set_watermarks(scenario, 2)
    scenario.tmdb.items["movie"].pop(2)
    scenario.tmdb.put("movie", movie(7, vote_count=1), ago(1))
    scenario.tmdb.change("movie", ago(1), {"id": 2, "adult": None})
    report = scenario.run(JOB)
    assert (report.counts["gone"], report.counts["filtered_few_votes"]) == (1, 1)
    assert sorted(scenario.documents()) == ["media:tmdb_tv_2", "person:tmdb_person_2"]


@pytest.mark.parametrize("outage_days", [1, 20])
def test_an_outage_loses_no_day(scenario: JobScenario, outage_days: int) -> None:
    """The next run reads from the watermark's day up to yesterday, at most 14 days at once."""
    scenario.run(JOB)
    last = outage_days + 1
    set_watermarks(scenario, last)
    add_titles(scenario, *range(1, last + 1))
    scenario.tmdb.requests.clear()
    report = scenario.run(JOB)
    assert report.counts["upserted"] == 3 * last
    windows = requested_windows(scenario, "movie")
    assert windows[0][0] == ago(last).isoformat()
    for first, end in windows:
        days = dt.date.fromisoformat(end or "") - dt.date.fromisoformat(first or "")
        assert days.days < 14
    assert watermarks(scenario)["movie"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/3/movie/2", status=400, times=None),
        Fault(path="/3/movie/2", trouble="changed", times=None, change=lambda _: {"id": "x"}),
    ],
    ids=["a refusal", "a changed shape"],
)
def test_a_failed_id_keeps_the_watermark(scenario: JobScenario, fault: Fault) -> None:
    """All others are stored, the error names the id, and the next run reads all of them again."""
    scenario.run(JOB)
    set_watermarks(scenario, 2)
    add_titles(scenario, 1, 2)
    scenario.tmdb.break_down(fault)
    with pytest.raises(UnavailableError, match=r"1 of 6 ids failed, the first is movie 2: "):
        scenario.run(JOB, trigger="nightly")
    assert watermarks(scenario) == {"movie": 2, "tv": 2, "person": 2}
    assert len(scenario.documents()) == 5
    (row,) = scenario.query(
        "SELECT JSON_VALUE(report, '$.kinds.movie.failed') AS failed FROM {a}.etl_runs"
        " WHERE status = 'failed'"
    )
    assert row["failed"] == "1"
    scenario.tmdb.recover()
    report = scenario.run(JOB, trigger="nightly")  # the same delivery, which has not succeeded yet
    assert (report.status, report.counts["upserted"]) == ("succeeded", 6)
    assert watermarks(scenario)["movie"] == 1


@pytest.mark.parametrize("status", [422, 503])
def test_a_failed_list_changes_nothing(scenario: JobScenario, status: int) -> None:
    """No document is written and no watermark moves."""
    scenario.run(JOB)
    set_watermarks(scenario, 3)
    add_titles(scenario, 1)
    scenario.tmdb.break_down(
        Fault(path="/3/person/changes", status=status, retry_after="3600", times=None)
    )
    expected = SourceError if status == 422 else UnavailableError
    with pytest.raises(expected, match="/3/person/changes"):
        scenario.run(JOB)
    assert set(watermarks(scenario).values()) == {3}
    assert scenario.documents() == {}


def test_dates_and_a_limit_leave_the_watermark(scenario: JobScenario) -> None:
    """Such a run does what it is asked for; the next ordinary one still does the rest."""
    scenario.run(JOB)
    set_watermarks(scenario, 4)
    add_titles(scenario, 1, 2, 3)
    dates = scenario.run(JOB, start_date=ago(2), end_date=ago(1))  # the third day is left out
    assert (dates.kind, dates.counts["upserted"]) == ("dates", 6)
    limited = scenario.run(JOB, limit=1)
    assert (limited.kind, limited.counts["upserted"]) == ("limit", 3)
    assert limited.counts["unselected"] == 6
    assert set(watermarks(scenario).values()) == {4}
    assert scenario.run(JOB).counts["upserted"] == 9
    assert set(watermarks(scenario).values()) == {1}


def test_a_run_may_be_of_one_kind(scenario: JobScenario) -> None:
    """Only its list is requested, and only its watermark moves."""
    scenario.run(JOB)
    set_watermarks(scenario, 3)
    add_titles(scenario, 1)
    scenario.tmdb.requests.clear()
    report = scenario.run(JOB, params={"kinds": ["tv"]})
    assert report.counts["upserted"] == 1
    assert {request.path.split("/")[2] for request in scenario.tmdb.requests} == {"tv"}
    assert watermarks(scenario) == {"movie": 3, "tv": 1, "person": 3}


@pytest.mark.parametrize(
    "params",
    [{"kinds": []}, {"kinds": ["book"]}, {"kinds": "tv"}, {"kinds": [["tv"]]}, {"kind": 1}],
)
def test_other_params_are_refused(scenario: JobScenario, params: dict[str, object]) -> None:
    """One sentence names the allowed ones; TMDB gets no request."""
    with pytest.raises(RequestError, match="kinds"):
        scenario.run(JOB, params=params)
    assert scenario.tmdb.requests == []


def test_params_are_given_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As a JSON object; anything else ends the process with a sentence and exit code 2."""
    options = main.parse_arguments(["--job", JOB, "--params", '{"kinds": ["tv"]}'])
    assert dict(options.params) == {"kinds": ["tv"]}
    assert main.parse_arguments([]).params == {}
    for wrong in ("tv", "[1]", '{"kinds": NaN}', '{"a": 1}, "job": "sessions", "params": {"b": 1}'):
        with pytest.raises(SystemExit) as ended:
            main.parse_arguments(["--params", wrong])
        assert ended.value.code == 2
        assert "--params" in capsys.readouterr().err


def test_a_dry_run_reports_outcomes_and_writes_nothing(scenario: JobScenario) -> None:
    """It reads every title and reports its outcome; neither Redis nor the state changes."""
    add_titles(scenario, 1)
    report = scenario.run(JOB, dry_run=True)
    assert report.counts["upserted"] == 3
    assert scenario.stored(JOB) == {"etl_state_tmdb_changes": []}


def test_an_unusable_redis_is_noticed_at_once(scenario: JobScenario) -> None:
    """Before TMDB gets any request."""
    with pytest.raises(CredentialsError, match="REDIS_PASSWORD"):
        scenario.run(JOB, variables={"REDIS_PASSWORD": "another"})
    assert scenario.tmdb.requests == []


def test_a_key_of_another_type_fails_only_its_id(scenario: JobScenario) -> None:
    """What Redis refuses does not count as upserted, and the watermark stays where it is."""
    add_titles(scenario, 1)
    scenario.redis.lpush("media:tmdb_movie_1", "of another type")
    scenario.redis.execute_command("JSON.SET", "media:tmdb_tv_1", "$", "{}")
    scenario.redis.expire("media:tmdb_tv_1", 1000)
    with pytest.raises(UnavailableError, match="movie 1: Redis refused its document"):
        scenario.run(JOB)
    assert watermarks(scenario) == {}
    assert scenario.redis.ttl("media:tmdb_tv_1") > 0  # a document that is replaced keeps its TTL


def test_the_check_reports_how_far_each_kind_is(scenario: JobScenario) -> None:
    """A kind that is behind is a warning; without any run there is one clear error."""
    with pytest.raises(DestinationError, match=r"run main\.py --job tmdb_changes"):
        scenario.check(JOB)
    scenario.run(JOB)
    checks = scenario.check(JOB)
    assert {each.outcome for each in checks.values()} == {"ok"}
    set_watermarks(scenario, 5)
    assert scenario.check(JOB)["tv"].message.startswith(f"Done up to {ago(5)}: ")

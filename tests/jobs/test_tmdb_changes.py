"""The job `tmdb_changes`: no day is lost, no id is forgotten, and Redis holds what still passes."""

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
from tests.jobs.place import ago

if TYPE_CHECKING:
    from runs.report import RunReport
    from tests.jobs.place import Place

JOB = "tmdb_changes"


def put(place: Place, *days: int) -> None:
    """A movie, a show and a person of the same id for each of these days ago, changed then."""
    for day in days:
        for kind, make in (("movie", movie), ("tv", show), ("person", person)):
            place.tmdb.put(kind, make(day), ago(day))


def watermarks(place: Place) -> dict[str, int]:
    """How many days ago each kind's watermark is."""
    rows = place.query("SELECT kind, watermark FROM {a}.etl_state_tmdb_changes")
    return {row["kind"]: (ago(0) - row["watermark"]).days for row in rows}


def set_watermarks(place: Place, days: int) -> None:
    """Let the last run have been so many days ago."""
    place.query(
        f"UPDATE {{a}}.etl_state_tmdb_changes SET watermark = DATE '{ago(days)}' WHERE TRUE"
    )


def windows(place: Place, kind: str) -> list[tuple[str | None, str | None]]:
    """The windows that were asked for of a kind."""
    return [
        (asked.value("start_date"), asked.value("end_date"))
        for asked in place.tmdb.requests
        if asked.path == f"/3/{kind}/changes"
    ]


def closes(place: Place, report: RunReport) -> bool:
    """Whether every entry of the lists stands in the report under one outcome."""
    told = sum(len(entries) for days in place.tmdb.changes.values() for entries in days.values())
    return sum(report.counts.values()) == told


def test_every_kind_is_brought_over_and_a_second_run_finds_nothing(place: Place) -> None:
    """Kept, filtered by a rule, gone; entries without an id and repeated ones; the sum closes."""
    put(place, 1, 2)
    place.tmdb.put("movie", movie(3, popularity=0.2), ago(1))
    place.tmdb.change("tv", ago(2), {"id": 99, "adult": None}, {"id": None, "adult": None})
    place.tmdb.change("person", ago(2), {"id": 1, "adult": None})
    report = place.run(JOB)
    assert report.status == "succeeded"
    assert {name: count for name, count in report.counts.items() if count} == {
        "upserted": 6, "filtered_unpopular": 1, "gone": 1, "without_id": 1, "repeated": 1,
    }  # fmt: skip
    assert closes(place, report)
    assert watermarks(place) == {"movie": 1, "tv": 1, "person": 1}
    first = place.stored(JOB)
    assert len(first) == 1 + 6
    place.tmdb.requests.clear()
    again = place.run(JOB)
    assert "Nothing was left to do" in (again.summary or "")
    assert place.tmdb.requests == []
    assert place.stored(JOB) == first


def test_titles_that_are_gone_or_pass_no_longer_are_deleted(place: Place) -> None:
    """What Redis held is deleted, and the rest of it stays."""
    put(place, 2)
    place.tmdb.put("movie", movie(7), ago(2))
    place.run(JOB)
    set_watermarks(place, 2)
    place.tmdb.items["movie"].pop(2)
    place.tmdb.put("movie", movie(7, vote_count=1), ago(1))
    place.tmdb.change("movie", ago(1), {"id": 2, "adult": None})
    report = place.run(JOB)
    assert (report.counts["gone"], report.counts["filtered_few_votes"]) == (1, 1)
    assert sorted(place.documents()) == ["media:tmdb_tv_2", "person:tmdb_person_2"]


@pytest.mark.parametrize("outage_days", [1, 20])
def test_an_outage_loses_no_day(place: Place, outage_days: int) -> None:
    """From the watermark, with a day's overlap, to yesterday; never more than 14 days at once."""
    place.run(JOB)
    last = outage_days + 1
    set_watermarks(place, last)
    put(place, *range(1, last + 1))
    place.tmdb.requests.clear()
    report = place.run(JOB)
    assert report.counts["upserted"] == 3 * last
    asked = windows(place, "movie")
    assert asked[0][0] == ago(last).isoformat()
    for first, end in asked:
        days = dt.date.fromisoformat(end or "") - dt.date.fromisoformat(first or "")
        assert days.days < 14
    assert watermarks(place)["movie"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/3/movie/2", status=400, times=None),
        Fault(path="/3/movie/2", trouble="changed", times=None, change=lambda _: {"id": "x"}),
    ],
    ids=["a refusal", "a changed shape"],
)
def test_a_failed_id_keeps_the_watermark(place: Place, fault: Fault) -> None:
    """All others are done, the run fails and says which id, and the next run does it again."""
    place.run(JOB)
    set_watermarks(place, 2)
    put(place, 1, 2)
    place.tmdb.break_down(fault)
    with pytest.raises(UnavailableError, match=r"1 of 6 ids failed, the first is movie 2: "):
        place.run(JOB, trigger="nightly")
    assert watermarks(place) == {"movie": 2, "tv": 2, "person": 2}
    assert len(place.documents()) == 5
    (row,) = place.query(
        "SELECT JSON_VALUE(report, '$.kinds.movie.failed') AS failed FROM {a}.etl_runs"
        " WHERE status = 'failed'"
    )
    assert row["failed"] == "1"
    place.tmdb.recover()
    report = place.run(JOB, trigger="nightly")  # the delivery has not succeeded before
    assert (report.status, report.counts["upserted"]) == ("succeeded", 6)
    assert watermarks(place)["movie"] == 1


@pytest.mark.parametrize("status", [422, 503])
def test_a_failed_list_is_never_no_changes(place: Place, status: int) -> None:
    """Nothing is written and no watermark moves."""
    place.run(JOB)
    set_watermarks(place, 3)
    put(place, 1)
    place.tmdb.break_down(
        Fault(path="/3/person/changes", status=status, retry_after="3600", times=None)
    )
    expected = SourceError if status == 422 else UnavailableError
    with pytest.raises(expected, match="/3/person/changes"):
        place.run(JOB)
    assert set(watermarks(place).values()) == {3}
    assert place.documents() == {}


def test_dates_and_a_limit_leave_the_watermark(place: Place) -> None:
    """They are done as asked; what they leave out is left to the next ordinary run."""
    place.run(JOB)
    set_watermarks(place, 4)
    put(place, 1, 2, 3)
    dates = place.run(JOB, start_date=ago(2), end_date=ago(1))  # the third day is left out
    assert (dates.kind, dates.counts["upserted"]) == ("dates", 6)
    limited = place.run(JOB, limit=1)
    assert (limited.kind, limited.counts["upserted"]) == ("limit", 3)
    assert limited.counts["unselected"] == 6
    assert set(watermarks(place).values()) == {4}
    assert place.run(JOB).counts["upserted"] == 9
    assert set(watermarks(place).values()) == {1}


def test_one_kind_alone(place: Place) -> None:
    """Only its list is asked for, and only its watermark moves."""
    place.run(JOB)
    set_watermarks(place, 3)
    put(place, 1)
    place.tmdb.requests.clear()
    report = place.run(JOB, params={"kinds": ["tv"]})
    assert report.counts["upserted"] == 1
    assert {asked.path.split("/")[2] for asked in place.tmdb.requests} == {"tv"}
    assert watermarks(place) == {"movie": 3, "tv": 1, "person": 3}


@pytest.mark.parametrize(
    "params",
    [{"kinds": []}, {"kinds": ["book"]}, {"kinds": "tv"}, {"kinds": [["tv"]]}, {"kind": 1}],
)
def test_other_params_are_refused(place: Place, params: dict[str, object]) -> None:
    """One sentence says what there is; nothing is asked of TMDB."""
    with pytest.raises(RequestError, match="kinds"):
        place.run(JOB, params=params)
    assert place.tmdb.requests == []


def test_params_are_given_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON; what is none ends the process with a sentence and code 2."""
    options = main.parse_arguments(["--job", JOB, "--params", '{"kinds": ["tv"]}'])
    assert dict(options.params) == {"kinds": ["tv"]}
    assert main.parse_arguments([]).params == {}
    for wrong in ("tv", "[1]", '{"kinds": NaN}', '{"a": 1}, "job": "sessions", "params": {"b": 1}'):
        with pytest.raises(SystemExit) as ended:
            main.parse_arguments(["--params", wrong])
        assert ended.value.code == 2
        assert "--params" in capsys.readouterr().err


def test_a_dry_run_judges_and_writes_nothing(place: Place) -> None:
    """It reads every title, tells how each would end, and neither Redis nor the state changes."""
    put(place, 1)
    report = place.run(JOB, dry_run=True)
    assert report.counts["upserted"] == 3
    assert place.stored(JOB) == {"etl_state_tmdb_changes": []}


def test_a_redis_that_takes_no_documents_is_noticed_at_once(place: Place) -> None:
    """Before TMDB is asked for anything."""
    with pytest.raises(CredentialsError, match="REDIS_PASSWORD"):
        place.run(JOB, variables={"REDIS_PASSWORD": "another"})
    assert place.tmdb.requests == []


def test_a_key_of_another_type_fails_its_id_alone(place: Place) -> None:
    """What Redis refuses is no upsert, and keeps the watermark where it is."""
    put(place, 1)
    place.redis.lpush("media:tmdb_movie_1", "of another type")
    place.redis.execute_command("JSON.SET", "media:tmdb_tv_1", "$", "{}")
    place.redis.expire("media:tmdb_tv_1", 1000)
    with pytest.raises(UnavailableError, match="movie 1: Redis refused its document"):
        place.run(JOB)
    assert watermarks(place) == {}
    assert place.redis.ttl("media:tmdb_tv_1") > 0  # a document that is replaced keeps its end


def test_the_check_tells_how_far_each_kind_is(place: Place) -> None:
    """A kind that is behind is a warning; without any run there is one clear error."""
    with pytest.raises(DestinationError, match=r"run main\.py --job tmdb_changes"):
        place.check(JOB)
    place.run(JOB)
    checks = place.check(JOB)
    assert {each.outcome for each in checks.values()} == {"ok"}
    set_watermarks(place, 5)
    assert place.check(JOB)["tv"].message.startswith(f"Done up to {ago(5)}: ")

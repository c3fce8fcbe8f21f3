"""The job `dog_breeds`: the whole list, or the table as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runs.errors import AuditError, RequestError, SourceShapeError, UnavailableError
from sandbox.apis.dogs import breed, sample_breeds
from sandbox.apis.serving import Fault

if TYPE_CHECKING:
    from tests.jobs.place import Place

JOB = "dog_breeds"


def test_every_breed_is_stored_with_its_element(place: Place) -> None:
    """Paged or as a bare array; parsed beside the element as JSON; a second run changes nothing."""
    place.dogs.breeds = [
        *sample_breeds(120),
        breed(900, "Example Hound", weight={"metric": "NaN - 8"}, life_span="10 - 12 years"),
    ]
    report = place.run(JOB)
    assert (report.status, report.counts) == ("succeeded", {"breeds": 121})
    (row,) = place.query(
        "SELECT name, weight_kg_min, weight_kg_max, life_span_years_min, temperaments,"
        " JSON_VALUE(raw, '$.weight.metric') AS weight FROM {d}.dog_breeds WHERE id = 900"
    )
    assert row == {
        "name": "Example Hound",
        "weight_kg_min": None,
        "weight_kg_max": 8.0,
        "life_span_years_min": 10.0,
        "temperaments": [],
        "weight": "NaN - 8",
    }
    first = place.stored(JOB)
    place.dogs.is_paged = False
    again = place.run(JOB)
    assert again.figures == {"breeds": {"stored_before": 121, "staged": 121}}
    assert place.stored(JOB) == first
    checks = place.check(JOB)
    assert {each.outcome for each in checks.values()} == {"ok"}
    assert checks["destination"].message.startswith("121 breeds in ")


def test_a_list_that_shrank_is_refused_unless_forced(place: Place) -> None:
    """Under 80 % of what is stored, or empty: the table stays, until somebody says it is right."""
    place.dogs.breeds = sample_breeds(20)
    place.run(JOB)
    before = place.stored(JOB)
    for fewer in (15, 0):
        place.dogs.breeds = sample_breeds(20)[:fewer]
        with pytest.raises(AuditError, match="force the run"):
            place.run(JOB)
        assert place.stored(JOB) == before
    place.dogs.breeds = sample_breeds(20)[:15]
    place.run(JOB, force=True)
    assert len(place.stored(JOB)["dog_breeds"]) == 15


def test_what_the_api_does_wrong_publishes_nothing(place: Place) -> None:
    """A changed shape is one sentence that names endpoint and field; the ledger has it, too."""
    place.dogs.breeds = sample_breeds(5)
    place.dogs.break_down(
        Fault(
            trouble="changed",
            times=None,
            change=lambda body: [{**each, "id": "x"} for each in body],
        )
    )
    with pytest.raises(SourceShapeError, match=r"has changed the shape of /breeds: .*\$\[.*\]\.id"):
        place.run(JOB)
    (row,) = place.query("SELECT status, error, report FROM {a}.etl_runs")
    assert row["status"] == "failed"
    assert "/breeds" in row["error"]
    assert json.loads(row["report"])["breeds"] == {}
    assert place.stored(JOB) == {"dog_breeds": []}


def test_a_dry_run_publishes_nothing(place: Place) -> None:
    """It reads and audits, and the table stays empty."""
    place.dogs.breeds = sample_breeds(5)
    report = place.run(JOB, dry_run=True)
    assert report.counts == {"breeds": 5}
    assert [step.name for step in report.steps][-1] == "audit"
    assert place.stored(JOB) == {"dog_breeds": []}


@pytest.mark.parametrize(
    ("option", "value"),
    [("limit", 3), ("full_load", True), ("engine", "pandas"), ("params", {"kinds": ["tv"]})],
)
def test_options_of_other_jobs_are_refused(place: Place, option: str, value: object) -> None:
    """A limit would delete the other breeds: nothing is asked of the API."""
    fields: dict[str, Any] = {option: value}
    with pytest.raises(RequestError, match=f"The job dog_breeds takes no {option}: leave it out"):
        place.run(JOB, **fields)
    assert place.dogs.requests == []


def test_an_api_that_wants_to_be_left_alone_is_left_alone(place: Place) -> None:
    """A pause longer than a run waits ends it at once, as worth trying again."""
    place.dogs.break_down(Fault(status=429, retry_after="3600", times=None))
    with pytest.raises(UnavailableError, match="3600 s"):
        place.run(JOB)
    assert len(place.dogs.requests) == 1

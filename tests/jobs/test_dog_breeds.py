"""The job `dog_breeds`: it stores the whole list, or leaves the table as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runs.errors import AuditError, RequestError, SourceShapeError, UnavailableError
from sandbox.apis.dogs import breed, sample_breeds
from sandbox.apis.serving import Fault

if TYPE_CHECKING:
    from tests.jobs.scenario import JobScenario

JOB = "dog_breeds"


def test_every_breed_is_stored_with_its_element(scenario: JobScenario) -> None:
    """Paged or as one array; parsed, and as JSON; a second run changes nothing."""
    scenario.dogs.breeds = [
        *sample_breeds(120),
        breed(900, "Example Hound", weight={"metric": "NaN - 8"}, life_span="10 - 12 years"),
    ]
    report = scenario.run(JOB)
    assert (report.status, report.counts) == ("succeeded", {"breeds": 121})
    (row,) = scenario.query(
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
    first = scenario.stored(JOB)
    scenario.dogs.is_paged = False
    again = scenario.run(JOB)
    assert again.figures == {"breeds": {"stored_before": 121, "staged": 121}}
    assert scenario.stored(JOB) == first
    checks = scenario.check(JOB)
    assert {each.outcome for each in checks.values()} == {"ok"}
    assert checks["destination"].message.startswith("121 breeds in ")


def test_a_list_that_shrank_is_refused_unless_forced(scenario: JobScenario) -> None:
    """If it has under 80 % of the stored breeds, or none, the table stays as it was."""
    scenario.dogs.breeds = sample_breeds(20)
    scenario.run(JOB)
    before = scenario.stored(JOB)
    for fewer in (15, 0):
        scenario.dogs.breeds = sample_breeds(20)[:fewer]
        with pytest.raises(AuditError, match="force the run"):
            scenario.run(JOB)
        assert scenario.stored(JOB) == before
    scenario.dogs.breeds = sample_breeds(20)[:15]
    scenario.run(JOB, force=True)
    assert len(scenario.stored(JOB)["dog_breeds"]) == 15


def test_a_changed_shape_publishes_nothing(scenario: JobScenario) -> None:
    """One sentence names the endpoint and the field; the ledger has it, too."""
    scenario.dogs.breeds = sample_breeds(5)
    scenario.dogs.break_down(
        Fault(
            trouble="changed",
            times=None,
            change=lambda body: [{**each, "id": "x"} for each in body],
        )
    )
    with pytest.raises(SourceShapeError, match=r"has changed the shape of /breeds: .*\$\[.*\]\.id"):
        scenario.run(JOB)
    (row,) = scenario.query("SELECT status, error, report FROM {a}.etl_runs")
    assert row["status"] == "failed"
    assert "/breeds" in row["error"]
    assert json.loads(row["report"])["breeds"] == {}
    assert scenario.stored(JOB) == {"dog_breeds": []}


def test_a_dry_run_publishes_nothing(scenario: JobScenario) -> None:
    """It reads and audits, and the table stays empty."""
    scenario.dogs.breeds = sample_breeds(5)
    report = scenario.run(JOB, dry_run=True)
    assert report.counts == {"breeds": 5}
    assert [step.name for step in report.steps][-1] == "audit"
    assert scenario.stored(JOB) == {"dog_breeds": []}


@pytest.mark.parametrize(
    ("option", "value"),
    [("limit", 3), ("full_load", True), ("engine", "pandas"), ("params", {"kinds": ["tv"]})],
)
def test_options_of_other_jobs_are_refused(
    scenario: JobScenario, option: str, value: object
) -> None:
    """A limit, for one, would delete the other breeds. The API gets no request."""
    fields: dict[str, Any] = {option: value}
    with pytest.raises(RequestError, match=f"The job dog_breeds takes no {option}: leave it out"):
        scenario.run(JOB, **fields)
    assert scenario.dogs.requests == []


def test_a_long_retry_after_ends_the_run(scenario: JobScenario) -> None:
    """A pause longer than a run waits ends it at once, with an error that may be retried."""
    scenario.dogs.break_down(Fault(status=429, retry_after="3600", times=None))
    with pytest.raises(UnavailableError, match="3600 s"):
        scenario.run(JOB)
    assert len(scenario.dogs.requests) == 1

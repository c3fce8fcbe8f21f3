"""When persons and identities are rebuilt, and by which runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import main
from bigquery.refusals import StatementError
from runs.errors import LeaseLostError
from runs.lease_row import LeaseRow
from runs.request import RunRequest
from tests.runs.test_lease import ActAtStep
from tests.scenario import Scenario, derived_differences, differences
from tests.sessions.test_persons import Story, ago

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bigquery.clients import Clients
    from runs.progress import Progress
    from runs.report import RunReport


@pytest.fixture
def small(clients: Clients) -> Iterator[Scenario]:
    """Ada, who looked around two days before she signed in, and has created something."""
    story = Story()
    story.user("ada", email="ada@example.com")
    story.saw("looks around", "anon-ada", ago(4))
    story.identified("signs in", "anon-ada", "ada@example.com", ago(2))
    story.created("hers", "ada", ago(2))
    with Scenario(clients=clients) as made:
        story.arrive(made)
        yield made


def test_every_kind_of_run_but_a_dry_one_rebuilds_them(small: Scenario, tmp_path: Path) -> None:
    """Whatever a run loads, they are functions of the sessions it leaves and of Firebase now.

    A dry run adds no column, either, though its file declares another metric.
    """
    first = small.run(limit=1)
    assert first.kind == "limit"
    check(small, first)
    assert small.derived().identities == {"anon-ada": "ada"}

    before = small.derived()
    small.vanish("firebase_users", "user_id", "ada")
    small.settings["metrics_file"] = tmp_path / "metrics.yaml"
    more = "metrics: [{name: more, aggregation: count, description: Events.}]"
    small.settings["metrics_file"].write_text(more, "utf-8")
    small.run(dry_run=True)
    small.settings.clear()
    assert small.derived() == before
    assert run_ids(small) == {first.run_id}

    report = small.run(start_date=ago(4).date(), end_date=ago(4).date())
    assert report.kind == "dates"  # it leaves Ada's session as it is
    check(small, report)
    assert small.derived().persons.keys() == {"anonymous anon-ada", "user ada"}
    assert small.derived().identities == {}


def check(scenario: Scenario, report: RunReport) -> None:
    """The three tables follow from the published sessions, and this run wrote all of their rows."""
    expected = scenario.expected_derived(report, scenario.sessions())
    assert derived_differences(scenario.derived(), expected) == []
    assert run_ids(scenario) == {report.run_id}


def run_ids(scenario: Scenario) -> set[str]:
    """The runs that wrote any row of the two tables."""
    rows = scenario.query(
        "SELECT _run_id FROM {d}.persons UNION DISTINCT SELECT _run_id FROM {d}.identities"
    )
    return {row["_run_id"] for row in rows}


class Killed(BaseException):
    """What ends a process: nothing in the product catches it."""


def kill() -> None:
    """End the run here."""
    raise Killed


def deliver(scenario: Scenario, trigger: str, progress: Progress | None = None) -> RunReport:
    """A run that a scheduler asks for."""
    settings = scenario.make_settings()
    return main.main(RunRequest(), settings, scenario.clients, trigger=trigger, progress=progress)


def test_a_delivery_is_done_only_when_the_persons_are(small: Scenario) -> None:
    """A run that is killed or fails after `publish` and before they are runs again if redelivered.

    The sessions it published stay. Once a run has rebuilt the persons, its delivery is a duplicate.
    """
    with pytest.raises(Killed):
        deliver(small, "tonight", ActAtStep("persons", kill))
    assert differences(small.sessions(), small.expected()) == []
    assert run_ids(small) == set()
    drop = "ALTER TABLE {d}.persons DROP COLUMN active_days"  # the next run adds it anew
    with pytest.raises(StatementError):
        deliver(small, "tonight", ActAtStep("persons", lambda: small.query(drop)))
    statuses = small.query("SELECT status FROM {d}.etl_runs ORDER BY started_at DESC LIMIT 1")
    assert statuses == [{"status": "failed"}]
    assert differences(small.sessions(), small.expected()) == []

    report = deliver(small, "tonight")
    assert (report.status, report.kind) == ("succeeded", "nothing_new")
    check(small, report)
    assert small.derived().identities == {"anon-ada": "ada"}
    again = deliver(small, "tonight")
    assert (again.status, again.run_id) == ("duplicate", report.run_id)


def test_the_fence_alone_keeps_a_zombie_from_the_persons(
    small: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that believes to the end that the lease is its own rebuilds nothing once it is not."""
    monkeypatch.setattr(LeaseRow, "renew", lambda *_: True)
    steal = "UPDATE {d}.etl_lease_sessions SET fence = fence + 1 WHERE TRUE"
    with pytest.raises(LeaseLostError, match="at the step persons"):
        deliver(small, "tonight", ActAtStep("persons", lambda: small.query(steal)))
    assert differences(small.sessions(), small.expected()) == []
    assert run_ids(small) == set()
    (lease,) = small.query("SELECT triggers FROM {d}.etl_lease_sessions")
    assert lease["triggers"] == []

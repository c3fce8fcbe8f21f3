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
from tests.sessions.test_persons import SourceRows, ago

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bigquery.clients import Clients
    from runs.progress import Progress
    from runs.report import RunReport


@pytest.fixture
def scenario(clients: Clients) -> Iterator[Scenario]:
    """A user who looked around two days before she signed in, and who created a document."""
    rows = SourceRows()
    rows.add_user("ada", email="ada@example.com")
    rows.add_event("looks around", "anon-ada", ago(4))
    rows.add_identify("signs in", "anon-ada", "ada@example.com", ago(2))
    rows.add_document("hers", "ada", ago(2))
    with Scenario(clients=clients) as scenario:
        rows.arrive(scenario)
        yield scenario


def test_every_kind_of_run_except_a_dry_run_rebuilds_persons(
    scenario: Scenario, tmp_path: Path
) -> None:
    """Whatever a run loads, persons follow from the sessions it leaves and from Firebase now.

    A dry run adds no column, either, though its metrics file declares another metric.
    """
    first = scenario.run(limit=1)
    assert first.kind == "limit"
    check_derived(scenario, first)
    assert scenario.derived().identities == {"anon-ada": "ada"}

    before = scenario.derived()
    scenario.vanish("firebase_users", "user_id", "ada")
    scenario.settings["metrics_file"] = tmp_path / "metrics.yaml"
    more = "metrics: [{name: more, aggregation: count, description: Events.}]"
    scenario.settings["metrics_file"].write_text(more, "utf-8")
    scenario.run(dry_run=True)
    scenario.settings.clear()
    assert scenario.derived() == before
    assert run_ids(scenario) == {first.run_id}

    report = scenario.run(start_date=ago(4).date(), end_date=ago(4).date())
    assert report.kind == "dates"  # it leaves Ada's session as it is
    check_derived(scenario, report)
    assert scenario.derived().persons.keys() == {"anonymous anon-ada", "user ada"}
    assert scenario.derived().identities == {}


def check_derived(scenario: Scenario, report: RunReport) -> None:
    """Check that the three tables follow from the sessions, and that this run wrote every row."""
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
    """Ends a run at once: the product never catches it."""


def kill() -> None:
    """End the run here."""
    raise Killed


def deliver(scenario: Scenario, trigger: str, progress: Progress | None = None) -> RunReport:
    """Run the job for a scheduled delivery."""
    settings = scenario.make_settings()
    return main.main(RunRequest(), settings, scenario.clients, trigger=trigger, progress=progress)


def test_a_delivery_is_done_only_when_persons_are_rebuilt(scenario: Scenario) -> None:
    """If a run ends between `publish` and `persons`, the same delivery causes another run.

    The published sessions stay. Once persons are rebuilt, the same delivery is a duplicate.
    """
    with pytest.raises(Killed):
        deliver(scenario, "tonight", ActAtStep("persons", kill))
    assert differences(scenario.sessions(), scenario.expected()) == []
    assert run_ids(scenario) == set()
    drop = "ALTER TABLE {d}.persons DROP COLUMN active_days"  # the next run adds it again
    with pytest.raises(StatementError):
        deliver(scenario, "tonight", ActAtStep("persons", lambda: scenario.query(drop)))
    statuses = scenario.query("SELECT status FROM {d}.etl_runs ORDER BY started_at DESC LIMIT 1")
    assert statuses == [{"status": "failed"}]
    assert differences(scenario.sessions(), scenario.expected()) == []

    report = deliver(scenario, "tonight")
    assert (report.status, report.kind) == ("succeeded", "nothing_new")
    check_derived(scenario, report)
    assert scenario.derived().identities == {"anon-ada": "ada"}
    again = deliver(scenario, "tonight")
    assert (again.status, again.run_id) == ("duplicate", report.run_id)


def test_the_fence_alone_keeps_a_zombie_from_rebuilding_persons(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that does not notice the loss of its lease rebuilds nothing."""
    monkeypatch.setattr(LeaseRow, "renew", lambda *_: True)
    steal = "UPDATE {d}.etl_lease_sessions SET fence = fence + 1 WHERE TRUE"
    with pytest.raises(LeaseLostError, match="at the step persons"):
        deliver(scenario, "tonight", ActAtStep("persons", lambda: scenario.query(steal)))
    assert differences(scenario.sessions(), scenario.expected()) == []
    assert run_ids(scenario) == set()
    (lease,) = scenario.query("SELECT triggers FROM {d}.etl_lease_sessions")
    assert lease["triggers"] == []

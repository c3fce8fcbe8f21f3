"""A failed audit publishes nothing: each rule alone, and one of them in a real run."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

import main
from runs.errors import AuditError, RepeatedError
from runs.request import RunRequest
from sessions.audit import AuditFigures, check_audit
from sessions.plan import Plan
from tests.runs.test_lease import ActAtStep
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import day_of_sessions

if TYPE_CHECKING:
    from bigquery.clients import Clients
    from runs.report import RunReport

DAY = date(2026, 10, 5)
PLAN = Plan(kind="incremental", reason=None, days=(DAY,), counts={"20261005": 10})
SOUND = AuditFigures(
    touched=5, deleted=1, planned=4, quarantined=1, outdated=2, staged=5, distinct_keys=5,
    null_keys=0, backwards=0, planned_rows=20, quarantined_rows=4, duplicate_rows=3,
    batched_rows=13, aggregated_events=13, users=0, documents=0, ignored_documents=0,
    incomplete_documents=0,
    creators_unknown=0,
    user_times_unread=0,
    document_times_unread=0,
)  # fmt: skip


def test_sound_figures_pass() -> None:
    """Figures that add up raise nothing."""
    check_audit(SOUND, PLAN, {DAY: 10}, [DAY])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("staged", 6), ("distinct_keys", 4), ("null_keys", 1), ("backwards", 1),
        ("planned_rows", 21), ("duplicate_rows", 2), ("batched_rows", 12), ("deleted", 2),
    ],
)  # fmt: skip
def test_figures_that_do_not_add_up_are_refused(name: str, value: int) -> None:
    """Each rule fails by itself."""
    changed: dict[str, Any] = {name: value}
    with pytest.raises(AuditError, match="Nothing was published"):
        check_audit(dataclasses.replace(SOUND, **changed), PLAN, {DAY: 10}, [DAY])


def test_a_day_with_fewer_rows_than_its_metadata_is_refused() -> None:
    """Fewer rows than the source lists for the day mean that the run lost some."""
    with pytest.raises(AuditError, match="2026-10-05 has 10 rows by its metadata and 9 were read"):
        check_audit(SOUND, PLAN, {DAY: 9}, [DAY])


def test_a_run_whose_staging_is_wrong_publishes_nothing(clients: Clients) -> None:
    """A session that is staged twice fails the run before it publishes, and the ledger says so."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 3))

        def stage_twice() -> None:
            tables = scenario.query("SELECT table_name FROM {d}.INFORMATION_SCHEMA.TABLES")
            name = next(t["table_name"] for t in tables if t["table_name"].endswith("_staged"))
            scenario.query(f"INSERT INTO {{d}}.{name} SELECT * FROM {{d}}.{name}")

        with pytest.raises(AuditError, match="6 sessions were staged under 3 ids"):
            main.main(
                RunRequest(),
                scenario.make_settings(),
                scenario.clients,
                progress=ActAtStep("audit", stage_twice),
            )
        assert scenario.sessions() == {}
        assert [row["status"] for row in scenario.query("SELECT status FROM {d}.etl_runs")] == [
            "failed"
        ]


def test_an_emptied_firebase_table_ends_the_run_unless_forced(clients: Clients) -> None:
    """A failed load of Firebase must take no user away; rows deleted on purpose need --force."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 3))
        scenario.arrive("firebase_users", [{"user_id": f"u{n}"} for n in range(5)])
        assert scenario.run().firebase["users"] == 5
        scenario.vanish("firebase_users", "user_id", "u0")
        assert scenario.run().firebase["users"] == 4  # 80 % is enough
        scenario.vanish("firebase_users", "user_id", "u1")
        with pytest.raises(AuditError, match=r"users has 3 usable ids where .* found 4: .*--force"):
            deliver(scenario)
        before = len(scenario.query("SELECT run_id FROM {d}.etl_runs"))
        with pytest.raises(RepeatedError, match=r"is not tried again, .* has 3 usable ids where"):
            deliver(scenario)  # Cloud Scheduler's next attempt pays for nothing
        assert len(scenario.query("SELECT run_id FROM {d}.etl_runs")) == before
        assert deliver(scenario, force=True).status == "succeeded"
        assert deliver(scenario).status == "duplicate"
        assert scenario.run().status == "succeeded"


def deliver(scenario: Scenario, **request: Any) -> RunReport:  # noqa: ANN401 - of a RunRequest
    """An attempt at one scheduled delivery."""
    settings, trigger = scenario.make_settings(), "nightly 2026-10-05T02:00:00Z"
    return main.main(RunRequest(**request), settings, scenario.clients, trigger=trigger)

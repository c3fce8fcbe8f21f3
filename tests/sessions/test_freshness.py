"""Only valid rows tell how fresh the export is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bigquery.warehouse import Warehouse
from jobs.sessions_checks import check_sessions
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import event
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from bigquery.clients import Clients
    from runs.checks import Check
    from tests.scenario import Row


STOPPED_AT = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)
OLD = "240 hours old: is the export running?"


def rows_to_set_aside() -> list[Row]:
    """Rows after the export stopped, each invalid for another reason."""
    properties = {
        "no session": "{}",
        "junk session": json.dumps({"$session_id": "undefined"}),
        "malformed": "{",
        "excluded": json.dumps({"$session_id": "s", "$lib": "a-server"}),
    }
    rows = [
        event("s", STOPPED_AT + timedelta(days=9), uuid=name, properties=text)
        for name, text in properties.items()
    ]
    ahead = [  # events ahead of their ingestion, on many days
        event(
            "s",
            STOPPED_AT + timedelta(days=day),
            uuid=f"ahead {day}",
            bq_ingested_timestamp=STOPPED_AT,
        )
        for day in range(2, 10)
    ]
    return [*rows, *ahead]


def newest_event_check(scenario: Scenario) -> Check:
    """What `--check` says of the newest event."""
    settings = scenario.make_settings()
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="check")
    found = check_sessions(METRIC_TABLE, warehouse, datetime.now(UTC))
    return next(check for check in found if check.name == "newest event")


def test_rows_set_aside_do_not_hide_a_stopped_export(clients: Clients) -> None:
    """A full load, a run over such rows alone, a run without new rows, and `--check` all warn.

    Rows far ahead of their ingestion are set aside, too, on however many days.
    """
    with Scenario(clients=clients, settings={"exclude_libs": ("a-server",)}) as scenario:
        scenario.arrive(
            "posthog_events", [event("s", STOPPED_AT, bq_ingested_timestamp=STOPPED_AT)]
        )
        scenario.arrive("posthog_events", rows_to_set_aside())
        later = [row | {"uuid": f"later {row['uuid']}"} for row in rows_to_set_aside()]
        kinds = []
        for _ in range(3):
            report = scenario.run()
            kinds.append(report.kind)
            assert report.newest_event_at == STOPPED_AT, report.kind
            assert any(OLD in warning for warning in report.warnings), report.kind
            assert newest_event_check(scenario).message.endswith(OLD)
            scenario.arrive("posthog_events", later)
            later = []
        assert kinds == ["full_load", "nothing_new", "nothing_new"]


def test_an_untouched_session_may_have_the_newest_event(clients: Clients) -> None:
    """The newest event of all counts, not that of the run; events of deleted sessions do not."""
    now = datetime.now(UTC).replace(microsecond=0)
    newest, before, ahead = (now - timedelta(hours=hours) for hours in (1, 30, -3))
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [event("new", newest), event("old", before)])
        assert scenario.run().newest_event_at == newest
        scenario.arrive("posthog_events", [event("late", STOPPED_AT)])
        report = scenario.run()
        assert (report.kind, report.newest_event_at) == ("incremental", newest)
        scenario.arrive("posthog_events", [event("new", ahead)])
        assert scenario.run().newest_event_at == newest
        assert newest_event_check(scenario).outcome == "ok"
        scenario.arrive("posthog_events", [event("late", STOPPED_AT, uuid="again")])
        # The start of the session counts, since its end is in the future.
        assert scenario.run().newest_event_at == newest
        scenario.vanish("posthog_events", "distinct_id", "visitor of new")
        report = scenario.run()
        assert report.newest_event_at == before
        assert any("30 hours old" in warning for warning in report.warnings)


def test_a_run_over_old_days_reports_no_stopped_export(clients: Clients) -> None:
    """Neither the run nor the stored sessions need have the newest days."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [event("old", STOPPED_AT)])
        report = scenario.run(start_date=STOPPED_AT.date(), end_date=STOPPED_AT.date())
        assert (report.kind, report.is_stale, report.warnings) == ("dates", None, ())
        assert report.summary == "1 changed days, 1 read"


def test_a_source_without_valid_events_is_reported(clients: Clients) -> None:
    """Rows that are all set aside do not count."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [event("null", STOPPED_AT)])
        report = scenario.run()
        assert report.newest_event_at is None
        assert report.is_stale
        assert any("events has no valid events" in warning for warning in report.warnings)
        assert newest_event_check(scenario).message == "The source has no valid events up to now."

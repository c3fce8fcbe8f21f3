"""How fresh the export is: by valid rows alone."""

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


DIED = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)
OLD = "240 hours old: is the export running?"


def set_aside() -> list[Row]:
    """Rows since the export died that are no valid ones, each for another reason."""
    properties = {
        "no session": "{}",
        "junk session": json.dumps({"$session_id": "undefined"}),
        "malformed": "{",
        "excluded": json.dumps({"$session_id": "s", "$lib": "a-server"}),
    }
    rows = [
        event("s", DIED + timedelta(days=9), uuid=name, properties=text)
        for name, text in properties.items()
    ]
    ahead = [  # of their ingestion, on many days
        event("s", DIED + timedelta(days=day), uuid=f"ahead {day}", bq_ingested_timestamp=DIED)
        for day in range(2, 10)
    ]
    return [*rows, *ahead]


def newest_check(scenario: Scenario) -> Check:
    """What `--check` says of the newest event."""
    settings = scenario.make_settings()
    warehouse = Warehouse(clients=scenario.clients, settings=settings, run_id="check")
    found = check_sessions(METRIC_TABLE, warehouse, datetime.now(UTC))
    return next(check for check in found if check.name == "newest event")


def test_rows_set_aside_hide_no_dead_export(clients: Clients) -> None:
    """A full load, an increment of such rows alone, nothing new, and `--check` say it.

    Rows far ahead of their ingestion are such rows, on however many days.
    """
    with Scenario(clients=clients, settings={"exclude_libs": ("a-server",)}) as scenario:
        scenario.arrive("posthog_events", [event("s", DIED, bq_ingested_timestamp=DIED)])
        scenario.arrive("posthog_events", set_aside())
        later = [row | {"uuid": f"later {row['uuid']}"} for row in set_aside()]
        kinds = []
        for _ in range(3):
            report = scenario.run()
            kinds.append(report.kind)
            assert report.newest_event_at == DIED, report.kind
            assert any(OLD in warning for warning in report.warnings), report.kind
            assert newest_check(scenario).message.endswith(OLD)
            scenario.arrive("posthog_events", later)
            later = []
        assert kinds == ["full_load", "nothing_new", "nothing_new"]


def test_an_untouched_session_may_have_the_newest_event(clients: Clients) -> None:
    """A late event of an old day says nothing of today; a session that is deleted says nothing."""
    now = datetime.now(UTC).replace(microsecond=0)
    newest, before, ahead = (now - timedelta(hours=hours) for hours in (1, 30, -3))
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [event("new", newest), event("old", before)])
        assert scenario.run().newest_event_at == newest
        scenario.arrive("posthog_events", [event("late", DIED)])
        report = scenario.run()
        assert (report.kind, report.newest_event_at) == ("incremental", newest)
        scenario.arrive("posthog_events", [event("new", ahead)])
        assert scenario.run().newest_event_at == newest
        assert newest_check(scenario).outcome == "ok"
        scenario.arrive("posthog_events", [event("late", DIED, uuid="again")])
        assert scenario.run().newest_event_at == newest  # the start of a session that ends ahead
        scenario.vanish("posthog_events", "distinct_id", "visitor of new")
        report = scenario.run()
        assert report.newest_event_at == before
        assert any("30 hours old" in warning for warning in report.warnings)


def test_a_run_over_old_days_calls_no_export_dead(clients: Clients) -> None:
    """Neither that run nor the sessions stored need have the newest days."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [event("old", DIED)])
        report = scenario.run(start_date=DIED.date(), end_date=DIED.date())
        assert (report.kind, report.is_stale, report.warnings) == ("dates", None, ())
        assert report.summary == "1 changed days, 1 read"


def test_a_source_without_valid_events_is_reported(clients: Clients) -> None:
    """It may have rows, and none of them counts."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [event("null", DIED)])
        report = scenario.run()
        assert report.newest_event_at is None
        assert report.is_stale
        assert any("events has no valid events" in warning for warning in report.warnings)
        assert newest_check(scenario).message == "The source has no valid events up to now."

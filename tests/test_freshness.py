"""How fresh the export is: by rows at a credible time alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.scenario import Scenario
from tests.test_requests_on_data import event

if TYPE_CHECKING:
    from bigquery.clients import Clients


def test_clocks_that_run_ahead_hide_no_dead_export(clients: Clients) -> None:
    """Rows far ahead of their ingestion, on however many days, prove nothing about the export."""
    died = datetime.now(UTC).replace(microsecond=0) - timedelta(days=10)
    ahead = [
        event("s", died + timedelta(days=day), uuid=f"ahead {day}", bq_ingested_timestamp=died)
        for day in range(3, 10)
    ]
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [event("s", died, bq_ingested_timestamp=died), *ahead])
        report = scenario.run()
        assert report.newest_event_at == died
        assert any("240 hours old" in warning for warning in report.warnings)

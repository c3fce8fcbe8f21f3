"""What BigQuery says and the emulator can't: a dry run's bytes, locations, expiry, policies."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from bigquery.clients import local_clients
from runs.errors import BudgetError
from tests.fault_proxy import Edit, HttpProxy
from tests.scenario import Scenario, differences
from tests.test_requests_on_data import MIDNIGHT, day_of_sessions, event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.emulator import Endpoints

TERABYTE = 10**12
JOBS = r"/jobs(\?|$)"
DRY = '"dryRun": true'
WHOLE = "CREATE TABLE {n} AS SELECT * FROM {t}"  # without partitions


@dataclass(kw_only=True)
class Cloud:
    """A scenario whose clients hear edited answers."""

    scenario: Scenario
    proxy: HttpProxy

    @contextmanager
    def answering(self, *edits: Edit) -> Iterator[None]:
        """Within, these answers are edited, and requests are written down."""
        self.proxy.heard.clear()
        self.proxy.edits = list(edits)
        try:
            yield
        finally:
            self.proxy.edits = []

    def statements(self, text: str) -> list[str]:
        """The jobs heard that are no dry runs and contain a text."""
        heard = [each for each in self.proxy.heard if "POST" in each and "/jobs" in each]
        return [each for each in heard if text in each and DRY not in each]


@pytest.fixture(scope="module")
def cloud(endpoints: Endpoints) -> Iterator[Cloud]:
    """Two days of sessions behind a proxy that edits."""
    with ExitStack() as stack:
        proxy = stack.enter_context(HttpProxy(endpoints.rest))
        clients = local_clients(dataclasses.replace(endpoints, rest=proxy.address))
        stack.callback(clients.close)
        scenario = stack.enter_context(Scenario(clients=clients))
        scenario.arrive("posthog_events", day_of_sessions(0, 3))
        yield Cloud(scenario=scenario, proxy=proxy)


def bytes_of(size: int, body: str = "") -> Edit:
    """A dry run that would read so many bytes."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        statistics = answer.setdefault("statistics", {})
        statistics["totalBytesProcessed"] = str(size)
        statistics.setdefault("query", {})["totalBytesProcessed"] = str(size)
        return answer

    return Edit(method="POST", path=JOBS, body=f"(?s){DRY}.*{body}|{body}.*{DRY}", change=change)


def test_an_unasked_full_load_ends_before_it_reads(cloud: Cloud) -> None:
    """Above the budget nothing of the events is read, and the ledger says why; asked for, it is."""
    scenario = cloud.scenario
    with cloud.answering(bytes_of(TERABYTE)):
        with pytest.raises(BudgetError, match=r"1,000\.0 GB \(5\.68 USD\).*--full-load, or raise"):
            scenario.run()
        assert cloud.statements("raw_properties") == []
        report = scenario.run(full_load=True)
    assert (report.kind, report.reason) == ("full_load", "it was asked for")
    rows = scenario.query("SELECT status, error FROM {d}.etl_runs ORDER BY started_at")
    assert [row["status"] for row in rows] == ["failed", "succeeded"]
    assert "MAX_UNASKED_BYTES allows 200.0 GB" in rows[0]["error"]


def test_the_limit_of_a_query_is_kept_before_it_is_sent(cloud: Cloud) -> None:
    """Whoever asked: the sentence has the bytes, where BigQuery's own refusal may not."""
    scenario = cloud.scenario
    scenario.settings = {"max_bytes_billed": 10**11}
    try:
        with cloud.answering(bytes_of(TERABYTE)):
            with pytest.raises(BudgetError, match=r"1,000\.0 GB .* MAX_BYTES_BILLED allows 100\.0"):
                scenario.run(full_load=True)
            assert cloud.statements("raw_properties") == []
    finally:
        scenario.settings = {}


def test_a_table_without_partitions_is_warned_of_and_refused(cloud: Cloud) -> None:
    """Each run reads all of it: a warning with bytes below the budget, a refusal above it."""
    scenario = cloud.scenario
    scenario.run(full_load=True)
    scenario.replace("posthog_events", WHOLE)
    with cloud.answering(bytes_of(2 * 10**9)):
        assert not [each for each in scenario.run().warnings if "partitioned" in each]
        scenario.arrive("posthog_events", [event("late", MIDNIGHT)])
        told = [each for each in scenario.run().warnings if "partitioned" in each]
    assert len(told) == 1
    assert "read up to 2.0 GB (0.01 USD) of it" in told[0]
    scenario.arrive("posthog_events", [event("later", MIDNIGHT)])
    with (
        cloud.answering(bytes_of(TERABYTE)),
        pytest.raises(BudgetError, match="because the table is not partitioned by the day"),
    ):
        scenario.run()
    assert scenario.run().kind == "incremental"
    assert differences(scenario.sessions(), scenario.expected()) == []


def test_a_limit_sends_no_select_of_no_day(cloud: Cloud) -> None:
    """A range that holds nothing reads all of a table without partitions: none is sent."""
    scenario = cloud.scenario
    with cloud.answering(bytes_of(0)):
        scenario.run(limit=1)  # nothing has changed
        assert cloud.statements("raw_properties") == []
        scenario.run(limit=1, start_date=MIDNIGHT.date())
        sent = cloud.statements("raw_properties")
    assert sent
    assert not [each for each in sent if "2018-01-01 00:00:00+00' AND" in each]

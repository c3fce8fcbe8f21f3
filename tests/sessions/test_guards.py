"""What BigQuery answers and the emulator can't: bytes of dry runs, locations, expiry, policies."""

from __future__ import annotations

import dataclasses
import operator
import re
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bigquery.clients import local_clients
from bigquery.jobs import run_query
from bigquery.refusals import StatementError
from bigquery.warehouse import Warehouse
from runs.errors import (
    AbortedError,
    BudgetError,
    SettingsError,
    SourceMissingError,
    UnavailableError,
)
from runs.supervision import STOP
from service.readiness import probe_all
from sessions import plan as planning
from sessions import publication, watch
from sessions.plan import batch_count, large_batch_warning
from sessions.publication import date_parts
from tests.fault_proxy import Edit, Fault, HttpProxy
from tests.scenario import Row, Scenario, differences
from tests.sessions.test_requests_on_data import MIDNIGHT, day_of_sessions, event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.emulator import Endpoints
    from sessions.report import SessionsReport

TERABYTE = 10**12
JOBS = r"/jobs(\?|$)"
QUERY_JOB = '"configuration": {"query"'
PROJECTION = "is_malformed"  # stands in statements that read the events, and in no other
DRY_RUN = '"dryRun": true'
UNPARTITIONED = "CREATE TABLE {n} AS SELECT * FROM {t}"


@dataclass(kw_only=True)
class Cloud:
    """A scenario whose clients receive edited answers."""

    scenario: Scenario
    proxy: HttpProxy

    @contextmanager
    def answering(self, *edits: Edit) -> Iterator[None]:
        """Edit these answers and record the requests within the block."""
        self.proxy.heard.clear()
        self.proxy.edits = list(edits)
        try:
            yield
        finally:
            self.proxy.edits = []

    def statements(self, text: str) -> list[str]:
        """The recorded submissions that contain a text, without dry runs."""
        submitted = [each for each in self.proxy.heard if "POST" in each and "/jobs" in each]
        return [each for each in submitted if text in each and DRY_RUN not in each]


@pytest.fixture(scope="module")
def unloaded(endpoints: Endpoints) -> Iterator[Cloud]:
    """Sessions that no run has loaded yet, behind a proxy that edits answers."""
    with ExitStack() as stack:
        proxy = stack.enter_context(HttpProxy(endpoints.rest))
        clients = local_clients(dataclasses.replace(endpoints, rest=proxy.address))
        stack.callback(clients.close)
        scenario = stack.enter_context(Scenario(clients=clients))
        scenario.arrive("posthog_events", day_of_sessions(0, 3))
        yield Cloud(scenario=scenario, proxy=proxy)


def bytes_of(size: int, body: str = "") -> Edit:
    """The edit by which a dry run would read so many bytes."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        statistics = answer.setdefault("statistics", {})
        statistics["totalBytesProcessed"] = str(size)
        statistics.setdefault("query", {})["totalBytesProcessed"] = str(size)
        return answer

    return Edit(method="POST", path=JOBS, body=rf"(?s)\A(?=.*{DRY_RUN})(?=.*{body})", change=change)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLoad:
    """A first run that was refused, what it had read by then, and a full load on request."""

    refusal: str
    read: list[str]
    report: SessionsReport
    ledger: list[Row]


@pytest.fixture(scope="module")
def first_load(unloaded: Cloud) -> FirstLoad:
    """Both runs would read more than the budget."""
    scenario = unloaded.scenario
    with unloaded.answering(bytes_of(TERABYTE)):
        with pytest.raises(BudgetError) as refused:
            scenario.run()
        read = unloaded.statements(PROJECTION)
        report = scenario.run(full_load=True)
    ledger = scenario.query("SELECT status, error FROM {d}.etl_runs ORDER BY started_at")
    return FirstLoad(refusal=str(refused.value), read=read, report=report, ledger=ledger)


@pytest.fixture(scope="module")
def cloud(unloaded: Cloud, first_load: FirstLoad) -> Cloud:
    """The scenario after its first load."""
    assert first_load.report.kind == "full_load"
    return unloaded


def test_an_unasked_full_load_ends_before_it_reads(first_load: FirstLoad) -> None:
    """It reads no event, and the ledger says why; a full load that was asked for succeeds."""
    message = r"1,000\.0 GB \(5\.68 USD\).*--full-load, or raise"
    assert re.search(message, first_load.refusal)
    assert first_load.read == []
    report, rows = first_load.report, first_load.ledger
    assert (report.kind, report.reason) == ("full_load", "it was asked for")
    assert [row["status"] for row in rows] == ["failed", "succeeded"]
    assert "MAX_UNASKED_BYTES allows 200.0 GB" in rows[0]["error"]


def test_a_query_over_its_limit_is_not_sent(cloud: Cloud) -> None:
    """Not even on request; the message names the bytes, which BigQuery's own may not."""
    scenario = cloud.scenario
    scenario.settings = {"max_bytes_billed": 10**11}
    try:
        with cloud.answering(bytes_of(TERABYTE)):
            with pytest.raises(BudgetError, match=r"1,000\.0 GB .* MAX_BYTES_BILLED allows 100\.0"):
                scenario.run(full_load=True)
            assert cloud.statements(PROJECTION) == []
    finally:
        scenario.settings = {}


def test_a_table_without_partitions_causes_a_warning_or_a_refusal(cloud: Cloud) -> None:
    """Each run reads all of it: it warns below the budget and is refused above it."""
    scenario = cloud.scenario
    scenario.replace("posthog_events", UNPARTITIONED)
    with cloud.answering(bytes_of(2 * 10**9)):
        scenario.arrive("posthog_events", [event("late", MIDNIGHT)])
        warnings = [each for each in scenario.run().warnings if "partitioned" in each]
    assert len(warnings) == 1
    assert "read up to 2.0 GB (0.01 USD) of it" in warnings[0]
    scenario.arrive("posthog_events", [event("later", MIDNIGHT)])
    with (
        cloud.answering(bytes_of(TERABYTE)),
        pytest.raises(BudgetError, match="because the table is not partitioned by the day"),
    ):
        scenario.run()
    assert scenario.run().kind == "incremental"
    assert differences(scenario.sessions(), scenario.expected()) == []


def test_a_limit_sends_no_select_without_days(cloud: Cloud) -> None:
    """Of a table without partitions, even an empty range of days reads everything."""
    scenario = cloud.scenario
    with cloud.answering(bytes_of(0)):
        scenario.run(limit=1)  # nothing has changed
        assert cloud.statements(PROJECTION) == []
        scenario.run(limit=1, start_date=MIDNIGHT.date())
        sent = cloud.statements(PROJECTION)
    assert sent
    assert not [each for each in sent if "2018-01-01 00:00:00+00' AND" in each]


def test_tables_that_would_expire_are_kept(endpoints: Endpoints) -> None:
    """A dataset's default would delete published tables, the lease and the ledger."""
    with in_dataset(endpoints, "default_table_expiration_days = 30") as scenario:
        warnings = [each for each in scenario.run().warnings if "to be deleted" in each]
        assert len(warnings) >= 6  # the ledger's may not be there yet
        assert all(each.endswith("by its dataset's default: it is kept now.") for each in warnings)
        warnings = [each for each in scenario.run().warnings if "to be deleted" in each]
        assert len(warnings) <= 1
        client = scenario.clients.bigquery
        tables = [client.get_table(each) for each in client.list_tables(scenario.destination)]
        assert {each.expires for each in tables if each.table_type == "TABLE"} == {None}


@contextmanager
def in_dataset(endpoints: Endpoints, options: str) -> Iterator[Scenario]:
    """A scenario whose destination has these options."""
    clients = local_clients(endpoints)
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        scenario.query(f"CREATE SCHEMA {scenario.destination} OPTIONS ({options})")
        yield scenario
    clients.close()


def located(location: str, path: str) -> Edit:
    """The edit by which a table or dataset is in another location."""
    return Edit(method="GET", path=path, change=lambda answer: {**answer, "location": location})


def test_sources_in_another_location_are_reported_before_anything_is_created(
    endpoints: Endpoints,
) -> None:
    """A dataset in the wrong location can't be moved, so none is created."""
    with HttpProxy(endpoints.rest) as proxy:
        clients = local_clients(dataclasses.replace(endpoints, rest=proxy.address))
        scenario = Scenario(clients=clients)
        scenario.settings = {"location": "US"}
        proxy.edits = [located("EU", rf"/datasets/{scenario.datasets.posthog}/tables/")]
        with pytest.raises(SettingsError, match=r"these differ: .*events EU.*BIGQUERY_LOCATION US"):
            scenario.run()
        proxy.edits = []
        found = {each.dataset_id for each in clients.bigquery.list_datasets()}
        assert scenario.destination not in found
        clients.close()


def test_the_destination_is_created_where_the_sources_are(endpoints: Endpoints) -> None:
    """Without BIGQUERY_LOCATION, the dataset and every job are in the sources' location."""
    with HttpProxy(endpoints.rest) as proxy:
        clients = local_clients(dataclasses.replace(endpoints, rest=proxy.address))
        with Scenario(clients=clients) as scenario:
            proxy.edits = [located("europe-west4", r"/datasets/\w+/tables/(events|users|sessions)")]
            scenario.run()
            created = [
                each for each in proxy.heard if each.startswith("POST") and '"datasetRef' in each
            ]
            assert [each for each in created if '"location": "europe-west4"' in each]
            jobs = [each for each in proxy.heard if each.startswith("POST") and QUERY_JOB in each]
            assert len(jobs) > 10
            assert [each for each in jobs if "europe-west4" not in each] == []
        clients.close()


def test_without_any_source_nothing_is_created(endpoints: Endpoints) -> None:
    """A misspelt dataset must not leave a destination in the wrong location."""
    clients = local_clients(endpoints)
    with Scenario(clients=clients) as scenario:
        for dataset in (scenario.datasets.posthog, scenario.datasets.firebase):
            clients.bigquery.delete_dataset(dataset, delete_contents=True)
        with pytest.raises(SourceMissingError, match="nothing says where the destination belongs"):
            scenario.run()
        found = {each.dataset_id for each in clients.bigquery.list_datasets()}
        assert scenario.destination not in found
    clients.close()


def denied(reason: str) -> Edit:
    """The edit by which BigQuery refuses the past of a table with a row access policy."""
    error = {"code": 403, "message": reason, "errors": [{"reason": "accessDenied"}]}
    return Edit(
        method="POST", path=JOBS, body="FOR SYSTEM_TIME", status=403,
        change=lambda _: {"error": error},
    )  # fmt: skip


def expiring(answer: dict[str, Any]) -> dict[str, Any]:
    """A table whose partitions are kept for a month."""
    answer["timePartitioning"]["expirationMs"] = str(30 * 24 * 3600 * 1000)
    return answer


def streaming(answer: dict[str, Any]) -> dict[str, Any]:
    """Add the streaming buffer to the days, once for each tier of storage."""
    if not answer.get("rows"):
        return answer
    others = [{"v": None}] * (len(answer["rows"][0]["f"]) - 2)
    buffer = {"f": [{"v": "__UNPARTITIONED__"}, {"v": "2"}, *others]}
    rows = [*answer["rows"], buffer, buffer]
    return {**answer, "rows": rows, "totalRows": str(len(rows))}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedLoad:
    """What a full load left under several limits of BigQuery, which do not affect each other.

    A statement may change one partition, and the batches are too few and too large.
    """

    warnings: tuple[str, ...]
    next_warnings: tuple[str, ...]
    differences: list[str]
    buffered: list[Row]


@pytest.fixture(scope="module")
def limited_load(cloud: Cloud) -> LimitedLoad:
    """A load with expiring partitions, a streaming buffer, row access policies and low limits."""
    scenario = cloud.scenario
    name = rf"/datasets/{scenario.destination}/tables/sessions(\?|$)"
    edits = [
        Edit(method="GET", path=name, change=expiring),
        Edit(method="GET", path="/queries/.*_day_counts_", change=streaming),
        denied("Time travel on table events is forbidden as it has policies."),
    ]
    scenario.arrive("posthog_events", [*day_of_sessions(3, 2), *day_of_sessions(900, 2)])
    scenario.settings = {"max_batch_events": 2}
    with pytest.MonkeyPatch.context() as patch, cloud.answering(*edits):
        patch.setattr(publication, "_MOST_PARTITIONS", 1)
        patch.setattr(planning, "MOST_BATCHES", 2)
        warnings = scenario.run(full_load=True).warnings
        found = differences(scenario.sessions(), scenario.expected())
        buffered = scenario.query(
            "SELECT d.row_count FROM {d}.etl_state_sessions, UNNEST(days) AS d"
            " WHERE d.partition_id = '__UNPARTITIONED__'"
        )
        scenario.settings = {}
        next_warnings = scenario.run().warnings
    return LimitedLoad(
        warnings=warnings, next_warnings=next_warnings, differences=found, buffered=buffered
    )


def test_partitions_that_expire_at_once_are_reported(limited_load: LimitedLoad) -> None:
    """Otherwise a full load reports success and loses its oldest days within minutes."""
    (warning,) = [
        each for each in limited_load.warnings if "keeps its partitions for 30 days" in each
    ]
    assert warning.endswith("SET OPTIONS (partition_expiration_days = NULL).")
    assert not [each for each in limited_load.next_warnings if "partitions" in each]


def test_a_table_with_a_row_access_policy_is_read_without_time_travel(
    cloud: Cloud, limited_load: LimitedLoad
) -> None:
    """Only administrators may read its past; the warning says that rows may be hidden."""
    warnings = [each for each in limited_load.warnings if "row access policy" in each]
    assert len(warnings) == 4  # one for each table
    assert "rows may be hidden from this account" in warnings[0]
    assert limited_load.differences == []
    settings = cloud.scenario.make_settings()
    warehouse = Warehouse(clients=cloud.scenario.clients, settings=settings, run_id="no_run")
    with cloud.answering(denied("Time travel on table events is forbidden as it has policies.")):
        probes = probe_all(warehouse.settings, lambda: nullcontext(warehouse))
    assert [each.problem for each in probes if each.problem] == []
    assert len([each for each in probes if "row access policy" in " ".join(each.warnings)]) == 4


def test_columns_that_may_be_masked_are_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masked phones match nobody, though the run succeeds: a warning names the columns.

    Another one says if no user at all matches a session.
    """
    scenario = cloud.scenario
    monkeypatch.setattr(watch, "_ENOUGH_SESSIONS", 1)
    scenario.arrive("firebase_users", [{"user_id": "nobody", "phoneNumber": "+15550100"}])

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        for column in answer["schema"]["fields"]:
            if column["name"] in {"phoneNumber", "username"}:  # the second one is not read
                column["policyTags"] = {"names": ["projects/p/locations/us/taxonomies/1"]}
        return answer

    edit = Edit(method="GET", path=rf"{scenario.datasets.firebase}/tables/users", change=change)
    with cloud.answering(edit):
        report = scenario.run()
    (warning,) = [each for each in report.warnings if "policy tag" in each]
    assert "has a policy tag on phoneNumber: values may be masked" in warning
    (warning,) = [each for each in report.warnings if "No user matches" in each]
    assert f"any of the 1 users of local.{scenario.datasets.firebase}.users" in warning


@pytest.mark.parametrize("count", [0, 1, 3000, 3001, 9001])
def test_no_statement_changes_too_many_partitions(count: int) -> None:
    """Each day is in exactly one piece, and no piece has more than 3,000 of them."""
    days = [date(2018, 1, 1) + timedelta(days=number) for number in range(count)]
    pieces = [as_python(each) for each in date_parts(days)] or [lambda _: True]
    found = [[piece(day) for piece in pieces].index(True) for day in days]
    assert all([piece(day) for piece in pieces].count(True) == 1 for day in days)
    assert max(Counter(found).values(), default=0) <= 3000


def as_python(condition: str) -> Callable[[date], bool]:
    """A condition on session_date, as a function."""
    bounds = re.findall(r"session_date (<|>=) DATE '(.{10})'", condition)
    compare = {"<": operator.lt, ">=": operator.ge}
    return lambda day: all(compare[sign](day, date.fromisoformat(at)) for sign, at in bounds)


def test_a_publication_in_pieces_is_one_publication(limited_load: LimitedLoad) -> None:
    """A full load over more days than a statement may change publishes the same rows."""
    assert limited_load.differences == []


def test_batches_stay_below_the_quota_of_load_jobs() -> None:
    """At most 1,000, however many events and however small MAX_BATCH_EVENTS, with a warning."""
    assert batch_count(1_500_000_000, max_batch_events=1_000_000) == 1000
    assert batch_count(1_000_000, max_batch_events=1) == 1000
    assert batch_count(999_000_001, max_batch_events=1_000_000) == 1000
    assert batch_count(0, max_batch_events=1) == 1
    assert large_batch_warning(1_000_000_000, max_batch_events=1_000_000) is None
    warning = large_batch_warning(1_500_000_000, max_batch_events=1_000_000)
    assert warning is not None
    assert "1,000 batches of about 1,500,000, more than MAX_BATCH_EVENTS (1,000,000)" in warning


def test_a_run_in_batches_that_are_too_large_warns(limited_load: LimitedLoad) -> None:
    """It goes on, since memory may suffice; if it does not, the warning tells why."""
    assert len([each for each in limited_load.warnings if "were cut into 2 batches" in each]) == 1
    assert limited_load.differences == []


@pytest.mark.parametrize("is_younger", [True, False])
def test_a_source_recreated_during_a_run_is_a_temporary_failure(
    cloud: Cloud, *, is_younger: bool
) -> None:
    """BigQuery rejects time travel to before its creation; the next run succeeds."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "creationTime": "4102444800000"} if is_younger else answer  # 2100

    users = Edit(
        method="GET", path=rf"{cloud.scenario.datasets.firebase}/tables/users", change=change
    )
    rejected = Fault(
        kind="job failed", method="POST", path=JOBS, body="user_keys", reason="invalidQuery"
    )
    error = UnavailableError if is_younger else StatementError
    message = "users was made anew at" if is_younger else "invalidQuery"
    with cloud.answering(users), cloud.proxy.faulty(rejected), pytest.raises(error, match=message):
        cloud.scenario.run()


def test_partitions_in_two_rows_are_added(limited_load: LimitedLoad) -> None:
    """Rows of the streaming buffer may be listed once for each tier of storage."""
    assert limited_load.buffered == [{"row_count": 4}]


def test_a_run_that_bigquery_keeps_waiting_can_be_stopped(cloud: Cloud) -> None:
    """From its first request on: Ctrl-C does not wait for the answer."""
    hang = Fault(kind="hang", method="GET", path="/tables/", times=1000, seconds=8.0)
    STOP.set()
    started = time.monotonic()
    try:
        with cloud.proxy.faulty(hang), pytest.raises(AbortedError, match="before it did anything"):
            cloud.scenario.run()
    finally:
        STOP.clear()
    assert time.monotonic() - started < 6


def test_the_bytes_of_a_failed_statement_count(cloud: Cloud) -> None:
    """BigQuery may bill a statement that fails midway, so a failed run shows its cost."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        answer.setdefault("statistics", {}).setdefault("query", {})["totalBytesBilled"] = "1000"
        return answer

    settings = cloud.scenario.make_settings()
    warehouse = Warehouse(clients=cloud.scenario.clients, settings=settings, run_id="failing")
    with (
        cloud.answering(
            Edit(method="GET", path="/jobs/", change=change),
            Edit(method="POST", path=JOBS, change=change),
        ),
        pytest.raises(StatementError),
    ):
        run_query(warehouse, "failing", "SELECT ERROR('by order')")
    assert warehouse.bytes_billed == 1000

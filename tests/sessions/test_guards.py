"""What BigQuery says and the emulator can't: a dry run's bytes, locations, expiry, policies."""

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
JOB = '"configuration": {"query"'
PROJECTION = "is_malformed"  # stands in statements that read the events, and in no other
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
def unloaded(endpoints: Endpoints) -> Iterator[Cloud]:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLoad:
    """A first run that was refused, what it had read by then, and one that was asked for."""

    refusal: str
    read: list[str]
    report: SessionsReport
    ledger: list[Row]


@pytest.fixture(scope="module")
def first_load(unloaded: Cloud) -> FirstLoad:
    """Both runs are above the budget."""
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
    """The same after its first load."""
    assert first_load.report.kind == "full_load"
    return unloaded


def test_an_unasked_full_load_ends_before_it_reads(first_load: FirstLoad) -> None:
    """Above the budget nothing of the events is read, and the ledger says why; asked for, it is."""
    told = r"1,000\.0 GB \(5\.68 USD\).*--full-load, or raise"
    assert re.search(told, first_load.refusal)
    assert first_load.read == []
    report, rows = first_load.report, first_load.ledger
    assert (report.kind, report.reason) == ("full_load", "it was asked for")
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
            assert cloud.statements(PROJECTION) == []
    finally:
        scenario.settings = {}


def test_a_table_without_partitions_is_warned_of_and_refused(cloud: Cloud) -> None:
    """Each run reads all of it: a warning with bytes below the budget, a refusal above it."""
    scenario = cloud.scenario
    scenario.replace("posthog_events", WHOLE)
    with cloud.answering(bytes_of(2 * 10**9)):
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
        assert cloud.statements(PROJECTION) == []
        scenario.run(limit=1, start_date=MIDNIGHT.date())
        sent = cloud.statements(PROJECTION)
    assert sent
    assert not [each for each in sent if "2018-01-01 00:00:00+00' AND" in each]


def test_tables_that_would_expire_are_kept(endpoints: Endpoints) -> None:
    """A dataset's default would delete what was published, the lease and the ledger with it."""
    with in_dataset(endpoints, "default_table_expiration_days = 30") as scenario:
        told = [each for each in scenario.run().warnings if "to be deleted" in each]
        assert len(told) >= 6  # the ledger's may not be there yet
        assert all(each.endswith("by its dataset's default: it is kept now.") for each in told)
        told = [each for each in scenario.run().warnings if "to be deleted" in each]
        assert len(told) <= 1
        client = scenario.clients.bigquery
        tables = [client.get_table(each) for each in client.list_tables(scenario.destination)]
        assert {each.expires for each in tables if each.table_type == "TABLE"} == {None}


@contextmanager
def in_dataset(endpoints: Endpoints, options: str) -> Iterator[Scenario]:
    """A scenario whose destination has options of its own."""
    clients = local_clients(endpoints)
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        scenario.query(f"CREATE SCHEMA {scenario.destination} OPTIONS ({options})")
        yield scenario
    clients.close()


def located(location: str, path: str) -> Edit:
    """A table or dataset that is somewhere else."""
    return Edit(method="GET", path=path, change=lambda answer: {**answer, "location": location})


def test_sources_elsewhere_are_reported_before_anything_is_made(endpoints: Endpoints) -> None:
    """A dataset of the wrong place can't be moved: none is made."""
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


def test_the_destination_is_made_where_the_sources_are(endpoints: Endpoints) -> None:
    """Without BIGQUERY_LOCATION, the dataset and every job are in the sources' location."""
    with HttpProxy(endpoints.rest) as proxy:
        clients = local_clients(dataclasses.replace(endpoints, rest=proxy.address))
        with Scenario(clients=clients) as scenario:
            proxy.edits = [located("europe-west4", r"/datasets/\w+/tables/(events|users|sessions)")]
            scenario.run()
            made = [
                each for each in proxy.heard if each.startswith("POST") and '"datasetRef' in each
            ]
            assert [each for each in made if '"location": "europe-west4"' in each]
            jobs = [each for each in proxy.heard if each.startswith("POST") and JOB in each]
            assert len(jobs) > 10
            assert [each for each in jobs if "europe-west4" not in each] == []
        clients.close()


def test_without_any_source_nothing_is_made(endpoints: Endpoints) -> None:
    """A misspelt dataset must not leave a destination in the wrong place."""
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
    """What BigQuery says of the past of a table with a row access policy, and of that alone."""
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
    """Days with the streaming buffer, once for each tier of storage."""
    if not answer.get("rows"):
        return answer
    others = [{"v": None}] * (len(answer["rows"][0]["f"]) - 2)
    buffer = {"f": [{"v": "__UNPARTITIONED__"}, {"v": "2"}, *others]}
    rows = [*answer["rows"], buffer, buffer]
    return {**answer, "rows": rows, "totalRows": str(len(rows))}


@dataclass(frozen=True, slots=True, kw_only=True)
class OddLoad:
    """What a full load left in a cloud that is odd in several ways, none of which concerns others.

    Its statements may change one partition each, and its batches are too few and too large.
    """

    warnings: tuple[str, ...]
    next_warnings: tuple[str, ...]
    differences: list[str]
    buffered: list[Row]


@pytest.fixture(scope="module")
def odd_load(cloud: Cloud) -> OddLoad:
    """Partitions that expire, a streaming buffer, row access policies, and the limits above."""
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
    return OddLoad(
        warnings=warnings, next_warnings=next_warnings, differences=found, buffered=buffered
    )


def test_partitions_that_expire_at_once_are_reported(odd_load: OddLoad) -> None:
    """A full load that reports success may lose its oldest days within minutes."""
    (warning,) = [each for each in odd_load.warnings if "keeps its partitions for 30 days" in each]
    assert warning.endswith("SET OPTIONS (partition_expiration_days = NULL).")
    assert not [each for each in odd_load.next_warnings if "partitions" in each]


def test_a_row_access_policy_is_named_and_the_table_read_as_it_is(
    cloud: Cloud, odd_load: OddLoad
) -> None:
    """Only administrators may read the past of such a table, and anybody its present."""
    told = [each for each in odd_load.warnings if "row access policy" in each]
    assert len(told) == 4  # one for each table
    assert "rows may be hidden from this account" in told[0]
    assert odd_load.differences == []
    settings = cloud.scenario.make_settings()
    warehouse = Warehouse(clients=cloud.scenario.clients, settings=settings, run_id="no_run")
    with cloud.answering(denied("Time travel on table events is forbidden as it has policies.")):
        probes = probe_all(warehouse.settings, lambda: nullcontext(warehouse))
    assert [each.problem for each in probes if each.problem] == []
    assert len([each for each in probes if "row access policy" in " ".join(each.warnings)]) == 4


def test_columns_that_may_be_masked_are_named(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masked phones match nobody, with success: the report and /ready name them.

    Where no user at all has a session, it says that, too.
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
    (told,) = [each for each in report.warnings if "policy tag" in each]
    assert "has a policy tag on phoneNumber: values may be masked" in told
    (told,) = [each for each in report.warnings if "No user matches" in each]
    assert f"any of the 1 users of local.{scenario.datasets.firebase}.users" in told


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


def test_a_publication_in_pieces_is_one_publication(odd_load: OddLoad) -> None:
    """A full load over more days than a statement may change publishes the same rows."""
    assert odd_load.differences == []


def test_batches_stay_below_the_quota_of_load_jobs() -> None:
    """At most 1,000, however many events and however small MAX_BATCH_EVENTS, with a warning."""
    assert batch_count(1_500_000_000, max_batch_events=1_000_000) == 1000
    assert batch_count(1_000_000, max_batch_events=1) == 1000
    assert batch_count(999_000_001, max_batch_events=1_000_000) == 1000
    assert batch_count(0, max_batch_events=1) == 1
    assert large_batch_warning(1_000_000_000, max_batch_events=1_000_000) is None
    told = large_batch_warning(1_500_000_000, max_batch_events=1_000_000)
    assert told is not None
    assert "1,000 batches of about 1,500,000, more than MAX_BATCH_EVENTS (1,000,000)" in told


def test_a_run_in_batches_that_are_too_large_says_so(odd_load: OddLoad) -> None:
    """It goes on, since it may well have the memory; who watches it knows why it had not."""
    assert len([each for each in odd_load.warnings if "were cut into 2 batches" in each]) == 1
    assert odd_load.differences == []


@pytest.mark.parametrize("is_younger", [True, False])
def test_a_source_that_is_made_anew_meanwhile_is_no_bug(cloud: Cloud, *, is_younger: bool) -> None:
    """It has no past at the run's moment: BigQuery rejects the statement, and later it will not."""

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "creationTime": "4102444800000"} if is_younger else answer  # 2100

    users = Edit(
        method="GET", path=rf"{cloud.scenario.datasets.firebase}/tables/users", change=change
    )
    rejected = Fault(
        kind="job failed", method="POST", path=JOBS, body="user_keys", reason="invalidQuery"
    )
    error = UnavailableError if is_younger else StatementError
    told = "users was made anew at" if is_younger else "invalidQuery"
    with cloud.answering(users), cloud.proxy.faulty(rejected), pytest.raises(error, match=told):
        cloud.scenario.run()


def test_partitions_in_two_rows_are_added(odd_load: OddLoad) -> None:
    """Rows of the streaming buffer may be listed once for each tier of storage."""
    assert odd_load.buffered == [{"row_count": 4}]


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


def test_a_statement_that_failed_is_paid_all_the_same(cloud: Cloud) -> None:
    """BigQuery may bill what fails midway: a failed run shows what it cost."""

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

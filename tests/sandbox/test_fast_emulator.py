"""The emulator of the tests is the sandbox's, only cheaper: what it answers is the same."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import GoogleAPICallError
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from bigquery.clients import local_clients
from sandbox import emulator
from sandbox.server import FAST
from tests import histories, snapshots
from tests.scenario import BOOKKEEPING, Row, Scenario
from tests.sessions.test_firebase_shapes import CHANGELOGS
from tests.sessions.test_googlesql import (
    EXCLUSIONS,
    listening_to,
    read,
    run_in_every_way,
    sql_functions,
)
from tests.sessions.test_source_shapes import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud import bigquery

    from bigquery.clients import Clients

_RUN_ID = re.compile(r"\d{8}T\d{6}_[0-9a-f]{8}")
_ABOUT_NOW = timedelta(hours=1)
# Seconds and bytes, when a table was made, and what its storage knows of changes.
_OF_ITS_OWN = {"report", "sessions_created_at", "stamp"}


@contextmanager
def clients_of(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """The clients of an emulator of that kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FAST, "1" if kind == "fast" else "0")
        with (
            emulator.attach(tmp_path_factory.mktemp(kind)) as endpoints,
            closing(local_clients(endpoints)) as found,
        ):
            yield found


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A fast emulator, whatever the other tests run on."""
    with clients_of("fast", tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A plain emulator, likewise."""
    with clients_of("plain", tmp_path_factory) as found:
        yield found


def reported(value: object) -> object:
    """A cell without what differs from run to run."""
    if isinstance(value, str):
        return _RUN_ID.sub("RUN", value)
    if isinstance(value, datetime) and value.tzinfo:
        return "now" if abs(datetime.now(UTC) - value) < _ABOUT_NOW else value
    if isinstance(value, dict):
        return {name: reported(each) for name, each in value.items() if name not in _OF_ITS_OWN}
    return [reported(each) for each in value] if isinstance(value, list) else value


def outcome(client: bigquery.Client, job: Any) -> str:  # noqa: ANN401 - of any type
    """What a job tells its client."""
    if job.error_result:
        return f"{job.job_type}: {job.error_result['reason']}"
    if job.job_type != "query" or job.statement_type != "SELECT":
        return f"{job.job_type}: {getattr(job, 'num_dml_affected_rows', None)}"
    found: Any = client.get_job(job.job_id).result()
    columns = [(each.name, each.field_type, each.mode) for each in found.schema]
    return f"{columns}: {sorted(repr(reported(dict(row.items()))) for row in found)}"


def outcomes(client: bigquery.Client) -> dict[str, list[str]]:
    """What every job of the runs tells, by step."""
    found = defaultdict(list)
    for job in client.list_jobs():
        if "step" in job.labels:
            found[job.labels["step"]].append(outcome(client, job))
    found["lease"] = list(set(found["lease"]))  # a slow run renews it more often
    return {step: sorted(jobs) for step, jobs in found.items()}


def published(scenario: Scenario) -> dict[str, list[str]]:
    """The rows of every table for readers, bookkeeping left out."""
    names = ("sessions", "quarantined_sessions", "identities", "persons", "daily_activity")
    tables = {name: scenario.query(f"SELECT * FROM {{d}}.{name}") for name in names}
    return {
        name: sorted(repr({k: v for k, v in row.items() if k not in BOOKKEEPING}) for row in rows)
        for name, rows in tables.items()
    }


def unlike(fast: dict[str, list[str]], plain: dict[str, list[str]]) -> list[str]:
    """What only one of the two has, or has more often."""
    of_fast, of_plain = (
        Counter(f"{name}: {each}" for name, of in found.items() for each in of)
        for found in (fast, plain)
    )
    only = {"fast": of_fast - of_plain, "plain": of_plain - of_fast}
    return [
        f"{kind} alone, {n} times: {each}" for kind, of in only.items() for each, n in of.items()
    ]


def read_other_shapes(scenario: Scenario) -> None:
    """Some of one day, in a view and in the tables of Firebase's extension."""
    day = histories.FIRST_DAY.date() + timedelta(days=2)
    users, documents = CHANGELOGS["data as STRING"]
    scenario.replace("posthog_events", EVENTS["a view"])
    scenario.replace("firebase_users", users)
    scenario.replace("firebase_events", documents)
    read(scenario, start_date=day, end_date=day, force=True)


@settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    st.lists(histories.events(), min_size=60, max_size=90),
    st.lists(histories.users(), min_size=3, max_size=10),
    st.lists(histories.documents(), min_size=3, max_size=14),
    st.lists(histories.posthog_sessions(), min_size=1, max_size=5),
)
def test_a_random_history_is_the_same_on_both(
    fast: Clients,
    plain: Clients,
    events: list[Row],
    users: list[Row],
    documents: list[Row],
    channels: list[Row],
) -> None:
    """Every job of runs that send every statement tells the same, and the tables are the same."""
    # Hypothesis tries the dullest history first.
    assume(len({(row["distinct_id"], row["event"]) for row in events}) > len(events) / 2)
    seen = []
    for clients in (fast, plain):
        scenario = Scenario(
            clients=clients, properties="json", settings=EXCLUSIONS, prefix="history"
        )
        with scenario, listening_to(sql_functions()) as called:
            scenario.arrive("posthog_events", events[5:])
            scenario.arrive("firebase_users", users)
            scenario.arrive("firebase_events", documents)
            scenario.arrive("posthog_sessions", channels)
            run_in_every_way(scenario, histories.FIRST_DAY + timedelta(days=30), events[:5])
            rows = published(scenario)
            read_other_shapes(scenario)
            seen.append((outcomes(clients.bigquery), rows, called))
    (jobs, rows, called), (plain_jobs, plain_rows, plain_called) = seen
    assert called == plain_called
    assert unlike(jobs, plain_jobs) == []
    assert unlike(rows, plain_rows) == []
    with listening_to(sql_functions()) as in_snapshots:
        snapshots.statements()
    assert sorted(in_snapshots - called) == []


# What is the same for every dataset and day but for what the tables hold, or that they are there.
STATEMENTS = [
    "SELECT CAST(v AS STRING) AS v, TO_JSON_STRING(t) AS t FROM `local`.`{d}`.`t` AS t",
    "SELECT '`local`.`{d}`.`t`' AS text, DATE '{day}' AS day, COUNT(*) AS n FROM `local`.`{d}`.`t`",
    "SELECT TIMESTAMP '{day} 00:00:00+00' AS at, v FROM `local`.`{d}`.`t`",
    "SELECT CAST(`t`.`r`.`v` AS STRING) AS v FROM `local`.`{d}`.`t` AS t",
    "SELECT n, missing FROM `local`.`{d}`.`t`",
    """CREATE OR REPLACE TABLE `local`.`{d}`.`made_20261001T000000_0000000{n}` AS
    SELECT v, DATE '{day}' AS day FROM `local`.`{d}`.`t`""",
    "SELECT * FROM `local`.`{d}`.`made_20261001T000000_0000000{n}`",
    "UPDATE `local`.`{d}`.`t` SET v = v WHERE DATE '{day}' < DATE '2026-10-03'",
]
TYPES = {"one": "1.0", "two": "b'bytes'"}


def answered(client: bigquery.Client, sql: str) -> str:
    """The rows or the error."""
    try:
        found = client.query(sql).result()
        return f"{found.num_dml_affected_rows} {[dict(row.items()) for row in found]}"
    except GoogleAPICallError as error:
        return f"{error.code} {error.errors}"


def test_a_remembered_translation_holds_for_its_own_kind_alone(
    fast: Clients, plain: Clients
) -> None:
    """Tables of other types, missing ones, and days that are none get the answers they should."""
    seen: list[list[str]] = []
    for clients in (fast, plain):
        client = clients.bigquery
        answers = []
        for dataset, value in TYPES.items():
            client.create_dataset(dataset)
            for number, day in enumerate(("2026-10-02", "2026-10-05", "2026-02-30")):
                statements = [each.format(d=dataset, day=day, n=number) for each in STATEMENTS]
                answers += [answered(client, sql) for sql in statements]
                made = f"SELECT {value} AS v, STRUCT({value} AS v) AS r"
                client.query(f"CREATE OR REPLACE TABLE {dataset}.t AS {made}").result()
                answers += [answered(client, sql) for sql in statements]
            client.delete_dataset(dataset, delete_contents=True)
        seen.append(answers)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 20  # or it says little

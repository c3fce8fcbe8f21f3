"""docs/operations.md: its SQL runs on the tables of runs, its log filters on their log lines."""

from __future__ import annotations

import io
import json
import logging
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import GoogleAPICallError

from runs.errors import SourceMissingError
from runs.log import LOG, configure_logging
from tests.deploy.test_terraform import MODULE, blocks, with_locals
from tests.googlesql import ListeningClient
from tests.paths import ROOT
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from sandbox.emulator import Endpoints

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
NOW = datetime.now(UTC)
YESTERDAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(hours=12)
LONG_AGO = NOW - timedelta(days=40)
PERSON = "uid-of-the-person"
_SQL = r"^```sql\n(.*?)^```"
IDS = (PERSON, "+15550100", "anonymous-id-of-the-person")


def statements(heading: str) -> list[str]:
    """The statements under a heading, which may be of any level."""
    level = re.search(rf"^(#+) {re.escape(heading)}$", PAGE, re.MULTILINE)
    assert level, heading
    rest = PAGE[level.end() :]
    end = re.search(rf"^#{{1,{len(level[1])}}} ", rest, re.MULTILINE)
    return re.findall(_SQL, rest[: end.start() if end else None], re.MULTILINE | re.DOTALL)


def localize(scenario: Scenario, sql: str) -> str:
    """A statement of the page with the names of a scenario's datasets."""
    datasets = {
        "posthog_aggregated": scenario.destination,
        "posthog_etl": scenario.datasets.posthog,
        "firebase_etl_prod": scenario.datasets.firebase,
    }
    named = re.compile(rf"\b({'|'.join(datasets)})\.")
    return named.sub(lambda found: f"local.{datasets[found[1]]}.", sql)


def query(scenario: Scenario, sql: str) -> list[dict[str, Any]]:
    """Run a statement of the page; its rows."""
    return scenario.query(localize(scenario, sql))


PEOPLE = [
    event("s0", YESTERDAY, distinct_id=IDS[0]),
    event("s0", YESTERDAY + timedelta(seconds=9), distinct_id=IDS[2]),
    event("s1", YESTERDAY, distinct_id=IDS[1]),
    event("other", YESTERDAY, distinct_id="somebody-else"),
    event("old", LONG_AGO, distinct_id="somebody-else"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """A scenario after one run, with a client that records the statements sent."""

    scenario: Scenario
    client: ListeningClient


@pytest.fixture(scope="module")
def recorder(endpoints: Endpoints, clients: Clients) -> Iterator[Recorder]:
    """A person with three ids, somebody else, and an old session; all tests share it."""
    client = ListeningClient(endpoints)
    with Scenario(clients=replace(clients, bigquery=client)) as scenario:
        scenario.arrive("posthog_events", PEOPLE)
        scenario.arrive("firebase_users", [{"user_id": PERSON, "phoneNumber": IDS[1]}])
        scenario.run()
        yield Recorder(scenario=scenario, client=client)
    client.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def scenario(recorder: Recorder) -> Scenario:
    """The scenario of the recorder."""
    return recorder.scenario


def billed(sql: str) -> list[str]:
    """The statements of a script that are billed."""
    free = ("BEGIN", "COMMIT", "ASSERT")
    return [part for part in sql.split(";\n") if part.strip() and not part.startswith(free)]


def test_missing_days_have_changed_since_the_last_run(recorder: Recorder) -> None:
    """The query names a day whose rows have changed since the last run, and no other.

    The run that reads it sends about as many statements as the page counts for the cost.
    """
    missing, _ = statements("Missing days")
    assert query(recorder.scenario, missing) == []
    recorder.scenario.arrive("posthog_events", [event("late", LONG_AGO)])
    assert query(recorder.scenario, missing) == [
        {"day": LONG_AGO.date(), "rows_seen": 1, "rows_there": 2}
    ]
    before = len(recorder.client.sent)
    recorder.scenario.run()
    sent = [part for each in recorder.client.sent[before:] for part in billed(each.sql)]
    assert query(recorder.scenario, missing) == []
    counted = re.search(r"^\| statements per run \| (\d+) ", PAGE, re.MULTILINE)
    assert counted
    assert abs(len(sent) - int(counted[1])) <= 4


def test_a_day_without_sessions_is_reported(scenario: Scenario) -> None:
    """It names a day with less than half of its neighbours' sessions, and no ordinary day."""
    days = [NOW - timedelta(days=number) for number in range(1, 12)]
    gap = days[5]
    scenario.arrive("posthog_events", [event(f"on {day}", day) for day in days if day != gap])
    scenario.run()
    _, quiet = statements("Missing days")
    named = [row["day"] for row in query(scenario, quiet)]
    assert gap.date() in named
    assert not {day.date() for day in days[1:] if day != gap} & set(named)


def test_the_check_counts_impossible_rows(scenario: Scenario) -> None:
    """Each count is 0 after a run, and not 0 once a row is wrong in that way."""
    check = statements("The latest load")[1]
    (row,) = query(scenario, check)
    assert set(row.values()) == {0}
    scenario.query("""INSERT INTO {d}.sessions
(session_id, session_date, started_at, ended_at, event_count, _metrics_version)
SELECT session_id, DATE '2026-01-01', started_at, TIMESTAMP_SUB(started_at, INTERVAL 1 HOUR), 0, 'x'
FROM {d}.sessions
WHERE session_id = 'other'
UNION ALL
SELECT NULL, session_date, started_at, ended_at, 0, 'x'
FROM {d}.sessions
WHERE session_id = 'other'""")
    (row,) = query(scenario, check)
    scenario.query("DELETE FROM {d}.sessions WHERE _metrics_version = 'x'")
    assert 0 not in row.values(), row


def test_a_missing_run_fails_the_scheduled_query(scenario: Scenario) -> None:
    """It succeeds after a good run; without one it fails, so that BigQuery sends a mail."""
    (alert,) = statements("Alerts")
    assert query(scenario, alert) == [{"verdict": "fine"}]
    scenario.query("UPDATE {d}.etl_runs SET status = 'failed' WHERE TRUE")
    with pytest.raises(GoogleAPICallError, match="no good run for 26 hours"):
        query(scenario, alert)
    scenario.query("UPDATE {d}.etl_runs SET status = 'succeeded' WHERE TRUE")


def test_the_steps_delete_a_persons_data(scenario: Scenario) -> None:
    """They find a person's ids, and after the next run only that person's data is gone.

    And, as the page warns, the sessions of a day that the source no longer has.
    """
    find, *deletions, count_left = statements("Deleting a person's data")
    before = scenario.sessions().keys()
    assert {row["id"] for row in query(scenario, find)} == set(IDS)
    assert query(scenario, count_left) == [{"sessions_left": 2}]
    for sql in deletions:
        query(scenario, sql)
    scenario.vanish("posthog_events", "uuid", event("old", LONG_AGO)["uuid"])
    scenario.run(force=True)  # one of few users: the shrunken table is meant to be so
    assert query(scenario, count_left) == [{"sessions_left": 0}]
    assert scenario.sessions().keys() == before - {"s0", "s1", "old"}


def test_every_statement_runs(scenario: Scenario) -> None:
    """BigQuery's emulator accepts each statement of the page, in order, on a run's tables."""
    found = re.findall(_SQL, PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) > 15
    for sql in found:
        query(scenario, sql)


def test_the_cost_adds_up() -> None:
    """Each figure of the table follows from the formulas and assumptions beside it."""
    rows = re.findall(r"^\| ([\d,]+000,000) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for millions, cells in rows:
        events = float(millions.replace(",", ""))
        reported = [float(cell.replace(",", "")) for cell in cells.split(" | ")]
        rows_gb = events * 3 * (3000 + 1000) / 1e9
        least_gb = 30 * 32 * 3 * 10 * 2**20 / 1e9
        sessions_gb = events / 40 * 24 * 500 * 3 * 30 / 1e9
        bigquery = (rows_gb + least_gb + sessions_gb) * 1e9 / 2**40 * 6.25
        seconds = 30 * (100 + 15 * events * 3 / 30 / 1e6)
        run = seconds * (2 * 0.000024 + 2 * 0.0000025)
        expected = [rows_gb, least_gb, sessions_gb, bigquery, seconds, run, bigquery + run]
        assert reported == pytest.approx(expected, abs=0.05, rel=0.01)


# Filters, on the lines that runs have logged.


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The last line that a run logs, as Cloud Logging stores it."""

    name: str
    entry: dict[str, Any]


@pytest.fixture(scope="module")
def endings(clients: Clients) -> list[Ending]:
    """The last lines of three runs: on stale sources, a good one, and a failed one."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [event("old", LONG_AGO)])
        stale = _last_line(scenario)
        scenario.arrive("posthog_events", [event("new", NOW - timedelta(hours=2))])
        good = _last_line(scenario)
        scenario.query(f"DROP TABLE {scenario.datasets.posthog}.events")
        failed = _last_line(scenario)
    found = {"stale": stale, "good": good, "failed": failed}
    return [Ending(name=name, entry=entry) for name, entry in found.items()]


def _last_line(scenario: Scenario) -> dict[str, Any]:
    """Run, and return the last line that is logged."""
    stream = io.StringIO()
    handlers, level, propagates = LOG.handlers[:], LOG.level, LOG.propagate
    configure_logging(stream, as_json=True)
    try:
        with suppress(SourceMissingError):
            scenario.run()
    finally:
        LOG.handlers[:], LOG.propagate = handlers, propagates
        LOG.setLevel(level)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (last,) = [line for line in lines if line.get("event") == "run_finished"]
    assert last == lines[-1]
    return {
        "severity": last["severity"],
        "resource.type": "cloud_run_revision",
        "resource.labels.service_name": "posthog-etl",
        **{f"jsonPayload.{name}": value for name, value in last.items()},
    }


_SEVERITIES = [logging.getLevelName(each) for each in (10, 20, 30, 40, 50)]
_COMPARISON = re.compile(r'([\w.]+) ?(!=|>=|>|=|:) ?("[^"]*"|\w+)')


def matches(filter_: str, entry: dict[str, Any]) -> bool:
    """Whether a filter of Cloud Logging matches an entry; a missing field equals nothing."""
    text = re.sub(r"\n(?=\S)", " AND ", filter_.strip())
    known = _COMPARISON.sub(lambda found: str(_compare(entry, *found.groups())), text)
    assert not re.sub(r"True|False|AND|OR|[() ]", "", known), known
    return bool(eval(known.replace("AND", "and").replace("OR", "or")))  # noqa: S307 - our own page


def _compare(entry: dict[str, Any], field: str, operator: str, text: str) -> bool:
    value, wanted = entry.get(field), json.loads(text) if text[0] == '"' else text
    if value is None:
        return False
    if field == "severity" and operator == ">=":
        return _SEVERITIES.index(value) >= _SEVERITIES.index(wanted)
    if operator == ">":
        return float(value) > float(wanted)
    if operator == ":":
        return str(wanted).lower() in str(value).lower()
    reported = json.dumps(value) if isinstance(value, bool) else str(value)
    return (reported == wanted) == (operator == "=")


@cache
def alerts() -> dict[str, str]:
    """The filters of Terraform's alerts."""
    found = next(each["alerts"] for _, each in blocks(MODULE, "locals") if "alerts" in each)
    return {
        name: with_locals(alert["filter"])
        for name, alert in found.items()
        if not name.startswith("__")
    }


def documented_filter(alert: str) -> str:
    """The filter of an alert in the page's table."""
    row = re.search(rf"^\| {alert} \| `(.*?)` \|", PAGE, re.MULTILINE)
    assert row, alert
    return row[1]


@pytest.mark.parametrize("name", ["failed", "stale"])
def test_an_alert_matches_only_its_run(name: str, endings: list[Ending]) -> None:
    """Terraform's filter and the page's match the last line of that run, and of no other."""
    page = {"failed": "a run failed", "stale": "the sources are stale"}[name]
    for filter_ in (alerts()[name], documented_filter(page)):
        assert [each.name for each in endings if matches(filter_, each.entry)] == [name]


def test_an_alert_matches_only_our_service_and_job(endings: list[Ending]) -> None:
    """The same line from another service raises no alert."""
    for ending in endings:
        other = ending.entry | {"resource.labels.service_name": "another"}
        assert not any(matches(filter_, other) for filter_ in alerts().values())
        of_job = other | {
            "resource.type": "cloud_run_job",
            "resource.labels.job_name": "posthog-etl-job",
        }
        raised = {name for name, filter_ in alerts().items() if matches(filter_, of_job)}
        assert raised == ({ending.name} - {"good"})


def test_the_undelivered_alert_matches_failed_attempts_of_the_schedule() -> None:
    """A successful attempt does not raise it, nor does another schedule."""
    attempt = {
        "severity": "ERROR",
        "resource.type": "cloud_scheduler_job",
        "resource.labels.job_id": "posthog-etl-trigger",
    }
    page = documented_filter("a run was not delivered, or ended without an answer")
    for filter_ in (alerts()["undelivered"], page):
        assert matches(filter_, attempt)
        assert not matches(filter_, attempt | {"severity": "INFO"})
        assert not matches(filter_, attempt | {"resource.labels.job_id": "another"})


def test_alert_mails_use_fields_of_the_line(endings: list[Ending]) -> None:
    """The line has all fields that alerts extract, and every label in a text is extracted."""
    code = (MODULE / "alerts.tf").read_text("utf-8")
    extracted = re.findall(r'(\w+)\s+= "EXTRACT\((jsonPayload\.\w+)\)"', code)
    assert extracted
    for ending in endings:
        assert {field for _, field in extracted} <= ending.entry.keys()
    used = re.findall(r"extracted_label\.(\w+)\}", code)
    assert set(used) == {label for label, _ in extracted}


def test_log_queries_find_the_runs_that_they_name(endings: list[Ending]) -> None:
    """Each query about runs uses only fields that the lines have, and finds the right runs."""
    text = PAGE.partition("\n## Logs\n")[2].partition("\n## ")[0]
    queries = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ours = [query for query in queries if "jsonPayload" in query]
    assert len(ours) > 5
    for query in ours:
        for field in re.findall(r"jsonPayload\.\w+", query):
            assert all(field in ending.entry for ending in endings), field
    found = [[each.name for each in endings if matches(query, each.entry)] for query in ours]
    assert found[:4] == [["stale", "good", "failed"], ["failed"], ["stale"], ["stale"]]
    named = set(re.findall(r"`([a-z_]+)`", text.partition("Logs Explorer")[0]))
    fields = {field.removeprefix("jsonPayload.") for field in endings[0].entry}
    assert {"run_id", "event", "status", "error", "is_stale"} <= named - {"run_finished"} <= fields

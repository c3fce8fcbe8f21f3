"""The statements of a full load, executed by Google's reference implementation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pytest

from oracle.rows import ties
from oracle.sessions import expected_sessions
from process_persons import daily_activity_sql, identities_sql, persons_sql
from process_sessions import process_sessions
from sessions import audit, enrichment, plan, projection, splitting
from sessions.bigquery_engine import aggregate_sql, pick_sql
from sessions.data_dictionary import NEVER, null_rules
from sessions.freshness import newest_loaded_sql
from sessions.metric_types import Aggregation, Metric, MetricTable
from sessions.projection import downloaded_columns
from tests import snapshots
from tests.case_files import Cases, load_cases
from tests.googlesql import Evaluator
from tests.paths import ROOT
from tests.persons_oracle import Derived, daily_key, expected_derived, person_key
from tests.scenario import (
    BOOKKEEPING,
    Row,
    derived_differences,
    differences,
    without_digests,
)
from tests.shipped import METRIC_TABLE
from tests.test_process_sessions import event as event_of
from tests.test_process_sessions import frame

if TYPE_CHECKING:
    import pandas as pd


NOW = datetime(2026, 9, 25, 12, tzinfo=UTC)  # some cases are new by then, and some in the future
RUN: dict[str, tuple[str, object]] = {
    "now": ("TIMESTAMP", NOW),
    "today": ("DATE", NOW.date()),
    "run_id": ("STRING", "run"),
    "metrics_version": ("STRING", "version"),
}
FULL_LOAD = plan.Plan(kind="full_load", reason=None, days=(), counts={})


@pytest.fixture(scope="module")
def cases() -> Cases:
    """Every case folder, and a document on a day without a session."""
    found = load_cases(ROOT / "tests" / "cases")
    document = {"document_id": "alone", "user_id": "chk-u", "createdAt": "2026-10-20T12:00:00Z"}
    return replace(found, documents=[*found.documents, document])


@pytest.fixture(scope="module")
def google(cases: Cases) -> Evaluator:
    """The statements of a full load of all cases, executed by ZetaSQL in the order of a run."""
    evaluator = Evaluator()
    arrived = {
        "posthog_etl.events": cases.events,
        "posthog_etl.sessions": cases.posthog_sessions,
        "firebase_etl_prod.users": cases.users,
        "firebase_etl_prod.events": cases.documents,
    }
    for table, each in arrived.items():
        evaluator.put(f"my-project.{table}", snapshots.COLUMNS[table], each)
    tables = snapshots.source_tables(is_table=False)  # the evaluator has no time travel
    s = snapshots.STAGING
    evaluator.make(s.user_keys, enrichment.user_keys_sql(METRIC_TABLE, tables.users))
    evaluator.make(s.documents, enrichment.documents_sql(METRIC_TABLE, tables.documents))
    evaluator.make(s.channels, enrichment.channels_sql(METRIC_TABLE, tables.posthog_sessions))
    evaluator.make(s.projected, projection.project_sql(METRIC_TABLE, tables.events, "TRUE"))
    stored = {"sessions": "sessions", "quarantined": "quarantined_sessions"}
    touched = plan.touched_sql(METRIC_TABLE, FULL_LOAD, projected=s.projected, **stored)
    evaluator.make(s.touched, touched)
    ids = splitting.split_sql(METRIC_TABLE, projected=s.projected, touched=s.touched)
    evaluator.make(s.split, ids)
    # A run marks split rows by an UPDATE, which is no SELECT: project again, as later runs do.
    project = projection.project_sql(METRIC_TABLE, tables.events, "TRUE", split_ids=s.split)
    evaluator.make(s.projected, project)
    evaluator.make(s.touched, touched)
    planned = plan.planned_sql(METRIC_TABLE, projected=s.projected, touched=s.touched, batches=1)
    evaluator.make(s.planned, planned)
    evaluator.make(
        s.batches, projection.batches_sql(METRIC_TABLE, projected=s.projected, planned=s.planned)
    )
    evaluator.make(s.aggregated, aggregate_sql(METRIC_TABLE, s.batches))
    rows = {"aggregated": s.aggregated, "planned": s.planned}
    evaluator.make(
        s.staged, enrichment.new_rows_sql(METRIC_TABLE, **rows, **snapshots.SMALL), **RUN
    )
    evaluator.make("sessions", f"SELECT * FROM {s.staged}")
    evaluator.make(s.outdated, enrichment.none_outdated_sql(METRIC_TABLE, sessions="sessions"))
    keys = {"sessions": "sessions", "user_keys": s.user_keys}
    evaluator.make("ties", projection.ties_sql(s.projected, "TRUE"))
    identities = identities_sql(METRIC_TABLE, ties="ties", user_keys=s.user_keys)
    evaluator.make("identities", identities, **RUN)
    persons = persons_sql(
        METRIC_TABLE, **keys, identities="identities", documents=s.documents, churn_days=14
    )
    evaluator.make("persons", persons, **RUN)
    evaluator.make("daily_activity", daily_activity_sql(METRIC_TABLE, **snapshots.DERIVED))
    return evaluator


def by_id(rows: list[Row]) -> dict[str, Row]:
    """Rows of `sessions`, by id, bookkeeping left out."""
    return {
        row["session_id"]: {name: row[name] for name in row if name not in BOOKKEEPING}
        for row in rows
    }


def test_google_and_the_oracle_make_the_same_sessions(google: Evaluator, cases: Cases) -> None:
    """From raw rows with malformed JSON to the last derived column, cell by cell, in all cases."""
    rows = google.select("SELECT * FROM sessions")
    expected = expected_sessions(
        METRIC_TABLE, cases.events, cases.users, cases.documents, cases.posthog_sessions
    )
    assert len(rows) == len(expected) > 150
    assert differences(without_digests(by_id(rows)), expected) == []


def as_rows(frame: pd.DataFrame) -> dict[str, Row]:
    """A frame's rows by the session's number, as the client would return them."""
    rows = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    return {str(row["session_no"]): row for row in rows}


def compare_engines(
    google: Evaluator, batches: str, metric_table: MetricTable
) -> tuple[int, list[str]]:
    """How many sessions Google makes of the batches, and each cell in which pandas differs."""
    sql = aggregate_sql(metric_table, batches).replace("s.batch, s.session_no", "s.session_no")
    rows = {str(row["session_no"]): row for row in google.select(sql)}
    columns = ", ".join(downloaded_columns(metric_table))
    events = google.select(f"SELECT {columns} FROM {batches}")
    return len(rows), differences(rows, as_rows(process_sessions(frame(events), metric_table)))


def test_google_and_pandas_aggregate_all_cases_alike(google: Evaluator) -> None:
    """The statement of the BigQuery engine, over the same rows that the other engine downloads."""
    count, found = compare_engines(google, snapshots.STAGING.batches, METRIC_TABLE)
    assert count > 150
    assert found == []


# What no case has: values that are empty, extreme or of another script; a list whose order by bytes
# differs from that by letters; views without any value; a quiz that finishes before it starts.
UNUSUAL_EVENTS = [
    event_of(0, 1, "", distinct_id="", screen_name=""),
    event_of(0, 2, "\u00e9", distinct_id="b", touch_y=-0.0, touch_reach=0.0),
    event_of(0, 3, "Z", distinct_id="\U0001f600", touch_y=1e308),
    event_of(0, 4, "a", distinct_id="b", screen_name="\u0130"),
    event_of(1, 1, "finish_quiz", screen_name="only here"),
    event_of(1, 2, "start_quiz"),
    event_of(1, 3, "$pageview"),
    event_of(2, 1, "Enable\u017fContact\u212a"),
    event_of(2, 2, "ENABLE CONTACTS", lib="'quoted\\'"),
    event_of(3, 1, "start_quiz"),
    event_of(3, 2, "start_quiz"),
    event_of(3, 3, "finish_quiz"),
    event_of(3, 4, "$identify", anonymous_id="b", distinct_id="a"),
    event_of(3, 5, "$identify", anonymous_id="a", distinct_id="b"),
    event_of(3, 6, "$identify", anonymous_id="b", distinct_id="a"),
    event_of(3, 7, "$identify", anonymous_id="c"),
]
UNUSED = [
    Metric(name=name, aggregation=kind, type="FLOAT64", value="touch_y", description="")
    for name, kind in (("total", Aggregation.SUM), ("least", Aggregation.MIN))
]
METRICS_OF_ALL_KINDS = replace(METRIC_TABLE, columns=(*METRIC_TABLE.metrics, *UNUSED))


def test_google_and_pandas_aggregate_unusual_events_alike(google: Evaluator) -> None:
    """Aggregations that no declared metric uses are among them."""
    types = dict.fromkeys(downloaded_columns(METRIC_TABLE), "STRING") | {
        **dict.fromkeys(("batch", "session_no", "event_no"), "INT64"),
        **{
            item.name: "FLOAT64"
            for item in METRIC_TABLE.properties
            if item.kind in {"number", "fraction"}
        },
        "event_at": "TIMESTAMP",
    }
    rows = [
        row | {"batch": 0, "event_at": datetime.fromtimestamp(row["event_at"] / 1e6, UTC)}
        for row in UNUSUAL_EVENTS
    ]
    google.put("unusual", types, rows)
    assert compare_engines(google, "unusual", METRICS_OF_ALL_KINDS) == (4, [])


@pytest.mark.parametrize("best", ["MIN", "MAX"])
@pytest.mark.parametrize("known", ["b", None])
def test_a_value_is_picked_only_from_rows_that_count_and_have_one(
    google: Evaluator, best: Literal["MIN", "MAX"], known: str | None
) -> None:
    """Other rows are skipped; the value is null if none is left."""
    google.put(
        "uses",
        {"value": "STRING", "position": "INT64", "counts": "BOOL"},
        [
            {"value": value, "position": position, "counts": counts}
            for position, (value, counts) in enumerate(
                [("a", False), (None, True), (known, True), (None, True), ("c", False)]
            )
        ],
    )
    picked = pick_sql("value", best, by="position", among=["counts"])
    assert google.select(f"SELECT {picked} AS picked FROM uses") == [{"picked": known}]


def test_the_audit_accepts_the_tables_that_google_makes(google: Evaluator) -> None:
    """Google counts everything again, and no rule of the audit is broken."""
    newest = newest_loaded_sql(sessions=None, projected="staging_projected", touched=None)
    now = ("TIMESTAMP", datetime.now(UTC))
    (row,) = google.select(audit.audit_sql(snapshots.STAGING, newest), now=now)
    figures = audit.AuditFigures(**row)
    assert figures.touched > 150
    assert figures.duplicate_rows > 0
    audit.check_audit(figures, FULL_LOAD, {}, [])


def test_google_and_the_oracle_derive_the_same_persons(google: Evaluator, cases: Cases) -> None:
    """Identities, persons and daily activity, from the sessions that Google made."""
    found = Derived(
        identities={
            row["anonymous_id"]: row["user_id"] for row in google.select("SELECT * FROM identities")
        },
        persons={
            person_key(row): row
            for row in google.select("SELECT * EXCEPT (_loaded_at, _run_id) FROM persons")
        },
        daily_activity={
            daily_key(row): row for row in google.select("SELECT * FROM daily_activity")
        },
    )
    sessions = by_id(google.select("SELECT * FROM sessions"))
    expected = expected_derived(
        sessions,
        cases.users,
        cases.documents,
        ties=ties(METRIC_TABLE, cases.events),
        today=NOW.date(),
    )
    assert expected.identities
    assert derived_differences(found, expected) == []


def test_columns_are_null_where_the_dictionary_says(google: Evaluator) -> None:
    """In all cases together: never where it says so, and in some row otherwise."""
    for table in ("sessions", "persons", "daily_activity", "identities"):
        rows = google.select(f"SELECT * FROM {table}")
        found = {name for row in rows for name, value in row.items() if value is None}
        reported = null_rules(METRIC_TABLE, table)
        assert {name for name in found if reported[name].startswith(NEVER)} == set(), table
        assert {name for name, rule in reported.items() if not rule.startswith(NEVER)} == found, (
            table
        )

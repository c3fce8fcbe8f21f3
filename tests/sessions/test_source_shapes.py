"""The tolerant reader: other names, types and kinds of source tables make the same sessions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from bigquery.tables import TableId
from runs.errors import SourceMissingError, SourceShapeError
from sessions import sources
from tests.case_files import Cases, load_cases
from tests.paths import TESTS
from tests.scenario import Scenario, differences
from tests.sessions.test_requests_on_data import day_of_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients
    from sandbox.tables import TableName
    from tests.scenario import Row

# Each replaces a table of the canonical shape; {t} is that table under another name.
EVENTS: dict[str, str] = {
    "other names, text times and no partitions": """
        CREATE TABLE {n} AS SELECT uuid AS event_uuid, event AS event_name,
        distinct_id AS distinctId, FORMAT_TIMESTAMP('%Y-%m-%dT%H:%M:%E6SZ', `timestamp`)
          AS event_timestamp,
        CAST(bq_ingested_timestamp AS STRING) AS _inserted_at, properties FROM {t}""",
    "epoch microseconds": """
        CREATE TABLE {n} AS SELECT uuid, event, distinct_id, properties,
        CASE WHEN `timestamp` < TIMESTAMP '1971-01-01 00:00:00+00' THEN NULL
          ELSE UNIX_MICROS(`timestamp`) END AS time,
        UNIX_MICROS(bq_ingested_timestamp) AS ingested_at FROM {t}""",
    "DATETIME, partitioned by it": """
        CREATE TABLE {n} PARTITION BY DATE(`timestamp`) AS SELECT uuid, event, distinct_id,
        properties, DATETIME(`timestamp`) AS `timestamp`,
        DATETIME(bq_ingested_timestamp) AS bq_ingested_timestamp FROM {t}""",
    "a view": "CREATE VIEW {n} AS SELECT * FROM {t}",
}
OTHERS: dict[TableName, str] = {
    # Other names and epoch seconds.
    "firebase_users": """
        CREATE TABLE {n} AS SELECT user_id AS uid, phoneNumber AS phone_number,
        email AS emailAddress, UNIX_MICROS(createdAt) / 1e6 AS created_at,
        CAST(etl_loaded_at AS STRING) AS updatedAt FROM {t}""",
    # Firestore's times, and creators by path.
    "firebase_events": """
        CREATE TABLE {n} AS SELECT document_id AS eventId,
        IF(user_id = '' OR REGEXP_CONTAINS(user_id, '[/{{]'), user_id, CONCAT('users/', user_id))
          AS createdBy,
        CONCAT('{{"_seconds": ', CAST(DIV(UNIX_MICROS(createdAt), 1000000) AS STRING),
        ', "_nanoseconds": ', CAST(MOD(UNIX_MICROS(createdAt), 1000000) * 1000 AS STRING), '}}')
          AS createTime, type, etl_loaded_at FROM {t}""",
    "posthog_sessions": """
        CREATE TABLE {n} AS SELECT session_id, channel_type,
        CAST(end_timestamp AS STRING) AS max_timestamp FROM {t}""",
}


@pytest.fixture(scope="module")
def cases() -> Cases:
    """Every case folder."""
    return load_cases(TESTS / "cases")


@pytest.fixture(scope="module")
def scenario(clients: Clients, cases: Cases) -> Iterator[Scenario]:
    """All cases, arrived in tables of the canonical shape, which each test replaces."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", cases.events)
        scenario.arrive("firebase_users", cases.users)
        scenario.arrive("firebase_events", cases.documents)
        scenario.arrive("posthog_sessions", cases.posthog_sessions)
        yield scenario


@pytest.fixture
def empty_scenario(clients: Clients) -> Iterator[Scenario]:
    """Source tables without rows."""
    with Scenario(clients=clients) as scenario:
        yield scenario


@pytest.mark.parametrize("events", EVENTS)
def test_other_shapes_make_the_same_sessions(scenario: Scenario, events: str) -> None:
    """Names, types and kinds of tables change nothing in what is read."""
    scenario.replace("posthog_events", EVENTS[events])
    for table, statement in OTHERS.items():
        scenario.replace(table, statement)
    report = scenario.run(full_load=True)
    assert report.warnings == () or "hours old" in report.warnings[0]
    assert differences(scenario.sessions(), scenario.expected()) == []


def test_rows_of_a_view_rewritten_in_place_are_noticed_by_ids_names_and_times(
    clients: Clients,
) -> None:
    """A view has no stamps, so a run compares ids, names and times, but no properties.

    A run for given dates reads the properties, too.
    """
    at = datetime(2026, 10, 5, 12, tzinfo=UTC)
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", [_event("s-1", at), _event("s-2", at)])
        scenario.replace("posthog_events", EVENTS["a view"])
        scenario.run()
        kept = f"UPDATE {scenario.datasets.posthog}.kept_events SET"
        scenario.query(f"{kept} event = 'view_event' WHERE uuid = 'of s-1'")
        report = scenario.run()
        assert (report.changed_days, report.sessions["touched"]) == (1, 1)
        assert scenario.sessions()["s-1"]["events_viewed"] == 1

        properties = '{"$session_id": "s-2", "$os": "iOS"}'
        scenario.query(f"{kept} properties = '{properties}' WHERE uuid = 'of s-2'")
        assert scenario.run().kind == "nothing_new"
        assert scenario.run(start_date=at.date(), end_date=at.date()).changed_days == 1
        assert scenario.sessions()["s-2"]["os"] == "iOS"


def _event(session_id: str, at: datetime) -> Row:
    """An event of a session."""
    return {
        "uuid": f"of {session_id}",
        "event": "$screen",
        "distinct_id": "visitor",
        "timestamp": at.isoformat(),
        "bq_ingested_timestamp": at.isoformat(),
        "properties": json.dumps({"$session_id": session_id}),
    }


def test_extreme_times_and_missing_columns_do_not_end_a_run(scenario: Scenario) -> None:
    """Nanoseconds are cut to microseconds; what no TIMESTAMP can hold is null.

    Optional columns may be missing; the report names what then can't be matched.
    """
    scenario.replace(
        "firebase_events",
        """CREATE TABLE {n} AS SELECT document_id, user_id, type, etl_loaded_at,
        CASE MOD(LENGTH(document_id), 3)
          WHEN 0 THEN '{{"_seconds": 99999999999999, "_nanoseconds": 0}}'
          WHEN 1 THEN '{{"_seconds": 1, "_nanoseconds": 5000000000}}'
          ELSE '2026-10-01T00:00:00.123456789Z'
        END AS createdAt FROM {t}""",
    )
    scenario.replace("firebase_users", "CREATE TABLE {n} AS SELECT user_id, createdAt FROM {t}")
    report = scenario.run(full_load=True, force=True)  # many documents have no time any more
    assert report.firebase["documents"] > 0
    assert report.firebase["incomplete_documents"] > 0
    assert [text.rsplit(" ", 1)[-1] for text in report.warnings if "column" in text] == [
        "phone.",
        "email.",
    ]
    matches = {row["user_match"] for row in scenario.sessions().values()}
    assert matches == {"uid", None}


def test_a_missing_events_table_is_named(empty_scenario: Scenario) -> None:
    """The run fails with the table's name."""
    posthog = empty_scenario.datasets.posthog
    empty_scenario.query(f"ALTER TABLE {posthog}.events RENAME TO kept")
    try:
        with pytest.raises(SourceMissingError, match=rf"local\.{posthog}\.events"):
            empty_scenario.run()
    finally:
        empty_scenario.query(f"ALTER TABLE {posthog}.kept RENAME TO events")


def test_all_tables_except_events_are_optional(clients: Clients) -> None:
    """Without them their columns are null, and the report says what is missing."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        for table in OTHERS:
            scenario.query(f"DROP TABLE {scenario.datasets.table_id(clients.bigquery, table)}")
        report = scenario.run()
        assert [text.partition(" does not exist: ")[2] for text in report.warnings[:3]] == [
            "no session gets a channel.",
            "no session gets a user.",
            "no session gets what its user created.",
        ]
        assert differences(scenario.sessions(), scenario.expected()) == []


def test_a_table_that_disappears_ends_the_run_unless_forced(clients: Clients) -> None:
    """Replacing it by DROP and CREATE must not take the users from all sessions meanwhile."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        scenario.arrive("firebase_users", [{"user_id": "d0-person"}])
        scenario.run()
        scenario.query(f"DROP TABLE {scenario.datasets.firebase}.users")
        with pytest.raises(
            SourceMissingError, match="users is gone, in which the last run found 1"
        ):
            scenario.run()
        assert scenario.run(force=True).firebase["users"] == 0


def test_a_table_that_a_setting_names_must_exist(empty_scenario: Scenario) -> None:
    """A misspelt name must not take the users from all sessions."""
    firebase = empty_scenario.datasets.firebase
    empty_scenario.settings = {"users_table": f"{firebase}.people"}
    try:
        with pytest.raises(SourceMissingError, match=rf"local\.{firebase}\.people"):
            empty_scenario.run()
    finally:
        empty_scenario.settings = {}


def test_tables_may_have_any_name_and_dataset(clients: Clients) -> None:
    """PostHog exports to any table that is chosen, and in any dataset."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive("posthog_events", day_of_sessions(0, 2))
        scenario.arrive("firebase_users", [{"user_id": "d0-person"}])
        posthog, firebase = scenario.datasets.posthog, scenario.datasets.firebase
        for name, table in ((f"{posthog}.events", "events-2"), (f"{firebase}.users", "people")):
            scenario.query(f"CREATE TABLE `{posthog}.{table}` AS SELECT * FROM `{name}`")
            scenario.query(f"DROP TABLE `{name}`")
        scenario.settings = {
            "events_table": "events-2",
            "users_table": f"local.{posthog}.people",
        }
        report = scenario.run()
        assert report.firebase["users"] == 1
        assert differences(scenario.sessions(), scenario.expected()) == []


def test_a_missing_column_is_named_with_the_names_tried(empty_scenario: Scenario) -> None:
    """Table, logical column and every name that was looked for."""
    empty_scenario.replace(
        "posthog_events", "CREATE TABLE {n} AS SELECT * EXCEPT (`timestamp`) FROM {t}"
    )
    with pytest.raises(SourceShapeError, match="event_at: looked for timestamp, event_timestamp"):
        empty_scenario.run()
    assert empty_scenario.sessions() == {}


@pytest.mark.parametrize(
    ("table", "columns", "what"),
    [
        ("posthog_events", "event_date STRING, event_name STRING, event_params STRING", "a GA4"),
        (
            "posthog_events",
            "document_name STRING, operation STRING, data STRING, document_id STRING",
            "a raw Firestore changelog",
        ),
    ],
    ids=["GA4", "Firestore changelog"],
)
def test_a_table_of_a_foreign_shape_is_refused_by_name(
    empty_scenario: Scenario, table: TableName, columns: str, what: str
) -> None:
    """What looks like another export is never misread."""
    empty_scenario.replace(table, f"CREATE TABLE {{n}} ({columns})")
    with pytest.raises(SourceShapeError, match=f"looks like {what}"):
        empty_scenario.run()


@pytest.mark.parametrize("logical", [sources.USERS, sources.DOCUMENTS], ids=["users", "documents"])
@pytest.mark.parametrize("mark", ["operation", "_change_type", "Document_Name", "version"])
def test_any_other_history_of_changes_is_refused(
    logical: tuple[sources.LogicalColumn, ...], mark: str
) -> None:
    """Each change would count as a user or document, deleted ones too."""
    columns = ("user_id", "document_id", "createdAt", mark)
    table = TableId(project="my-project", dataset="firebase", name="users")
    shape = sources.TableShape(table=table, columns=dict.fromkeys(columns, "STRING"))
    with pytest.raises(
        SourceShapeError, match=rf"users is a history .* column {mark}: make a view"
    ):
        sources.resolve(shape, logical)

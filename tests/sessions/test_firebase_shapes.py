"""Firebase's tables as its tools write them: changelogs, and every spelling of a value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from bigquery.warehouse import Warehouse
from jobs.sessions import VERIFY
from sessions.samples import VerifyRequest
from tests.scenario import Scenario
from tests.sessions.test_requests_on_data import event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients


@pytest.fixture
def scenario(clients: Clients) -> Iterator[Scenario]:
    """A scenario in which nothing has arrived."""
    with Scenario(clients=clients) as scenario:
        yield scenario


def change_sql(document: str, day: int, operation: str, data: str) -> str:
    """One row of a changelog of the Firestore BigQuery extension, as a SELECT."""
    return (
        f"SELECT 'projects/p/databases/(default)/documents/c/{document}' AS document_name, "
        f"'{document}' AS document_id, TIMESTAMP '2026-09-0{day} 00:00:00+00' AS timestamp, "
        f"'{operation}' AS operation, {data}"
    )


def changelog_sql(present: str, old: str, none: str) -> str:
    """A changelog of `kept`, which is `present` now, and of `gone`, which has been deleted."""
    changes = [
        change_sql("kept", 2, "UPDATE", present),
        change_sql("kept", 1, "CREATE", old),
        change_sql("gone", 1, "CREATE", present),
        change_sql("gone", 2, "DELETE", none),
    ]
    return f"CREATE TABLE {{n}} AS {' UNION ALL '.join(changes)}"


USER = '{{"phoneNumber": "+15550001", "createdAt": {{"_seconds": 1788220800, "_nanoseconds": 0}}}}'
DOCUMENT = '{{"userId": "users/kept", "createdAt": {{"_seconds": 1791187200}}, "type": "checkin"}}'
CHANGELOGS = {
    "data as STRING": (
        changelog_sql(f"'{USER}' AS data", "'{{}}' AS data", "CAST(NULL AS STRING) AS data"),
        changelog_sql(f"'{DOCUMENT}' AS data", "'{{}}' AS data", "CAST(NULL AS STRING) AS data"),
    ),
    "data as JSON": (
        changelog_sql(
            f"PARSE_JSON('{USER}') AS data", "JSON '{{}}' AS data", "CAST(NULL AS JSON) AS data"
        ),
        changelog_sql(
            f"PARSE_JSON('{DOCUMENT}') AS data", "JSON '{{}}' AS data", "CAST(NULL AS JSON) AS data"
        ),
    ),
    "typed views": (
        changelog_sql(
            "'+15550001' AS phoneNumber, TIMESTAMP '2026-09-01 00:00:00+00' AS createdAt",
            "'+15550002' AS phoneNumber, TIMESTAMP '2026-09-01 00:00:00+00' AS createdAt",
            "CAST(NULL AS STRING) AS phoneNumber, CAST(NULL AS TIMESTAMP) AS createdAt",
        ),
        changelog_sql(
            "'users/kept' AS userId, TIMESTAMP '2026-10-05 08:00:00+00' AS createdAt, "
            "'checkin' AS type",
            "'users/x' AS userId, TIMESTAMP '2026-10-05 08:00:00+00' AS createdAt, 'b' AS type",
            "CAST(NULL AS STRING) AS userId, CAST(NULL AS TIMESTAMP) AS createdAt, "
            "CAST(NULL AS STRING) AS type",
        ),
    ),
}


@pytest.mark.parametrize("shape", CHANGELOGS)
def test_changelogs_of_the_firestore_extension_are_read_as_their_latest_state(
    scenario: Scenario, shape: str
) -> None:
    """Users and documents are as the last change left them; deleted ones are gone."""
    users, documents = CHANGELOGS[shape]
    scenario.replace("firebase_users", users)
    scenario.replace("firebase_events", documents)
    at = datetime(2026, 10, 5, 8, tzinfo=UTC)
    ids = {"by phone": "+1 555 0001", "by id": "kept", "deleted": "gone", "old": "+15550002"}
    scenario.arrive(
        "posthog_events", [event(name, at, distinct_id=user) for name, user in ids.items()]
    )
    report = scenario.run()
    rows = scenario.sessions()
    assert {name: rows[name]["user_id"] for name in ids} == {
        "by phone": "kept",
        "by id": "kept",
        "deleted": None,
        "old": None,
    }
    assert rows["by id"]["user_signed_up_at"] == datetime(2026, 9, 1, tzinfo=UTC)
    assert (rows["by id"]["checkins_created"], rows["by id"]["events_created"]) == (1, 0)
    assert (report.firebase["documents"], report.firebase["users"]) == (1, 1)
    warehouse = Warehouse(
        clients=scenario.clients, settings=scenario.make_settings(), run_id="verify"
    )
    verified = VERIFY(warehouse, VerifyRequest(seed="1", size=len(ids)), lambda _: None)
    assert len(verified.of("right")) == len(ids)  # a third implementation agrees


AT = datetime(2026, 10, 1, 8, 0, 0, tzinfo=UTC)  # 1790841600 seconds
LATER = AT + timedelta(microseconds=5)
SPELLINGS = {
    "Admin SDK": ('{"_seconds": 1790841600, "_nanoseconds": 5000}', LATER),
    "web SDK": ('{"seconds": 1790841600, "nanoseconds": 5000}', LATER),
    "web SDK with its type": ('{"type": "firestore/timestamp/1.0", "seconds": 1790841600}', AT),
    "protocol buffers": ('{"seconds": "1790841600", "nanos": 5000}', LATER),
    "REST": ('{"timestampValue": "2026-10-01T08:00:00.000005789Z"}', LATER),
    "Dart, Java and the web's text": ("Timestamp(seconds=1790841600, nanoseconds=5000)", LATER),
    "Dart's DateTime": ("2026-10-01 08:00:00.000005Z", LATER),
    "auth export": ("1790841600000", AT),
    "Admin SDK of auth": ("Thu, 01 Oct 2026 08:00:00 GMT", AT),
    "seconds": ("1790841600", AT),
    "microseconds": ("1790841600000000", AT),
    "a float of seconds": ("1790841600.000005", LATER),
    "Python str": ("2026-10-01 08:00:00+00:00", AT),
    "Python isoformat": ("2026-10-01T08:00:00.000005+00:00", LATER),
    "Go, with nanoseconds": ("2026-10-01T08:00:00.000005789Z", LATER),
    "an offset": ("2026-10-01T10:00:00+02:00", AT),
    "zero": ("0", None),
    "zero of the Admin SDK": ('{"_seconds": 0, "_nanoseconds": 0}', None),
    "1970 as text": ("1970-01-01T00:00:00Z", None),
    "1970 of auth": ("Thu, 01 Jan 1970 00:00:00 GMT", None),
    "zero of Go": ("0001-01-01T00:00:00Z", None),
    "empty": ("", None),
}
UNREADABLE = {
    "a word": ("yesterday", None),
    "a day that is none": ("Thu, 41 Oct 2026 08:00:00 GMT", None),
    "an object of something else": ('{"at": 1790841600}', None),
}
TEXTS = SPELLINGS | UNREADABLE


def rows_sql(columns: str, rows: list[str]) -> str:
    """A CREATE TABLE of these rows, for `Scenario.replace`."""
    listed = ", ".join(rows).replace("{", "{{").replace("}", "}}")
    return f"CREATE TABLE {{n}} AS SELECT {columns} FROM UNNEST([{listed}])"


@pytest.mark.parametrize(
    ("column", "engine"),
    [
        ("text", "pandas"),
        ("IF(STARTS_WITH(text, '{{'), PARSE_JSON(text), TO_JSON(text))", "bigquery"),
    ],
    ids=["STRING", "JSON"],
)
def test_a_creation_time_is_read_in_every_spelling_of_firebase(
    scenario: Scenario, column: str, engine: str
) -> None:
    """SDKs, exports and languages write one time in many ways; placeholders are no times."""
    rows = [f"STRUCT(\"{name}\" AS name, '{text}' AS text)" for name, (text, _) in TEXTS.items()]
    users = rows_sql(f"name AS user_id, {column} AS createdAt", rows)
    documents = rows_sql(f"name AS document_id, name AS user_id, {column} AS createdAt", rows)
    scenario.replace("firebase_users", users)
    scenario.replace("firebase_events", documents)
    scenario.arrive("posthog_events", [event(name, AT, distinct_id=name) for name in TEXTS])
    report = scenario.run(engine=engine)
    sessions = scenario.sessions()
    found = {name: row["user_signed_up_at"] for name, row in sessions.items()}
    assert found == {name: at for name, (_, at) in TEXTS.items()}
    created = {name: row["events_created"] for name, row in sessions.items()}
    assert created == {name: int(at is not None) for name, (_, at) in TEXTS.items()}
    assert report.firebase["user_times_unread"] == len(UNREADABLE)
    assert report.firebase["document_times_unread"] == len(UNREADABLE)
    for table in ("users", "events"):
        warning = f"{table} has {len(UNREADABLE)} creation times that can't be read"
        assert any(warning in each for each in report.warnings), report.warnings


RECORDS = {
    "Admin SDK": "STRUCT({} AS _seconds, 5000 AS _nanoseconds)",
    "web SDK": "STRUCT({} AS seconds, 5000 AS nanoseconds)",
}


@pytest.mark.parametrize("shape", RECORDS)
def test_a_creation_time_may_be_a_record(scenario: Scenario, shape: str) -> None:
    """It has seconds and nanoseconds; without seconds it is null, an absurd one is unreadable."""
    seconds = {"at": ("1790841600", LATER), "without": ("CAST(NULL AS INT64)", None)}
    seconds["absurd"] = ("9000000000000000", None)
    rows = [
        f"STRUCT('{name}' AS user_id, {RECORDS[shape].format(value)} AS createdAt)"
        for name, (value, _) in seconds.items()
    ]
    scenario.replace("firebase_users", rows_sql("user_id, createdAt", rows))
    scenario.arrive("posthog_events", [event(name, AT, distinct_id=name) for name in seconds])
    report = scenario.run()
    found = {name: row["user_signed_up_at"] for name, row in scenario.sessions().items()}
    assert found == {name: at for name, (_, at) in seconds.items()}
    assert report.firebase["user_times_unread"] == 1


PATH = "users/someone"
NAME = f"projects/an-app/databases/(default)/documents/{PATH}"
OBJECTS = {
    "Admin SDK": '{"_firestore": {"projectId": "a"}, "_path": {"segments": ["users", "someone"]}}',
    "REST": f'{{"referenceValue": "{NAME}"}}',
    "web SDK": f'{{"type": "firestore/documentReference/1.0", "referencePath": "{PATH}"}}',
    "of its path": f'{{"id": "someone", "path": "/{PATH}"}}',
}
CREATORS = {
    "STRING": [f"'{each}'" for each in ("someone", PATH, f"/{PATH}", NAME, *OBJECTS.values())],
    "JSON": [
        *(f"PARSE_JSON('{each}')" for each in OBJECTS.values()),
        *(f"JSON '\"{each}\"'" for each in ("someone", PATH, f"/{PATH}", NAME)),
    ],
    "RECORD of segments": ["STRUCT(STRUCT(['users', 'someone'] AS segments) AS _path)"],
    "RECORD of a path": [f"STRUCT('someone' AS id, '{PATH}' AS path)", f"STRUCT('x', '/{PATH}')"],
    "RECORD of a name": [f"STRUCT('{NAME}' AS referenceValue)"],
}
NOBODY = {
    "STRING": ["'teams/someone'", "'nobody'"],
    "JSON": ["JSON '\"teams/someone\"'", 'JSON \'{"path": "users/nobody"}\''],
    "RECORD of segments": ["STRUCT(STRUCT(['users', 'nobody'] AS segments) AS _path)"],
    "RECORD of a path": ["STRUCT('x' AS id, 'teams/someone' AS path)"],
    "RECORD of a name": ["STRUCT('users/nobody' AS referenceValue)"],
}
NONE = {
    "STRING": "CAST(NULL AS STRING)",
    "JSON": "JSON 'null'",
    "RECORD of segments": "STRUCT(STRUCT(CAST([] AS ARRAY<STRING>) AS segments) AS _path)",
    "RECORD of a path": "STRUCT(CAST(NULL AS STRING) AS id, CAST(NULL AS STRING) AS path)",
    "RECORD of a name": "STRUCT(CAST(NULL AS STRING) AS referenceValue)",
}


@pytest.mark.parametrize("shape", CREATORS)
def test_a_creator_may_be_a_reference_in_a_column_of_any_type(
    scenario: Scenario, shape: str
) -> None:
    """Its documents count for the user it names; other creators are counted as unknown."""
    creators = [*CREATORS[shape], *NOBODY[shape], NONE[shape]]
    rows = [
        f"STRUCT('{number}' AS document_id, {creator} AS userId,"
        " TIMESTAMP '2026-10-01 08:00:00+00' AS createdAt)"
        for number, creator in enumerate(creators)
    ]
    scenario.replace("firebase_events", rows_sql("document_id, userId, createdAt", rows))
    scenario.replace("firebase_users", "CREATE TABLE {n} AS SELECT 'someone' AS user_id")
    scenario.arrive("posthog_events", [event("theirs", AT, distinct_id="someone")])
    report = scenario.run()
    assert scenario.sessions()["theirs"]["events_created"] == len(CREATORS[shape])
    assert report.firebase["creators_unknown"] == len(NOBODY[shape])
    assert report.firebase["incomplete_documents"] == 1

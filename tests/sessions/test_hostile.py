"""Promise 2 on hostile data: rows with everything that should not occur.

SOAK=1: 100,000 of them, by both engines, and a session with as many rows as the real limit allows.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from jobs import sessions as job
from jobs.sessions_work import begin
from oracle import sessions as oracle
from tests.scenario import Row, Scenario, differences
from tests.sessions.test_requests_on_data import MIDNIGHT, event
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigquery.clients import Clients

IS_SOAK = os.environ.get("SOAK") == "1"
HOSTILE_ROWS = 100_000 if IS_SOAK else 20_000
GOOD_SESSIONS = 150
ENGINES = ["pandas", "bigquery"] if IS_SOAK else ["pandas"]

TEXTS = (
    "", " ", "null", "NULL", "NaN", "-Infinity", "1e999", "12abc", "true", "FALSE", "0.5",
    "'; DROP TABLE sessions; --", "`sessions`", "a\\b", "{}", "[", "\u202eenoemos",
    "شخص", "🙂👩‍👩‍👧",
    "e\u0301", "é", "\x7f", "line\nbreak", "tab\t", "x" * 5_000, "+1 (555) 010-0000",
)  # fmt: skip
ANY_VALUES: tuple[Any, ...] = (
    *TEXTS,
    None,
    True,
    False,
    0,
    -1,
    1e308,
    -1e308,
    2**63,
    0.1,
    [],
    {},
    ["a"],
    {"a": {"b": 1}},
)
SESSION_IDS = (
    "Case", "case", "CASE", "cAsE", "é", "e\u0301", "🙂", "'; DROP TABLE sessions; --", "null",
    "\u202eabc", "hard-coded", "", None, 7, True, ["list"], {"an": "object"}, "x" * 2_000,
)  # fmt: skip
PROPERTY_NAMES = (
    "$session_id", "session_id", "$screen_name", "$touch_y", "$screen_height", "$event_type",
    "$prev_pageview_max_scroll_percentage", "$lib", "$os", "$current_url", "$pathname",
    "utm_source", "$app_version", "$geoip_city_name", "$anon_distinct_id", "$is_emulator",
)  # fmt: skip
MALFORMED = (  # no NUL in ids: the emulator's storage can't filter by those
    None, "", " ", "{", "}", '{"$session_id": "cut', "[1]", '"text"', "null", "1", "NaN", "\u0085",
    '{"$session_id": NaN}', '{"$session_id": "s", "$touch_y": Infinity}', "{'single': 'quotes'}",
    '{"$session_id": "\\ud800 half an emoji"}',
    '{"$session_id": "nul", "$screen_name": "\\u0000"}',
    '{"a":1,"a":2}',
    '{"$session_id": "deep", "x": ' + "[" * 400 + "]" * 400 + "}",
    '{"$session_id": "deep", "x": ' + '{"x":' * 400 + "1" + "}" * 401,
)  # fmt: skip
TIMES = (
    None, "0001-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00", "2017-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999+00:00",
)  # fmt: skip
EVENTS = (*TEXTS[:12], "$pageview", "$screen", "$autocapture", "$identify", "view_event", None)
PEOPLE = ("u1", "U1", "guest", "null", "", None, "+15550100000", "a@example.com", "🙂", "x" * 300)


def hostile_events(rng: random.Random, count: int) -> Iterator[Row]:
    """Rows that break every rule; some have 1 MB, and many have the same microsecond."""
    for number in range(count):
        at = MIDNIGHT + timedelta(seconds=rng.randrange(3 * 86_400) // 7 * 7)
        has_bad_time = rng.random() < 0.05
        yield {
            "uuid": rng.choice([f"e{rng.randrange(15)}", "", None]),
            "event": rng.choice(EVENTS),
            "properties": hostile_properties(rng, number),
            "distinct_id": rng.choice([*PEOPLE, f"v{number % 500}"]),
            "timestamp": rng.choice(TIMES) if has_bad_time else at.isoformat(),
            "bq_ingested_timestamp": rng.choice([*TIMES, at.isoformat(), at.isoformat()]),
        }


def hostile_properties(rng: random.Random, number: int) -> str | None:
    """Text that may be JSON."""
    if rng.random() < 0.2:
        return rng.choice(MALFORMED)
    chosen = rng.sample(PROPERTY_NAMES, rng.randrange(5))
    values: Row = {name: rng.choice(ANY_VALUES) for name in chosen}
    if rng.random() < 0.9:
        values["$session_id"] = rng.choice([*SESSION_IDS, f"s{number % 4000}", f"S{number % 4000}"])
    if number % (HOSTILE_ROWS // 4) == 7:
        values["$current_url"] = "y" * 1_000_000
    return json.dumps(values, ensure_ascii=rng.random() < 0.5)


def hostile_firebase(rng: random.Random, count: int) -> dict[str, list[Row]]:
    """Users and documents that repeat, contradict each other, and lack everything."""
    users = [
        {
            "user_id": rng.choice(PEOPLE),
            "phoneNumber": rng.choice([*TEXTS[:6], "+15550100000", None]),
            "email": rng.choice([*TEXTS[:6], "a@example.com", "A@EXAMPLE.COM", None]),
            "createdAt": rng.choice([*TIMES, MIDNIGHT.isoformat()]),
            "etl_loaded_at": rng.choice(TIMES),
        }
        for _ in range(count)
    ]
    documents = [
        {
            "document_id": rng.choice([*TEXTS, None, f"d{rng.randrange(count)}"]),
            "user_id": rng.choice([*PEOPLE, "users/u1", "users/"]),
            "createdAt": rng.choice([*TIMES, MIDNIGHT.isoformat()]),
            "type": rng.choice([*TEXTS[:6], "checkin", None]),
            "etl_loaded_at": rng.choice(TIMES),
        }
        for _ in range(count)
    ]
    return {"firebase_users": users, "firebase_events": documents}


def good_sessions() -> dict[str, list[Row]]:
    """Sessions as they should be; some users created a document meanwhile."""
    rows: dict[str, list[Row]] = {"posthog_events": [], "firebase_users": [], "firebase_events": []}
    for number, step in itertools.product(range(GOOD_SESSIONS), range(3)):
        at = MIDNIGHT + timedelta(hours=number % 48, minutes=number % 60, seconds=20 * step)
        columns = {
            "event": "$screen" if step else "$pageview",
            "distinct_id": f"good-user-{number}",
        }
        rows["posthog_events"].append(event(f"good-{number}", at, **columns))
        if step == 0 and number % 3 == 0:
            user = {"user_id": f"good-user-{number}", "createdAt": MIDNIGHT.isoformat()}
            document = {
                "document_id": f"good-{number}",
                "user_id": user["user_id"],
                "type": "checkin",
            }
            rows["firebase_users"].append(user)
            rows["firebase_events"].append({**document, "createdAt": at.isoformat()})
    return rows


@pytest.mark.parametrize("engine", ENGINES)
def test_hostile_rows_harm_no_good_session(
    clients: Clients,
    engine: Any,  # noqa: ANN401 - the name of an engine
) -> None:
    """The run succeeds and counts each row once; good sessions are as without hostile rows."""
    rng = random.Random(7)  # noqa: S311 - rows, not secrets
    good = good_sessions()
    with Scenario(clients=clients) as scenario:
        rows = [*hostile_events(rng, HOSTILE_ROWS), *good["posthog_events"]]
        rng.shuffle(rows)
        scenario.arrive("posthog_events", rows)
        for table, bad in hostile_firebase(rng, 2_000).items():
            scenario.arrive(table, [*bad, *good[table]])  # type: ignore[arg-type]
        report = scenario.run(engine=engine)
        assert report.status == "succeeded"
        assert sum(report.counts.values()) == len(rows)
        assert report.counts["bad_timestamp"] > HOSTILE_ROWS / 100
        assert report.counts["no_session"] > HOSTILE_ROWS / 100
        assert report.counts["duplicate"] > HOSTILE_ROWS / 1_000
        assert report.sessions["split"] > 0
        expected = oracle.expected_sessions(
            METRIC_TABLE,
            good["posthog_events"],
            good["firebase_users"],
            good["firebase_events"],
            [],
        )
        assert len(expected) == GOOD_SESSIONS
        found = scenario.sessions()
        assert differences({key: found[key] for key in expected if key in found}, expected) == []
        ids = {key if not row["is_split"] else key.split("/")[0] for key, row in found.items()}
        assert {"Case", "case", "CASE", "cAsE"} <= ids


def test_a_session_with_too_many_rows_is_quarantined(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session with one row more than the limit is quarantined; one at the limit is not.

    SOAK=1 takes the real limit of 100,000 rows, which tests/snapshots/planned.sql shows.
    """
    rows = METRIC_TABLE.most_session_rows if IS_SOAK else 1_000
    small = replace(METRIC_TABLE, most_session_rows=rows)
    monkeypatch.setattr(job, "JOB", replace(job.JOB, begin=partial(begin, small)))
    with Scenario(clients=clients) as scenario:
        table = scenario.datasets.table_id(clients.bigquery, "posthog_events")
        scenario.query(f"""INSERT INTO `{table}` (uuid, event, properties, timestamp)
SELECT
  CONCAT(session, CAST(number AS STRING)), '$pageview',
  CONCAT('{{"$session_id": "', session, '"}}'),
  TIMESTAMP_ADD(TIMESTAMP '2026-10-05 00:00:00+00', INTERVAL MOD(number, 3600) SECOND)
FROM UNNEST(['busy', 'robot']) AS session, UNNEST(GENERATE_ARRAY(1, {rows + 1})) AS number
WHERE session = 'robot' OR number <= {rows}""")
        report = scenario.run()
        assert (report.counts["aggregated"], report.counts["quarantined"]) == (rows, rows + 1)
        assert scenario.sessions().keys() == {"busy"}
        found = scenario.query("SELECT session_id, row_count FROM {d}.quarantined_sessions")
        assert found == [{"session_id": "robot/2026-10-05/", "row_count": rows + 1}]

"""Days of a made-up app in a sandbox, written by SQL: as many events as a benchmark asks for.

Deterministic: the same sizes make the same rows. Sessions are of very different lengths, some run
past midnight, every fiftieth row is repeated, and each day brings new users and documents.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from bigquery.clients import local_clients
from sandbox import emulator
from sandbox.sources import SourceDatasets, create_tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bigquery.clients import Clients
    from sandbox.emulator import Endpoints

EVENTS_PER_SESSION: Final = 40
_EVENTS_PER_STATEMENT: Final = 500_000
_SOURCES: Final = SourceDatasets()

_NAMES: Final = (
    "$screen", "$autocapture", "$autocapture", "$pageview", "view_event", "$autocapture",
    "start_quiz", "$pageleave", "finish_quiz", "join_event", "$screen", "search",
)  # fmt: skip
_SCREENS: Final = ("Home", "Discover", "Event", "Profile", "Quiz", "Chat", "Settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """So many events on each of the last `days` UTC days, the newest of them yesterday."""

    days: int
    events_per_day: int

    @property
    def events(self) -> int:
        """Rows of the events table."""
        return self.days * self.events_per_day

    def first_day(self) -> datetime:
        """Midnight of the first day."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return today - timedelta(days=self.days)


@contextmanager
def sandbox(folder: Path) -> Iterator[Clients]:
    """Clients of a fresh emulator in this folder; it runs for as long as the block does."""
    with sandbox_endpoints(folder) as (clients, _):
        yield clients


@contextmanager
def sandbox_endpoints(folder: Path) -> Iterator[tuple[Clients, Endpoints]]:
    """The same, and where it answers."""
    with emulator.attach(folder) as endpoints, closing(local_clients(endpoints)) as clients:
        create_tables(clients.bigquery, _SOURCES)
        yield clients, endpoints


def fill_days(clients: Clients, history: History, days: range) -> None:
    """Let some days of the history arrive, numbered from its first, with their users."""
    for day in days:
        midnight = history.first_day() + timedelta(days=day)
        for first in range(0, history.events_per_day, _EVENTS_PER_STATEMENT):
            rows = min(_EVENTS_PER_STATEMENT, history.events_per_day - first)
            _run(clients, _events_sql(day, midnight, first=first, rows=rows))
        sessions = max(1, history.events_per_day // EVENTS_PER_SESSION)
        _run(clients, _users_sql(day, midnight, users=max(1, sessions // 10)))
        _run(clients, _documents_sql(day, midnight, users=max(1, sessions // 10)))


def _run(clients: Clients, sql: str) -> None:
    clients.bigquery.query(sql).result()


def _table(name: str) -> str:
    owner, _, table = name.partition("_")
    dataset = _SOURCES.posthog if owner == "posthog" else _SOURCES.firebase
    return f"`{dataset}`.`{table}`"


def _events_sql(day: int, midnight: datetime, *, first: int, rows: int) -> str:
    """Rows `first` on of a day. A session's length is set by a hash of its number: 1 to 4,000."""
    names = ", ".join(f"'{name}'" for name in _NAMES)
    screens = ", ".join(f"'{name}'" for name in _SCREENS)
    at = f"TIMESTAMP '{midnight:%Y-%m-%d} 00:00:00+00'"
    return f"""INSERT INTO {_table("posthog_events")}
  (uuid, event, properties, distinct_id, team_id, timestamp, bq_ingested_timestamp)
WITH numbered AS (
  SELECT n, CAST(FLOOR(n / {EVENTS_PER_SESSION} + 30 * SIN(n / 700.0)) AS INT64) AS session
  FROM UNNEST(GENERATE_ARRAY({first}, {first + rows - 1})) AS n
),
placed AS (
  SELECT
    n, session, MOD(ABS(session), 11) AS kind,
    TIMESTAMP_ADD({at}, INTERVAL MOD(ABS(session) * 7919, 86400) * 1000 + MOD(n, 997) * 4001
      MILLISECOND) AS at
  FROM numbered
)
SELECT
  CONCAT('e-{day}-', CAST(n - IF(MOD(n, 50) = 49, 1, 0) AS STRING)),
  [{names}][OFFSET(MOD(n * 31, {len(_NAMES)}))],
  CONCAT(
    '{{"$session_id":"s-{day}-', CAST(session AS STRING), '","$lib":"',
    IF(kind < 6, 'posthog-react-native', 'web'), '","$os":"', IF(kind < 3, 'iOS', 'Android'),
    '","$app_version":"2.', CAST(kind AS STRING), '","$screen_name":"',
    [{screens}][OFFSET(MOD(DIV(n, 5), {len(_SCREENS)}))],
    '","$event_type":"touch","$touch_y":', CAST(MOD(n * 17, 800) AS STRING),
    ',"$screen_height":812,"$geoip_country_name":"France","$geoip_city_name":"City ',
    CAST(kind AS STRING), '","$current_url":"https://app.example.com/', CAST(MOD(n, 40) AS STRING),
    '","$pathname":"/', CAST(MOD(n, 40) AS STRING), '","$device_type":"Mobile",',
    '"$device_id":"', TO_HEX(MD5(CAST(session AS STRING))), '","$feature":"',
    REPEAT('x', 60), '"}}'
  ),
  CONCAT('user-', CAST(MOD(ABS(session) * 13 + {day} * 101, 50021) AS STRING)),
  1, at, TIMESTAMP_ADD(at, INTERVAL 90 SECOND)
FROM placed"""


def _users_sql(day: int, midnight: datetime, *, users: int) -> str:
    at = f"TIMESTAMP '{midnight:%Y-%m-%d} 00:00:00+00'"
    return f"""INSERT INTO {_table("firebase_users")}
  (user_id, phoneNumber, email, createdAt, etl_loaded_at)
SELECT
  CONCAT('user-', CAST(MOD(n + {day * users}, 50021) AS STRING)),
  CONCAT('+1555', LPAD(CAST(n + {day * users} AS STRING), 7, '0')),
  CONCAT('user-', CAST(n + {day * users} AS STRING), '@example.com'), {at}, {at}
FROM UNNEST(GENERATE_ARRAY(0, {users - 1})) AS n"""


def _documents_sql(day: int, midnight: datetime, *, users: int) -> str:
    at = f"TIMESTAMP '{midnight:%Y-%m-%d} 00:00:00+00'"
    return f"""INSERT INTO {_table("firebase_events")}
  (document_id, user_id, createdAt, type, etl_loaded_at)
SELECT
  CONCAT('d-{day}-', CAST(n AS STRING)),
  CONCAT('user-', CAST(MOD(n * 7 + {day * users}, 50021) AS STRING)),
  TIMESTAMP_ADD({at}, INTERVAL MOD(n * 5003, 86400) SECOND),
  IF(MOD(n, 3) = 0, 'checkin', 'base'), {at}
FROM UNNEST(GENERATE_ARRAY(0, {users - 1})) AS n"""

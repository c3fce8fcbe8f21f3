"""JSON texts that ClickHouse accepts and BigQuery does not, in `properties` of type STRING."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oracle.rows import reasons
from tests.scenario import Scenario, differences
from tests.sessions.test_requests_on_data import MIDNIGHT, event
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from bigquery.clients import Clients

SCREENS = {
    "two\nlines": "two\nlines",
    "a\ttab": "a\ttab",
    "a\x01bell\x1f": "abell",
    "cut \\ud83d": "cut ",
    "cut \\udE00 \\ud83d\\ude00": "cut  \U0001f600",
    "a backslash \\\\ud83d\nnext": "a backslash \\ud83d\nnext",
}
TEXTS = [
    *(f'{{"$session_id":"s{n}","$screen_name":"{text}"}}' for n, text in enumerate(SCREENS)),
    '{"$session_id":"laid out",\n  "$screen_name":"two\nlines"}',
]
MALFORMED = ['{"$session_id":"unfinished', "undefined", "{'$session_id': 'of Python'}"]


@pytest.mark.parametrize("engine", ["pandas", "bigquery"])
def test_json_that_clickhouse_accepts_is_repaired_and_the_rest_is_malformed(
    clients: Clients, engine: str
) -> None:
    """Control characters and half surrogate pairs lose no row, and no row counts as no_session."""
    with Scenario(clients=clients) as scenario:
        scenario.arrive(
            "posthog_events",
            [
                event(f"e{n}", MIDNIGHT, event="$screen", properties=text)
                for n, text in enumerate([*TEXTS, *MALFORMED])
            ],
        )
        report = scenario.run(engine=engine)
        found = scenario.sessions()
        assert differences(found, scenario.expected()) == []
        assert {row["entry_screen"] for row in found.values()} == {*SCREENS.values(), "two lines"}
        counts = {name: count for name, count in report.counts.items() if count}
        assert counts == {"aggregated": len(TEXTS), "malformed": len(MALFORMED)}
        reported = reasons(METRIC_TABLE, scenario.arrived["posthog_events"])
        assert {name: count for name, count in reported.items() if count} == counts

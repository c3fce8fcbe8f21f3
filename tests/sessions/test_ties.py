"""Ids that events without a session tie: which rows do so, and that ties follow a day's rows."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from tests.scenario import Row, Scenario
from tests.sessions.test_persons import SourceRows, ago
from tests.sessions.test_persons_runs import check_derived

if TYPE_CHECKING:
    from datetime import datetime

    from bigquery.clients import Clients


def server_identify(at: datetime, **columns: object) -> Row:
    """A server's `$identify`, which has no session."""
    properties = {"$anon_distinct_id": "anon-kim", "$lib": "posthog-python"}
    return {
        "uuid": f"server {at.isoformat()}",
        "event": "$identify",
        "distinct_id": "kim",
        "timestamp": at.isoformat(),
        "properties": json.dumps(properties),
        **columns,
    }


def test_ties_without_a_session_arrive_late_and_vanish(clients: Clients) -> None:
    """A day's ties follow its rows, in any order of arrival; a run for dates adds its days' ties.

    The engines take turns, since neither has a part in ties.
    """
    engines = itertools.cycle(["pandas", "bigquery"])
    rows = SourceRows()
    rows.add_user("kim")
    rows.add_event("kim", "anon-kim", ago(4))
    rows.add_event("later", "somebody", ago(1))
    with Scenario(clients=clients) as scenario:
        rows.arrive(scenario)
        scenario.run(engine=next(engines))
        assert scenario.derived().identities == {}
        late = server_identify(ago(4), uuid="late")
        scenario.arrive("posthog_events", [late, server_identify(ago(1)), server_identify(ago(1))])
        report = scenario.run(
            engine=next(engines), start_date=ago(1).date(), end_date=ago(1).date()
        )
        check_derived(scenario, report)
        assert scenario.derived().identities == {"anon-kim": "kim"}
        assert scenario.query("SELECT day, distinct_id, tied_id FROM {d}.ties") == [
            {"day": ago(1).date(), "distinct_id": "kim", "tied_id": "anon-kim"}
        ]
        report = scenario.run(engine=next(engines))
        assert report.kind == "nothing_new"  # of sessions
        assert len(scenario.query("SELECT day FROM {d}.ties")) == 2
        scenario.vanish("posthog_events", "uuid", server_identify(ago(1))["uuid"])
        scenario.run(engine=next(engines))
        assert len(scenario.query("SELECT day FROM {d}.ties")) == 1
        check_derived(scenario, scenario.run(engine=next(engines), full_load=True))
        assert scenario.derived().identities == {"anon-kim": "kim"}
        scenario.vanish("posthog_events", "uuid", "late")
        check_derived(scenario, scenario.run(engine=next(engines)))
        assert scenario.derived().identities == {}


def test_a_row_set_aside_for_another_reason_ties_nothing(clients: Clients) -> None:
    """Rows that a setting excludes, with a session or not, or of a wrong time, or without an id."""
    excluded = {"$anon_distinct_id": "anon-kim", "$lib": "a-server", "$session_id": "of a server"}
    without_session = {key: excluded[key] for key in ("$anon_distinct_id", "$lib")}
    servers_rows = [
        server_identify(ago(3), uuid="1", properties=json.dumps(excluded)),
        server_identify(ago(3), uuid="2", properties=json.dumps(without_session)),
        server_identify(ago(3), uuid="3", bq_ingested_timestamp=ago(5).isoformat()),
        server_identify(ago(3), uuid="4", distinct_id=" "),
    ]
    rows = SourceRows()
    rows.add_user("kim")
    rows.add_event("kim", "anon-kim", ago(4))
    with Scenario(clients=clients, settings={"exclude_libs": ("a-server",)}) as scenario:
        rows.arrive(scenario)
        scenario.arrive("posthog_events", servers_rows)
        check_derived(scenario, scenario.run())
        assert scenario.query("SELECT * FROM {d}.ties") == []

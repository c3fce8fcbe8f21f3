"""Promises 1 and 3 at once: any sequence of arrivals, changes and runs of every kind.

SOAK_HISTORIES: how many histories of twenty random steps, instead of one short history that is
always the same.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import NotFound
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import main
from bigquery.warehouse import Warehouse
from jobs.sessions import JOB, VERIFY
from oracle.rows import split_ids
from runs.errors import AbortedError, AuditError, LeaseLostError
from runs.request import RunRequest
from runs.supervision import STOP
from sessions.samples import VerifyRequest
from tests import histories
from tests.runs.test_lease import ActAtStep
from tests.scenario import Row, Scenario, differences
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from bigquery.clients import Clients
    from sessions.report import SessionsReport
    from tests.conftest import Count

HISTORIES = int(os.environ.get("SOAK_HISTORIES", "0"))
DAYS = 6
DAY = timedelta(days=1)
EXPIRE_LEASE = """UPDATE {d}.etl_lease_sessions
SET run_id = 'dead', fence = fence + 1, expires_at = TIMESTAMP '2026-01-01 00:00:00+00'
WHERE TRUE"""
STEAL_LEASE = "UPDATE {d}.etl_lease_sessions SET fence = fence + 1, run_id = 'thief' WHERE TRUE"
FREE_LEASE = "UPDATE {d}.etl_lease_sessions SET run_id = NULL WHERE TRUE"

HYPOTHESIS_SETTINGS = settings(
    max_examples=HISTORIES or 1,
    stateful_step_count=20 if HISTORIES else 6,
    derandomize=not HISTORIES,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a run takes seconds: a failing history is read as it is
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)

days = st.integers(0, DAYS - 1)
engines = st.sampled_from(["pandas", "bigquery"])


class SimulatedKill(BaseException):
    """Ends a run at once: the product never catches it. SIGKILL itself is in test_kills."""


def kill() -> None:
    """End the run that calls it."""
    raise SimulatedKill


class Histories(RuleBasedStateMachine):
    """What may happen, and what the table must hold after it."""

    def __init__(self, clients: Clients, counts: Counter[str]) -> None:
        super().__init__()
        self.scenario = Scenario(clients=clients)
        self.counts = counts
        self.table: dict[str, Row] = {}  # what readers must see
        self.state: dict[str, int] | None = None  # the rows by day that it was built from

    def teardown(self) -> None:
        """Many datasets slow the emulator down."""
        self.counts["histories"] += 1
        self.scenario.__exit__()

    # What arrives.

    @initialize(
        rows=st.lists(histories.events(days=DAYS), min_size=25, max_size=40),
        people=st.lists(histories.users(), max_size=6),
    )
    def begin(self, rows: list[Row], people: list[Row]) -> None:
        """Rows that arrive before the first run."""
        self.scenario.arrive("posthog_events", rows)
        self.scenario.arrive("firebase_users", people)

    @rule(
        rows=st.lists(histories.events(days=DAYS), min_size=1, max_size=12),
        people=st.lists(histories.users(), max_size=2),
        documents=st.lists(histories.documents(), max_size=3),
        channels=st.lists(histories.posthog_sessions(), max_size=2),
    )
    def arrive(
        self, rows: list[Row], people: list[Row], documents: list[Row], channels: list[Row]
    ) -> None:
        """Late events of any day, and new rows of the other sources."""
        self.scenario.arrive("posthog_events", rows)
        self.scenario.arrive("firebase_users", people)
        self.scenario.arrive("firebase_events", documents)
        self.scenario.arrive("posthog_sessions", channels)

    @rule(
        rng=st.randoms(use_true_random=False),
        change=st.sampled_from(["as it was", "another time", "another session"]),
    )
    def arrive_again(self, rng: Any, change: str) -> None:  # noqa: ANN401 - a Random
        """Rows arrive again, as they were or with another time or session."""
        rows = self.scenario.arrived["posthog_events"]
        again = [dict(row) for row in rng.sample(rows, min(5, len(rows)))]
        for row in again:
            if change == "another time" and row["timestamp"]:
                at = datetime.fromisoformat(row["timestamp"]) + rng.choice([-1, 1]) * DAY
                row["timestamp"] = at.isoformat()
            if change == "another session":
                row["properties"] = json.dumps({"$session_id": f"s-{rng.randrange(DAYS)}"})
        self.scenario.arrive("posthog_events", again)

    @rule(
        rng=st.randoms(use_true_random=False),
        event=st.sampled_from(["$screen", "view_event"]),
        is_exchanged=st.booleans(),
    )
    def rewrite(self, rng: Any, event: str, is_exchanged: bool) -> None:  # noqa: ANN401, FBT001
        """Rows are rewritten in place, or replaced by as many others."""
        if rows := self.scenario.arrived["posthog_events"]:
            uuid = rng.choice(rows)["uuid"]
            if uuid and is_exchanged:
                self.scenario.exchange(uuid, event)
            else:
                self.scenario.rewrite(uuid, event)

    @rule(
        table=st.sampled_from(["firebase_users", "firebase_events", "posthog_sessions"]),
        rng=st.randoms(use_true_random=False),
    )
    def vanish(self, table: Any, rng: Any) -> None:  # noqa: ANN401 - a literal, a Random
        """A user, a document or a session of PostHog's is deleted."""
        column = {"firebase_users": "user_id", "firebase_events": "document_id"}.get(
            table, "session_id"
        )
        if rows := self.scenario.arrived.get(table):
            self.scenario.vanish(table, column, rng.choice(rows)[column])

    @precondition(lambda self: self.state is not None)
    @rule(table=st.sampled_from(["firebase_users", "firebase_events"]))
    def empty(self, table: Any) -> None:  # noqa: ANN401 - a literal
        """A load of Firebase leaves an empty table: an ordinary run fails and changes nothing."""
        name = self.scenario.datasets.table_id(self.scenario.clients.bigquery, table)
        self.scenario.query(f"TRUNCATE TABLE `{name}`")
        self.scenario.arrived[table] = []
        column = {"firebase_users": "users", "firebase_events": "documents"}[table]
        (known,) = self.scenario.query("SELECT users, documents FROM {d}.etl_state_sessions")
        if known[column]:
            self.counts["emptied tables"] += 1
            with pytest.raises(AuditError, match=f"has 0 usable ids .* found {known[column]}:"):
                self.scenario.run()
            self.expect_no_change()

    # Runs that succeed. They are forced, since users may vanish by the dozen.

    def run_forced(self, **request: Any) -> SessionsReport:  # noqa: ANN401 - of a RunRequest
        """A run that takes the Firebase tables as they are."""
        return self.scenario.run(force=True, **request)

    @rule(engine=engines)
    def run(self, engine: Any) -> None:  # noqa: ANN401 - drawn
        """An ordinary run leaves exactly the oracle's table, however little it redoes."""
        report = self.run_forced(engine=engine)
        assert (report.kind == "full_load") == (self.state is None)
        self.expect(self.scenario.expected(), is_ordinary=True)
        self.verify()

    def verify(self) -> None:
        """A verification, which reads the source by itself, finds every session right."""
        if self.scenario.sessions():
            settings = self.scenario.make_settings()
            warehouse = Warehouse(clients=self.scenario.clients, settings=settings, run_id="v")
            found = VERIFY(warehouse, VerifyRequest(seed="1", size=200), lambda _: None)
            assert [each for each in found.verdicts if each.status != "right"] == []

    @rule(engine=engines)
    def run_full_load(self, engine: Any) -> None:  # noqa: ANN401 - drawn
        """A full load leaves the same table, and counts every row that has arrived."""
        report = self.run_forced(full_load=True, engine=engine)
        assert sum(report.counts.values()) == len(self.scenario.arrived["posthog_events"])
        self.expect(self.scenario.expected(), is_ordinary=True)

    @rule(first=days, count=st.integers(1, 3))
    def run_dates(self, first: int, count: int) -> None:
        """Sessions with rows on those days are right and whole; the others stay as they were."""
        start = (histories.FIRST_DAY + first * DAY).date()
        end = start + (count - 1) * DAY
        self.run_forced(start_date=start, end_date=end)
        expected = self.scenario.expected()
        named = {
            key
            for key, row in expected.items()
            if any(start <= each["day"] <= end for each in row["_days"])
        }
        others = {
            key: row for key, row in self.table.items() if key in expected and key not in named
        }
        now = self.scenario.sessions()
        # Sessions that are too long by now, which a run over a part of their days may not know.
        too_long = split_ids(METRIC_TABLE, self.scenario.arrived["posthog_events"]).keys()
        pieces = {key for key, row in now.items() if row["is_split"] and key not in others}
        kept = {key: row for key, row in now.items() if key not in too_long | pieces}
        whole = {key for key in named if not expected[key]["is_split"]}
        assert differences(kept, {**others, **{key: expected[key] for key in whole}}) == []
        new_pieces = {key: now[key] for key in pieces}
        assert differences(new_pieces, {key: expected[key] for key in pieces}) == []
        self.expect(now, is_ordinary=False)

    @rule(limit=st.integers(1, 8))
    def run_limit(self, limit: int) -> None:
        """At most that many sessions change, and those that do are right and whole."""
        report = self.run_forced(limit=limit)
        assert report.sessions["staged"] <= limit
        now, expected = self.scenario.sessions(), self.scenario.expected()
        too_long = split_ids(METRIC_TABLE, self.scenario.arrived["posthog_events"]).keys()
        changed = {
            key: row
            for key, row in now.items()
            if self.table.get(key) != row and key not in too_long
        }
        assert differences(changed, {key: expected[key] for key in changed}) == []
        assert self.table.keys() - now.keys() <= self.table.keys() - expected.keys()
        self.expect(now, is_ordinary=False)

    # Runs that change nothing, or end early.

    @rule(engine=engines)
    def run_dry(self, engine: Any) -> None:  # noqa: ANN401 - drawn
        """A dry run publishes nothing."""
        assert self.run_forced(dry_run=True, engine=engine).dry_run
        self.expect_no_change()

    @rule(step=st.sampled_from(JOB.step_names), full_load=st.booleans())
    def run_killed(self, step: str, full_load: bool) -> None:  # noqa: FBT001 - drawn
        """A run killed before its commit leaves the old table, and after it the whole new one.

        Its lease expires.
        """
        with pytest.raises(SimulatedKill):
            self.run_until(step, kill, full_load=full_load)
        if step != JOB.step_names[0]:
            self.scenario.query(EXPIRE_LEASE)
        self.expect_after(step)

    @rule(step=st.sampled_from(JOB.step_names[1:]))
    def run_asked_to_stop(self, step: str) -> None:
        """A run stopped by SIGTERM leaves the old table, or after its commit the whole new one."""
        try:
            with pytest.raises(AbortedError):
                self.run_until(step, STOP.set)
        finally:
            STOP.clear()
        self.expect_after(step)

    @rule(full_load=st.booleans())
    def run_fenced(self, full_load: bool) -> None:  # noqa: FBT001 - drawn
        """A run whose lease is taken over before it publishes changes nothing."""
        with pytest.raises(LeaseLostError):
            self.run_until("publish", lambda: self.scenario.query(STEAL_LEASE), full_load=full_load)
        self.scenario.query(FREE_LEASE)
        self.expect_no_change()

    @precondition(lambda self: self.state is not None)
    @rule()
    def run_twice(self) -> None:
        """A second run right after another one finds nothing new."""
        self.run_forced()
        report = self.run_forced()
        assert (report.kind, report.sessions["staged"]) == ("nothing_new", 0)
        self.expect(self.scenario.expected(), is_ordinary=True)

    # How runs are started and checked.

    def run_until(self, step: str, act: Callable[[], object], **request: Any) -> None:  # noqa: ANN401 - the fields of a request
        """Run the job, and call `act` as a step begins."""
        scenario = self.scenario
        main.main(
            RunRequest(force=True, **request),
            scenario.make_settings(),
            scenario.clients,
            progress=ActAtStep(step, act),
        )

    def expect(self, table: dict[str, Row], *, is_ordinary: bool) -> None:
        """Check that readers see this table; only an ordinary run moves the state."""
        self.counts["runs"] += 1
        self.table = table
        if is_ordinary:
            self.state = self.arrived_days()
        self.check()

    def expect_after(self, step: str) -> None:
        """Check what a run leaves that ended as this step began: a change only after `publish`."""
        if JOB.step_names.index(step) > JOB.step_names.index("publish"):
            self.expect(self.scenario.expected(), is_ordinary=True)
        else:
            self.expect_no_change()

    def expect_no_change(self) -> None:
        """Check that readers see the same table as before, or none if there was none."""
        self.counts["runs"] += 1
        try:
            tables = list(self.scenario.clients.bigquery.list_tables(self.scenario.destination))
        except NotFound:  # it ended before it made the dataset
            tables = []
        if {"sessions", "etl_state_sessions"} <= {each.table_id for each in tables}:
            self.check()
        else:
            assert self.table == {}

    def check(self) -> None:
        """Check that the table and the state that belongs to it are those of the model."""
        assert differences(self.scenario.sessions(), self.table) == []
        rows = self.scenario.query("SELECT days FROM {d}.etl_state_sessions")
        state = [{each["partition_id"]: each["row_count"] for each in row["days"]} for row in rows]
        assert state == ([] if self.state is None else [self.state])

    def arrived_days(self) -> dict[str, int]:
        """How many rows of each day have arrived, as BigQuery names its partitions."""
        times = [row["timestamp"] for row in self.scenario.arrived["posthog_events"]]
        moments = [at and datetime.fromisoformat(at).astimezone(UTC) for at in times]
        return dict(Counter(f"{at:%Y%m%d}" if at else "__NULL__" for at in moments))


def test_any_history_of_arrivals_and_runs_is_exact(clients: Clients, count: Count) -> None:
    """Whatever arrives, changes, is run, killed, fenced or limited: the table is the oracle's."""
    counts: Counter[str] = Counter()
    run_state_machine_as_test(lambda: Histories(clients, counts), settings=HYPOTHESIS_SETTINGS)  # type: ignore[arg-type]
    count("histories tried", counts["histories"])
    count("runs within them", counts["runs"])
    count("emptied tables refused", counts["emptied tables"])

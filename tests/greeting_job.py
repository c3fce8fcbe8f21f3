"""A job of a few lines, to prove that the machinery of a run knows none: it writes one table."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bigquery.destination import ensure_table
from bigquery.tables import Field, TableSchema
from runs.job import Job, Step
from runs.lease_sql import fenced_sql
from runs.report import RunReport

if TYPE_CHECKING:
    from runs.context import Run
    from runs.report import RunStatus

GREETINGS = TableSchema(
    fields=(Field(name="run_id", type="STRING"), Field(name="greeting", type="STRING")),
    description="One row: what the last run said.",
)


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """It finds nothing: all it has is its run."""

    run: Run

    def report(self, status: RunStatus, error: str | None = None) -> RunReport:
        """What every job reports."""
        return RunReport(**self.run.head(status, error))


def _prepare(work: Greeting) -> None:
    ensure_table(work.run.warehouse, work.run.warehouse.table("greetings"), GREETINGS)
    if work.run.request.params.get("die"):
        os._exit(9)
    while work.run.request.params.get("wait"):
        work.run.check()
        time.sleep(0.05)


def _greet(work: Greeting) -> None:
    table = work.run.table("greetings")
    statements = [
        f"DELETE FROM {table}\nWHERE TRUE",
        f"INSERT INTO {table} (run_id, greeting)\nVALUES (@run_id, 'hello')",
    ]
    work.run.counts["greetings"] = 1
    work.run.publish("greet", fenced_sql(work.run.lease.sql, statements))


JOB = Job(
    name="greeting",
    description="Says hello.",
    begin=lambda run: Greeting(run=run),
    steps=(Step(name="prepare", work=_prepare), Step(name="greet", work=_greet, publishes=True)),
    report_type=RunReport,
)

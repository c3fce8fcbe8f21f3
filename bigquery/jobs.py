"""Statements and load jobs, with ids of our own to find them by. Knows no table."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import uuid4

from bigquery.refusals import classified
from bigquery.retries import (
    HTTP_SECONDS,
    backoff_seconds,
    call,
    retry,
    start,
    wait_for,
    with_retries,
)
from runs.errors import EtlError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.cloud import bigquery
    from google.cloud.bigquery.table import RowIterator, _EmptyRowIterator

    from bigquery.parameters import Parameter
    from bigquery.warehouse import Warehouse


_POLL_SECONDS: Final = 0.05  # first pause between two polls of a job; grows up to
_LONGEST_POLL_SECONDS: Final = 1.0
_ROWS: Final = {None, "SELECT"}  # statement types that have rows to fetch; None: not known


def run_query(
    warehouse: Warehouse,
    step: str,
    sql: str,
    parameters: Sequence[Parameter] = (),
    *,
    refused_as: type[EtlError] = SourceError,
) -> list[dict[str, Any]]:
    """The rows of a statement, or none for DML and DDL.

    `blame` is the error that a refusal is raised as. Other errors of the statement itself are bugs
    and raised as StatementError.
    """
    with classified(step, refused_as):
        job = run_statement(warehouse, step, sql, parameters)
        return rows_of(warehouse, job) if job.statement_type in _ROWS else []


def dry_run(warehouse: Warehouse, sql: str, parameters: Sequence[Parameter] = ()) -> int:
    """The most bytes that a statement would bill, by a free dry run that also checks it."""
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(
        query_parameters=list(parameters), dry_run=True, use_query_cache=False
    )
    query = partial(
        warehouse.clients.bigquery.query,
        sql,
        job_config=config,
        location=warehouse.settings.location,
    )
    return call(warehouse, query).total_bytes_processed or 0


def rows_of(warehouse: Warehouse, job: bigquery.QueryJob) -> list[dict[str, Any]]:
    """The rows of a finished job; those of a script's last SELECT."""
    rows = wait_for(warehouse, start(lambda: list(fetch(job))))
    return [dict(row.items()) for row in rows]


def fetch(job: bigquery.QueryJob) -> RowIterator | _EmptyRowIterator:
    """The rows of a finished job."""
    return job.result(retry=retry(), timeout=HTTP_SECONDS, job_retry=None)


def run_statement(
    warehouse: Warehouse, step: str, sql: str, parameters: Sequence[Parameter] = ()
) -> bigquery.QueryJob:
    """Run a statement and return its job when it has succeeded: see `run_job`."""
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(
        query_parameters=list(parameters),
        labels={"app": "posthog-etl", "step": step[:63]},
        use_query_cache=False,
    )
    if warehouse.settings.max_bytes_billed is not None:
        config.maximum_bytes_billed = warehouse.settings.max_bytes_billed

    def submit(job_id: str) -> bigquery.QueryJob:
        return warehouse.clients.bigquery.query(
            sql,
            job_config=config,
            job_id=job_id,
            location=warehouse.settings.location,
            job_retry=None,
            retry=retry(),
            timeout=HTTP_SECONDS,
        )

    job = run_job(warehouse, step, submit)
    warehouse.usage.append((step, job.total_bytes_billed or 0))
    return job


def estimate_bytes(
    warehouse: Warehouse, step: str, sql: str, parameters: Sequence[Parameter] = ()
) -> int:
    """The bytes that a statement would process, by a dry run: it costs nothing."""
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(
        query_parameters=list(parameters), dry_run=True, use_query_cache=False
    )
    with classified(f"a dry run of {step}", SourceError):
        job = warehouse.clients.bigquery.query(
            sql,
            job_config=config,
            location=warehouse.settings.location,
            retry=retry(),
            timeout=HTTP_SECONDS,
        )
        return job.total_bytes_processed or 0


def run_job[Job: (bigquery.QueryJob, bigquery.LoadJob)](
    warehouse: Warehouse, step: str, submit: Callable[[str], Job]
) -> Job:
    """Submit a job under an id, wait, and return the job when it has succeeded.

    If the answer to a submission is lost, the job is found by its id. A job that BigQuery failed
    had no effect: if the reason is temporary, it is submitted again under another id. What stops
    the run cancels its job.
    """
    name = f"posthog_etl_{warehouse.run_id}_{step}_{uuid4().hex[:8]}"
    numbers = itertools.count(1)
    return with_retries(
        warehouse, step, lambda: _run_once(warehouse, step, f"{name}_{next(numbers)}", submit)
    )


def _run_once[Job: (bigquery.QueryJob, bigquery.LoadJob)](
    warehouse: Warehouse, step: str, job_id: str, submit: Callable[[str], Job]
) -> Job:
    from google.api_core.exceptions import Conflict, NotFound

    where: Any = {"location": warehouse.settings.location, "timeout": HTTP_SECONDS}
    client = warehouse.clients.bigquery

    def work() -> Job:
        try:
            job = submit(job_id)
        except Conflict:  # it exists; BigQuery may take a moment to find it
            job = cast("Job", client.get_job(job_id, retry=retry(NotFound), **where))
        for pause in backoff_seconds(_POLL_SECONDS, _LONGEST_POLL_SECONDS):
            if job.done(retry=retry(), timeout=HTTP_SECONDS):
                break
            time.sleep(pause)
        if failure := job.exception():
            failure.job_id = job_id
            # A query that fails midway may bill all the same.
            warehouse.usage.append((step, getattr(job, "total_bytes_billed", None) or 0))
            raise failure
        return job

    outcome = start(work)
    try:
        return wait_for(warehouse, outcome)
    finally:
        if not outcome.done():
            start(lambda: client.cancel_job(job_id, retry=retry(NotFound), **where))

"""Two emulators beside each other: what their jobs answer, in a form that can be compared."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bigquery.clients import local_clients
from sandbox import emulator
from sandbox.server import FAST
from tests.scenario import BOOKKEEPING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud import bigquery

    from bigquery.clients import Clients

_RUN_ID = re.compile(r"\d{8}T\d{6}_[0-9a-f]{8}")
_ABOUT_NOW = timedelta(hours=1)
# Seconds and bytes, when a table was made, and what its storage knows of changes.
_OF_ITS_OWN = {"report", "sessions_created_at", "stamp"}


@contextmanager
def clients_of(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """The clients of an emulator of that kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FAST, "1" if kind == "fast" else "0")
        with (
            emulator.attach(tmp_path_factory.mktemp(kind)) as endpoints,
            closing(local_clients(endpoints)) as found,
        ):
            yield found


def reported(value: object) -> object:
    """A cell without what differs from run to run."""
    if isinstance(value, str):
        return _RUN_ID.sub("RUN", value)
    if isinstance(value, datetime) and value.tzinfo:
        return "now" if abs(datetime.now(UTC) - value) < _ABOUT_NOW else value
    if isinstance(value, dict):
        return {name: reported(each) for name, each in value.items() if name not in _OF_ITS_OWN}
    return [reported(each) for each in value] if isinstance(value, list) else value


def answer(client: bigquery.Client, job: Any) -> str:  # noqa: ANN401 - of any type
    """What a job tells its client: the kind of its error, how many rows it changed, or its rows."""
    if job.error_result:
        return f"{job.job_type}: {job.error_result['reason']}"
    if job.job_type != "query" or job.statement_type != "SELECT":
        return f"{job.job_type}: {getattr(job, 'num_dml_affected_rows', None)}"
    found: Any = client.get_job(job.job_id).result()
    columns = [(each.name, each.field_type, each.mode) for each in found.schema]
    return f"{columns}: {sorted(repr(reported(dict(row.items()))) for row in found)}"


def answers_since(client: bigquery.Client, start: datetime) -> dict[str, list[str]]:
    """What every job of runs answers, by step."""
    found = defaultdict(list)
    for job in client.list_jobs():
        if "step" in job.labels and job.created >= start:
            found[job.labels["step"]].append(answer(client, job))
    found["lease"] = list(set(found["lease"]))  # a slow run renews it more often
    return {step: sorted(jobs) for step, jobs in found.items()}


def readers_tables(client: bigquery.Client, dataset: str) -> dict[str, list[str]]:
    """The rows of every table for readers, bookkeeping left out."""
    names = ("sessions", "quarantined_sessions", "identities", "persons", "daily_activity")
    tables = {name: client.query(f"SELECT * FROM {dataset}.{name}").result() for name in names}
    return {
        name: sorted(repr({k: v for k, v in row.items() if k not in BOOKKEEPING}) for row in rows)
        for name, rows in tables.items()
    }


def unlike(fast: dict[str, list[str]], plain: dict[str, list[str]]) -> list[str]:
    """What only one of the two has, or has more often."""
    of_fast, of_plain = (
        Counter(f"{name}: {each}" for name, of in found.items() for each in of)
        for found in (fast, plain)
    )
    only = {"fast": of_fast - of_plain, "plain": of_plain - of_fast}
    return [
        f"{kind} alone, {n} times: {each}" for kind, of in only.items() for each, n in of.items()
    ]

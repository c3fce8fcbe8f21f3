"""What a job that reads an API needs in tests: fake APIs, a Redis, and datasets of its own."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import main
from bigquery.warehouse import Warehouse
from jobs.registry import find_job
from runs.request import RunRequest
from runs.settings import Settings
from sandbox.apis.anthropic import ORGANIZATION, FakeAnthropic
from sandbox.apis.valkey import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bigquery.clients import Clients
    from runs.checks import Check
    from runs.progress import Progress
    from runs.report import RunReport
    from sandbox.apis.dogs import FakeDogs
    from sandbox.apis.tmdb import FakeTmdb
    from sandbox.emulator import Endpoints

type Row = dict[str, Any]

PASSWORD = "canary-password-4711"  # noqa: S105 - of a Redis on loopback
SECRETS = {
    "ANTHROPIC_ADMIN_API_KEY": "canary-anthropic-0815",
    "TMDB_READ_TOKEN": "canary-tmdb-0815",
    "REDIS_PASSWORD": PASSWORD,
}
TABLES = {
    "claude_usage": ("claude_costs", "claude_usage_keys", "claude_code_productivity"),
    "dog_breeds": ("dog_breeds",),
    "tmdb_changes": ("etl_state_tmdb_changes",),
}
DATASETS = {"a": "aggregated", "c": "claude", "d": "dogs"}
_numbers = itertools.count(1)


def today() -> dt.date:
    """Today's date in UTC."""
    return dt.datetime.now(dt.UTC).date()


def ago(days: int) -> dt.date:
    """The date so many days before today."""
    return today() - dt.timedelta(days=days)


@dataclass(kw_only=True)
class JobScenario:
    """Fake APIs that serve, a Redis, and the datasets that runs write."""

    clients: Clients
    endpoints: Endpoints
    anthropic: FakeAnthropic
    dogs: FakeDogs
    tmdb: FakeTmdb
    redis: Any  # a client; its answers are of any type
    redis_port: int
    extra_variables: dict[str, str] = field(default_factory=dict)  # besides those below
    name: str = field(default_factory=lambda: f"j{next(_numbers)}")

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables of its runs."""
        return {
            "POSTHOG_AGGREGATED_DATASET_ID": f"{self.name}_aggregated",
            "CLAUDE_DATASET_ID": f"{self.name}_claude",
            "DOG_DATASET_ID": f"{self.name}_dogs",
            "ANTHROPIC_ORGANIZATION_ID": ORGANIZATION,
            "ANTHROPIC_BASE_URL": self.anthropic.url,
            "DOG_API_BASE_URL": f"{self.dogs.url}/v1",
            "TMDB_BASE_URL": self.tmdb.url,
            "REDIS_HOST": HOST,
            "REDIS_PORT": str(self.redis_port),
            "REDIS_TLS": "false",
            **SECRETS,
            **self.extra_variables,
        }

    def settings(self, **variables: str) -> Settings:
        """The settings of its runs."""
        return Settings.from_environment(self.environ | variables, local=True)

    def run(
        self,
        job: str,
        *,
        trigger: str | None = None,
        progress: Progress | None = None,
        variables: Mapping[str, str] | None = None,
        **fields: Any,  # noqa: ANN401 - fields of a request
    ) -> RunReport:
        """Run the job."""
        request = RunRequest(job=job, **fields)
        settings = self.settings(**(variables or {}))
        return main.main(request, settings, self.clients, trigger=trigger, progress=progress)

    def check(self, job: str) -> dict[str, Check]:
        """The checks of `--check`, by name."""
        check_job = find_job(job).check
        assert check_job is not None
        warehouse = Warehouse(clients=self.clients, settings=self.settings(), run_id="check")
        return {each.name: each for each in check_job(warehouse, dt.datetime.now(dt.UTC))}

    def query(self, sql: str) -> list[Row]:
        """The rows of a statement; {a}, {c} and {d} are the three datasets."""
        names = {key: f"{self.name}_{end}" for key, end in DATASETS.items()}
        rows = self.clients.bigquery.query(sql.format(**names)).result()
        return [dict(row.items()) for row in rows]

    def stored(self, job: str) -> dict[str, list[str]]:
        """Everything that readers see of a job, without the columns that differ between runs."""
        key = {"claude_usage": "c", "dog_breeds": "d", "tmdb_changes": "a"}[job]
        excluded = "run_id" if job == "tmdb_changes" else "ingestion_timestamp"
        tables = {
            table: sorted(
                json.dumps(row, default=str)
                for row in self.query(f"SELECT * EXCEPT ({excluded}) FROM {{{key}}}.{table}")
            )
            for table in TABLES[job]
            if self._has(f"{self.name}_{DATASETS[key]}", table)
        }
        return tables | (self.documents() if job == "tmdb_changes" else {})

    def _has(self, dataset: str, table: str) -> bool:
        datasets = {each.dataset_id for each in self.clients.bigquery.list_datasets()}
        return dataset in datasets and table in {
            each.table_id for each in self.clients.bigquery.list_tables(dataset)
        }

    def documents(self) -> dict[str, list[str]]:
        """The documents in Redis, by key."""
        return {
            key: [self.redis.execute_command("JSON.GET", key)]
            for key in sorted(self.redis.keys("*"))
        }

    def expire_lease(self, job: str) -> None:
        """Let the lease of a killed run expire now."""
        self.query(
            f"UPDATE {{a}}.etl_lease_{job} SET expires_at = TIMESTAMP '2020-01-01' WHERE TRUE"
        )

    def kill_request(self, job: str, at: str) -> str:
        """The line of input by which `tests.jobs.killed_jobs` kills this job at this point."""
        request = {
            "job": job,
            "at": at,
            "environ": self.environ,
            "endpoints": asdict(self.endpoints),
        }
        return f"{json.dumps(request)}\n"

    def drop(self) -> None:
        """Delete its documents and its datasets, which would slow the emulator."""
        for end in DATASETS.values():
            self.clients.bigquery.delete_dataset(
                f"{self.name}_{end}", delete_contents=True, not_found_ok=True
            )
        self.redis.flushall()

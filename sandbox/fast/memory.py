"""What the emulator knows of jobs, datasets and tables, in the process instead of a database.

Written for local-bigquery 0.3.2: its `jobs.store`, `catalog.metadata` and `resource`.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from local_bigquery.catalog import iam, metadata, row_access
from local_bigquery.engine.database import RESOURCES
from local_bigquery.jobs import store
from local_bigquery.models import Job, JobStatistics, JobStatistics2, RowAccessPolicy, Table
from local_bigquery.sql import translate
from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_bigquery.models import Policy
    from local_bigquery.resource import Resource


def keep_in_memory() -> None:
    """Put dictionaries in the place of the tables."""
    jobs = _Jobs(store.save, store.delete)
    translate.STATEMENT_RULES.insert(0, jobs.before_statement)
    store.save, store.load = jobs.save, jobs.load
    store.list_, store.delete = jobs.find, jobs.delete
    resources = _Resources(metadata.delete, iam.set_)
    metadata.save, metadata.load = resources.save, resources.load
    metadata.list_, metadata.delete = resources.find, resources.delete
    row_access.secured = resources.secured
    iam.set_ = resources.set_policy
    for model in (Job, JobStatistics, JobStatistics2, Table):
        model.replace = _replaced


def _replaced[R: Resource](resource: R, **changes: object) -> R:
    """Another one with these values, which shares what stays instead of checking it once more.

    A job's statement and its parameters stay, and a script has a job for each of its statements.
    """
    changed = type(resource).model_validate(changes)
    values = {name: value for name, value in vars(resource).items() if value is not None}
    values |= {name: getattr(changed, name) for name in changed.model_fields_set}
    replaced: R = resource.model_copy(update=values)
    return replaced


class _Jobs:
    """The jobs by project and id. INFORMATION_SCHEMA.JOBS reads the database's table of them."""

    def __init__(
        self, store_job: Callable[[Job], Job], delete_stored: Callable[[str, str], None]
    ) -> None:
        self._store_job = store_job
        self._delete_stored = delete_stored
        self._jobs: dict[tuple[str, str], Job] = {}
        self._not_stored: dict[tuple[str, str], Job] = {}

    def save(self, job: Job) -> Job:
        key = (job.jobReference.projectId, job.jobReference.jobId)
        self._jobs[key] = self._not_stored[key] = job
        return job

    def load(self, project_id: str, job_id: str) -> Job | None:
        return self._jobs.get((project_id, job_id))

    def find(
        self,
        project_id: str,
        states: list[str] | None = None,
        parent_job_id: str | None = None,
        min_creation_time: int | None = None,
        max_creation_time: int | None = None,
    ) -> list[Job]:
        found = [
            (-created, job_id, job)
            for (project, job_id), job in list(self._jobs.items())
            if project == project_id
            and job.statistics.parentJobId == parent_job_id
            and (states is None or job.status.state in states)
            and (created := int(job.statistics.creationTime)) >= (min_creation_time or 0)
            and (max_creation_time is None or created <= max_creation_time)
        ]
        return [job for _, _, job in sorted(found, key=lambda each: each[:2])]

    def delete(self, project_id: str, job_id: str) -> None:
        for key, job in list(self._jobs.items()):
            if key[0] == project_id and job_id in (key[1], job.statistics.parentJobId):
                del self._jobs[key]
                self._not_stored.pop(key, None)
        self._delete_stored(project_id, job_id)

    def before_statement(self, tree: exp.Expression, _context: object) -> exp.Expression:
        """A rule that changes no statement, but stores the jobs where one reads them."""
        if any("JOBS" in f"{table.db}.{table.name}".upper() for table in tree.find_all(exp.Table)):
            while self._not_stored:
                self._store_job(self._not_stored.popitem()[1])
        return tree


class _Resources:
    """Datasets, tables and the like: by their model, then by project, dataset, table and so on."""

    def __init__(
        self,
        delete_stored: Callable[..., None],
        set_policy: Callable[[str, Policy], Policy],
    ) -> None:
        self._delete_stored = delete_stored
        self._set_policy = set_policy
        self._has_policies = False
        self._resources: dict[type[Resource], dict[tuple[str, ...], Resource]] = {
            model: {} for model in metadata.KINDS
        }

    def save(self, resource: Resource, *keys: str) -> Resource:
        model = type(resource)
        body = {key: value for key, value in resource.dump().items() if key != "etag"}
        text = json.dumps(body, sort_keys=True)
        etag = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        self._resources[model][keys] = model.model_validate(body | {"etag": etag})
        return resource.replace(etag=etag)

    def load(self, model: type[Resource], *keys: str) -> Resource | None:
        return next(iter(self.find(model, *keys)), None)

    def find(self, model: type[Resource], *keys: str) -> list[Resource]:
        kept = self._resources[model]
        if len(keys) == len(RESOURCES[metadata.KINDS[model]]):
            return [kept[keys]] if keys in kept else []
        return [each for key, each in list(kept.items()) if key[: len(keys)] == keys]

    def delete(self, model: type[Resource], *keys: str) -> None:
        kept = self._resources[model]
        for key in list(kept):
            if key[: len(keys)] == keys:
                kept.pop(key, None)
        if self._has_policies:  # they are in the database, and go with what they are about
            self._delete_stored(model, *keys)

    def set_policy(self, resource: str, policy: Policy) -> Policy:
        self._has_policies = True
        return self._set_policy(resource, policy)

    def secured(self) -> frozenset[tuple[str, ...]]:
        """The tables with policies of access to rows."""
        return frozenset(key[:3] for key in list(self._resources[RowAccessPolicy]))

"""The job `dog_breeds`: every breed of The Dog API, replaced as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from apis import publication
from apis.dogs import BASE_URL, dog_api, read_breeds
from apis.http import ApiClient
from apis.loading import ensure_tables, stage_rows
from apis.tables import DOG_BREEDS, DOG_BREEDS_STAGED
from bigquery.destination import find_table
from bigquery.jobs import run_query
from bigquery.secrets import read_secret
from config.schedules import usual_age
from process_dog_breeds import breed_rows
from runs.checks import Check, check_last_run
from runs.errors import DestinationError
from runs.job import Job, Step
from runs.ledger_row import last_successes
from runs.report import RunReport

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from apis.http import Api
    from apis.records import RawBreed
    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse
    from runs.context import Run
    from runs.report import RunStatus
    from runs.settings import Settings

NAME: Final = "dog_breeds"
_TABLE: Final = "dog_breeds"


@dataclass(frozen=True, slots=True, kw_only=True)
class DogBreedsReport(RunReport):
    """What a run of the job did."""

    log_names: ClassVar[tuple[str, ...]] = ("breeds",)

    breeds: Mapping[str, int] = field(default_factory=dict)
    """`stored_before` and `staged`."""

    @property
    def figures(self) -> Mapping[str, Mapping[str, int]]:
        """The breeds there were, and those there are now."""
        return {"breeds": self.breeds}


@dataclass(kw_only=True)
class BreedsWork:
    """What a run of the job has found so far."""

    run: Run
    found: list[RawBreed] = field(default_factory=list)
    breeds: dict[str, int] = field(default_factory=dict)

    @property
    def table(self) -> TableId:
        """The table that is replaced."""
        return _table(self.run.warehouse)

    def report(self, status: RunStatus, error: str | None = None) -> DogBreedsReport:
        """What the run has done so far, under this status."""
        return DogBreedsReport(**self.run.head(status, error), breeds=dict(self.breeds))


def _table(warehouse: Warehouse) -> TableId:
    return warehouse.table(_TABLE, dataset=warehouse.settings.dog_dataset_id)


def _ensure_destination(work: BreedsWork) -> None:
    ensure_tables(work.run, work.run.settings.dog_dataset_id, {_TABLE: DOG_BREEDS})


def _read(work: BreedsWork) -> None:
    """The whole list, and its rows in a staging table."""
    run = work.run
    with ApiClient(_api(run.settings), check=run.check) as client:
        work.found = read_breeds(client, run.settings.dog_api_endpoint)
    run.counts["breeds"] = len(work.found)
    run.progress.batch(1, 1, len(work.found))
    stage_rows(run, _TABLE, breed_rows(work.found, now=run.started_at), DOG_BREEDS_STAGED)


def _api(settings: Settings) -> Api:
    name = settings.dog_secret_name
    key = read_secret(settings, name, setting="DOG_API_SECRET_NAME") if name else None
    return dog_api(key, base_url=settings.dog_base_url or BASE_URL)


def _audit(work: BreedsWork) -> None:
    """Count the staged rows, and compare them with the list and with what is stored."""
    run = work.run
    sql = publication.breeds_audit_sql(run.staged[_TABLE].sql, work.table.sql)
    figures = run_query(run.warehouse, "audit", sql, refused_as=DestinationError)[0]
    work.breeds = {"stored_before": figures["stored"], "staged": figures["row_count"]}
    publication.check_breeds(figures, reported=len(work.found), is_forced=run.request.force)


def _publish(work: BreedsWork) -> None:
    """Replace the table in one transaction."""
    replacement = publication.Replacement(
        table=work.table.sql,
        staged=work.run.staged[_TABLE].sql,
        schema=DOG_BREEDS,
        expressions=publication.BREED_EXPRESSIONS,
    )
    sql = publication.replace_window_sql(work.run.lease.sql, [replacement], None)
    work.run.publish("publish", sql)


def _check(warehouse: Warehouse, now: datetime) -> list[Check]:
    """How many breeds there are, each once, and when they were last read."""
    table = _table(warehouse)
    if find_table(warehouse, table) is None:
        message = f"Table {table} does not exist yet: run main.py --job {NAME}, without --check."
        raise DestinationError(message)
    sql = publication.breeds_check_sql(table.sql)
    figures = run_query(warehouse, "check", sql, refused_as=DestinationError)[0]
    last = last_successes(warehouse).get(NAME, {})
    return [
        Check(
            name="destination",
            outcome="ok" if figures["row_count"] else "failed",
            message=f"{figures['row_count']} breeds in {table}.",
        ),
        Check(
            name="unique keys",
            outcome="failed" if figures["repeated_keys"] else "ok",
            message=f"{figures['repeated_keys']} rows repeat a breed.",
        ),
        check_last_run(
            last.get("finished_at"), last.get("run_id"), now, job=NAME, fresh=usual_age(NAME)
        ),
    ]


JOB: Final = Job(
    name=NAME,
    description="Every breed of The Dog API, with its original element.",
    begin=lambda run: BreedsWork(run=run),
    steps=(
        Step(name="destination", work=_ensure_destination),
        Step(name="read", work=_read),
        Step(name="audit", work=_audit),
        Step(name="publish", work=_publish, publishes=True),
    ),
    report_type=DogBreedsReport,
    check=_check,
    destination=_table,
    unit="breeds",
    options=frozenset(),
    local_needs=("DOG_API_BASE_URL",),
)

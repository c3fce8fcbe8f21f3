"""A job's lease, held in one row of BigQuery: taking, renewing and releasing it, and the fence."""

from __future__ import annotations

import random
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from bigquery.destination import list_rows
from bigquery.jobs import rows_of, run_query, run_statement
from bigquery.parameters import records, scalar
from bigquery.refusals import ConflictError, StatementError, classified
from bigquery.retries import LOG, pause_for
from runs.errors import DestinationError, LeaseLostError, RunTimeoutError, UnavailableError
from runs.lease_sql import (
    Lease,
    create_lease_sql,
    release_lease_sql,
    renew_lease_sql,
    settle_lease_sql,
    take_lease_sql,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bigquery.parameters import Parameter
    from bigquery.tables import TableId
    from bigquery.warehouse import Warehouse

# Pauses between six attempts at a conflicting transaction, each with jitter.
_PAUSES_SECONDS: Final = (2.0, 5.0, 10.0, 20.0, 20.0)

_COLUMNS: Final = frozenset({"fence", "run_id", "expires_at", "published_run_id", "triggers"})


def lease_table(warehouse: Warehouse, job: str) -> TableId:
    """The table that holds the job's lease."""
    return warehouse.table(f"etl_lease_{job}")


def triggers_parameter(triggers: Mapping[str, str]) -> Parameter:
    """@triggers: deliveries, each with the run that settled it."""
    return records("triggers", {"trigger": "STRING", "run_id": "STRING"}, triggers.items())


@contextmanager
def contended(what: str) -> Iterator[None]:
    """If two runs change the same row, BigQuery rejects one of the two statements."""
    try:
        yield
    except StatementError as error:
        message = f"The row of {what} was changed at the same moment: run again."
        raise UnavailableError(message) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """The lease of one job, as one run takes, holds and releases it."""

    warehouse: Warehouse
    job: str

    @property
    def sql(self) -> str:
        """The table's name in SQL."""
        return lease_table(self.warehouse, self.job).sql

    def take(self) -> Lease:
        """Try to take the lease; returns it as it is then, ours or another run's.

        If it became free during the try, there is a second one. BigQuery's clock decides whether it
        is free: this machine's may be wrong.
        """
        if self._find() is None:
            with suppress(StatementError):  # another first run is creating it at this moment
                self._query(create_lease_sql(self.sql, self.job))
        parameters = [scalar("run_id", "STRING", self.warehouse.run_id), self._seconds]
        lease = self._try_to_take(parameters)
        return self._try_to_take(parameters) if lease.run_id is None else lease

    def _try_to_take(self, parameters: Sequence[Parameter]) -> Lease:
        # Another run is taking or releasing the lease: the row shows which run has it.
        with suppress(StatementError):
            self._query(take_lease_sql(self.sql), parameters)
        return self.read()

    def read(self) -> Lease:
        """The lease as it is."""
        lease = self._find()
        if lease is None:
            message = f"Table {lease_table(self.warehouse, self.job)} is gone: run again."
            raise DestinationError(message)
        return lease

    def _find(self) -> Lease | None:
        rows = list_rows(self.warehouse, lease_table(self.warehouse, self.job))
        if rows is None:
            return None
        if len(rows) != 1 or _COLUMNS - rows[0].keys():
            message = (
                f"Table {lease_table(self.warehouse, self.job)} has {len(rows)} rows, or lacks a"
                f" column, and needs one row of {', '.join(sorted(_COLUMNS))}: drop it, and run"
                " again."
            )
            raise DestinationError(message)
        row = rows[0]
        return Lease(
            triggers={each["trigger"]: each["run_id"] for each in row["triggers"]},
            **{name: row[name] for name in ("fence", "run_id", "expires_at", "published_run_id")},
        )

    def renew(self, fence: int) -> bool:
        """Renew the lease for its full time; False if it is no longer ours."""
        parameters = [*self.parameters(fence), self._seconds]
        with contended("the lease"), classified("the lease", DestinationError):
            renewed = run_statement(self.warehouse, "lease", renew_lease_sql(self.sql), parameters)
        return renewed.num_dml_affected_rows == 1

    def release(
        self,
        fence: int,
        *,
        triggers: Parameter | None = None,
        first: tuple[str, Sequence[Parameter]] | None = None,
    ) -> None:
        """Release the lease, if it is ours.

        `triggers`: deliveries to record as not worth another attempt. `first`: a statement of
        this run to execute before that, in the same job.
        """
        to_settle = [] if triggers is None else [triggers]
        release = settle_lease_sql(self.sql) if to_settle else release_lease_sql(self.sql)
        sql, given = first or ("", ())
        values = {each.name: each for each in [*given, *self.parameters(fence), *to_settle]}
        with contended("the lease"):
            self._query(f"{sql};\n{release};" if first else release, list(values.values()))

    def parameters(self, fence: int) -> list[Parameter]:
        """@run_id and @fence, which say whose lease it is."""
        return [
            scalar("run_id", "STRING", self.warehouse.run_id),
            scalar("fence", "INT64", fence),
        ]

    def transact(
        self, step: str, sql: str, parameters: Sequence[Parameter], *, fence: int, publishes: bool
    ) -> list[dict[str, Any]]:
        """Run a transaction that needs the lease; repeat it if a concurrent change cancels it.

        With `publishes`, its commit is known from the row's `published_run_id`; else returns the
        rows of a SELECT that follows it. Raises LeaseLostError where the lease is no longer ours:
        then it did not commit.
        """
        given = [*self.parameters(fence), self._seconds, *parameters]
        for pause in (*_PAUSES_SECONDS, None):
            try:
                with classified(step, DestinationError):
                    job = run_statement(self.warehouse, step, sql, given)
                    return [] if publishes else rows_of(self.warehouse, job)
            except RunTimeoutError:
                # Its job was cancelled; only the row shows whether it had committed.
                if publishes and self._unwatched.read().published_run_id == self.warehouse.run_id:
                    return []
                raise
            except StatementError as error:
                lease = self.read()
                if publishes and lease.published_run_id == self.warehouse.run_id:
                    break
                if (lease.run_id, lease.fence) != (self.warehouse.run_id, fence):
                    message = f"Another run took the lease over at the step {step}: run again."
                    raise LeaseLostError(message) from None
                if not isinstance(error, ConflictError):
                    raise
                if pause is None:
                    message = (
                        f"Other changes cancelled the transaction {step} each time: run again."
                    )
                    raise UnavailableError(message) from error
                self._wait_out(step, pause, fence)
        return []

    def _wait_out(self, step: str, pause: float, fence: int) -> None:
        """Pause between two attempts and keep the lease; the next attempt shows if it is lost."""
        seconds = pause * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
        LOG.warning("Another change cancelled the transaction %s: again in %.1f s", step, seconds)
        pause_for(self.warehouse, seconds)
        with suppress(UnavailableError):
            self.renew(fence)

    @property
    def _unwatched(self) -> LeaseRow:
        return replace(self, warehouse=replace(self.warehouse, check=lambda: None))

    @property
    def _seconds(self) -> Parameter:
        return scalar("seconds", "INT64", self.warehouse.settings.lease_seconds)

    def _query(self, sql: str, parameters: Sequence[Parameter] = ()) -> None:
        run_query(self.warehouse, "lease", sql, parameters, refused_as=DestinationError)

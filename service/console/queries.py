"""The console's questions to BigQuery: cached, limited, and with what each has cost. No SQL."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from bigquery.destination import find_table, list_rows
from bigquery.jobs import rows_of, run_statement
from bigquery.refusals import classified
from bigquery.retries import start
from runs.errors import RunTimeoutError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bigquery.parameters import Parameter
    from bigquery.warehouse import Warehouse
    from runs.settings import Settings

type Connect = Callable[[], AbstractContextManager[Warehouse]]

_LONGEST_SECONDS: Final = 60.0  # people don't wait longer for a page
_KEPT: Final = 128  # answers
_LOOKED_SECONDS: Final = 2.0  # whether there was another run is asked this often at most
_TIB: Final = 2**40


class NothingYetError(Exception):
    """There is no table `sessions`: no run has published so far. A page says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The rows of a question, and what they cost; an answer from the cache costs nothing."""

    rows: tuple[Mapping[str, Any], ...] = ()
    sql: str = ""
    bytes_billed: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    is_cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading[T](Answer):
    """What several statements have found, with what they cost."""

    found: T


class Queries:
    """Asks BigQuery, and remembers the answers until the next run of the sessions job."""

    def __init__(self, settings: Settings, connect: Connect) -> None:
        self._settings = settings
        self._connect = connect
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[object, ...], Answer] = OrderedDict()
        self._is_there = False
        self._fence: int | None = None
        self._looked_at = -math.inf

    def ask(self, name: str, sql: str, parameters: Sequence[Parameter] = ()) -> Answer:
        """The answer. Raises NothingYetError before the first run, else an EtlError that helps."""
        key = (sql, repr([each.to_api_repr() for each in parameters]))
        return self._remembered(key, lambda: self._fresh(name, sql, parameters))

    def read[T](self, name: str, key: str | None, work: Callable[[Warehouse], T]) -> Reading[T]:
        """What the work finds in BigQuery, by several statements.

        It is remembered under the key as `ask` remembers an answer; without one it is not.
        """
        if key is None:
            return self._read(name, work)
        return self._remembered((name, key), lambda: self._read(name, work))

    def _remembered[A: Answer](self, question: tuple[str, str], fresh: Callable[[], A]) -> A:
        fence = self._current_fence()
        key = (fence, *question)
        with self._lock:
            known = self._answers.get(key)
        if known is not None:
            return cast("A", replace(known, is_cached=True, bytes_billed=0, cost_usd=0.0))
        answer = fresh()
        if fence is not None:
            self._keep(key, answer)
        return answer

    def start(
        self, name: str, sql: str, parameters: Sequence[Parameter] = ()
    ) -> Callable[[], Answer]:
        """Ask while something else is asked; call it for the answer."""
        return start(partial(self.ask, name, sql, parameters)).result

    def check(self) -> None:
        """Raise NothingYetError before the first run, so that it is not raised by several."""
        self._current_fence()

    def _keep(self, key: tuple[object, ...], answer: Answer) -> None:
        with self._lock:
            self._answers[key] = answer
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)

    def _current_fence(self) -> int | None:
        """A number that grows with every run; None while one is in progress. Bills nothing."""
        if time.monotonic() - self._looked_at > _LOOKED_SECONDS:
            with self._connect() as warehouse:
                self._check_is_there(warehouse)
                rows = list_rows(warehouse, warehouse.table("etl_lease_sessions"))
            lease = rows[0] if rows else {"fence": None, "run_id": None}
            self._fence = None if lease["run_id"] else lease["fence"]
            self._looked_at = time.monotonic()
        return self._fence

    def _check_is_there(self, warehouse: Warehouse) -> None:
        if not self._is_there:
            self._is_there = find_table(warehouse, warehouse.table("sessions")) is not None
        if not self._is_there:
            message = "No run has published any session so far: start one."
            raise NothingYetError(message)

    def _fresh(self, name: str, sql: str, parameters: Sequence[Parameter]) -> Answer:
        def work(warehouse: Warehouse) -> tuple[Mapping[str, Any], ...]:
            job = run_statement(warehouse, f"console_{name}", sql, parameters)
            return tuple(rows_of(warehouse, job))

        reading = self._read(name, work)
        return Answer(
            rows=reading.found,
            sql=sql,
            bytes_billed=reading.bytes_billed,
            cost_usd=reading.cost_usd,
            seconds=reading.seconds,
        )

    def _read[T](self, name: str, work: Callable[[Warehouse], T]) -> Reading[T]:
        started = time.monotonic()
        with self._connect() as shared, classified(name, SourceError):
            warehouse = replace(shared, usage=[], check=partial(_check, started))
            found = work(warehouse)
        billed = warehouse.bytes_billed
        return Reading(
            found=found,
            bytes_billed=billed,
            cost_usd=billed / _TIB * self._settings.usd_per_tib,
            seconds=time.monotonic() - started,
        )

    def estimate(self, sql: str, parameters: Sequence[Parameter] = ()) -> tuple[int, float]:
        """The bytes and dollars that a statement would take, by a dry run, which bills nothing."""
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(
            dry_run=True, use_query_cache=False, query_parameters=list(parameters)
        )
        with self._connect() as warehouse, classified("estimate", SourceError):
            job = warehouse.clients.bigquery.query(
                sql, job_config=config, location=self._settings.location
            )
        amount = job.total_bytes_processed or 0
        return amount, amount / _TIB * self._settings.usd_per_tib


def _check(started: float) -> None:
    """Stop a question that takes too long; its job is cancelled."""
    if time.monotonic() - started > _LONGEST_SECONDS:
        message = f"The question took over {_LONGEST_SECONDS:.0f} s: ask for fewer days."
        raise RunTimeoutError(message)

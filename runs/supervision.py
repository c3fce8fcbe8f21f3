"""What may stop a run: a lost lease, its deadline, or SIGTERM. Owns the renewing thread.

`Supervisor.check()` is called between steps, between batches and while BigQuery works. The thread
pauses while the run publishes.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from runs.errors import AbortedError, EtlError, LeaseHeldError, LeaseLostError, RunTimeoutError
from runs.log import LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bigquery.parameters import Parameter
    from runs.lease_row import LeaseRow
    from runs.lease_sql import Lease

STOP: Final = threading.Event()
"""Set by SIGTERM: every run of this process stops."""

_PUBLICATION_SECONDS: Final = 600.0  # of a transaction: as a rule it takes seconds
_POLL_SECONDS: Final = 1.0  # while another run holds the lease


class Supervisor:
    """Watches one run from the moment it has taken the lease of its job."""

    def __init__(self, row: LeaseRow, lease: Lease, *, requested_at: float) -> None:
        """`asked`: when the lease was asked for, by the monotonic clock."""
        settings = row.warehouse.settings
        self.fence = lease.fence
        self.triggers = lease.triggers
        self._row = row
        self._timeout_seconds = settings.timeout_seconds
        self._deadline = time.monotonic() + settings.timeout_seconds
        self._lease_seconds = settings.lease_seconds
        self._outcome = "nothing was published"
        self._settled: Parameter | None = None
        self._ending: tuple[str, Sequence[Parameter]] | None = None
        self._renewed = requested_at
        self._is_lost = threading.Event()
        self._is_over = threading.Event()
        self._renewing = threading.Lock()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._renew_until_over,), daemon=True
        )

    def check(self) -> None:
        """Raise what stops the run, if anything does."""
        if self._is_lost.is_set():
            message = f"Another run took the lease over: {self._outcome}, run again."
            raise LeaseLostError(message)
        if STOP.is_set():
            message = f"The run was told to stop: {self._outcome}, run again."
            raise AbortedError(message)
        if time.monotonic() > self._deadline:
            message = (
                f"The run took longer than {self._timeout_seconds} s: "
                f"{self._outcome}; raise ETL_TIMEOUT_SECONDS, or load fewer days at a time."
            )
            raise RunTimeoutError(message)

    def set_stop_message(self, outcome: str) -> None:
        """Set the work's outcome so far, for the message of what stops the run."""
        self._outcome = outcome

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Pause renewals while publishing, since they would conflict; renew before if due."""
        with self._renewing:
            if time.monotonic() - self._renewed > self._lease_seconds / 4:
                requested_at = time.monotonic()
                if self._row.renew(self.fence):
                    self._renewed = requested_at
                else:
                    self._is_lost.set()
            self.check()  # last check: from here to the commit only the fence decides
            requested_at = time.monotonic()
            yield
            self._renewed = requested_at  # the transaction holds the lease for its full time, too
            self._outcome = "what it published stands, and what follows from it is missing"

    def settle(self, triggers: Parameter) -> None:
        """Record these deliveries when the lease is released: other attempts would fail too."""
        self._settled = triggers

    def set_final_statement(self, sql: str, parameters: Sequence[Parameter]) -> None:
        """Run this statement, which says how the run ended, right before the lease is released."""
        self._ending = sql, parameters

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        with self._renewing:
            if self._ending and self._is_released(first=self._ending):
                return
            self._is_released()

    def _is_released(self, *, first: tuple[str, Sequence[Parameter]] | None = None) -> bool:
        """Release the lease; where that fails, it expires."""
        try:
            self._row.release(self.fence, triggers=self._settled, first=first)
        except EtlError as error:
            what = "the ledger could not be written" if first else "the lease could not be released"
            LOG.warning("%s: %s", what, error)
            return False
        return True

    def _renew_until_over(self) -> None:
        while not self._is_over.wait(self._lease_seconds / 4):
            with self._renewing:
                if self._is_over.is_set():
                    return
                requested_at = time.monotonic()
                try:
                    is_ours = self._row.renew(self.fence)
                except Exception as error:  # noqa: BLE001 - tried again until the lease runs out
                    LOG.warning("the lease could not be renewed: %s", type(error).__name__)
                    is_ours = requested_at - self._renewed < self._lease_seconds
                else:
                    self._renewed = requested_at
                if not is_ours:
                    self._is_lost.set()
                    return


def check_stopped() -> None:
    """Raise AbortedError if this process was told to stop, where there is no run yet or none."""
    if STOP.is_set():
        message = "It was told to stop before it did anything: run again."
        raise AbortedError(message)


def check_publication() -> Callable[[], None]:
    """A check that raises if a publication takes too long; nothing else may stop it."""
    deadline = time.monotonic() + _PUBLICATION_SECONDS

    def check() -> None:
        if time.monotonic() > deadline:
            message = (
                f"Publishing took longer than {_PUBLICATION_SECONDS:.0f} s and was cancelled:"
                " nothing was published, run again."
            )
            raise RunTimeoutError(message)

    return check


def take_lease(row: LeaseRow) -> Supervisor:
    """Take the lease, waiting as long as the settings allow; returns the run's supervisor.

    Raises LeaseHeldError, which names who holds it and until when.
    """
    give_up_at = time.monotonic() + row.warehouse.settings.lease_wait_seconds
    requested_at = time.monotonic()
    lease = row.take()
    while lease.run_id != row.warehouse.run_id:
        if STOP.is_set() or time.monotonic() >= give_up_at:
            raise LeaseHeldError(held(lease))
        time.sleep(_POLL_SECONDS)
        requested_at = time.monotonic()
        lease = row.read()  # which bills nothing; an update could cancel a publication
        if not lease.is_held(datetime.now(UTC)) or requested_at >= give_up_at:
            lease = row.take()
    return Supervisor(row, lease, requested_at=requested_at)


def held(lease: Lease) -> str:
    """Why a run did not get the lease."""
    if lease.run_id is None:  # free since this run tried to take it
        return "Another run held the lease until this moment: run again."
    until = f" until {lease.expires_at:%Y-%m-%d %H:%M:%S} UTC" if lease.expires_at else ""
    return (
        f"Run {lease.run_id} holds the lease{until}: wait for it to end, or set LEASE_WAIT_SECONDS."
    )

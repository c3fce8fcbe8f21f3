"""The lease of a job: one row that only one run at a time may hold, as SQL text. Pure.

The row is inserted once and then only updated: in BigQuery two updates of one row conflict, and two
inserts do not. `fence` grows with every run that takes the lease, so a replaced run can be
distinguished from its replacement. Expiry uses BigQuery's time, so the clocks of two machines need
not agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

_MAX_TRIGGERS = 100  # a scheduler repeats a delivery within hours
_HELD = "expires_at = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL @seconds SECOND)"
_ASSERTION = "ASSERT @@row_count = 1 AS 'the lease was lost'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who holds a job's lease, and until when; nobody where `run_id` is None.

    `published_run_id`: the last run whose publication committed. `triggers`: the run that settled
    each of the latest scheduled deliveries: it succeeded, or failed for a reason that stays.
    """

    fence: int
    run_id: str | None
    expires_at: dt.datetime | None
    published_run_id: str | None
    triggers: Mapping[str, str]

    def is_held(self, now: dt.datetime) -> bool:
        """Whether a run holds it by the caller's clock; only BigQuery's clock decides."""
        return self.run_id is not None and self.expires_at is not None and self.expires_at >= now


def create_lease_sql(lease: str, job: str) -> str:
    """Create the table with its one row; repeating the statement changes nothing."""
    return f"""CREATE TABLE IF NOT EXISTS {lease} AS
SELECT
  '{job}' AS job, 0 AS fence,
  CAST(NULL AS STRING) AS run_id, CAST(NULL AS TIMESTAMP) AS expires_at,
  CAST(NULL AS STRING) AS published_run_id,
  ARRAY<STRUCT<trigger STRING, run_id STRING>>[] AS triggers"""


def take_lease_sql(lease: str) -> str:
    """Take the lease for @run_id and @seconds, if it is free or has expired."""
    return f"""UPDATE {lease}
SET
  fence = fence + 1,
  run_id = @run_id,
  {_HELD}
WHERE run_id IS NULL OR expires_at < CURRENT_TIMESTAMP()"""


def renew_lease_sql(lease: str) -> str:
    """Renew the lease for @seconds, if it still belongs to @run_id and @fence."""
    return f"""UPDATE {lease}
SET {_HELD}
WHERE run_id = @run_id AND fence = @fence"""


def release_lease_sql(lease: str) -> str:
    """Release the lease, if it still belongs to @run_id and @fence."""
    return f"""UPDATE {lease}
SET run_id = NULL, expires_at = NULL
WHERE run_id = @run_id AND fence = @fence"""


def settle_lease_sql(lease: str) -> str:
    """Release the lease after a permanent failure, and store the delivery in @triggers."""
    return f"""UPDATE {lease}
SET run_id = NULL, expires_at = NULL, triggers = @triggers
WHERE run_id = @run_id AND fence = @fence"""


def hold_lease_sql(lease: str) -> list[str]:
    """The statements that end a transaction unless the lease is still that of @run_id and @fence.

    An UPDATE, not a SELECT: a run that takes the lease at the same time conflicts with it. It
    commits with the transaction and so records that this run has published; a repeated
    transaction ends here.
    """
    return [
        f"""UPDATE {lease}
SET
  published_run_id = @run_id,
  {_HELD}
WHERE run_id = @run_id AND fence = @fence AND IFNULL(published_run_id != @run_id, TRUE)""",
        _ASSERTION,
    ]


def complete_sql(lease: str) -> list[str]:
    """The same for the last transaction of a run, which also stores @triggers as done."""
    return [
        f"""UPDATE {lease}
SET
  triggers = @triggers,
  {_HELD}
WHERE run_id = @run_id AND fence = @fence""",
        _ASSERTION,
    ]


def fenced_sql(lease: str, statements: Iterable[str]) -> str:
    """One transaction for a job that publishes once: both of the above, and its statements."""
    held = f"""UPDATE {lease}
SET
  published_run_id = @run_id,
  triggers = @triggers,
  {_HELD}
WHERE run_id = @run_id AND fence = @fence AND IFNULL(published_run_id != @run_id, TRUE)"""
    every = ["BEGIN TRANSACTION", held, _ASSERTION, *statements, "COMMIT TRANSACTION"]
    return ";\n".join(every) + ";"


def with_trigger(triggers: Mapping[str, str], trigger: str, run_id: str) -> dict[str, str]:
    """The triggers plus one, without the oldest."""
    latest = list(triggers.items())[-(_MAX_TRIGGERS - 1) :]
    return dict([*latest, (trigger, run_id)])

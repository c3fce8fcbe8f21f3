"""Queries of the run ledger: pages of runs, one run, each job's last success. SQL text. Pure.

A row that says `running` counts only while its run holds the lease, since a killed run does not
update its row.
"""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from runs.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_PAGE: Final = 100
_RUN_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}_[0-9a-f]{8}")
_NAMES: Final = ("limit", "before")


def is_run_id(text: str) -> bool:
    """Whether the text is a run's id; ids sort by the start of their runs."""
    return _RUN_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsRequest:
    """A page of the ledger, newest first: `limit` runs, all older than `before`."""

    limit: int = 20
    before: str | None = None
    """The id of a run; None: from the newest."""

    def __post_init__(self) -> None:
        """Raise a RequestError for values that name no page."""
        if not 1 <= self.limit <= LONGEST_PAGE:
            message = f"limit must be a whole number from 1 to {LONGEST_PAGE}, or left out."
            raise RequestError(message)
        if self.before is not None and not is_run_id(self.before):
            message = "before must be the id of a run, as GET /runs gives it, or left out."
            raise RequestError(message)

    @classmethod
    def from_query(cls, query: Mapping[str, Sequence[str]]) -> Self:
        """Read a GET's parameters, each a list of values: known names, each at most once."""
        for name, values in query.items():
            if name not in _NAMES or len(values) != 1:
                message = (
                    f"There is no parameter {reprlib.repr(name)} there, or it stands twice:"
                    f" use {' and '.join(_NAMES)}, once at most."
                )
                raise RequestError(message)
        limit = query["limit"][0] if "limit" in query else str(cls().limit)
        return cls(
            limit=int(limit) if re.fullmatch(r"[0-9]{1,9}", limit) else 0,
            before=query["before"][0] if "before" in query else None,
        )


_IS_AHEAD: Final = "started_at > TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR)"
_STATUS_SQL: Final = "IF(r.status = 'running' AND l.run_id IS NULL, 'lost', r.status) AS status"


def _ledger_sql(ledger: str, lease: str) -> str:
    """The ledger `r` beside the lease `l` of a run that is alive."""
    return f"""FROM {ledger} AS r
LEFT JOIN {lease} AS l ON l.run_id = r.run_id AND l.expires_at > CURRENT_TIMESTAMP()"""


def leases_sql(leases: Sequence[str]) -> str:
    """Several leases as one table for a FROM clause; an empty one if there are none."""
    if len(leases) == 1:
        return leases[0]
    none = "SELECT CAST(NULL AS STRING) AS run_id, CAST(NULL AS TIMESTAMP) AS expires_at"
    selects = [none, *(f"SELECT run_id, expires_at FROM {lease}" for lease in leases)]
    return "({})".format("\n  UNION ALL ".join(selects))


def runs_sql(ledger: str, lease: str, *, limit: int) -> str:
    """A SELECT of the newest runs before @before, the newest first; those of a second by id."""
    return f"""SELECT
  r.run_id, r.job, {_STATUS_SQL},
  r.kind, r.engine, r.started_at, r.finished_at, r.error
{_ledger_sql(ledger, lease)}
WHERE @before IS NULL OR r.run_id < @before
ORDER BY r.run_id DESC
LIMIT {limit}"""


def reports_sql(ledger: str, lease: str, *, limit: int) -> str:
    """Like `runs_sql`, with each run's `report` as JSON text."""
    runs = runs_sql(ledger, lease, limit=limit)
    return runs.replace("r.finished_at, r.error\n", "r.finished_at, r.error, r.report\n")


def verifications_sql(ledger: str, *, limit: int) -> str:
    """A SELECT of the last verifications, the newest first, with `report` as JSON text."""
    return f"""SELECT run_id, status, finished_at, error, report
FROM {ledger}
WHERE kind = 'verify'
ORDER BY run_id DESC
LIMIT {limit}"""


def run_sql(ledger: str, lease: str) -> str:
    """A SELECT of the run @run_id's outcome: its `status`, and its `report` as JSON text."""
    return f"""SELECT {_STATUS_SQL}, r.report
{_ledger_sql(ledger, lease)}
WHERE r.run_id = @run_id"""


def failure_sql(ledger: str) -> str:
    """A SELECT of the error of run @run_id; no row if it succeeded."""
    return f"""SELECT error FROM {ledger}
WHERE run_id = @run_id AND status != 'succeeded'"""


def last_successes_sql(ledger: str) -> str:
    """A SELECT of each job's last run that brought everything up to date.

    Dry runs and runs with dates or a limit are incomplete, and verifications load nothing. A
    run whose clock was ahead would stay the last for as long, so it counts only if no other
    run does.
    """
    return f"""SELECT
  job, run_id, kind, finished_at,
  SAFE_CAST(JSON_VALUE(report, '$.newest_event_at') AS TIMESTAMP) AS newest_event_at
FROM {ledger}
WHERE status = 'succeeded'
  AND IFNULL(kind, '') NOT IN ('dates', 'limit', 'verify')
  AND JSON_VALUE(report, '$.dry_run') = 'false'
QUALIFY ROW_NUMBER() OVER (PARTITION BY job ORDER BY {_IS_AHEAD}, run_id DESC) = 1"""

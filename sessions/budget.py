"""How many bytes of the events a run may read: the budgets, and what to say above them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runs.errors import BudgetError

if TYPE_CHECKING:
    from bigquery.tables import TableId
    from runs.request import RunRequest
    from runs.settings import Settings
    from sessions.plan import Plan
    from sessions.sources import Source

_GUIDE: Final = "docs/reading-sources.md says how to make a copy that is partitioned by day"
_WORTH_A_WARNING: Final = 10**9  # bytes that a run reads beside what changed: half a cent


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much of its events a run may read. None: no limit."""

    per_query: int | None
    unasked: int | None
    usd_per_tib: float
    why: str
    """Why the run reads what it reads: a part of a sentence."""

    def check(self, table: TableId, *, query: int, total: int) -> None:
        """Raise BudgetError if the next query, or all of the run's, would read too much."""
        if self.per_query is not None and query > self.per_query:
            message = (
                f"Reading table {table} would bill {self.amount(query)} in one query, and"
                f" MAX_BYTES_BILLED allows {self.amount(self.per_query)}: raise it, or load fewer"
                " days at a time."
            )
            raise BudgetError(message)
        if self.unasked is not None and total > self.unasked:
            message = (
                f"The run would read {self.amount(total)} of table {table}, because {self.why}, and"
                f" MAX_UNASKED_BYTES allows {self.amount(self.unasked)} to a run that nobody asked"
                " for: run once with --full-load, or raise MAX_UNASKED_BYTES."
            )
            raise BudgetError(message)

    def amount(self, size: int) -> str:
        """Bytes as people pay for them, like `1,200.0 GB (6.82 USD)`."""
        return f"{size / 1e9:,.1f} GB ({size / 2**40 * self.usd_per_tib:,.2f} USD)"


def budget_of(request: RunRequest, plan: Plan, source: Source, settings: Settings) -> Budget:
    """The budget of a run. A request for a full load or days has asked for its cost."""
    is_asked = request.full_load or request.start_date is not None
    why = plan.reason or f"{len(plan.days)} days changed"
    if not source.prunes_days:
        why = f"the table is not partitioned by the day of its events ({_GUIDE})"
    return Budget(
        per_query=settings.max_bytes_billed,
        unasked=None if is_asked else settings.max_unasked_bytes,
        usd_per_tib=settings.usd_per_tib,
        why=why,
    )


def unpruned_warning(source: Source, budget: Budget, *, total: int) -> str | None:
    """A warning for a run that read more than its days; None for small tables."""
    if source.prunes_days or total < _WORTH_A_WARNING:
        return None
    return (
        f"Table {source.shape.table} is not partitioned by the day of its events: the run read up"
        f" to {budget.amount(total)} of it, and so will the next one; {_GUIDE}."
    )

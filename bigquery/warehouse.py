"""BigQuery as one run sees it: its clients, limits and labels, and what it has cost so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bigquery.tables import TableId

if TYPE_CHECKING:
    from collections.abc import Callable

    from bigquery.clients import Clients
    from runs.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Warehouse:
    """BigQuery as one run sees it: its clients, limits and labels, and what it has cost so far."""

    clients: Clients
    settings: Settings
    run_id: str
    usage: list[tuple[str, int]] = field(default_factory=list)  # (step, bytes billed)
    check: Callable[[], None] = lambda: None  # raises what stops the run

    def table(self, name: str, *, dataset: str | None = None) -> TableId:
        """A table that runs write, in the destination dataset or the job's own."""
        settings = self.settings
        dataset = dataset or settings.aggregated_dataset_id
        return TableId(project=settings.project_id, dataset=dataset, name=name)

    def staging(self, name: str) -> TableId:
        """A table of this run alone."""
        return self.table(f"staging_{self.run_id}_{name}")

    @property
    def bytes_billed(self) -> int:
        """Bytes billed so far."""
        return sum(amount for _, amount in self.usage)

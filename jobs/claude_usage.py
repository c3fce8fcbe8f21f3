"""The job `claude_usage`: Anthropic's three reports, each day of a window replaced as it is now.

The reports are read and staged in parts of a month; all of the window becomes visible at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from apis import publication
from apis.anthropic import (
    BASE_URL,
    anthropic_api,
    check_organization,
    read_code,
    read_costs,
    read_usage,
)
from apis.http import ApiClient
from apis.loading import ensure_tables, stage_rows
from apis.outcomes import Totals
from apis.tables import CLAUDE_TABLES
from apis.windows import requested_window, trailing_window
from bigquery.jobs import run_query
from bigquery.parameters import scalar
from bigquery.secrets import read_secret
from jobs.claude_usage_checks import NAME, check_claude_usage, usage_table
from process_claude_usage import (
    add_code,
    add_costs,
    add_usage,
    code_rows,
    cost_rows,
    usage_rows,
)
from runs.errors import DestinationError
from runs.job import Job, Step
from runs.report import RunReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from apis.http import Api
    from apis.windows import Window
    from runs.context import Run
    from runs.report import RunStatus
    from runs.settings import Settings

_TRAILING_DAYS: Final = 7  # Anthropic may restate these
_PART_DAYS: Final = 31  # read and staged at a time, so that memory is bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """How one of the reports becomes rows of its table."""

    read: Callable[[ApiClient, Window], Iterator[list[Any]]]
    add: Callable[[Totals, list[Any]], None]
    rows: Callable[..., Iterator[dict[str, Any]]]
    audit_sql: Callable[[str], str]


_SOURCES: Final = {
    "claude_costs": _Source(
        read=read_costs, add=add_costs, rows=cost_rows, audit_sql=publication.costs_audit_sql
    ),
    "claude_usage_keys": _Source(
        read=read_usage, add=add_usage, rows=usage_rows, audit_sql=publication.usage_audit_sql
    ),
    "claude_code_productivity": _Source(
        read=read_code, add=add_code, rows=code_rows, audit_sql=publication.code_audit_sql
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeUsageReport(RunReport):
    """What a run of the job did."""

    log_names: ClassVar[tuple[str, ...]] = ("first_day", "last_day", "amount_usd")

    first_day: str | None = None
    last_day: str | None = None
    amount_usd: str | None = None
    """What the window cost: a decimal number as text, so that no reader rounds it."""

    @property
    def summary(self) -> str | None:
        """The window, and what it cost."""
        if self.first_day is None:
            return None
        cost = f", {self.amount_usd} USD" if self.amount_usd else ""
        return f"{self.first_day} to {self.last_day}{cost}"


@dataclass(kw_only=True)
class UsageWork:
    """What a run of the job has found so far."""

    run: Run
    window: Window
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by table
    reported: dict[str, Totals] = field(default_factory=dict)  # by table, what the API reported

    def report(self, status: RunStatus, error: str | None = None) -> ClaudeUsageReport:
        """What the run has done so far, under this status."""
        costs = self.reported.get("claude_costs", Totals()).sums.get("amount_usd")
        return ClaudeUsageReport(
            **self.run.head(status, error),
            first_day=self.window.first.isoformat(),
            last_day=self.window.last.isoformat(),
            amount_usd=None if costs is None else f"{costs:f}",
        )


def _begin(run: Run) -> UsageWork:
    """The window is that of the request, or else a week that ends yesterday."""
    today = run.started_at.date()
    requested = requested_window(run.request.start_date, run.request.end_date, today=today)
    if requested:
        run.kind = "dates"
    return UsageWork(run=run, window=requested or trailing_window(today, days=_TRAILING_DAYS))


def _ensure_destination(work: UsageWork) -> None:
    dataset = work.run.settings.claude_dataset_id
    work.columns = ensure_tables(work.run, dataset, CLAUDE_TABLES)


def _read(work: UsageWork) -> None:
    """Stage every page of the three reports, and sum what the API reported."""
    run = work.run
    parts = list(work.window.parts(_PART_DAYS))
    with ApiClient(_api(run.settings), check=run.check) as client:
        check_organization(client, _organization(run.settings))
        for number, part in enumerate(parts):
            for name, source in _SOURCES.items():
                rows = _rows(work, client, part, name, source)
                stage_rows(run, name, rows, CLAUDE_TABLES[name], part=number)
            run.counts |= {name: totals.rows for name, totals in work.reported.items()}
            run.progress.batch(number + 1, len(parts), sum(run.counts.values()))


def _rows(
    work: UsageWork, client: ApiClient, part: Window, name: str, source: _Source
) -> Iterator[dict[str, Any]]:
    """The rows of a part, a page in memory at a time; each page is added to what was reported."""
    totals = work.reported.setdefault(name, Totals())
    organization = _organization(work.run.settings)
    for page in source.read(client, part):
        source.add(totals, page)
        yield from source.rows(page, organization_id=organization, now=work.run.started_at)


def _api(settings: Settings) -> Api:
    key = settings.anthropic_admin_api_key or read_secret(
        settings, "anthropic-admin-api-key", setting="ANTHROPIC_ADMIN_API_KEY"
    )
    return anthropic_api(key, base_url=settings.anthropic_base_url or BASE_URL)


def _organization(settings: Settings) -> str:
    return settings.anthropic_organization_id or ""  # always set: see the job's `needs`


def _audit(work: UsageWork) -> None:
    """Compare the staged rows with what the API reported, and with the rules of each table."""
    run = work.run
    organization = scalar("organization_id", "STRING", _organization(run.settings))
    figures: dict[str, Mapping[str, Any]] = {}
    for name, source in _SOURCES.items():
        sql = source.audit_sql(run.staged[name].sql)
        rows = run_query(
            run.warehouse, f"audit_{name}", sql, [organization], refused_as=DestinationError
        )
        figures[name] = rows[0]
    publication.check_usage(
        figures,
        work.reported,
        window=work.window,
        productivity_columns=work.columns["claude_code_productivity"],
    )


def _publish(work: UsageWork) -> None:
    """Replace the window in all three tables, in one transaction."""
    run = work.run
    replacements = [
        publication.Replacement(
            table=usage_table(run.warehouse, name).sql,
            staged=run.staged[name].sql,
            schema=schema,
        )
        for name, schema in CLAUDE_TABLES.items()
    ]
    sql = publication.replace_window_sql(run.lease.sql, replacements, work.window)
    run.publish("publish", sql)


JOB: Final = Job(
    name=NAME,
    description="What Claude cost, was used for and did, by day, from Anthropic's Admin API.",
    begin=_begin,
    steps=(
        Step(name="destination", work=_ensure_destination),
        Step(name="read", work=_read),
        Step(name="audit", work=_audit),
        Step(name="publish", work=_publish, publishes=True),
    ),
    report_type=ClaudeUsageReport,
    check=check_claude_usage,
    destination=lambda warehouse: usage_table(warehouse, "claude_costs"),
    unit="rows",
    options=frozenset({"start_date", "end_date"}),
    needs=("ANTHROPIC_ORGANIZATION_ID",),
    local_needs=("ANTHROPIC_BASE_URL", "ANTHROPIC_ADMIN_API_KEY"),
)

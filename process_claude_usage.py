"""Anthropic's reports, as rows of the tables of `ai_usage_analytics`. Pure.

Money is Decimal from the API's text to NUMERIC. The API's figures are also summed page by
page, from the records and not from the rows: an audit compares both.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from apis.outcomes import EXACT, NUMERIC_STEP
from apis.records import UserActor

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator

    from apis.anthropic import Dated
    from apis.outcomes import Totals
    from apis.records import ApiActor, CodeRecord, CostResult, ToolAction, UsageResult

type Row = dict[str, Any]

_TOOLS: Final = ("edit_tool", "multi_edit_tool", "write_tool", "notebook_edit_tool")


def dollars(cents: str) -> Decimal:
    """The amount in dollars, exactly."""
    return EXACT.scaleb(Decimal(cents), -2)


def _numeric(amount: Decimal) -> Decimal:
    return EXACT.quantize(amount, NUMERIC_STEP)


def cost_rows(
    results: Iterable[Dated[CostResult]], *, organization_id: str, now: dt.datetime
) -> Iterator[Row]:
    """A row of `claude_costs` for each result."""
    for each in results:
        cost = each.result
        yield {
            "activity_date": each.day,
            "organization_id": organization_id,
            "workspace_id": cost.workspace_id,
            "model": cost.model,
            "token_type": cost.token_type,
            "cost_type": cost.cost_type,
            "amount_usd": _numeric(dollars(cost.amount)),
            "currency": cost.currency,
            "description": cost.description,
            "service_tier": cost.service_tier,
            "context_window": cost.context_window,
            "ingestion_timestamp": now,
        }


def add_costs(totals: Totals, results: Iterable[Dated[CostResult]]) -> None:
    """Add a page of costs to the API's totals."""
    for each in results:
        amount = dollars(each.result.amount)
        totals.rows += 1
        totals.add("amount_usd", amount)
        totals.rounded += amount != _numeric(amount)


def usage_rows(
    results: Iterable[Dated[UsageResult]], *, organization_id: str, now: dt.datetime
) -> Iterator[Row]:
    """A row of `claude_usage_keys` for each result."""
    for each in results:
        usage = each.result
        yield {
            "activity_date": each.day,
            "organization_id": organization_id,
            "api_key_id": usage.api_key_id,
            "workspace_id": usage.workspace_id,
            "model": usage.model,
            "uncached_input_tokens": usage.uncached_input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_input_tokens": usage.cache_read_input_tokens,
            "cache_creation_5m_tokens": usage.cache_creation.ephemeral_5m_input_tokens,
            "cache_creation_1h_tokens": usage.cache_creation.ephemeral_1h_input_tokens,
            "web_search_requests": usage.server_tool_use.web_search_requests,
            "ingestion_timestamp": now,
        }


def add_usage(totals: Totals, results: Iterable[Dated[UsageResult]]) -> None:
    """Add a page of usage to the API's totals."""
    sums: Counter[str] = Counter()
    for each in results:
        usage = each.result
        totals.rows += 1
        sums["uncached_input_tokens"] += usage.uncached_input_tokens
        sums["output_tokens"] += usage.output_tokens
        sums["cache_read_input_tokens"] += usage.cache_read_input_tokens
        sums["cache_creation_5m_tokens"] += usage.cache_creation.ephemeral_5m_input_tokens
        sums["cache_creation_1h_tokens"] += usage.cache_creation.ephemeral_1h_input_tokens
        sums["web_search_requests"] += usage.server_tool_use.web_search_requests
    for column, count in sums.items():
        totals.add(column, count)


def code_rows(
    records: Iterable[Dated[CodeRecord]], *, organization_id: str, now: dt.datetime
) -> Iterator[Row]:
    """A row of `claude_code_productivity` for each record, of whatever organization it names."""
    for each in records:
        code, core = each.result, each.result.core_metrics
        yield {
            "activity_date": each.day,
            "organization_id": code.organization_id or organization_id,
            **_actor_columns(code.actor),
            "terminal_type": code.terminal_type,
            "customer_type": code.customer_type,
            "num_sessions": core.num_sessions,
            "lines_added": core.lines_of_code.added,
            "lines_removed": core.lines_of_code.removed,
            "commits_by_claude_code": core.commits_by_claude_code,
            "pull_requests_by_claude_code": core.pull_requests_by_claude_code,
            **_tool_columns(code),
            "ingestion_timestamp": now,
        }


def _actor_columns(actor: UserActor | ApiActor) -> dict[str, str | None]:
    if isinstance(actor, UserActor):
        return {
            "actor_type": "user_actor",
            "user_email": actor.email_address,
            "api_key_name": None,
        }
    return {"actor_type": "api_actor", "user_email": None, "api_key_name": actor.api_key_name}


def _tool_columns(code: CodeRecord) -> dict[str, int]:
    columns: dict[str, int] = {}
    for tool in _TOOLS:
        action: ToolAction = getattr(code.tool_actions, tool)
        columns |= {f"{tool}_accepted": action.accepted, f"{tool}_rejected": action.rejected}
    return columns


def add_code(totals: Totals, records: Iterable[Dated[CodeRecord]]) -> None:
    """Add a page of records to the API's totals."""
    sums: Counter[str] = Counter()
    for each in records:
        core = each.result.core_metrics
        totals.rows += 1
        sums["num_sessions"] += core.num_sessions
        sums["lines_added"] += core.lines_of_code.added
        sums["lines_removed"] += core.lines_of_code.removed
        sums["commits_by_claude_code"] += core.commits_by_claude_code
        sums["pull_requests_by_claude_code"] += core.pull_requests_by_claude_code
    for column, count in sums.items():
        totals.add(column, count)

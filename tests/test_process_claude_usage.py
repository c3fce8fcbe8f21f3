"""Reports become rows without losing a digit, a null or a row, and their totals are added up."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apis.anthropic import Dated
from apis.arrow import arrow_schema, parquet_file
from apis.outcomes import Totals
from apis.records import CodeRecord, CostResult, UsageResult
from apis.tables import CLAUDE_TABLES, CODE, COSTS, USAGE, TableSchema
from process_claude_usage import (
    add_code,
    add_costs,
    add_usage,
    code_rows,
    cost_rows,
    dollars,
    usage_rows,
)
from sandbox.apis import anthropic as sample

DAY = dt.date(2026, 10, 20)
NOW = dt.datetime(2026, 10, 21, 14, tzinfo=dt.UTC)
OURS: dict[str, Any] = {"organization_id": "ours", "now": NOW}


def dated[Result](result: dict[str, Any], record: type[Result]) -> list[Dated[Result]]:
    """A page of one result, as it is read."""
    return [Dated(day=DAY, result=msgspec.convert(result, record))]


def costs(*amounts: str) -> list[Dated[CostResult]]:
    """Costs of these amounts in cents."""
    return [each for amount in amounts for each in dated(sample.cost(amount), CostResult)]


@pytest.mark.parametrize(
    ("cents", "amount"),
    [
        ("12345.67891", "123.456789100"),
        ("0.00001", "0.000000100"),
        ("-250", "-2.500000000"),
        ("0", "0.000000000"),
        ("1e2", "1.000000000"),
        ("99999999999999999999.9999999", "999999999999999999.999999999"),
        ("0.00000005", "0.000000000"),
        ("0.00000015", "0.000000002"),
    ],
)
def test_money_is_exact(cents: str, amount: str) -> None:
    """Cents to dollars with every digit that NUMERIC holds, half to even beyond."""
    (row,) = cost_rows(costs(cents), **OURS)
    assert f"{row['amount_usd']:f}" == amount


@given(st.lists(st.decimals(-(10**9), 10**9, allow_nan=False, places=7), max_size=30))
def test_sums_of_money_are_exact(amounts: list[Decimal]) -> None:
    """What is stored adds up to what was reported, to the last digit, in any order."""
    page = costs(*(f"{amount:f}" for amount in amounts))
    totals = Totals()
    add_costs(totals, page)
    table = pq.read_table(parquet_file(cost_rows(page, **OURS), COSTS))
    stored = sum(table.column("amount_usd").to_pylist(), Decimal(0))
    assert stored == totals.sums.get("amount_usd", 0) == sum(amounts, Decimal(0)) / 100
    assert (totals.rows, totals.rounded) == (len(amounts), 0)


def test_what_rounding_loses_is_known() -> None:
    """Digits beyond NUMERIC's are lost within a tolerance that the totals give."""
    page = costs("0.123456789", "1", "0.00000004")
    totals = Totals()
    add_costs(totals, page)
    stored = sum((row["amount_usd"] for row in cost_rows(page, **OURS)), Decimal(0))
    assert (totals.rounded, totals.tolerance) == (2, Decimal("1e-9"))
    assert 0 < abs(stored - totals.sums["amount_usd"]) <= totals.tolerance


def test_dollars_never_pass_through_floats() -> None:
    """0.1 is 0.1."""
    assert dollars("10.0000000000000000001") == Decimal("0.100000000000000000001")


def test_the_row_of_a_cost() -> None:
    """Every dimension is kept, null where it is null."""
    result = sample.cost(
        "250",
        workspace_id="w",
        description="d",
        cost_type="tokens",
        context_window="0-200k",
        model="m",
        service_tier="standard",
        token_type="output_tokens",  # noqa: S106 - of a model
    )
    assert next(cost_rows(dated(result, CostResult), **OURS)) == {
        "activity_date": DAY,
        "organization_id": "ours",
        "workspace_id": "w",
        "model": "m",
        "token_type": "output_tokens",
        "cost_type": "tokens",
        "amount_usd": Decimal("2.5"),
        "currency": "USD",
        "description": "d",
        "service_tier": "standard",
        "context_window": "0-200k",
        "ingestion_timestamp": NOW,
    }
    (bare,) = cost_rows(costs("1"), **OURS)
    assert [name for name, value in bare.items() if value is None] == [
        "workspace_id", "model", "token_type", "cost_type", "description", "service_tier",
        "context_window",
    ]  # fmt: skip


def test_the_row_of_a_use() -> None:
    """Cache tokens by how long they live; the Workbench has no key."""
    (row,) = usage_rows(dated(sample.usage(1000, model="m"), UsageResult), **OURS)
    assert row == {
        "activity_date": DAY,
        "organization_id": "ours",
        "api_key_id": None,
        "workspace_id": None,
        "model": "m",
        "uncached_input_tokens": 1000,
        "output_tokens": 250,
        "cache_read_input_tokens": 3000,
        "cache_creation_5m_tokens": 100,
        "cache_creation_1h_tokens": 10,
        "web_search_requests": 1,
        "ingestion_timestamp": NOW,
    }


@pytest.mark.parametrize(
    ("actor", "columns"),
    [
        ({"email": "ada@example.com"}, ("user_actor", "ada@example.com", None)),
        ({"key_name": "ci"}, ("api_actor", None, "ci")),
    ],
)
def test_the_row_of_a_record(actor: dict[str, str], columns: tuple[str | None, ...]) -> None:
    """A user's or a key's; what it is estimated to have cost is nowhere."""
    result = sample.code(DAY, sessions=2, **actor)
    (row,) = code_rows(dated(result, CodeRecord), **OURS)
    assert (row["actor_type"], row["user_email"], row["api_key_name"]) == columns
    assert row["organization_id"] == sample.ORGANIZATION
    assert (row["num_sessions"], row["lines_added"], row["lines_removed"]) == (2, 240, 70)
    assert (row["write_tool_accepted"], row["notebook_edit_tool_rejected"]) == (18, 2)
    assert 77 * 2 not in row.values()


@pytest.mark.parametrize(
    ("rows", "schema"),
    [
        (cost_rows(costs("1"), **OURS), COSTS),
        (usage_rows(dated(sample.usage(1), UsageResult), **OURS), USAGE),
        (code_rows(dated(sample.code(DAY, email="a@example.com"), CodeRecord), **OURS), CODE),
    ],
    ids=CLAUDE_TABLES,
)
def test_rows_have_the_columns_of_their_table(rows: Any, schema: TableSchema) -> None:  # noqa: ANN401 - an iterator
    """In order, each of them, and of the types that a load job needs."""
    row = next(rows)
    assert [*row] == [each.name for each in schema.fields]
    table = pq.read_table(parquet_file([row], schema))
    assert table.schema == arrow_schema(schema)
    assert table.to_pylist() == [row]


def test_all_that_is_reported_is_added_up() -> None:
    """Page by page, from the records themselves, by the names of the columns."""
    used, did = Totals(), Totals()
    for tokens in (10, 400):
        add_usage(used, dated(sample.usage(tokens), UsageResult))
        add_code(did, dated(sample.code(DAY, key_name="ci", sessions=tokens), CodeRecord))
    assert (used.rows, did.rows) == (2, 2)
    assert used.sums == {
        "uncached_input_tokens": 410,
        "output_tokens": 102,
        "cache_read_input_tokens": 1230,
        "cache_creation_5m_tokens": 41,
        "cache_creation_1h_tokens": 4,
        "web_search_requests": 2,
    }
    assert did.sums == {
        "num_sessions": 410,
        "lines_added": 49_200,
        "lines_removed": 14_350,
        "commits_by_claude_code": 820,
        "pull_requests_by_claude_code": 205,
    }


def test_no_rows_are_a_table_too() -> None:
    """A window without use has columns and no rows."""
    table = pq.read_table(parquet_file([], USAGE))
    assert (table.num_rows, table.schema) == (0, arrow_schema(USAGE))

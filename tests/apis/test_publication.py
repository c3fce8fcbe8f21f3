"""Publishing API rows, on the emulator: all at once or not at all, and only if they are correct."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery

from apis import publication
from apis.outcomes import Totals
from apis.tables import CLAUDE_TABLES, DOG_BREEDS, DOG_BREEDS_STAGED, TMDB_STATE, TableSchema
from apis.windows import Window
from runs.errors import AuditError
from runs.lease_sql import create_lease_sql, take_lease_sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bigquery.clients import Clients

DAY = dt.date(2026, 10, 20)
WINDOW = Window(first=DAY - dt.timedelta(days=2), last=DAY)
ORGANIZATION = bigquery.ScalarQueryParameter("organization_id", "STRING", "ours")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset of the emulator, with a lease that run_1 holds."""

    client: bigquery.Client
    name: str

    def table(self, name: str) -> str:
        """The name of a table as SQL writes it."""
        return f"`{self.client.project}`.`{self.name}`.`{name}`"

    def query(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - the client's parameters
        """Run a statement and return its rows."""
        config = bigquery.QueryJobConfig(query_parameters=list(parameters))
        return [dict(row.items()) for row in self.client.query_and_wait(sql, job_config=config)]

    def publish(self, sql: str, *parameters: Any, fence: int = 1) -> None:  # noqa: ANN401 - the client's parameters
        """Run a transaction as run_1 does, with this fence."""
        self.query(
            sql,
            bigquery.ScalarQueryParameter("run_id", "STRING", "run_1"),
            bigquery.ScalarQueryParameter("fence", "INT64", fence),
            bigquery.ScalarQueryParameter("seconds", "INT64", 600),
            bigquery.ArrayQueryParameter("triggers", TRIGGERS, []),
            *parameters,
        )

    def create(self, name: str, schema: TableSchema) -> str:
        """Create an empty table; returns its name as SQL writes it."""
        fields = [
            bigquery.SchemaField(
                each.name, each.type, mode="REPEATED" if each.is_repeated else "NULLABLE"
            )
            for each in schema.fields
        ]
        self.client.create_table(
            bigquery.Table(f"{self.client.project}.{self.name}.{name}", schema=fields)
        )
        return self.table(name)


TRIGGERS = bigquery.StructQueryParameterType(
    bigquery.ScalarQueryParameterType("STRING", name="trigger"),
    bigquery.ScalarQueryParameterType("STRING", name="run_id"),
)


@pytest.fixture
def dataset(clients: Clients) -> Iterator[Dataset]:
    """A new dataset."""
    found = Dataset(client=clients.bigquery, name=f"apis_{uuid4().hex[:8]}")
    found.client.create_dataset(found.name)
    lease = found.table("lease")
    found.query(create_lease_sql(lease, "claude_usage"))
    found.query(
        take_lease_sql(lease),
        bigquery.ScalarQueryParameter("run_id", "STRING", "run_1"),
        bigquery.ScalarQueryParameter("seconds", "INT64", 600),
    )
    yield found
    found.client.delete_dataset(found.name, delete_contents=True)


def insert(dataset: Dataset, table: str, rows: Mapping[int, str]) -> None:
    """Add rows of these days before DAY: an amount, or text where the table has no amount."""
    column = "amount_usd" if table.endswith("costs`") else "customer_type"
    if table.endswith("keys`"):
        column = "model"
    for days_ago, value in rows.items():
        literal = f"NUMERIC '{value}'" if column == "amount_usd" else f"'{value}'"
        day = DAY - dt.timedelta(days=days_ago)
        dataset.query(
            f"INSERT INTO {table} (activity_date, organization_id, {column}) "
            f"SELECT DATE '{day}', 'ours', {literal}"
        )


def days_of(dataset: Dataset, table: str) -> list[dt.date]:
    """The days of a table's rows."""
    found = dataset.query(f"SELECT activity_date FROM {table} ORDER BY activity_date")
    return [row["activity_date"] for row in found]


def staged_tables(dataset: Dataset) -> list[publication.Replacement]:
    """The three tables with rows of three days, one before the window, and two staged days."""
    replacements = []
    for name, schema in CLAUDE_TABLES.items():
        table, stage = dataset.create(name, schema), dataset.create(f"staging_{name}", schema)
        insert(dataset, table, {3: "3", 2: "2", 1: "1"})
        insert(dataset, stage, {2: "20", 0: "40"})
        replacements.append(publication.Replacement(table=table, staged=stage, schema=schema))
    return replacements


def test_a_window_is_replaced_in_all_tables(dataset: Dataset) -> None:
    """Days are restated, deleted and added; days outside stay; a second run changes nothing."""
    replacements = staged_tables(dataset)
    sql = publication.replace_window_sql(dataset.table("lease"), replacements, WINDOW)
    dataset.publish(sql)
    expected = [DAY - dt.timedelta(days=3), DAY - dt.timedelta(days=2), DAY]
    assert [days_of(dataset, each.table) for each in replacements] == [expected] * 3
    amounts = dataset.query(f"SELECT amount_usd AS n FROM {replacements[0].table} ORDER BY n")
    assert [row["n"] for row in amounts] == [Decimal(3), Decimal(20), Decimal(40)]
    dataset.query(f"UPDATE {dataset.table('lease')} SET published_run_id = NULL WHERE TRUE")
    dataset.publish(sql)
    assert [days_of(dataset, each.table) for each in replacements] == [expected] * 3


@pytest.mark.parametrize("trouble", ["another run has the lease", "the last statement fails"])
def test_a_failed_transaction_replaces_nothing(dataset: Dataset, trouble: str) -> None:
    """Whatever ends the transaction, all three tables stay as they were."""
    replacements = staged_tables(dataset)
    before = [days_of(dataset, each.table) for each in replacements]
    if trouble == "the last statement fails":
        failing = {"model": "ERROR('broken')", "customer_type": "ERROR('broken')"}
        replacements[-1] = replace(replacements[-1], expressions=failing)
    sql = publication.replace_window_sql(dataset.table("lease"), replacements, WINDOW)
    with pytest.raises(GoogleAPICallError):
        dataset.publish(sql, fence=2 if "lease" in trouble else 1)
    assert [days_of(dataset, each.table) for each in replacements] == before
    (row,) = dataset.query(f"SELECT published_run_id FROM {dataset.table('lease')}")
    assert row["published_run_id"] is None


def test_all_breeds_are_replaced_with_their_elements_as_json(dataset: Dataset) -> None:
    """The old rows are gone, and a query can read within the raw element."""
    table = dataset.create("dog_breeds", DOG_BREEDS)
    stage = dataset.create("staging", DOG_BREEDS_STAGED)
    dataset.query(f"INSERT INTO {table} (id, name) SELECT 9, 'Old'")
    dataset.query(
        f"INSERT INTO {stage} (id, name, temperaments, raw) "
        """SELECT 1, 'Hound', ['Brave', 'Calm'], '{"id": 1, "extra": [1, 2.5]}'"""
    )
    replacement = publication.Replacement(
        table=table,
        staged=stage,
        schema=DOG_BREEDS,
        expressions=publication.BREED_EXPRESSIONS,
    )
    dataset.publish(publication.replace_window_sql(dataset.table("lease"), [replacement], None))
    rows = dataset.query(
        f"SELECT id, temperaments, JSON_VALUE(raw, '$.extra[1]') AS extra FROM {table}"
    )
    assert rows == [{"id": 1, "temperaments": ["Brave", "Calm"], "extra": "2.5"}]


def test_watermarks_move_forward_and_never_back(dataset: Dataset) -> None:
    """Only those of the finished kinds move; repeating an older window moves none."""
    state = dataset.create("state", TMDB_STATE)
    sql = publication.move_watermarks_sql(dataset.table("lease"), state)

    def move(day: dt.date, *kinds: str) -> dict[str, dt.date]:
        dataset.query(f"UPDATE {dataset.table('lease')} SET published_run_id = NULL WHERE TRUE")
        dataset.publish(
            sql,
            bigquery.ArrayQueryParameter("kinds", "STRING", kinds),
            bigquery.ScalarQueryParameter("watermark", "DATE", day),
        )
        rows = dataset.query(publication.watermarks_sql(state))
        return {row["kind"]: row["watermark"] for row in rows}

    earlier, later = DAY - dt.timedelta(days=9), DAY + dt.timedelta(days=1)
    assert move(DAY, "tv", "movie") == {"tv": DAY, "movie": DAY}
    assert move(later, "tv") == {"tv": later, "movie": DAY}
    assert move(earlier, "tv", "person") == {"tv": later, "movie": DAY, "person": earlier}
    with pytest.raises(GoogleAPICallError):
        dataset.publish(
            sql,
            bigquery.ArrayQueryParameter("kinds", "STRING", ["movie"]),
            bigquery.ScalarQueryParameter("watermark", "DATE", later),
            fence=7,
        )
    assert {row["watermark"] for row in dataset.query(publication.watermarks_sql(state))} == {
        later, DAY, earlier,
    }  # fmt: skip


AUDITS = {
    "claude_costs": publication.costs_audit_sql,
    "claude_usage_keys": publication.usage_audit_sql,
    "claude_code_productivity": publication.code_audit_sql,
}

GOOD: dict[str, list[dict[str, str]]] = {
    "claude_costs": [
        {"amount_usd": "NUMERIC '1.000000001'", "currency": "'USD'"},
        {"amount_usd": "NUMERIC '0.1'", "currency": "'USD'"},
    ],
    "claude_usage_keys": [
        {"model": "'a'", "output_tokens": "5"},
        {"model": "'a'", "api_key_id": "'k'", "output_tokens": "7"},
        {"output_tokens": "0"},
    ],
    "claude_code_productivity": [
        {"user_email": "'a@example.com'", "num_sessions": "2"},
        {"api_key_name": "'ci'", "num_sessions": "1"},
    ],
}
REPORTED = {
    "claude_costs": Totals(rows=2, sums={"amount_usd": Decimal("1.100000001")}),
    "claude_usage_keys": Totals(rows=3, sums={"output_tokens": Decimal(12)}),
    "claude_code_productivity": Totals(rows=2, sums={"num_sessions": Decimal(3)}),
}


def inline(name: str, rows: list[dict[str, str]]) -> str:
    """Rows of a table as SQL, of DAY and our organization unless a row says otherwise."""
    defaults = {"activity_date": f"DATE '{DAY}'", "organization_id": "'ours'"}
    selects = [
        "SELECT "
        + ", ".join(
            f"CAST({ {**defaults, **row}.get(each.name, 'NULL') } AS {each.type}) AS {each.name}"
            for each in CLAUDE_TABLES[name].fields
        )
        for row in rows or [{}]
    ]
    return f"(SELECT * FROM ({' UNION ALL '.join(selects)}) WHERE {'TRUE' if rows else 'FALSE'})"


@pytest.fixture(scope="module")
def good_figures(clients: Clients) -> dict[str, dict[str, Any]]:
    """What the audit statements find in correct rows."""
    return {name: figures_of(clients, name, rows) for name, rows in GOOD.items()}


def figures_of(clients: Clients, name: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    """What the audit statement of a table finds in these rows."""
    dataset = Dataset(client=clients.bigquery, name="none")
    (figures,) = dataset.query(AUDITS[name](inline(name, rows)), ORGANIZATION)
    return figures


def check(
    figures: Mapping[str, Mapping[str, Any]],
    reported: Mapping[str, Totals] | None = None,
    columns: tuple[str, ...] = (),
) -> None:
    """Check the three tables' figures; `columns` are added to the productivity table."""
    stored = [each.name for each in CLAUDE_TABLES["claude_code_productivity"].fields]
    publication.check_usage(
        figures, reported or REPORTED, window=WINDOW, productivity_columns=[*stored, *columns]
    )


type Figures = dict[str, dict[str, Any]]


def test_correct_rows_pass(good_figures: Figures) -> None:
    """Nulls, a zero and several keys a day are all correct."""
    check(good_figures)


def test_an_empty_window_passes(clients: Clients) -> None:
    """An organization may use nothing for a week."""
    check({name: figures_of(clients, name, []) for name in GOOD}, {name: Totals() for name in GOOD})


@pytest.mark.parametrize(
    ("table", "row", "reported"),
    [
        ("claude_costs", {"currency": "'EUR'"}, "claude_costs has 1 rows with other currencies"),
        ("claude_costs", {"currency": "NULL"}, "claude_costs has 1 rows with other currencies"),
        ("claude_costs", {"amount_usd": "NULL"}, "claude_costs has 1 rows with null keys"),
        ("claude_costs", {"organization_id": "'x'"}, "1 rows with other organizations"),
        ("claude_costs", {"activity_date": "NULL"}, "1 rows with null keys"),
        ("claude_costs", {"amount_usd": "NUMERIC '1'"}, r"adds up to 1\.1\d* and not to 1\.1"),
        ("claude_usage_keys", {"activity_date": "DATE '2026-10-17'"}, "outside 2026-10-18 to"),
        ("claude_usage_keys", {"activity_date": "DATE '2026-10-21'"}, "outside 2026-10-18 to"),
        ("claude_usage_keys", {"model": "NULL"}, "claude_usage_keys has 1 rows with repeated keys"),
        ("claude_code_productivity", {"user_email": "NULL"}, "productivity has 1 rows with null"),
        ("claude_code_productivity", {"api_key_name": "'ci'"}, "productivity has 1 rows with null"),
        ("claude_code_productivity", {"num_sessions": "3"}, "num_sessions .* adds up to 4 and not"),
    ],
)
def test_wrong_rows_are_refused_and_named(
    clients: Clients, good_figures: Figures, table: str, row: dict[str, str], reported: str
) -> None:
    """A wrong key, currency, day, organization or sum stops the publication."""
    first, *rest = GOOD[table]
    figures = figures_of(clients, table, [first | row, *rest])
    with pytest.raises(AuditError, match=reported):
        check({**good_figures, table: figures})


def test_a_lost_row_is_noticed(clients: Clients, good_figures: Figures) -> None:
    """Even one that adds nothing to any sum."""
    table = "claude_usage_keys"
    figures = figures_of(clients, table, GOOD[table][:2])
    with pytest.raises(
        AuditError, match="2 rows of claude_usage_keys were staged and 3 were reported"
    ):
        check({**good_figures, table: figures})


@pytest.mark.parametrize("column", ["estimated_cost", "amount_usd", "Price"])
def test_the_productivity_table_may_have_no_cost_column(good_figures: Figures, column: str) -> None:
    """The cost report includes Claude Code's costs: a sum of both would count them twice."""
    with pytest.raises(AuditError, match=f"has a column {column}"):
        check(good_figures, columns=(column,))


def test_sums_may_differ_by_rounding_alone(good_figures: Figures) -> None:
    """A larger difference is refused."""
    rounded = replace(REPORTED["claude_costs"], rounded=2, sums={"amount_usd": Decimal("1.1")})
    check(good_figures, {**REPORTED, "claude_costs": rounded})
    with pytest.raises(AuditError, match="adds up to"):
        check(good_figures, {**REPORTED, "claude_costs": replace(rounded, rounded=1)})


@pytest.mark.parametrize(
    ("found", "stored", "reported", "forced", "error"),
    [
        (172, 0, 172, False, None),
        (172, 172, 172, False, None),
        (160, 200, 160, False, None),
        (159, 200, 159, False, "159 breeds would replace 200"),
        (159, 200, 159, True, None),
        (0, 0, 0, False, "the list is empty"),
        (0, 172, 0, False, "the list is empty"),
        (0, 172, 0, True, None),
        (171, 172, 172, True, "171 breeds were staged and 172 were reported"),
    ],
)
def test_a_shrunken_list_of_breeds_is_refused(
    found: int, stored: int, reported: int, error: str | None, *, forced: bool
) -> None:
    """Under 80 % of the stored breeds, or none, unless forced; a lost row even if forced."""
    figures = {"row_count": found, "stored": stored, "repeated_keys": 0, "nameless": 0}
    if error is None:
        publication.check_breeds(figures, reported=reported, is_forced=forced)
    else:
        with pytest.raises(AuditError, match=error):
            publication.check_breeds(figures, reported=reported, is_forced=forced)


def test_repeated_ids_and_missing_names_of_breeds_are_counted(dataset: Dataset) -> None:
    """In the staged rows, beside the number of stored ones."""
    table, stage = dataset.create("breeds", DOG_BREEDS), dataset.create("stage", DOG_BREEDS_STAGED)
    dataset.query(f"INSERT INTO {table} (id, name) SELECT 1, 'Hound'")
    dataset.query(
        f"INSERT INTO {stage} (id, name) SELECT 1, 'Hound' UNION ALL SELECT 1, ' ' "
        "UNION ALL SELECT 2, NULL"
    )
    (figures,) = dataset.query(publication.breeds_audit_sql(stage, table))
    assert figures == {"row_count": 3, "repeated_keys": 1, "nameless": 2, "stored": 1}
    with pytest.raises(AuditError, match="1 breeds repeat an id; 2 breeds have no name"):
        publication.check_breeds(figures, reported=3, is_forced=False)


def test_stored_days_and_costs_are_reported(dataset: Dataset) -> None:
    """The latest day of each table, the days without costs, and the sums by month."""
    tables = {name: dataset.create(name, schema) for name, schema in CLAUDE_TABLES.items()}
    costs = tables["claude_costs"]
    insert(dataset, costs, {25: "1.5", 4: "2", 3: "3", 0: "4"})
    latest = {row["table_name"]: row for row in dataset.query(publication.latest_days_sql(tables))}
    assert (latest["claude_costs"]["latest_day"], latest["claude_costs"]["days"]) == (DAY, 4)
    assert latest["claude_usage_keys"]["latest_day"] is None
    yesterday = bigquery.ScalarQueryParameter("yesterday", "DATE", DAY + dt.timedelta(days=1))
    missing = [row["day"] for row in dataset.query(publication.missing_days_sql(costs), yesterday)]
    assert len(missing) == 23
    assert missing[-3:] == [DAY - dt.timedelta(2), DAY - dt.timedelta(1), DAY + dt.timedelta(1)]
    assert "and 18 more" in publication.missing_days_message(missing)
    months = dataset.query(publication.monthly_totals_sql(costs))
    assert [(row["days"], row["amount_usd"]) for row in months] == [
        (3, Decimal(9)),
        (1, Decimal("1.5")),
    ]

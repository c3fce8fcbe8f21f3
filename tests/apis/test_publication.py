"""Rows of an API become visible all at once or not at all, in the emulator, and only when right."""

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
class Place:
    """A dataset of the emulator, with a lease that run_1 holds."""

    client: bigquery.Client
    dataset: str

    def table(self, name: str) -> str:
        """A table as it stands in SQL."""
        return f"`{self.client.project}`.`{self.dataset}`.`{name}`"

    def query(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - of the client
        """The rows of a statement."""
        config = bigquery.QueryJobConfig(query_parameters=list(parameters))
        return [dict(row.items()) for row in self.client.query_and_wait(sql, job_config=config)]

    def publish(self, sql: str, *parameters: Any, fence: int = 1) -> None:  # noqa: ANN401 - likewise
        """Run a transaction as a run with this fence."""
        self.query(
            sql,
            bigquery.ScalarQueryParameter("run_id", "STRING", "run_1"),
            bigquery.ScalarQueryParameter("fence", "INT64", fence),
            bigquery.ScalarQueryParameter("seconds", "INT64", 600),
            bigquery.ArrayQueryParameter("triggers", TRIGGERS, []),
            *parameters,
        )

    def make(self, name: str, schema: TableSchema) -> str:
        """An empty table."""
        fields = [
            bigquery.SchemaField(
                each.name, each.type, mode="REPEATED" if each.is_repeated else "NULLABLE"
            )
            for each in schema.fields
        ]
        self.client.create_table(
            bigquery.Table(f"{self.client.project}.{self.dataset}.{name}", schema=fields)
        )
        return self.table(name)


TRIGGERS = bigquery.StructQueryParameterType(
    bigquery.ScalarQueryParameterType("STRING", name="trigger"),
    bigquery.ScalarQueryParameterType("STRING", name="run_id"),
)


@pytest.fixture
def place(clients: Clients) -> Iterator[Place]:
    """A dataset of its own."""
    found = Place(client=clients.bigquery, dataset=f"apis_{uuid4().hex[:8]}")
    found.client.create_dataset(found.dataset)
    lease = found.table("lease")
    found.query(create_lease_sql(lease, "claude_usage"))
    found.query(
        take_lease_sql(lease),
        bigquery.ScalarQueryParameter("run_id", "STRING", "run_1"),
        bigquery.ScalarQueryParameter("seconds", "INT64", 600),
    )
    yield found
    found.client.delete_dataset(found.dataset, delete_contents=True)


def put(place: Place, table: str, rows: Mapping[int, str]) -> None:
    """Rows of these days before DAY: an amount, or a model where the table has none."""
    column = "amount_usd" if table.endswith("costs`") else "customer_type"
    if table.endswith("keys`"):
        column = "model"
    for ago, value in rows.items():
        shown = f"NUMERIC '{value}'" if column == "amount_usd" else f"'{value}'"
        day = DAY - dt.timedelta(days=ago)
        place.query(
            f"INSERT INTO {table} (activity_date, organization_id, {column}) "
            f"SELECT DATE '{day}', 'ours', {shown}"
        )


def days_of(place: Place, table: str) -> list[dt.date]:
    """The days of its rows."""
    found = place.query(f"SELECT activity_date FROM {table} ORDER BY activity_date")
    return [row["activity_date"] for row in found]


def staged(place: Place) -> list[publication.Replacement]:
    """The three tables, each with a day before the window, and staged ones of two days."""
    made = []
    for name, schema in CLAUDE_TABLES.items():
        table, stage = place.make(name, schema), place.make(f"staging_{name}", schema)
        put(place, table, {3: "3", 2: "2", 1: "1"})
        put(place, stage, {2: "20", 0: "40"})
        made.append(publication.Replacement(table=table, staged=stage, schema=schema))
    return made


def test_a_window_is_replaced_in_all_tables(place: Place) -> None:
    """Days restated, deleted and new; what lies outside stays; a second run changes nothing."""
    replacements = staged(place)
    sql = publication.replace_window_sql(place.table("lease"), replacements, WINDOW)
    place.publish(sql)
    expected = [DAY - dt.timedelta(days=3), DAY - dt.timedelta(days=2), DAY]
    assert [days_of(place, each.table) for each in replacements] == [expected] * 3
    amounts = place.query(f"SELECT amount_usd AS n FROM {replacements[0].table} ORDER BY n")
    assert [row["n"] for row in amounts] == [Decimal(3), Decimal(20), Decimal(40)]
    place.query(f"UPDATE {place.table('lease')} SET published_run_id = NULL WHERE TRUE")
    place.publish(sql)
    assert [days_of(place, each.table) for each in replacements] == [expected] * 3


@pytest.mark.parametrize("trouble", ["another run has the lease", "the last statement fails"])
def test_nothing_is_replaced_in_part(place: Place, trouble: str) -> None:
    """Whatever ends the transaction, all three tables are what they were."""
    replacements = staged(place)
    before = [days_of(place, each.table) for each in replacements]
    if trouble == "the last statement fails":
        broken = {"model": "ERROR('broken')", "customer_type": "ERROR('broken')"}
        replacements[-1] = replace(replacements[-1], expressions=broken)
    sql = publication.replace_window_sql(place.table("lease"), replacements, WINDOW)
    with pytest.raises(GoogleAPICallError):
        place.publish(sql, fence=2 if "lease" in trouble else 1)
    assert [days_of(place, each.table) for each in replacements] == before
    (row,) = place.query(f"SELECT published_run_id FROM {place.table('lease')}")
    assert row["published_run_id"] is None


def test_breeds_are_replaced_whole_with_their_elements_as_json(place: Place) -> None:
    """What was there goes, and a query reaches into the raw element."""
    table = place.make("dog_breeds", DOG_BREEDS)
    stage = place.make("staging", DOG_BREEDS_STAGED)
    place.query(f"INSERT INTO {table} (id, name) SELECT 9, 'Old'")
    place.query(
        f"INSERT INTO {stage} (id, name, temperaments, raw) "
        """SELECT 1, 'Hound', ['Brave', 'Calm'], '{"id": 1, "extra": [1, 2.5]}'"""
    )
    replacement = publication.Replacement(
        table=table,
        staged=stage,
        schema=DOG_BREEDS,
        expressions=publication.BREED_EXPRESSIONS,
    )
    place.publish(publication.replace_window_sql(place.table("lease"), [replacement], None))
    rows = place.query(
        f"SELECT id, temperaments, JSON_VALUE(raw, '$.extra[1]') AS extra FROM {table}"
    )
    assert rows == [{"id": 1, "temperaments": ["Brave", "Calm"], "extra": "2.5"}]


def test_watermarks_move_on_and_never_back(place: Place) -> None:
    """Only those of the kinds that are done; a repeated older window moves none."""
    state = place.make("state", TMDB_STATE)
    sql = publication.move_watermarks_sql(place.table("lease"), state)

    def move(day: dt.date, *kinds: str) -> dict[str, dt.date]:
        place.query(f"UPDATE {place.table('lease')} SET published_run_id = NULL WHERE TRUE")
        place.publish(
            sql,
            bigquery.ArrayQueryParameter("kinds", "STRING", kinds),
            bigquery.ScalarQueryParameter("watermark", "DATE", day),
        )
        rows = place.query(publication.watermarks_sql(state))
        return {row["kind"]: row["watermark"] for row in rows}

    earlier, later = DAY - dt.timedelta(days=9), DAY + dt.timedelta(days=1)
    assert move(DAY, "tv", "movie") == {"tv": DAY, "movie": DAY}
    assert move(later, "tv") == {"tv": later, "movie": DAY}
    assert move(earlier, "tv", "person") == {"tv": later, "movie": DAY, "person": earlier}
    with pytest.raises(GoogleAPICallError):
        place.publish(
            sql,
            bigquery.ArrayQueryParameter("kinds", "STRING", ["movie"]),
            bigquery.ScalarQueryParameter("watermark", "DATE", later),
            fence=7,
        )
    assert {row["watermark"] for row in place.query(publication.watermarks_sql(state))} == {
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
TOLD = {
    "claude_costs": Totals(rows=2, sums={"amount_usd": Decimal("1.100000001")}),
    "claude_usage_keys": Totals(rows=3, sums={"output_tokens": Decimal(12)}),
    "claude_code_productivity": Totals(rows=2, sums={"num_sessions": Decimal(3)}),
}


def inline(name: str, rows: list[dict[str, str]]) -> str:
    """Rows of a table as SQL, of DAY and of our organization unless they say otherwise."""
    usual = {"activity_date": f"DATE '{DAY}'", "organization_id": "'ours'"}
    selects = [
        "SELECT "
        + ", ".join(
            f"CAST({ {**usual, **row}.get(each.name, 'NULL') } AS {each.type}) AS {each.name}"
            for each in CLAUDE_TABLES[name].fields
        )
        for row in rows or [{}]
    ]
    return f"(SELECT * FROM ({' UNION ALL '.join(selects)}) WHERE {'TRUE' if rows else 'FALSE'})"


@pytest.fixture(scope="module")
def good_figures(clients: Clients) -> dict[str, dict[str, Any]]:
    """What the audit statements find in rows that are right."""
    return {name: figures_of(clients, name, rows) for name, rows in GOOD.items()}


def figures_of(clients: Clients, name: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    """What the audit statement of a table finds in these rows."""
    place = Place(client=clients.bigquery, dataset="none")
    (figures,) = place.query(AUDITS[name](inline(name, rows)), ORGANIZATION)
    return figures


def check(
    figures: Mapping[str, Mapping[str, Any]],
    reported: Mapping[str, Totals] | None = None,
    columns: tuple[str, ...] = (),
) -> None:
    """Judge figures, of three tables as they should be unless more columns are given."""
    stored = [each.name for each in CLAUDE_TABLES["claude_code_productivity"].fields]
    publication.check_usage(
        figures, reported or TOLD, window=WINDOW, productivity_columns=[*stored, *columns]
    )


type Figures = dict[str, dict[str, Any]]


def test_rows_that_are_right_pass(good_figures: Figures) -> None:
    """As staged, so told: nothing is wrong with nulls, with zero, nor with several keys a day."""
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
def test_rows_that_are_wrong_are_named(
    clients: Clients, good_figures: Figures, table: str, row: dict[str, str], reported: str
) -> None:
    """A key, currency, day, organization or sum that does not hold publishes nothing."""
    first, *rest = GOOD[table]
    figures = figures_of(clients, table, [first | row, *rest])
    with pytest.raises(AuditError, match=reported):
        check({**good_figures, table: figures})


def test_a_row_that_was_lost_is_noticed(clients: Clients, good_figures: Figures) -> None:
    """Also one that adds nothing to any sum."""
    table = "claude_usage_keys"
    figures = figures_of(clients, table, GOOD[table][:2])
    with pytest.raises(
        AuditError, match="2 rows of claude_usage_keys were staged and 3 were reported"
    ):
        check({**good_figures, table: figures})


@pytest.mark.parametrize("column", ["estimated_cost", "amount_usd", "Price"])
def test_no_cost_belongs_into_productivity(good_figures: Figures, column: str) -> None:
    """Claude Code's estimate is a part of the cost report: whoever adds both counts it twice."""
    with pytest.raises(AuditError, match=f"has a column {column}"):
        check(good_figures, columns=(column,))


def test_sums_may_differ_by_what_rounding_lost(good_figures: Figures) -> None:
    """And by no more."""
    near = replace(TOLD["claude_costs"], rounded=2, sums={"amount_usd": Decimal("1.1")})
    check(good_figures, {**TOLD, "claude_costs": near})
    with pytest.raises(AuditError, match="adds up to"):
        check(good_figures, {**TOLD, "claude_costs": replace(near, rounded=1)})


@pytest.mark.parametrize(
    ("found", "stored", "reported", "forced", "broken"),
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
    found: int, stored: int, reported: int, broken: str | None, *, forced: bool
) -> None:
    """Under 80 % of the last one, or empty, unless forced; a lost row even then."""
    figures = {"row_count": found, "stored": stored, "repeated_keys": 0, "nameless": 0}
    if broken is None:
        publication.check_breeds(figures, reported=reported, is_forced=forced)
    else:
        with pytest.raises(AuditError, match=broken):
            publication.check_breeds(figures, reported=reported, is_forced=forced)


def test_staged_breeds_are_counted(place: Place) -> None:
    """Ids that repeat, and names that are none."""
    table, stage = place.make("breeds", DOG_BREEDS), place.make("stage", DOG_BREEDS_STAGED)
    place.query(f"INSERT INTO {table} (id, name) SELECT 1, 'Hound'")
    place.query(
        f"INSERT INTO {stage} (id, name) SELECT 1, 'Hound' UNION ALL SELECT 1, ' ' "
        "UNION ALL SELECT 2, NULL"
    )
    (figures,) = place.query(publication.breeds_audit_sql(stage, table))
    assert figures == {"row_count": 3, "repeated_keys": 1, "nameless": 2, "stored": 1}
    with pytest.raises(AuditError, match="1 breeds repeat an id; 2 breeds have no name"):
        publication.check_breeds(figures, reported=3, is_forced=False)


def test_what_is_stored_is_reported(place: Place) -> None:
    """The latest day of each table, the days without costs, and the sums by month."""
    tables = {name: place.make(name, schema) for name, schema in CLAUDE_TABLES.items()}
    costs = tables["claude_costs"]
    put(place, costs, {25: "1.5", 4: "2", 3: "3", 0: "4"})
    latest = {row["table_name"]: row for row in place.query(publication.latest_days_sql(tables))}
    assert (latest["claude_costs"]["latest_day"], latest["claude_costs"]["days"]) == (DAY, 4)
    assert latest["claude_usage_keys"]["latest_day"] is None
    yesterday = bigquery.ScalarQueryParameter("yesterday", "DATE", DAY + dt.timedelta(days=1))
    missing = [row["day"] for row in place.query(publication.missing_days_sql(costs), yesterday)]
    assert len(missing) == 23
    assert missing[-3:] == [DAY - dt.timedelta(2), DAY - dt.timedelta(1), DAY + dt.timedelta(1)]
    assert "and 18 more" in publication.missing_days_message(missing)
    months = place.query(publication.monthly_totals_sql(costs))
    assert [(row["days"], row["amount_usd"]) for row in months] == [
        (3, Decimal(9)),
        (1, Decimal("1.5")),
    ]

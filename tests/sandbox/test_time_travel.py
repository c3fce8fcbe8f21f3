"""Time travel on the fast emulator: a table as it was, or an error if that is not known."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery

from bigquery.clients import local_clients
from sandbox import emulator
from sandbox.fast import past as past_module
from sandbox.fast.cursors import ANY_OLD_TABLE, ANY_TABLE, changed_tables
from sandbox.fast.past import Past, PastError
from sandbox.server import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenario import Row

AS_OF = "SELECT * FROM {t} FOR SYSTEM_TIME AS OF @at"
HISTORY = [
    "CREATE TABLE {t} AS SELECT 1 AS n",
    "INSERT INTO {t} (n) SELECT 2",
    "UPDATE {t} SET n = n + 10 WHERE TRUE",
    "DELETE FROM {t} WHERE n = 11",
    "ALTER TABLE {t} ADD COLUMN m STRING",
    """MERGE INTO {t} AS t USING (SELECT 12 AS n, 'm' AS m) AS s ON t.n = s.n
    WHEN MATCHED THEN UPDATE SET m = s.m""",
    "BEGIN TRANSACTION; INSERT INTO {t} (n) SELECT 3; DELETE FROM {t} WHERE n = 12; COMMIT;",
    "CREATE OR REPLACE TABLE {t} AS SELECT 'another' AS s",
    "TRUNCATE TABLE {t}",
    "DROP TABLE {t}; CREATE TABLE {t} AS SELECT TIMESTAMP '2026-10-01 00:00:00+00' AS at",
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bigquery.Client]:
    """A client of a fast emulator, whichever kind the other tests use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FAST, "1")
        with (
            emulator.attach(tmp_path_factory.mktemp("fast")) as endpoints,
            closing(local_clients(endpoints)) as clients,
        ):
            yield clients.bigquery


@pytest.fixture
def table(client: bigquery.Client) -> Iterator[str]:
    """The name of a table that does not exist yet, in a new dataset."""
    client.create_dataset("travel")
    yield "`local`.`travel`.`t`"
    client.delete_dataset("travel", delete_contents=True, not_found_ok=True)


def rows(client: bigquery.Client, sql: str, at: datetime | None = None) -> list[Row]:
    """The rows of a statement with one parameter, in any order."""
    parameter = bigquery.ScalarQueryParameter("at", "TIMESTAMP", at)
    config = bigquery.QueryJobConfig(query_parameters=[parameter] if at else [])
    found = client.query(sql, job_config=config).result()
    return sorted((dict(row.items()) for row in found), key=repr)


def now(client: bigquery.Client) -> datetime:
    """The current time of the emulator."""
    ((moment,),) = client.query_and_wait("SELECT CURRENT_TIMESTAMP()")
    assert isinstance(moment, datetime)
    return moment


def test_a_table_as_of_a_time_is_what_it_was(client: bigquery.Client, table: str) -> None:
    """After every kind of change, at every moment, and when it is read again."""
    rows_at: dict[datetime, list[Row]] = {}
    name = table.replace("`", "")
    for statement in HISTORY:
        client.query(statement.format(t=table)).result()
        rows_at[now(client)] = rows(client, f"SELECT * FROM {table}")
    client.load_table_from_json([{"at": "2026-10-02T00:00:00Z"}], name).result()
    rows_at[now(client)] = rows(client, f"SELECT * FROM {table}")
    assert client.insert_rows_json(name, [{"at": "2026-10-03T00:00:00Z"}]) == []
    rows_at[now(client)] = rows(client, f"SELECT * FROM {table}")
    assert len({repr(found) for found in rows_at.values()}) == len(HISTORY) + 2
    for at, found in [*rows_at.items(), *reversed(rows_at.items())]:
        assert rows(client, AS_OF.format(t=table), at) == found


def test_a_table_can_be_restored_from_its_past(client: bigquery.Client, table: str) -> None:
    """A statement may read the past of the table that it changes, under its own name, too."""
    client.query(f"CREATE TABLE {table} AS SELECT 1 AS n").result()
    before = now(client)
    client.query(f"UPDATE {table} SET n = 2 WHERE TRUE").result()
    past_rows = f"SELECT t.n FROM {table} FOR SYSTEM_TIME AS OF @at WHERE t.n > 0"
    assert rows(client, f"CREATE OR REPLACE TABLE {table} AS {past_rows}", before) == []
    assert rows(client, f"SELECT * FROM {table}") == [{"n": 1}]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("t", id="made since"),
        pytest.param("renamed", id="renamed since"),
        pytest.param("view", id="a view"),
    ],
)
def test_an_unknown_past_is_an_error(client: bigquery.Client, table: str, name: str) -> None:
    """The answer is never the table as it is now."""
    before = now(client)
    client.query(f"CREATE TABLE {table} AS SELECT 1 AS n").result()
    client.query("CREATE TABLE travel.u AS SELECT 1 AS n").result()
    client.query("ALTER TABLE travel.u RENAME TO renamed").result()
    client.query(f"CREATE VIEW travel.view AS SELECT * FROM {table}").result()
    sql = AS_OF.format(t=f"travel.{name}")
    with pytest.raises(GoogleAPICallError):
        rows(client, sql, before)
    assert rows(client, f"SELECT * FROM travel.{name}") == [{"n": 1}]


def test_a_past_within_a_transaction_is_an_error(client: bigquery.Client, table: str) -> None:
    """In a transaction BigQuery reads a table as it was when the transaction began."""
    client.query(f"CREATE TABLE {table} AS SELECT 1 AS n").result()
    script = f"BEGIN TRANSACTION; {AS_OF.format(t=table)}; COMMIT TRANSACTION;"
    with pytest.raises(GoogleAPICallError, match="outside transactions"):
        rows(client, script, now(client))


def test_the_past_of_a_deleted_dataset_is_an_error(client: bigquery.Client, table: str) -> None:
    """A new table of the same name is not taken for the deleted one."""
    client.query(f"CREATE TABLE {table} AS SELECT 1 AS n").result()
    before = now(client)
    client.delete_dataset("travel", delete_contents=True)
    client.create_dataset("travel")
    client.query(f"CREATE TABLE {table} AS SELECT 2 AS n").result()
    with pytest.raises(GoogleAPICallError, match="is not kept"):
        rows(client, AS_OF.format(t=table), before)


T = ("memory", "main", "t")


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB with one table."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
        yield connection


def change(database: duckdb.DuckDBPyConnection, past: Past) -> None:
    """Change the table."""
    with past.changing({T}), closing(database.cursor()) as cursor:
        cursor.execute("UPDATE t SET n = n + 1")


def test_a_change_waits_for_readers_of_the_past(database: duckdb.DuckDBPyConnection) -> None:
    """A table that was current when a job asked does not change until the job has ended."""
    past = Past(database.cursor, lambda _: True)
    writer = threading.Thread(target=change, args=(database, past))
    with past.reading():
        assert past.as_of(T, past_module.now()) == T
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert database.execute("FROM t").fetchall() == [(1,)]
    writer.join()
    assert database.execute("FROM t").fetchall() == [(2,)]


def test_readers_of_the_past_wait_for_a_change(database: duckdb.DuckDBPyConnection) -> None:
    """Only when it has ended is it known whether it succeeded."""
    past, found_tables = Past(database.cursor, lambda _: True), list[Any]()

    def read_past(at: int) -> None:
        with past.reading():
            found_tables.append(past.as_of(T, at))

    reader = threading.Thread(target=read_past, args=(past_module.now() - 1,))
    with past.changing({T}):
        reader.start()
        reader.join(0.2)
        assert found_tables == []
    reader.join()
    assert found_tables[0] != T


def test_a_failed_change_is_forgotten(database: duckdb.DuckDBPyConnection) -> None:
    """The current table is still the one of before."""
    past, before = Past(database.cursor, lambda _: True), past_module.now()
    with pytest.raises(duckdb.Error), past.changing({T}):
        database.execute("UPDATE t SET n = 'no number'")
    with past.reading():
        assert past.as_of(T, before) == T


def test_only_the_latest_changes_are_kept(
    database: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time before them is an error; later times can still be read."""
    monkeypatch.setattr(past_module, "_MOST_CHANGES", 2)
    past = Past(database.cursor, lambda _: True)
    moments = []
    for _ in range(4):
        moments.append(past_module.now() - 1)
        change(database, past)
    with past.reading():
        found = past.as_of(T, moments[2])
        assert database.execute(f"FROM {past_module.quoted(found)}").fetchall() == [(3,)]
        with pytest.raises(PastError, match="is not kept"):
            past.as_of(T, moments[1])


A = ("p", "d", 'a "t"')


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ('INSERT INTO "p"."d"."a ""t""" (n) SELECT 1', {A}),
        ('INSERT INTO "p"."d"."a ""t""" BY NAME SELECT 1', {A}),
        ('UPDATE "p"."d"."a ""t""" AS t SET n = 1', {A}),
        ('DELETE FROM "p"."d"."a ""t"""', {A}),
        ('TRUNCATE TABLE "p"."d"."a ""t"""', {A}),
        ('CREATE OR REPLACE TABLE "p"."d"."a ""t""" AS SELECT 1', {A}),
        ('CREATE TABLE IF NOT EXISTS "p"."d"."a ""t""" (n INT)', {A}),
        ('DROP TABLE IF EXISTS "p"."d"."a ""t"""', {A}),
        ('ALTER TABLE "p"."d"."a ""t""" ADD COLUMN n INT', {A}),
        ('ALTER TABLE "p"."d"."a ""t""" RENAME TO "b"', {ANY_TABLE}),
        ('DROP SCHEMA "p"."d" CASCADE', {ANY_OLD_TABLE}),
        ("VACUUM", {ANY_TABLE}),
        ('CREATE TEMPORARY TABLE t AS FROM "p"."d"."a ""t"""', set()),
        ('SELECT * FROM "p"."d"."a ""t"""', set()),
    ],
)
def test_the_tables_that_a_statement_changes_are_found(sql: str, tables: set[Any]) -> None:
    """A statement of unknown effect counts as changing any table."""
    assert changed_tables(sql) == tables

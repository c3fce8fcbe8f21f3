"""The fast emulator remembers translations, and still answers exactly as the plain one does."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import bigquery

from sandbox.fast.cursors import Cursor
from sandbox.fast.past import Past
from sandbox.fast.shapes import Shape, expect, planned
from sandbox.fast.shared import SHARED, SharedValues
from tests import snapshots
from tests.emulators import clients_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlglot import exp

    from bigquery.clients import Clients
    from sandbox.fast.texts import Trees


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Clients of a fast emulator, whichever kind the other tests use."""
    with clients_of("fast", tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Clients of a plain emulator, whichever kind the other tests use."""
    with clients_of("plain", tmp_path_factory) as found:
        yield found


# The same for every dataset and day, except for the types and the existence of the tables.
STATEMENTS = [
    "SELECT CAST(v AS STRING) AS v, TO_JSON_STRING(t) AS t FROM `local`.`{d}`.`t` AS t",
    "SELECT '`local`.`{d}`.`t`' AS text, DATE '{day}' AS day, COUNT(*) AS n FROM `local`.`{d}`.`t`",
    "SELECT TIMESTAMP '{day} 00:00:00+00' AS at, v FROM `local`.`{d}`.`t`",
    "SELECT CAST(`t`.`a_record`.`v` AS STRING) AS v FROM `local`.`{d}`.`t` AS t",
    "SELECT `t`.`a_record`.`exact` / 2 AS half FROM `local`.`{d}`.`t` AS t",
    "SELECT n, missing FROM `local`.`{d}`.`t`",
    """CREATE OR REPLACE TABLE `local`.`{d}`.`made_20261001T000000_0000000{n}` AS
    SELECT v, DATE '{day}' AS day FROM `local`.`{d}`.`t`""",
    "SELECT * FROM `local`.`{d}`.`made_20261001T000000_0000000{n}`",
    "UPDATE `local`.`{d}`.`t` SET v = v WHERE DATE '{day}' < DATE '2026-10-03'",
    "CREATE TABLE IF NOT EXISTS `local`.`{d}`.`u` AS SELECT v FROM `local`.`{d}`.`t`",
    "INSERT INTO `local`.`{d}`.`u` (v) SELECT v FROM `local`.`{d}`.`t` WHERE DATE '{day}' > v",
    "INSERT INTO `local`.`{d}`.`u` (v) SELECT v FROM `local`.`{d}`.`t`",
    "ALTER TABLE `local`.`{d}`.`u` ADD COLUMN n{n} INT64",
    "SELECT * FROM `local`.`{d}`.`u`",
    "SELECT NO_SUCH_FUNCTION(v) FROM `local`.`{d}`.`t`",
    "CREATE OR REPLACE TABLE `local`.`{d}`.`u` AS SELECT NO_SUCH_FUNCTION(v) AS v FROM {d}.t",
    "CREATE OR REPLACE TABLE `local`.`{d}`.`u` (v STRING) AS SELECT DATE '{day}' || '' AS v",
    "EXECUTE IMMEDIATE 'SELECT v FROM `local`.`{d}`.`t`'",
    "BEGIN TRANSACTION; DELETE FROM `local`.`{d}`.`u` WHERE TRUE; COMMIT TRANSACTION",
    "BEGIN TRANSACTION; ALTER TABLE `local`.`{d}`.`u` ADD COLUMN m{n} INT64; COMMIT TRANSACTION",
]
# Ids, times, and what follows from them. Sizes: DuckLake's include rows that were deleted.
NEW = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|anon[0-9a-f]+|\b1[0-9]{12}\b|(?<=etag\": \")[0-9a-f]{32}"
    r"|(?<=Rows\": \")[0-9]+|(?<=Bytes\": \")[0-9]+"
)
DATASETS = {
    "dataset_one": ("1.0", ("2026-10-02", "2026-10-05")),
    "dataset_two": ("b'bytes'", ("2026-10-05", "2026-02-30")),
}


def answer_of(client: bigquery.Client, sql: str, *, dry_run: bool = False) -> str:
    """The columns and rows of a statement, or its error."""
    try:
        job = client.query(sql, bigquery.QueryJobConfig(dry_run=dry_run))
        if dry_run:
            return str(job.schema)
        found = job.result()
    except GoogleAPICallError as error:
        return f"{error.code} {error.errors}"
    rows = [dict(row.items()) for row in found]
    return f"{found.schema} {found.num_dml_affected_rows} {rows}"


def without_what_is_new(job_or_table: object) -> str:
    """Its resource as text, without what matches NEW."""
    resource = json.dumps(job_or_table._properties, sort_keys=True)  # type: ignore[attr-defined] # noqa: SLF001
    return NEW.sub("", resource)


def tables_of(client: bigquery.Client, dataset: str) -> list[str]:
    """The tables of a dataset, as they are listed and as each is."""
    listed = list(client.list_tables(dataset))
    return [without_what_is_new(each) for each in [*listed, *map(client.get_table, listed)]]


def answers_of(client: bigquery.Client) -> Iterator[str]:
    """What an emulator answers to the statements, about datasets that differ."""
    for dataset, (value, days) in DATASETS.items():
        client.create_dataset(dataset)
        one_day, another = (
            [each.format(d=dataset, day=day, n=number) for each in STATEMENTS]
            for number, day in enumerate(days)
        )
        yield from (answer_of(client, sql) for sql in one_day)  # while there is no table
        record = f"STRUCT({value} AS v, NUMERIC '1.5' AS exact) AS a_record"
        client.query(f"CREATE TABLE {dataset}.t AS SELECT {value} AS v, {record}").result()
        yield from (answer_of(client, sql) for sql in one_day + another)
        yield from (answer_of(client, sql, dry_run=True) for sql in one_day)
        yield from tables_of(client, dataset)
        client.delete_dataset(dataset, delete_contents=True)


def test_remembered_translations_change_no_answer(fast: Clients, plain: Clients) -> None:
    """Not for tables of other types, nor for missing ones, nor for days that do not exist."""
    found, expected = (list(answers_of(each.bigquery)) for each in (fast, plain))
    assert found == expected
    assert len(set(found)) > 40  # else the comparison says little


JOBS = [
    "SELECT @n AS n",
    "CREATE OR REPLACE TABLE jobs_of.t AS SELECT @n AS n",
    "INSERT INTO jobs_of.t (n) SELECT @n",
    "BEGIN TRANSACTION; DELETE FROM jobs_of.t WHERE n = @n; COMMIT TRANSACTION; SELECT @n AS n;",
    "SELECT ERROR('by order') FROM jobs_of.t",
]


def jobs_of(client: bigquery.Client) -> Iterator[str]:
    """What an emulator says of jobs when they are done, of a script's, and of a dry run."""
    client.create_dataset("jobs_of")
    number = bigquery.ScalarQueryParameter("n", "INT64", 7)
    for sql in JOBS:
        job = client.query(sql, bigquery.QueryJobConfig(query_parameters=[number]))
        with contextlib.suppress(GoogleAPICallError):
            job.result()
        yield without_what_is_new(client.get_job(job.job_id))
        yield from sorted(map(without_what_is_new, client.list_jobs(parent_job=job)))
    dry = bigquery.QueryJobConfig(query_parameters=[number], dry_run=True)
    yield without_what_is_new(client.query(JOBS[2], dry))
    client.delete_dataset("jobs_of", delete_contents=True)


def test_a_job_is_what_the_plain_emulator_makes_of_it(fast: Clients, plain: Clients) -> None:
    """Though its parts are not checked once more as it goes on."""
    found, expected = (list(jobs_of(each.bigquery)) for each in (fast, plain))
    assert found == expected
    assert len(found) > len(JOBS) + 3


def test_a_table_has_as_many_rows_as_it_reports(fast: Clients) -> None:
    """However they changed: what is remembered about a table is forgotten in time."""
    client = fast.bigquery
    client.create_dataset("changing")
    insert, delete = (
        "INSERT INTO changing.t (v) VALUES (1), (2)",
        "DELETE FROM changing.t WHERE v = 1",
    )
    for sql, rows in (
        ("CREATE TABLE changing.t AS SELECT 1 AS v", 1),
        (insert, 3),
        (delete, 1),
        (f"BEGIN TRANSACTION; {insert}; COMMIT TRANSACTION", 3),
        (f"BEGIN TRANSACTION; {delete}; ROLLBACK TRANSACTION", 3),
        ("TRUNCATE TABLE changing.t", 0),
        ("CREATE OR REPLACE TABLE changing.t AS SELECT * FROM UNNEST([1, 2]) AS v", 2),
    ):
        client.query(sql).result()
        assert client.get_table("changing.t").num_rows == rows
    assert [each.table_id for each in client.list_tables("changing")] == ["t"]
    client.query("DROP TABLE changing.t").result()
    assert list(client.list_tables("changing")) == []
    client.delete_dataset("changing")


def test_required_and_hidden_columns_are_found(fast: Clients) -> None:
    """Both are looked up quickly: which columns must not be null, and which SELECT * leaves out."""
    client = fast.bigquery
    client.create_dataset("columns")
    client.query("CREATE TABLE columns.t (v INT64 NOT NULL, w INT64)").result()
    assert [each.mode for each in client.get_table("columns.t").schema] == ["REQUIRED", "NULLABLE"]
    client.query("CREATE TABLE columns.p (v INT64) PARTITION BY _PARTITIONDATE").result()
    client.query("INSERT INTO columns.p (v) VALUES (1)").result()
    for sql in ("SELECT * FROM columns.p", "SELECT * FROM `local`.`columns`.`p`"):
        assert [dict(row.items()) for row in client.query(sql).result()] == [{"v": 1}]
    client.delete_dataset("columns", delete_contents=True)


def test_a_view_changes_with_the_table_it_reads(fast: Clients) -> None:
    """Its columns are looked up each time: nothing reports that they have changed."""
    client = fast.bigquery
    client.create_dataset("views")
    client.query("CREATE TABLE views.t AS SELECT 1 AS v").result()
    client.query("CREATE VIEW views.v AS SELECT v FROM views.t").result()
    assert [each.name for each in client.get_table("views.v").schema] == ["v"]
    client.query("DROP TABLE views.t").result()
    with pytest.raises(GoogleAPICallError, match="t"):
        client.get_table("views.v")
    client.delete_dataset("views", delete_contents=True)


def test_a_table_is_found_under_the_name_it_has(fast: Clients) -> None:
    """Also after it was renamed, and in a dataset that was made anew: missing tables are known."""
    client = fast.bigquery
    for value in (1, 2):
        client.create_dataset("named")
        with pytest.raises(GoogleAPICallError, match="Not found"):
            client.get_table("named.t")
        client.query(f"CREATE TABLE named.t AS SELECT {value} AS v").result()
        client.query("ALTER TABLE named.t RENAME TO u").result()
        assert [each.table_id for each in client.list_tables("named")] == ["u"]
        assert client.get_table("named.u").num_rows == 1
        with pytest.raises(GoogleAPICallError, match="Not found"):
            client.get_table("named.t")
        assert [row.v for row in client.query("SELECT v FROM named.u").result()] == [value]
        client.delete_dataset("named", delete_contents=True)


def test_a_query_within_a_transaction_has_a_result(fast: Clients) -> None:
    """It sees what the transaction has changed, and nobody else does; its result stays."""
    client = fast.bigquery
    client.create_dataset("sessions")
    client.query("CREATE TABLE sessions.t AS SELECT 1 AS v").result()
    begun = client.query("BEGIN TRANSACTION", bigquery.QueryJobConfig(create_session=True))
    begun.result()
    assert begun.session_info
    session = bigquery.ConnectionProperty("session_id", str(begun.session_info.session_id))
    config = bigquery.QueryJobConfig(connection_properties=[session])
    client.query("INSERT INTO sessions.t (v) VALUES (2)", config).result()
    select = "SELECT v FROM sessions.t ORDER BY v"
    within = client.query(select, config)
    assert [row.v for row in within.result()] == [1, 2]
    assert [row.v for row in client.query(select).result()] == [1]
    client.query("ROLLBACK TRANSACTION", config).result()
    again: Any = client.get_job(within.job_id)
    assert [row.v for row in again.result()] == [1, 2]
    assert [row.v for row in client.query(select, config).result()] == [1]
    client.delete_dataset("sessions", delete_contents=True)


def test_a_remembered_query_has_the_columns_that_its_tables_have(fast: Clients) -> None:
    """Also in a script or as of a time, where it is translated in another way."""
    client = fast.bigquery
    client.create_dataset("shapes")
    select = "SELECT * FROM `local`.`shapes`.`t`"
    as_of = f"{select} FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()"
    for columns in ({"v": 1}, {"v": "text"}, {"v": 1.5, "w": 2}):
        made = ", ".join(f"{value!r} AS {name}" for name, value in columns.items())
        client.query(f"CREATE OR REPLACE TABLE shapes.t AS SELECT {made}").result()
        for sql in (f"DECLARE n INT64 DEFAULT 1; {select}", as_of, select, select):
            assert [dict(row.items()) for row in client.query(sql).result()] == [columns]
    client.delete_dataset("shapes", delete_contents=True)


def test_a_view_reads_the_tables_of_its_own_dataset(fast: Clients) -> None:
    """Views whose queries differ in the dataset alone are translated once."""
    client = fast.bigquery
    for dataset, value in (("viewed_one", 1), ("viewed_two", 2), ("viewed_three", "text")):
        client.create_dataset(dataset)
        client.query(f"CREATE TABLE {dataset}.t AS SELECT {value!r} AS v").result()
        view = bigquery.Table(f"{client.project}.{dataset}.view")
        view.view_query = f"SELECT v, CONCAT(v, '!') AS said FROM `local`.`{dataset}`.`t`"
        client.create_table(view)
        assert client.get_table(view).view_query == view.view_query
        rows = client.query(f"SELECT * FROM {dataset}.view").result()
        assert [dict(row.items()) for row in rows] == [{"v": value, "said": f"{value}!"}]
        client.delete_dataset(dataset, delete_contents=True)


def test_the_columns_of_a_query_are_known_for_it_alone() -> None:
    """Only the next query is not planned again, and only if it is the one that was expected."""
    sql, shape = "SELECT 1 AS n", list[Shape]()
    with duckdb.connect() as connection:
        expect(sql, shape)
        assert planned(sql, lambda: connection.sql(sql)).fetchall() == [(1,)]
        expect(sql, shape)
        assert planned(sql, pytest.fail).columns == ["n"]
        changed = connection.sql("SELECT 2 AS m")
        assert planned(sql, lambda: changed) is changed
        expect(sql, shape)
        assert planned("SELECT m", lambda: changed) is changed


def test_a_query_is_planned_again_for_other_parameters() -> None:
    """Only the same query with the same parameters, asked for twice in a row, is one relation."""
    from sandbox.fast.lookups import Lookups

    with duckdb.connect() as connection:
        cursor = Cursor(connection, Past(connection.cursor, lambda _: True), Lookups())
        one, other, sql = {"n": 1}, {"n": 2}, "SELECT $n"
        assert cursor.sql(sql, params=one) is cursor.sql(sql, params=one)
        found = [cursor.sql(sql, params=each).fetchall() for each in (one, other, other, one)]
    assert found == [[(1,)], [(2,)], [(2,)], [(1,)]]


JOB = '{"jobReference": {"projectId": "local", "jobId": "known"}, "configuration": {}}'
REQUESTS = [
    ("GET", "local/datasets/quick", ""),
    ("GET", "local/datasets/missing", ""),
    ("GET", "Not-a-project/datasets/quick", ""),
    ("GET", "local/datasets/quick/tables/t", ""),
    ("GET", "local/datasets/quick/tables/t?selectedFields=v&view=BASIC", ""),
    ("GET", "local/datasets/quick/tables/t?selectedFields=", ""),
    ("GET", "local/datasets/quick/tables/missing", ""),
    ("GET", "local/datasets/quick/tables/t/data?maxResults=1&startIndex=1", ""),
    ("GET", "local/datasets/quick/tables/t/data?selectedFields=at", ""),
    ("GET", "local/datasets/quick/tables/t/data?maxResults=some", ""),
    ("GET", "local/datasets/quick/tables/t/data?maxResults=1&maxResults=2", ""),
    ("GET", "local/queries/known", ""),
    ("GET", "local/queries/known?formatOptions.useInt64Timestamp=True&maxResults=1", ""),
    ("GET", "local/queries/known?formatOptions.useInt64Timestamp=off", ""),
    ("GET", "local/queries/known?maxResults=0&location=US&prettyPrint=false", ""),
    ("GET", "local/queries/known?maxResults=0&startIndex=2", ""),
    ("GET", "local/queries/known?pageToken=1", ""),
    ("GET", "local/queries/missing", ""),
    ("POST", "local/jobs", '{"configuration": {"dryRun": true, "query": {"query": "SELECT 1"}}}'),
    ("POST", "local/jobs", '{"configuration": {"dryRun": true, "query": {"query": "SELEC 1"}}}'),
    ("POST", "local/jobs", '{"configuration": 5}'),
    ("POST", "local/jobs", "no JSON"),
    ("POST", "local/jobs", JOB),
    ("POST", "local/datasets/quick/tables", '{"tableReference": {"tableId": "t"}}'),
    ("POST", "local/datasets/quick/tables", '{"schema": []}'),
    ("DELETE", "local/datasets/quick/tables/missing", ""),
]
TIMES = re.compile(r'(?<=Time": ")[0-9]+|(?<=Time":")[0-9]+')


def test_quick_answers_are_the_emulators_own(fast: Clients) -> None:
    """A request is answered as by FastAPI, which gets those with a Content-Encoding."""
    client = fast.bigquery
    client.create_dataset("quick")
    rows = "SELECT v, TIMESTAMP '2026-10-01 00:00:00+00' AS at FROM UNNEST([1, 2]) AS v"
    client.query(f"CREATE TABLE quick.t AS {rows}").result()
    client.query(f"{rows} ORDER BY v", job_id="known", job_retry=None).result()
    projects, _, _ = client._connection.build_api_url("/projects/").partition("?")  # noqa: SLF001

    def answer(method: str, path: str, body: str, headers: dict[str, str]) -> tuple[object, ...]:
        url = f"{projects}{path}"
        found = client._http.request(method, url, data=body, headers=headers)  # noqa: SLF001
        return found.status_code, found.headers.get("Content-Type"), TIMES.sub("", found.text)

    statuses = set()
    for request, content_type in itertools.product(REQUESTS, ("application/json", "text/plain")):
        headers = {"Content-Type": content_type}
        quick = answer(*request, headers)
        expected = answer(*request, headers | {"Content-Encoding": "identity"})
        assert (request, *quick[:2]) == (request, *expected[:2])
        assert json.loads(str(quick[2]) or "0") == json.loads(str(expected[2]) or "0")
        statuses.add(quick[0])
    assert statuses == {200, 400, 404, 409}
    _, _, text = answer("GET", "local/queries/known?maxResults=0", "", {})
    assert {"totalRows": "2", "pageToken": "0"}.items() <= json.loads(str(text)).items()
    client.delete_dataset("quick", delete_contents=True)


def nodes_of(tree: exp.Expression) -> list[object]:
    """Each node of a tree with its values and its position in the text."""
    return [
        (
            type(node),
            {key: value for key, value in node.args.items() if not hasattr(value, "args")},
            {key: value for key, value in node.meta.items() if key != "text"},
            node.comments,
        )
        for node in tree.walk()
    ]


def parsed(text: str, parse: Callable[[str], list[exp.Expression]], trees: Trees) -> object:
    """The nodes of a text's whole trees, or the error."""
    from local_bigquery.errors import BigQueryError

    try:
        return [nodes_of(trees.whole(tree)) for tree in parse(text)]
    except BigQueryError as error:
        return str(error)


RUN = "20261001T060000_0123abcd"
OTHER_NAMES = {
    RUN: "20261002T060001_fedc4567",
    "posthog_etl": "posthog_two",
    "firebase_etl": "firebase_two_",
    "2026-10-11": "2026-12-24",
}


def emulators_trees(shared: SharedValues) -> Trees:
    """What the emulator's own functions make of texts. Importing them takes a second."""
    from local_bigquery.sql import script, translate

    from sandbox.fast.texts import Trees

    return Trees(translate.parse, script.parse_script, shared)


def test_remembered_trees_change_no_result_of_parsing(tmp_path: Path) -> None:
    """Not the names of datasets, runs and days in a text, nor its positions for errors.

    The second emulator uses what the first one has put into the directory that they share.
    """
    from local_bigquery.sql import translate

    one, other = (emulators_trees(SharedValues(str(tmp_path))) for _ in range(2))
    commented = "SELECT 1 AS n  -- `my-project`.`posthog_etl`.`events`\nFROM t"
    for text in (*snapshots.statements().values(), commented):
        for each, trees in zip(with_other_names(text), (one, other, other), strict=True):
            assert parsed(each, trees.parse, trees) == parsed(each, translate.parse, trees)


def with_other_names(text: str) -> list[str]:
    """The text of one run, that of another one, and the first again."""
    of_a_run = other = text.replace("staging_", f"staging_{RUN}_")
    for name, other_name in OTHER_NAMES.items():
        other = other.replace(name, other_name)
    return [of_a_run, other, of_a_run]


def test_only_whole_names_have_stand_ins() -> None:
    """A name that is a part of a longer word stays; each value has one stand-in of its length."""
    from sandbox.fast.texts import put_stand_ins

    run, other = "20261001T020000_0123abcd", "20261002T020000_0123abcd"
    parts = f"a{run} {run}z UPDATE '2026-10-01' XTIMESTAMP '2026-10-01 00:00:00+00'"
    wholes = f"{run} x_{run} {other} DATE '2026-10-01' TIMESTAMP '2026-10-01 00:00:00+00'"
    assert put_stand_ins(parts) == (parts, {})
    text, names = put_stand_ins(wholes)
    first, second, day, time_of_day = names
    assert text == f"{first} x_{first} {second} DATE '{day}' TIMESTAMP '{time_of_day}'"
    assert list(names.values()) == [run, other, "2026-10-01", "2026-10-01 00:00:00+00"]
    assert len(text) == len(wholes)


def test_remembered_scripts_change_no_result_of_splitting() -> None:
    """Whether a script is one statement, several, or has blocks of its own."""
    from local_bigquery.errors import BigQueryError
    from local_bigquery.sql.script import parse_script

    trees = emulators_trees(SharedValues(None))
    select = "SELECT 1 FROM `my-project`.`posthog_etl`.`events`"
    scripts = (
        select,
        f"{select}; {select}",
        f"DECLARE n INT64; BEGIN {select}; END; SET n = 2",
        f"{select}; ASSERT TRUE AS '`my-project`.`posthog_etl`.`events`'; EXECUTE IMMEDIATE @n",
    )
    for text in (*snapshots.statements().values(), *scripts):
        for each in with_other_names(text):
            assert trees.split(each) == parse_script(each)
    for split in (trees.split, parse_script):
        with pytest.raises(BigQueryError, match=re.escape('Unexpected ")" at [1:51]')):
            split(f"{select};)")


def test_translations_are_shared_by_key(tmp_path: Path) -> None:
    """A process gets what another one put last under a key; without a folder it gets nothing."""
    one, other = (SharedValues(str(tmp_path)) for _ in range(2))
    for value in (["first"], ["second"]):
        one.put(("a", 1), value)
    assert other.get(("a", 1)) == ["second"]
    assert other.get(("a", 2)) == []
    for unshared in (SharedValues(None), SharedValues(str(tmp_path / "deleted"))):
        unshared.put("a", ["first"])
        assert unshared.get("a") == []


def test_emulators_share_their_translations(fast: Clients) -> None:
    """They put them into the directory that all tests share."""
    column = f"c{time.monotonic_ns()}"  # in no statement so far
    fast.bigquery.query(f"SELECT 1 AS {column}").result()
    files = Path(os.environ[SHARED]).iterdir()
    assert any(column.encode() in each.read_bytes() for each in files if not each.suffix)

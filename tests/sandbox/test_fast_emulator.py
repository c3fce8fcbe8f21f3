"""Translations that the fast emulator remembers: what it answers is what the plain one answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.api_core.exceptions import GoogleAPICallError

from tests.emulators import clients_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud import bigquery

    from bigquery.clients import Clients


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A fast emulator, whatever the other tests run on."""
    with clients_of("fast", tmp_path_factory) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """A plain emulator, likewise."""
    with clients_of("plain", tmp_path_factory) as found:
        yield found


# What is the same for every dataset and day but for what the tables hold, or that they are there.
STATEMENTS = [
    "SELECT CAST(v AS STRING) AS v, TO_JSON_STRING(t) AS t FROM `local`.`{d}`.`t` AS t",
    "SELECT '`local`.`{d}`.`t`' AS text, DATE '{day}' AS day, COUNT(*) AS n FROM `local`.`{d}`.`t`",
    "SELECT TIMESTAMP '{day} 00:00:00+00' AS at, v FROM `local`.`{d}`.`t`",
    "SELECT CAST(`t`.`r`.`v` AS STRING) AS v FROM `local`.`{d}`.`t` AS t",
    "SELECT n, missing FROM `local`.`{d}`.`t`",
    """CREATE OR REPLACE TABLE `local`.`{d}`.`made_20261001T000000_0000000{n}` AS
    SELECT v, DATE '{day}' AS day FROM `local`.`{d}`.`t`""",
    "SELECT * FROM `local`.`{d}`.`made_20261001T000000_0000000{n}`",
    "UPDATE `local`.`{d}`.`t` SET v = v WHERE DATE '{day}' < DATE '2026-10-03'",
]
TYPES = {"one": "1.0", "two": "b'bytes'"}


def answered(client: bigquery.Client, sql: str) -> str:
    """The rows or the error."""
    try:
        found = client.query(sql).result()
        return f"{found.num_dml_affected_rows} {[dict(row.items()) for row in found]}"
    except GoogleAPICallError as error:
        return f"{error.code} {error.errors}"


def test_a_remembered_translation_holds_for_its_own_kind_alone(
    fast: Clients, plain: Clients
) -> None:
    """Tables of other types, missing ones, and days that are none get the answers they should."""
    seen: list[list[str]] = []
    for clients in (fast, plain):
        client = clients.bigquery
        answers = []
        for dataset, value in TYPES.items():
            client.create_dataset(dataset)
            for number, day in enumerate(("2026-10-02", "2026-10-05", "2026-02-30")):
                statements = [each.format(d=dataset, day=day, n=number) for each in STATEMENTS]
                answers += [answered(client, sql) for sql in statements]
                made = f"SELECT {value} AS v, STRUCT({value} AS v) AS r"
                client.query(f"CREATE OR REPLACE TABLE {dataset}.t AS {made}").result()
                answers += [answered(client, sql) for sql in statements]
            client.delete_dataset(dataset, delete_contents=True)
        seen.append(answers)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 20  # or it says little

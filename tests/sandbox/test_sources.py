"""The sandbox's source tables and commands, on one emulator for the whole module."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from google.api_core.exceptions import NotFound

from sandbox.cli import main
from sandbox.emulator import SandboxError, attach, bigquery_client
from sandbox.sources import SourceDatasets, append_rows, append_table, create_tables
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud import bigquery

    from sandbox.tables import PropertiesType

TABLES = ("posthog_events", "posthog_sessions", "firebase_users", "firebase_events")
AT = "2026-03-01T12:00:00.123456Z"
EITHER_TYPE = pytest.mark.parametrize("properties", ["string", "json"])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SANDBOX_DIR whose emulator runs during the whole module."""
    path = tmp_path_factory.mktemp("sandbox")
    with attach(path):
        yield path


@pytest.fixture(scope="module")
def client(directory: Path) -> Iterator[bigquery.Client]:
    """A client of that emulator."""
    with attach(directory) as endpoints, contextlib.closing(bigquery_client(endpoints)) as client:
        yield client


@pytest.fixture
def datasets(
    monkeypatch: pytest.MonkeyPatch, directory: Path, client: bigquery.Client
) -> Iterator[SourceDatasets]:
    """New datasets of the test, which the commands use, too.

    They are dropped afterwards, because every table makes all answers of the emulator slower.
    """
    name = uuid.uuid4().hex
    monkeypatch.setenv("SANDBOX_DIR", str(directory))
    monkeypatch.setenv("POSTHOG_DATASET_ID", f"posthog_{name}")
    monkeypatch.setenv("FIREBASE_DATASET_ID", f"firebase_{name}")
    yield SourceDatasets(f"posthog_{name}", f"firebase_{name}")
    for dataset in (f"posthog_{name}", f"firebase_{name}"):
        client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)


def _query(client: bigquery.Client, sql: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in client.query_and_wait(sql)]


def _counts(client: bigquery.Client, datasets: SourceDatasets) -> list[object]:
    tables = [datasets.table_id(client, table) for table in TABLES]  # type: ignore[arg-type]
    return [_query(client, f"SELECT COUNT(*) FROM `{table}`")[0][0] for table in tables]


@EITHER_TYPE
def test_tables_are_created_once_and_events_are_partitioned_by_day(
    client: bigquery.Client, datasets: SourceDatasets, properties: PropertiesType
) -> None:
    """Creating them again changes nothing; another type of properties is refused."""
    create_tables(client, datasets, properties=properties)
    create_tables(client, datasets, properties=properties)
    events = client.get_table(f"{datasets.posthog}.events")
    assert events.time_partitioning.type_ == "DAY"
    assert events.time_partitioning.field == "timestamp"
    types = {field.name: field.field_type for field in events.schema}
    assert types["properties"] == types["set"] == types["set_once"] == properties.upper()
    other: PropertiesType = "json" if properties == "string" else "string"
    with pytest.raises(SandboxError, match=r"events has properties as .* reset the sandbox"):
        create_tables(client, datasets, properties=other)


@EITHER_TYPE
@pytest.mark.parametrize("repeats", [1, 10_000], ids=["few", "many"])
def test_rows_are_appended_with_json_as_the_export_has_it(
    client: bigquery.Client, datasets: SourceDatasets, properties: PropertiesType, repeats: int
) -> None:
    """As a string JSON stays as it is; as a JSON column it is parsed, and null if malformed."""
    create_tables(client, datasets, properties=properties)
    rows: list[dict[str, object]] = [
        {"uuid": "1", "properties": {"$session_id": "é\n", "n": [1, None]}, "timestamp": AT},
        {"uuid": "2", "properties": '{"cut": ', "timestamp": AT},
        {"uuid": "3", "team_id": 7},
    ] * repeats
    assert append_rows(client, datasets, "posthog_events", rows[:1]) == 1
    assert append_rows(client, datasets, "posthog_events", rows) == 3 * repeats
    text = "properties" if properties == "string" else "TO_JSON_STRING(properties)"
    found = _query(
        client,
        f"""SELECT uuid, ANY_VALUE({text}), COUNTIF(properties IS NULL), ANY_VALUE(team_id),
        STRING(ANY_VALUE(`timestamp`)), COUNT(*)
        FROM `{datasets.posthog}.events` GROUP BY uuid ORDER BY uuid""",
    )
    whole, cut, bare = found
    assert json.loads(str(whole[1])) == {"$session_id": "é\n", "n": [1, None]}
    assert whole[2:] == (0, None, "2026-03-01 12:00:00.123456+00", repeats + 1)
    if properties == "string":
        assert cut[1:3] == ('{"cut": ', 0)
    else:
        assert cut[2] == repeats
    assert bare[2:] == (repeats, 7, None, repeats)
    staged = "SELECT table_name FROM `{}`.INFORMATION_SCHEMA.TABLES WHERE table_name LIKE 'stage%'"
    assert _query(client, staged.format(datasets.posthog)) == []


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"uuid": "2", "colour": 1}, r"events has no column colour: it has uuid, event"),
        ({"team_id": "seven"}, r"A row of .*events does not fit column team_id"),
        ({"timestamp": "noon"}, r"A row of .*events does not fit column timestamp"),
    ],
    ids=["unknown column", "number", "time"],
)
def test_a_row_that_does_not_fit_is_refused_with_the_others(
    client: bigquery.Client, datasets: SourceDatasets, row: dict[str, object], sentence: str
) -> None:
    """One sentence names table and column, and nothing is appended."""
    create_tables(client, datasets)
    with pytest.raises(SandboxError, match=sentence):
        append_rows(client, datasets, "posthog_events", [{"uuid": "1"}, row])
    assert _counts(client, datasets) == [0, 0, 0, 0]


def test_an_arrow_table_is_appended_with_lists(
    client: bigquery.Client, datasets: SourceDatasets
) -> None:
    """Columns that the Arrow table lacks are null."""
    create_tables(client, datasets)
    rows = pa.table({"session_id": ["a", "b"], "urls": [["/x", "/y"], []]})
    append_table(client, datasets, "posthog_sessions", rows)
    found = f"SELECT session_id, urls, is_bounce FROM `{datasets.posthog}.sessions` ORDER BY 1"
    assert _query(client, found) == [("a", ["/x", "/y"], None), ("b", [], None)]


def test_tables_and_views_are_found_until_they_are_dropped(
    client: bigquery.Client, datasets: SourceDatasets
) -> None:
    """With their kind and rows, by the sandbox's quick lookup as by the emulator's own."""
    create_tables(client, datasets)
    append_rows(client, datasets, "posthog_events", [{"uuid": "1"}, {"uuid": "2"}])
    events, view = f"{datasets.posthog}.events", f"{datasets.posthog}.seen"
    client.query_and_wait(f"CREATE VIEW {view} AS SELECT uuid FROM {events}")
    kinds = {item.table_id: item.table_type for item in client.list_tables(datasets.posthog)}
    assert kinds == {"events": "TABLE", "sessions": "TABLE", "seen": "VIEW"}
    assert client.get_table(events).num_rows == 2
    assert _query(client, f"SELECT COUNT(*) FROM {view}") == [(2,)]
    client.query_and_wait(f"DROP VIEW {view}")
    client.delete_table(events)
    assert {item.table_id for item in client.list_tables(datasets.posthog)} == {"sessions"}
    with pytest.raises(NotFound):
        client.get_table(events)
    create_tables(client, datasets)
    assert client.get_table(events).num_rows == 0


def _write_recording(directory: Path) -> None:
    event = {"uuid": "e", "event": "$pageview", "properties": '{"$session_id": "s"}'}
    with gzip.open(directory / "posthog_events.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(event | {"timestamp": AT}) + "\n" for _ in range(3))
    user = {"user_id": "u", "createdAt": AT, "businessUser": None}
    (directory / "firebase_users.jsonl").write_text(f"{json.dumps(user)}\n\n")


@EITHER_TYPE
def test_load_appends_what_is_recorded(
    client: bigquery.Client,
    datasets: SourceDatasets,
    properties: PropertiesType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second load appends again and keeps the type of properties; all four tables exist."""
    _write_recording(tmp_path)
    assert main(["load", str(tmp_path), "--properties", properties]) == 0
    assert main(["load", str(tmp_path)]) == 0
    printed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert printed == [[table, n] for table, n in zip(TABLES, "3010", strict=True)] * 2
    assert _counts(client, datasets) == [6, 0, 2, 0]
    session = "JSON_VALUE(properties, '$.\"$session_id\"')"
    sessions = f"SELECT DISTINCT {session} FROM `{datasets.posthog}.events`"
    assert _query(client, sessions) == [("s",)]


@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("other.jsonl", b"{}", "has none of posthog_events.jsonl[.gz]"),
        ("firebase_users.jsonl", b'{"user_id": "u"}\n[1]\n', "Line 2 of"),
        ("firebase_users.jsonl.gz", gzip.compress(b'{"user_id": "u"}\n')[:-9], "can't be read"),
    ],
    ids=["no file", "malformed line", "truncated"],
)
def test_load_says_in_one_sentence_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, sentence: str
) -> None:
    """Exit code 2, and the sentence names the file."""
    (tmp_path / name).write_bytes(content)
    assert main(["load", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert str(tmp_path) in error
    assert error.count("\n") == 1


@EITHER_TYPE
def test_next_day_follows_the_seeded_days_and_brings_late_rows(
    client: bigquery.Client,
    datasets: SourceDatasets,
    properties: PropertiesType,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Earlier days get more rows, stored rows arrive again, users and documents change."""
    seed = ["seed", "--sessions", "150", "--days", "5", "--end-date", "2026-03-10"]
    assert main([*seed, "--properties", properties]) == 0
    before = _counts(client, datasets)
    printed = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert [int(number.replace(",", "")) for number in printed] == before
    assert main(["next-day", "--sessions", "60"]) == 0
    assert capsys.readouterr().out.startswith("2026-03-11 has arrived.")
    assert all(
        int(str(a)) > int(str(b)) for a, b in zip(_counts(client, datasets), before, strict=True)
    )
    events = f"`{datasets.posthog}.events`"
    parsed = "properties" if properties == "json" else "SAFE.PARSE_JSON(properties)"
    ((new, late, repeated, continued),) = _query(
        client,
        f"""WITH parsed AS (
          SELECT *, JSON_VALUE({parsed}, '$."$session_id"') AS session FROM {events}
        ), arrived AS (
          SELECT * FROM parsed WHERE bq_ingested_timestamp >= '2026-03-11 06:00:00+00'
        ), stored AS (
          SELECT * FROM parsed WHERE bq_ingested_timestamp < '2026-03-11 06:00:00+00'
        )
        SELECT COUNTIF(DATE(`timestamp`) = '2026-03-11'),
          COUNTIF(DATE(`timestamp`) BETWEEN '2026-03-06' AND '2026-03-10'),
          COUNTIF(uuid IN (SELECT uuid FROM stored)),
          COUNTIF(uuid NOT IN (SELECT uuid FROM stored WHERE uuid IS NOT NULL)
            AND session IN (SELECT session FROM stored))
        FROM arrived""",
    )
    assert int(str(new)) > 500
    assert int(str(late)) > 30
    assert int(str(repeated)) >= 5
    assert int(str(continued)) >= 2
    changed = f"""SELECT COUNT(*) FROM (SELECT {{0}} FROM `{datasets.firebase}.{{1}}`
        WHERE {{0}} IS NOT NULL GROUP BY 1 HAVING MAX(etl_loaded_at) >= '2026-03-12 00:00:00+00'
        AND MIN(etl_loaded_at) < '2026-03-12 00:00:00+00')"""
    assert _query(client, changed.format("user_id", "users")) > [(0,)]
    assert _query(client, changed.format("document_id", "events")) > [(0,)]


@pytest.mark.usefixtures("datasets")
def test_next_day_without_events_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """There is no day to follow: load or seed first."""
    assert main(["next-day"]) == 2
    assert "load or seed some first" in capsys.readouterr().err


SAMPLE = """SELECT 1 AS number, TRUE AS flag, 'a,"b"\\nc' AS text, CAST(NULL AS STRING) AS nothing,
TIMESTAMP '2026-03-01 12:00:00+00' AS moment,
[STRUCT('x' AS key, DATE '2026-03-01' AS day)] AS nested"""


@pytest.mark.usefixtures("datasets")
def test_query_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are aligned, nested values are JSON, line ends stay within their row."""
    assert main(["query", SAMPLE]) == 0
    names, rule, row = capsys.readouterr().out.splitlines()
    assert names.split() == ["number", "flag", "text", "nothing", "moment", "nested"]
    assert set(rule) == {"-", " "}
    assert row[names.index("text") :].startswith('a,"b"\\nc ')
    assert row[names.index("nothing") :].startswith("null ")
    assert row.endswith('[{"key": "x", "day": "2026-03-01"}]')


@pytest.mark.usefixtures("datasets")
def test_query_prints_csv(capsys: pytest.CaptureFixture[str]) -> None:
    """It reads back as the same cells; null is empty."""
    assert main(["query", SAMPLE, "--format", "csv"]) == 0
    _, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert row[:5] == ["1", "true", 'a,"b"\nc', "", "2026-03-01T12:00:00+00:00"]
    assert json.loads(row[5]) == [{"key": "x", "day": "2026-03-01"}]


@pytest.mark.usefixtures("datasets")
def test_query_prints_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a row, nested values as they are."""
    assert main(["query", SAMPLE, "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "number": 1,
        "flag": True,
        "text": 'a,"b"\nc',
        "nothing": None,
        "moment": "2026-03-01T12:00:00+00:00",
        "nested": [{"key": "x", "day": "2026-03-01"}],
    }


@pytest.mark.usefixtures("datasets")
def test_a_refused_query_is_reported_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """The server's reason, without the client's additions, and exit code 2."""
    assert main(["query", "SELEC 1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("The emulator refused the request: Syntax error")
    assert error.count("\n") == 1


@pytest.mark.usefixtures("datasets")
def test_reset_refuses_while_somebody_is_attached(capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence says so, with exit code 2."""
    assert main(["reset"]) == 2
    assert capsys.readouterr().err.startswith("A command is attached to the sandbox in ")


def test_other_ports_than_the_running_emulators_are_refused(
    directory: Path, client: bigquery.Client
) -> None:
    """A running emulator keeps its ports, and goes on running for its other users."""
    with pytest.raises(SandboxError, match="leave out port 1"), attach(directory, rest_port=1):
        pass
    assert _query(client, "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "arguments",
    [["seed", "--days", "x"], ["seed", "--end-date", "20261101"], ["up", "--port", "99999"]],
)
def test_a_mistyped_option_is_reported_in_one_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how to write the value, and nothing is started."""
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"{arguments[-1]!r} is no " in capsys.readouterr().err


def test_output_that_cannot_be_written_is_reported_in_one_sentence(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk ends the command; what an ASCII terminal can't show is replaced."""
    monkeypatch.setenv("SANDBOX_DIR", str(directory))
    query = ["query", "SELECT 'Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}' AS name"]
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - can't be closed, either
    monkeypatch.setattr(sys, "stdout", full)
    assert main(query) == 2
    with contextlib.suppress(OSError):
        full.close()
    assert "can't be written (No space left on device)" in capsys.readouterr().err
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert main(query) == 0
    assert b"Zo?" in ascii_only.buffer.getvalue()


def test_up_prints_its_address_and_ends_cleanly(tmp_path: Path) -> None:
    """On the requested port; SIGTERM ends the command and its emulator."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = os.environ | {"SANDBOX_DIR": str(tmp_path)}
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "sandbox", "up", "--port", port],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        assert up.stdout.readline() == f"REST  http://127.0.0.1:{port}\n"
        second = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "sandbox", "up", "--port", port],
            cwd=ROOT,
            env=environment | {"SANDBOX_DIR": str(tmp_path / "other")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 2
        assert second.stderr.startswith(f"Port {port} of 127.0.0.1 can't be used")
        assert second.stderr.count("\n") == 1
        up.send_signal(signal.SIGTERM)
        _, errors = up.communicate()
    assert up.returncode == 0
    assert "Traceback" not in errors

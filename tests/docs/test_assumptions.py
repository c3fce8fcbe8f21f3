"""docs/bigquery-assumptions.md names every statement and client call that the product sends."""

from __future__ import annotations

import ast
import re

from tests.paths import ROOT

PAGE = (ROOT / "docs" / "bigquery-assumptions.md").read_text("utf-8")
SENDERS = ("bigquery", "runs", "service", "jobs", "etl_functions.py")
CLIENTS = {"client", "bigquery", "storage"}


def section(title: str) -> str:
    """The text under a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(title: str) -> set[str]:
    """The names in the first column of a section's table."""
    cells = re.findall(r"^\| ([^|]+) \|", section(title), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def client_calls() -> set[str]:
    """The methods of Google's clients that the product calls, by the names it has for them."""
    from google.cloud.bigquery import Client
    from google.cloud.bigquery_storage import BigQueryReadClient

    known = {name for client in (Client, BigQueryReadClient) for name in vars(client)}
    known |= {"create_read_session", "read_rows"}
    paths = [
        path
        for sender in SENDERS
        for path in (
            [ROOT / sender] if sender.endswith(".py") else sorted((ROOT / sender).rglob("*.py"))
        )
    ]
    calls = {
        node.attr
        for path in paths
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and (getattr(node.value, "id", None) or getattr(node.value, "attr", None)) in CLIENTS
    }
    return {name for name in calls & known if not name.startswith("_")} - {"close", "project"}


def test_every_statement_is_listed() -> None:
    """Each snapshot is named in a row, and no row names another."""
    assert first_cells("Statements") == {
        path.stem for path in (ROOT / "tests" / "snapshots").glob("*.sql")
    }


def test_every_client_call_is_listed() -> None:
    """Each call is named in a row, and no row names another."""
    assert first_cells("Client calls") == client_calls()


def test_every_fact_is_used_and_has_a_source() -> None:
    """No row relies on an unlisted fact; the source of a fact is a link or a test."""
    listed = re.findall(r"^\| (F\d+) \| .+ \| (.+) \|$", section("Facts"), re.MULTILINE)
    sources = dict(listed)
    assert all(
        "](https://" in text or "tests/" in text or "same page" in text for text in sources.values()
    )
    used = set(re.findall(r"\bF\d+\b", section("Statements") + section("Client calls")))
    assert used <= set(sources)
    assert set(sources) - used <= {"F20", "F21"}  # these belong to no single statement or call

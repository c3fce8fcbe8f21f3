"""What the records of an API need, and when the heavy libraries are loaded."""

from __future__ import annotations

from tests.test_purity import HARMLESS, OURS, imported_by, impurities, modules


def test_records_need_nothing_but_msgspec() -> None:
    """No client, no clock, no environment: what an API answers is data."""
    assert impurities(modules()["apis.records"], may_import=HARMLESS | {"msgspec"}) == set()


def test_transforms_load_no_client() -> None:
    """Records in, rows out: neither httpx nor redis nor pyarrow is needed for that."""
    names = "process_claude_usage, process_dog_breeds, process_tmdb_changes"
    loaded = imported_by(f"import {names}")
    assert loaded & {"apis", "msgspec"} == {"apis", "msgspec"}
    assert loaded & {"httpx", "redis", "pyarrow", "tenacity", "google", "pandas"} == set()


def test_what_is_pure_of_it_loads_nothing_installed() -> None:
    """Windows, tables, statements and outcomes are Python's own library and ours."""
    loaded = imported_by("import apis.outcomes, apis.publication, apis.tables, apis.windows")
    assert loaded & {"httpx", "redis", "pyarrow", "msgspec", "google"} == set()
    assert "apis" in loaded & OURS

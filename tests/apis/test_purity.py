"""What the API modules import: which of them are pure, and when heavy libraries are loaded."""

from __future__ import annotations

from tests.test_purity import HARMLESS, OURS, imported_by, impurities, modules


def test_records_need_nothing_but_msgspec() -> None:
    """No client, no clock, no environment: what an API answers is data."""
    assert impurities(modules()["apis.records"], may_import=HARMLESS | {"msgspec"}) == set()


def test_transforms_load_no_client() -> None:
    """They turn records into rows and need neither httpx nor redis nor pyarrow."""
    names = "process_claude_usage, process_dog_breeds, process_tmdb_changes"
    loaded = imported_by(f"import {names}")
    assert loaded & {"apis", "msgspec"} == {"apis", "msgspec"}
    assert loaded & {"httpx", "redis", "pyarrow", "tenacity", "google", "pandas"} == set()


def test_pure_modules_load_no_installed_package() -> None:
    """Windows, tables, statements and outcomes need Python's own library and our modules alone."""
    loaded = imported_by("import apis.outcomes, apis.publication, apis.tables, apis.windows")
    assert loaded & {"httpx", "redis", "pyarrow", "msgspec", "google"} == set()
    assert "apis" in loaded & OURS

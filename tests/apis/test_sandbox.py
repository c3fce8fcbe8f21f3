"""The sandbox serves everything that the jobs talk to, with sample data, until it is stopped."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from apis.anthropic import anthropic_api, check_organization, read_costs
from apis.dogs import dog_api, read_breeds
from apis.http import ApiClient
from apis.redis_documents import RedisDocuments, RedisServer
from apis.tmdb import read_changes, tmdb_api
from apis.windows import trailing_window
from jobs.registry import JOBS
from sandbox import demo
from sandbox.apis import anthropic, tmdb
from sandbox.apis.everything import running_settings, serve_everything
from tests.apis.quick import quick
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

DAY = dt.date(2026, 10, 20)


def read(settings: Mapping[str, str], today: dt.date) -> tuple[int, int, int]:
    """Read with these settings; count a week's costs, the breeds, and the changed movies."""
    window = trailing_window(today, days=7)
    usage = anthropic_api(
        settings["ANTHROPIC_ADMIN_API_KEY"], base_url=settings["ANTHROPIC_BASE_URL"]
    )
    with ApiClient(quick(usage)) as client:
        check_organization(client, settings["ANTHROPIC_ORGANIZATION_ID"])
        costs = sum(len(page) for page in read_costs(client, window))
    with ApiClient(quick(dog_api(None, base_url=settings["DOG_API_BASE_URL"]))) as client:
        breeds = len(read_breeds(client, settings["DOG_API_ENDPOINT"]))
    changes = tmdb_api(settings["TMDB_READ_TOKEN"], base_url=settings["TMDB_BASE_URL"])
    with ApiClient(quick(changes)) as client:
        movies = len(read_changes(client, "movie", window).ids)
    redis = RedisServer(
        host=settings["REDIS_HOST"],
        port=int(settings["REDIS_PORT"]),
        tls=settings["REDIS_TLS"] != "false",
    )
    with RedisDocuments(redis) as documents:
        documents.check_ready()
    return costs, breeds, movies


def test_everything_is_served_with_sample_data(tmp_path: Path) -> None:
    """The settings by which jobs find the data are in a file while it is served, and not after."""
    with serve_everything(tmp_path, DAY) as settings:
        assert running_settings(tmp_path) == settings
        costs, breeds, movies = read(settings, DAY + dt.timedelta(days=1))
        assert costs > 50
        assert breeds == 172
        assert movies > 100
    assert running_settings(tmp_path) == {}


def test_the_same_seed_gives_the_same_data() -> None:
    """Another seed gives other data."""
    fakes = [anthropic.FakeAnthropic() for _ in range(3)]
    titles = [tmdb.FakeTmdb() for _ in range(3)]
    for number, seed in enumerate((1, 1, 2)):
        anthropic.fill(fakes[number], DAY, days=9, seed=seed)
        tmdb.fill(titles[number], DAY, days=2, seed=seed)
    assert fakes[0].costs == fakes[1].costs != fakes[2].costs
    assert titles[0].changes == titles[1].changes != titles[2].changes
    assert titles[0].items == titles[1].items


def test_the_demo_runs_the_jobs_and_shows_their_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By default all jobs; here one, without the sample data of the sessions job."""
    assert tuple(JOBS) == demo.JOBS
    monkeypatch.setenv("SANDBOX_DIR", str(tmp_path))
    (tmp_path / "sample").touch()
    shown: list[str] = []
    demo.run_demo(tmp_path, DAY, say=shown.append, jobs=["dog_breeds"])
    output = capfd.readouterr().out
    assert re.search(r"^= rows read or counted +172 ", output, re.MULTILINE)
    assert re.search(r"^1 +Example Hound 1 ", output, re.MULTILINE)
    assert re.search(r"^dog_breeds +succeeded ", output, re.MULTILINE)
    assert "0 documents" in shown


def test_the_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    """It prints the settings as a shell reads them, and leaves nothing running."""
    command = [sys.executable, "-m", "sandbox", "apis"]
    environ = {**os.environ, "SANDBOX_DIR": str(tmp_path)}
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        assert "until Ctrl-C" in process.stderr.readline()
        settings = running_settings(tmp_path)
        assert min(read(settings, dt.datetime.now(dt.UTC).date())) > 0
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert dict(re.findall(r"^export (\w+)=(.*)$", output, re.MULTILINE)) == settings
    assert running_settings(tmp_path) == {}

"""The scripts of deploy/: what their dry runs print, that gcloud parses it, and what they do."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from config.schedules import read_schedules
from jobs.registry import find_job
from main import parse_arguments
from runs.request import RunRequest
from runs.settings import SETTINGS, Settings
from tests.fake_gcloud import URL, FakeCloud, install
from tests.paths import ROOT
from tests.shell_commands import commands, lint, needs_gcloud

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEPLOY = ROOT / "deploy"
JOBS = read_schedules()
OTHERS = tuple(job for job in JOBS if job != "sessions")
LEAST = {"PROJECT_ID": "my-project-123"}
BY_SERVICE = {**LEAST, "JOBS_FILE": "service.yaml"}
MOST = {
    **LEAST,
    "JOBS_FILE": "all.yaml",  # `run_script` writes it: every job as a Cloud Run job, in New York
    "WEEKLY_FULL_LOAD": "0 4 * * 0",
    "WEEKLY_VERIFY": "0 6 * * 1",
    "CLAUDE_USAGE_SETTINGS": "ANTHROPIC_ORGANIZATION_ID=12345678-9abc-4def-8123-456789abcdef",
    "DOG_BREEDS_SECRETS": "",
    "TMDB_CHANGES_SETTINGS": "REDIS_HOST=redis.example.com REDIS_PORT=6380",
    "SETTINGS": "CHURN_DAYS=30 EXCLUDE_LIBS=posthog-node,posthog-python",
    "KEY_FILE": "key.json",
    "GITHUB_REPOSITORY": "my-company/posthog-etl",
    "IMAGE": "gcr.io/my-project-123/posthog-etl",
}
CONFIGURATIONS = {"least": LEAST, "most": MOST}
SETUP = (["setup-iam"], ["build", "--image-only"], ["deploy"], ["setup-scheduler", "--paused"])
CALLS = (
    *SETUP,
    ["build", "v1"],
    ["deploy", "v1"],
    ["setup-scheduler"],
    ["rollback", "service"],
    ["rollback", "service", "posthog-etl-00001-abc"],
    ["rollback", "job", "v1"],
    ["rollback", "pause"],
    ["rollback", "resume"],
    ["teardown"],
)


def write_jobs(folder: Path, name: str = "all.yaml") -> Path:
    """Write a jobs file: all jobs are deployed as Cloud Run jobs, or all run in the service."""
    changes = {
        "all.yaml": (("deployed: false", "deployed: true"), ("Etc/UTC", "America/New_York")),
        "service.yaml": (("mode: job", "mode: service"),),
    }
    text = (ROOT / "config" / "jobs.yaml").read_text("utf-8")
    for old, new in changes[name]:
        text = text.replace(old, new)
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def run_script(
    call: list[str],
    folder: Path,
    config: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
    answer: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a script with a configuration; without `environ` it can call no program of Google's."""
    file = folder / "config.env"
    if "JOBS_FILE" in config:
        config = {**config, "JOBS_FILE": str(write_jobs(folder, config["JOBS_FILE"]))}
    file.write_text("".join(f'{name}="{value}"\n' for name, value in config.items()))
    return subprocess.run(  # noqa: S603 - our own script
        [DEPLOY / f"{call[0]}.sh", *call[1:]],
        env={"PATH": "/usr/bin:/bin", "DEPLOY_CONFIG": str(file), **(environ or {})},
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )


_PRINTED: dict[object, str] = {}


def dry_run(call: list[str], folder: Path, config: Mapping[str, str] = LEAST) -> str:
    """What the dry run of a script prints; each is run once."""
    key = (tuple(call), tuple(config.items()))
    if key not in _PRINTED:
        ran = run_script([*call, "--dry-run"], folder, config)
        assert (ran.returncode, ran.stderr) == (0, "")
        _PRINTED[key] = ran.stdout
    return _PRINTED[key]


@pytest.fixture
def cloud(tmp_path: Path) -> FakeCloud:
    """A faked project with nothing in it."""
    found = install(tmp_path / "cloud")
    found.answer("status.url", URL)
    found.answer("projectNumber", "123456789")
    return found


def deploy_all(cloud: FakeCloud, folder: Path, config: Mapping[str, str] = LEAST) -> FakeCloud:
    """Run every script of a first deployment; the project afterwards."""
    for call in SETUP:
        ran = run_script(call, folder, config, cloud.environ)
        assert ran.returncode == 0, (call, ran.stderr)
    return cloud


# Dry runs.


@needs_gcloud
def test_googles_parser_accepts_every_command(tmp_path: Path) -> None:
    """Each gcloud command of each dry run parses, and a wrong flag would be noticed."""
    printed = "".join(
        dry_run(call, tmp_path, config) for config in CONFIGURATIONS.values() for call in CALLS
    )
    # The parser ignores names: of commands that differ only in a role or account it needs one.
    printed = re.sub(r"(?<=--role=)\S+|(?<=--image=)\S+|[\w-]+(?=@my-project)", "any", printed)
    printed = re.sub(r"posthog-etl-[\w-]*(full-load|trigger)", "any", printed)
    calls = commands(printed, "gcloud")
    assert len(calls) == printed.count("gcloud ") > 100
    broken = "gcloud run deploy posthog-etl --image=image --max-instance=1"
    refused = lint([*calls, broken.split()], tmp_path)
    assert refused.keys() == {broken}
    assert "did you mean '--max-instances'" in refused[broken]


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_dry_run_needs_nothing_and_prints_shell(
    call: list[str], config: dict[str, str], tmp_path: Path
) -> None:
    """It calls no program of Google's and asks no question, and bash can read what it prints."""
    text = dry_run(call, tmp_path, config)
    assert text
    subprocess.run(["/bin/bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_dry_runs_print_every_command(
    config: dict[str, str], cloud: FakeCloud, tmp_path: Path
) -> None:
    """Every command of a first deployment that changes anything is in the dry runs."""
    printed = "".join(dry_run(call, tmp_path, config) for call in SETUP)
    printed = printed.replace("https://SERVICE_URL", URL).replace("PROJECT_NUMBER", "123456789")
    shown = [call for program in ("gcloud", "bq") for call in commands(printed, program)]
    done = deploy_all(cloud, tmp_path, config).calls
    assert len(done) > 20
    for call in done:
        assert call in shown


# What is created.


def granted(text: str) -> dict[str, set[str]]:
    """The roles that a dry run grants to each account, each with its resource."""
    roles = defaultdict(set)
    for call in commands(text, "gcloud"):
        options = dict(re.findall(r"--(member|role)=(\S+)", " ".join(call)))
        if options:
            account = re.sub(r"serviceAccount:|@.*", "", options["member"])
            where = " ".join(word for word in call[1:] if not word.startswith("--"))
            where = re.sub(r"add-iam-policy-binding |@\S+", "", where)
            roles[account].add(f"{options['role'].removeprefix('roles/')} on {where}")
    for call in commands(text, "bq"):
        found = re.search(
            r"GRANT `roles/(.+)` ON SCHEMA `(.+)` TO \"serviceAccount:(.+)@", call[-1]
        )
        if found:
            roles[found[3]].add(f"{found[1]} on {found[2]}")
    return dict(roles)


def test_accounts_get_only_the_roles_they_need(tmp_path: Path) -> None:
    """The three accounts and all their roles, each on as few resources as possible."""
    text = "".join(dry_run(call, tmp_path) for call in SETUP)
    assert granted(text) == {
        "etl-runner": {
            "bigquery.jobUser on projects my-project-123",
            "bigquery.readSessionUser on projects my-project-123",
            "bigquery.dataViewer on my-project-123.posthog_etl",
            "bigquery.dataViewer on my-project-123.firebase_etl_prod",
            "bigquery.dataEditor on my-project-123.posthog_aggregated",
            "secretmanager.secretAccessor on secrets bigquery-key",
        },
        "scheduler-invoker": {"run.invoker on run jobs posthog-etl-job"},
        "cloud-build-user-sa": {
            "logging.logWriter on projects my-project-123",
            "artifactregistry.writer on artifacts repositories posthog-etl",
            "storage.objectViewer on storage buckets gs://my-project-123-posthog-etl-build",
            "iam.serviceAccountUser on iam service-accounts etl-runner",
            "iam.serviceAccountOpenIdTokenCreator on iam service-accounts cloud-build-user-sa",
            "run.developer on run services posthog-etl",
            "run.invoker on run services posthog-etl",
            "run.developer on run jobs posthog-etl-job",
        },
    }


def test_a_weekly_full_load_by_the_job_may_override_its_arguments(tmp_path: Path) -> None:
    """Other arguments are an override, which run.invoker does not allow."""
    for weekly, role in (("", "run.invoker"), ("0 4 * * 0", "run.jobsExecutorWithOverrides")):
        config = {**MOST, "WEEKLY_FULL_LOAD": weekly, "WEEKLY_VERIFY": ""}
        roles = granted(dry_run(["setup-scheduler"], tmp_path, config))
        assert roles["scheduler-invoker"] == {
            f"{role} on run jobs posthog-etl-job",
            *(f"run.invoker on run jobs {cloud_run_job(job)}" for job in OTHERS),
        }


def test_without_a_secret_there_is_no_key(tmp_path: Path) -> None:
    """An empty BIGQUERY_SECRET_NAME creates no secret, and the service gets the empty value."""
    config = {**LEAST, "BIGQUERY_SECRET_NAME": ""}
    assert "gcloud secrets" not in dry_run(["setup-iam"], tmp_path, config)
    assert "BIGQUERY_SECRET_NAME='" in dry_run(["deploy"], tmp_path, config)
    assert "gcloud secrets" not in dry_run(["teardown"], tmp_path, config)


def flags(call: list[str]) -> dict[str, str]:
    """The flags of a command, by name."""
    return dict(word.removeprefix("--").partition("=")[::2] for word in call if word[:2] == "--")


def flags_of(text: str, *words: str) -> dict[str, str]:
    """The flags of the only gcloud command that begins with these words."""
    (found,) = [call for call in commands(text, "gcloud") if call[1 : 1 + len(words)] == [*words]]
    return flags(found)


def test_the_service_is_private_and_has_one_instance_of_the_declared_size(tmp_path: Path) -> None:
    """One instance of 2 vCPU and 2 GiB, one request at a time, an hour, no anonymous caller."""
    found = flags_of(dry_run(["deploy"], tmp_path), "run", "deploy", "posthog-etl")
    expected = {
        "cpu": "2",
        "memory": "2Gi",
        "concurrency": "1",
        "max-instances": "1",
        "timeout": "3600",
        "no-allow-unauthenticated": "",
        "region": "us-central1",
        "service-account": "etl-runner@my-project-123.iam.gserviceaccount.com",
    }
    assert expected.items() <= found.items()
    assert found["startup-probe"].startswith("httpGet.path=/health,")
    assert (
        found["image"] == "us-central1-docker.pkg.dev/my-project-123/posthog-etl/posthog-etl:latest"
    )


def variables(found: dict[str, str]) -> dict[str, str]:
    """The environment variables that a command sets."""
    pairs = found["set-env-vars"].removeprefix("^|^").split("|")
    return dict(pair.split("=", 1) for pair in pairs)


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_the_service_and_the_job_get_settings_that_exist(
    config: dict[str, str], tmp_path: Path
) -> None:
    """Every variable is a setting; the job ends before its time-out and waits for the lease."""
    text = dry_run(["deploy"], tmp_path, config)
    named = (("run", "deploy"), ("run", "jobs", "deploy", "posthog-etl-job"))
    service, job = (variables(flags_of(text, *words)) for words in named)
    assert job.keys() <= {setting.variable for setting in SETTINGS}
    assert service["GOOGLE_CLOUD_PROJECT_ID"] == "my-project-123"
    assert job == {**service, "ETL_TIMEOUT_SECONDS": "21300", "LEASE_WAIT_SECONDS": "3600"}
    assert service.get("EXCLUDE_LIBS") == (
        "posthog-node,posthog-python" if config is MOST else None
    )
    assert flags_of(text, *named[1])["task-timeout"] == "21600s"


def test_the_schedule_calls_the_service_with_its_own_account(tmp_path: Path) -> None:
    """Daily at 02:00 UTC, with an identity token for the service's URL, JSON, and retries."""
    text = dry_run(["setup-scheduler"], tmp_path, BY_SERVICE)
    created = flags_of(text, "scheduler", "jobs", "create", "http", "posthog-etl-trigger")
    updated = flags_of(text, "scheduler", "jobs", "update", "http", "posthog-etl-trigger")
    assert (
        created.pop("headers") == updated.pop("update-headers") == "Content-Type=application/json"
    )
    assert created == updated
    assert created == {
        "schedule": "0 2 * * *",
        "time-zone": "Etc/UTC",
        "uri": "https://SERVICE_URL/run",
        "oidc-service-account-email": "scheduler-invoker@my-project-123.iam.gserviceaccount.com",
        "oidc-token-audience": "https://SERVICE_URL",
        "http-method": "post",
        "message-body": '{"full_load": false}',
        "attempt-deadline": "30m",
        "max-retry-attempts": "3",
        "min-backoff": "300s",
        "max-backoff": "1800s",
        "max-doublings": "2",
        "location": "us-central1",
        "project": "my-project-123",
    }


def test_the_schedule_starts_the_job_by_its_api(tmp_path: Path) -> None:
    """With an access token, at Cloud Run's own address, and with bodies that its API accepts."""
    text = dry_run(["setup-scheduler"], tmp_path, MOST)
    daily = flags_of(text, "scheduler", "jobs", "create", "http", "posthog-etl-trigger")
    weekly = flags_of(text, "scheduler", "jobs", "create", "http", "posthog-etl-weekly-full-load")
    assert (
        daily["uri"]
        == weekly["uri"]
        == (
            "https://run.googleapis.com/v2/projects/my-project-123/locations/us-central1"
            "/jobs/posthog-etl-job:run"
        )
    )
    assert daily["oauth-service-account-email"].startswith("scheduler-invoker@")
    assert "oidc-token-audience" not in daily
    assert daily["message-body"] == "{}"
    assert weekly["message-body"] == (
        '{"overrides": {"containerOverrides": [{"args": ["main.py", "--full-load"]}]}}'
    )
    assert (weekly["schedule"], weekly["time-zone"]) == ("0 4 * * 0", "America/New_York")


@pytest.mark.parametrize("config", [MOST, {**BY_SERVICE, "WEEKLY_VERIFY": "0 6 * * 1"}])
def test_the_job_does_the_weekly_verification(tmp_path: Path, config: dict[str, str]) -> None:
    """Even if the service does the runs: the ledger has the outcome, and nobody reads an answer."""
    text = dry_run(["setup-scheduler"], tmp_path, config)
    weekly = flags_of(text, "scheduler", "jobs", "create", "http", "posthog-etl-weekly-verify")
    assert weekly["uri"].endswith("/jobs/posthog-etl-job:run")
    assert weekly["schedule"] == "0 6 * * 1"
    (container,) = json.loads(weekly["message-body"])["overrides"]["containerOverrides"]
    options = parse_arguments(container["args"][1:])
    assert (options.check, options.verify) == (True, 20)
    assert (
        "run.jobsExecutorWithOverrides on run jobs posthog-etl-job"
        in granted(text)["scheduler-invoker"]
    )


# The other jobs.


def cloud_run_job(job: str) -> str:
    """The name of a job's Cloud Run job."""
    return f"posthog-etl-{job.replace('_', '-')}"


def test_bash_reads_the_jobs_as_yaml_does(tmp_path: Path) -> None:
    """deploy/lib.sh and PyYAML agree on every value of config/jobs.yaml, also on quoted ones."""
    (tmp_path / "config.env").write_text("PROJECT_ID=my-project-123\n")
    names = [name for name in JOBS["sessions"].__dataclass_fields__ if name != "job"]
    script = "".join(f"job_value {job} {name}\n" for job in JOBS for name in names)
    ran = subprocess.run(  # noqa: S603 - our own script
        ["/bin/bash", "-c", f'source "{DEPLOY}/lib.sh"\nbegin\n{script}'],
        env={"PATH": "/usr/bin:/bin", "DEPLOY_CONFIG": str(tmp_path / "config.env")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = [getattr(each, name) for each in JOBS.values() for name in names]
    printed = [str(each).lower() if isinstance(each, bool) else str(each) for each in expected]
    assert ran.stdout.splitlines() == printed


@pytest.mark.parametrize("job", OTHERS)
def test_a_job_is_deployed_as_the_file_says(job: str, tmp_path: Path) -> None:
    """Size, time-out and retries; its settings are accepted and lack nothing but the secrets."""
    declared = JOBS[job]
    found = flags_of(
        dry_run(["deploy"], tmp_path, MOST), "run", "jobs", "deploy", cloud_run_job(job)
    )
    assert (found["cpu"], found["memory"]) == (str(declared.cpu), declared.memory)
    assert found["max-retries"] == str(declared.retries)
    assert found["task-timeout"] == f"{declared.timeout_minutes * 60}s"
    assert found["args"] == f"main.py,--job,{job}"
    environ = variables(found)
    settings = Settings.from_environment(environ)
    assert settings.timeout_seconds == declared.timeout_minutes * 60 - 300
    assert settings.secret_name is None  # its own account reads and writes
    secrets = dict(re.findall(r"(\w+)=([\w-]+):latest", found.get("set-secrets", "")))
    given = environ | dict.fromkeys(secrets, "value")
    assert find_job(job).missing(Settings.from_environment(given)) == []
    assert not {"POSTHOG_DATASET_ID", "EXCLUDE_LIBS"} & environ.keys()


@pytest.mark.parametrize("job", OTHERS)
def test_a_job_is_scheduled_as_the_file_says(job: str, tmp_path: Path) -> None:
    """Its cron and time zone; the schedule starts its own Cloud Run job."""
    text = dry_run(["setup-scheduler"], tmp_path, MOST)
    created = flags_of(text, "scheduler", "jobs", "create", "http", f"{cloud_run_job(job)}-trigger")
    assert (created["schedule"], created["time-zone"]) == (JOBS[job].cron, "America/New_York")
    assert created["uri"].endswith(f"/jobs/{cloud_run_job(job)}:run")
    assert created["message-body"] == "{}"


def test_a_job_may_run_in_the_service(tmp_path: Path) -> None:
    """In mode service its schedule posts to /run, and the service has its settings and secrets."""
    file = tmp_path / "jobs.yaml"
    text = write_jobs(tmp_path).read_text("utf-8").replace("mode: job", "mode: service")
    file.write_text(text, "utf-8")
    (tmp_path / "all.yaml").unlink()
    config = {name: value for name, value in MOST.items() if name != "JOBS_FILE"}
    config["SETTINGS"] = ""
    printed = {}
    for call in (["deploy"], ["setup-scheduler"], ["setup-iam"]):
        (tmp_path / "config.env").write_text(
            "".join(f'{name}="{value}"\n' for name, value in config.items())
            + f'JOBS_FILE="{file}"\n'
        )
        ran = subprocess.run(  # noqa: S603 - our own script
            [DEPLOY / f"{call[0]}.sh", "--dry-run"],
            env={"PATH": "/usr/bin:/bin", "DEPLOY_CONFIG": str(tmp_path / "config.env")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        printed[call[0]] = ran.stdout
    service = flags_of(printed["deploy"], "run", "deploy", "posthog-etl")
    assert variables(service)["REDIS_HOST"] == "redis.example.com"
    assert "TMDB_READ_TOKEN=tmdb-read-token:latest" in service["set-secrets"]
    name = "posthog-etl-tmdb-changes-trigger"
    created = flags_of(printed["setup-scheduler"], "scheduler", "jobs", "create", "http", name)
    assert created["uri"] == "https://SERVICE_URL/run"
    request = RunRequest.from_json(created["message-body"].encode())
    assert request.job == "tmdb_changes"
    assert "etl-tmdb-changes" not in printed["setup-iam"]
    assert granted(printed["setup-iam"])["etl-runner"] >= {
        "secretmanager.secretAccessor on secrets tmdb-read-token",
        "bigquery.dataEditor on my-project-123.ai_usage_analytics",
    }


def test_each_job_has_its_own_account_and_reads_its_own_secrets(tmp_path: Path) -> None:
    """None may read another's secret or the sources of sessions, or write another's dataset."""
    roles = granted(dry_run(["setup-iam"], tmp_path, MOST))
    common = {
        "bigquery.jobUser on projects my-project-123",
        "bigquery.dataEditor on my-project-123.posthog_aggregated",
    }
    assert {job: roles[f"etl-{job.replace('_', '-')}"] - common for job in OTHERS} == {
        "claude_usage": {
            "bigquery.dataEditor on my-project-123.ai_usage_analytics",
            "secretmanager.secretAccessor on secrets anthropic-admin-api-key",
        },
        "dog_breeds": {"bigquery.dataEditor on my-project-123.dog_breeds_raw"},
        "tmdb_changes": {
            "secretmanager.secretAccessor on secrets tmdb-read-token",
            "secretmanager.secretAccessor on secrets redis-password",
        },
    }
    assert "secretmanager.secretAccessor on secrets tmdb-read-token" not in roles["etl-runner"]


def test_a_job_that_is_not_deployed_is_in_no_command(tmp_path: Path) -> None:
    """With config/jobs.yaml as it is, only sessions is deployed."""
    text = "".join(dry_run(call, tmp_path) for call in CALLS)
    assert not [job for job in OTHERS if cloud_run_job(job) in text]


# What the scripts do.


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_every_script_can_be_run_again(
    config: dict[str, str], cloud: FakeCloud, tmp_path: Path
) -> None:
    """The first deployment succeeds in an empty project; a second one creates nothing."""
    things = deploy_all(cloud, tmp_path, config).things
    assert {"run services posthog-etl", "run jobs posthog-etl-job"} < things
    cloud.forget()
    assert deploy_all(cloud, tmp_path, config).things == things
    assert [call for call in cloud.calls if {"create", "create-oidc", "add"} & set(call)] == []


def test_a_refused_command_ends_the_script(cloud: FakeCloud, tmp_path: Path) -> None:
    """The commands after it are not run: without the job no schedule is created."""
    assert run_script(["setup-iam"], tmp_path, LEAST, cloud.environ).returncode == 0
    ran = run_script(["setup-scheduler"], tmp_path, LEAST, cloud.environ)
    assert ran.returncode != 0
    assert "there is no run jobs posthog-etl-job" in ran.stderr
    assert not any(thing.startswith("scheduler") for thing in cloud.things)


def test_an_emptied_weekly_full_load_deletes_its_schedule(cloud: FakeCloud, tmp_path: Path) -> None:
    """When WEEKLY_FULL_LOAD is emptied and the script is run again."""
    weekly = {**LEAST, "WEEKLY_FULL_LOAD": "0 4 * * 0"}
    assert (
        "scheduler jobs posthog-etl-weekly-full-load" in deploy_all(cloud, tmp_path, weekly).things
    )
    assert "scheduler jobs posthog-etl-weekly-full-load" not in deploy_all(cloud, tmp_path).things


# The first has a tag and no traffic.
TRAFFIC = "\tposthog-etl-00005-eee\n100\tposthog-etl-00003-ccc\n"
REVISIONS = [f"posthog-etl-0000{number}-{3 * name}" for number, name in enumerate("abcde", 1)]


def test_a_rollback_goes_to_the_revision_before(cloud: FakeCloud, tmp_path: Path) -> None:
    """Before the one that serves: the newest may never have served."""
    deploy_all(cloud, tmp_path).forget()
    cloud.answer("status.traffic", TRAFFIC)
    cloud.answer("run revisions list", "\n".join(reversed(REVISIONS)))
    ran = run_script(["rollback", "service"], tmp_path, LEAST, cloud.environ)
    assert ran.returncode == 0, ran.stderr
    (call,) = cloud.calls
    assert flags(call)["to-revisions"] == "posthog-etl-00002-bbb=100"


def test_a_rollback_without_an_earlier_revision_does_nothing(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """One sentence says so, and the traffic stays."""
    deploy_all(cloud, tmp_path).forget()
    cloud.answer("status.traffic", "100\tposthog-etl-00001-aaa\n")
    cloud.answer("run revisions list", "posthog-etl-00001-aaa")
    ran = run_script(["rollback", "service"], tmp_path, LEAST, cloud.environ)
    assert (ran.returncode, cloud.calls) == (2, [])
    assert "There is no earlier revision of posthog-etl: name one." in ran.stderr


def test_the_schedules_pause_and_resume(cloud: FakeCloud, tmp_path: Path) -> None:
    """All schedules, or only those of one job."""
    deploy_all(cloud, tmp_path, MOST)
    others = [f"{cloud_run_job(job)}-trigger" for job in OTHERS]
    all_schedules = [
        "posthog-etl-trigger", "posthog-etl-weekly-full-load", "posthog-etl-weekly-verify", *others,
    ]  # fmt: skip
    for verb, job, names in (
        ("pause", [], all_schedules),
        ("resume", [], all_schedules),
        ("pause", ["dog_breeds"], ["posthog-etl-dog-breeds-trigger"]),
        ("resume", ["sessions"], all_schedules[:3]),
    ):
        cloud.forget()
        assert run_script(["rollback", verb, *job], tmp_path, MOST, cloud.environ).returncode == 0
        assert [call[3:5] for call in cloud.calls] == [[verb, name] for name in names]


@pytest.mark.parametrize("answer", ["", "\n", "yes\n", "my-project\n"])
def test_a_teardown_asks_for_confirmation(answer: str, cloud: FakeCloud, tmp_path: Path) -> None:
    """Any answer but the project's id deletes nothing."""
    things = deploy_all(cloud, tmp_path).things
    cloud.forget()
    ran = run_script(["teardown"], tmp_path, LEAST, cloud.environ, answer)
    assert ran.returncode != 0
    assert (cloud.calls, cloud.things) == ([], things)


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_teardown_leaves_nothing_but_data(
    config: dict[str, str], cloud: FakeCloud, tmp_path: Path
) -> None:
    """Everything that the scripts created is deleted, but no dataset; it can be run again."""
    deploy_all(cloud, tmp_path, config).forget()
    answered = run_script(["teardown"], tmp_path, config, cloud.environ, "my-project-123\n")
    assert answered.returncode == 0, answered.stderr
    left = {"secrets versions latest", "iam workload-identity-pools providers github"}
    assert cloud.things <= left  # which go with the secret and the pool
    assert not re.search("DROP|bq rm", str(cloud.calls))
    assert run_script(["teardown", "--yes"], tmp_path, config, cloud.environ).returncode == 0

"""The scripts of deploy/: what they would do, that gcloud can parse it, and that they do it."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runs.settings import SETTINGS
from tests.fake_gcloud import URL, FakeCloud, install
from tests.shell_commands import commands, lint, needs_gcloud

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
LEAST = {"PROJECT_ID": "my-project-123"}
MOST = {
    **LEAST,
    "SCHEDULE_TARGET": "job",
    "WEEKLY_FULL_LOAD": "0 4 * * 0",
    "TIME_ZONE": "America/New_York",
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


def script(
    call: list[str],
    folder: Path,
    config: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
    answer: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a script with a configuration; without `environ` no program of Google's is in reach."""
    file = folder / "config.env"
    file.write_text("".join(f'{name}="{value}"\n' for name, value in config.items()))
    return subprocess.run(  # noqa: S603 - our own script
        [DEPLOY / f"{call[0]}.sh", *call[1:]],
        env={"PATH": "/usr/bin:/bin", "DEPLOY_CONFIG": str(file), **(environ or {})},
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )


def dry_run(call: list[str], folder: Path, config: Mapping[str, str] = LEAST) -> str:
    """What a script would do."""
    ran = script([*call, "--dry-run"], folder, config)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.fixture
def cloud(tmp_path: Path) -> FakeCloud:
    """A project with nothing in it."""
    found = install(tmp_path / "cloud")
    found.answer("status.url", URL)
    found.answer("projectNumber", "123456789")
    return found


def deployed(cloud: FakeCloud, folder: Path, config: Mapping[str, str] = LEAST) -> FakeCloud:
    """The project after every script of a first deployment."""
    for call in SETUP:
        ran = script(call, folder, config, cloud.environ)
        assert ran.returncode == 0, (call, ran.stderr)
    return cloud


# Dry runs.


@needs_gcloud
def test_googles_parser_accepts_every_command(tmp_path: Path) -> None:
    """Each gcloud command of each dry run parses, and one wrong flag would be noticed."""
    printed = "".join(
        dry_run(call, tmp_path, config) for config in CONFIGURATIONS.values() for call in CALLS
    )
    # The parser knows no names: commands that differ in a role or an account are one to it.
    printed = re.sub(r"(?<=--role=)\S+|(?<=--image=)\S+|[\w-]+(?=@my-project)", "any", printed)
    printed = re.sub(r"posthog-etl-(weekly-full-load|trigger)", "any", printed)
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
    """No program of Google's is called, no question asked, and bash can read what is printed."""
    text = dry_run(call, tmp_path, config)
    assert text
    subprocess.run(["/bin/bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_dry_run_shows_all_that_is_done(
    config: dict[str, str], cloud: FakeCloud, tmp_path: Path
) -> None:
    """Whatever a first deployment calls to change anything stands in the dry runs, and in order."""
    printed = "".join(dry_run(call, tmp_path, config) for call in SETUP)
    printed = printed.replace("https://SERVICE_URL", URL).replace("PROJECT_NUMBER", "123456789")
    shown = [call for program in ("gcloud", "bq") for call in commands(printed, program)]
    done = deployed(cloud, tmp_path, config).calls
    assert len(done) > 20
    for call in done:
        assert call in shown


# What is made.


def granted(text: str) -> dict[str, set[str]]:
    """The roles of each account in a dry run, each with what it is on."""
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


def test_nobody_gets_more_than_needed(tmp_path: Path) -> None:
    """The three accounts and all their roles, each on the least that it must be on."""
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
        "scheduler-invoker": {"run.invoker on run services posthog-etl"},
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
        config = {**MOST, "WEEKLY_FULL_LOAD": weekly}
        roles = granted(dry_run(["setup-scheduler"], tmp_path, config))
        assert roles == {"scheduler-invoker": {f"{role} on run jobs posthog-etl-job"}}


def test_without_a_secret_there_is_no_key(tmp_path: Path) -> None:
    """BIGQUERY_SECRET_NAME set to empty makes no secret, and the service is told so."""
    config = {**LEAST, "BIGQUERY_SECRET_NAME": ""}
    assert "gcloud secrets" not in dry_run(["setup-iam"], tmp_path, config)
    assert "BIGQUERY_SECRET_NAME='" in dry_run(["deploy"], tmp_path, config)
    assert "gcloud secrets" not in dry_run(["teardown"], tmp_path, config)


def flags(call: list[str]) -> dict[str, str]:
    """The flags of a command, by name."""
    return dict(word.removeprefix("--").partition("=")[::2] for word in call if word[:2] == "--")


def one(text: str, *words: str) -> dict[str, str]:
    """The flags of the one gcloud command that begins with these words."""
    (found,) = [call for call in commands(text, "gcloud") if call[1 : 1 + len(words)] == [*words]]
    return flags(found)


def test_the_service_is_private_alone_and_as_large_as_said(tmp_path: Path) -> None:
    """One instance of 2 vCPU and 2 GiB, one request at a time, an hour, no anonymous caller."""
    found = one(dry_run(["deploy"], tmp_path), "run", "deploy", "posthog-etl")
    message = {
        "cpu": "2",
        "memory": "2Gi",
        "concurrency": "1",
        "max-instances": "1",
        "timeout": "3600",
        "no-allow-unauthenticated": "",
        "region": "us-central1",
        "service-account": "etl-runner@my-project-123.iam.gserviceaccount.com",
    }
    assert message.items() <= found.items()
    assert found["startup-probe"].startswith("httpGet.path=/health,")
    assert (
        found["image"] == "us-central1-docker.pkg.dev/my-project-123/posthog-etl/posthog-etl:latest"
    )


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_the_service_and_the_job_are_reported_settings_that_exist(
    config: dict[str, str], tmp_path: Path
) -> None:
    """Every variable is a setting; the job ends before its time-out and waits for the lease."""
    text = dry_run(["deploy"], tmp_path, config)
    reported = [
        dict(pair.split("=", 1) for pair in found["set-env-vars"].removeprefix("^|^").split("|"))
        for found in (one(text, "run", "deploy"), one(text, "run", "jobs", "deploy"))
    ]
    service, job = reported
    assert job.keys() <= {setting.variable for setting in SETTINGS}
    assert service["GOOGLE_CLOUD_PROJECT_ID"] == "my-project-123"
    assert job == {**service, "ETL_TIMEOUT_SECONDS": "21300", "LEASE_WAIT_SECONDS": "3600"}
    assert service.get("EXCLUDE_LIBS") == (
        "posthog-node,posthog-python" if config is MOST else None
    )
    assert one(text, "run", "jobs", "deploy")["task-timeout"] == "21600s"


def test_the_schedule_calls_the_service_as_scheduler(tmp_path: Path) -> None:
    """Daily at 02:00 UTC, an identity token for the service's URL, JSON, 30 minutes, retries."""
    text = dry_run(["setup-scheduler"], tmp_path)
    made = one(text, "scheduler", "jobs", "create", "http", "posthog-etl-trigger")
    changed = one(text, "scheduler", "jobs", "update", "http", "posthog-etl-trigger")
    assert made.pop("headers") == changed.pop("update-headers") == "Content-Type=application/json"
    assert made == changed
    assert made == {
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
    """An access token, Cloud Run's own address, and bodies that this API takes."""
    text = dry_run(["setup-scheduler"], tmp_path, MOST)
    daily = one(text, "scheduler", "jobs", "create", "http", "posthog-etl-trigger")
    weekly = one(text, "scheduler", "jobs", "create", "http", "posthog-etl-weekly-full-load")
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


# What is done.


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_every_script_can_be_run_again(
    config: dict[str, str], cloud: FakeCloud, tmp_path: Path
) -> None:
    """The first deployment succeeds in an empty project; a second one makes nothing anew."""
    things = deployed(cloud, tmp_path, config).things
    assert {"run services posthog-etl", "run jobs posthog-etl-job"} < things
    cloud.forget()
    assert deployed(cloud, tmp_path, config).things == things
    assert [call for call in cloud.calls if {"create", "create-oidc", "add"} & set(call)] == []


def test_a_refused_command_ends_the_script(cloud: FakeCloud, tmp_path: Path) -> None:
    """Nothing is built on what failed: the schedule is not made where the service is missing."""
    assert script(["setup-iam"], tmp_path, LEAST, cloud.environ).returncode == 0
    ran = script(["setup-scheduler"], tmp_path, LEAST, cloud.environ)
    assert ran.returncode != 0
    assert "there is no run services posthog-etl" in ran.stderr
    assert not any(thing.startswith("scheduler") for thing in cloud.things)


def test_no_weekly_full_load_any_more(cloud: FakeCloud, tmp_path: Path) -> None:
    """Emptying WEEKLY_FULL_LOAD and running the script again deletes that schedule."""
    weekly = {**LEAST, "WEEKLY_FULL_LOAD": "0 4 * * 0"}
    assert "scheduler jobs posthog-etl-weekly-full-load" in deployed(cloud, tmp_path, weekly).things
    assert "scheduler jobs posthog-etl-weekly-full-load" not in deployed(cloud, tmp_path).things


TRAFFIC = "\tposthog-etl-00005-eee\n100\tposthog-etl-00003-ccc\n"  # the first: a tag alone
REVISIONS = [f"posthog-etl-0000{number}-{3 * name}" for number, name in enumerate("abcde", 1)]


def test_a_rollback_goes_to_the_revision_before(cloud: FakeCloud, tmp_path: Path) -> None:
    """Before the one that serves, not before the newest, which may never have served."""
    deployed(cloud, tmp_path).forget()
    cloud.answer("status.traffic", TRAFFIC)
    cloud.answer("run revisions list", "\n".join(reversed(REVISIONS)))
    ran = script(["rollback", "service"], tmp_path, LEAST, cloud.environ)
    assert ran.returncode == 0, ran.stderr
    (call,) = cloud.calls
    assert flags(call)["to-revisions"] == "posthog-etl-00002-bbb=100"


def test_a_rollback_without_an_earlier_revision_does_nothing(
    cloud: FakeCloud, tmp_path: Path
) -> None:
    """The first revision has none before it: one sentence, and the traffic stays."""
    deployed(cloud, tmp_path).forget()
    cloud.answer("status.traffic", "100\tposthog-etl-00001-aaa\n")
    cloud.answer("run revisions list", "posthog-etl-00001-aaa")
    ran = script(["rollback", "service"], tmp_path, LEAST, cloud.environ)
    assert (ran.returncode, cloud.calls) == (2, [])
    assert "There is no earlier revision of posthog-etl: name one." in ran.stderr


def test_the_schedules_pause_and_resume(cloud: FakeCloud, tmp_path: Path) -> None:
    """Both schedules, where there are two."""
    deployed(cloud, tmp_path, MOST)
    for verb in ("pause", "resume"):
        cloud.forget()
        assert script(["rollback", verb], tmp_path, MOST, cloud.environ).returncode == 0
        assert [call[3:5] for call in cloud.calls] == [
            [verb, "posthog-etl-trigger"],
            [verb, "posthog-etl-weekly-full-load"],
        ]


@pytest.mark.parametrize("answer", ["", "\n", "yes\n", "my-project\n"])
def test_a_teardown_asks(answer: str, cloud: FakeCloud, tmp_path: Path) -> None:
    """Anything but the project's id deletes nothing."""
    things = deployed(cloud, tmp_path).things
    cloud.forget()
    ran = script(["teardown"], tmp_path, LEAST, cloud.environ, answer)
    assert ran.returncode != 0
    assert (cloud.calls, cloud.things) == ([], things)


@pytest.mark.parametrize("config", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_teardown_leaves_nothing_but_data(
    config: dict[str, str], cloud: FakeCloud, tmp_path: Path
) -> None:
    """All that the scripts made is gone, no dataset is touched, and it can be run again."""
    deployed(cloud, tmp_path, config).forget()
    answered = script(["teardown"], tmp_path, config, cloud.environ, "my-project-123\n")
    assert answered.returncode == 0, answered.stderr
    left = {"secrets versions latest", "iam workload-identity-pools providers github"}
    assert cloud.things <= left  # which go with the secret and the pool
    assert not re.search("DROP|bq rm", str(cloud.calls))
    assert script(["teardown", "--yes"], tmp_path, config, cloud.environ).returncode == 0


# Configuration.


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
    # Whatever is neither of the example nor set by the scripts would be unset, or the caller's.
    read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)\b", texts))
    assigned = set(re.findall(r"\b([A-Z][A-Z_]+)\+?=", texts)) | {"BASH_SOURCE", "DEPLOY_CONFIG"}
    assert read <= set(variables) | assigned


def test_the_example_is_complete_but_for_the_project(tmp_path: Path) -> None:
    """A configuration that says nothing needs one thing: the project."""
    ran = script(["deploy", "--dry-run"], tmp_path, {})
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "PROJECT_ID must be a project id, like my-project-123.\n"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROJECT_ID", "My Project"),
        ("REGION", "US"),
        ("IMAGE", "posthog-etl:latest"),
        ("SETTINGS", "CHURN_DAYS"),
        ("SCHEDULE", "daily"),
        ("SCHEDULE_TARGET", "function"),
        ("MEMORY", "2"),
        ("CONCURRENCY", "9"),
        ("POSTHOG_DATASET_ID", "posthog-etl"),
        ("GITHUB_REPOSITORY", "posthog-etl"),
    ],
)
def test_a_wrong_value_is_named(variable: str, value: str, tmp_path: Path) -> None:
    """Before anything is done, in one sentence for each."""
    ran = script(["setup-iam", "--dry-run"], tmp_path, {**LEAST, "CPU": "many", variable: value})
    assert (ran.returncode, ran.stdout) == (2, "")
    sentences = {line.partition(" must be ")[0] for line in ran.stderr.splitlines()}
    assert sentences == {"CPU", variable}


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
    """A service in Iowa that downloads batches from the EU moves people's data across the sea."""
    config = {**LEAST, "CPU": "many", "REGION": region, "BIGQUERY_LOCATION": location}
    ran = script(["setup-iam", "--dry-run"], tmp_path, config)
    assert ran.returncode == 2  # for the CPU at any rate
    assert ("REGION must be on the continent" in ran.stderr) is not fits


def test_a_missing_configuration_says_what_to_do(tmp_path: Path) -> None:
    """One sentence that names the file and the example."""
    missing = {"DEPLOY_CONFIG": str(tmp_path / "missing.env")}
    ran = script(["deploy"], tmp_path, LEAST, missing)
    assert ran.returncode == 2
    assert "missing.env: copy config.example.env to it" in ran.stderr


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_explains_itself(path: Path, tmp_path: Path) -> None:
    """--help prints its usage, without a configuration; what it does not know it refuses."""
    if path.name == "lib.sh":
        assert not path.stat().st_mode & 0o111
        return
    helped = script([path.stem, "--help"], tmp_path, {})
    assert helped.returncode == 0
    assert helped.stdout.startswith(f"Usage: deploy/{path.name}")
    assert "source" not in helped.stdout
    unknown = script([path.stem, "--unknown", "--dry-run"], tmp_path, LEAST)
    assert (unknown.returncode, unknown.stdout) == (2, "")


def test_the_configuration_is_not_committed() -> None:
    """Git ignores deploy/config.env, and so does what gcloud sends to Cloud Build."""
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert "/deploy/config.env" in ignored
    assert not (ROOT / ".gcloudignore").exists()  # gcloud then goes by .gitignore

"""The Terraform module: well formed, in step with the settings and documents, and without secrets.

Providers can't be had without a registry, so nothing is validated against them here: files are
parsed, and what does not name a resource is evaluated by Terraform itself where it is installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import hcl2
import pytest

from config.schedules import FILE as JOBS_FILE
from config.schedules import read_schedules
from jobs.registry import find_job
from runs.request import RunRequest
from runs.settings import SETTINGS, Settings
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TERRAFORM = ROOT / "deploy" / "terraform"
MODULE, EXAMPLE = TERRAFORM / "module", TERRAFORM / "example"
PROGRAM = shutil.which("terraform")
VERIFY_ARGUMENTS = ["main.py", "--check", "--verify", "20"]
needs_terraform = pytest.mark.skipif(PROGRAM is None, reason="terraform is not installed")

type Block = dict[str, Any]


@cache
def parsed(file: Path) -> Block:
    """A file as python-hcl2 reads it."""
    with file.open(encoding="utf-8") as text:
        return hcl2.load(text)


def blocks(folder: Path, kind: str) -> Iterator[tuple[str, Block]]:
    """The blocks of a kind, each under its labels joined with dots."""
    for file in sorted(folder.glob("*.tf")):
        for block in parsed(file).get(kind, []):
            yield from _labelled(block, "")


def _labelled(block: Block, path: str) -> Iterator[tuple[str, Block]]:
    if block.get("__is_block__"):
        yield path.lstrip("."), block
        return
    for label, inner in block.items():
        yield from _labelled(inner, f"{path}.{plain(label)}")


def plain(value: object) -> str:
    """A string without the quotes and braces that python-hcl2 keeps."""
    text = str(value)
    whole = re.fullmatch(r'\$\{(.*)\}|"(.*)"', text, re.DOTALL)
    return (whole[1] or whole[2] or "") if whole else text


def text_of(folder: Path) -> str:
    """All of a folder's code, without comments."""
    code = "\n".join(file.read_text("utf-8") for file in sorted(folder.glob("*.tf")))
    return re.sub(r"(?m)(^|\s)#.*$", "", code)


def variables(folder: Path) -> dict[str, Block]:
    """The declared variables."""
    return dict(blocks(folder, "variable"))


def resources() -> dict[str, Block]:
    """The module's resources by address."""
    return dict(blocks(MODULE, "resource"))


def with_locals(text: str) -> str:
    """A text of the module with the values of its locals put in."""
    found = {key: value for _, each in blocks(MODULE, "locals") for key, value in each.items()}
    bare = plain(text).replace('\\"', '"')
    return re.sub(r"\$\{local\.(\w+)\}", lambda part: with_locals(found[part[1]]), bare)


@needs_terraform
def test_files_are_formatted() -> None:
    """`terraform fmt` would change nothing."""
    command = [str(PROGRAM), f"-chdir={TERRAFORM}", "fmt", "-check", "-recursive", "-diff"]
    done = subprocess.run(  # noqa: S603 - our own command
        command, check=False, capture_output=True, text=True, env={"TF_CLI_CONFIG_FILE": ""}
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("folder", [MODULE, EXAMPLE], ids=lambda path: path.name)
def test_variables_are_described_and_used(folder: Path) -> None:
    """Every variable has a type and a description and is used, and every used one is declared."""
    declared = variables(folder)
    for name, block in declared.items():
        assert {"type", "description"} <= block.keys(), name
    bodies = re.sub(r'(?ms)^variable ".*?^}', "", text_of(folder))
    assert set(re.findall(r"\bvar\.(\w+)", bodies)) == declared.keys()
    assert set(re.findall(r"\bvar\.(\w+)", text_of(folder))) == declared.keys()


def test_every_name_that_is_used_exists() -> None:
    """Every local and resource that an expression names is declared, and every local is used."""
    code = text_of(MODULE)
    found = [key for _, each in blocks(MODULE, "locals") for key in each if "__" not in key]
    assert set(re.findall(r"\blocal\.(\w+)", code)) == set(found)
    named = re.findall(r"\b(google_\w+\.\w+)", code)
    assert named
    assert set(named) <= resources().keys()


def test_the_example_sets_the_variables_of_the_module() -> None:
    """The example sets variables of the module, every required one, and has their defaults."""
    ((_, call),) = blocks(EXAMPLE, "module")
    given = {name for name in call if "__" not in name} - {"source"}
    of_module, of_example = variables(MODULE), variables(EXAMPLE)
    assert given <= of_module.keys()
    assert {name for name, block in of_module.items() if "default" not in block} <= given
    for name, block in of_example.items():
        assert block.get("default") == of_module[name].get("default"), name


def test_the_example_values_are_variables() -> None:
    """The file to copy sets only variables that exist, and its settings are accepted."""
    values = parsed(EXAMPLE / "terraform.tfvars.example")
    assert {name for name in values if "__" not in name} <= variables(EXAMPLE).keys()
    settings = {name: plain(value) for name, value in values["settings"].items()}
    Settings.from_environment({"GOOGLE_CLOUD_PROJECT_ID": plain(values["project_id"])} | settings)
    assert settings.keys() <= {each.variable for each in SETTINGS}


def test_environment_variables_are_settings() -> None:
    """Every environment variable of the service and the job is a setting, and none is a secret."""
    code = text_of(MODULE)
    names = set(re.findall(r"^\s+([A-Z][A-Z0-9_]+)\s+= ", code, re.MULTILINE))
    assert names >= {"GOOGLE_CLOUD_PROJECT_ID", "BIGQUERY_SECRET_NAME", "ETL_TIMEOUT_SECONDS"}
    assert names <= {each.variable for each in SETTINGS}
    assert re.findall(r"ETL_API_KEY\s*=[^=].*", code) == [
        "ETL_API_KEY = var.api_key_secret }"  # the name of a secret, not its value
    ]


def test_defaults_are_those_of_the_settings() -> None:
    """A variable and a setting of the same meaning have the same default."""
    defaults = {each.variable: each.default for each in SETTINGS}
    declared = {name: block.get("default") for name, block in variables(MODULE).items()}
    for name, setting in {
        "posthog_dataset_id": "POSTHOG_DATASET_ID",
        "firebase_dataset_id": "FIREBASE_DATASET_ID",
        "aggregated_dataset_id": "POSTHOG_AGGREGATED_DATASET_ID",
        "secret_name": "BIGQUERY_SECRET_NAME",
    }.items():
        assert plain(declared[name]) == defaults[setting], name
    # The run has to stop itself before Cloud Run ends its request.
    assert int(str(defaults["ETL_TIMEOUT_SECONDS"])) < int(str(declared["timeout_seconds"]))


def test_no_secret_passes_through_terraform() -> None:
    """It creates no key and no secret's value, which its state would keep, and no public access."""
    kinds = {address.split(".")[0] for address in resources()}
    assert not kinds & {"google_secret_manager_secret_version", "google_service_account_key"}
    everything = text_of(MODULE) + text_of(EXAMPLE)
    assert not re.search(r"PRIVATE KEY|secret_data|\bAIza", everything)
    assert set(re.findall(r'"(all\w*Users)"', everything)) == set(
        re.findall(r'contains\(\["(allUsers)", "(allAuthenticatedUsers)"\]', everything)[0]
    )


def test_accounts_get_only_the_roles_they_need() -> None:
    """Those that security.md explains, each on the resources that need it."""
    granted: dict[str, set[str]] = {}
    for address, block in resources().items():
        if "_iam_member." in address:
            kind = address.split(".")[0].removeprefix("google_").removesuffix("_iam_member")
            roles = re.findall(r"roles/[\w.]+", str(block["role"]) + str(block.get("for_each")))
            granted.setdefault(kind, set()).update(roles)
    assert granted == {
        "project": {
            "roles/bigquery.jobUser",
            "roles/bigquery.readSessionUser",
            "roles/logging.logWriter",
        },
        "bigquery_dataset": {"roles/bigquery.dataViewer", "roles/bigquery.dataEditor"},
        "secret_manager_secret": {"roles/secretmanager.secretAccessor"},
        "artifact_registry_repository": {"roles/artifactregistry.writer"},
        "cloud_run_v2_service": {"roles/run.invoker", "roles/run.developer"},
        "cloud_run_v2_job": {
            "roles/run.invoker",
            "roles/run.jobsExecutorWithOverrides",
            "roles/run.developer",
        },
        "storage_bucket": {"roles/storage.objectViewer"},
        "service_account": {
            "roles/iam.serviceAccountUser",
            "roles/iam.serviceAccountOpenIdTokenCreator",
        },
    }
    explained = (ROOT / "docs" / "security.md").read_text("utf-8")
    for role in set().union(*granted.values()):
        assert f"`{role}`" in explained


def test_only_cloud_build_changes_the_image() -> None:
    """Terraform ignores changes of the image of the service and the jobs."""
    for kind, path in (
        ("service.etl", "template[0]"),
        ("job.etl", "template[0].template[0]"),
        ("job.jobs", "template[0].template[0]"),
    ):
        (lifecycle,) = resources()[f"google_cloud_run_v2_{kind}"]["lifecycle"]
        ignored = [plain(each) for each in lifecycle["ignore_changes"]]
        assert f"{path}.containers[0].image" in ignored


def test_names_are_those_of_the_documents() -> None:
    """The service, the job and the schedule have the names of the set-up document."""
    document = (ROOT / "docs" / "CLOUD_RUN_SCHEDULER_SETUP.md").read_text("utf-8")
    names = {
        "service_name": "posthog-etl",
        "job_name": "posthog-etl-job",
        "schedule_name": "posthog-etl-trigger",
    }
    assert {key: with_locals(f'"${{local.{key}}}"') for key in names} == names
    accounts = [
        plain(block["account_id"])
        for address, block in resources().items()
        if address.startswith("google_service_account.")
    ]
    own = "etl-${each.value.slug}"
    assert sorted(accounts) == ["cloud-build-user-sa", own, "etl-runner", "scheduler-invoker"]
    accounts.remove(own)
    for name in (*names.values(), *accounts):
        assert name in document


def test_the_readme_has_every_variable() -> None:
    """The table of the README holds each variable, its default and its description."""
    page = (TERRAFORM / "README.md").read_text("utf-8").partition("\n## Variables\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert rows == [
        (name, _default(block), plain(block["description"]))
        for name, block in variables(MODULE).items()
    ]


def _default(block: Block) -> str:
    if "default" not in block:
        return "required"
    value = block["default"]
    if isinstance(value, dict):
        return f"`{_braces(value)}`"
    text = {"True": "true", "False": "false", "None": "null"}.get(str(value), str(value))
    return f"`{plain(text) if plain(text) == 'null' else text}`"


def _braces(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    pairs = [f"{key} = {_braces(each)}" for key, each in value.items() if "__" not in key]
    return f"{{ {', '.join(pairs)} }}" if pairs else "{}"


# The module, evaluated by Terraform with placeholders for what only Google knows.


def write_jobs_file(folder: Path, **modes: str) -> str:
    """Write a file in which every job is deployed, with other modes if given."""
    text = JOBS_FILE.read_text("utf-8").replace("deployed: false", "deployed: true")
    for old, new in modes.items():
        text = text.replace(f"mode: {old}", f"mode: {new}")
    file = folder / "jobs.yaml"
    file.write_text(text, "utf-8")
    return str(file)


def evaluate(folder: Path, **values: str) -> subprocess.CompletedProcess[str]:
    """Let Terraform evaluate the module's locals with these variables."""
    values = {"jobs_file": str(JOBS_FILE)} | values
    code = (MODULE / "variables.tf").read_text("utf-8")
    for file in sorted(MODULE.glob("*.tf")):
        for found in re.findall(r"(?ms)^locals \{\n.*?^\}\n", file.read_text("utf-8")):
            stubbed = re.sub(r"\$\{google_\w+\.\w+\.(\w+)\}", r"the_\1", found)
            code += re.sub(r"google_\w+\.\w+\.(\w+)", r'"the_\1"', stubbed)
    for name in (
        "schedules", "target", "environment", "job_environment", "secret_environment",
        "own_environment", "own_jobs", "job_datasets", "job_secrets", "alerts",
    ):  # fmt: skip
        code += f'output "{name}" {{ value = local.{name} }}\n'
    (folder / "main.tf").write_text(code, "utf-8")
    given = [f"-var={name}={value}" for name, value in values.items()]
    commands = (
        ["init", "-input=false"],
        ["apply", "-auto-approve", "-input=false", "-no-color", "-var=project_id=my-project-123"],
        ["output", "-json"],
    )
    for command in commands:
        arguments = [*command, *given] if command[0] == "apply" else command
        done = subprocess.run(  # noqa: S603 - our own command
            [str(PROGRAM), *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env={"TF_CLI_CONFIG_FILE": "", "CHECKPOINT_DISABLE": "1"},
        )
        if done.returncode:
            return done
    return done


def outputs(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The locals that Terraform evaluated."""
    assert done.returncode == 0, done.stderr
    return {name: each["value"] for name, each in json.loads(done.stdout).items()}


@needs_terraform
def test_the_schedule_sends_requests_that_the_service_accepts(tmp_path: Path) -> None:
    """For an ordinary run every day and, if configured, a full load every week."""
    file = write_jobs_file(tmp_path, job="service")
    evaluated = outputs(evaluate(tmp_path, jobs_file=file, weekly_full_load_schedule="0 4 * * 0"))
    names = ("posthog-etl-trigger", "posthog-etl-weekly-full-load")
    bodies = [evaluated["schedules"][name]["body"] for name in names]
    assert json.loads(bodies[0]) == {"full_load": False}
    run_requests = [RunRequest.from_json(body.encode()) for body in bodies]
    assert [each.full_load for each in run_requests] == [False, True]
    assert evaluated["target"]["uri"].endswith("/run")


@needs_terraform
def test_the_schedule_can_start_the_job(tmp_path: Path) -> None:
    """Through the Admin API; only the weekly full load needs an override."""
    evaluated = outputs(evaluate(tmp_path, weekly_full_load_schedule="0 4 * * 0"))
    address = "/v2/projects/my-project-123/locations/us-central1/jobs/posthog-etl-job:run"
    assert evaluated["target"]["uri"].endswith(f"run.googleapis.com{address}")
    names = ("posthog-etl-trigger", "posthog-etl-weekly-full-load")
    daily, weekly = (json.loads(evaluated["schedules"][name]["body"]) for name in names)
    assert daily == {}
    (container,) = weekly["overrides"]["containerOverrides"]
    assert container["args"][-1] == "--full-load"


@needs_terraform
@pytest.mark.parametrize("mode", ["job", "service"])
def test_the_job_does_the_weekly_verification(tmp_path: Path, mode: str) -> None:
    """In either mode, and only if its schedule is set."""
    file = write_jobs_file(tmp_path, job=mode)
    evaluated = outputs(evaluate(tmp_path, jobs_file=file, weekly_verify_schedule="0 6 * * 1"))
    schedule = evaluated["schedules"]["posthog-etl-weekly-verify"]
    assert schedule["uri"].endswith("/jobs/posthog-etl-job:run")
    (container,) = json.loads(schedule["body"])["overrides"]["containerOverrides"]
    assert container["args"] == VERIFY_ARGUMENTS
    assert "posthog-etl-weekly-verify" not in outputs(evaluate(tmp_path))["schedules"]


@needs_terraform
def test_the_job_stops_itself_before_cloud_run_does(tmp_path: Path) -> None:
    """The job's own deadline is below its task time-out, and its settings are accepted."""
    evaluated = outputs(evaluate(tmp_path, secret_name=""))
    settings = Settings.from_environment(evaluated["job_environment"])
    assert settings.timeout_seconds == 360 * 60 - 300
    assert settings.secret_name is None
    assert Settings.from_environment(evaluated["environment"]).timeout_seconds == 3300


SETTINGS_OF_JOBS = json.dumps(
    {
        "claude_usage": {"ANTHROPIC_ORGANIZATION_ID": "12345678-9abc-4def-8123-456789abcdef"},
        "tmdb_changes": {"REDIS_HOST": "redis.example.com"},
    }
)


@needs_terraform
def test_each_deployed_job_has_what_it_declares(tmp_path: Path) -> None:
    """Its schedule, dataset and secrets, and settings that lack only the secrets."""
    file = write_jobs_file(tmp_path)
    evaluated = outputs(evaluate(tmp_path, jobs_file=file, job_settings=SETTINGS_OF_JOBS))
    declared = {name: each for name, each in read_schedules().items() if name != "sessions"}
    assert evaluated["own_jobs"].keys() == declared.keys()
    for name, each in declared.items():
        slug = name.replace("_", "-")
        schedule = evaluated["schedules"][f"posthog-etl-{slug}-trigger"]
        assert (schedule["cron"], schedule["time_zone"]) == (each.cron, each.time_zone)
        assert schedule["uri"].endswith(f"/jobs/posthog-etl-{slug}:run")
        assert json.loads(schedule["body"]) == {}
        secrets = default_secrets().get(name, {})
        environ = evaluated["own_environment"][name] | dict.fromkeys(secrets, "value")
        settings = Settings.from_environment(environ)
        assert find_job(name).missing(settings) == []
        assert settings.timeout_seconds == each.timeout_minutes * 60 - 300
        assert settings.secret_name is None
    assert evaluated["job_datasets"] == {
        "ai_usage_analytics": "claude_usage", "dog_breeds_raw": "dog_breeds",
    }  # fmt: skip
    assert evaluated["job_secrets"] == {
        "anthropic-admin-api-key": "claude_usage",
        "redis-password": "tmdb_changes",
        "tmdb-read-token": "tmdb_changes",
    }
    assert evaluated["secret_environment"] == {}  # the service may not read them


def default_secrets() -> dict[str, dict[str, str]]:
    """The default secrets of each job: variables and names."""
    found = variables(MODULE)["job_secrets"]["default"]
    return {
        job: {name: plain(each) for name, each in secrets.items() if "__" not in name}
        for job, secrets in found.items()
        if "__" not in job
    }


@needs_terraform
def test_a_job_may_run_in_the_service(tmp_path: Path) -> None:
    """In mode service its schedule posts to /run, and the service has its settings and secrets."""
    file = write_jobs_file(tmp_path, job="service")
    evaluated = outputs(evaluate(tmp_path, jobs_file=file, job_settings=SETTINGS_OF_JOBS))
    assert evaluated["own_jobs"] == {}
    schedule = evaluated["schedules"]["posthog-etl-tmdb-changes-trigger"]
    assert schedule["uri"].endswith("/run")
    assert RunRequest.from_json(schedule["body"].encode()).job == "tmdb_changes"
    assert evaluated["environment"]["REDIS_HOST"] == "redis.example.com"
    assert evaluated["secret_environment"]["TMDB_READ_TOKEN"] == "tmdb-read-token"  # noqa: S105 - its name


@needs_terraform
def test_a_job_that_is_not_deployed_has_no_resources(tmp_path: Path) -> None:
    """With config/jobs.yaml as it is, only sessions is scheduled."""
    evaluated = outputs(evaluate(tmp_path))
    assert list(evaluated["schedules"]) == ["posthog-etl-trigger"]
    assert (evaluated["own_jobs"], evaluated["job_secrets"], evaluated["job_datasets"]) == (
        {},
        {},
        {},
    )


@needs_terraform
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("project_id", "My Project", "project_id must be a project id"),
        ("settings", '{ETL_API_KEY="a-key-of-sixteen-characters"}', "ETL_API_KEY is a secret"),
        ("invokers", '["allUsers"]', "the service is private"),
        ("attempt_deadline_seconds", "3600", "must be 15 to 1800"),
        ("concurrency", "80", "must be 1 to 8"),
        ("secret_name", "projects/p/secrets/s", "must be the short name"),
    ],
    ids=lambda text: text if text.isidentifier() else "",
)
def test_invalid_values_are_refused(tmp_path: Path, name: str, value: str, sentence: str) -> None:
    """Terraform refuses in one sentence what Google or the service would refuse later."""
    done = evaluate(tmp_path, **{name: value})
    assert done.returncode != 0
    assert sentence in re.sub(r"[\s│]+", " ", done.stderr)

"""Everything once on the real BigQuery, in datasets of its own: `make cloud-test`.

It loads the recorded and a generated sample, runs full and incremental loads by both engines,
compares every cell with the oracle, and what runs say they billed with BigQuery's list of jobs.
However it ends, it deletes the datasets that it made.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import signal
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.cloud import bigquery

import main as product
from bigquery.clients import make_clients
from bigquery.credentials import fetch_credentials
from bigquery.jobs import run_query
from bigquery.refusals import classified
from bigquery.warehouse import Warehouse
from config.metrics_file import metric_table
from oracle.comparison import SourceRows, compare, difference_text
from oracle.sessions import expected_sessions
from runs.errors import AuditError, BudgetError, CredentialsError, EtlError, RequestError
from runs.request import RunRequest
from runs.setting_kinds import DATASET
from runs.settings import ENGINES, Settings
from sandbox.errors import SandboxError
from sandbox.filling import let_next_day_arrive, load_directory, seed_history
from sandbox.generator.history import Period
from sandbox.sources import SourceDatasets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.auth.credentials import Credentials

    from bigquery.clients import Clients
    from runs.report import RunKind
    from runs.settings import Engine

NEEDS: Final = (
    "make cloud-test needs PROJECT=, a Google Cloud project with billing, DATASET_PREFIX=, which"
    " the names of the datasets begin with that it makes and deletes, and credentials of an account"
    " with roles/bigquery.user there: run `gcloud auth application-default login`, or set"
    " BIGQUERY_CREDENTIALS_PATH to a key file."
)
LABEL: Final = "posthog-etl-cloud-test"  # of the datasets: the value says which test made them
RECORDED: Final = Path(__file__).parent / "recorded_web"
_MOST_BYTES: Final = 2 * 10**9  # of a single statement
_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How much is generated: visits of about 33 events."""

    sessions: int = 400
    days: int = 7
    next_sessions: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTest:
    """One test: its clients and datasets, and what it may cost."""

    clients: Clients
    settings: Settings
    prefix: str
    max_usd: float
    announce: Callable[[str], None]
    sample: Sample = field(default_factory=Sample)
    began: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    token: str = field(default_factory=lambda: uuid4().hex)

    @property
    def sources(self) -> SourceDatasets:
        """The datasets of the sample."""
        return SourceDatasets(posthog=f"{self.prefix}_posthog", firebase=f"{self.prefix}_firebase")

    @property
    def names(self) -> tuple[str, ...]:
        """All datasets: the sources, and one for each engine."""
        sources = self.sources
        return sources.posthog, sources.firebase, *(f"{self.prefix}_{each}" for each in ENGINES)

    def settings_of(self, engine: Engine) -> Settings:
        """The settings of an engine's runs."""
        return replace(
            self.settings,
            engine=engine,
            posthog_dataset_id=self.sources.posthog,
            firebase_dataset_id=self.sources.firebase,
            aggregated_dataset_id=f"{self.prefix}_{engine}",
            max_bytes_billed=_MOST_BYTES,
        )

    def run_all(self) -> None:
        """Every step. Raises EtlError for the first that is not as it should be."""
        with self._datasets():
            self._step("load the sample", self._load)
            self._run_both("full_load")
            self._step("let a day arrive", self._next_day)
            self._run_both("incremental")

    def _run_both(self, kind: RunKind) -> None:
        for engine in ENGINES:
            self._step(f"{kind} by {engine}", partial(self._run, engine, kind))
        self._step("compare with the oracle", self.compare_all)

    @contextmanager
    def _datasets(self) -> Iterator[None]:
        """Make them, and delete them at the end; refuse names that are others'."""
        for name in self.names:
            owner = self._owner(name)
            if owner is None:
                message = f"Dataset {name} is there and is no test's: choose another prefix."
                raise RequestError(message)
        try:
            for name in self.names:
                self._delete(name)  # what a test left that was killed
                self._make(name)
            yield
        finally:
            for name in self.names:
                if self._owner(name) == self.token:
                    self.announce(f"deleting {name}")
                    self._delete(name)

    def _owner(self, name: str) -> str | None:
        """The test that made the dataset; '' where there is none, None if it is no test's."""
        with classified(f"dataset {name}", RequestError):
            try:
                labels = self.clients.bigquery.get_dataset(name).labels
            except NotFound:
                return ""
            return None if LABEL not in labels else str(labels[LABEL])

    def _make(self, name: str) -> None:
        project = self.settings.project_id
        dataset = bigquery.Dataset(bigquery.DatasetReference(project, name))
        dataset.location, dataset.labels = self.settings.location, {LABEL: self.token}
        with classified(f"dataset {name}", RequestError):
            self.clients.bigquery.create_dataset(dataset)

    def _delete(self, name: str) -> None:
        with classified(f"dataset {name}", RequestError):
            self.clients.bigquery.delete_dataset(name, delete_contents=True, not_found_ok=True)

    def _step(self, name: str, work: Callable[[], str]) -> None:
        """Do it, and say what it found, took and billed. Raises BudgetError above the bound."""
        started, before = time.monotonic(), self._billed()
        found = work()
        billed = self._billed()
        seconds, usd = time.monotonic() - started, self._usd(billed)
        self.announce(
            f"{name}: {found}; {seconds:.1f} s, {(billed - before) / 1e6:,.0f} MB,"
            f" ${self._usd(billed - before):.4f}; ${usd:.4f} so far"
        )
        check_cost(usd, self.max_usd)

    def _usd(self, billed: int) -> float:
        return billed / 2**40 * self.settings.usd_per_tib

    def _billed(self, prefix: str = "") -> int:
        """What BigQuery says that jobs have billed since the test began, those of this id alone."""
        with classified("the list of jobs", RequestError):
            jobs = list(self.clients.bigquery.list_jobs(min_creation_time=self.began))
        return sum(
            getattr(job, "total_bytes_billed", None) or 0
            for job in jobs
            if job.job_id.startswith(prefix)
        )

    def _load(self) -> str:
        yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
        client, settings = self.clients.bigquery, self.settings_of("pandas")
        # Also for the sample's own queries.
        client.default_query_job_config = bigquery.QueryJobConfig(
            maximum_bytes_billed=settings.max_bytes_billed
        )
        quiet: Any = {"properties": None, "progress": lambda _: None}
        recorded = load_directory(client, self.sources, directory=RECORDED, **quiet)
        made = seed_history(
            client,
            self.sources,
            seed=1,
            sessions=self.sample.sessions,
            period=Period(last_day=yesterday - dt.timedelta(days=1), days=self.sample.days),
            **quiet,
        )
        rows = [count for each in (recorded, made) for count in each.values()]
        return f"{sum(rows)} rows"

    def _next_day(self) -> str:
        day, appended = let_next_day_arrive(
            self.clients.bigquery,
            self.sources,
            seed=1,
            sessions=self.sample.next_sessions,
            progress=lambda _: None,
        )
        return f"{day}, {sum(appended.values())} rows"

    def _run(self, engine: Engine, kind: RunKind) -> str:
        request = RunRequest(full_load=kind == "full_load")
        report = product.main(request, self.settings_of(engine), self.clients)
        if report.kind != kind:
            message = f"The run {report.run_id} was {report.kind} ({report.reason}), not {kind}."
            raise AuditError(message)
        listed = self._billed(f"posthog_etl_{report.run_id}_")
        check_bill(report.run_id, reported=report.bytes_processed, listed=listed)
        warnings = "".join(f"\n  {each}" for each in report.warnings)
        return f"{sum(report.counts.values())} rows accounted for{warnings}"

    def compare_all(self) -> str:
        """Every session stored or expected, by both engines. Raises AuditError for what differs."""
        settings = self.settings_of("pandas")
        warehouse = Warehouse(clients=self.clients, settings=settings, run_id="cloud_test")
        table = metric_table(settings.metrics_file)

        def rows(name: str) -> list[dict[str, Any]]:
            return run_query(warehouse, "compare", f"SELECT * FROM `{self.prefix}_{name}`")

        source = SourceRows(
            events=rows("posthog.events"),
            users=rows("firebase.users"),
            documents=rows("firebase.events"),
            posthog_sessions=rows("posthog.sessions"),
        )
        stored = {engine: rows(f"{engine}.sessions") for engine in ENGINES}
        verdicts = compare(table, chain(*stored.values()), source)
        wrong = [difference_text(each) for verdict in verdicts for each in verdict.differences]
        wrong += [f"{v.session_id} has changed" for v in verdicts if v.status == "changed"]
        expected = expected_sessions(
            table, source.events, source.users, source.documents, source.posthog_sessions
        ).keys()
        for engine, found in stored.items():
            missing = expected - {row["session_id"] for row in found}
            wrong += [f"{session_id} is not stored by {engine}" for session_id in sorted(missing)]
        if wrong:
            message = f"{len(wrong)} things differ from the oracle, and the first is: {wrong[0]}."
            raise AuditError(message)
        return f"{len(verdicts)} sessions, {sum(each.cells for each in verdicts)} cells, all right"


def check_cost(usd: float, max_usd: float) -> None:
    """Raise BudgetError where the test has cost more than it may."""
    if usd > max_usd:
        message = f"The test has billed ${usd:.4f}, more than MAX_USD ({max_usd:g}): it ends here."
        raise BudgetError(message)


def check_bill(run_id: str, *, reported: int, listed: int) -> None:
    """Raise AuditError where a run says that it billed what BigQuery does not."""
    if reported != listed:
        message = (
            f"Run {run_id} says that it billed {reported} bytes, and BigQuery's list of its jobs"
            f" says {listed}."
        )
        raise AuditError(message)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make cloud-test", description=__doc__)
    parser.add_argument("--project", metavar="PROJECT")
    parser.add_argument("--prefix", metavar="DATASET_PREFIX")
    parser.add_argument("--location", default="US", metavar="LOCATION", help="of the datasets (US)")
    parser.add_argument("--max-usd", type=float, default=0.5, help="what it may cost (0.5)")
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> Settings:
    if not (options.project and options.prefix):
        raise RequestError(NEEDS)
    if not DATASET.accepts(options.prefix):
        message = f"DATASET_PREFIX must be {DATASET.takes}."
        raise RequestError(message)
    return Settings.from_environment(
        {
            "GOOGLE_CLOUD_PROJECT_ID": options.project,
            "BIGQUERY_SECRET_NAME": "",
            "BIGQUERY_CREDENTIALS_PATH": os.environ.get("BIGQUERY_CREDENTIALS_PATH", ""),
            "BIGQUERY_LOCATION": options.location,
        }
    )


def _credentials(settings: Settings) -> Credentials:
    try:
        return fetch_credentials(settings)
    except CredentialsError as error:
        if settings.credentials_path is not None:
            raise
        raise CredentialsError(NEEDS) from error


def main(arguments: list[str]) -> int:
    """Test, and return an exit code; what went wrong is one sentence on stderr."""
    options = _options(arguments)
    try:
        settings = _settings(options)
        with closing(make_clients(settings, _credentials(settings))) as clients:
            # What was made is deleted then, too.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            CloudTest(
                clients=clients,
                settings=settings,
                prefix=options.prefix,
                max_usd=options.max_usd,
                announce=_print,
            ).run_all()
    except EtlError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except (SandboxError, GoogleAPICallError) as error:
        sys.stderr.write(f"The sample can't be loaded: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; what was made is deleted.\n")
        return _INTERRUPTED
    return 0


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A small scenario for tests: source and destination datasets of their own in a shared emulator."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import main
from oracle import sessions as oracle
from oracle.rows import Exclusions, ties
from runs.request import RunRequest
from runs.settings import Settings
from sandbox.sources import SourceDatasets, append_rows, create_tables
from sessions.report import SessionsReport
from tests import persons_oracle
from tests.shipped import METRIC_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bigquery.clients import Clients
    from runs.report import RunReport
    from sandbox.tables import PropertiesType, TableName

type Row = dict[str, Any]

BOOKKEEPING = ("_loaded_at", "_run_id", "_metrics_version")
_numbers = itertools.count(1)


@dataclass(kw_only=True)
class Scenario:
    """Everything that has arrived, and the runs over it.

    Its datasets' names are as long as the usual ones: so the emulator translates statements once.
    """

    clients: Clients
    properties: PropertiesType = "string"
    settings: dict[str, Any] = field(default_factory=dict)
    arrived: dict[TableName, list[Row]] = field(default_factory=dict)
    output: str = "output"
    number: int = field(default_factory=lambda: next(_numbers))

    def __post_init__(self) -> None:
        create_tables(self.clients.bigquery, self.datasets, properties=self.properties)

    @property
    def datasets(self) -> SourceDatasets:
        """The source datasets of this scenario alone."""
        number = f"{self.number:03}"
        return SourceDatasets(posthog=f"posthog_{number}", firebase=f"firebase_etl_n{number}")

    @property
    def destination(self) -> str:
        """The destination dataset."""
        return f"posthog_{self.output}_{self.number:03}"

    def twin(self) -> Scenario:
        """A scenario of the same sources and an empty destination of its own."""
        other = copy.copy(self)
        other.output = "second"
        return other

    def arrive(self, table: TableName, rows: Sequence[Row]) -> None:
        """Append rows to a source table."""
        if rows := list(rows):
            append_rows(self.clients.bigquery, self.datasets, table, rows)
            self.arrived.setdefault(table, []).extend(rows)

    def __enter__(self) -> Self:
        """For one test: the datasets go with the `with` block, since many slow the emulator."""
        return self

    def __exit__(self, *_: object) -> None:
        mine = (self.datasets.posthog, self.datasets.firebase, self.destination)
        for dataset in (*mine, self.twin().destination):
            self.clients.bigquery.delete_dataset(dataset, delete_contents=True, not_found_ok=True)

    def vanish(self, table: TableName, column: str, value: str | None) -> None:
        """Delete the rows of a source table with this value."""
        name = self.datasets.table_id(self.clients.bigquery, table)
        rows = self.arrived.get(table, [])
        self.arrived[table] = [row for row in rows if row.get(column) != value]
        where = f"{column} IS NULL" if value is None else f"{column} = '{value}'"
        self.clients.bigquery.query(f"DELETE FROM `{name}` WHERE {where}").result()

    def rewrite(self, uuid: str | None, event: str) -> None:
        """Rename the events of this uuid where they are: no count of rows betrays it."""
        name = self.datasets.table_id(self.clients.bigquery, "posthog_events")
        rows = self.arrived["posthog_events"]
        self.arrived["posthog_events"] = [
            row | {"event": event} if row.get("uuid") == uuid else row for row in rows
        ]
        where = "uuid IS NULL" if uuid is None else f"uuid = '{uuid}'"
        self.clients.bigquery.query(f"UPDATE `{name}` SET event = '{event}' WHERE {where}").result()

    def exchange(self, uuid: str, event: str) -> None:
        """Delete the events of this uuid, and let as many arrive of another name and uuid."""
        rows = [row for row in self.arrived["posthog_events"] if row.get("uuid") == uuid]
        self.vanish("posthog_events", "uuid", uuid)
        self.arrive("posthog_events", [row | {"uuid": f"{uuid}x", "event": event} for row in rows])

    def replace(self, table: TableName, statement: str) -> None:
        """Put a table of another shape in a source's place: {n} is made, from {t}.

        That is what stood there at first, however often it is replaced.
        """
        name = self.datasets.table_id(self.clients.bigquery, table)
        dataset, _, short = name.rpartition(".")
        backup = f"{dataset}.kept_{short}"
        there = {each.table_id for each in self.clients.bigquery.list_tables(dataset)}
        if f"kept_{short}" not in there:
            self.query(f"CREATE TABLE `{backup}` AS SELECT * FROM `{name}`")
        self.clients.bigquery.delete_table(name)
        self.query(statement.format(n=f"`{name}`", t=f"`{backup}`"))

    def run(self, **request: Any) -> SessionsReport:  # noqa: ANN401 - the fields of a request
        """Run the job, as the command line and the service do."""
        report = main.main(RunRequest(**request), self.make_settings(), self.clients)
        assert isinstance(report, SessionsReport)
        return report

    def make_settings(self) -> Settings:
        """The settings of this scenario's runs."""
        return Settings(
            project_id="local",
            posthog_dataset_id=self.datasets.posthog,
            firebase_dataset_id=self.datasets.firebase,
            aggregated_dataset_id=self.destination,
            **self.settings,
        )

    def query(self, sql: str) -> list[Row]:
        """The rows of a statement; `{d}` stands for the destination dataset."""
        job = self.clients.bigquery.query(sql.replace("{d}", self.destination))
        return [dict(row.items()) for row in job.result()]

    def sessions(self) -> dict[str, Row]:
        """The published sessions by id, bookkeeping left out."""
        rows = self.query("SELECT * FROM {d}.sessions")
        by_id = {row["session_id"]: row for row in rows}
        assert len(by_id) == len(rows), "a session stands twice"
        for row, name in itertools.product(rows, BOOKKEEPING):
            del row[name]
        return without_digests(by_id)

    def derived(self) -> persons_oracle.Derived:
        """What follows from the sessions, as it is published, bookkeeping left out."""
        identities = self.query("SELECT anonymous_id, user_id FROM {d}.identities")
        persons = self.query("SELECT * EXCEPT (_loaded_at, _run_id) FROM {d}.persons")
        days = self.query("SELECT * FROM {d}.daily_activity")
        found = persons_oracle.Derived(
            identities={row["anonymous_id"]: row["user_id"] for row in identities},
            persons={persons_oracle.person_key(row): row for row in persons},
            daily_activity={persons_oracle.daily_key(row): row for row in days},
        )
        rows = len(found.identities) + len(found.persons) + len(found.daily_activity)
        assert rows == len(identities) + len(persons) + len(days), "a row stands twice"
        return found

    def expected_derived(
        self, report: RunReport, sessions: dict[str, Row]
    ) -> persons_oracle.Derived:
        """What the oracle says follows from these sessions, as of this run."""
        return persons_oracle.expected_derived(
            sessions,
            self.arrived.get("firebase_users", []),
            self.arrived.get("firebase_events", []),
            ties=ties(
                METRIC_TABLE,
                self.arrived.get("posthog_events", []),
                exclusions=Exclusions(
                    exclude_libs=frozenset(self.settings.get("exclude_libs", ()))
                ),
            ),
            today=report.started_at.date(),
            churn_days=self.make_settings().churn_days,
        )

    def expected(self) -> dict[str, Row]:
        """What the oracle makes of everything that has arrived."""
        return oracle.expected_sessions(
            METRIC_TABLE,
            self.arrived.get("posthog_events", []),
            self.arrived.get("firebase_users", []),
            self.arrived.get("firebase_events", []),
            self.arrived.get("posthog_sessions", []),
        )


def without_digests(rows: dict[str, Row]) -> dict[str, Row]:
    """The rows without the digests of their days, which the oracle does not know."""
    for day in itertools.chain.from_iterable(row["_days"] for row in rows.values()):
        del day["digest"]
    return rows


def differences(actual: dict[str, Row], expected: dict[str, Row]) -> list[str]:
    """Every cell that differs, in words; floats to 1e-9."""
    found = [f"{key}: missing" for key in expected.keys() - actual.keys()]
    found += [f"{key}: not expected" for key in actual.keys() - expected.keys()]
    for key in sorted(actual.keys() & expected.keys()):
        for name, value in expected[key].items():
            if not same(actual[key][name], value):
                found.append(f"{key}.{name}: {actual[key][name]!r} instead of {value!r}")
    return found


def derived_differences(
    actual: persons_oracle.Derived, expected: persons_oracle.Derived
) -> list[str]:
    """Every cell of the three tables that differs, columns that only one has among them."""
    found = []
    if actual.identities != expected.identities:
        found.append(f"identities: {actual.identities} instead of {expected.identities}")
    for table in ("persons", "daily_activity"):
        rows, wanted = getattr(actual, table), getattr(expected, table)
        names = {name for row in rows.values() for name in row}
        wanted_names = {name for row in wanted.values() for name in row}
        if rows and wanted and names != wanted_names:
            found.append(f"{table}: columns {sorted(names ^ wanted_names)}")
        else:
            found += [f"{table} {each}" for each in differences(rows, wanted)]
    return found


def same(actual: object, expected: object) -> bool:
    """Whether two cells agree."""
    if isinstance(actual, float) and isinstance(expected, float | int):
        return abs(actual - expected) <= 1e-9 * max(1.0, abs(expected))
    return type(actual) is type(expected) and actual == expected

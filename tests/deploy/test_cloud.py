"""`make cloud-test`: what it would do on the real BigQuery, done on the emulator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from runs.errors import AuditError, BudgetError, RequestError
from runs.settings import Settings
from tests import cloud

if TYPE_CHECKING:
    from pathlib import Path

    from bigquery.clients import Clients


class _InterruptedError(Exception):
    """Interrupts the test before it has deleted anything."""


def test_it_loads_compares_and_deletes_its_datasets(clients: Clients) -> None:
    """Both engines and both kinds of run agree with the oracle; however it ends, nothing is left.

    A dataset that it did not create is refused and kept. A wrong cell is noticed.
    """
    lines: list[str] = []

    def record(line: str) -> None:
        lines.append(line)
        if len(lines) == 8:  # it has done everything
            table = f"{test.names[-1]}.sessions"
            client.query(f"UPDATE {table} SET event_count = 99 WHERE TRUE").result()
            with pytest.raises(AuditError, match=r"event_count is 99 and should be"):
                test.compare_all()
            raise _InterruptedError

    test = cloud.CloudTest(
        clients=clients,
        settings=Settings(project_id="local", location="US"),
        prefix="cloud_test",
        max_usd=0.0,
        announce=record,
        sample=cloud.Sample(sessions=20, days=2, next_sessions=4),
    )
    client = clients.bigquery
    client.create_dataset(test.names[-1])
    with pytest.raises(RequestError, match=f"{test.names[-1]} is there"):
        test.run_all()
    assert datasets(clients) == {test.names[-1]}
    leftover = client.get_dataset(test.names[-1])  # as by a test that was killed
    leftover.labels = {cloud.LABEL: "another"}
    client.update_dataset(leftover, ["labels"])
    with pytest.raises(_InterruptedError):
        test.run_all()
    assert datasets(clients) == set()
    assert [line.partition(":")[0] for line in lines[:8]] == [
        "load the sample",
        "full_load by pandas",
        "full_load by bigquery",
        "compare with the oracle",
        "let a day arrive",
        "incremental by pandas",
        "incremental by bigquery",
        "compare with the oracle",
    ]
    assert all(re.search(r" cells, all right; .* MB, \$0\.0000;", lines[each]) for each in (3, 7))


def datasets(clients: Clients) -> set[str]:
    """The datasets of the cloud test that exist."""
    found = {each.dataset_id for each in clients.bigquery.list_datasets()}
    return {name for name in found if name.startswith("cloud_test_")}


def test_it_reports_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a project, a prefix or credentials it does nothing, and one sentence says so."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "BIGQUERY_CREDENTIALS_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # asks no metadata server
    project = "--project=my-project"
    for arguments in (["--prefix=x"], [project], [project, "--prefix=x"]):
        assert cloud.main(arguments) == RequestError.exit_code
        assert capsys.readouterr().err == f"{cloud.NEEDS}\n"
    assert cloud.main([project, "--prefix=a b"]) == RequestError.exit_code
    assert "DATASET_PREFIX must be" in capsys.readouterr().err


def test_it_stops_above_its_budget() -> None:
    """Its cost so far is checked after each step."""
    cloud.check_cost(0.5, 0.5)
    with pytest.raises(BudgetError, match=r"\$0\.5100, more than MAX_USD \(0\.5\)"):
        cloud.check_cost(0.51, 0.5)


def test_it_compares_the_bytes_billed() -> None:
    """A run that reports other bytes than BigQuery's list of its jobs is an error."""
    cloud.check_bill("1", reported=5, listed=5)
    with pytest.raises(AuditError, match=r"Run 1 .* billed 5 bytes, .* says 6"):
        cloud.check_bill("1", reported=5, listed=6)

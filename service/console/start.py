"""Starting a run: what may be asked, what it will cost, and the run itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from flask import redirect, request

from bigquery.refusals import StatementError
from jobs.registry import JOBS
from runs.errors import EtlError, LeaseHeldError, RequestError
from runs.request import RunRequest
from runs.settings import ENGINES
from service import inspection
from service.console import formats, forms
from service.console.costs import source_sql
from service.console.live import Live, read_live
from service.console.responses import is_part, page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue

    from service.console.site import Site

_FLAGS: Final = ("full_load", "force", "dry_run")
_LOOKED_BACK: Final = 100  # runs, for the last one of a kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run would read, by BigQuery's own dry run; and what the last of its kind cost."""

    bytes: int | None
    cost_usd: float | None
    problem: str | None
    last: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """All that the page shows."""

    title: str = "New run"
    asked: Mapping[str, str]
    jobs: tuple[str, ...]
    engines: tuple[str, ...]
    error: str | None = None
    to_confirm: RunRequest | None = None
    estimate: Estimate | None = None
    live: Live


def show(site: Site) -> ResponseReturnValue:
    """The form; its POST starts the run, or asks first where that may cost much or undo a guard."""
    asked = {name: str(value) for name, value in request.values.items() if name != "csrf_token"}
    if request.method == "GET":
        return page("start.html", _view(site, asked))
    if problem := forms.problem():
        return page("start.html", _view(site, asked, error=problem), status=400)
    try:
        wanted = read_request(asked)
    except RequestError as error:
        return page("start.html", _view(site, asked, error=str(error)), status=400)
    if needs_confirmation(wanted) and "confirmed" not in asked:
        estimate = _estimate(site, wanted)
        return page("start.html", _view(site, asked, to_confirm=wanted, estimate=estimate))
    return _run(site, wanted, asked)


def read_request(asked: Mapping[str, str]) -> RunRequest:
    """What the form asks for. Raises RequestError as `POST /run` does."""
    fields: dict[str, Any] = {}
    for name in ("job", "engine"):
        if asked.get(name):
            fields[name] = asked[name]
    for name in ("start_date", "end_date"):
        if asked.get(name):
            fields[name] = _day(name, asked[name])
    if limit := asked.get("limit"):
        if not re.fullmatch("[0-9]{1,19}", limit):
            message = "limit must be a whole number, or left out."
            raise RequestError(message)
        fields["limit"] = int(limit)
    fields |= {name: True for name in _FLAGS if asked.get(name) in {"on", "True", "true"}}
    if fields.get("job") and fields["job"] not in JOBS:
        message = f"There is no such job: use {' or '.join(JOBS)}."
        raise RequestError(message)
    return RunRequest(**fields)


def _day(name: str, text: str) -> Any:  # noqa: ANN401 - a date
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        message = f"{name} must be a day, like 2026-01-31, or left out."
        raise RequestError(message) from error


def needs_confirmation(wanted: RunRequest) -> bool:
    """Whether it reads more than what changed, or overrides a guard."""
    return wanted.full_load or wanted.force or wanted.start_date is not None


def _run(site: Site, wanted: RunRequest, asked: Mapping[str, str]) -> ResponseReturnValue:
    """The run; the answer comes when it has ended, and leads to its page."""
    try:
        report = site.start(wanted)
    except LeaseHeldError as error:
        return page("start.html", _view(site, asked, error=str(error)), status=409)
    except EtlError as error:
        return page("start.html", _view(site, asked, error=str(error)), status=error.http_status)
    address = f"/runs/{report.run_id}"
    if is_part():  # htmx follows this, and a redirect within its own request
        return "", 204, {"HX-Redirect": address}
    return redirect(address, 303)


def _view(site: Site, asked: Mapping[str, str], **more: Any) -> NewRun:  # noqa: ANN401 - its fields
    return NewRun(
        asked=asked,
        jobs=tuple(JOBS),
        engines=ENGINES,
        live=read_live(site, datetime.now(UTC)),
        **more,
    )


def _estimate(site: Site, wanted: RunRequest) -> Estimate:
    last = _last_of_kind(site, wanted)
    if wanted.job != "sessions":
        problem = "Only the job sessions can say beforehand what it will read."
        return Estimate(bytes=None, cost_usd=None, problem=problem, last=last)
    try:
        sql, parameters = source_sql(site, wanted, datetime.now(UTC))
        amount, cost = site.queries.estimate(sql, parameters)
    except (EtlError, StatementError) as error:
        return Estimate(bytes=None, cost_usd=None, problem=str(error), last=last)
    return Estimate(bytes=amount, cost_usd=cost, problem=None, last=last)


def _last_of_kind(site: Site, wanted: RunRequest) -> str | None:
    """What the last run of the kind took, in words; None where there was none lately."""
    kind = "full_load" if wanted.full_load else "dates" if wanted.start_date else "incremental"
    with site.connect() as warehouse:
        reports = inspection.read_reports(warehouse, limit=_LOOKED_BACK)
    for run in reports:
        if run["kind"] == kind and run["status"] == "succeeded" and run["job"] == wanted.job:
            report = run["report"]
            return (
                f"{formats.duration(report.get('seconds'))},"
                f" {formats.size(report.get('bytes_processed'))} billed,"
                f" {formats.dollars(report.get('cost_usd'))}"
            )
    return None

"""Turns the client's errors into ours, by type and reason; only conflicts by their text."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from runs.errors import CredentialsError, EtlError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


_QUOTAS: Final = {"rateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded"}
_LESS: Final = "load fewer days at a time, or run with the other ENGINE"
# Why BigQuery refuses valid statements, and the remedies: its own text may quote rows.
_REMEDIES: Final = {
    "resourcesExceeded": f"it needs more memory than BigQuery has for it: {_LESS}",
    "billingTierLimitExceeded": f"it needs more CPU than its bytes pay for: {_LESS}",
    "responseTooLarge": f"its result is too large: {_LESS}",
    "billingNotEnabled": "the project has no billing account: link one",
}
# In both texts that BigQuery's documentation has for a conflict: see `_is_conflict`.
_CONFLICT: Final = "due to concurrent update"
REFUSALS: Final = {"bytesBilledLimitExceeded", "accessDenied", "notFound", *_REMEDIES}


class StatementError(Exception):
    """BigQuery rejected a statement or what it worked on: a bug, or a conflict with another change.

    It names the job but not BigQuery's message, which may quote a phone number from a row.
    """


class ConflictError(StatementError):
    """BigQuery cancelled a transaction, because another changed one of its tables meanwhile."""


@contextmanager
def classified(what: str, refused_as: type[EtlError]) -> Iterator[None]:
    """Turn the client's errors into ours, by type and reason; a bug is raised unchanged."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError
    from requests import exceptions as http

    try:
        yield
    except api.GoogleAPICallError as error:
        reason = reason_of(error)
        if reason in _QUOTAS or isinstance(error, api.TooManyRequests):
            message = f"BigQuery's quota is used up at {what}: try again later."
            raise UnavailableError(message) from error
        if reason in _REMEDIES:
            message = f"BigQuery refused {what}, because {_REMEDIES[reason]}."
            raise refused_as(message) from error
        if reason in REFUSALS or isinstance(error, (api.NotFound, api.Forbidden)):
            message = f"BigQuery refused {what}: {_first_line(error)}"
            raise refused_as(message) from error
        if reason == "stopped":
            message = f"Somebody cancelled BigQuery's job at {what}: run again."
            raise UnavailableError(message) from error
        is_temporary = isinstance(error, (api.ServerError, api.Aborted, api.Cancelled))
        if is_temporary or reason == "tableUnavailable":
            message = f"BigQuery failed at {what} ({type(error).__name__}): try again later."
            raise UnavailableError(message) from error
        kind = ConflictError if _is_conflict(error) else StatementError
        raise kind(_rejection(what, error)) from None
    except GoogleAuthError as error:
        message = f"BigQuery did not accept the credentials at {what}: renew the key or the role."
        raise CredentialsError(message) from error
    except api.RetryError as error:
        message = f"BigQuery failed at {what} ({type(error).__name__}): try again later."
        raise UnavailableError(message) from error
    except (http.RequestException, TimeoutError, ConnectionError) as error:
        message = f"BigQuery can't be reached at {what}: check the network, or try again later."
        raise UnavailableError(message) from error


def reason_of(error: Any) -> str:  # noqa: ANN401 - the client's errors are dicts of anything
    """The reason that BigQuery gives; empty if it gives none."""
    first = next(iter(getattr(error, "errors", None) or ()), None)
    return str(first.get("reason", "")) if isinstance(first, dict) else ""  # gRPC's are no dicts


def _is_conflict(error: Exception) -> bool:
    """Whether another change was in the way: only the text distinguishes it from wrong SQL.

    Both have code 400 and the reason `invalidQuery`. The documented texts are "Transaction is
    aborted due to concurrent update against table T" and "Could not serialize access to table T
    due to concurrent update". If BigQuery says it otherwise, no attempt follows: the run ends as
    by a bug, with the job's id, and has published nothing; whoever started it may start another.
    """
    return _CONFLICT in _first_line(error)


def _first_line(error: Exception) -> str:
    """BigQuery's own words, without the request that the client puts before them."""
    text = str(getattr(error, "message", error)).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return re.sub(r"^[A-Z]+ https?://\S+: ", "", line)


def _rejection(what: str, error: Exception) -> str:
    """The message for a rejected statement, with BigQuery's if that quotes no row."""
    text = _first_line(error).partition("; reason: ")[0]
    is_about_the_text = re.search(r" at \[\d+:\d+\]$", text) and not text.startswith("Query error")
    detail = f": {text}" if is_about_the_text else ""
    reason = reason_of(error) or type(error).__name__
    return f"BigQuery rejected {what} ({reason}, job {getattr(error, 'job_id', 'none')}){detail}"

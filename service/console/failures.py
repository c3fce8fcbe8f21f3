"""Errors as a page says them: what it is, and where to go on. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_TITLES: Final[Mapping[str, str]] = {
    "AuthenticationError": "You are not signed in",
    "ForbiddenError": "This is not for you",
    "RequestError": "That can't be asked",
    "CredentialsError": "The service has no credentials that BigQuery takes",
    "SettingsError": "The service's settings are wrong",
    "SourceError": "The answer can't be had",
    "SourceMissingError": "A source can't be read",
    "DestinationError": "The tables can't be read",
    "UnavailableError": "BigQuery does not answer",
    "RunTimeoutError": "That took too long",
    "NotFound": "There is nothing here",
    "InternalError": "Something broke",
}
_LINKS: Final = (("/", "Overview"), ("/runs", "Runs"), ("/health-report", "Health"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What the page shows."""

    title: str
    message: str
    status: int
    links: tuple[tuple[str, str], ...] = _LINKS


def failure(type_: str, message: str, status: int) -> Failure:
    """The page of an error of this type."""
    return Failure(title=_TITLES.get(type_, "That did not work"), message=message, status=status)

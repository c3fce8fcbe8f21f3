"""The tree of errors is as it is drawn, and each error has its status and exit code."""

from __future__ import annotations

import re

import pytest

from runs import errors
from runs.errors import EtlError

DRAWN = re.compile(
    r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>\w+Error) +(\d+) +(\d+|-) +(\w+)", re.MULTILINE
)


def every_class(base: type[EtlError] = EtlError) -> list[type[EtlError]]:
    """The tree, each class before those below it."""
    return [base, *(each for child in base.__subclasses__() for each in every_class(child))]


def test_the_drawing_is_the_tree() -> None:
    """The module's docstring draws every class at its place, with its codes and its status."""
    drawn = [
        (len(branch) // 4, name, int(http), 1 if code == "-" else int(code), status)
        for branch, name, http, code, status in DRAWN.findall(errors.__doc__ or "")
    ]
    assert drawn == [
        (each.__mro__.index(EtlError), each.__name__, each.http_status, each.exit_code, each.status)
        for each in every_class()
    ]


@pytest.mark.parametrize(
    ("error", "http_status", "exit_code"),
    [
        (errors.RequestError, 400, 2),
        (errors.SettingsError, 500, 2),
        (errors.CredentialsError, 500, 2),
        (errors.AuthenticationError, 401, None),
        (errors.ForbiddenError, 403, None),
        (errors.LeaseHeldError, 409, 75),
        (errors.SourceMissingError, 502, 3),
        (errors.SourceShapeError, 502, 3),
        (errors.DestinationError, 502, 4),
        (errors.AuditError, 500, 5),
        (errors.UnavailableError, 503, 75),
        (errors.AbortedError, 503, 75),
        (errors.LeaseLostError, 503, 75),
        (errors.RunTimeoutError, 504, 75),
    ],
)
def test_each_error_has_its_http_status_and_exit_code(
    error: type[EtlError], http_status: int, exit_code: int | None
) -> None:
    """Callers rely on both."""
    assert error.http_status == http_status
    assert exit_code is None or error.exit_code == exit_code


def test_each_way_of_stopping_a_run_has_its_status() -> None:
    """The ledger says whether a run failed, was told to stop, ran out of time or lost its lease."""
    stopped = {each: each.status for each in every_class() if each.status != "failed"}
    assert stopped == {
        errors.AbortedError: "aborted",
        errors.RunTimeoutError: "timed_out",
        errors.LeaseLostError: "lease_lost",
        errors.LeaseHeldError: "refused",
        errors.RepeatedError: "refused",
    }

"""What can go wrong, each with its exit code, HTTP status and ledger status. Not how it is shown.

::

    EtlError                    500   1  failed      (itself never raised)
    ├── RequestError            400   2  failed      the caller asked for something impossible
    │   └── AbsentError         404   2  failed      there is no stored session of that id
    ├── SettingsError           500   2  failed      the deployment is misconfigured
    │   └── CredentialsError    500   2  failed      no usable Google credentials
    ├── AuthenticationError     401   -  failed      the caller did not prove who it is
    ├── ForbiddenError          403   -  failed      the caller is known and not allowed
    ├── SourceError             502   3  failed      a source table can't be used
    │   ├── SourceMissingError  502   3  failed      it does not exist or may not be read
    │   ├── SourceShapeError    502   3  failed      it lacks a column, or is another kind of table
    │   └── BudgetError         502   3  failed      reading it would bill more than is allowed
    ├── DestinationError        502   4  failed      BigQuery refused to write
    ├── AuditError              500   5  failed      the staged rows are wrong: nothing published
    ├── RepeatedError           500   1  refused     the delivery's first run failed, and this would
    └── RetryableError          503  75  failed      the same request may succeed later
        ├── UnavailableError    503  75  failed      a Google service can't be reached
        ├── LeaseHeldError      409  75  refused     another run is in progress
        ├── LeaseLostError      503  75  lease_lost  another run took over: nothing published
        ├── AbortedError        503  75  aborted     told to stop (SIGTERM): nothing published
        └── RunTimeoutError     504  75  timed_out   out of time: nothing published

Anything that is not an ``EtlError`` is a bug: HTTP 500, exit code 1.
A message is one sentence that names the object and the remedy.
"""

from typing import ClassVar, Literal

type FailureStatus = Literal["failed", "refused", "aborted", "timed_out", "lease_lost"]


class EtlError(Exception):
    """A failure that the reader of its message can do something about."""

    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    status: ClassVar[FailureStatus] = "failed"
    is_final: ClassVar[bool] = True
    """Whether every attempt fails the same way until somebody fixes it."""


class RequestError(EtlError):
    """The request is malformed or contradicts itself."""

    http_status = 400
    exit_code = 2


class AbsentError(RequestError):
    """There is no stored session of that id; the message says why, where that is known."""

    http_status = 404


class SettingsError(EtlError):
    """Environment variables are missing, malformed or contradict each other."""

    http_status = 500  # not the fault of the service's caller
    exit_code = 2


class CredentialsError(SettingsError):
    """The Google credentials that the settings name can't be used."""


class AuthenticationError(EtlError):
    """The caller of the service did not prove who it is."""

    http_status = 401


class ForbiddenError(EtlError):
    """The caller of the service is known and not allowed to do this."""

    http_status = 403


class SourceError(EtlError):
    """A source table can't be used."""

    http_status = 502
    exit_code = 3


class SourceMissingError(SourceError):
    """A source table does not exist, or may not be read."""

    is_final = False  # a load may be recreating it


class SourceShapeError(SourceError):
    """A source table lacks a required column, or is a table of another kind."""


class BudgetError(SourceError):
    """Reading a source would bill more bytes than the settings allow."""


class DestinationError(EtlError):
    """BigQuery refused to create or change something in the destination dataset."""

    http_status = 502
    exit_code = 4


class AuditError(EtlError):
    """The staged rows contradict the source: nothing was published."""

    http_status = 500
    exit_code = 5


class RepeatedError(EtlError):
    """The first attempt at this scheduled delivery failed, and another would fail as well."""

    status = "refused"
    is_final = False  # the first attempt's failure is what counts


class RetryableError(EtlError):
    """The same request may succeed later, without anybody changing anything."""

    is_final = False
    http_status = 503
    exit_code = 75  # sysexits.h: EX_TEMPFAIL


class UnavailableError(RetryableError):
    """A Google service could not be reached, or asked to be called later."""


class LeaseHeldError(RetryableError):
    """Another run of the same job is in progress."""

    http_status = 409
    status = "refused"


class LeaseLostError(RetryableError):
    """Another run took the lease over: this one published nothing."""

    status = "lease_lost"


class AbortedError(RetryableError):
    """The run was told to stop, and published nothing."""

    status = "aborted"


class RunTimeoutError(RetryableError):
    """The run passed its deadline, and published nothing."""

    http_status = 504
    status = "timed_out"

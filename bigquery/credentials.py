"""Google credentials: a key file, a secret of Secret Manager, or the attached service account."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from runs.errors import CredentialsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.auth.credentials import Credentials
    from google.cloud.secretmanager import SecretManagerServiceClient

    from runs.settings import Settings

_SCOPES: Final = ("https://www.googleapis.com/auth/bigquery",)  # the Storage API takes it too
# Not by its name: the variable may hold the key itself by mistake.
_KEY_FILE: Final = "The key file of BIGQUERY_CREDENTIALS_PATH"
_TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address


def fetch_credentials(
    settings: Settings,
    *,
    secret_client: SecretManagerServiceClient | None = None,
    patience_seconds: float = 20.0,
) -> Credentials:
    """Credentials for BigQuery: the key file, else the secret, else the attached service account.

    The first one that the settings name must work; there is no fall-back to the next. Raises
    CredentialsError, and UnavailableError if trying again may help. The key stays in memory.
    """
    if settings.credentials_path is not None:
        return _key_credentials(_KEY_FILE, _read_key_file(settings.credentials_path))
    if settings.secret_name is None:
        return _attached_credentials()
    version = _secret_version(settings.project_id, settings.secret_name)
    with _secret_errors(version):
        if secret_client is not None:
            key = _read_secret(secret_client, version, patience_seconds)
        else:
            from google.cloud.secretmanager import SecretManagerServiceClient

            with SecretManagerServiceClient(transport="rest") as client:
                key = _read_secret(client, version, patience_seconds)
    return _key_credentials(f"Secret {version}", key)


def _read_key_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror
    # Outside of the handler: a chained error would show the path.
    message = (
        f"{_KEY_FILE} can't be read ({reason}): correct the path, or unset it to use the secret."
    )
    raise CredentialsError(message)


def _secret_version(project: str, name: str) -> str:
    secret = name if name.startswith("projects/") else f"projects/{project}/secrets/{name}"
    return secret if "/versions/" in secret else f"{secret}/versions/latest"


def _read_secret(client: SecretManagerServiceClient, version: str, seconds: float) -> bytes:
    """The payload of one secret version, checked against its checksum."""
    import google_crc32c
    from google.api_core.retry import Retry, if_transient_error
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

    # At DEBUG the client may log what it receives: here that is the key.
    logging.getLogger("google.cloud.secretmanager_v1").setLevel(logging.INFO)
    retry = Retry(predicate=if_transient_error, initial=0.2, maximum=5.0, timeout=seconds)
    with suppress(ParseError):  # suppressed, not chained: it may quote the key
        payload = client.access_secret_version(name=version, retry=retry, timeout=seconds).payload
        if google_crc32c.value(payload.data) == payload.data_crc32c:
            return payload.data
    message = f"Secret {version} arrived damaged: run again."
    raise UnavailableError(message)


@contextmanager
def _secret_errors(version: str) -> Iterator[None]:
    """Turn what the client of Secret Manager raises into our tree, by type."""
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from requests import RequestException

    unavailable = (api.TooManyRequests, api.ServerError, api.RetryError, RequestException)
    try:
        yield
    except api.NotFound as error:
        message = f"Secret {version} does not exist: create it, or correct BIGQUERY_SECRET_NAME."
        raise CredentialsError(message) from error
    except api.Forbidden as error:
        message = (
            f"Secret {version} may not be read by this account: grant it"
            " roles/secretmanager.secretAccessor, and enable the Secret Manager API."
        )
        raise CredentialsError(message) from error
    except unavailable as error:
        message = f"Secret Manager could not be reached for secret {version}: try again later."
        raise UnavailableError(message) from error
    except (auth.GoogleAuthError, api.Unauthorized) as error:
        message = (
            f"The Google credentials to read secret {version} with are missing or refused: attach"
            " a service account, set BIGQUERY_CREDENTIALS_PATH, or run with --local."
        )
        raise CredentialsError(message) from error
    except api.GoogleAPICallError as error:
        message = f"Secret {version} can't be read ({error.code}): enable it, or add a version."
        raise CredentialsError(message) from error


def _key_credentials(where: str, key: bytes) -> Credentials:
    """Credentials from a service-account key; no error, chained or not, holds any part of it."""
    from google.oauth2 import service_account

    account = _parse_key(key)
    if account.get("type") != "service_account":
        message = f"{where} holds no service-account key: store the whole JSON key file there."
        raise CredentialsError(message)
    if account.get("token_uri") != _TOKEN_URI:
        # The server at this address receives a signed claim to be the account.
        message = f"{where} names another token_uri than {_TOKEN_URI}: store an unedited key there."
        raise CredentialsError(message)
    with suppress(ValueError):
        made: Credentials = service_account.Credentials.from_service_account_info(
            account, scopes=_SCOPES
        )
        return made
    message = f"{where} holds a service-account key that is not complete: create a new one."
    raise CredentialsError(message)


def _parse_key(key: bytes) -> dict[str, Any]:
    """The key as a JSON object; empty if it is not one, since an error would quote it."""
    with suppress(ValueError, RecursionError):
        account = json.loads(key)
        if isinstance(account, dict):
            return account
    return {}


def _attached_credentials() -> Credentials:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        credentials: Credentials = google.auth.default(scopes=_SCOPES)[0]
    except DefaultCredentialsError as error:
        message = (
            "No service account is attached and BIGQUERY_SECRET_NAME is empty:"
            " attach one, or name a secret."
        )
        raise CredentialsError(message) from error
    return credentials

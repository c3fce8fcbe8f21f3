"""Google credentials: a key file, a secret of Secret Manager, or the attached service account."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from bigquery.secrets import read_version, secret_version
from runs.errors import CredentialsError

if TYPE_CHECKING:
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
    version = secret_version(settings.project_id, settings.secret_name)
    key = read_version(
        version,
        setting="BIGQUERY_SECRET_NAME",
        secret_client=secret_client,
        seconds=patience_seconds,
    )
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

"""Values of Secret Manager, checked, in memory alone and in no error. Knows no key's meaning."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from runs.errors import CredentialsError, SettingsError, UnavailableError
from runs.settings import LOCAL_PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.secretmanager import SecretManagerServiceClient

    from runs.settings import Settings

_SECONDS: Final = 20.0


def read_secret(
    settings: Settings,
    name: str,
    *,
    setting: str,
    secret_client: SecretManagerServiceClient | None = None,
) -> str:
    """The text of a secret's latest version, or of the version that the name ends with.

    `setting`: what messages say to correct. Raises CredentialsError, and UnavailableError if
    trying again may help.
    """
    if settings.project_id == LOCAL_PROJECT:
        message = f"With --local there is no Secret Manager: set or unset {setting}."
        raise SettingsError(message)
    version = secret_version(settings.project_id, name)
    value = read_version(version, setting=setting, secret_client=secret_client)
    with suppress(UnicodeDecodeError):  # suppressed, not chained: it quotes the secret
        return value.decode().strip()
    message = f"Secret {version} holds no text: add a version that does."
    raise CredentialsError(message)


def secret_version(project: str, name: str) -> str:
    """The full name of a secret's version: the latest, unless the name says another."""
    secret = name if name.startswith("projects/") else f"projects/{project}/secrets/{name}"
    return secret if "/versions/" in secret else f"{secret}/versions/latest"


def read_version(
    version: str,
    *,
    setting: str,
    secret_client: SecretManagerServiceClient | None = None,
    seconds: float = _SECONDS,
) -> bytes:
    """The payload of one secret version, checked against its checksum."""
    with _classified(version, setting):
        if secret_client is not None:
            return _read(secret_client, version, seconds)
        from google.cloud.secretmanager import SecretManagerServiceClient

        with SecretManagerServiceClient(transport="rest") as client:
            return _read(client, version, seconds)


def _read(client: SecretManagerServiceClient, version: str, seconds: float) -> bytes:
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
def _classified(version: str, setting: str) -> Iterator[None]:
    """Turn what the client of Secret Manager raises into our tree, by type."""
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from requests import RequestException

    unavailable = (api.TooManyRequests, api.ServerError, api.RetryError, RequestException)
    try:
        yield
    except api.NotFound as error:
        message = f"Secret {version} does not exist: create it, or correct {setting}."
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

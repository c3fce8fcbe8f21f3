"""Credentials come from where the settings say, or the run is refused; the key stays in memory."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import traceback
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.oauth2 import credentials as user
from google.oauth2 import service_account

from bigquery.clients import make_clients
from bigquery.credentials import fetch_credentials
from bigquery.secrets import read_secret
from runs.errors import CredentialsError, EtlError, SettingsError, UnavailableError
from runs.settings import Settings
from tests import fake_secret_manager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.cloud.secretmanager import SecretManagerServiceClient

    from tests.fake_secret_manager import FakeSecretManager, Trouble

LATEST = "projects/my-project/secrets/bigquery-key/versions/latest"
MARK = "S3CR3T"
ACCOUNT = "runner@my-project.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def private_key() -> str:
    """A private key in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture
def account(private_key: str) -> dict[str, Any]:
    """What a service-account key file holds."""
    return {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "0123456789abcdef",
        "private_key": private_key,
        "client_email": ACCOUNT,
        "token_uri": "https://oauth2.googleapis.com/token",
    }


@pytest.fixture
def secret_manager() -> Iterator[FakeSecretManager]:
    """A Secret Manager without secrets."""
    with fake_secret_manager.serve() as manager:
        yield manager


@pytest.fixture
def client(secret_manager: FakeSecretManager) -> Iterator[SecretManagerServiceClient]:
    """Google's own client of that Secret Manager."""
    with secret_manager.client() as secret_client:
        yield secret_client


@pytest.fixture
def default_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path where Google's libraries look for default credentials; it has no file yet."""
    path = tmp_path / "default.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


def settings(**changed: Any) -> Settings:  # noqa: ANN401 - one type per setting
    """Settings of a project, with these changes."""
    return Settings(**{"project_id": "my-project"} | changed)


def full_text(error: BaseException | None) -> str:
    """The text of an exception and of all its causes, hidden ones too, with their attributes."""
    text = ""
    while error is not None:
        text += "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return text


def holds_key(text: str, key: bytes) -> bool:
    """Whether a text holds a part of the key, as it is or as Secret Manager sends it."""
    encoded = base64.b64encode(key).decode()
    parts = re.findall(r"[A-Za-z0-9+/]{40,}", key.decode())  # the lines of the private key
    parts += [encoded[start : start + 40] for start in range(0, len(encoded) - 40, 40)]
    return MARK in text or any(part in text for part in parts)


@contextmanager
def files_written() -> Iterator[list[str]]:
    """Every file that this process opens for writing within the block."""
    _written.clear()
    _watching.append(True)
    try:
        yield _written
    finally:
        _watching.clear()


_watching: list[bool] = []
_written: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "open":
        path, _, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR):
            _written.append(str(path))


sys.addaudithook(_watch)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("bigquery-key", LATEST),
        ("projects/other/secrets/key", "projects/other/secrets/key/versions/latest"),
        ("projects/other/secrets/key/versions/7", "projects/other/secrets/key/versions/7"),
    ],
    ids=["short name", "full name", "one version"],
)
def test_the_key_in_the_secret_makes_the_credentials(
    secret_manager: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    name: str,
    version: str,
) -> None:
    """A short name means the latest version of the project's secret."""
    secret_manager.payloads[version] = json.dumps(account).encode()
    found = fetch_credentials(settings(secret_name=name), secret_client=client)
    assert isinstance(found, service_account.Credentials)
    assert found.service_account_email == ACCOUNT
    assert found.scopes == ("https://www.googleapis.com/auth/bigquery",)
    assert secret_manager.asked == [version]


def test_a_key_file_takes_precedence_over_the_secret(
    secret_manager: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    tmp_path: Path,
) -> None:
    """With BIGQUERY_CREDENTIALS_PATH set, Secret Manager isn't asked."""
    path = tmp_path / "key.json"
    path.write_text(json.dumps(account))
    found = fetch_credentials(settings(credentials_path=path), secret_client=client)
    assert isinstance(found, service_account.Credentials)
    assert found.service_account_email == ACCOUNT
    assert secret_manager.asked == []


def test_a_missing_key_file_does_not_fall_back_to_the_secret(
    secret_manager: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    tmp_path: Path,
) -> None:
    """A file that is named and can't be used is an error."""
    secret_manager.payloads[LATEST] = json.dumps(account).encode()
    path = tmp_path / "none.json"
    with pytest.raises(CredentialsError) as caught:
        fetch_credentials(settings(credentials_path=path), secret_client=client)
    assert str(caught.value) == (
        "The key file of BIGQUERY_CREDENTIALS_PATH can't be read (No such file or directory):"
        " correct the path, or unset it to use the secret."
    )
    assert "none.json" not in full_text(caught.value)
    assert secret_manager.asked == []


def test_without_a_secret_name_the_attached_account_is_used(
    secret_manager: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    default_path: Path,
) -> None:
    """The credentials are the default ones of Google's libraries."""
    default_path.write_text(json.dumps(account))
    found = fetch_credentials(settings(secret_name=None), secret_client=client)
    assert isinstance(found, service_account.Credentials)
    assert found.service_account_email == ACCOUNT
    assert found.scopes == ("https://www.googleapis.com/auth/bigquery",)
    assert secret_manager.asked == []


@pytest.mark.usefixtures("default_path")
def test_without_a_secret_name_and_an_attached_account_the_run_is_refused() -> None:
    """The message says to attach one."""
    with pytest.raises(CredentialsError, match=r"^No service account is attached and .*: attach"):
        fetch_credentials(settings(secret_name=None))


@pytest.mark.usefixtures("default_path")
def test_without_any_account_the_secret_cannot_be_read() -> None:
    """The message names the secret and what is missing."""
    with pytest.raises(
        CredentialsError, match=f"to read secret {LATEST} with are missing or refused: "
    ):
        fetch_credentials(settings())


@pytest.mark.parametrize(
    ("trouble", "error", "sentence"),
    [
        ("denied", CredentialsError, "may not be read by this account: grant it"),
        ("signed_out", CredentialsError, "missing or refused: attach a service account"),
        ("disabled", CredentialsError, "can't be read (400): enable it, or add a version."),
        ("damaged", UnavailableError, "arrived damaged: run again."),
        ("garbled", UnavailableError, "arrived damaged: run again."),
        ("unavailable", UnavailableError, "try again later."),
        ("silent", UnavailableError, "try again later."),
    ],
)
def test_a_secret_that_cannot_be_read_is_refused(
    secret_manager: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    trouble: Trouble,
    error: type[EtlError],
    sentence: str,
) -> None:
    """The message names the secret and a remedy, and quotes nothing of the key."""
    key = json.dumps(account).encode()
    secret_manager.payloads[LATEST] = key
    secret_manager.trouble = trouble
    with pytest.raises(EtlError) as caught:
        fetch_credentials(settings(), secret_client=client, patience_seconds=0.3)
    assert type(caught.value) is error
    assert LATEST in str(caught.value)
    assert sentence in str(caught.value)
    assert not holds_key(full_text(caught.value), key)


def test_a_missing_secret_is_refused_by_its_full_name(client: SecretManagerServiceClient) -> None:
    """The message says to create it, or to correct the setting."""
    with pytest.raises(CredentialsError) as caught:
        fetch_credentials(settings(), secret_client=client)
    assert str(caught.value) == (
        f"Secret {LATEST} does not exist: create it, or correct BIGQUERY_SECRET_NAME."
    )


def test_a_secret_of_a_job_is_text(
    secret_manager: FakeSecretManager, client: SecretManagerServiceClient
) -> None:
    """A line break at its end is dropped; bytes that are no text are refused, and not shown."""
    version = "projects/my-project/secrets/dog-key/versions/latest"
    secret_manager.payloads[version] = b"a-key\n"

    def read() -> str:
        return read_secret(
            settings(), "dog-key", setting="DOG_API_SECRET_NAME", secret_client=client
        )

    assert read() == "a-key"
    secret_manager.payloads[version] = b"\xff canary"
    with pytest.raises(CredentialsError, match="holds no text") as caught:
        read()
    assert "canary" not in full_text(caught.value)
    del secret_manager.payloads[version]
    with pytest.raises(CredentialsError, match="create it, or correct DOG_API_SECRET_NAME"):
        read()


def test_a_local_run_reads_no_secret(
    secret_manager: FakeSecretManager, client: SecretManagerServiceClient
) -> None:
    """With --local nothing in the cloud is asked: one sentence says what to set."""
    with pytest.raises(SettingsError, match="set or unset DOG_API_SECRET_NAME"):
        read_secret(
            settings(project_id="local"),
            "dog-key",
            setting="DOG_API_SECRET_NAME",
            secret_client=client,
        )
    assert secret_manager.asked == []


def test_a_short_outage_is_waited_out(
    secret_manager: FakeSecretManager, client: SecretManagerServiceClient, account: dict[str, Any]
) -> None:
    """A Secret Manager that is unavailable for a moment does not fail the run."""
    secret_manager.payloads[LATEST] = json.dumps(account).encode()
    secret_manager.trouble, secret_manager.troubles_left = "unavailable", 2
    fetch_credentials(settings(), secret_client=client)
    assert secret_manager.asked == [LATEST] * 3


def test_an_unreachable_secret_manager_is_a_temporary_failure(account: dict[str, Any]) -> None:
    """A later run may succeed."""
    with fake_secret_manager.serve() as secret_manager:
        secret_manager.payloads[LATEST] = json.dumps(account).encode()
        unreachable = secret_manager.client()
    with unreachable, pytest.raises(UnavailableError, match="could not be reached"):
        fetch_credentials(settings(), secret_client=unreachable, patience_seconds=0.3)


NO_KEY = "holds no service-account key: store the whole JSON key file there."
OTHER_URI = (
    "names another token_uri than https://oauth2.googleapis.com/token: store an unedited key there."
)
INCOMPLETE = "holds a service-account key that is not complete: create a new one."


def test_an_unreachable_token_server_is_a_temporary_failure(
    secret_manager: FakeSecretManager, account: dict[str, Any]
) -> None:
    """A later run may get a token for Secret Manager."""
    secret_manager.payloads[LATEST] = json.dumps(account).encode()
    with fake_secret_manager.serve() as stopped:
        signed_in = user.Credentials(
            token=None,
            refresh_token="token",  # noqa: S106 - of nobody
            client_id="id",
            client_secret="secret",  # noqa: S106 - of nobody
            token_uri=stopped.url,
        )
    with (
        secret_manager.client(signed_in) as client,
        pytest.raises(UnavailableError, match="try again later"),
    ):
        fetch_credentials(settings(), secret_client=client, patience_seconds=0.3)


@pytest.mark.parametrize("source", ["file", "secret"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param("", NO_KEY, id="empty"),
        pytest.param(MARK, NO_KEY, id="no JSON"),
        pytest.param(f'{{"private_key": "{MARK}"', NO_KEY, id="half of it"),
        pytest.param(f'["{MARK}"]', NO_KEY, id="a list"),
        pytest.param("[" * 100_000, NO_KEY, id="nested too deeply"),
        pytest.param({"type": "authorized_user"}, NO_KEY, id="another type"),
        pytest.param({"token_uri": f"https://{MARK}.example.com"}, OTHER_URI, id="another uri"),
        pytest.param({"token_uri": None}, OTHER_URI, id="no uri"),
        pytest.param({"private_key": MARK}, INCOMPLETE, id="no private key"),
        pytest.param({"private_key": 7}, INCOMPLETE, id="a number for a private key"),
        pytest.param({"client_email": ...}, INCOMPLETE, id="no e-mail"),
        pytest.param({"private_key": ...}, INCOMPLETE, id="private key left out"),
    ],
)
def test_an_unusable_key_is_refused(
    secret_manager: FakeSecretManager,
    account: dict[str, Any],
    tmp_path: Path,
    source: str,
    content: str | dict[str, Any],
    sentence: str,
) -> None:
    """Only a complete, unedited service-account key is used; no other content is quoted."""
    if isinstance(content, dict):
        changed = {name: value for name, value in (account | content).items() if value is not ...}
        content = json.dumps(changed)
    path = tmp_path / "key.json"
    path.write_text(content)
    secret_manager.payloads[LATEST] = content.encode()
    chosen = settings(credentials_path=path) if source == "file" else settings()
    with secret_manager.client() as client, pytest.raises(CredentialsError) as caught:
        fetch_credentials(chosen, secret_client=client)
    where = "The key file of BIGQUERY_CREDENTIALS_PATH" if source == "file" else f"Secret {LATEST}"
    assert str(caught.value) == f"{where} {sentence}"
    assert not holds_key(full_text(caught.value), content.encode())


def test_the_secret_stays_in_memory(
    secret_manager: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key is written to no file and no log line, not even if Google's libraries debug."""
    key = json.dumps(account).encode()
    secret_manager.payloads[LATEST] = key
    fetch_credentials(settings(), secret_client=client)  # imports write caches of their own
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="google")
    monkeypatch.setattr(logging.getLogger("google"), "propagate", True)
    with files_written() as written:
        found = fetch_credentials(settings(), secret_client=client)
    assert written == []
    assert LATEST in caplog.text  # the HTTP client's own lines, without the body
    assert not [each for each in caplog.records if "secretmanager" in each.name]
    assert not holds_key("".join(repr(vars(record)) for record in caplog.records), key)
    assert not holds_key(repr(found) + repr(settings()), key)


def test_clients_are_of_the_project(
    monkeypatch: pytest.MonkeyPatch, account: dict[str, Any], tmp_path: Path
) -> None:
    """Project and location are passed, and real tokens never go to an emulator by accident."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9050")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "another-project")
    path = tmp_path / "key.json"
    path.write_text(json.dumps(account))
    chosen = settings(credentials_path=path, location="europe-west1")
    with closing(make_clients(chosen, fetch_credentials(chosen))) as clients:
        assert clients.bigquery.project == "my-project"
        assert clients.bigquery.location == "europe-west1"
        assert clients.bigquery._connection.API_BASE_URL == "https://bigquery.googleapis.com"  # noqa: SLF001
        assert clients.storage.transport.host == "bigquerystorage.googleapis.com:443"

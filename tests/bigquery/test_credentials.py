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
def fake() -> Iterator[FakeSecretManager]:
    """A Secret Manager without secrets."""
    with fake_secret_manager.serve() as serving:
        yield serving


@pytest.fixture
def client(fake: FakeSecretManager) -> Iterator[SecretManagerServiceClient]:
    """Google's own client of it."""
    with fake.client() as made:
        yield made


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path where Google's libraries look for default credentials: nothing is there."""
    path = tmp_path / "default.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


def settings(**changed: Any) -> Settings:  # noqa: ANN401 - one type per setting
    """Settings of a project, with these changes."""
    return Settings(**{"project_id": "my-project"} | changed)


def all_output(error: BaseException | None) -> str:
    """An exception and all it came from, hidden or not, with whatever they carry."""
    message = ""
    while error is not None:
        message += "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    return message


def holds(text: str, key: bytes) -> bool:
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
def test_the_secret(
    fake: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    name: str,
    version: str,
) -> None:
    """A secret's key makes the credentials; a short name means the project's latest version."""
    fake.payloads[version] = json.dumps(account).encode()
    found = fetch_credentials(settings(secret_name=name), secret_client=client)
    assert isinstance(found, service_account.Credentials)
    assert found.service_account_email == ACCOUNT
    assert found.scopes == ("https://www.googleapis.com/auth/bigquery",)
    assert fake.asked == [version]


def test_a_key_file_goes_before_the_secret(
    fake: FakeSecretManager,
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
    assert fake.asked == []


def test_a_missing_key_file_is_no_reason_to_try_the_secret(
    fake: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    tmp_path: Path,
) -> None:
    """What is named and can't be used is an error, never a silent fall-back."""
    fake.payloads[LATEST] = json.dumps(account).encode()
    path = tmp_path / "none.json"
    with pytest.raises(CredentialsError) as caught:
        fetch_credentials(settings(credentials_path=path), secret_client=client)
    assert str(caught.value) == (
        "The key file of BIGQUERY_CREDENTIALS_PATH can't be read (No such file or directory):"
        " correct the path, or unset it to use the secret."
    )
    assert "none.json" not in all_output(caught.value)
    assert fake.asked == []


def test_the_attached_service_account(
    fake: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    nowhere: Path,
) -> None:
    """Without a secret's name, the credentials are those of the surroundings."""
    nowhere.write_text(json.dumps(account))
    found = fetch_credentials(settings(secret_name=None), secret_client=client)
    assert isinstance(found, service_account.Credentials)
    assert found.service_account_email == ACCOUNT
    assert found.scopes == ("https://www.googleapis.com/auth/bigquery",)
    assert fake.asked == []


@pytest.mark.usefixtures("nowhere")
def test_no_attached_service_account() -> None:
    """Without a secret's name and without an attached account there is nothing to use."""
    with pytest.raises(CredentialsError, match=r"^No service account is attached and .*: attach"):
        fetch_credentials(settings(secret_name=None))


@pytest.mark.usefixtures("nowhere")
def test_nobody_to_read_the_secret_as() -> None:
    """A machine without any Google account is told what it can do."""
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
def test_trouble_with_the_secret(
    fake: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    trouble: Trouble,
    error: type[EtlError],
    sentence: str,
) -> None:
    """A secret that can't be read is refused by name and with a remedy, quoting none of it."""
    key = json.dumps(account).encode()
    fake.payloads[LATEST] = key
    fake.trouble = trouble
    with pytest.raises(EtlError) as caught:
        fetch_credentials(settings(), secret_client=client, patience_seconds=0.3)
    assert type(caught.value) is error
    assert LATEST in str(caught.value)
    assert sentence in str(caught.value)
    assert not holds(all_output(caught.value), key)


def test_a_missing_secret(client: SecretManagerServiceClient) -> None:
    """A secret that does not exist is refused by its full name."""
    with pytest.raises(CredentialsError) as caught:
        fetch_credentials(settings(), secret_client=client)
    assert str(caught.value) == (
        f"Secret {LATEST} does not exist: create it, or correct BIGQUERY_SECRET_NAME."
    )


def test_a_secret_of_a_job_is_text(
    fake: FakeSecretManager, client: SecretManagerServiceClient
) -> None:
    """Without the line break that an editor leaves; what is no text is refused, and not shown."""
    version = "projects/my-project/secrets/dog-key/versions/latest"
    fake.payloads[version] = b"a-key\n"

    def read() -> str:
        return read_secret(
            settings(), "dog-key", setting="DOG_API_SECRET_NAME", secret_client=client
        )

    assert read() == "a-key"
    fake.payloads[version] = b"\xff canary"
    with pytest.raises(CredentialsError, match="holds no text") as caught:
        read()
    assert "canary" not in all_output(caught.value)
    del fake.payloads[version]
    with pytest.raises(CredentialsError, match="create it, or correct DOG_API_SECRET_NAME"):
        read()


def test_locally_no_secret_is_read(
    fake: FakeSecretManager, client: SecretManagerServiceClient
) -> None:
    """With --local nothing of the cloud is asked: one sentence says what to set."""
    with pytest.raises(SettingsError, match="set or unset DOG_API_SECRET_NAME"):
        read_secret(
            settings(project_id="local"),
            "dog-key",
            setting="DOG_API_SECRET_NAME",
            secret_client=client,
        )
    assert fake.asked == []


def test_a_short_failure_is_waited_out(
    fake: FakeSecretManager, client: SecretManagerServiceClient, account: dict[str, Any]
) -> None:
    """A service that is away for a moment doesn't cost the night's run."""
    fake.payloads[LATEST] = json.dumps(account).encode()
    fake.trouble, fake.troubles_left = "unavailable", 2
    fetch_credentials(settings(), secret_client=client)
    assert fake.asked == [LATEST] * 3


def test_no_server(account: dict[str, Any]) -> None:
    """A Secret Manager that can't be reached is worth another try."""
    with fake_secret_manager.serve() as fake:
        fake.payloads[LATEST] = json.dumps(account).encode()
        gone = fake.client()
    with gone, pytest.raises(UnavailableError, match="could not be reached"):
        fetch_credentials(settings(), secret_client=gone, patience_seconds=0.3)


NO_KEY = "holds no service-account key: store the whole JSON key file there."
OTHER_URI = (
    "names another token_uri than https://oauth2.googleapis.com/token: store an unedited key there."
)
INCOMPLETE = "holds a service-account key that is not complete: create a new one."


def test_no_token_server(fake: FakeSecretManager, account: dict[str, Any]) -> None:
    """Where a token for Secret Manager can't be fetched for now, another try is worth it."""
    fake.payloads[LATEST] = json.dumps(account).encode()
    with fake_secret_manager.serve() as gone:
        signed_in = user.Credentials(
            token=None,
            refresh_token="token",  # noqa: S106 - of nobody
            client_id="id",
            client_secret="secret",  # noqa: S106 - of nobody
            token_uri=gone.url,
        )
    with fake.client(signed_in) as client, pytest.raises(UnavailableError, match="try again later"):
        fetch_credentials(settings(), secret_client=client, patience_seconds=0.3)


@pytest.mark.parametrize("kept", ["file", "secret"])
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
def test_an_unusable_key(
    fake: FakeSecretManager,
    account: dict[str, Any],
    tmp_path: Path,
    kept: str,
    content: str | dict[str, Any],
    sentence: str,
) -> None:
    """Whatever is no complete, unedited service-account key is refused, quoting none of it."""
    if isinstance(content, dict):
        changed = {name: value for name, value in (account | content).items() if value is not ...}
        content = json.dumps(changed)
    path = tmp_path / "key.json"
    path.write_text(content)
    fake.payloads[LATEST] = content.encode()
    asked = settings(credentials_path=path) if kept == "file" else settings()
    with fake.client() as client, pytest.raises(CredentialsError) as caught:
        fetch_credentials(asked, secret_client=client)
    where = "The key file of BIGQUERY_CREDENTIALS_PATH" if kept == "file" else f"Secret {LATEST}"
    assert str(caught.value) == f"{where} {sentence}"
    assert not holds(all_output(caught.value), content.encode())


def test_the_secret_stays_in_memory(
    fake: FakeSecretManager,
    client: SecretManagerServiceClient,
    account: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key is written to no file and no log line, not even where Google's libraries debug."""
    key = json.dumps(account).encode()
    fake.payloads[LATEST] = key
    fetch_credentials(settings(), secret_client=client)  # imports write caches of their own
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="google")
    monkeypatch.setattr(logging.getLogger("google"), "propagate", True)
    with files_written() as written:
        found = fetch_credentials(settings(), secret_client=client)
    assert written == []
    assert LATEST in caplog.text  # the HTTP client's own lines, without the body
    assert not [each for each in caplog.records if "secretmanager" in each.name]
    assert not holds("".join(repr(vars(record)) for record in caplog.records), key)
    assert not holds(repr(found) + repr(settings()), key)


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

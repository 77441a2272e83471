"""A key that never leaves its service signs as one in a file does."""

from base64 import encodebytes
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from megacache._store import Store
from tests.kit.builders import artifact, bundle, open_store, upload
from tests.kit.command import run
from tests.kit.servers import Server


@pytest.fixture
def kms(moto_s3: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reach AWS KMS, here and in whatever is named by a URI, as its users do."""
    options = moto_s3.storage_options
    for name, value in {
        "AWS_ENDPOINT_URL": options["endpoint_url"],
        "AWS_ACCESS_KEY_ID": options["key"],
        "AWS_SECRET_ACCESS_KEY": options["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, str(value))
    return boto3.client("kms")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Open a store on disk that holds an unsigned bundle."""
    store = open_store((tmp_path / "store").as_uri())
    upload(store, bundle([artifact()]))
    return store


def make_key(kms: Any, path: Path) -> str:
    """Make a key in the service and its public key's file, as `aws kms get-public-key` gives it; name the key."""
    name = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    content = encodebytes(kms.get_public_key(KeyId=name)["PublicKey"]).decode()
    path.write_text(f"-----BEGIN PUBLIC KEY-----\n{content}-----END PUBLIC KEY-----\n")
    return f"awskms:{name}"


def test_key_in_a_service_signs(kms: Any, store: Store, tmp_path: Path) -> None:
    """What it has signed satisfies its public key, and no other."""
    own, other = tmp_path / "own.pem", tmp_path / "other.pem"
    key = make_key(kms, own)
    make_key(kms, other)
    run("sign", store.url, "--key", key)
    run("verify", store.url, "--trusted-keys", own)
    run("verify", store.url, "--trusted-keys", other, code=1)


def test_service_that_refuses_is_told(kms: Any, store: Store) -> None:
    """A key that is not there is an error that says so, and nothing is signed."""
    del kms
    before = store.list()
    done = run("sign", store.url, "--key", "awskms:00000000-0000-0000-0000-000000000000", code=2)
    assert "NotFoundException" in done.stderr
    assert store.list() == before


def test_client_that_is_not_installed_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each service needs a library of its own, which the extra for signatures does not bring."""
    monkeypatch.setattr("securesystemslib.signer._aws_signer.AWS_IMPORT_ERROR", "boto3 is not there")
    done = run("sign", store.url, "--key", "awskms:1", code=2)
    assert 'pip install "securesystemslib[awskms]"' in done.stderr

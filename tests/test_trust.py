"""With trusted keys, what they have not signed for this very place is not opened."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from megacache import _trust
from megacache._bundle import Envelope, Manifest, Signature, open_envelope, pack_signatures, tag_of
from megacache._catalog import Catalog
from megacache._cli.app import app
from megacache._settings import Settings
from megacache._store import Store
from megacache._trust import Keys, TrustPolicy
from megacache.errors import BundleError, SettingsError, UntrustedError
from tests.kit.builders import Bundle, artifact, bundle, environment, open_store, prefix_of, upload
from tests.kit.command import document, run
from tests.kit.processes import Processes, step

HERE = environment()
PLACE = prefix_of(HERE)


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """Make three key pairs."""
    paths = [tmp_path / f"key{n}.pem" for n in range(3)]
    for path in paths:
        _trust.generate_key(path)
    return paths


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Open an empty store on disk."""
    return open_store((tmp_path / "store").as_uri())


def public(path: Path) -> str:
    """Name the public key of a pair."""
    return f"{path}.pub"


def policy(*paths: Path, threshold: int = 1) -> TrustPolicy:
    """Trust some keys."""
    return TrustPolicy.read(map(public, paths), threshold)


def publish(store: Store, one: Bundle, key: Path | None = None) -> None:
    """Put a bundle into a store, signed or not."""
    place = prefix_of(one.manifest.environment)
    for chunk in one.chunks:
        store.create(place.chunk(chunk.ref.digest), chunk.stored)
    signer = _trust.load_signer(key) if key else None
    Catalog.of(store, one.manifest.environment).announce(one.manifest, signer)


def sign_later(store: Store, one: Bundle, key: Path, scope: str | None = None) -> None:
    """Put a signature beside a manifest."""
    sealed = store.read(PLACE.manifest(one.manifest.bundle), size=1 << 20)
    signature = _trust.sign(_trust.load_signer(key), open_envelope(sealed).payload, scope or store.scope)
    tag = signature.tag(open_envelope(sealed).payload)
    store.create(PLACE.signature(one.manifest.bundle, tag), pack_signatures([signature]))


def read(store: Store, *trusted: Path, threshold: int = 1) -> Sequence[Manifest]:
    """Read the manifests that a policy accepts; raise the first fault."""
    catalog = Catalog.of(store, HERE, policy(*trusted, threshold=threshold))
    found = catalog.list()
    return [done.result() for done in catalog.knowing(found).read(found.visible)]


def test_signed_bundle_is_read(store: Store, keys: list[Path]) -> None:
    """What a trusted key has signed is accepted, whichever of several keys it was."""
    one = bundle([artifact()])
    publish(store, one, keys[0])
    assert read(store, keys[0]) == [one.manifest]
    assert read(store, keys[1], keys[0]) == [one.manifest]


@pytest.mark.parametrize("signer", [None, 1], ids=["unsigned", "other key"])
def test_others_are_not_opened(
    store: Store, keys: list[Path], signer: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unsigned manifest, and one that another key has signed, is refused before its payload is parsed."""
    publish(store, bundle([artifact()]), None if signer is None else keys[signer])
    monkeypatch.setattr("megacache._catalog.catalog.parse_manifest", lambda _: pytest.fail("the payload was parsed"))
    with pytest.raises(UntrustedError, match="signed"):
        read(store, keys[0])


def test_one_bit_is_enough(store: Store, keys: list[Path]) -> None:
    """Whatever bit of a signed object is changed, it is refused, or says what was signed."""
    one = bundle([artifact()])
    publish(store, one, keys[0])
    sealed = store.read(PLACE.manifest(one.manifest.bundle), size=1 << 20)
    catalog = Catalog.of(store, HERE, policy(keys[0]))
    accepted = 0
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1 << at % 8
        try:
            found = catalog._opened(one.manifest.bundle, bytes(changed))
        except BundleError:
            continue
        accepted += 1
        assert found == one.manifest
    assert accepted < len(b"payloadTypescopedetailssignatures") * 2


def test_threshold_needs_different_keys(store: Store, keys: list[Path]) -> None:
    """Two signatures are needed where two are asked for; two by one key are one."""
    one = bundle([artifact()])
    publish(store, one, keys[0])
    with pytest.raises(UntrustedError, match=r"1 valid signature for .*, 2 needed"):
        read(store, *keys, threshold=2)
    sign_later(store, one, keys[0])
    with pytest.raises(UntrustedError):
        read(store, *keys, threshold=2)
    sign_later(store, one, keys[2])
    assert read(store, *keys, threshold=2) == [one.manifest]


def test_signature_can_be_added_later(store: Store, keys: list[Path]) -> None:
    """What was published unsigned, or with a key that is no longer trusted, is accepted once it is signed again."""
    one = bundle([artifact()])
    publish(store, one, keys[0])
    sign_later(store, one, keys[1])
    assert read(store, keys[1]) == [one.manifest]
    with pytest.raises(UntrustedError):
        read(store, keys[2])


def test_copy_to_another_place_does_not_verify(store: Store, tmp_path: Path, keys: list[Path]) -> None:
    """A manifest, with its signature, that was moved under another URL is refused, and the reason says from where."""
    one = bundle([artifact()])
    publish(store, one, keys[0])
    other = open_store((tmp_path / "other").as_uri())
    for entry in store.list():
        other.create(entry.key, store.read(entry.key, size=entry.size))
    with pytest.raises(UntrustedError, match=r"it is signed for file:///.*/store"):
        read(other, keys[0])


def test_copy_to_another_name_or_environment_does_not_verify(store: Store, keys: list[Path]) -> None:
    """Under the name of another bundle, or in the folder of another environment, a signed manifest is a replay."""
    one = bundle([artifact()])
    publish(store, one, keys[0])
    sealed = store.read(PLACE.manifest(one.manifest.bundle), size=1 << 20)
    other = prefix_of(environment(triton="other"))
    store.create(PLACE.manifest("a" * 32), sealed)
    store.create(other.manifest(one.manifest.bundle), sealed)
    for place, name in ((PLACE, "a" * 32), (other, one.manifest.bundle)):
        with pytest.raises(UntrustedError, match="manifest"):
            Catalog(store, place, policy(keys[0])).read_one(name, len(sealed))


def test_forged_signature_object_is_passed_over(store: Store, keys: list[Path]) -> None:
    """Garbage at the place of a later signature neither helps nor harms."""
    one = bundle([artifact()])
    publish(store, one, keys[0])
    store.create(signature_key(store, one, keys[0]), b"\xc1garbage")
    assert read(store, keys[0]) == [one.manifest]


def signature_key(store: Store, one: Bundle, key: Path) -> str:
    """Say where a later signature of a key belongs."""
    payload = open_envelope(store.read(PLACE.manifest(one.manifest.bundle), size=1 << 20)).payload
    tag = tag_of(_trust.read_public_key(public(key)).keyid, store.scope, payload)
    return PLACE.signature(one.manifest.bundle, tag)


def test_name_that_is_taken_is_no_signature(store: Store, keys: list[Path]) -> None:
    """`sign` does not take what lies at a signature's name for one: it fails, says what to delete, and signs the rest.

    Once that is deleted it signs.
    """
    one, other = bundle([artifact()]), bundle([artifact("other")])
    publish(store, one)
    publish(store, other)
    key = signature_key(store, one, keys[0])
    store.create(key, b"\xc1garbage")
    found = document("sign", store.url, "--key", keys[0], code=4)
    assert found["signed"] == [other.manifest.bundle]
    assert [(one["bundle"], one["kind"]) for one in found["failed"]] == [(one.manifest.bundle, "UntrustedError")]
    told = run("sign", store.url, "--key", keys[0], code=4).stderr
    assert f"delete it from {store.url}" in told
    assert "1 had this signature already" in told
    store.delete(key)
    assert document("sign", store.url, "--key", keys[0])["signed"] == [one.manifest.bundle]
    assert len(read(store, keys[0])) == 2


def test_bundle_that_was_published_anew_is_signed_anew(store: Store, keys: list[Path]) -> None:
    """A signature of what lay under the same name before does not keep a right one from being added."""
    one = bundle([artifact()])
    publish(store, one)
    sign_later(store, one, keys[0])
    store.delete(PLACE.manifest(one.manifest.bundle))
    again = replace(one, manifest=replace(one.manifest, labels={"run": "2"}))
    publish(store, again)
    assert document("sign", store.url, "--key", keys[0])["signed"] == [one.manifest.bundle]
    assert read(store, keys[0]) == [again.manifest]


@pytest.mark.parametrize("details", [b"[1]", b'"a"', b"\xff", b"[" * 100_000, b'{"keyid": {}}'])
def test_details_that_no_library_reads_are_not_valid(keys: list[Path], details: bytes) -> None:
    """Whatever stands beside a signature, a wrong one is refused, and no other exception comes out."""
    trusted = policy(keys[0])
    wrong = Signature(keyid=trusted.keys[0].keyid, scope="here", sig=b"wrong", details=details)
    with pytest.raises(UntrustedError):
        trusted.check(Envelope(payload=b"payload", signatures=(wrong,)), "here")


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (0, "the trust threshold is 0; let at least 1 key sign"),
        (
            2,
            "2 keys must sign, but only 1 is trusted; trust more keys, each named once, or lower the threshold to 1",
        ),
    ],
)
def test_policy_that_cannot_be_met_is_refused(keys: list[Path], threshold: int, told: str) -> None:
    """Fewer than one signature, or more than there are keys, is a mistake, and the error says what to do."""
    with pytest.raises(SettingsError, match=f"^{told}$"):
        policy(keys[0], keys[0], threshold=threshold)


def test_no_keys_are_no_policy() -> None:
    """An empty list of keys is a mistake as well, and does not switch the check off."""
    with pytest.raises(SettingsError):
        TrustPolicy.read([])


@pytest.mark.parametrize("content", [b"", b"no key", b"{}", b'{"keyid": 1}'])
def test_file_that_is_no_key_is_told(tmp_path: Path, content: bytes) -> None:
    """A file that holds no key is refused by its name."""
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=str(path)):
        _trust.read_public_key(path)
    with pytest.raises(SettingsError, match="signing key"):
        _trust.load_signer(path)


def test_public_key_may_be_json(store: Store, keys: list[Path], tmp_path: Path) -> None:
    """A key as securesystemslib describes it is read as well."""
    key = _trust.read_public_key(public(keys[0]))
    described = tmp_path / "key.json"
    described.write_text(json.dumps({"keyid": key.keyid, **key.to_dict()}))
    publish(store, bundle([artifact()]), keys[0])
    catalog = Catalog.of(store, HERE, TrustPolicy.read([described]))
    found = catalog.list()
    assert [done.fault for done in catalog.knowing(found).read(found.visible)] == [None]


def test_private_key_is_private(keys: list[Path]) -> None:
    """Only the owner reads a new private key, and a key is never overwritten."""
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    assert "PRIVATE" not in Path(public(keys[0])).read_text()
    before = keys[0].read_bytes()
    with pytest.raises(SettingsError):
        _trust.generate_key(keys[0])
    assert keys[0].read_bytes() == before


def test_key_given_by_its_content_is_not_repeated(keys: list[Path]) -> None:
    """A private key that stands where its file should be named is refused, and is in no message."""
    with pytest.raises(SettingsError, match="given by its content") as caught:
        _trust.load_signer(keys[0].read_text())
    assert keys[0].read_text().splitlines()[1] not in str(caught.value)


@pytest.mark.parametrize(
    ("keys_named", "threshold"), [((), None), (None, 2), ((), 1)], ids=["no keys", "threshold alone", "neither"]
)
def test_half_a_policy_is_no_policy_that_is_off(keys_named: tuple[str, ...] | None, threshold: int | None) -> None:
    """An empty list of keys, or a threshold without keys, is an error, and never trust in everyone."""
    with pytest.raises(SettingsError, match="no trusted key is named; name the file of a public key"):
        Keys(trusted=keys_named, threshold=threshold).policy(Settings.read())


def test_empty_variable_is_no_policy_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set, and names no key, is an error; only one that is not set trusts everyone."""
    assert Keys().policy(Settings.read()) is None
    monkeypatch.setenv("MEGACACHE_TRUSTED_KEYS", ":")
    with pytest.raises(SettingsError):
        Keys().policy(Settings.read())


def test_publisher_relies_on_what_is_signed(keys: list[Path]) -> None:
    """Who signs, and names no trusted keys, takes nothing for published that its own key has not signed."""
    signer = _trust.load_signer(keys[0])
    policy = Keys().publishers_policy(Settings.read(), signer)
    assert policy is not None
    assert [key.keyid for key in policy.keys] == [_trust.read_public_key(public(keys[0])).keyid]
    assert Keys().publishers_policy(Settings.read(), None) is None


def test_signature_for_another_place_is_in_nobodys_way(store: Store, keys: list[Path]) -> None:
    """A later signature that was copied with the cache does not keep a right one from being added."""
    one = bundle([artifact()])
    publish(store, one)
    sign_later(store, one, keys[0], scope="s3://staging/v1")
    sign_later(store, one, keys[0])
    assert read(store, keys[0]) == [one.manifest]


def test_uri_may_name_its_public_key(store: Store, keys: list[Path]) -> None:
    """A signer that is named by a URI and the file of its public key signs as any other."""
    one = bundle([artifact()])
    publish(store, one)
    sign_later(store, one, Path(f"file2:{keys[0]}#{public(keys[0])}"))
    assert read(store, keys[0]) == [one.manifest]


def identity(tmp_path: Path) -> TrustPolicy:
    """Trust somebody whom Sigstore knows."""
    path = tmp_path / "identity.json"
    keyval = {"identity": "https://github.com/o/r/.github/workflows/w.yml@refs/heads/main", "issuer": "https://i"}
    path.write_text(json.dumps({"keyid": "ci", "keytype": "sigstore-oidc", "scheme": "Fulcio", "keyval": keyval}))
    return TrustPolicy.read([path])


BY_CI = Envelope(
    payload=b"payload", signatures=(Signature(keyid="ci", scope="s", sig=b"x", details=b'{"bundle": {"a": 1}}'),)
)


def test_signature_that_cannot_be_verified_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Sigstore's library its signatures count for nothing, and nobody is accused of having changed them."""
    monkeypatch.setitem(sys.modules, "sigstore.errors", None)
    with pytest.raises(UntrustedError, match="could not be verified: sigstore library") as caught:
        identity(tmp_path).check(BY_CI, "s")
    assert "who changed it" not in str(caught.value)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (None, ""),
        ("wrong", "find out who changed it"),
        (OSError("no\x1b[31m network"), r"could not be verified: .*OSError: no \[31m network"),
    ],
    ids=["right", "wrong", "network"],
)
def test_sigstore_identity_is_a_key(
    outcome: Exception | str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom Sigstore knows is trusted by identity and issuer; its library is given what was signed, and its own bundle.

    The library itself stands outside: it would ask servers.
    """
    wrong = type("VerificationError", (Exception,), {})
    asked = []

    def verify(data: bytes, given: object, who: tuple[str, str]) -> None:
        asked.append((data, given, who))
        if outcome is not None:
            raise wrong if isinstance(outcome, str) else outcome

    verifier = SimpleNamespace(production=lambda: SimpleNamespace(verify_artifact=verify))
    for name, members in {
        "sigstore": {},
        "sigstore.errors": {"VerificationError": wrong},
        "sigstore.models": {"Bundle": SimpleNamespace(from_json=json.loads)},
        "sigstore.verify": {"Verifier": verifier},
        "sigstore.verify.policy": {"Identity": lambda *, identity, issuer: (identity, issuer)},
    }.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**members))  # type: ignore[arg-type]
    with pytest.raises(UntrustedError, match=told) if told else nullcontext():
        identity(tmp_path).check(BY_CI, "s")
    ((data, given, who),) = asked
    assert b"payload" in data
    assert b";scope=s" in data
    assert (given, who[1]) == ({"a": 1}, "https://i")


def test_one_key_under_two_names_is_one(store: Store, keys: list[Path], tmp_path: Path) -> None:
    """A threshold of two is not met by one private key, however its public key is written and whatever it is called."""
    key = _trust.read_public_key(public(keys[0]))
    again = tmp_path / "again.json"
    again.write_text(json.dumps({"keyid": "another", **key.to_dict()}))
    files = [public(keys[0]), str(again)]
    with pytest.raises(SettingsError, match="2 keys must sign, but only 1 is trusted"):
        TrustPolicy.read(files, 2)
    signer = _trust.load_signer(keys[0])
    made = _trust.sign(signer, b"payload", store.scope)
    both = Envelope(payload=b"payload", signatures=(made, replace(made, keyid="another")))
    TrustPolicy.read(files, 1).check(both, store.scope)
    with pytest.raises(UntrustedError, match="1 valid signature for"):
        TrustPolicy.read([*files, public(keys[1])], 2).check(both, store.scope)


def test_foreign_words_are_shown_harmless(store: Store, keys: list[Path]) -> None:
    """What a signature that nobody has verified says of its place does not reach a terminal as it is."""
    made = _trust.sign(_trust.load_signer(keys[0]), b"payload", "s3://\x1b]0;owned\x07/\r\n" + "x" * 1_000)
    with pytest.raises(UntrustedError) as caught:
        policy(keys[0]).check(Envelope(payload=b"payload", signatures=(made,)), store.scope)
    assert str(caught.value).isprintable()
    assert "it is signed for s3:// ]0;owned" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["azurekms:x", "gnupg:x"])
def test_signer_that_needs_more_than_a_name_is_told(name: str) -> None:
    """A service whose keys cannot be named by a URI alone is told with what to do."""
    with pytest.raises(SettingsError, match="name the file of its public key as well"):
        _trust.load_signer(name)


def test_library_is_an_extra(keys: list[Path]) -> None:
    """Without securesystemslib, naming a key is an error that says what to install; nothing is trusted meanwhile."""
    code = (
        "import sys; sys.modules['securesystemslib'] = sys.modules['cryptography'] = None\n"
        "from megacache._trust import TrustPolicy\n"
        "try: TrustPolicy.read([sys.argv[1]])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, public(keys[0])], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("SettingsError")
    assert 'pip install "megacache[signing]"' in done.stdout


def test_process_loads_what_is_signed_and_nothing_else(processes: Processes, keys: list[Path], tmp_path: Path) -> None:
    """A warm start with trusted keys refuses an unsigned cache, leaves no file behind, and takes it once signed."""
    url, trusted = str(tmp_path / "store"), [public(keys[0])]
    folder = processes.new_folder()
    processes.run(step("run", model="doubling"), step("publish", url=url))
    before = sorted(folder.rglob("*"))
    refused, on_disk = processes.run(
        step("warm", url=url, trusted_keys=trusted), step("artifacts_on_disk"), folder=folder
    )
    assert (refused["status"], refused["error"]) == ("untrusted", "UntrustedError")
    assert "none of the trusted keys has signed it" in refused["reason"]
    assert (on_disk, sorted(folder.rglob("*"))) == ({"fxgraph": 0, "aotautograd": 0}, before)
    signed = CliRunner().invoke(app, ["sign", url, "--key", str(keys[0])])
    assert signed.exit_code == 0, signed.output
    warmed, ran = processes.run(
        step("warm", url=url), step("run", model="doubling"), environment={"MEGACACHE_TRUSTED_KEYS": trusted[0]}
    )
    assert (warmed["status"], ran["fx_hit"], ran["fx_miss"]) == ("loaded", 1, 0)


def test_process_signs_what_it_publishes(processes: Processes, keys: list[Path], tmp_path: Path) -> None:
    """With a key, by argument or variable, a publication is signed; an unsigned bundle covers nothing."""
    url, trusted = str(tmp_path / "store"), [public(keys[0])]
    variables = {"MEGACACHE_SIGNING_KEY": str(keys[0]), "MEGACACHE_TRUSTED_KEYS": trusted[0]}
    processes.run(step("run", model="doubling"), step("publish", url=url))
    _, published = processes.run(step("run", model="doubling"), step("publish", url=url), environment=variables)
    assert published["status"] == "published"
    warmed, ran = processes.run(step("warm", url=url, trusted_keys=trusted), step("run", model="doubling"))
    assert (warmed["status"], len(warmed["bundles"]), ran["fx_miss"]) == ("loaded", 1, 0)
    assert "none of the trusted keys has signed it" in warmed["warnings"][0]


def test_key_that_hangs_does_not_outlast_the_deadline(processes: Processes, tmp_path: Path) -> None:
    """A key that takes for ever to load is waited for as long as the call allows, and not at all in the caller."""
    os.mkfifo(key := tmp_path / "key.pem")
    options: dict[str, object] = {"url": str(tmp_path / "store"), "sign_with": str(key)}
    _, behind, result = processes.run(
        step("run", model="doubling"),
        step("publish_and_go_on", timeout=6, **options),
        step("publish", timeout=2, **options),
    )
    assert behind == {"running": True}
    assert (result["status"], result["error"]) == ("unavailable", "DeadlineError")


def test_command_line_makes_signs_and_verifies(store: Store, tmp_path: Path) -> None:
    """A key is made, what is published is signed once, and verified; before that, and with other keys, it is not."""
    upload(store, bundle([artifact()]))
    url, key, other = str(tmp_path / "store"), str(tmp_path / "new.pem"), str(tmp_path / "other.pem")

    def invoke(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, done.output

    assert [invoke("keygen", path)[0] for path in (key, other)] == [0, 0]
    assert invoke("keygen", key)[0] == 2
    assert invoke("verify", url)[0] == 0
    assert invoke("verify", url, "--trusted-keys", f"{key}.pub")[0] == 1
    assert invoke("sign", url)[0] == 2
    assert "1 bundle signed" in invoke("sign", url, "--key", key)[1]
    assert "0 bundles signed" in invoke("sign", url, "--key", key)[1]
    assert invoke("verify", url, "--trusted-keys", f"{key}.pub")[0] == 0
    code, told = invoke("verify", url, "--trusted-keys", f"{other}.pub")
    assert (code, "none of the trusted keys has signed it" in told) == (1, True)
    name = os.listdir(tmp_path / "store" / PLACE.bundles)[0][:32]  # noqa: PTH208 - any name will do
    assert "added later" in invoke("inspect", url, name)[1]
    assert invoke("rm", url, "--all", "--yes")[0] == 0
    assert store.list() == ()


def test_cache_is_signed_for_where_it_will_lie(store: Store, keys: list[Path], tmp_path: Path) -> None:
    """What is signed for a folder of an image verifies there, and here only for that folder."""
    upload(store, bundle([artifact()]))
    here, there = str(tmp_path / "store"), str(tmp_path / "image" / "opt")
    trusted = "--trusted-keys", public(keys[0])
    sign = CliRunner().invoke(app, ["sign", here, "--key", str(keys[0]), "--for", there])
    assert sign.exit_code == 0, sign.output
    before = [CliRunner().invoke(app, ["verify", here, *trusted, *more]).exit_code for more in ((), ("--for", there))]
    shutil.copytree(here, there)
    assert [*before, CliRunner().invoke(app, ["verify", there, *trusted]).exit_code] == [1, 0, 0]

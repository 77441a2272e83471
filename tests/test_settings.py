"""Every variable that megacache reads has one meaning, and those of others are left as they were."""

import os
import re
import threading
from pathlib import Path

import pytest

import megacache
from megacache._bundle import pack
from megacache._settings import (
    AutostartSettings,
    Settings,
    cache_folder_unpinned,
    child_environment,
    chunk_folder,
    default_url,
    documented_variables,
    is_secret,
    plain_variables,
    requested_cpu_capability,
    variables_of,
)
from megacache.errors import SettingsError

OWN = (
    *("MEGACACHE_URL", "MEGACACHE_DISABLE", "MEGACACHE_READ_ONLY", "MEGACACHE_NODE_MAX_BYTES"),
    "MEGACACHE_FOLDERS",
    "ATEN_CPU_CAPABILITY",
)

FOLDER = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start with none of the variables set."""
    for name in [*OWN, *(n for n in os.environ if n.startswith(("TORCHINDUCTOR_", "TORCH_COMPILE_", "TRITON_")))]:
        monkeypatch.delenv(name, raising=False)


def test_nothing_set_means_the_defaults() -> None:
    """Without variables, megacache is on, writes, and has no URL."""
    assert Settings.read() == Settings(url=None, disabled=False, read_only=False)


def test_argument_precedes_variable_precedes_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL is the argument, else the variable, else the folder of the user."""
    assert Settings.read().places(None) == (default_url(),)
    monkeypatch.setenv("MEGACACHE_URL", "s3://variable/x")
    assert Settings.read().places(None) == ("s3://variable/x",)
    assert Settings.read().places("s3://argument/x") == ("s3://argument/x",)


def test_empty_url_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty argument or variable names no cache."""
    monkeypatch.setenv("MEGACACHE_URL", "")
    assert Settings.read().url is None
    assert Settings.read().places("") == (default_url(),)


def test_places_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable and an argument name several places in the same way; a path, and each of a sequence, is one."""
    found = ("/mnt/node", "s3://bucket/x")
    monkeypatch.setenv("MEGACACHE_URL", " /mnt/node/\n s3://bucket/x s3://bucket/x/ ")
    assert Settings.read().places(None) == found
    assert Settings.read().places("/mnt/node s3://bucket/x") == found
    assert Settings.read().places(["/mnt/node", Path("/mnt/with /slash"), ""]) == ("/mnt/node", "/mnt/with /slash")
    assert Settings.read().places(Path("/mnt/with /slash")) == ("/mnt/with /slash",)
    with pytest.raises(SettingsError, match="cannot be of type"):
        Settings.read().places([5])  # type: ignore[list-item]


def test_default_is_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default store follows `XDG_CACHE_HOME`, a name with blanks and signs included."""
    folder = tmp_path / "my #1 cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    assert default_url() == f"file://{folder}/megacache/store"
    assert chunk_folder() == folder / "megacache" / "chunks"


def test_folders_have_names_and_maybe_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are written like a path of folders: by a name, or by a name and a path."""
    assert Settings.read().folders == {}
    monkeypatch.setenv("MEGACACHE_FOLDERS", "cpp_extension:mine=/a/b=c:")
    assert Settings.read().folders == {"cpp_extension": "", "mine": "/a/b=c"}


@pytest.mark.parametrize(("value", "most"), [("", 10 << 30), ("0", 0), (" 5000 ", 5000)])
def test_bytes_kept_on_the_node_are_read(monkeypatch: pytest.MonkeyPatch, value: str, most: int) -> None:
    """Without a number it is 10 GiB; what is no number is refused."""
    monkeypatch.setenv("MEGACACHE_NODE_MAX_BYTES", value)
    assert Settings.read().node_max_bytes == most
    monkeypatch.setenv("MEGACACHE_NODE_MAX_BYTES", "10G")
    with pytest.raises(SettingsError, match="MEGACACHE_NODE_MAX_BYTES='10G' is not a number"):
        Settings.read()


def test_trailing_slashes_do_not_matter() -> None:
    """One cache has one URL, however many slashes end it."""
    assert Settings.read().places("s3://bucket/x//") == ("s3://bucket/x",)


@pytest.mark.parametrize("variable", ["MEGACACHE_DISABLE", "MEGACACHE_READ_ONLY"])
@pytest.mark.parametrize(
    ("value", "on"),
    [(value, True) for value in ("1", "true", "TRUE", "yes", "on", " 1 ")]
    + [(value, False) for value in ("", "0", "false", "No", "off", " ")],
)
def test_switch_is_read(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, on: bool) -> None:
    """A switch takes the usual words, in any case, and each variable turns its own."""
    monkeypatch.setenv(variable, value)
    settings = Settings.read()
    assert {"MEGACACHE_DISABLE": settings.disabled, "MEGACACHE_READ_ONLY": settings.read_only} == {
        "MEGACACHE_DISABLE": False,
        "MEGACACHE_READ_ONLY": False,
        variable: on,
    }


@pytest.mark.parametrize("variable", ["MEGACACHE_DISABLE", "MEGACACHE_READ_ONLY"])
@pytest.mark.parametrize("value", ["2", "maybe", "ture", "-1"])
def test_bad_switch_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """A value that means nothing is not guessed at; the error names the variable and what to write."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}='{value}' is neither on nor off; use 1 or 0$"):
        Settings.read()


def test_only_variables_of_the_names_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come in order, without those that hold a path."""
    for name, value in {"TWO": "2", "ONE": "1", "SECRET": "secret", "FOLDER": "relative/folder"}.items():
        monkeypatch.setenv(name, value)
    assert list(plain_variables({"ONE", "TWO", "FOLDER", "MISSING"}).items()) == [("ONE", "1"), ("TWO", "2")]


def test_variables_of_another_program_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that begin as its own do come, and some of other names, whatever they hold."""
    for name, value in {"OWN_B": "/folder", "OWN_A": "", "OTHER": "1", "OTHER_TOO": "2"}.items():
        monkeypatch.setenv(name, value)
    found = variables_of("OWN_", {"OTHER", "MISSING"})
    assert list(found.items()) == [("OTHER", "1"), ("OWN_A", ""), ("OWN_B", "/folder")]


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [("A_TOKEN", "", True), ("Api_Key", "1", True), ("PROXY", "http://a:b@c", True), ("PROXY", "http://c", False)],
)
def test_secrets_are_told_by_name_or_by_a_password_in_a_url(name: str, value: str, *, secret: bool) -> None:
    """What is called like one counts as one, and so does a URL that holds one."""
    assert is_secret(name, value) is secret


def test_variables_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is no UTF-8, which the system allows, does not keep a manifest from being written."""
    monkeypatch.setenv("NOTE", os.fsdecode(b"caf\xe9"))
    assert pack(dict(plain_variables({"NOTE"})))


def test_autostart_settings_survive_the_way_to_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one process writes into variables another one reads as it was."""
    settings = AutostartSettings(warm_timeout=1.5, publish_after=0, exit_timeout=7, compact_above=9, log="info")
    for name, value in settings.variables().items():
        monkeypatch.setenv(name, value)
    assert AutostartSettings.read() == settings


def test_autostart_settings_have_defaults() -> None:
    """Without variables the defaults are read."""
    assert AutostartSettings.read() == AutostartSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("WARM_TIMEOUT", "soon"), ("PUBLISH_AFTER", "-1"), ("EXIT_TIMEOUT", "nan"), ("EXIT_TIMEOUT", "inf"), ("LOG", "x")],
)
def test_wrong_autostart_setting_is_told(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that means nothing is refused by its name."""
    monkeypatch.setenv(f"MEGACACHE_{name}", value)
    with pytest.raises(SettingsError, match=name):
        AutostartSettings.read()


def test_child_environment_puts_a_folder_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are added to the environment, and a folder comes before those that Python looks into already."""
    monkeypatch.setenv("PYTHONPATH", "/old")
    monkeypatch.setenv("KEPT", "1")
    found = child_environment({"NEW": "2"}, python_path="/new")
    assert (found["KEPT"], found["NEW"], found["PYTHONPATH"]) == ("1", "2", f"/new{os.pathsep}/old")
    monkeypatch.delenv("PYTHONPATH")
    assert child_environment({}, python_path="/new")["PYTHONPATH"] == "/new"


@pytest.mark.parametrize(
    ("before", "pinned"), [(None, "/tmp/torchinductor_somebody"), ("/some/where", "/some/where"), ("here", None)]
)
def test_cache_folder_is_put_back(monkeypatch: pytest.MonkeyPatch, before: str | None, pinned: str | None) -> None:
    """What PyTorch makes of the variable of its cache folder is undone, also after an exception."""
    monkeypatch.delenv(FOLDER, raising=False) if before is None else monkeypatch.setenv(FOLDER, before)

    def pin() -> None:
        with cache_folder_unpinned():
            os.environ[FOLDER] = pinned or str(Path.cwd() / "here")
            raise KeyError

    with pytest.raises(KeyError):
        pin()
    assert os.environ.get(FOLDER) == before


@pytest.mark.parametrize("before", [None, "/some/where"])
def test_what_another_thread_sets_stays(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    """Other folders that appear meanwhile are not PyTorch's doing here: a compilation sets Triton's for good."""
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    monkeypatch.delenv(FOLDER, raising=False) if before is None else monkeypatch.setenv(FOLDER, before)
    with cache_folder_unpinned():
        other = threading.Thread(target=os.environ.update, args=({"TRITON_CACHE_DIR": "/triton", FOLDER: "/mine"},))
        other.start()
        other.join()
    assert (os.environ.get("TRITON_CACHE_DIR"), os.environ.get(FOLDER)) == ("/triton", "/mine")


def test_every_variable_that_is_read_is_documented() -> None:
    """Each `MEGACACHE_` variable that the code names is described once, in a few words, and no other is."""
    described = list(documented_variables())
    sources = "".join(path.read_text() for path in Path(megacache.__file__).parent.rglob("*.py"))
    assert sorted(one.name for one in described) == sorted(set(re.findall(r"\bMEGACACHE_[A-Z_]+", sources)))
    assert all(one.meaning and "None" not in one.meaning for one in described)


def test_documented_default_is_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to the default which is told for it changes nothing."""
    for one in documented_variables():
        monkeypatch.setenv(one.name, one.default) if one.default else monkeypatch.delenv(one.name, raising=False)
    assert (Settings.read(), AutostartSettings.read()) == (Settings(), AutostartSettings())


def test_requested_cpu_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    """The requested capability is read in any case; unset is empty."""
    assert requested_cpu_capability() == ""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "AVX2")
    assert requested_cpu_capability() == "avx2"


def test_environment_is_read_in_one_place() -> None:
    """No other module of megacache reads `os.environ`, but for those that cannot: of b10-transfer, and of `site`."""
    folder = Path(megacache.__file__).parent
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if "os.environ" in path.read_text()}
    site = "integrations/site/megacache_on_compile.py"  # it may import nothing of megacache
    assert found == {"_settings.py", "compat/_variables.py", site}

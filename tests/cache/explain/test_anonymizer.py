"""A text loses what tells of the machine, and keeps the rest."""

import getpass
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megacache._cache.explain.data import anonymizer
from tests.kit.builders import UNHURRIED

segments = st.text("abcXYZ019_-.", min_size=1, max_size=8).filter(lambda name: name.strip("."))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("(None, '/home/jane doe/bin/g++')", "(None, '<path>')"),
        ('file "/x/y z.py", line 3', 'file "<path>", line 3'),
        ("-I/usr/include -L/opt/lib:/srv/lib", "-I<path> -L<path>:<path>"),
        ("CXX=/usr/bin/g++;next", "CXX=<path>;next"),
        ("s3://key:secret@bucket/x?token=1", "<url>"),
        ("file:///mnt/x", "<url>"),
        ("~/cache and ~jane/cache", "<path> and <path>"),
        (r"'#include\n/home/jane/x.h'", r"'#include\n<path>'"),
        ("prefix/home/jane/x", "prefix<path>"),
        (r"C:\Users\jane\x", "<path>"),
        ("<function f at 0x7f7b4806bce0>", "<function f at <address>>"),
    ],
)
def test_paths_and_addresses_go(text: str, shown: str) -> None:
    """Whatever looks like an absolute path goes, in quotes, flags, lists and URLs; an address in memory as well."""
    assert anonymizer()(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "mul = torch.ops.aten.mul.Tensor(arg0_1, 0.7071067811865476)",
        "TensorMetadata(dtype=torch.float32, shape=torch.Size([8, 16]), device=device(type='cuda', index=1))",
        "a / b",
        "a // 2",
        "8*s0//2 + (s1)/2",
        "1/2",
        "2 <= L['t0'] and L['t0'] <= 64",
        "ATEN,TRITON,CPP",
        "(False, False, True)",
        "",
        "/",
    ],
)
def test_what_tells_of_no_machine_stays(text: str) -> None:
    """Code, shapes, divisions and settings stay as they are."""
    assert anonymizer()(text) == text


def test_names_of_host_and_user_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's name, with or without its domain, and the user's go wherever they stand as a word."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node7.cluster.example")
    monkeypatch.setattr(getpass, "getuser", lambda: "jane")
    told = anonymizer()("jane@node7 jane_doe node7.cluster.example:80 janet node70")
    assert told == "<user>@<host> <user>_doe <host>:80 janet node70"


def test_folders_of_this_process_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Home, working and temporary folders go, also where they do not begin a word."""
    monkeypatch.chdir(tmp_path)
    told = anonymizer()(f"x{tmp_path}y {Path.home()} --out={tmp_path}/a")
    assert str(tmp_path) not in told
    assert str(Path.home()) not in told


def test_process_without_account_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no user account, no home and no working folder, the rest is still taken out."""

    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(getpass, "getuser", fail)
    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setattr(Path, "cwd", fail)
    assert anonymizer()("at /etc/x") == "at <path>"


@UNHURRIED
@given(st.lists(segments, min_size=2, max_size=5), st.sampled_from(["", "'", '"', "(", "x=", "a ", "[", ", ", "-I"]))
def test_no_absolute_path_is_left(parts: list[str], before: str) -> None:
    """Of an absolute path no part is left, whatever stands before it."""
    path = "/" + "/".join(f"{part}9q" for part in parts)
    closing = {"'": "'", '"': '"', "(": ")", "[": "]"}.get(before, "")
    assert "9q" not in anonymizer()(f"{before}{path}{closing}")

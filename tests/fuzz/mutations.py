"""Change documents without making them unreadable: values are replaced, repeated, moved and nested."""

import random
from collections.abc import Callable
from typing import Any

import msgpack

STRANGE: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    1 << 20,
    (1 << 31) + 1,
    (1 << 64) - 1,
    -(1 << 63),
    1.5,
    float("nan"),
    "",
    b"",
    "..",
    "../../escaped.so",
    "/tmp/escaped.so",
    "ab/x.so",
    "linked/x.so",
    "loop/x.so",
    "file/x.so",
    "a\0b.so",
    ".hidden.so",
    "a/" * 9 + "x.so",
    "x" * 300 + ".so",
    "precompile",
    "1" * 5_000,
    "é" * 40,
    "inductor",
    "sha256:" + "0" * 64,
    [],
    {},
    [[]] * 3,
    {"a": {"b": [1]}},
    msgpack.ExtType(1, b"os.system"),
    msgpack.Timestamp(0),
)
"""Values that a reader may not have thought of."""
_LARGE = 1 << 17


def changed(data: bytes, rng: random.Random) -> bytes:
    """Change a document: mostly its values, sometimes its bytes."""
    if rng.random() < 0.25:
        return torn(data, rng)
    try:
        tree = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return torn(data, rng)
    packed = data
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        tree = _anywhere(tree, rng)
        try:
            packed = msgpack.packb(tree)
        except (ValueError, OverflowError, TypeError):
            return torn(data, rng)
        if len(packed) > _LARGE:  # what is repeated within what is repeated would outgrow memory
            break
    return packed


def torn(data: bytes, rng: random.Random) -> bytes:
    """Change bytes: one, a few, a piece left out, or a piece that stands twice."""
    if not data:
        return rng.randbytes(8)
    at, size = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 8, 64))
    middle: Callable[[], bytes] = rng.choice(
        (
            lambda: bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 : at + size],
            lambda: rng.randbytes(size),
            lambda: b"",
            lambda: data[at : at + size] * 2,
            lambda: rng.choice((b"\xff", b"\xdd\xff\xff\xff\xff", b"\x91" * 40, b"\xc7\x01\x05x", b"\x7f" * 8)),
        )
    )
    return data[:at] + middle() + data[at + size :]


def _anywhere(tree: Any, rng: random.Random) -> Any:
    """Change one value, on the way down or at the end of it."""
    if not isinstance(tree, list | dict) or not tree or rng.random() < 0.15:
        return _other(tree, rng)
    if isinstance(tree, dict):
        return _in_map(dict(tree), rng)
    return _in_array(list(tree), rng)


def _in_map(tree: dict[Any, Any], rng: random.Random) -> object:
    name = rng.choice(list(tree))
    if rng.random() < 0.1:
        tree[rng.choice((name, name, 1, "x" * 2_000, None))] = tree.pop(name)
    elif rng.random() < 0.1:
        del tree[name]
    else:
        tree[name] = _anywhere(tree[name], rng)
    return tree


def _in_array(tree: list[Any], rng: random.Random) -> object:
    at = rng.randrange(len(tree))
    if rng.random() < 0.1:
        tree *= rng.choice((0, 2, 50))
    elif rng.random() < 0.1:
        tree.insert(rng.randrange(len(tree)), tree.pop(at))
    else:
        tree[at] = _anywhere(tree[at], rng)
    return tree


def _other(value: object, rng: random.Random) -> object:
    if isinstance(value, str) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice(("", "/", "..", "\0", "\n", "0", "é", value)) + value[at + 1 :]
    if isinstance(value, bytes) and rng.random() < 0.5:
        return changed(value, rng)
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 1 << 32))
    return rng.choice(STRANGE)

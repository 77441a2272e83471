"""The facts on which it depends whether what vLLM has compiled means the same in another process.

vLLM loads what it has compiled without checking guards, and its key leaves out some of what it depends on. So all of
its configuration counts here, and all variables that it may read, but for the few that `_vllm_places` lists. What is
unset, or has its default, is not a fact: for it, the version of vLLM speaks.
"""

import dataclasses
import logging
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import Path
from typing import Any

from megacache import _compiler
from megacache._bundle import Digest
from megacache._settings import is_secret, variables_of
from megacache._store import redacted, without_secrets
from megacache.integrations._vllm_places import READ_BESIDES, is_other_setting, is_other_variable

_log = logging.getLogger("megacache")

DEVICE, KEY, MODULES, SOURCES = "device_index", "vllm_key", "vllm_modules", "vllm_sources"
_REST = "vllm_others"
# A manifest takes 256, those of every compiled file among them.
_MOST = 200
_MOST_ITEMS, _DEPTH = 32, 6
_DIGITS = 16
_PREFIX = "VLLM_"
_WORD = re.compile(r"[+-]?[A-Za-z][A-Za-z0-9_]{0,23}")
_NUMBER = re.compile(r"-?\d{1,10}(?:\.\d{1,10})?")
_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_PLAIN = frozenset({"torch.dtype", "torch.device"})
_USERS = frozenset({"code_revision", "generation_config", "model", "revision", "tokenizer_revision"})
"""Settings whose words are the user's, and maybe the name of a folder."""
_SWITCHES = frozenset({"true", "false"})
_ELSEWHERE = frozenset({"_name_or_path", "transformers_version"})
"""What a model's own configuration says of where it was found, and by whom it was written."""


def settings_facts(config: Any, model: Any = None) -> Mapping[str, str]:
    """Read the facts of this process, by the configuration of a server and the model that it is about to compile.

    What cannot be read is not a fact, and is told in the log for developers. Numbers, switches and the words of a
    setting are shown as they are, anything else as a digest; of what seems to be a secret nothing is told.
    """
    found: dict[str, str] = {}
    for read in (_device, lambda: _key(config), lambda: _modules(model), _variables, lambda: _settings(config)):
        found.update(_softly(read))
    facts = dict(sorted(found.items())[:_MOST])
    if rest := sorted(found.items())[_MOST:]:
        facts[_REST] = _digest(repr(rest))
    return facts


def _softly(read: Callable[[], Iterable[tuple[str, str]]]) -> Mapping[str, str]:
    try:
        return dict(read())
    except Exception as error:  # noqa: BLE001 - it belongs to vLLM, and may have changed
        _log.debug("facts of vLLM not read: %s: %s", type(error).__name__, without_secrets(str(error)))
        return {}


def _device() -> Iterator[tuple[str, str]]:
    # What is compiled for one GPU of a host names it.
    if (index := _compiler.current_device()) is not None:
        yield DEVICE, str(index)


def _key(config: Any) -> Iterator[tuple[str, str]]:
    """Give vLLM's own key: if nothing else that differs can be named, this does."""
    from vllm import envs

    # In a version that lacks either, the other one is still a key.
    factors = _softly(lambda: envs.compile_factors().items())
    yield KEY, _digest(repr(sorted(factors.items())), str(config.compute_hash()))


def _modules(model: Any) -> Iterator[tuple[str, str]]:
    """Tell what the model is made of: LoRA wraps modules, and plug-ins replace them, or what they call."""
    if model is not None:
        modules = list(model.named_modules())
        yield MODULES, _digest(repr([(name, _class(one), _forward(one)) for name, one in modules]))
        # vLLM refuses a model whose source has changed, but only once it has loaded it.
        yield SOURCES, _digest(*sorted(_sources(type(one).__module__ for _, one in modules)))


def _sources(modules: Iterable[str]) -> Iterator[str]:
    for name in set(modules):
        file = getattr(sys.modules.get(name), "__file__", None)
        yield f"{name} {Digest.of(Path(file).read_bytes()) if file else ''}"


def _forward(module: Any) -> str:
    return getattr(getattr(module, "_forward_method", None), "__name__", "")


def _variables() -> Iterator[tuple[str, str]]:
    """Give the variables that are set, and that vLLM may read: those that it does not register among them."""
    from vllm import envs

    keyed = frozenset(_softly(lambda: envs.compile_factors().items()))
    registered: Collection[str] = getattr(envs, "environment_variables", ())
    for name, value in variables_of(_PREFIX, keyed | READ_BESIDES | _compiler.RECORDED_VARIABLES).items():
        # What a variable says that is not vLLM's may be anybody's.
        known = name in registered or not name.startswith(_PREFIX)
        counts = _NAME.fullmatch(name) and (name in keyed or not is_other_variable(name))
        if counts and (not is_secret(name, value) or (known and _NUMBER.fullmatch(value))):
            yield name, _shown(value, words=known)


def _settings(config: Any) -> Iterator[tuple[str, str]]:
    return _fields(config, "", _DEPTH)


def _fields(owner: Any, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    """Give what is not as it is by default, by names such as `lora_config.max_loras`."""
    for field in dataclasses.fields(owner):
        name, value = f"{prefix}{field.name}", getattr(owner, field.name, None)
        if is_other_setting(name):
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            # What is there at all, as LoRA is, tells something even if all in it is as it is by default.
            yield from [(name, "set")] if field.default is None else []
            yield from _readable(name, value, depth)
        elif not _is_default(value, field):
            yield from _readable(name, value, depth)


def _readable(name: str, value: Any, depth: int) -> Iterable[tuple[str, str]]:
    try:
        return list(_below(name, value, depth, words=name.rpartition(".")[2] not in _USERS))
    except Exception:  # noqa: BLE001 - of what does not describe itself, at least the class is told
        return [(name, _class(value))]


def _below(name: str, value: Any, depth: int, *, words: bool) -> Iterator[tuple[str, str]]:
    if hasattr(value, "to_dict"):  # a model's own configuration, whatever it consists of
        described = {key: one for key, one in value.to_dict().items() if key not in _ELSEWHERE}
        yield name, _text(described, words=False)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type) and depth:
        yield from _fields(value, f"{name}.", depth - 1)
    elif isinstance(value, Mapping) and depth and _is_plain(value):
        for key, one in value.items():
            # The words in it are the user's.
            yield from _below(f"{name}.{key}", one, depth - 1, words=False)
    elif (words and isinstance(value, int | float)) or not is_secret(name, ""):
        yield name, _text(value, words=words)


def _is_plain(value: Mapping[Any, Any]) -> bool:
    return 0 < len(value) <= _MOST_ITEMS and all(isinstance(key, str) and _NAME.fullmatch(key) for key in value)


def _is_default(value: Any, field: "dataclasses.Field[Any]") -> bool:
    default: Any = field.default
    factory: Any = field.default_factory
    if hasattr(default, "default_factory"):  # pydantic's description of a field
        default, factory = default.default, default.default_factory or dataclasses.MISSING
    try:
        return bool(value == (default if factory is dataclasses.MISSING else factory()))
    except Exception:  # noqa: BLE001 - what cannot be compared is not the default
        return False


def _text(value: Any, *, words: bool) -> str:
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, int | float) or _class(value) in _PLAIN:
        return str(value)
    if isinstance(value, str):
        return _shown(value, words=words)
    if words and isinstance(value, list | tuple | AbstractSet) and all(isinstance(one, str | int) for one in value):
        parts = [str(one) for one in (value if isinstance(value, list | tuple) else sorted(map(str, value)))]
        if len(parts) <= _MOST_ITEMS and all(_WORD.fullmatch(one) or _NUMBER.fullmatch(one) for one in parts):
            return " ".join(parts) or "none"
    return _digest(repr(_stable(value, _DEPTH)))


def _shown(value: str, *, words: bool) -> str:
    if _NUMBER.fullmatch(value) or value.lower() in _SWITCHES or (words and _WORD.fullmatch(value)):
        return value
    return _digest(redacted(value))


def _stable(value: Any, depth: int) -> object:
    """Describe a value without what differs from process to process, as addresses and the order of sets do."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if depth and isinstance(value, Mapping):
        pairs = ((str(key), one) for key, one in value.items() if not is_secret(str(key), ""))
        return sorted((key, repr(_stable(one, depth - 1))) for key, one in pairs)
    if depth and isinstance(value, list | tuple | AbstractSet):
        parts = [repr(_stable(one, depth - 1)) for one in value]
        return sorted(parts) if isinstance(value, AbstractSet) else parts
    if depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _stable({one.name: getattr(value, one.name, None) for one in dataclasses.fields(value)}, depth - 1)
    return _described(value)


def _described(value: Any) -> str:
    if callable(identity := getattr(value, "uuid", None)) and not isinstance(value, type):
        return repr(identity())
    if named := getattr(value, "__qualname__", None):
        return f"{value.__module__}.{named}"
    text = str(value)
    # What a class does not describe, Python describes by its address.
    return _class(value) if " at 0x" in text else f"{_class(value)} {text}"


def _class(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _digest(*texts: str) -> str:
    return Digest.of("\0".join(texts).encode(errors="surrogatepass")).hex[:_DIGITS]

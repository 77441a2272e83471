"""The facts by which vLLM's files are told apart: its configuration, the variables that it reads, model and device."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from megacache import _compiler
from megacache.integrations._vllm_facts import settings_facts
from megacache.integrations._vllm_places import is_other_setting, is_other_variable


class Mode(IntEnum):
    """A choice, as vLLM has them."""

    NONE = 0
    WHOLE = 3


@dataclass
class Lora:
    """What there is only if LoRA is enabled."""

    max_loras: int = 1
    max_lora_rank: int = 16


@dataclass
class Limits:
    """What a prompt may hold."""

    limit_per_prompt: dict[str, Any] = field(default_factory=dict)


@dataclass
class Compilation:
    """How vLLM compiles."""

    mode: Mode = Mode.NONE
    custom_ops: list[str] = field(default_factory=list)
    cache_dir: str = ""
    traced_files: set[str] = field(default_factory=set)
    passes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Model:
    """What is served."""

    model: str = "somebody/model"
    dtype: torch.dtype = torch.float32
    served_model_name: str = "model"
    hf_token: str | None = None
    max_tokens: int = 8
    hf_config: Any = None
    multimodal_config: Limits = field(default_factory=Limits)


@dataclass
class Config:
    """The whole."""

    compilation_config: Compilation = field(default_factory=Compilation)
    model_config: Model = field(default_factory=Model)
    lora_config: Lora | None = None
    instance_id: str = "0"
    extra: dict[str, Any] = field(default_factory=dict)
    own_key: str = "key"

    def compute_hash(self) -> str:
        """Give vLLM's key of it."""
        return self.own_key


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], None]:
    """Stand in for vLLM's list of variables, of which its key has one."""
    vllm, envs = ModuleType("vllm"), ModuleType("vllm.envs")
    envs.environment_variables = dict.fromkeys(["VLLM_KEYED_PORT", "VLLM_BACKEND", "VLLM_PORT"])  # type: ignore[attr-defined]
    envs.compile_factors = lambda: {"VLLM_KEYED_PORT": None}  # type: ignore[attr-defined]
    vllm.envs = envs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.envs", envs)

    def set_all(changed: Mapping[str, str]) -> None:
        for name, value in changed.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_configuration_of_defaults_is_no_fact() -> None:
    """Where all is as it is by default, vLLM's own key is all that is left to compare."""
    assert settings_facts(Config()).keys() == {"vllm_key"}


def test_settings_are_named_with_their_values() -> None:
    """Numbers, switches, choices and words of settings are shown; paths and texts are digests."""
    limits = Limits(limit_per_prompt={"image": 2, "video": Lora(max_loras=3)})
    config = Config(
        compilation_config=Compilation(mode=Mode.WHOLE, custom_ops=["none", "+gelu"]),
        model_config=Model(model="/home/ada/llama", dtype=torch.bfloat16, max_tokens=9, multimodal_config=limits),
        lora_config=Lora(),
    )
    found = dict(settings_facts(config))
    assert len(found.pop("model_config.model")) == 16
    assert len(found.pop("vllm_key")) == 16
    assert found == {
        "compilation_config.custom_ops": "none +gelu",
        "compilation_config.mode": "WHOLE",
        "lora_config": "set",
        "model_config.dtype": "torch.bfloat16",
        "model_config.max_tokens": "9",
        "model_config.multimodal_config.limit_per_prompt.image": "2",
        "model_config.multimodal_config.limit_per_prompt.video.max_loras": "3",
    }


def test_name_of_a_folder_is_not_told() -> None:
    """A model that is named by one word may lie in a folder of that name: it counts as a digest."""
    assert len(settings_facts(Config(model_config=Model(model="llama")))["model_config.model"]) == 16


def test_places_and_names_do_not_count() -> None:
    """Folders, names of servers, random ids and what is counted as vLLM goes on are equal for all."""
    config = Config(
        compilation_config=Compilation(cache_dir="/elsewhere", traced_files={"/a.py"}),
        model_config=Model(served_model_name="other"),
        instance_id="1",
    )
    assert settings_facts(config) == settings_facts(Config())


def test_configuration_of_a_model_counts_wherever_it_was_found() -> None:
    """The model's own description is compared, and not the folder that it was read from."""

    def described(**changes: Any) -> Mapping[str, str]:
        answer = {"layers": 4, "_name_or_path": "/a", "transformers_version": "5", **changes}
        return settings_facts(Config(model_config=Model(hf_config=SimpleNamespace(to_dict=lambda: answer))))

    assert described() == described(_name_or_path="/b", transformers_version="6")
    assert described() != described(layers=5)


def test_no_secret_is_told() -> None:
    """What is named like a secret is no fact, not even as a digest; the user's own words are digests."""
    config = Config(
        model_config=Model(hf_token="hf_abc"),
        extra={"api_key": "hunter", "pass_token": 12345, "user": "ada", "size": 3, "nested": {"x": "y"}},
    )
    found = settings_facts(config)
    assert found.keys() == {"vllm_key", "extra.user", "extra.size", "extra.nested.x"}
    assert found["extra.size"] == "3"
    assert not {"hunter", "12345", "ada", "hf_abc", "y"} & set(found.values())
    assert settings_facts(Config(extra={"a b": {"password": "1"}})) == settings_facts(
        Config(extra={"a b": {"password": "2"}})
    )


def test_description_does_not_depend_on_addresses() -> None:
    """Functions, classes and objects are named by where they are defined, and sets have no order."""

    def value() -> dict[str, Any]:
        return {"of passes": [object(), len, Lora, {"b", "a"}, SimpleNamespace(uuid=lambda: b"1")]}

    first, second = (settings_facts(Config(compilation_config=Compilation(passes=value()))) for _ in range(2))
    assert first == second
    assert "compilation_config.passes" in first


def test_variables_that_are_set_count(variables: Callable[[Mapping[str, str]], None]) -> None:
    """Those that vLLM registers count by their words, others of its prefix by their numbers, some by other names."""
    variables(
        {
            "VLLM_BACKEND": "triton",
            "VLLM_KEYED_PORT": "5601",
            "VLLM_UNKNOWN": "2",
            "VLLM_UNKNOWN_WORD": "triton",
            "FLA_USE_TMA": "1",
            "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
            # These do not count.
            "VLLM_PORT": "8001",
            "VLLM_HOST_IP": "10.0.0.1",
            "VLLM_CACHE_ROOT": "/cache",
            "VLLM_SERVICE_PORT_HTTP": "80",
            "VLLM_ROUTER_PORT_80_TCP_ADDR": "10.0.0.2",
            "VLLM_API_KEY": "x",
            "VLLM_SOMEBODYS_PASSWORD": "12345",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "VLLM_PROXY": "http://ada:hunter@proxy",
            "SOMETHING_ELSE": "1",
        }
    )
    found = dict(settings_facts(Config()))
    del found["vllm_key"]
    assert len(found.pop("VLLM_UNKNOWN_WORD")) == 16
    assert found == {
        "FLA_USE_TMA": "1",
        "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
        "VLLM_BACKEND": "triton",
        "VLLM_KEYED_PORT": "5601",
        "VLLM_UNKNOWN": "2",
    }


def test_device_and_modules_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of the GPU is a fact, and so is each module of the model and what it calls."""
    monkeypatch.setattr(_compiler, "current_device", lambda: 3)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    found = settings_facts(Config(), model)
    assert found["device_index"] == "3"
    model[0].__dict__["_forward_method"] = torch.nn.Linear.forward
    assert settings_facts(Config(), model)["vllm_modules"] != found["vllm_modules"]
    assert settings_facts(Config(), model)["vllm_sources"] == found["vllm_sources"]
    wrapped = torch.nn.Sequential(torch.nn.Bilinear(2, 2, 2))
    assert settings_facts(Config(), wrapped)["vllm_modules"] != found["vllm_modules"]


def test_source_of_the_model_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose source has changed is another one, wherever its source lies."""

    def of(folder: str, source: str) -> str:
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "served.py"
        file.write_text(source)
        module = ModuleType("served")
        module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, "served", module)
        model = type("Served", (torch.nn.Module,), {"__module__": "served"})()
        return settings_facts(Config(), model)["vllm_sources"]

    assert of("here", "x = 1") == of("there", "x = 1") != of("changed", "x = 2")


def test_what_cannot_be_read_is_left_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM without a list of factors, or with a configuration of another kind, stops nothing."""
    monkeypatch.delattr(sys.modules["vllm.envs"], "compile_factors")
    assert settings_facts(SimpleNamespace(), None) == {}
    found = settings_facts(Config(lora_config=Lora(max_loras=2), model_config=Model(hf_config=Untold())))
    assert found.keys() == {"lora_config", "lora_config.max_loras", "model_config.hf_config", "vllm_key"}
    assert found["model_config.hf_config"].endswith("Untold")
    monkeypatch.delattr(sys.modules["vllm.envs"], "environment_variables")
    monkeypatch.setenv("VLLM_UNKNOWN", "2")
    assert settings_facts(Config())["VLLM_UNKNOWN"] == "2"


class Untold:
    """What does not describe itself."""

    def to_dict(self) -> dict[str, Any]:
        """Fail."""
        raise NotImplementedError


def test_many_settings_fit_into_a_manifest() -> None:
    """Beyond a number that a manifest takes, the rest is one fact."""

    def facts(last: int) -> Mapping[str, str]:
        many = {f"part_{part}": {f"size_{number}": number for number in range(30)} for part in range(12)}
        return settings_facts(Config(extra={**many, "z": last}))

    assert len(facts(1)) == 201
    assert {name for name in facts(1) if facts(1)[name] != facts(2)[name]} == {"vllm_others"}


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("VLLM_PORT", True),
        ("VLLM_SERVICE_HOST", True),
        ("VLLM_SERVICE_PORT_HTTP", True),
        ("VLLM_PORT_8000_TCP_PROTO", True),
        ("VLLM_EC_SIDE_CHANNEL_PORT", True),
        ("VLLM_PORTABLE", False),
        ("VLLM_CPU_MOE_PREPACK", False),
    ],
)
def test_names_of_places(name: str, *, other: bool) -> None:
    """Ports, and what Kubernetes sets for a service of that name, are known by their form."""
    assert is_other_variable(name) is other
    assert not is_other_setting(name)

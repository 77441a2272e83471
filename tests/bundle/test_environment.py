"""The facts of an environment decide its fingerprint, and differences between two are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megacache._bundle import Environment, Mismatch, differences, fact_text
from megacache._bundle.environment import FACTS
from tests.kit.builders import UNHURRIED, any_text, environment

complete = st.fixed_dictionaries(dict.fromkeys(FACTS, st.sampled_from(["", "a", "b"])))


def test_fingerprint_is_the_same_everywhere() -> None:
    """The fingerprint of fixed facts never changes: a new one would orphan every published bundle."""
    assert environment().fingerprint == "548e01dd905e7816"


def test_fingerprint_does_not_depend_on_order() -> None:
    """Facts in another order are the same facts."""
    backwards = Environment(facts=dict(reversed([*environment().facts.items()])))
    assert backwards.fingerprint == environment().fingerprint


@pytest.mark.parametrize("fact", FACTS)
def test_each_fact_enters_the_fingerprint(fact: str) -> None:
    """Another value of any one fact gives another fingerprint."""
    assert environment(**{fact: "another"}).fingerprint != environment().fingerprint


def test_facts_cannot_be_confused() -> None:
    """A value that looks like a separator does not make two environments one."""
    one = Environment(facts={"a": 'b","c', "d": ""})
    other = Environment(facts={"a": "b", "c": "d"})
    assert one.fingerprint != other.fingerprint


def test_recorded_facts_do_not_enter() -> None:
    """What is recorded beside the facts changes neither fingerprint nor equality."""
    recorded = environment({"threads": "8"})
    assert recorded.fingerprint == environment().fingerprint
    assert recorded == environment()
    assert recorded.mismatches(environment()) == ()


@UNHURRIED
@given(complete, complete)
def test_no_mismatch_means_one_fingerprint(here: dict[str, str], there: dict[str, str]) -> None:
    """Two environments have no mismatch exactly if they have one fingerprint."""
    one, other = Environment(facts=here), Environment(facts=there)
    assert (not one.mismatches(other)) == (one.fingerprint == other.fingerprint)


def test_mismatches_name_both_values() -> None:
    """Each fact that differs is named in the order of the facts, with its value here and there."""
    here = environment(triton="3.4", torch_version="2.13.0", python="")
    there = environment(triton="", torch_version="2.12.0", python="3.12")
    assert here.mismatches(there) == (
        Mismatch(fact="torch_version", here="2.13.0", there="2.12.0"),
        Mismatch(fact="triton", here="3.4", there=""),
        Mismatch(fact="python", here="", there="3.12"),
    )
    assert [str(mismatch) for mismatch in here.mismatches(there)] == [
        "torch_version is 2.13.0 here, 2.12.0 there",
        "triton is 3.4 here, unset there",
        "python is unset here, 3.12 there",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0123456789abcdef" * 4, "0123456789ab"),
        ("0123456789abcdef", "0123456789ab"),
        ("0123456789abcde", "0123456789abcde"),
        ("0123456789ABCDEF", "0123456789ABCDEF"),
        ("clang 0123456789abcdef", "clang 0123456789abcdef"),
        ("", ""),
    ],
)
def test_digests_are_shown_short(value: str, text: str) -> None:
    """A fact that is a digest is shown as twelve digits, all else as it is."""
    assert fact_text(value) == text
    (differing,) = environment(triton=value).mismatches(environment(triton="3.4"))
    assert str(differing) == f"triton is {text or 'unset'} here, 3.4 there"
    assert differing.here == value


@UNHURRIED
@given(any_text.filter(lambda name: name not in FACTS))
def test_facts_of_a_later_version_count(name: str) -> None:
    """A fact that this version does not know differs where only one side has it."""
    later = Environment(facts={**environment().facts, name: "new"})
    assert environment().mismatches(later) == (Mismatch(fact=name, here="", there="new"),)
    assert later.mismatches(environment()) == (Mismatch(fact=name, here="new", there=""),)


@pytest.mark.parametrize("device_type", ["cuda", "rocm", "xpu"])
def test_what_serves_beside_any_cpu_tells_of_none(device_type: str) -> None:
    """All CPUs of one type of GPU have one more environment in common, from which each of them reads."""
    one, other = (environment(device_type=device_type, cpu_capability=name) for name in ("AVX2", "AVX512"))
    shared = one.for_any_cpu
    assert shared is not None
    assert shared == other.for_any_cpu
    assert (shared.device, shared.is_for_any_cpu, one.is_for_any_cpu) == (one.device, True, False)
    assert shared.facts.keys() == FACTS.keys() - {"cpu_capability", "cpu_extensions"}
    assert (one.readable, shared.readable) == ((one, shared), (shared,))
    assert one.mismatches(shared) == other.mismatches(shared) == ()
    assert [found.fact for found in one.mismatches(other)] == ["cpu_capability"]
    # What is for one CPU is of no use to those who read for any.
    assert [found.fact for found in shared.mismatches(one)] == ["cpu_capability", "cpu_extensions"]
    newer = environment(device_type=device_type, triton="newer").for_any_cpu
    assert newer is not None
    assert [found.fact for found in one.mismatches(newer)] == ["triton"]


@pytest.mark.parametrize("device_type", ["", "cpu", "mps", "one of a later torch"])
def test_without_such_a_gpu_the_cpu_counts(device_type: str) -> None:
    """On a CPU, and on a device of which it is not known, everything belongs to the one environment."""
    here = environment(device_type=device_type)
    silent = Environment(facts={name: value for name, value in here.facts.items() if not name.startswith("cpu_")})
    assert (here.for_any_cpu, here.is_for_any_cpu, here.readable) == (None, False, (here,))
    assert [found.fact for found in here.mismatches(silent)] == ["cpu_capability", "cpu_extensions"]


def test_device_on_a_gpu_is_its_name() -> None:
    """With an accelerator, bundles are filed under its exact name."""
    found = environment(device_type="cuda", device_name="NVIDIA H100 80GB HBM3", cpu_capability="AVX512")
    assert found.device == "NVIDIA H100 80GB HBM3"


def test_device_on_a_cpu_tells_its_vectors() -> None:
    """Without one, they are filed under the architecture and its vector capability."""
    found = environment(device_type="cpu", device_name="x86_64", machine="x86_64", cpu_capability="AVX512")
    assert found.device == "cpu x86_64 AVX512"


def test_device_may_be_unknown() -> None:
    """Facts that name no device give an empty name, not an error."""
    assert Environment(facts={}).device == ""


@pytest.mark.parametrize(
    ("count", "told"), [(1, "a is 1 here, 2 there"), (4, "d is 1 here, 2 there"), (9, "and 5 more")]
)
def test_of_many_differences_the_first_are_told(count: int, told: str) -> None:
    """A sentence about what differs ends, however much that is."""
    found = differences([Mismatch(fact=name, here="1", there="2") for name in "abcdefghi"[:count]])
    assert found.startswith("a is 1 here, 2 there")
    assert found.endswith(told)


def test_foreign_facts_are_shown_harmless() -> None:
    """What a store says of an environment does not reach a terminal as it is."""
    hostile = Environment(facts={"triton": "\x1b[2J\r", "\x07bell": "x" * 1_000})
    told = "; ".join(map(str, Environment(facts={}).mismatches(hostile)))
    assert told.isprintable()
    assert len(told) < 600

"""A receipt says in one line what its numbers come to, and warns of what somebody should look into."""

import json
from dataclasses import replace
from typing import Any

import pytest

from megacache import Lookups, Receipt

ALL = Lookups(hit=3)
NONE = Lookups(missed=3)
SOME = Lookups(hit=1, missed=2, guard_missed=1)
WARMED: dict[str, Any] = {
    "warm_starts": 1,
    "seconds_warming": 1.25,
    "bytes_stored": 31_457_280,
    "bytes_raw": 99_000_000,
    "loaded": {"inductor": 3, "aot_autograd": 2, "pgo": 1},
}
WASTED = Receipt(**WARMED, unused={"inductor": 3, "aot_autograd": 2}, inductor=NONE, aot_autograd=NONE)


@pytest.mark.parametrize(
    ("receipt", "word"),
    [
        (Receipt(), "not warmed"),
        (Receipt(inductor=ALL), "not warmed"),
        (Receipt(**WARMED), "too early to tell"),
        (Receipt(warm_starts=1, inductor=NONE), "cold"),
        (Receipt(warm_starts=1, inductor=NONE, files=17, cpp_kernels=0), "partly warm"),
        (Receipt(warm_starts=1, inductor=NONE, files=17, cpp_kernels=1), "cold"),
        (WASTED, "saved nothing"),
        (Receipt(warm_starts=1, files=17, models_restored=1), "too early to tell"),
        (Receipt(warm_starts=1, files=17, models_restored=1, models_loaded=1, cpp_kernels=0), "warm"),
        (Receipt(warm_starts=1, files=17, models_restored=1, models_loaded=1, cpp_kernels=2), "partly warm"),
        (Receipt(warm_starts=1, files=17, models_restored=1, inductor=NONE, cpp_kernels=1), "saved nothing"),
        (Receipt(warm_starts=1, files=17, models_restored=1, inductor=NONE, cpp_kernels=0), "partly warm"),
        (Receipt(**WARMED, inductor=ALL, aot_autograd=ALL), "warm"),
        (Receipt(**WARMED, inductor=ALL), "warm"),
        (Receipt(**WARMED, inductor=ALL, aot_autograd=NONE), "partly warm"),
        (Receipt(**WARMED, inductor=ALL, cpp_kernels=1), "partly warm"),
        (Receipt(**WARMED, inductor=ALL, triton_kernels=1), "partly warm"),
        (Receipt(**WARMED, inductor=SOME, aot_autograd=SOME), "partly warm"),
        (Receipt(**WARMED, inductor=ALL, aot_autograd=Lookups(hit=2, bypassed=1)), "partly warm"),
        (Receipt(**WARMED, inductor=None, aot_autograd=ALL), "warm"),
        (Receipt(**WARMED, inductor=None, aot_autograd=None), "unknown"),
        (Receipt(**WARMED, unused=None, inductor=ALL, aot_autograd=ALL), "warm"),
        (Receipt(**WARMED, unused=None, inductor=NONE, aot_autograd=NONE), "saved nothing"),
    ],
    ids=str,
)
def test_verdict_begins_with_a_word(receipt: Receipt, word: str) -> None:
    """What matters most is said first."""
    assert receipt.verdict.partition(":")[0] == word


def test_verdict_is_one_line_with_the_numbers() -> None:
    """As text, a receipt is its verdict: lookups, seconds, bytes, what was unused and what was compiled anew."""
    receipt = Receipt(
        **WARMED,
        unused={"inductor": 2},
        inductor=SOME,
        aot_autograd=Lookups(hit=1, missed=1, bypassed=1, reasons={"cond": 1}),
        cpp_kernels=4,
        cpp_runs=5,
        cpp_seconds=8.51,
        triton_kernels=0,
        seconds_saved=20.06,
    )
    assert str(receipt) == receipt.verdict
    assert str(receipt) == (
        "partly warm: Inductor 1 of 3 graphs hit (1 missed by their guards), "
        "AOTAutograd 1 of 3 graphs hit (1 bypassed); "
        "20.1 s saved by PyTorch's account, for 1.2 s of warming and 31,457,280 bytes; 2 of 6 loaded artifacts unused; "
        "compiled anew: 4 C++ and 0 Triton kernels; the C++ compiler ran 5 times, 8.5 s"
    )


def test_what_is_unknown_is_shown_as_unknown() -> None:
    """A number that PyTorch does not tell is None, and the verdict says that it is not known."""
    receipt = Receipt(
        **WARMED,
        unused=None,
        inductor=None,
        aot_autograd=None,
        cpp_runs=None,
        cpp_seconds=None,
        triton_kernels=None,
    )
    assert str(receipt) == (
        "unknown: Inductor unknown, AOTAutograd unknown; "
        "an unknown time saved by PyTorch's account, for 1.2 s of warming and 31,457,280 bytes; "
        "an unknown number of 6 loaded artifacts unused; "
        "compiled anew: an unknown number of C++ and an unknown number of Triton kernels"
    )
    assert receipt.warnings == ()


def test_model_that_was_not_used_is_a_warning() -> None:
    """A model that was restored, and that its program has not loaded, was worthless; the verdict counts it."""
    used = Receipt(warm_starts=1, inductor=NONE, models_of="vllm", models_restored=2, models_loaded=1)
    assert used.warnings == ()
    assert "vllm loaded 1 of 2 restored models" in used.verdict
    (warning,) = replace(used, models_loaded=0).warnings
    assert warning.startswith("the transfer of 2 compiled models was worthless: vllm has loaded none of them")
    assert replace(used, models_loaded=0, inductor=Lookups()).warnings == ()


def test_waste_is_a_warning() -> None:
    """A warm start that moved 30 MB and saved nothing says so."""
    assert WASTED.warnings == (
        "warming moved 31,457,280 bytes in 1.2 s and saved nothing: no graph has hit what was loaded",
    )


@pytest.mark.parametrize(
    "receipt",
    [
        Receipt(),
        Receipt(warm_starts=1, inductor=NONE, aot_autograd=NONE),
        Receipt(**WARMED),
        Receipt(**WARMED, unused={"inductor": 2, "aot_autograd": 2}, inductor=SOME, aot_autograd=NONE),
        Receipt(**WARMED | {"loaded": {"pgo": 1}}, inductor=NONE, aot_autograd=NONE),
    ],
    ids=str,
)
def test_what_is_no_waste_is_no_warning(receipt: Receipt) -> None:
    """Nothing was wasted if nothing was loaded, nothing looked up, one graph hit, or there were no graphs to hit."""
    assert receipt.warnings == ()


def test_bypasses_are_warnings_with_their_reasons() -> None:
    """What PyTorch cannot cache costs its time at every start, so each reason is told."""
    bypassed = Lookups(hit=1, bypassed=3, reasons={"Unsupported call_function target cond.": 2, "unknown": 1})
    several, one = Receipt(inductor=ALL, aot_autograd=bypassed).warnings
    assert several.startswith("AOTAutograd's cache does not take 2 graphs, which will cost their time at every start: ")
    assert several.endswith(": Unsupported call_function target cond.")
    assert one == "AOTAutograd's cache does not take 1 graph, which will cost their time at every start: unknown"


def test_hits_that_another_rank_missed_are_told() -> None:
    """PyTorch counts them as missed, and compiles them."""
    assert str(Lookups(hit=1, missed=2, rank_missed=2)) == "1 of 3 graphs hit (2 missed by another rank)"


def test_json_holds_everything() -> None:
    """A receipt goes through JSON with all its fields, its verdict, its warnings and the version of the format."""
    written = WASTED.to_json()
    assert json.loads(json.dumps(written)) == written
    assert written["format"] == 1
    assert written["verdict"] == str(WASTED)
    assert written["warnings"] == list(WASTED.warnings)
    rest = {name: value for name, value in written.items() if name not in {"format", "verdict", "warnings"}}
    inductor, aot_autograd = Lookups(**rest.pop("inductor")), Lookups(**rest.pop("aot_autograd"))
    assert Receipt(**rest, inductor=inductor, aot_autograd=aot_autograd) == WASTED

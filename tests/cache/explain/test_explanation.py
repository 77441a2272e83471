"""An explanation reads well, and travels as JSON."""

import json

import pytest

from megacache import Difference, ExplainStatus, Explanation, GraphMiss, Mismatch
from megacache.errors import AccessError

THREADS = Difference(name="cpp_runtime_thread_count", here="3", there="2")
CODE = Difference(name="gm", here="a = x + 1", there="")


def miss(key: str, *differences: Difference, reason: str = "") -> GraphMiss:
    """Make a miss."""
    nearest = "fold" if differences else ""
    return GraphMiss(kind="inductor", key=key, role="forward", nearest=nearest, differences=differences, reason=reason)


def explanation(*misses: GraphMiss) -> Explanation:
    """Make an explanation."""
    return Explanation(status=ExplainStatus.GRAPHS, url="memory://x", reason="2 graphs", misses=misses)


def test_text_names_graph_component_and_both_values() -> None:
    """Each graph is named with what differs, and what a component means."""
    assert str(explanation(miss("fnew1", CODE, THREADS), miss("fnew2", reason="unknown"))).splitlines() == [
        "graphs: 2 graphs",
        "forward inductor graph fnew1 against fold",
        "  gm (the graph's code) is a = x + 1 here, unset there",
        "  cpp_runtime_thread_count (torch.get_num_threads()) is 3 here, 2 there",
        "forward inductor graph fnew2: unknown",
    ]


def test_graphs_that_missed_for_one_reason_are_told_once() -> None:
    """Fifty graphs with the same difference make one paragraph."""
    text = str(explanation(*(miss(f"f{n}", THREADS) for n in range(50))))
    assert text.splitlines()[1:] == [
        "50 graphs alike, such as f0",
        "  cpp_runtime_thread_count (torch.get_num_threads()) is 3 here, 2 there",
    ]


def test_many_differences_are_cut() -> None:
    """Of many differences the first are shown, and the others counted."""
    many = [Difference(name=f"inductor_config[{n}]", here="1", there="2") for n in range(20)]
    assert str(miss("f1", *many)).splitlines()[-1] == "  and 8 more"


def test_environments_are_told_by_facts() -> None:
    """Facts that differ are told as a warm start tells them."""
    found = Explanation(
        status=ExplainStatus.ENVIRONMENT,
        url="memory://x",
        mismatches=(Mismatch(fact="triton", here="", there="3"),),
        warnings=("careful",),
    )
    assert str(found).splitlines() == ["environment", "  triton is unset here, 3 there", "warning: careful"]


def test_json_holds_everything() -> None:
    """As JSON, an explanation holds its format and every field, in plain types."""
    document = explanation(miss("f1", THREADS)).to_json()
    assert json.loads(json.dumps(document)) == document
    assert (document["format"], document["status"]) == (1, "graphs")
    assert document["misses"][0]["differences"] == [{"name": "cpp_runtime_thread_count", "here": "3", "there": "2"}]
    assert document.keys() == {"format", *Explanation.__slots__}


def test_fault_is_raised_on_request() -> None:
    """`raise_for_status` raises the fault that decided the status, and nothing for what is explained."""
    fault = AccessError("refused")
    with pytest.raises(AccessError) as caught:
        Explanation(status=ExplainStatus.UNAVAILABLE, url="memory://x", error=fault).raise_for_status()
    assert caught.value is fault
    assert explanation().raise_for_status() == explanation()

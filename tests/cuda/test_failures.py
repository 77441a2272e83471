"""What megacache says when a compilation for a GPU fails."""

from tests.kit.cuda_standin import Hosts


def test_failed_compilation_is_not_taken_for_another_engine_s(hosts: Hosts) -> None:
    """A program that failed to compile, for lack of a C compiler, is not told that its graphs escape the recorder."""
    start = hosts.start("pointwise", compilers=False)
    assert start.status == 0, start.stderr
    assert "cuda_utils" in start.told["failed"]
    warnings = [*start.told["warm"]["warnings"], *start.told["receipt"]["warnings"]]
    warnings += [warning for result in start.told["published"] for warning in result["warnings"]]
    assert [warning for warning in warnings if "standalone_compile" in warning] == []

"""What several processes publish is the union of what they compiled, and no process loses what another published."""

from pathlib import Path

from tests.kit.processes import Answer, Processes, step

SETTLED = {"published", "covered", "duplicate"}


def hits(answer: Answer) -> bool:
    """Tell whether a run found every graph that it looked up."""
    return answer["fx_hit"] > 0 and not answer["fx_miss"] and not answer["aot_miss"]


def manifests(store: Path) -> list[Path]:
    """List the bundles that are visible in a store on disk."""
    return sorted(store.glob("*/*/bundles/*.msgpack"))


def test_each_publication_adds_to_the_last(processes: Processes, tmp_path: Path) -> None:
    """What is compiled after a publication is published by the next, and a fresh process is given both."""
    url = str(tmp_path / "store")
    _, first, _, second, third = processes.run(
        step("run", model="doubling"),
        step("publish", url=url),
        step("run", model="cosine"),
        step("publish", url=url),
        step("publish", url=url),
    )
    assert [first["status"], second["status"], third["status"]] == ["published", "published", "unchanged"]
    assert first["artifacts"] == second["artifacts"] == {"inductor": 1, "aot_autograd": 1}
    warmed, doubling, cosine = processes.run(
        step("warm", url=url), step("run", model="doubling"), step("run", model="cosine")
    )
    assert len(warmed["bundles"]) == 2
    assert hits(doubling)
    assert hits(cosine)


def test_forward_and_backward_published_apart_are_one_cache(processes: Processes, tmp_path: Path) -> None:
    """A training step published after its forward, and again after its backward, warms both; the first one warns."""
    url = str(tmp_path / "store")
    _, forward, _, both = processes.run(
        step("run", model="training", backward=False),
        step("publish", url=url),
        step("run", model="training"),
        step("publish", url=url),
    )
    assert any("backward" in warning for warning in forward["warnings"])
    assert both["status"] == "published"
    _, ran = processes.run(step("warm", url=url), step("run", model="training"))
    assert hits(ran)


def test_unused_artifacts_stay_for_the_next(processes: Processes, tmp_path: Path) -> None:
    """A process that loads two graphs, uses one and compiles a third publishes the third, and takes nothing away."""
    url = str(tmp_path / "store")
    processes.run(step("run", model="doubling"), step("run", model="cosine"), step("publish", url=url))
    _, used, _, published = processes.run(
        step("warm", url=url), step("run", model="doubling"), step("run", model="reduction"), step("publish", url=url)
    )
    assert hits(used)
    assert published["status"] == "published"
    assert published["artifacts"] == {"inductor": 1, "aot_autograd": 1}
    _, *ran = processes.run(
        step("warm", url=url), *(step("run", model=model) for model in ("doubling", "cosine", "reduction"))
    )
    assert all(hits(answer) for answer in ran)


def test_processes_that_diverge_and_publish_at_once_lose_nothing(processes: Processes, tmp_path: Path) -> None:
    """Two processes warm from one store, compile different graphs and publish at the same moment: both are kept."""
    url, gate = str(tmp_path / "store"), str(tmp_path / "gate")
    processes.run(step("run", model="doubling"), step("publish", url=url))
    both = [
        processes.start(
            step("warm", url=url),
            step("run", model=model),
            step("meet", path=gate, others=2),
            step("publish", url=url),
        )
        for model in ("cosine", "reduction")
    ]
    assert [child.answers()[-1]["status"] for child in both] == ["published", "published"]
    _, *ran = processes.run(
        step("warm", url=url), *(step("run", model=model) for model in ("doubling", "cosine", "reduction"))
    )
    assert all(hits(answer) for answer in ran)


def test_a_fleet_that_starts_cold_publishes_one_bundle(processes: Processes, tmp_path: Path) -> None:
    """Eight processes compile one model cold and publish at the same moment: each succeeds, one bundle is there."""
    store, gate = tmp_path / "store", str(tmp_path / "gate")
    fleet = [
        processes.start(
            step("run", model="doubling"),
            step("meet", path=gate, others=8),
            step("publish", url=str(store)),
            step("publish", url=str(store)),
        )
        for _ in range(8)
    ]
    answers = [child.answers() for child in fleet]
    first = [answer[2]["status"] for answer in answers]
    assert first.count("published") == 1
    assert set(first) <= SETTLED
    assert {answer[3]["status"] for answer in answers} == {"unchanged"}
    assert len(manifests(store)) == 1
    _, ran = processes.run(step("warm", url=str(store)), step("run", model="doubling"))
    assert hits(ran)
    assert ran["digest"] == answers[0][0]["digest"]


def test_guard_variants_under_one_key_all_survive(processes: Processes, tmp_path: Path) -> None:
    """A second variant under the same key, compiled by a process that had loaded the first, is kept beside it."""
    store = tmp_path / "store"
    url = str(store)
    processes.run(step("run", model="guarded", rows=8), step("publish", url=url))
    _, missed, published = processes.run(
        step("warm", url=url), step("run", model="guarded", rows=128), step("publish", url=url)
    )
    assert missed["fx_miss"] == 1
    assert published["status"] == "published"
    assert len(manifests(store)) == 2
    warmed, small, _, large, again = processes.run(
        step("warm", url=url),
        step("run", model="guarded", rows=8),
        step("start_afresh"),
        step("run", model="guarded", rows=128),
        step("publish", url=url),
    )
    assert warmed["artifacts"] == {"inductor": 2, "aot_autograd": 2}
    assert hits(small)
    assert hits(large)
    assert again["status"] == "unchanged"


def test_both_variants_of_one_process_survive(processes: Processes, tmp_path: Path) -> None:
    """Two variants under one key, compiled by one process, travel in one bundle."""
    url = str(tmp_path / "store")
    _, _, _, published = processes.run(
        step("run", model="guarded", rows=8),
        step("start_afresh"),
        step("run", model="guarded", rows=128),
        step("publish", url=url),
    )
    assert published["artifacts"] == {"inductor": 2, "aot_autograd": 2}
    _, small, _, large = processes.run(
        step("warm", url=url),
        step("run", model="guarded", rows=8),
        step("start_afresh"),
        step("run", model="guarded", rows=128),
    )
    assert hits(small)
    assert hits(large)


def test_second_cold_process_finds_itself_covered(processes: Processes, tmp_path: Path) -> None:
    """A process that compiled what another has published meanwhile uploads nothing, and knows it from then on."""
    store = tmp_path / "store"
    url = str(store)
    processes.run(step("run", model="doubling"), step("publish", url=url))
    _, covered, unchanged = processes.run(
        step("run", model="doubling"), step("publish", url=url), step("publish", url=url)
    )
    assert [covered["status"], unchanged["status"]] == ["covered", "unchanged"]
    assert len(manifests(store)) == 1


def test_cold_processes_with_other_guards_lose_nothing(processes: Processes, tmp_path: Path) -> None:
    """A process that compiles a variant cold adds it to what another has published, and each variant is stored once."""
    url = str(tmp_path / "store")
    statuses = []
    for rows in (8, 128, 64, 200):  # the first and the third have one guard, the second and the last the other
        _, published = processes.run(step("run", model="guarded", rows=rows), step("publish", url=url))
        statuses.append((published["status"], published["artifacts"]))
    both = {"inductor": 1, "aot_autograd": 1}
    assert statuses == [("published", both), ("published", both), ("covered", {}), ("covered", {})]
    for rows in (9, 129):
        warmed, ran = processes.run(step("warm", url=url), step("run", model="guarded", rows=rows))
        assert warmed["artifacts"] == {"inductor": 2, "aot_autograd": 2}
        assert hits(ran)


def test_variants_that_are_published_at_once_survive(processes: Processes, tmp_path: Path) -> None:
    """Two cold processes that publish two variants at the same moment name two bundles, and both are served."""
    url, gate = str(tmp_path / "store"), str(tmp_path / "gate")
    both = [
        processes.start(
            step("run", model="guarded", rows=rows),
            step("meet", path=gate, others=2),
            step("publish", url=url, files=False),
        )
        for rows in (8, 128)
    ]
    assert [child.answers()[-1]["status"] for child in both] == ["published", "published"]
    for rows in (9, 129):
        _, ran = processes.run(step("warm", url=url), step("run", model="guarded", rows=rows))
        assert hits(ran)

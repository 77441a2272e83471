"""The command `report`, as JSON and as metrics."""

import dataclasses
import re
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text_format

from megacache._bundle import Environment, Manifest, seal
from megacache._catalog import StartReceipt, leave_receipt, receipts_beside
from megacache._cli.report.sections import periods
from megacache._store import Store
from megacache.errors import AccessError
from tests.kit.builders import artifact, artifacts, bundle, compiled_file, environment, open_store, prefix_of, upload
from tests.kit.command import document, run
from tests.kit.servers import web

GPU = environment(device_type="cuda", device_name="NVIDIA H100 80GB HBM3", torch_version="2.13.0+cu130")
GPU_SLUG = "nvidia-h100-80gb-hbm3"
HERE = environment(torch_version='2.11\\"\n\x1b[31m')
READERS = pytest.mark.parametrize("read", [read_openmetrics, read_text_format])

Samples = Mapping[tuple[str, str, str], float]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Open a store with two environments; the smaller one has a bundle that is out of service."""
    store = open_store(str(tmp_path / "store"))
    mine = bundle(artifacts(3), files=[compiled_file()], here=GPU)
    dated = dataclasses.replace(mine, manifest=dataclasses.replace(mine.manifest, created="2026-11-02T10:00:00+00:00"))
    out = bundle([artifact("b")], here=HERE)
    upload(store, dated, out)
    store.create(prefix_of(HERE).mark(out.manifest.bundle, "quarantined"), b"\n")
    return store


def described(here: Environment, name: str) -> Manifest:
    """Make the manifest of a bundle without chunks."""
    return dataclasses.replace(bundle(here=here).manifest, bundle=name, labels={"number": name})


def samples(text: str, read: object) -> Samples:
    """Read metrics, by name, device and state."""
    families = list(read(text))  # type: ignore[operator]
    assert {family.type for family in families} == {"gauge"}
    found = [one for family in families for one in family.samples]
    assert all(one.timestamp is None for one in found)
    read_back = {(one.name, one.labels["device"], one.labels.get("state", "")): one.value for one in found}
    assert len(read_back) == len(found)
    return read_back


@READERS
def test_metrics(store: Store, read: object) -> None:
    """Each figure is a gauge, which readers of OpenMetrics and of the text format of Prometheus take."""
    told = run("report", store.url, "--format", "openmetrics").stdout
    found = samples(told, read)
    h100, here = "nvidia-h100-80gb-hbm3", "some-device-name"
    assert found["megacache_bundles", h100, "serving"] == 1
    assert found["megacache_bundles", h100, "quarantined"] == 0
    assert found["megacache_bundles", here, "quarantined"] == 1
    assert found["megacache_artifacts", h100, ""] == 3
    assert found["megacache_artifacts", here, ""] == 0
    assert found["megacache_compiled_files", h100, ""] == 1
    assert found["megacache_oldest_publication_timestamp_seconds", h100, ""] == 1793613600
    assert found["megacache_newest_publication_timestamp_seconds", h100, ""] == 1793613600
    stored = {device: sum(one.size for one in store.list(device)) for device in (h100, here)}
    assert found["megacache_stored_bytes", h100, ""] == stored[h100]
    assert found["megacache_stored_bytes", here, ""] == stored[here] - 1  # the mark


@READERS
def test_metrics_say_where(store: Store, read: object) -> None:
    """Each sample names its cache and its environment; what a store holds cannot end a label."""
    told = run("report", store.url, "--format", "openmetrics").stdout
    labels = [one.labels for family in read(told) for one in family.samples]  # type: ignore[operator]
    places = {tuple(one[name] for name in ("url", "device", "fingerprint", "torch_version")) for one in labels}
    assert places == {
        (store.url, "nvidia-h100-80gb-hbm3", GPU.fingerprint, "2.13.0+cu130"),
        (store.url, "some-device-name", HERE.fingerprint, '2.11\\"  [31m'),
    }


def test_metrics_into_a_file(store: Store, tmp_path: Path) -> None:
    """With `-o`, a file gets what is else printed, and replaces an older one."""
    target = tmp_path / "megacache.prom"
    target.write_text("old")
    done = run("report", store.url, "--format", "openmetrics", "-o", target)
    assert done.stdout == ""
    assert target.read_text() == run("report", store.url, "--format", "openmetrics").stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["megacache.prom"]


def test_folder_that_is_not_there(store: Store, tmp_path: Path) -> None:
    """A file in a folder that does not exist is wrong usage."""
    done = run("report", store.url, "--format", "openmetrics", "-o", tmp_path / "none" / "megacache.prom", code=2)
    assert "its folder does not exist" in done.stderr


def test_figures_as_json(store: Store) -> None:
    """The JSON of `report` has the figures of each environment."""
    found = document("report", store.url)
    assert found["url"] == store.url
    first, second = found["environments"]
    assert first.pop("bytes") > 0
    assert first == {
        "device": "nvidia-h100-80gb-hbm3",
        "fingerprint": GPU.fingerprint,
        "torch_version": "2.13.0+cu130",
        "bundles": {"serving": 1, "quarantined": 0, "superseded": 0, "unusable": 0},
        "artifacts": 3,
        "files": 1,
        "oldest": "2026-11-02T10:00:00+00:00",
        "newest": "2026-11-02T10:00:00+00:00",
    }
    assert second["bundles"]["quarantined"] == 1


def test_nothing_is_published(tmp_path: Path) -> None:
    """Of an empty cache the metrics have no sample, and a message says so."""
    done = run("report", str(tmp_path), "--format", "openmetrics")
    assert "nothing is published" in done.stderr
    assert samples(done.stdout, read_openmetrics) == {}
    assert done.stdout.endswith("# EOF\n")
    assert document("report", str(tmp_path))["environments"] == []


def test_store_that_does_not_answer() -> None:
    """A store that cannot be reached is exit code 3, and nothing is on stdout."""
    done = run("report", "http://127.0.0.1:9/cache", "--format", "openmetrics", "--timeout", "5", code=3)
    assert done.stdout == ""


def test_page_goes_to_a_file(store: Store) -> None:
    """A page is not printed: without a file, the command says how to name one."""
    done = run("report", store.url, code=2)
    assert done.stdout == ""
    assert "name it with -o" in done.stderr


@pytest.mark.parametrize("library", ["pygal", "jinja2"])
def test_page_without_its_libraries(
    library: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the extra is not installed, a page says what to install, and metrics need nothing."""
    monkeypatch.setitem(sys.modules, library, None)
    target = tmp_path / "report.html"
    done = run("report", store.url, "-o", target, code=2)
    assert library in done.stderr
    assert 'pip install "megacache[report]"' in done.stderr
    assert not target.exists()
    run("report", store.url, "--format", "openmetrics", "-o", target)


def test_page_and_document(store: Store, tmp_path: Path) -> None:
    """With `--json` and `-o`, the page is written and the figures are printed."""
    target = tmp_path / "report.html"
    assert len(document("report", store.url, "-o", target)["environments"]) == 2
    assert target.read_text().startswith("<!doctype html>")


def test_page_of_nothing(tmp_path: Path) -> None:
    """The page of an empty cache says so."""
    target = tmp_path / "report.html"
    run("report", str(tmp_path / "none"), "-o", target)
    assert "Nothing is published here." in target.read_text()


def test_page_of_many(tmp_path: Path) -> None:
    """Charts draw as much as can be read; tables have every type of GPU and every version of torch, in their order."""
    store, target = open_store(), tmp_path / "report.html"
    for number in range(120):
        here = environment(device_type="cuda", device_name=f"GPU {number}", torch_version=f"2.{number % 15}.0")
        store.create(prefix_of(here).manifest(f"{number:032x}"), seal(described(here, f"{number:032x}")))
    run("report", store.url, "-o", target)
    told = target.read_text()
    assert {int(one) for one in re.findall(r'<th scope="row">gpu-(\d+)</th>', told)} == set(range(120))
    assert re.findall(r'<th scope="col">2\.(\d+)\.0</th>', told) == list(map(str, range(15)))
    assert "(12 of 120)" in told


@pytest.mark.parametrize(
    ("back", "length", "counts"),
    [
        ([0], 1, [1]),
        ([-3, 1], 1, [1, 1]),
        ([25], 1, [1] + [0] * 25),
        ([26, 7, 6], 7, [1, 0, 1, 1]),
        ([700_000, 0], 364, [1] + [0] * 24 + [1]),
    ],
)
def test_periods(back: list[int], length: int, counts: list[int]) -> None:
    """Days are counted by periods long enough for a chart; a far day counts as of the first, one to come as today."""
    today = date(2026, 11, 27)
    days, found = periods([today - timedelta(days=one) for one in back], today)
    assert (days, [count for _, count in found]) == (length, counts)
    assert found[-1][0] == today - timedelta(days=length - 1)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("form", ["html", "openmetrics"])
def test_no_secret_is_told(form: str, tmp_path: Path) -> None:
    """A report of a URL that holds a password has no part of it."""
    target = tmp_path / "report"
    with web.serve(tmp_path) as (url, _):
        given = url.replace("//", "//me:s3cr3t-of-mine@")
        done = run("report", f"{given}/store", "--format", form, "-o", target)
    assert "nvidia-h100-80gb-hbm3" in target.read_text()
    assert f"{url.rpartition(':')[2]}/store" in target.read_text()
    assert "s3cr3t" not in target.read_text() + done.output


@pytest.fixture
def with_receipts(store: Store) -> Store:
    """Let processes have left receipts beside the store, one of them in an environment without bundles."""
    place = prefix_of(environment(device_name="alone"))
    warm = {"status": "loaded", "torch_version": "2.13", "hit": 3, "missed": 1, "bypassed": 0}
    spent = {"seconds_warming": 0.2, "seconds_saved": 90.0, "bytes_stored": 5}
    for number, reason in enumerate(('<b>"\n', "nothing is published")):
        one = StartReceipt(**warm, **spent, reasons={reason: 1})  # type: ignore[arg-type]
        leave_receipt(receipts_beside(store), place, str(number) * 32, 0, one)
        leave_receipt(receipts_beside(store), prefix_of(GPU), str(number + 2) * 32, 0, one)
    return store


@READERS
def test_metrics_of_receipts(with_receipts: Store, read: object) -> None:
    """What receipts come to are gauges, too, of each environment, and reasons of the cache."""
    told = run("report", with_receipts.url, "--format", "openmetrics").stdout
    families = {family.name: family.samples for family in read(told)}  # type: ignore[operator]
    found = {one.labels["status"]: one.value for one in families["megacache_receipt_starts"]}
    assert found == {"loaded": 2}
    assert {one.labels["device"] for one in families["megacache_receipt_starts"]} == {"alone", GPU_SLUG}
    assert [one.value for one in families["megacache_receipt_lookups"]] == [6, 2, 6, 2]
    assert [one.value for one in families["megacache_receipt_saved_seconds"]] == [180, 180]
    assert [one.value for one in families["megacache_receipt_warming_seconds"]] == [0.4, 0.4]
    reasons = {one.labels["reason"]: one.value for one in families["megacache_receipt_misses"]}
    assert reasons == {'<b>" ': 2, "nothing is published": 2}


def test_page_of_receipts(with_receipts: Store, tmp_path: Path) -> None:
    """The page tells hit rates and reasons, and what a receipt says is text on it."""
    target = tmp_path / "report.html"
    run("report", with_receipts.url, "-o", target)
    page = target.read_text()
    assert [title in page for title in ("Hit rates</h2>", "Reasons of misses</h2>", "75.0%", "6 min")] == [True] * 4
    assert "<b>" not in page
    assert "alone/" in page


def test_page_without_receipts(store: Store, tmp_path: Path) -> None:
    """Where no process has left a receipt, nothing is said of hit rates."""
    target = tmp_path / "report.html"
    run("report", store.url, "-o", target)
    assert "it rate" not in target.read_text()


def test_receipts_that_cannot_be_read(with_receipts: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report goes without receipts where the store does not give them, and says so."""

    def refused(*_: object) -> None:
        raise AccessError("refused")

    monkeypatch.setattr("megacache._cli.commands.report.read_worths", refused)
    done = run("report", with_receipts.url, "-o", tmp_path / "report.html")
    assert "receipts were left out: refused" in done.stderr

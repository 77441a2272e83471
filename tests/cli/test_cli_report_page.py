"""The page of a report, in a real browser."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from tests.kit.browser import DESKTOP, PHONE, Browser, browsing, missing
from tests.kit.builders import artifact, bundle, compiled_file, environment, open_store, prefix_of, upload
from tests.kit.command import run

EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
H100 = environment(device_type="cuda", device_name="NVIDIA H100 80GB HBM3", torch_version="2.13.0+cu130")
L4 = environment(device_type="cuda", device_name="NVIDIA L4", torch_version=f"2.15.0{EVIL}")
TABLE = """[...document.querySelectorAll('section')].map(section => [
    section.querySelector('h2').textContent,
    [...section.querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.textContent))])"""
TEXTS = {"body": "color", ".quiet": "color", "svg .axis text": "fill", "svg text.value": "fill"}
"""Kinds of text, and the property that holds their colour."""
SIZES = pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of a cache with two types of GPU; one publisher is hostile."""
    folder = tmp_path_factory.mktemp("report")
    store = open_store(str(folder / "store"))
    for number, (here, days, labels) in enumerate(
        [(H100, 9, {"team": "vision"}), (H100, 2, {"team": "vision", "commit": "4d16e21"}), (L4, 2, {EVIL: EVIL})]
    ):
        one = bundle([artifact(f"f{number}")], here=here, labels=labels, files=[compiled_file(content=b"%d" % number)])
        at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        upload(store, dataclasses.replace(one, manifest=dataclasses.replace(one.manifest, created=at)))
    out = bundle([artifact("out")], here=L4)
    upload(store, out)
    store.create(prefix_of(L4).mark(out.manifest.bundle, "quarantined"), b"\n")
    target = folder / "report.html"
    assert run("report", store.url, "-o", target).stdout == ""
    return target


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a browser."""
    if reason := missing():
        pytest.skip(reason)
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


def test_tables(page: Path, browser: Browser) -> None:
    """The page shows coverage, sizes, ages, publishers and times, each in a table."""
    browser.open(page, size=DESKTOP, scheme="light")
    told = dict(browser.value(TABLE))
    assert list(told) == ["Coverage", "Sizes", "Ages", "Publishers", "Bundles over time"]
    evil = f"2.15.0{EVIL}"
    assert told["Coverage"] == [
        ["GPU type", "2.13.0+cu130", evil],
        ["nvidia-h100-80gb-hbm3", "2", "-"],
        ["nvidia-l4", "-", "1"],
    ]
    sizes = {row[0]: row[1:7] for row in told["Sizes"][1:]}
    assert sizes[prefix_of(H100).path] == ["2.13.0+cu130", "2", "0", "0", "2", "2"]
    assert sizes[prefix_of(L4).path] == [evil, "1", "1", "0", "1", "1"]
    assert [row[0] for row in told["Ages"][1:]] == [prefix_of(H100).path, prefix_of(L4).path]
    assert told["Ages"][1][-1] == "2 d"
    assert [row[:3] for row in told["Publishers"][1:]] == [
        ["team", "vision", "2"],
        ["commit", "4d16e21", "1"],
        [EVIL, EVIL, "1"],
    ]
    assert [row[1] for row in told["Bundles over time"][1:]] == ["1", "2", "1"]


def test_charts(page: Path, browser: Browser) -> None:
    """Each section draws what its table says: a dot or a bar for each number, and its name beside it."""
    browser.open(page, size=DESKTOP, scheme="light")
    drawn = browser.value(
        """[...document.querySelectorAll('section svg')].map(svg => [
            [...svg.querySelectorAll('.reactive')].filter(one => one.getBBox().width > 0).length,
            svg.textContent])"""
    )
    assert [count for count, _ in drawn] == [2, 2, 2, 3, 10]
    names = ("nvidia-l4", "nvidia-h100-80gb-hbm3", "nvidia-l4 2.15.0", "team=vision")
    for (_, text), name in zip(drawn, names, strict=False):
        assert name in text
    outside = browser.value(
        """[...document.querySelectorAll('section svg text')].filter(one => {
            const own = one.getBoundingClientRect(), all = one.closest('svg').getBoundingClientRect()
            return own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1
        }).map(one => one.textContent)"""
    )
    assert outside == []


@SIZES
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_readable(page: Path, browser: Browser, size: tuple[int, int], scheme: str) -> None:
    """The page fits its screen, is written in a readable size and contrast, and asks for nothing."""
    browser.complaints()
    browser.requests()
    browser.open(page, size=size, scheme=scheme)
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.driver.title.startswith("megacache: ")
    assert browser.value("document.documentElement.scrollWidth") <= size[0]
    smallest = browser.value("""Math.min(...[...document.querySelectorAll('svg text')].map(one => {
        const {a, b} = one.getScreenCTM(); return parseFloat(getComputedStyle(one).fontSize) * Math.hypot(a, b)}))""")
    assert smallest >= 11
    for text, property_ in TEXTS.items():
        ink = browser.value(f"getComputedStyle(document.querySelector('{text}')).{property_}")
        ground = browser.value("getComputedStyle(document.body).backgroundColor")
        assert contrast(ink, ground) >= 4.5, text
    assert (luminance(ground) < 0.5) == (scheme == "dark")


def test_keys(page: Path, browser: Browser) -> None:
    """Each table that may be wider than its screen is reached by the Tab key, has a name, and scrolls by the arrows."""
    browser.open(page, size=PHONE, scheme="light")
    body = browser.driver.find_element(By.TAG_NAME, "body")
    reached = []
    for _ in range(5):
        body.send_keys(Keys.TAB)
        reached.append(browser.value("document.activeElement.getAttribute('aria-label')"))
    assert reached == [
        f"{title}, as a table" for title in ("Coverage", "Sizes", "Ages", "Publishers", "Bundles over time")
    ]
    levels = browser.value("[...document.querySelectorAll('h1, h2, h3')].map(one => one.tagName)")
    assert levels == ["H1", *["H2"] * 5]
    _, sizes, *_ = browser.driver.find_elements(By.CSS_SELECTOR, ".table")
    sizes.send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser.driver, 30).until(lambda _: sizes.get_property("scrollLeft"))


def test_policy_forbids_the_network(page: Path, browser: Browser) -> None:
    """Should a script get into the page, the browser would neither run it nor fetch anything for the page."""
    hostile = page.with_name("hostile.html")
    taken = f"{EVIL}<link rel=stylesheet href=http://127.0.0.1:9/x.css></main>"
    hostile.write_text(page.read_text().replace("</main>", taken))
    browser.requests()
    browser.open(hostile, size=DESKTOP, scheme="light")
    assert browser.driver.title.startswith("megacache: ")
    assert len(browser.complaints()) >= 3
    assert browser.requests() == [hostile.as_uri()]


def luminance(color: str) -> float:
    """Give the relative luminance of a colour, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Give the contrast of two colours, as WCAG 2 defines it; text needs 4.5."""
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)

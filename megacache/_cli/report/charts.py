"""Charts as SVG, and the only place that imports pygal.

They hold no script, take their colours from the page around them, and are drawn as wide as a phone, so that their text
can be read there.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

WIDTH = 328
"""Of a phone, within the margins of the page."""
_LABEL = 30
"""Characters of a name beside a bar."""
_VERSION = 16
"""Characters of a name below a grid."""
_MOST = 100
"""Rows of dots; pygal would mix colours of its own for more, and cannot mix these."""
_STEPS = (1, 2, 5)


def bars(values: Sequence[tuple[str, float, str]]) -> str:
    """Draw a bar for each name; its value is written in words of its own."""
    import pygal

    most = max(value for _, value, _ in values)
    chart = pygal.HorizontalBar(
        **_options(20 + 26 * len(values)),
        print_values=True,
        print_values_position="top",  # which is the end of a bar
        range=(0, most * 1.3),  # leaves room for the text there
        show_x_labels=False,
        show_x_guides=False,
        show_y_guides=False,
    )
    named = list(reversed(values))  # the first name is at the bottom
    chart.x_labels = [_short(name) for name, _, _ in named]
    told = {value: text for _, value, text in values}
    chart.add("", [value for _, value, _ in named], formatter=told.__getitem__)
    return _drawn(chart)


def columns(values: Sequence[tuple[str, int]]) -> str:
    """Draw a column for each name, in their order; some of the names are written."""
    import pygal

    chart = pygal.Bar(**_options(220), margin_right=30, x_labels_major_count=3, show_minor_x_labels=False)
    chart.x_labels = [name for name, _ in values]
    chart.y_labels = _scale(max(count for _, count in values))
    chart.add("", [count for _, count in values])
    return _drawn(chart)


def dots(names: Sequence[str], rows: Mapping[str, Sequence[int]]) -> str:
    """Draw a grid with a dot for each number; the greater it is, the larger is the dot."""
    import pygal

    chart = pygal.Dot(**_options(80 + 34 * len(rows)), margin_right=60, margin_bottom=14, x_label_rotation=30)
    chart.x_labels = [_short(name, _VERSION) for name in names]
    for name, counts in rows.items():
        chart.add(_short(name), [count or None for count in counts])
    return _drawn(chart)


def _options(height: int) -> Mapping[str, Any]:
    from pygal.style import Style

    line = "var(--line)"
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--ink)",
        foreground_strong="var(--ink)",
        foreground_subtle=line,
        guide_stroke_color=line,
        major_guide_stroke_color=line,
        colors=("var(--bar)",) * _MOST,
        value_colors=("var(--ink)",) * _MOST,
        font_family="inherit",
        label_font_size=11,
        major_label_font_size=11,
        value_font_size=11,
        opacity="1",
        transition="0s",
    )
    return {
        "style": style,
        "width": WIDTH,
        "height": height,
        "margin": 4,
        "truncate_label": -1,  # they are cut here, and not so that nothing is left
        "show_legend": False,
        "js": (),
        "disable_xml_declaration": True,
    }


def _drawn(chart: Any) -> str:
    chart.add_xml_filter(_bare)
    drawn: str = chart.render(is_unicode=True)
    return drawn


def _bare(root: Element) -> Element:
    """Leave out what only scripts use, and the name that a browser would show for all charts alike."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {"script", "title", "desc"}:
                parent.remove(child)
    root.set("aria-hidden", "true")  # the table below it says the same
    return root


def _short(name: str, most: int = _LABEL) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _scale(most: int) -> Sequence[int]:
    """Give whole numbers from nothing to the greatest, five at most."""
    power = 10 ** max(len(str(most)) - 2, 0)
    step = next(one for factor in (1, 10, 100) for base in _STEPS if (one := base * factor * power) * 4 >= most)
    return range(0, most + step, step)

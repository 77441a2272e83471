"""The page of a report: one file without scripts, which asks the network for nothing."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from megacache._catalog import BundleState, EnvironmentFigures, Worths
from megacache._cli.output import size_text
from megacache._cli.report.sections import sections
from megacache._cli.report.worth_sections import worth_sections, worth_totals
from megacache._runtime import printable
from megacache._version import __version__
from megacache.errors import SettingsError


def check_extra() -> None:
    """Raise `SettingsError` if a page cannot be written because its libraries are not installed."""
    try:
        import jinja2  # noqa: F401
        import pygal  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"a page needs {error.name}", hint='pip install "megacache[report]"') from error


def page(url: str, environments: Sequence[EnvironmentFigures], worths: Worths, now: datetime) -> str:
    """Write the figures as HTML."""
    import jinja2
    from markupsafe import Markup

    template = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    ).get_template("page.html")
    return template.render(
        url=printable(url),
        now=now.strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        totals=[*_totals(environments), *worth_totals(worths)],
        sections=[
            *(sections(environments, now) if any(one.bundles for one in environments) else ()),
            *worth_sections(worths),
        ],
        drawn=Markup,
    )


def _totals(environments: Sequence[EnvironmentFigures]) -> Sequence[tuple[str, str]]:
    states = [one.states for one in environments]
    return (
        ("GPU types", str(len({one.prefix.device for one in environments}))),
        ("Environments", str(len(environments))),
        ("Bundles that serve", str(sum(one[BundleState.SERVING] for one in states))),
        ("Out of service", str(sum(one[BundleState.QUARANTINED] + one[BundleState.SUPERSEDED] for one in states))),
        ("Unusable", str(sum(one[BundleState.UNUSABLE] for one in states))),
        ("Artifacts", str(sum(one.artifacts for one in environments))),
        ("Compiled files", str(sum(one.files for one in environments))),
        ("Size", size_text(sum(one.size for one in environments))),
    )

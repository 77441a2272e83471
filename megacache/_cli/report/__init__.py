"""The figures of a cache, written for people, for programs and for Prometheus."""

from megacache._cli.report.document import figures_view
from megacache._cli.report.openmetrics import openmetrics

__all__ = ["figures_view", "openmetrics"]

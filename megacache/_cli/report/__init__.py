"""The figures of a cache, written for people, for programs and for Prometheus."""

from megacache._cli.report.document import figures_view, worths_view
from megacache._cli.report.openmetrics import openmetrics
from megacache._cli.report.page import check_extra, page

__all__ = ["check_extra", "figures_view", "openmetrics", "page", "worths_view"]

"""A publisher's own words in a manifest."""

from collections.abc import Mapping

from megacache._settings import is_short_text
from megacache.errors import SettingsError

_MAX_LABELS = 64


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse labels that a manifest would not take; raises `SettingsError`."""
    if len(labels) > _MAX_LABELS or not all(is_short_text(word) for pair in labels.items() for word in pair):
        msg = f"labels must map at most {_MAX_LABELS} texts of at most 1,000 characters to such texts"
        raise SettingsError(msg)
    return labels

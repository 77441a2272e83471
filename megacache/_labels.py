"""Short texts that a manifest takes, such as a publisher's own words."""

from collections.abc import Mapping

from megacache._runtime import MAX_SHORT_TEXT, is_short_text
from megacache.errors import SettingsError

_MAX_LABELS = 64


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse labels that a manifest would not take; raises `SettingsError`."""
    if len(labels) > _MAX_LABELS or not all(is_short_text(word) for pair in labels.items() for word in pair):
        msg = f"labels must map at most {_MAX_LABELS} texts of at most {MAX_SHORT_TEXT:,} characters to such texts"
        raise SettingsError(msg)
    return labels

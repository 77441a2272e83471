"""Short texts that a manifest takes, such as a publisher's own words."""

from collections.abc import Mapping

from megacache.errors import SettingsError

_MAX_LABELS = 64
_MAX_TEXT = 1_000


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse labels that a manifest would not take; raises `SettingsError`."""
    if len(labels) > _MAX_LABELS or not all(is_short_text(word) for pair in labels.items() for word in pair):
        msg = f"labels must map at most {_MAX_LABELS} texts of at most {_MAX_TEXT:,} characters to such texts"
        raise SettingsError(msg)
    return labels


def is_short_text(value: object) -> bool:
    """Tell whether a value is text that can be written as UTF-8, of at most 1,000 characters."""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        return False
    return value.isascii() or value == value.encode(errors="replace").decode()

"""When a process that compiles is warmed and published."""

from megacache._cache import Cache

_attended: dict[str | None, Cache] = {}


def attend(url: str | None = None) -> None:
    """Warm this process now, in this thread, if that has not been done."""
    if url not in _attended:
        _attended[url] = Cache(url)
        _attended[url].warm()


def publish_all() -> None:
    """Publish what the processes' attended caches lack."""
    for cache in _attended.values():
        cache.publish()

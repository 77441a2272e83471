"""`megacache cache`."""

import time
from datetime import UTC, datetime

import click

from megacache._catalog import NodeCache, NodeContents
from megacache._cli.options import json_option
from megacache._cli.output import emit, print_table, say, size_text, span_text
from megacache._runtime import counted
from megacache._settings import Settings, chunk_folder


@click.command("cache")
@click.option("--clear", is_flag=True, help="Remove all of it.")
@json_option
def cache_command(*, clear: bool, as_json: bool) -> None:
    """Show or clear what this node has downloaded.

    What a process downloads from a store is kept in the user's cache folder, so that the others of this node need not
    download it. Above MEGACACHE_NODE_MAX_BYTES, the chunks that were unused for longest are removed. Clearing it is
    safe at any time; the stores keep everything.

    \b
    Example:
      megacache cache --clear
    """  # noqa: D301 - as click wants it
    cache = NodeCache(chunk_folder(), Settings.read().node_max_bytes)
    found = cache.contents()
    if clear:
        cache.clear()
    if as_json:
        emit(
            {
                "folder": str(cache.folder),
                "chunks": found.chunks,
                "bytes": found.size,
                "max_bytes": cache.most,
                "oldest_use": _moment(found.oldest),
                "newest_use": _moment(found.newest),
                "cleared": clear,
            },
            command="cache",
        )
    elif clear:
        say("removed {}, {}, from {}", counted(found.chunks, "chunk"), size_text(found.size), cache.folder)
    else:
        _print(cache, found)


def _print(cache: NodeCache, found: NodeContents) -> None:
    limit = size_text(cache.most) if cache.most else "off"
    row = (found.chunks, size_text(found.size), limit, _age(found.oldest), _age(found.newest), cache.folder)
    headers = ("CHUNKS", "SIZE", "LIMIT", "OLDEST USE", "LAST USE", "FOLDER")
    print_table(headers, [row], numbers=headers[:-1])


def _age(moment: float | None) -> str:
    return "none" if moment is None else span_text(time.time() - moment)


def _moment(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()

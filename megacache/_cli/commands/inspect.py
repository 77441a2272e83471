"""`megacache inspect`."""

import click

from megacache._bundle import fact_text
from megacache._catalog import Catalog
from megacache._cli.options import json_option, with_selection, with_store
from megacache._cli.output import age_text, emit, print_table, size_text
from megacache._cli.selection import Selection, bundle_of, only_bundle, stock_of
from megacache._cli.views import View, counts_text, full_view, labels_text, place_view
from megacache._store import Store


@click.command("inspect")
@with_store(timeout=60)
@click.argument("bundle", metavar="[BUNDLE]", required=False)
@with_selection
@json_option
def inspect_command(*, store: Store, bundle: str | None, selection: Selection, as_json: bool) -> None:
    """Show what is in a bundle.

    Its environment, artifacts, files, parents, labels and signatures are listed. BUNDLE is its id, or the beginning of
    it; it may be left out if there is only one. Only the manifest is read; `megacache verify` reads the rest. What is
    said of signatures is not verified.

    \b
    Example:
      megacache inspect s3://bucket/flux/v1 3f9c2b7a
    """  # noqa: D301 - as click wants it
    holdings = selection.of(stock_of(store), store)
    holding, found = only_bundle(holdings, store.url) if bundle is None else bundle_of(holdings, bundle, store.url)
    manifest, inside = Catalog(store, holding.prefix).read_with_signatures(found, holding.manifests[found])
    # What was added later is known by its tag.
    later = [{"tag": tag} for signed, tag in holding.signatures if signed == found]
    view = full_view(manifest, [*({"keyid": one.keyid, "scope": one.scope} for one in inside), *later])
    view["marks"] = sorted(holding.marks.get(found, ()))
    if as_json:
        emit({"url": store.url, **place_view(holding.prefix), **view}, command="inspect")
        return
    print_table(("BUNDLE", found), _summary(view, holding.prefix.path))
    _print_index(view)


def _signer_text(signer: View) -> str:
    return f"{signer['tag']}, added later" if "tag" in signer else f"{signer['keyid']} for {signer['scope']}"


def _summary(view: View, place: str) -> list[tuple[str, str]]:
    facts, recorded = view["environment"]["facts"], view["environment"]["recorded"]
    rows = [
        ("place", place),
        ("created", view["created"]),
        ("age", age_text(view["created"])),
        ("producer", view["producer"]),
        ("artifacts", counts_text(view["artifacts"])),
        ("files", str(view["files"])),
        ("size", f"{size_text(view['bytes_stored'])} stored, {size_text(view['bytes_raw'])} raw"),
        ("parents", " ".join(view["parents"]) or "none"),
        ("labels", labels_text(view["labels"]) or "none"),
        ("signatures", "; ".join(map(_signer_text, view["signatures"])) or "none"),
        ("marks", " ".join(view["marks"]) or "none"),
    ]
    rows += [(f"fact {name}", fact_text(value)) for name, value in facts.items() if value]
    rows += [(f"recorded {name}", fact_text(value)) for name, value in recorded.items() if value]
    return rows + [(f"files need {name}", fact_text(value)) for name, value in view["file_guard"].items() if value]


def _print_index(view: View) -> None:
    rows = [("artifact", one["kind"], one["key"], size_text(one["size"])) for one in view["artifact_index"]]
    rows += [("file", one["root"], one["path"], size_text(one["size"])) for one in view["file_index"]]
    rows += [("chunk", one["part"], one["digest"], size_text(one["stored_size"])) for one in view["chunks"]]
    if rows:
        print_table(("", "KIND", "NAME", "SIZE"), rows, numbers=("SIZE",))

"""Find the environments and bundles that a command line means."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from megacache._bundle import slug
from megacache._catalog import Holding, Inventory
from megacache._cli.machine import here
from megacache._store import Store, below, local_folder
from megacache.errors import SettingsError

# With fewer, a word that is mistyped may well name a bundle.
_LEAST = 4
"""Digits of an id that have to be given."""
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the options of a command select."""

    device: str | None
    environment: str | None
    mine: bool

    @property
    def narrows(self) -> bool:
        """True if anything was asked for."""
        return self.device is not None or self.environment is not None or self.mine

    def of(self, inventory: Inventory, store: Store) -> tuple[Holding, ...]:
        """Choose from what a store holds; raise `SettingsError`, with what there is, if nothing is meant."""
        chosen = inventory.holdings
        if self.device is not None:
            chosen = tuple(one for one in chosen if one.prefix.device == slug(self.device))
        if self.environment is not None:
            chosen = _named(chosen, self.environment)
        # Asked last: PyTorch takes seconds to answer.
        if self.mine:
            own = here().prefixes
            chosen = tuple(one for one in chosen if one.prefix in own)
        if not chosen and self.narrows:
            asked = [repr(one) for one in (self.device, self.environment) if one is not None]
            told = f"{store.url} holds no environment of {' and '.join(asked) or 'this machine'}"
            raise SettingsError(told, hint=self._hint(inventory, store.url))
        return chosen

    def _hint(self, inventory: Inventory, url: str) -> str:
        if not inventory.holdings:
            return nothing_under(url)
        if self.mine:
            return "`megacache explain` says what differs"
        if self.environment:
            asked = self.environment.rpartition("/")[2]
            known = [one.prefix.fingerprint[: len(asked)] for one in inventory.holdings]
        else:
            asked = slug(self.device or "")
            known = [one.prefix.device for one in inventory.holdings]
        near = difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
        return f"did you mean {near[0]}?" if near else "`megacache ls` shows what there is"


def stock_of(store: Store) -> Inventory:
    """List a cache; raise `SettingsError` if the URL is not that of a cache, but stands above some."""
    inventory = Inventory.of(store)
    if inventory.holdings or not inventory.nested:
        return inventory
    names = ", ".join(inventory.nested[:_NAMED])
    raise SettingsError(
        f"{store.url} is not a cache, but holds {len(inventory.nested)}: {names}",
        hint=f"did you mean {below(store.url, inventory.nested[0])}?",
    )


def _named(holdings: Sequence[Holding], name: str) -> tuple[Holding, ...]:
    """Find an environment by its path, or by its fingerprint or the beginning of it."""
    _check_length(name, "an environment")
    fingerprint = name.lower().rpartition("/")[2]
    chosen = tuple(one for one in holdings if one.prefix.fingerprint.startswith(fingerprint))
    if len({one.prefix.fingerprint for one in chosen}) > 1:
        raise SettingsError(f"{name} is the beginning of {len(chosen)} fingerprints", hint="give more of it")
    return chosen


def nothing_under(url: str) -> str:
    """Say that a place is empty, or does not exist."""
    folder = local_folder(url)
    missing = folder is not None and not folder.exists()
    return f"nothing is published under {url}" + (": the folder does not exist" if missing else "")


def the_only(holdings: Sequence[Holding], url: str) -> Holding:
    """Give the one environment that a command can work on."""
    if not holdings:
        raise SettingsError(nothing_under(url), hint="check the URL")
    if len(holdings) > 1:
        names = ", ".join(one.prefix.path for one in holdings[:_NAMED])
        raise SettingsError(
            f"{url} holds {len(holdings)} environments: {names}", hint="choose one with --environment or --mine"
        )
    return holdings[0]


def bundle_of(holdings: Sequence[Holding], name: str, url: str) -> tuple[Holding, str]:
    """Find a bundle by its id or the beginning of it."""
    _check_length(name, "a bundle")
    found = [(one, bundle) for one in holdings for bundle in sorted(one.manifests) if bundle.startswith(name.lower())]
    if len(found) == 1:
        return found[0]
    if len({bundle for _, bundle in found}) > 1:
        raise SettingsError(f"{name} is the beginning of {len(found)} bundles", hint="give more of its id")
    if found:
        places = ", ".join(holding.prefix.path for holding, _ in found)
        raise SettingsError(f"{found[0][1]} is in {len(found)} environments: {places}", hint="give --environment")
    known = [bundle for one in holdings for bundle in one.manifests]
    near = difflib.get_close_matches(name, [bundle[: max(len(name), 4)] for bundle in known], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`megacache ls --bundles` shows what there is"
    raise SettingsError(f"{url} holds no bundle {name}", hint=hint if known else nothing_under(url))


def only_bundle(holdings: Sequence[Holding], url: str) -> tuple[Holding, str]:
    """Give the bundle that is meant where none is named."""
    found = [(one, bundle) for one in holdings for bundle in one.manifests]
    if not found:
        raise SettingsError(nothing_under(url), hint="check the URL")
    if len(found) > 1:
        raise SettingsError(f"{url} holds {len(found)} bundles", hint="name one, as `megacache ls --bundles` shows it")
    return found[0]


def _check_length(name: str, what: str) -> None:
    if len(name) < _LEAST:
        raise SettingsError(f"{name!r} does not name {what}", hint=f"give at least {_LEAST} digits")

"""Find the environments and bundles that a command line means."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from megacache._cli._here import here
from megacache._inventory import Holding, Inventory
from megacache.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the options of a command select."""

    device: str | None
    environment: str | None
    mine: bool

    @property
    def narrows(self) -> bool:
        """True if anything was asked for."""
        return bool(self.device or self.environment or self.mine)

    def of(self, inventory: Inventory, url: str) -> tuple[Holding, ...]:
        """Choose from what a store holds; raise `SettingsError`, with what there is, if nothing is meant."""
        chosen = inventory.holdings
        if self.device:
            chosen = tuple(one for one in chosen if one.prefix.device == self.device)
        if self.environment:
            chosen = tuple(one for one in chosen if one.prefix.fingerprint.startswith(self.environment))
        if self.mine:
            own = here().prefix
            chosen = tuple(one for one in chosen if one.prefix == own)
        if not chosen and self.narrows:
            raise SettingsError(f"{url} holds no such environment", hint=self._hint(inventory))
        return chosen

    def _hint(self, inventory: Inventory) -> str:
        if not inventory.holdings:
            return "nothing is published there at all"
        if self.mine:
            return "`megacache explain` says what differs"
        known = [text for one in inventory.holdings for text in (one.prefix.device, one.prefix.fingerprint)]
        near = difflib.get_close_matches(self.device or self.environment or "", known, n=1, cutoff=0.5)
        return f"did you mean {near[0]}?" if near else "`megacache ls` shows what there is"


def the_only(holdings: Sequence[Holding], url: str) -> Holding:
    """Give the one environment that a command can work on."""
    if not holdings:
        raise SettingsError(f"nothing is published under {url}", hint="check the URL")
    if len(holdings) > 1:
        names = ", ".join(one.prefix.path for one in holdings[:4])
        raise SettingsError(
            f"{url} holds {len(holdings)} environments: {names}", hint="choose one with --environment or --mine"
        )
    return holdings[0]


def bundle_of(holdings: Sequence[Holding], name: str, url: str) -> tuple[Holding, str]:
    """Find a bundle by the beginning of its id."""
    found = [(one, bundle) for one in holdings for bundle in sorted(one.manifests) if bundle.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingsError(f"{name} is the beginning of {len(found)} bundles", hint="give more of its id")
    known = [bundle for one in holdings for bundle in one.manifests]
    near = difflib.get_close_matches(name, [bundle[: max(len(name), 4)] for bundle in known], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`megacache ls --bundles` shows what there is"
    raise SettingsError(f"{url} holds no bundle {name}", hint=hint)

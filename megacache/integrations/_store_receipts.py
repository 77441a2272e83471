"""Leave the receipt of this process in the store, where `megacache report` counts it.

Nobody waits for it but the end of the process, for two seconds at most; what fails is only logged.
"""

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Mapping

from megacache._api import environment
from megacache._bundle import environment_prefix
from megacache._cache import Receipt, WarmResult, WarmStatus, anonymizer
from megacache._catalog import StartReceipt, leave_receipt, receipts_beside
from megacache._compiler import Lookups
from megacache._runtime import Deadline
from megacache._settings import Settings
from megacache._store import Store, without_secrets

_log = logging.getLogger("megacache")
_MOST = 2
"""Receipts of a process: one once it has started, and one at its end if that says more."""
_SECONDS, _SECONDS_AT_END = 30.0, 2.0


class StoreReceipts:
    """The receipts of this process."""

    def __init__(self) -> None:
        self._process = uuid.uuid4().hex
        self._left: list[StartReceipt] = []
        self._leaving = threading.Lock()

    def leave(self, receipt: Receipt, warmed: WarmResult | None, *, at_end: float | None) -> None:
        """Leave a receipt, unless the process has said as much before.

        `at_end` tells at the end of the process how many seconds that may be delayed.
        """
        # A process that compiles now and then would leave one each time.
        if at_end == 0 or len(self._left) >= (1 if at_end is None else _MOST):
            return
        deadline = Deadline.after(_SECONDS if at_end is None else min(at_end, _SECONDS_AT_END))
        if not self._leaving.acquire(timeout=deadline.remaining()):
            return
        try:
            self._leave(receipt, warmed, deadline)
        except Exception as error:  # noqa: BLE001 - the program goes on, whatever fails
            _log.debug("no receipt left: %s", without_secrets(str(error)))
        finally:
            self._leaving.release()

    def _leave(self, receipt: Receipt, warmed: WarmResult | None, deadline: Deadline) -> None:
        settings = Settings.read()
        if settings.read_only:
            return
        here = environment()
        told = start_receipt(receipt, warmed, here.facts.get("torch_version", ""))
        if told in self._left:
            return
        store = Store.open(settings.places(None)[-1], storage_options=None, deadline=deadline)
        place = environment_prefix(here.device, here.fingerprint)
        leave_receipt(receipts_beside(store), place, self._process, len(self._left), told)
        self._left.append(told)


def start_receipt(receipt: Receipt, warmed: WarmResult | None, torch_version: str) -> StartReceipt:
    """Leave out of a receipt what others need not know."""
    lookups = [one for one in (receipt.inductor, receipt.aot_autograd) if one is not None]
    return StartReceipt(
        status=str(warmed.status) if warmed is not None else "",
        torch_version=torch_version,
        hit=sum(one.hit for one in lookups),
        missed=sum(one.missed for one in lookups),
        bypassed=sum(one.bypassed for one in lookups),
        seconds_warming=round(receipt.seconds_warming, 3),
        seconds_saved=round(receipt.seconds_saved or 0.0, 3),
        bytes_stored=receipt.bytes_stored,
        reasons=_reasons(lookups, warmed),
    )


def _reasons(lookups: list[Lookups], warmed: WarmResult | None) -> Mapping[str, int]:
    anonymous = anonymizer()
    counts: Counter[str] = Counter()
    nothing = _nothing_loaded(warmed)
    for one in lookups:
        guarded = 0 if nothing else min(one.guard_missed or 0, one.missed)
        dropped = 0 if nothing else min(one.rank_missed, one.missed - guarded)
        counts[nothing or "the graph is not published"] += one.missed - guarded - dropped
        counts["the graph is published for other sizes"] += guarded
        counts["another rank of the job did not find the graph"] += dropped
        for reason, count in one.reasons.items():
            counts[f"PyTorch does not cache the graph: {without_secrets(anonymous(reason))}"] += count
    return dict(+counts)


def _nothing_loaded(warmed: WarmResult | None) -> str:
    """Say why nothing was loaded, in words that are the same for all to whom it happens."""
    if warmed is None:
        return "no warm start"
    if warmed.status is WarmStatus.LOADED:
        return ""
    if warmed.status is WarmStatus.MISS:
        nothing = "nothing that fits is published"
        return f"{nothing}: the nearest differs in {', '.join(warmed.differs)}" if warmed.differs else nothing
    return f"{warmed.status}: {type(warmed.error).__name__}" if warmed.error else str(warmed.status)

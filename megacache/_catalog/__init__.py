"""The store's side: the bundles in a store, listed, read, delivered, written, copied, verified and removed.

Nothing here needs torch.
"""

from megacache._catalog.catalog import Catalog
from megacache._catalog.compaction import Compacted, Compaction, CompactionPlan
from megacache._catalog.delivery import Delivery, Order
from megacache._catalog.export import Exported, export_blob
from megacache._catalog.figures import BundleState, EnvironmentFigures, read_figures
from megacache._catalog.filling import fill
from megacache._catalog.heirs import heirs
from megacache._catalog.inventory import Holding, Inventory, holding_of, nearest_other
from megacache._catalog.lease import LEASE_TERM, Lease
from megacache._catalog.limits import TOO_MANY, WARM_MAX_BYTES, affordable, affordable_manifests, weight
from megacache._catalog.listing import Listing
from megacache._catalog.nearest import NearestCatalog, catalog_of
from megacache._catalog.node_cache import NodeCache, NodeContents
from megacache._catalog.places import Places
from megacache._catalog.receipts import (
    ExpiryPlan,
    StartReceipt,
    leave_receipt,
    list_receipts,
    plan_expiry,
    receipts_beside,
)
from megacache._catalog.removal import RemovalPlan, plan_removal
from megacache._catalog.retention import RetentionPlan, Terms, plan_retention
from megacache._catalog.signing import add_signature
from megacache._catalog.transfer import Selected, Transfer, Transferred
from megacache._catalog.turns import Turn
from megacache._catalog.verification import Verified, verify
from megacache._catalog.worth import Worth, Worths, read_worths

__all__ = [
    "LEASE_TERM",
    "TOO_MANY",
    "WARM_MAX_BYTES",
    "BundleState",
    "Catalog",
    "Compacted",
    "Compaction",
    "CompactionPlan",
    "Delivery",
    "EnvironmentFigures",
    "ExpiryPlan",
    "Exported",
    "Holding",
    "Inventory",
    "Lease",
    "Listing",
    "NearestCatalog",
    "NodeCache",
    "NodeContents",
    "Order",
    "Places",
    "RemovalPlan",
    "RetentionPlan",
    "Selected",
    "StartReceipt",
    "Terms",
    "Transfer",
    "Transferred",
    "Turn",
    "Verified",
    "Worth",
    "Worths",
    "add_signature",
    "affordable",
    "affordable_manifests",
    "catalog_of",
    "export_blob",
    "fill",
    "heirs",
    "holding_of",
    "leave_receipt",
    "list_receipts",
    "nearest_other",
    "plan_expiry",
    "plan_removal",
    "plan_retention",
    "read_figures",
    "read_worths",
    "receipts_beside",
    "verify",
    "weight",
]

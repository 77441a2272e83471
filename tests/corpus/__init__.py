"""Bundles that no reader may take: one small store for each failure mode, and what made them."""

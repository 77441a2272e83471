"""Programs that use megacache; each runs from the root of the repository."""

"""A fleet of workers that start against one store: what it costs, and whether anything is lost."""

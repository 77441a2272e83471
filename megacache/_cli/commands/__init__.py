"""The commands, one module for one or a few of them; each is imported when it is asked for."""

"""The function names of other libraries on top of megacache, so that a program moves by its import line alone."""

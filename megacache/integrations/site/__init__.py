"""A folder that is put in front of PYTHONPATH, so that Python runs what is in it as it starts.

Nothing in it may import megacache before the program imports PyTorch's compiler: a process that never does must pay
nothing.
"""

"""A folder for the front of PYTHONPATH, whose `sitecustomize` Python imports as it starts.

Nothing in it may import megacache before the program imports PyTorch's compiler: a process that never does must pay
nothing.
"""

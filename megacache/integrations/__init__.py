"""Starts programs warm without a line of code in them.

In the order of a process's life: `_launch` gives it an environment in which Python imports `site`, `site` waits until
the program imports PyTorch's compiler, `_lifecycle` warms before the first compilation and publishes, and `_receipts`
adds up the lookups of all processes. `vllm` does for vLLM what `site` does for any program.
"""

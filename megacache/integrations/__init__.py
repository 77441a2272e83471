"""Starts programs warm without a line of code in them.

In the order of a process's life: `_launch` gives it an environment in which Python imports `site`, `site` waits until
the program imports PyTorch's compiler, `_lifecycle` warms before the first compilation and publishes, and `_receipts`
adds up the lookups of all processes. `vllm` does for vLLM what `site` does for any program.
"""

from megacache.integrations._launch import autostart_environment
from megacache.integrations._receipts import HitRate, hit_rate
from megacache.integrations.site import megacache_on_compile

__all__ = ["HitRate", "autostart_environment", "hit_rate", "megacache_on_compile"]

"""How many threads a run uses when nobody says."""

import os


def default_thread_count() -> int:
    """Physical cores this process may run on; at least 1.

    Decode is bound by memory, and hardware threads that share a core share its path to memory: more threads than
    cores only add barriers. A container's CPU quota is not a core count and is left to the caller.
    """
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))

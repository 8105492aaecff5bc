"""Fault campaign: hurt real runs in every way there is, and count what is lost.

    python -m tests.faults --count 200

Every injection is a real one: signals, full and read-only file systems, damaged files, a killed parent. Runs go through
the product's own runner, child processes, lock and history. After each injection all results that had been told as
done must still be there and whole.
"""

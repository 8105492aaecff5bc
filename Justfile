# What a contributor runs; CI runs the same.

# Everything that must be green before a change is sent.
check: lint types layers test

# Style and formatting.
lint:
    ruff check . && ruff format --check .

# Types, strict.
types:
    mypy

# Imports run one way.
layers:
    lint-imports

# The default suite: what fits ten minutes.
test:
    pytest

# What needs the large models or minutes of a quiet machine.
slow:
    pytest -m slow

# Ours against llama-bench on one model, in turns.
versus llama_bench model:
    python -m bench.versus_llama_bench --llama-bench {{llama_bench}} {{model}}

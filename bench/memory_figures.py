"""Print the figures of the memory store: recall, speed beside its peers, and what forgetting leaves.

``--only`` names parts: ``recall`` (needs ``--data``), ``retrieve``, ``seed``, ``store``, ``open``, ``forget`` and
``kill``.
One thread; peers are timed in turn, one call each, so that a disturbance meets all of them alike.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_NOW_S: Final = 1_750_000_000.0
PARTS: Final = ("recall", "retrieve", "seed", "store", "open", "forget", "kill")


def main() -> int:
    """Print each part's figures; exit 1 when one of them is not met."""
    if any(os.environ.get(name) != "1" for name in _THREADS):  # libraries read it when they are loaded
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
        return subprocess.run(
            [sys.executable, "-m", __spec__.name, *sys.argv[1:]], env=environment, check=False
        ).returncode
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGE_HARNESS_DATA"))
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    wanted = given.only.split(",")
    met = True
    with tempfile.TemporaryDirectory(prefix="memory-figures-") as name:
        folder = Path(name)
        if "recall" in wanted:
            met &= _recall(Path(given.data) if given.data else None, folder)
        if set(wanted) & {"retrieve", "seed", "store", "open", "forget"}:
            state = _filled(given.entries, folder)
            if "retrieve" in wanted:
                met &= _retrieve(state, given.rounds)
            if "seed" in wanted:
                met &= _seed(state)
            if "store" in wanted:
                met &= _store(state, 20 * given.rounds)
            if "open" in wanted:
                met &= _open(state, folder)
            if "forget" in wanted:
                met &= _forget(state, folder)
        if "kill" in wanted:
            met &= _kill(folder)
    return 0 if met else 1


def _recall(data: Path | None, folder: Path) -> bool:
    from harness.catalog.paths import cache_dir
    from harness.ports import WorkloadContext
    from harness.workloads.memory_store import WORKLOAD

    found = WORKLOAD.evaluate(WorkloadContext(folder, cache_dir(), 1, 1, data=data))
    met = False
    for name, result in found.items():
        if "evidence_recall" not in result:
            continue  # the talks of our own
        print(f"LoCoMo {name}: {result['turn_count']} turns, {result['question_count']} questions")
        for scoring, recalls in result["evidence_recall"].items():
            print(f"  {scoring:30} " + "  ".join(f"{k} {v:.3f}" for k, v in recalls.items()))
        met |= "hash" not in name and result["evidence_recall"]["fused"]["at_10"] >= 0.65
    return told("recall@10 of the fused score at least 0.65 with MiniLM", met)


def _filled(entry_count: int, folder: Path) -> Any:
    from harness.ports import WorkloadContext
    from harness.workloads.memory_store import WORKLOAD

    return WORKLOAD.prepare({"entry_count": entry_count, "dim": 384}, WorkloadContext(folder, folder, 1, 1))


def _retrieve(state: Any, rounds: int) -> bool:
    import numpy as np

    store, count = state.store, len(state.store)
    matrix = store._index.matrix[:count]

    def asked(at: int) -> tuple[str, Any]:
        _, text, vector = state.questions[at % len(state.questions)]
        return text, vector

    def full(at: int) -> list[int]:
        text, vector = asked(at)
        return [h.memory.memory_id for h in store.retrieve(text, vector=vector, now_s=_NOW_S)]

    def bare(at: int) -> Any:
        return np.argpartition(matrix @ asked(at)[1], -5)[-5:]

    calls: dict[str, Callable[[int], Any]] = {"full score": full, "numpy x@q + argpartition": bare}
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: pip install faiss-cpu")
    else:
        faiss.omp_set_num_threads(1)
        flat = faiss.IndexFlatIP(matrix.shape[1])
        flat.add(matrix)
        calls["faiss IndexFlatIP"] = lambda at: flat.search(asked(at)[1][None], 5)
    middle = interleaved(calls, rounds)
    mine, numpys = middle["full score"], middle["numpy x@q + argpartition"]
    met = told(f"full score / numpy {mine / numpys:.2f}, at most 1.3", mine <= 1.3 * numpys)
    if "faiss IndexFlatIP" in middle:
        flat_s = middle["faiss IndexFlatIP"]
        met &= told(f"full score / faiss flat {mine / flat_s:.2f}, at most 1.5", mine <= 1.5 * flat_s)
    return met


def interleaved(calls: Mapping[str, Callable[[int], Any]], rounds: int) -> dict[str, float]:
    """Middle time of each call, all of them once in each round; two rounds before are not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for at in range(-2, rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call(at)
            if at >= 0:
                times[name].append(time.perf_counter() - begin)
    middle = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
    for name, values in times.items():
        print(f"  {name:30} p50 {middle[name] * 1e3:.2f} ms, least {min(values) * 1e3:.2f} ms")
    return middle


def _seed(state: Any) -> bool:
    from bench.seed_memory import LongTermMemory
    from harness.workloads.memory_store.scoring import SEED

    facts, store = state.facts, state.store
    vectors = dict(zip(facts.texts, facts.vectors, strict=True))
    asked = {text: vector for _, text, vector in state.questions[:8]}
    stamps = iter(facts.created_s)
    seed = LongTermMemory(lambda t: asked[t] if t in asked else vectors[t], clock=lambda: next(stamps))
    for text, importance, source in zip(facts.texts, facts.importance, facts.sources, strict=True):
        seed.store(text, float(importance), source)
    seed._clock = lambda: _NOW_S
    texts = list(asked)
    answers: dict[str, list[list[str]]] = {"seed": [], "store": []}

    def by_seed(at: int) -> None:
        answers["seed"].append([m.content for m in seed.retrieve(texts[at % len(texts)])])

    def by_store(at: int) -> None:
        text = texts[at % len(texts)]
        hits = store.retrieve(text, vector=asked[text], scoring=SEED, touch=True, now_s=_NOW_S)
        answers["store"].append([h.memory.content for h in hits])

    middle = interleaved({"the seed's class": by_seed, "the store, its formula": by_store}, 6)
    same = sum(a == b for a, b in zip(answers["seed"], answers["store"], strict=True))
    ratio = middle["the seed's class"] / middle["the store, its formula"]
    met = told(f"{ratio:.0f} x the seed's class, at least 20", ratio >= 20)
    total = len(answers["seed"])
    return told(f"the same five under its own formula in {same} of {total}", same == total) and met


def _store(state: Any, rounds: int) -> bool:
    times = []
    for at in range(rounds):
        text = f"{at} days later they met again by the river and spoke of the garden and of the kayak"
        vector = state.facts.vectors[at % len(state.facts.vectors)]
        begin = time.perf_counter()
        state.store.store(text, vector=vector, importance=1.0)
        times.append(time.perf_counter() - begin)
    times.sort()
    middle, late = times[len(times) // 2], times[int(0.95 * len(times))]
    print(f"store at capacity {state.store.capacity}: p50 {middle * 1e3:.2f} ms, p95 {late * 1e3:.2f} ms")
    return told("store under 1 ms at the median", middle < 1e-3)


_OPEN: Final = """
import sys, time
from pathlib import Path
import numpy as np
from harness.workloads.memory_store.embedders import HashingEmbedder
from harness.workloads.memory_store.store import MemoryStore
begin = time.perf_counter()
store = MemoryStore(Path(sys.argv[1]), HashingEmbedder(384), read_only=True)
opened = time.perf_counter()
store.retrieve("What of the kayak and the river?", vector=np.ones(384, np.float32))
print(opened - begin, time.perf_counter() - opened, len(store))
"""


def _open(state: Any, folder: Path) -> bool:
    state.store.erase()
    rows = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", _OPEN, str(folder / "memory.db")], capture_output=True, text=True, check=True
        )
        rows.append([float(v) for v in done.stdout.split()])
    opened, first = (sorted(r[i] for r in rows)[2] for i in (0, 1))
    print(
        f"open {int(rows[0][2])} memories in a new process: p50 {opened:.3f} s; the first question takes {first:.3f} s"
    )
    return told("open under 0.6 s", opened < 0.6)


def _forget(state: Any, folder: Path) -> bool:
    import numpy as np

    from harness.workloads.memory_store.embedders import HashingEmbedder
    from harness.workloads.memory_store.store import MemoryStore
    from harness.workloads.memory_store.synthetic import code

    store, facts = state.store, state.facts
    alive = set(store._index.ids[: len(store)].tolist())
    places = [at for at, i in enumerate(state.ids) if i in alive]
    gone = np.random.default_rng(7).choice(places, min(1000, len(places) // 2), replace=False).tolist()
    begin = time.perf_counter()
    erased_count = sum(store.forget(ids=[state.ids[at]]).is_erased for at in gone)
    erased = erased_count == len(gone)
    each = (time.perf_counter() - begin) / len(gone)
    store.close()
    data = b"".join(p.read_bytes() for p in sorted(folder.glob("memory.db*")))
    # Every text holds a code of its own, which is also one of its index terms; a scan for each vector takes longer.
    words = set(re.findall(rb"q\d{8}z", data))
    found = sum(code(at).encode() in words for at in gone)
    found += sum(facts.vectors[at].tobytes() in data for at in gone[:100])
    with MemoryStore(folder / "memory.db", HashingEmbedder(384), capacity=store.capacity) as again:
        wanted = {state.ids[at] for at in gone}
        hits = [
            h.memory.memory_id
            for at in gone[:200]
            for h in again.retrieve(f"case {code(at)}", vector=facts.vectors[at], now_s=_NOW_S)
        ]
        ghosts = len(wanted & set(again._index.ids[: len(again)].tolist())) + len(wanted & set(hits))
    print(f"{len(gone)} random memories forgotten, {each * 1e3:.1f} ms each, every one erased: {erased}")
    return (
        told(f"{ghosts} ghosts after a restart, {found} of their texts, terms or vectors in a file", not ghosts + found)
        and erased
    )


_WRITER: Final = """
import sys
from pathlib import Path
from harness.workloads.memory_store.embedders import HashingEmbedder
from harness.workloads.memory_store.store import MemoryStore
store = MemoryStore(Path(sys.argv[1]), HashingEmbedder(384))
for i in range(100000):
    print(store.store(f"fact number {i}"), i, flush=True)
"""


def _kill(folder: Path, write_count: int = 1000) -> bool:
    from harness.workloads.memory_store.embedders import HashingEmbedder
    from harness.workloads.memory_store.store import MemoryStore

    lost = extra = total = 0
    for at, kill_after in enumerate((37, 250, 611, write_count)):
        path = folder / f"killed-{at}.db"
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        lines = []
        for line in writer.stdout:
            lines.append(line)
            if len(lines) == kill_after:
                os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        acknowledged = [tuple(map(int, line.split())) for line in lines if line.endswith("\n") and " " in line]
        with MemoryStore(path, HashingEmbedder(384)) as store:
            kept = {m: store.get(m).content for m in store._index.ids[: len(store)].tolist()}
            broken = store._db._db.execute("PRAGMA integrity_check").fetchone()[0] != "ok"
        lost += sum(kept.get(memory_id) != f"fact number {n}" for memory_id, n in acknowledged) + broken
        extra = max(extra, len(kept) - len(acknowledged))
        total += len(acknowledged)
    print(f"kill -9 in the middle of writing, 4 times: {total} acknowledged, at most {extra} done and not yet told")
    return told(f"{lost} acknowledged writes lost", not lost)


def told(line: str, met: bool) -> bool:
    """Print a figure and whether it is met."""
    print(f"{'met' if met else 'NOT MET'}: {line}")
    return met


if __name__ == "__main__":
    sys.exit(main())

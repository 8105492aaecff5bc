"""What becomes of memories: forgotten without a trace, surviving a kill, seen by two stores."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from memory_cases import bytes_of, code, fill, open_store

from harness.core.errors import WrongAnswerError
from harness.workloads.memory.note_store import OF_WORDS


def test_forgotten_leaves_no_byte_and_no_ghost(tmp_path):
    made_folder = tmp_path / "store"
    with open_store(made_folder / "m.db") as store:
        made, ids = fill(store, 300)
        chosen = np.random.default_rng(2).choice(300, 100, replace=False)
        done = [store.forget(code(int(i))) for i in chosen]
        assert [memory.content for gone in done for memory in gone] == [made.texts[i] for i in chosen]
        data = bytes_of(made_folder)
        for i in chosen:
            assert made.texts[i].lower().encode() not in data
            assert code(int(i)).encode() not in data
            assert made.vectors[i].tobytes().lower() not in data
        assert code(int(min(set(range(300)) - set(chosen.tolist())))).encode() in data, "the control is still there"
    with open_store(made_folder / "m.db") as store:
        assert len(store) == 200
        for i in chosen:
            hits = store.retrieve(made.texts[i], vector=made.vectors[i], top_k=5)
            assert ids[i] not in [h.memory_id for h in hits]
            assert store.forget(code(int(i))) == []


def test_plain_delete_would_leave_the_word(tmp_path):
    """What the store guards against: shows that looking for bytes can fail."""
    db = sqlite3.connect(tmp_path / "plain.db", isolation_level=None)
    db.execute("PRAGMA secure_delete=ON")
    db.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
    db.executemany("INSERT INTO t(x) VALUES (?)", [("zanzibar holds the key",), ("another text",)])
    db.execute("DELETE FROM t WHERE rowid = 1")
    db.execute("VACUUM")
    db.close()
    assert b"zanzibar" in bytes_of(tmp_path)


def test_all_of_a_source_is_forgotten(store):
    store.store(["alphabet a", "beta b", "gamma c"], ["mail", "chat", "chat"])
    assert [memory.content for memory in store.forget("chat")] == ["beta b", "gamma c"]
    assert [memory.content for memory in store.forget('"a" "alphabet"', OF_WORDS)] == ["alphabet a"]
    assert store.retrieve("x", top_k=9) == []


def test_what_another_reader_still_sees_is_no_erasure(tmp_path):
    with open_store(tmp_path / "m.db") as store:
        store.store(["Sami painted the bridge"], ["a"])
        reader = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM memories").fetchone()
        with pytest.raises(WrongAnswerError, match="the log"):
            store.forget("a")
        reader.close()


WRITER = """
import sys
from pathlib import Path
from memory_cases import open_store
store = open_store(Path(sys.argv[1])).thing
for i in range(100000):
    print(*store.store([f"fact number {i}"], [""]), i, flush=True)
"""


def test_kill_loses_no_acknowledged_write(tmp_path):
    path = tmp_path / "m.db"
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", WRITER, str(path)]
    environment = {**os.environ, "PYTHONPATH": paths}
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    told = []
    for line in writer.stdout:
        told.append(line)
        if len(told) == 150:
            os.kill(writer.pid, signal.SIGKILL)
            break
    told += list(writer.stdout)
    writer.wait()
    acknowledged = [tuple(map(int, t.split())) for t in told if t.endswith("\n") and len(t.split()) == 2]
    assert len(acknowledged) >= 150
    with open_store(path) as store:
        for memory_id, number in acknowledged:
            assert store._chosen("id = ?", memory_id)[0].content == f"fact number {number}"
        assert len(store) - len(acknowledged) in {0, 1}, "one write may be done and not yet told"
        assert store._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        store._db.execute("INSERT INTO words(words) VALUES ('integrity-check')")


def test_reading_changes_no_byte(tmp_path):
    with open_store(tmp_path / "m.db") as store:
        fill(store, 50)
        store.forget("none")  # which empties the log
        before = hashlib.sha256(bytes_of(tmp_path)).digest()
        for i in range(20):
            store.retrieve(f"kayak {i}")
        assert hashlib.sha256(bytes_of(tmp_path)).digest() == before

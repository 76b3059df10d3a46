"""Files, locks and steps: whole or not there, whatever dies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recaster.core.errors import LockHeldError, StorageError
from recaster.core.files import mirror_directory, storage_errors, write_json
from recaster.core.locks import hold_lock, is_held
from recaster.core.steps import find_step, run_step

_COLLECTING = """
import gc
usual = gc.get_threshold()
from recaster.core.collection import collect_as_usual, collect_rarely
collect_rarely()
assert gc.get_threshold()[0] > 50 * usual[0] and gc.isenabled()
class Loop:
    def __init__(self):
        self.self = self
    def __del__(self):
        print("collected")
Loop()
collect_as_usual()
assert gc.get_threshold() == usual and gc.get_freeze_count() > 1000
print("end")
"""


def test_garbage_is_looked_for_less_often_and_then_as_usual() -> None:
    done = subprocess.run([sys.executable, "-c", _COLLECTING], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["collected", "end"]


def test_step_is_done_once(tmp_path: Path) -> None:
    calls = []

    def build(folder: Path) -> dict[str, object]:
        calls.append(1)
        (folder / "a.txt").write_text("x")
        return {"n": 1}

    first = run_step(tmp_path, "s", {"k": 1}, build)
    second = run_step(tmp_path, "s", {"k": 1}, build)
    assert (first.reused, second.reused, len(calls)) == (False, True, 1)
    assert first.content == second.content
    assert find_step(tmp_path, "s", {"k": 2}) is None


_BUILDER = """
import sys, time
from pathlib import Path
from recaster.core.steps import run_step

def build(folder):
    (folder / "made").touch()
    time.sleep(1)
    with Path(sys.argv[2]).open("a") as told:
        told.write("built\\n")
    return {"files": len(list(folder.iterdir()))}

found = run_step(Path(sys.argv[1]), "s", {"k": 2}, build, on_wait=lambda text: print(text))
print(found.facts["files"], found.reused)
"""


def test_two_processes_that_want_one_step_do_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _BUILDER, str(tmp_path / "steps"), str(tmp_path / "told")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = sorted(process.communicate(timeout=60)[0].split("\n")[-2] for process in running)
    assert answers == ["1 False", "1 True"]
    assert (tmp_path / "told").read_text() == "built\n"


def test_unfinished_step_is_not_found_and_starts_clean(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, object]:
        (folder / "half.txt").write_text("x")
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        run_step(tmp_path, "s", {}, fail)
    assert find_step(tmp_path, "s", {}) is None
    done = run_step(tmp_path, "s", {}, lambda folder: {"files": len(list(folder.iterdir()))})
    assert done.facts == {"files": 0}


def test_resumable_step_keeps_its_work(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, object]:
        (folder / "checkpoint").write_text("x")
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        run_step(tmp_path, "s", {}, fail, resumable=True)
    done = run_step(tmp_path, "s", {}, lambda work: {"kept": (work / "checkpoint").exists()}, resumable=True)
    assert done.facts == {"kept": True}


def test_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "m.lock"
    code = (
        "import sys,time;from pathlib import Path;from recaster.core.locks import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), name='m', wait_seconds=0):\n"
        " print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_held(path)
        with pytest.raises(LockHeldError, match=str(holder.pid)), hold_lock(path, name="m", wait_seconds=0.3):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    started = time.monotonic()
    with hold_lock(path, name="m", wait_seconds=5):
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_storage_trouble_has_a_repair(tmp_path: Path, code: int) -> None:
    with pytest.raises(StorageError, match="RECASTER_HOME"), storage_errors(tmp_path):
        raise OSError(code, "x", str(tmp_path))


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_mirror_removes_what_is_gone(tmp_path: Path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    (source / "d").mkdir(parents=True)
    (source / "d" / "a").write_text("1")
    (source / "manifest.json").write_text("{}")
    target.mkdir()
    (target / "old").write_text("1")
    mirror_directory(source, target, leave_out=["manifest.json"])
    assert [p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()] == ["d/a"]

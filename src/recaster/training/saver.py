"""Writing checkpoints while training goes on.

step 50: copy the state (the step waits for this) ─► write parts ─► hash ─► rename     step 51, 52, …
                                                     └── in a thread, over process groups of its own ──┘
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from recaster.core.files import commit_directory, disk_full, storage_errors, write_json
from recaster.core.hashing import hash_file
from recaster.distributed.mesh import GROUP_TIMEOUT
from recaster.training.checkpoint import (
    STATE,
    Saved,
    checkpoint_path,
    find_checkpoints,
    is_first_rank,
    memory_name,
)


class Saver:
    """Writes one checkpoint at a time in the background; every rank has one and calls it alike."""

    def __init__(self, folder: Path, *, keep: int, timeout: timedelta = GROUP_TIMEOUT) -> None:
        self._folder, self._keep = folder, keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        # Collectives of the background must not mix with those of the steps.
        self._group = dist.new_group(backend="gloo", timeout=timeout)

    def save(
        self, saved: Saved, *, step: int, memory: dict[str, Tensor], also_keep: Callable[[], Iterable[int]]
    ) -> None:
        """Write the state after `step` completed steps, then drop all but the newest `keep`.

        Args:
            memory: what only this rank must know to go on.
            also_keep: steps whose checkpoints are kept beside the newest, asked when it is written.

        Raises:
            StorageError: the disk is full or refuses, now or at the save before; those before are kept.
        """
        self.wait()
        work = self._folder / f".{step:08d}.work"
        with storage_errors(self._folder):
            if is_first_rank():
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir(parents=True)
        dist.barrier(self._group)
        copied = {name: value.detach().to("cpu", copy=True) for name, value in memory.items()}
        writer = HuggingFaceStorageWriter(str(work), save_distributed=True)
        staged = dcp.async_save(saved.tensors(), storage_writer=writer, process_group=self._group)
        self._writing = self._writer.submit(self._finish, step, work, copied, staged, also_keep)

    def wait(self) -> None:
        """Return when the checkpoint in writing is in place.

        Raises:
            StorageError: it could not be written.
        """
        if self._writing:
            self._writing.result()
            self._writing = None

    def close(self) -> None:
        """Wait, then end the thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _finish(
        self,
        step: int,
        work: Path,
        memory: dict[str, Tensor],
        staged: Future[None],
        also_keep: Callable[[], Iterable[int]],
    ) -> None:
        with storage_errors(self._folder):
            _await_parts(staged, work)
            problem = self._write_memory(work, memory)
            # Without this a rank with a full disk of its own would leave the others waiting.
            failed = torch.tensor(0 if problem is None else 1)
            dist.all_reduce(failed, group=self._group)
            if problem is not None:
                raise problem
            if int(failed):
                raise disk_full(work)
            if is_first_rank():
                self._commit(step, work, set(also_keep()))
            dist.barrier(self._group)

    def _write_memory(self, work: Path, memory: dict[str, Tensor]) -> Exception | None:
        if not memory:
            return None
        try:
            save_tensors(memory, work / memory_name(dist.get_rank()))
        except Exception as error:  # noqa: BLE001 - raised by the caller, after all ranks know
            return error
        return None

    def _commit(self, step: int, work: Path, also_keep: set[int]) -> None:
        hashes = {path.name: hash_file(path) for path in sorted(work.iterdir())}
        write_json(work / STATE, {"step": step, "ranks": dist.get_world_size(), "sha256": hashes})
        final = checkpoint_path(self._folder, step)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        commit_directory(work, final)
        for old in find_checkpoints(self._folder)[: -self._keep]:
            if int(old.name) not in also_keep:
                shutil.rmtree(old)


def _await_parts(staged: Future[None], work: Path) -> None:
    try:
        staged.result()
    except CheckpointException as error:
        for cause, _ in error.failures.values():
            if isinstance(cause, OSError):
                raise cause from error
            if _has_no_room(cause):
                raise disk_full(work) from error
        raise


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one safetensors file.

    Raises:
        StorageError: there is no room.
    """
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:
        if _has_no_room(error):
            raise disk_full(path) from error
        raise


def _has_no_room(error: BaseException) -> bool:
    """safetensors wraps the operating system's error as text."""
    return "No space left" in str(error)

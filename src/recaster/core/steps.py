"""Finished work, found again by its fingerprint: the only cache there is.

    HOME/steps/train/3f2a…/            content of the finished step
    HOME/steps/train/3f2a…/manifest.json   written last: its existence means "complete"
    HOME/steps/train/3f2a….work/       a step that is running or was cut off
    HOME/locks/train/3f2a….lock        held by the process that runs it

A step is a pure function of references to references: its fingerprint is made of the recipe
sections it reads, the content of its inputs and the version of its code. Killing the process
at any instant leaves either the finished directory or a `.work` one.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaster.core.clock import now
from recaster.core.files import commit_directory, read_json, storage_errors, write_json
from recaster.core.hashing import hash_directory, hash_value
from recaster.core.locks import hold_lock

MANIFEST = "manifest.json"
_FINGERPRINT_LENGTH = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """A finished step: where its content is and what it found out."""

    step: str
    fingerprint: str
    path: Path
    content: str
    """sha256 over the content's names and bytes, manifest left out."""
    facts: dict[str, Any]
    """Small results: counts, metrics, identifiers."""
    seconds: float
    """Wall time of the run that did the work."""
    reused: bool
    """True when nothing was done now."""

    @property
    def ref(self) -> str:
        """`step/fingerprint`, as other steps and people name it."""
        return f"{self.step}/{self.fingerprint}"


def fingerprint(inputs: dict[str, Any]) -> str:
    """The name of the work that these inputs define."""
    return hash_value(inputs)[:_FINGERPRINT_LENGTH]


def find_step(steps: Path, step: str, inputs: dict[str, Any]) -> StepResult | None:
    """The finished step for these inputs, or None."""
    name = fingerprint(inputs)
    path = steps / step / name
    if not (path / MANIFEST).exists():
        return None
    manifest = read_json(path / MANIFEST)
    return StepResult(
        step=step,
        fingerprint=name,
        path=path,
        content=manifest["content"],
        facts=manifest["facts"],
        seconds=manifest["seconds"],
        reused=True,
    )


def run_step(
    steps: Path,
    step: str,
    inputs: dict[str, Any],
    build: Callable[[Path], dict[str, Any]],
    *,
    resumable: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> StepResult:
    """Return the finished step for `inputs`, doing the work only if it is not there.

    Processes that want the same step at once wait for the first, and find what it made.

    Args:
        build: fills the directory it is given and returns the step's facts.
        resumable: keep an unfinished directory for `build` to go on from; else start clean.
        on_wait: told once who is at work on the step, when waiting begins.
    """
    if found := find_step(steps, step, inputs):
        return found
    final = steps / step / fingerprint(inputs)
    lock = steps.with_name("locks") / step / f"{final.name}.lock"
    with hold_lock(lock, name=f"step {step}", wait_seconds=math.inf, on_wait=on_wait):
        return find_step(steps, step, inputs) or _build_step(step, inputs, final, build, resumable=resumable)


def _build_step(
    step: str,
    inputs: dict[str, Any],
    final: Path,
    build: Callable[[Path], dict[str, Any]],
    *,
    resumable: bool,
) -> StepResult:
    work = final.with_name(final.name + ".work")
    started = time.perf_counter()
    with storage_errors(work):
        if work.exists() and not resumable:
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        facts = build(work)
        seconds = round(time.perf_counter() - started, 3)
        manifest = {
            "step": step,
            "inputs": inputs,
            "facts": facts,
            "content": hash_directory(work, leave_out=[MANIFEST]),
            "seconds": seconds,
            "finished": now(),
        }
        write_json(work / MANIFEST, manifest)
        commit_directory(work, final)
    return StepResult(
        step=step,
        fingerprint=final.name,
        path=final,
        content=str(manifest["content"]),
        facts=facts,
        seconds=seconds,
        reused=False,
    )

"""`communication: auto`: measure, predict, choose, check, and switch off what does not pay.

first step   link, backward and coding are timed ─▶ a step's time for each scheme ─▶ the choice
some later   the chosen scheme's step is timed ─▶ plain all-reduce again if the prediction was wrong

`communication.json` in the run directory holds the choices, so that a resumed run makes the same ones.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recaster.core.files import read_json, write_json
from recaster.distributed.communication.build import build_scheme
from recaster.distributed.communication.link import largest_over_ranks, measure_link, slowest_seconds
from recaster.distributed.communication.predict import (
    PLAIN,
    Costs,
    Prediction,
    count_buckets,
    predict_steps,
)
from recaster.distributed.communication.protocol import AllReduce, Communication

CHOICES = "communication.json"
_WINDOW = 5
_STEP = "auto.step"


class Adviser:
    """A scheme that stands for the one it chose; `AdvisedStrategy` asks it before each step."""

    def __init__(
        self,
        section: Mapping[str, Any],
        *,
        group: dist.ProcessGroup,
        device: torch.device,
        bucket_mib: int,
        last_step: int,
        folder: Path,
    ) -> None:
        self._section, self._group, self._device = section, group, device
        self._bucket_mib, self._last, self._folder = bucket_mib, last_step, folder
        self._step = 0
        self._memory: dict[str, Tensor] = {}
        self._record: dict[str, Any] = {}
        self._name = ""
        self._scheme: Communication = AllReduce()
        self._times: list[float] = []
        self._pass_seconds = 0.0

    @property
    def averages_gradients(self) -> bool:
        """As the chosen scheme says."""
        return self._scheme.averages_gradients

    @property
    def one_bucket(self) -> bool:
        """As the chosen scheme says."""
        return self._scheme.one_bucket

    @property
    def chosen(self) -> str:
        """The present scheme's name; empty before the first step."""
        return self._name

    @property
    def record(self) -> dict[str, Any]:
        """What was measured, predicted and chosen: the content of `communication.json`."""
        return self._record

    def choose(self, run_pass: Callable[[], object], parameters: Sequence[nn.Parameter]) -> Communication:
        """The scheme for the next step; all ranks get the same.

        Args:
            run_pass: forward and backward of this rank's rows, nothing sent; called a few times if no choice
                was made before.
            parameters: those that have gradients.
        """
        if not self._record:
            self._record = self._read() or self._decide(run_pass, parameters)
        name = [
            choice["scheme"] for choice in self._record["choices"] if choice["from_step"] <= self._step + 1
        ][-1]
        if name != self._name:
            self._scheme.close()
            self._scheme = build_scheme(name, self._section, group=self._group, last_step=self._last)
            self._name = name
        return self._scheme

    def attach(self, replica: Any) -> None:
        """Let the chosen scheme take over what `replica` sends."""
        self._scheme.attach(replica)
        self._scheme.load_memory(self._memory)
        self._memory = {}

    def update(self, optimizers: Sequence[torch.optim.Optimizer], *, step: int) -> None:
        """See `Communication.update`; at the end of the probation, judge the choice."""
        self._scheme.update(optimizers, step=step)
        self._step = step
        if self.on_probation:
            self._times.append(self._pass_seconds + getattr(self._scheme, "meeting_seconds", 0.0))
            prediction = self._predictions()[self._name]
            if len(self._times) == prediction.settles_after + max(_WINDOW, prediction.cycle):
                self._judge(prediction)

    def memory(self) -> dict[str, Tensor]:
        """That of the chosen scheme, and how far it came."""
        return {_STEP: torch.tensor(self._step), **self._scheme.memory()}

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """See `Communication.load_memory`; the scheme gets it once it is chosen."""
        self._step = int(memory[_STEP]) if memory else 0
        self._memory = {name: value for name, value in memory.items() if name != _STEP}

    def close(self) -> None:
        """See `Communication.close`."""
        self._scheme.close()

    @property
    def on_probation(self) -> bool:
        """Whether steps are still timed."""
        return not self._record["settled"]

    def note_pass(self, seconds: float) -> None:
        """How long forward, backward and the exchange in it took."""
        self._pass_seconds = seconds

    def _decide(self, run_pass: Callable[[], object], parameters: Sequence[nn.Parameter]) -> dict[str, Any]:
        size = sum(parameter.nbytes for parameter in parameters)
        costs = Costs(
            link=measure_link(self._group, device=self._device, largest_bytes=size),
            pass_seconds=slowest_seconds(run_pass, group=self._group, device=self._device),
            gradient_bytes=size,
            buckets=count_buckets(size, bucket_mib=self._bucket_mib),
        )
        options = self._section["auto"]
        budget = options["accuracy_budget"]
        predictions = predict_steps(
            budget, self._section, costs=costs, parameters=parameters, group=self._group
        )
        plain = predictions[0]
        best = min(predictions, key=lambda prediction: prediction.worth_seconds)
        if best.worth_seconds > (1 - options["min_gain"]) * plain.worth_seconds:
            best = plain
        record = {
            "ranks": self._group.size(),
            "costs": asdict(costs),
            "predictions": [asdict(prediction) for prediction in predictions],
            "choices": [{"from_step": 1, "scheme": best.scheme}],
            "settled": False,
        }
        self._write(record)
        self._say(
            f"{size / 1e6:.1f} MB of gradients, {costs.link.ranks} ranks; the link carries "
            f"{8e-6 * costs.link.bytes_per_second:.0f} Mbit/s and takes "
            f"{1e3 * costs.link.latency_seconds:.1f} ms; forward and backward {costs.pass_seconds:.4f} s"
        )
        told = ", ".join(f"{item.scheme} {item.seconds:.4f}" for item in predictions)
        self._say(f"predicted seconds a step: {told}; within budget {budget!r} the choice is {best.scheme}")
        return record

    def _judge(self, prediction: Prediction) -> None:
        """Compare measured with predicted, and go back to plain when the gain is not there."""
        times = self._times[prediction.settles_after :]
        own = statistics.fmean(times) if prediction.cycle > 1 else statistics.median(times)
        measured = largest_over_ranks(own, group=self._group, device=self._device)
        plain = self._predictions()[PLAIN]
        record = {**self._record, "settled": True, "measured_seconds": measured}
        told = f"measured {measured:.4f} seconds a step with {self._name}, predicted {prediction.seconds:.4f}"
        if self._name == PLAIN:
            self._say(told)
        elif measured * prediction.steps_to_same_loss < plain.seconds:
            self._say(f"{told}, and {plain.seconds:.4f} with {PLAIN}")
        else:
            record["choices"] = [*record["choices"], {"from_step": self._step + 1, "scheme": PLAIN}]
            self._say(
                f"{told}: no gain over the {plain.seconds:.4f} of {PLAIN}, which is used from step "
                f"{self._step + 1} on"
            )
        self._record = record
        self._write(record)

    def _predictions(self) -> dict[str, Prediction]:
        return {item["scheme"]: Prediction(**item) for item in self._record["predictions"]}

    def _read(self) -> dict[str, Any] | None:
        """The choices of an earlier start of this run with as many ranks; the first rank reads them."""
        path, text = self._folder / CHOICES, b""
        if self._group.rank() == 0 and path.exists():
            record = read_json(path)
            if record["ranks"] == self._group.size():
                text = json.dumps(record).encode()
        record = _tell_all(text, self._group, self._device)
        if record:
            told = ", ".join(
                f"{choice['scheme']} from step {choice['from_step']}" for choice in record["choices"]
            )
            self._say(f"as this run chose before: {told}")
        return record

    def _write(self, record: dict[str, Any]) -> None:
        if self._group.rank() == 0:
            write_json(self._folder / CHOICES, record)
        dist.barrier(group=self._group)  # no rank saves what it did under a choice that is not kept

    def _say(self, text: str) -> None:
        if self._group.rank() == 0:
            sys.stderr.write(f"communication: {text}\n")
            sys.stderr.flush()


def _tell_all(text: bytes, group: dist.ProcessGroup, device: torch.device) -> dict[str, Any] | None:
    """The first rank's JSON, on every rank; None for an empty text."""
    length = torch.tensor(len(text), device=device)
    dist.broadcast(length, group=group, group_src=0)
    if not int(length):
        return None
    letters = torch.tensor(list(text) or [0] * int(length), dtype=torch.uint8, device=device)
    dist.broadcast(letters, group=group, group_src=0)
    record: dict[str, Any] = json.loads(bytes(letters.tolist()))
    return record

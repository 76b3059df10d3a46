"""The runs behind the contract of communication: each scheme, on two ranks, over the same global batches.

Every case trains with the product's own loop, twice whole and once cut at half, from a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recaster.distributed.communication.adviser import CHOICES, Adviser
from recaster.distributed.communication.exchange import Gradients, GradientScheme, Layout
from recaster.distributed.communication.powersgd import PowerSGD
from recaster.distributed.communication.stale import StaleServer
from recaster.distributed.communication.topk import TopK
from recaster.distributed.mesh import Mesh, build_mesh
from recaster.distributed.strategies.build import build_communication, build_strategy, mesh_shape
from recaster.distributed.strategies.protocol import Strategy
from recaster.models.losses import build_loss
from recaster.recipe.communication import CommunicationSection
from recaster.recipe.distributed import DistributedSection
from recaster.recipe.training import Optimizer
from recaster.training.checkpoint import Saved, load_memory, load_newest_checkpoint
from recaster.training.feed import Feed
from recaster.training.loop import TrainState, train_steps
from recaster.training.optimizers import build_optimizers
from recaster.training.sampler import Sampler
from recaster.training.saver import Saver
from recaster.training.update import Update
from tests.contract.strategy_runs import BATCH, SAMPLES, Rows, build_model

STEPS, HALF = 10, 5
MAX_NORM = 0.5  # below every step's norm: each step is clipped
LONG = 40
FEEDBACK = ("topk", "powersgd")
_SEED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scheme."""

    name: str
    section: dict[str, Any] = field(default_factory=dict)
    ranks: int = 2
    optimizer: str = "adamw"
    micro: int | None = None
    steps: int = STEPS
    clip: float = MAX_NORM
    record: dict[str, Any] | None = None
    """What an earlier start of the run chose."""
    again: bool = True
    """Run it twice, and once more cut at half."""


def _sgd(name: str, section: dict[str, Any]) -> Case:
    return Case(name=f"{name}-sgd", section=section, optimizer="sgd", clip=1e9)


_POWER = {"scheme": "powersgd", "powersgd": {"rank": 2}}
_TOPK = {"scheme": "topk", "topk": {"fraction": 0.1}}
_LOCAL = {"scheme": "local-sgd", "local_sgd": {"every_steps": 3, "warmup_steps": 1}}
_DILOCO = {"scheme": "diloco", "diloco": {"every_steps": 3, "warmup_steps": 1}}
_STALE = {"scheme": "parameter-server", "parameter_server": {"staleness": 2}}
_CENTRAL = {"scheme": "parameter-server", "parameter_server": {"placement": "central"}}

SINGLE = Case(name="single", ranks=1, again=False)
EXACT = [
    Case(name="allreduce", section={"scheme": "allreduce"}),
    Case(name="parameter-server", section={"scheme": "parameter-server"}),
    Case(name="parameter-server-micro", section={"scheme": "parameter-server"}, micro=3),
    Case(name="parameter-server-central", section=_CENTRAL),
]
ROUNDED = [
    Case(name="fp16", section={"scheme": "fp16"}),
    Case(name="bf16", section={"scheme": "bf16"}, micro=3),
]
LOSSY = [
    Case(name="powersgd", section=_POWER),
    Case(name="topk", section=_TOPK, micro=3),
    Case(name="local-sgd", section=_LOCAL),
    Case(name="diloco", section=_DILOCO),
]
_FALSE_HOPE = {
    "ranks": 2,
    "predictions": [
        {"scheme": "allreduce", "seconds": 1e-9, "steps_to_same_loss": 1.0, "cycle": 1, "settles_after": 2},
        {"scheme": "bf16", "seconds": 1e-10, "steps_to_same_loss": 1.0, "cycle": 1, "settles_after": 2},
    ],
    "choices": [{"from_step": 1, "scheme": "bf16"}],
    "settled": False,
}
_KNOWN = {
    **_FALSE_HOPE,
    "choices": [{"from_step": 1, "scheme": "powersgd"}, {"from_step": 8, "scheme": "allreduce"}],
    "settled": True,
}
AUTO_EXACT = Case(
    name="auto-exact", section={"scheme": "auto", "auto": {"accuracy_budget": "exact"}}, again=False
)
AUTO_KNOWN = Case(name="auto-known", section={**_POWER, "scheme": "auto"}, record=_KNOWN)
AUTO_WRONG = Case(name="auto-wrong", section={"scheme": "auto"}, record=_FALSE_HOPE, again=False)
AUTO_LOCAL = Case(
    name="auto-local",
    section={"scheme": "auto", "auto": {"accuracy_budget": "local", "min_gain": 0.0}},
    again=False,
)
LONG_CASES = [
    Case(name=f"{name}-long", section=section, steps=LONG, again=False)
    for name, section in [
        ("allreduce", {"scheme": "allreduce"}),
        ("powersgd", _POWER),
        ("topk", _TOPK),
        ("local-sgd", _LOCAL),
        ("diloco", _DILOCO),
        ("stale", _STALE),
    ]
]
ALLREDUCE_SGD = _sgd("allreduce", {"scheme": "allreduce"})
LOCAL_SGD_1 = _sgd("local-1", {"scheme": "local-sgd", "local_sgd": {"every_steps": 1}})
LOCAL_SGD_3 = _sgd("local-3", _LOCAL)
DILOCO_PLAIN = _sgd(
    "diloco-plain",
    {"scheme": "diloco", "diloco": {**_DILOCO["diloco"], "outer_learning_rate": 1.0, "outer_momentum": 0.0}},
)
STALE_0 = _sgd("stale-0", {"scheme": "parameter-server", "parameter_server": {"staleness": 0}})
STALE_CENTRAL = Case(
    name="stale-central",
    section={"scheme": "parameter-server", "parameter_server": {"staleness": 1, "placement": "central"}},
    again=False,
)
REPEATABLE = [*EXACT, *ROUNDED, *LOSSY, AUTO_KNOWN]
CASES = [
    SINGLE,
    *REPEATABLE,
    *LONG_CASES,
    *(ALLREDUCE_SGD, LOCAL_SGD_1, LOCAL_SGD_3, DILOCO_PLAIN, STALE_0, STALE_CENTRAL),
    *(AUTO_EXACT, AUTO_WRONG, AUTO_LOCAL),
]


def run_cases(folder: Path, cases: Sequence[Case] = CASES) -> None:
    """Run all cases; each leaves `folder/NAME/` with `whole-RANK.safetensors` and the like."""
    for ranks in (1, 2):
        chosen = [case for case in cases if case.ranks == ranks]
        if chosen:
            mp.spawn(_work, args=(ranks, chosen, folder), nprocs=ranks)


def weights(folder: Path, case: Case, *, run: str = "whole", rank: int = 0) -> dict[str, Tensor]:
    """What a rank had after the last step."""
    return load_file(folder / case.name / f"{run}-{rank}.safetensors")


def facts(folder: Path, case: Case) -> dict[str, Any]:
    """Losses and the like of the first rank's whole run."""
    found: dict[str, Any] = json.loads((folder / case.name / "whole.json").read_text())
    return found


def difference(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """The largest of any weight."""
    return max(float((value - two[name]).abs().max()) for name, value in one.items())


def _work(rank: int, ranks: int, cases: Sequence[Case], folder: Path) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    rendezvous = f"file://{folder}/rendezvous-{ranks}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=ranks)
    try:
        for case in cases:
            place = folder / case.name
            place.mkdir(exist_ok=True)
            _Run(case, place, "whole").train(case.steps)
            if case.again:
                _Run(case, place, "again").train(case.steps)
                _Run(case, place, "cut").train(HALF)
                _Run(case, place, "cut").resume().train(case.steps)
        if ranks == 2:
            _feed_back(folder, rank)
    finally:
        dist.destroy_process_group()


def _feed_back(folder: Path, rank: int) -> None:
    """Six exchanges of random gradients: what there was, what was sent, what still waits."""
    group = dist.group.WORLD
    assert group is not None
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in [(24, 16), (16,), (16, 8)]]
    schemes: dict[str, GradientScheme] = {
        "topk": TopK(group, fraction=0.05, error_feedback=True),
        "powersgd": PowerSGD(group, rank=1, start_step=1, warm_start=True, error_feedback=True),
    }
    for name, scheme in schemes.items():
        source = torch.Generator().manual_seed(rank)
        total, sent = torch.zeros(528), torch.zeros(528)
        for step in range(6):
            # DistributedDataParallel has another order in the first step than later.
            layout = Layout(parameters, parameters if step == 0 else parameters[::-1])
            gradient = torch.randn(528, generator=source)
            total += gradient
            given = Gradients(layout.from_model_order(gradient), layout)
            sent += layout.to_model_order(scheme.exchange(given).wait())
        found = {"total": total, "sent": sent, "waiting": scheme.memory()[f"{name}.residual"]}
        save_file(found, folder / f"feedback-{name}-{rank}.safetensors")


class _Run:
    """One run of a case on this rank."""

    def __init__(self, case: Case, folder: Path, name: str) -> None:
        self.case, self.folder, self.name = case, folder, name
        run_folder = folder / name
        section = DistributedSection(strategy="ddp" if case.ranks > 1 else "single", ranks=case.ranks)
        self.mesh: Mesh = build_mesh(mesh_shape(section.model_dump()), device=torch.device("cpu"))
        if self.mesh.rank == 0 and not run_folder.exists():
            run_folder.mkdir()
            if case.record:
                (run_folder / CHOICES).write_text(json.dumps(case.record))
        dist.barrier()
        communication = build_communication(
            CommunicationSection.model_validate(case.section).model_dump(),
            mesh=self.mesh,
            bucket_mib=25,
            last_step=case.steps,
            folder=run_folder,
        )
        self.strategy: Strategy = build_strategy(
            build_model("encoder"),
            section.model_dump(),
            mesh=self.mesh,
            precision="float32",
            batch_size=BATCH,
            micro_batch_size=case.micro,
            communication=communication,
        )
        rate = 1e-3 if case.optimizer == "adamw" else 1e-2
        plain = {"momentum": 0.0} if case.optimizer == "sgd" else {}
        options = Optimizer(name=case.optimizer, learning_rate=rate, weight_decay=0.01, **plain)  # type: ignore[arg-type]
        module = self.strategy.module
        optimizers = build_optimizers(module, options.model_dump(), layers=[])
        self.saved = Saved(module=module, optimizers=optimizers)
        self.update = Update(
            module, optimizers, communication, self.mesh, precision="float32", max_gradient_norm=case.clip
        )
        self.rate, self.step = rate, 0
        self.losses: list[float] = []

    def resume(self) -> _Run:
        checkpoints = self.folder / "checkpoints"
        self.step = load_newest_checkpoint(checkpoints, self.saved, on_damage=_refuse_damage)
        memory = load_memory(checkpoints, self.step)
        assert memory is not None
        self.strategy.communication.load_memory(memory)
        return self

    def train(self, last: int) -> None:
        feed = Feed(
            Rows("encoder"),
            Sampler(samples=SAMPLES, batch_size=BATCH, seed=_SEED),
            self.strategy,
            self.mesh,
            micro_batch_size=self.case.micro,
            seed=_SEED,
            steps=self.case.steps,
        )
        loop = train_steps(
            TrainState(strategy=self.strategy, update=self.update, average=None, step=self.step),
            feed=feed,
            loss_sum=build_loss(
                {"name": "cross-entropy", "label_smoothing": 0.0, "class_weights": None}, training=True
            ),
            rate_at=lambda _: self.rate,
            mesh=self.mesh,
            seed=_SEED,
        )
        with closing(loop) as reports:
            for report in reports:
                total = torch.stack([report.loss_sum, torch.tensor(float(report.targets))])
                dist.all_reduce(total)
                self.losses.append(float(total[0] / total[1]))
                if report.step == last:
                    break
        if last == self.case.steps:
            self._finish()
        else:
            self._save(last)

    def _finish(self) -> None:
        communication = self.strategy.communication
        found: dict[str, Any] = {"losses": self.losses}
        if isinstance(communication, Adviser):
            found["chosen"] = communication.chosen
            found["record"] = json.loads((self.folder / self.name / CHOICES).read_text())
        if isinstance(communication, StaleServer):
            found["lag"] = communication.lag
        communication.close()
        save_file(
            self.strategy.module.state_dict(), self.folder / f"{self.name}-{self.mesh.rank}.safetensors"
        )
        if self.mesh.rank == 0:
            (self.folder / f"{self.name}.json").write_text(json.dumps(found))

    def _save(self, step: int) -> None:
        """A checkpoint has the weights and moments of one rank; what differs is in each rank's memory."""
        communication = self.strategy.communication
        with closing(Saver(self.folder / "checkpoints", keep=2)) as saver:
            saver.save(self.saved, step=step, memory=communication.memory(), also_keep=list)
        communication.close()
        dist.barrier()


def _refuse_damage(message: str) -> None:
    raise AssertionError(message)

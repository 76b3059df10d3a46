"""The runs behind the strategies' contract: each strategy, on real ranks, over the same global batches.

Every case trains ten AdamW steps with the product's own loop, twice, and saves after steps 5 and 10;
moves go on from step 5 under another strategy or number of ranks. All is judged from these checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.data.marked_rows import SuccessorRows
from recaster.data.preference_shards import PreferenceRows
from recaster.data.token_shards import TokenShard
from recaster.distributed.mesh import build_mesh
from recaster.distributed.strategies.build import build_strategy, mesh_shape
from recaster.models import mlp, recurrent_decoder, transformer_encoder
from recaster.models.causal_models import build_causal_model
from recaster.models.losses import build_loss, build_token_loss
from recaster.models.preference_loss import build_preference_loss
from recaster.recipe.distributed import DistributedSection
from recaster.recipe.training import Optimizer, Schedule
from recaster.training.checkpoint import Saved, load_newest_checkpoint, read_weights
from recaster.training.feed import Feed
from recaster.training.loop import TrainState, train_steps
from recaster.training.optimizers import build_optimizers, list_layers
from recaster.training.sampler import Sampler
from recaster.training.saver import Saver
from recaster.training.schedule import build_schedule
from recaster.training.trainable import TrainingSet, target_counter
from recaster.training.update import Update

STEPS, HALF = 10, 5
BATCH = 16
SAMPLES = 77  # five steps an epoch, the last of 13 rows: uneven over 2 and 4 ranks
MAX_NORM = 0.5  # below every step's norm: each step is clipped
_SEED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One strategy on one number of ranks."""

    strategy: str
    ranks: int
    mesh: dict[str, int] | None = None
    micro: int | None = None
    stages: int = 1
    precision: str = "float32"
    model: str = "encoder"

    @property
    def name(self) -> str:
        places = "-".join(f"{key}{size}" for key, size in (self.mesh or {}).items()) or str(self.ranks)
        parts = [self.strategy, places, self.model, self.precision]
        parts += [f"micro{self.micro}"] if self.micro else []
        parts += [f"stages{self.stages}"] if self.stages > 1 else []
        return "-".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The second half of `to`, from the checkpoint that `origin` left after the first."""

    origin: Case
    to: Case

    @property
    def name(self) -> str:
        return f"{self.origin.name}--{self.to.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What one group of processes does."""

    ranks: int
    cases: Sequence[Case] = ()
    moves: Sequence[Move] = field(default=())


def _with_models(*cases: Case) -> list[Case]:
    both = [*cases]
    both += [
        Case(
            strategy=case.strategy,
            ranks=case.ranks,
            mesh=case.mesh,
            micro=case.micro,
            stages=case.stages,
            precision="bf16",
        )
        for case in cases
    ]
    both += [
        Case(
            strategy=case.strategy,
            ranks=case.ranks,
            mesh=case.mesh,
            micro=case.micro,
            stages=case.stages,
            model="mlp",
        )
        for case in cases
    ]
    return both


def _of_tokens(*cases: Case) -> list[Case]:
    """The same cases over rows with unequal numbers of targets."""
    return [replace(case, model="decoder") for case in cases]


def _of_pairs(*cases: Case) -> list[Case]:
    """The same cases over pairs of replies, with a recurrent network."""
    return [replace(case, model="pairs") for case in cases]


SINGLE = Case(strategy="single", ranks=1)
_MICRO = Case(strategy="single", ranks=1, micro=5)
_ONE = [*_with_models(SINGLE), _MICRO, *_of_tokens(SINGLE, _MICRO), *_of_pairs(SINGLE)]
_DDP2 = Case(strategy="ddp", ranks=2)
_FSDP2 = Case(strategy="fsdp", ranks=2)
_TENSOR2 = Case(strategy="tensor", ranks=2)
_PIPE2 = Case(strategy="pipeline", ranks=2, micro=3)
_TWO = [
    *_with_models(_DDP2, _FSDP2, _TENSOR2, _PIPE2, Case(strategy="pipeline", ranks=2, micro=4, stages=2)),
    # 8 or 6 rows a rank in threes: the last micro-batches are smaller
    Case(strategy="ddp", ranks=2, micro=3),
    Case(strategy="fsdp", ranks=2, micro=3),
    Case(strategy="tensor", ranks=2, micro=3),
    *_of_tokens(
        _DDP2, _FSDP2, Case(strategy="ddp", ranks=2, micro=3), Case(strategy="fsdp", ranks=2, micro=3)
    ),
    *_of_pairs(Case(strategy="ddp", ranks=2, micro=3), _FSDP2),
]
_HYBRID4 = Case(strategy="fsdp", ranks=4, mesh={"data": 2, "shard": 2})
_TENSOR4 = Case(strategy="tensor", ranks=4, mesh={"data": 2, "tensor": 2})
_PIPE4 = Case(strategy="pipeline", ranks=4, mesh={"data": 2, "pipe": 2}, micro=3)
_FOUR = [
    *_with_models(_HYBRID4, _TENSOR4, _PIPE4),
    # 4 rows a rank, of 13 some ranks have only 3: their second micro-batch has no row that counts
    Case(strategy="ddp", ranks=4, micro=3),
    *_of_tokens(Case(strategy="ddp", ranks=4, micro=3), _HYBRID4),
    Case(strategy="fsdp", ranks=4),
    Case(strategy="fsdp", ranks=4, mesh={"data": 2, "shard": 2}, micro=3),
    Case(strategy="tensor", ranks=4),
    Case(strategy="tensor", ranks=4, mesh={"data": 2, "tensor": 2}, micro=3),
    Case(strategy="tensor", ranks=4, mesh={"shard": 2, "tensor": 2}),
    Case(strategy="pipeline", ranks=4, micro=4),
    Case(strategy="pipeline", ranks=4, mesh={"data": 2, "pipe": 2}, micro=2, stages=2),
    Case(strategy="pipeline", ranks=4, mesh={"shard": 2, "pipe": 2}, micro=2),
    Case(strategy="pipeline", ranks=4, mesh={"pipe": 2, "tensor": 2}, micro=4),
]
CASES = [*_ONE, *_TWO, *_FOUR]
_MOVES_TO_4 = [
    Move(origin=SINGLE, to=_HYBRID4),
    Move(origin=_PIPE2, to=_TENSOR4),
    Move(origin=_FSDP2, to=_PIPE4),
]
_MOVES_TO_2 = [
    Move(origin=_TENSOR4, to=_DDP2),
    Move(origin=_HYBRID4, to=_PIPE2),
    Move(origin=_PIPE4, to=_FSDP2),
    Move(origin=_DDP2, to=_TENSOR2),
]
_MOVES_TO_1 = [Move(origin=_PIPE4, to=SINGLE), Move(origin=_TENSOR4, to=SINGLE)]
MOVES = [*_MOVES_TO_4, *_MOVES_TO_2, *_MOVES_TO_1]
PHASES = (
    Phase(ranks=1, cases=_ONE),
    Phase(ranks=2, cases=_TWO),
    Phase(ranks=4, cases=_FOUR, moves=_MOVES_TO_4),
    Phase(ranks=2, moves=_MOVES_TO_2),
    Phase(ranks=1, moves=_MOVES_TO_1),
)


class Rows:
    """Random rows whose label is a function of the row."""

    def __init__(self, model: str) -> None:
        random = np.random.default_rng(1)
        if model == "encoder":
            self._inputs: Tensor = torch.from_numpy(random.integers(0, 40, (SAMPLES, 12)))
        else:
            self._inputs = torch.from_numpy(random.normal(size=(SAMPLES, 4, 6)).astype(np.float32))
        self._targets = self._inputs.flatten(1).double().sum(1).long() % 5

    uniform = True
    lengths = None

    def __len__(self) -> int:
        return SAMPLES

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [str(row) for row in rows]

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        return self._inputs[rows], self._targets[rows]


class Texts(SuccessorRows):
    """Random texts of 6 to 20 tokens, of which 1 to 5 are learned."""

    def __init__(self, seed: int = 2) -> None:
        random = np.random.default_rng(seed)
        rows = [random.integers(1, 40, random.integers(6, 21)) for _ in range(SAMPLES)]
        counts = random.integers(1, 6, SAMPLES)
        for row, count in zip(rows, counts.tolist(), strict=True):
            marks = random.permutation(len(row) - 1)[:count]
            row[marks] = ~row[marks]
        shard = TokenShard(
            tokens=np.concatenate(rows).astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
            labels=counts,
            ids=[str(number) for number in range(SAMPLES)],
        )
        super().__init__(shard, padding=0)

    lengths = None  # the same batches as in the other cases


class Pairs(PreferenceRows):
    """The same with other texts beside them; what a base would think of them is made up."""

    def __init__(self) -> None:
        reference = np.random.default_rng(5).normal(-20, 3, (SAMPLES, 2))
        super().__init__([Texts(), Texts(seed=4)], reference, padding=0)


def open_rows(model: str) -> TrainingSet:
    """What `model` trains on."""
    if model == "pairs":
        return Pairs()
    return Texts() if model == "decoder" else Rows(model)


def expected_targets(model: str) -> list[int]:
    """Targets that count in each step, over all ranks."""
    data, count = open_rows(model), target_counter(open_rows(model))
    sampler = Sampler(samples=len(data), batch_size=BATCH, seed=_SEED)
    epochs = range(STEPS // sampler.steps_per_epoch)
    orders = [sampler.order(epoch) for epoch in epochs]
    return [count(sampler.rows(order, step)) for order in orders for step in range(sampler.steps_per_epoch)]


def build_model(name: str) -> nn.Module:
    torch.manual_seed(11)
    if name == "pairs":
        return recurrent_decoder.build_model(
            network="gru", vocabulary=40, width=32, depth=2, dropout=0.0, padding=0, end=2
        )
    if name == "decoder":
        return build_causal_model(
            base=None,
            scratch={
                "vocabulary": 40,
                "tokens": 32,
                "width": 32,
                "depth": 2,
                "dropout": 0.0,
                "padding": 0,
                "end": 2,
            },
        )
    if name == "mlp":
        return mlp.build_model(features=24, classes=5, hidden=32, depth=4, dropout=0.0)
    return transformer_encoder.build_model(
        vocabulary=40, tokens=12, classes=5, width=32, heads=4, depth=4, dropout=0.0
    )


def run_phases(folder: Path, phases: Sequence[Phase] = PHASES) -> None:
    """Run all cases and moves; each leaves `folder/NAME/` with checkpoints and `reports.json`."""
    for number, phase in enumerate(phases):
        mp.spawn(_work, args=(phase, number, folder), nprocs=phase.ranks)


def final_weights(folder: Path, name: str, model: str) -> dict[str, Tensor]:
    """The whole model's weights after all steps of a case or move."""
    return read_weights(folder / name, step=STEPS, model=build_model(model))


def largest_error(folder: Path, name: str, reference: Case) -> float:
    """Largest difference of a weight from the one-process run with the same model and precision."""
    wanted = final_weights(folder, reference.name, reference.model)
    found = final_weights(folder, name, reference.model)
    return max(float((found[key] - value).abs().max()) for key, value in wanted.items())


def reference_of(case: Case) -> Case:
    """The one-process run that `case` must equal."""
    return Case(strategy="single", ranks=1, precision=case.precision, model=case.model)


def _work(rank: int, phase: Phase, number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    rendezvous = f"file://{folder}/rendezvous-{number}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=phase.ranks)
    try:
        for case in phase.cases:
            _run(case, folder / case.name)
            _run(case, folder / f"{case.name}-again")
        for move in phase.moves:
            _run(move.to, folder / move.name, resume=folder / move.origin.name)
    finally:
        dist.destroy_process_group()


def _run(case: Case, folder: Path, *, resume: Path | None = None) -> None:
    section = DistributedSection(
        strategy=case.strategy,  # type: ignore[arg-type]
        ranks=case.ranks,
        **({"mesh": case.mesh} if case.mesh else {}),  # type: ignore[arg-type]
        stages_per_rank=case.stages,
    ).model_dump()
    mesh = build_mesh(mesh_shape(section), device=torch.device("cpu"))
    strategy = build_strategy(
        build_model(case.model),
        section,
        mesh=mesh,
        precision=case.precision,
        batch_size=BATCH,
        micro_batch_size=case.micro,
    )
    rate = 1e-3
    optimizers = build_optimizers(
        strategy.module,
        Optimizer(name="adamw", learning_rate=rate, weight_decay=0.02).model_dump(),
        layers=list_layers(build_model(case.model)),
    )
    update = Update(
        strategy.module,
        optimizers,
        strategy.communication,
        mesh,
        precision=case.precision,
        max_gradient_norm=MAX_NORM,
    )
    saved, saver = Saved(module=strategy.module, optimizers=optimizers), Saver(folder, keep=2)
    step = 0
    if resume:
        _keep_only_half(resume, folder)
        step = load_newest_checkpoint(folder, saved, on_damage=_refuse_damage)
        assert step == HALF
    sampler = Sampler(samples=SAMPLES, batch_size=BATCH, seed=_SEED)
    schedule = build_schedule(
        Schedule(name="cosine", warmup_fraction=0.1).model_dump(),
        steps=STEPS,
        steps_per_epoch=sampler.steps_per_epoch,
    )
    loss = {"name": "cross-entropy", "label_smoothing": 0.1, "class_weights": None, "beta": 1.0}
    own = {"decoder": build_token_loss, "pairs": build_preference_loss}
    build = own.get(case.model, build_loss)
    reports = []
    with closing(saver):
        for report in train_steps(
            TrainState(strategy=strategy, update=update, average=None, step=step),
            feed=Feed(
                open_rows(case.model),
                sampler,
                strategy,
                mesh,
                micro_batch_size=case.micro,
                seed=_SEED,
                steps=STEPS,
            ),
            loss_sum=build(loss, training=True),
            rate_at=lambda step: rate * schedule(step),
            mesh=mesh,
            seed=_SEED,
        ):
            spoken = float(report.loss_sum) if report.targets else 0.0
            reports.append([report.step, spoken, report.targets, float(report.gradient_norm)])
            if report.step in (HALF, STEPS):
                saver.save(saved, step=report.step, memory={}, also_keep=list)
    (folder / f"reports-{mesh.rank}.json").write_text(json.dumps(reports))


def _keep_only_half(origin: Path, folder: Path) -> None:
    """Point `folder` at the checkpoint of `origin` after half of the steps."""
    if dist.get_rank() == 0:
        folder.mkdir()
        (folder / f"{HALF:08d}").symlink_to(origin / f"{HALF:08d}")
    dist.barrier()


def _refuse_damage(message: str) -> None:
    raise AssertionError(message)

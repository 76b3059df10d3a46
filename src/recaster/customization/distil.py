"""Knowledge distillation: a smaller model learns from a larger one's answers (Hinton et al. 2015).

training     tokens → student ─► logits ┐
                    └─ teacher ─► logits ┴► (rows, 2 x classes + 1): student's, teacher's, distance of layers
otherwise    tokens → student ─► logits (rows, classes)

The distance is the mean square over width, tokens that count and layers (Jiao et al. 2020), one a row.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.customization.protocol import PlainMethod
from recaster.models.losses import LossSum
from recaster.models.open_models import OpenModel, Traced

TEACHER = "teacher."
"""How the names of the teacher's parameters begin: they are neither trained nor kept."""


class Distilled(nn.Module):
    """A student beside its frozen teacher.

    Args:
        pairs: blocks of the student and of the teacher (from 0) whose outputs are compared; none compares
            the logits alone.
        widths: of the student's and the teacher's blocks; where they differ the student's outputs pass a
            trained projection before they are compared.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        pairs: Sequence[tuple[int, int]],
        widths: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.student, self.teacher, self._pairs = student, teacher.requires_grad_(False), list(pairs)
        self.project = nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths)

    def train(self, mode: bool = True) -> Distilled:
        """As for any module, but the teacher always answers as it would in use."""
        super().train(mode)
        self.teacher.eval()
        return self

    def layers(self) -> list[str]:
        """The student's."""
        student = self.student
        inner = (
            student.layers()
            if isinstance(student, OpenModel)
            else [name for name, _ in student.named_children()]
        )
        return [f"student.{name}" for name in inner]

    def forward(self, inputs: Tensor) -> Tensor:
        """See the module's picture."""
        if not self.training:
            told: Tensor = self.student(inputs)
            return told
        if not self._pairs:
            with torch.no_grad():
                wanted = self.teacher(inputs)
            return torch.cat([self.student(inputs), wanted, wanted.new_zeros(len(wanted), 1)], 1)
        logits, states, mask = self.student.trace(inputs)  # type: ignore[operator]
        with torch.no_grad():
            wanted, wanted_states, _ = self.teacher.trace(inputs)  # type: ignore[operator]
        share = mask / mask.sum(1, keepdim=True)
        apart = [
            (torch.square(self.project(states[own]) - wanted_states[other]).float().mean(-1) * share).sum(1)
            for own, other in self._pairs
        ]
        return torch.cat([logits.float(), wanted.float(), torch.stack(apart, 1).mean(1, keepdim=True)], 1)


class Distil(PlainMethod):
    """Train a student on the labels and on what its teacher says; the student alone comes out."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """A student made from the base `model` and the plan's teacher, beside that teacher."""
        section = plan["customize"]["distil"]
        _check_labels(plan)
        _check_tokens(plan)
        workload = importlib.import_module(plan["workload_module"]).WORKLOAD
        teacher: nn.Module = workload.build_model({**plan, "base": plan["teacher"]})
        student = model if section["layers"] is None else _shorten(model, teacher, section["layers"])
        if not section["hidden_weight"]:
            return Distilled(student, teacher, [])
        if not (isinstance(student, OpenModel) and isinstance(teacher, OpenModel)) or not (
            isinstance(student, Traced) and isinstance(teacher, Traced)
        ):
            raise RecipeError(
                "This architecture does not show its layers' outputs.",
                where="customize.distil.hidden_weight",
                value=f"{section['hidden_weight']} with {type(student).__name__}",
                repair="set it to 0: the logits alone are compared",
            )
        pairs = list(enumerate(choose_layers(len(teacher.blocks()[1]), len(student.blocks()[1]))))
        return Distilled(student, teacher, pairs, (student.config.hidden_size, teacher.config.hidden_size))

    def merge(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """The student."""
        student: nn.Module = model.student  # type: ignore[assignment]
        return student

    def build_loss(self, loss_sum: LossSum, plan: Mapping[str, Any]) -> LossSum:
        """Labels, the teacher's probabilities at the temperature, and the layers, each by its weight."""
        section = plan["customize"]["distil"]
        share, heat, hidden = section["logits_weight"], section["temperature"], section["hidden_weight"]

        def mixed(outputs: Tensor, targets: Tensor) -> Tensor:
            classes = outputs.shape[1] // 2
            student, teacher, distance = outputs.split([classes, classes, 1], 1)
            told = F.kl_div(
                F.log_softmax(student / heat, 1),
                F.log_softmax(teacher / heat, 1),
                reduction="sum",
                log_target=True,
            )
            # heat² keeps the gradient's size whatever the temperature (Hinton et al. 2015, section 2).
            labels = loss_sum(student, targets)
            loss: Tensor = (1 - share) * labels + share * heat**2 * told + hidden * distance.sum()
            return loss

        return mixed


def choose_layers(of: int, wanted: int) -> list[int]:
    """`wanted` layers (from 0) out of `of`, evenly, the last one among them.

    Raises:
        RecipeError: there are not so many.
    """
    if wanted > of:
        raise RecipeError(
            "The student cannot have more layers than there are.",
            where="customize.distil.layers",
            value=f"{wanted} of {of}",
            repair=f"choose 1 to {of}",
        )
    return [(number + 1) * of // wanted - 1 for number in range(wanted)]


def _shorten(base: nn.Module, teacher: nn.Module, layers: int) -> nn.Module:
    """The student: the teacher's layers and head under the base's embeddings, where these fit."""
    if not isinstance(base, OpenModel) or not isinstance(teacher, OpenModel):
        raise RecipeError(
            "Layers can be taken from models with a list of like layers only.",
            where="customize.distil.layers",
            value=f"{layers} of {type(base).__name__}",
            repair="remove it: the student is then the base as it is",
        )
    fits = base.config.model_type == teacher.config.model_type and _shapes(base) == _shapes(teacher)
    student = copy.deepcopy(teacher) if fits else base
    student.keep_blocks(choose_layers(len(student.blocks()[1]), layers))
    if fits:
        for name in base.embeddings():
            student.get_submodule(name).load_state_dict(base.get_submodule(name).state_dict())
    return student


def _shapes(model: OpenModel) -> list[torch.Size]:
    """Of the embeddings."""
    return [value.shape for name in model.embeddings() for value in model.get_submodule(name).parameters()]


def _check_tokens(plan: Mapping[str, Any]) -> None:
    """Teacher and student read the same tokens; nothing to check where there are none."""
    own = Path(plan["base"]) if plan["base"] else Path(plan["prepared"]) / "tokenizer"
    files = [folder / "tokenizer.json" for folder in (own, Path(plan["teacher"]))]
    known = [read_json(file)["model"]["vocab"] for file in files if file.exists()]
    if len(known) == len(files) and known[0] != known[1]:
        raise RecipeError(
            "Teacher and student do not read the same tokens.",
            where="customize.distil.teacher",
            value=f"vocabularies of {len(known[1])} and {len(known[0])} tokens",
            repair="use a teacher that was trained from a base with the student's tokenizer",
        )


def _check_labels(plan: Mapping[str, Any]) -> None:
    """The teacher was trained for the recipe's labels, in their order."""
    told = read_json(Path(plan["teacher"]) / "config.json")
    numbered = told.get("id2label") or {}
    labels = told.get("labels") or [numbered[key] for key in sorted(numbered, key=int)]
    wanted = read_json(Path(plan["prepared"]) / "splits.json").get("labels")
    if wanted is None or labels != wanted:
        raise RecipeError(
            "The teacher was not trained for these labels.",
            where="customize.distil.teacher",
            value=f"it knows {', '.join(labels) or 'none'}",
            repair=f"train one for {', '.join(wanted or []) or 'labels'}, in this order",
        )


METHOD = Distil()

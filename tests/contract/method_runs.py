"""One small training run of every customization method, over a tiny text model made here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recaster import pipeline
from recaster.core.progress import SilentReporter
from recaster.core.seeds import derive_seed
from recaster.core.steps import StepResult
from recaster.customization.build import load_merged, load_trained
from recaster.pipeline.inputs import training_plan
from recaster.pipeline.model_verbs import compute_features
from recaster.training.journal import read_journal

OPTIONS: dict[str, list[str]] = {
    "bitfit": [],
    "distil": ["customize.distil={teacher: 'path:teacher', teacher_licence: Apache-2.0, layers: 1}"],
    "full": [],
    "lora": ["customize.lora.rank=4"],
    "probe": [],
    "prune": ["customize.prune={structure: neurons, fraction: 0.5}"],
    "quantize": [],
}
"""What each method needs beside its name."""
VARIANTS = {
    "lora": ["customize.lora={rank: 4, variant: dora}"],
    "prune": ["customize.prune={structure: weights, fraction: 0.5}"],
    "distil": ["customize.distil={teacher: 'path:teacher', teacher_licence: Apache-2.0, hidden_weight: 0}"],
}
"""Another form of a method."""
_RECIPE = """
name: tiny
workload: text-classification
accept_licences: [Apache-2.0]
data:
  source: builtin:synthetic-requests
  licence: Apache-2.0
  labels: [weather, alarm, music, message]
  text: { max_tokens: 24 }
split: { seed: 1, validation: 0.1, test: 0.1 }
model: { base: 'path:base', licence: Apache-2.0 }
train:
  seed: 1
  epochs: 2
  batch_size: 64
  record_every_steps: 1
  checkpoint_every_steps: 15
  optimizer: { name: adamw, learning_rate: 0.005 }
distributed: { strategy: single, ranks: 1 }
gate:
  bars: [{ metric: accuracy, min: 0.1 }]
  champion: { metric: accuracy }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method's cast, and its run."""

    cast: pipeline.Cast
    plan: dict[str, Any]
    run_dir: Path

    @property
    def weights(self) -> Path:
        """What training left."""
        return self.run_dir / "weights.safetensors"

    def losses(self) -> list[float]:
        """Of each step."""
        return [r["loss"] for r in read_journal(self.run_dir / "journal.jsonl") if r["kind"] == "train"]

    def trained(self) -> torch.nn.Module:
        """The model as it was trained, in the mode of use."""
        return load_trained(self.cast.workload, self.plan, self.weights)

    def merged(self) -> torch.nn.Module:
        """The model in its usual form."""
        return load_merged(self.cast.workload, self.plan, self.weights)

    def batch(self) -> torch.Tensor:
        """Rows of the validation split."""
        split = self.cast.workload.open_split(Path(self.plan["prepared"]), "validation", self.plan)
        inputs: torch.Tensor = split.batch(torch.arange(16).numpy(), seed=None)[0]
        return inputs

    def answers(self, model: torch.nn.Module) -> torch.Tensor:
        """Logits of `batch`, whatever the method trains on."""
        whole = getattr(model, "model", model)  # a probe's head alone takes features
        with torch.no_grad():
            logits: torch.Tensor = whole.eval()(self.batch())
        return logits


def make_project(folder: Path, *, labels: list[str]) -> Path:
    """A project with a recipe, a base model and a teacher, both of two layers and with random weights."""
    from recaster.data.synthetic import make_requests
    from recaster.data.tokenizers import train_byte_pairs

    folder.mkdir(parents=True)
    recipe = folder / "tiny.yaml"
    recipe.write_text(_RECIPE)
    texts = [record.text for record in make_requests()]
    for name in ("base", "teacher"):
        train_byte_pairs(texts, vocabulary=400, folder=folder / name)
    write_model(folder / "base", seed=1)
    write_model(folder / "teacher", seed=2, labels=labels)
    return recipe


def write_model(folder: Path, *, seed: int, labels: list[str] | None = None, **changes: Any) -> None:
    """A BERT with random weights: an encoder, or a classifier into `labels`."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    names = {"id2label": dict(enumerate(labels)), "num_labels": len(labels)} if labels else {}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model(
        "bert", vocab_size=400, max_position_embeddings=64, **{**sizes, **changes}, **names
    )
    torch.manual_seed(derive_seed(seed, "tests"))
    kind = AutoModelForSequenceClassification if labels else AutoModel
    kind.from_config(config).save_pretrained(folder)


def plan_method(recipe: Path, name: str, options: list[str], folder: Path) -> Method:
    """The run of method `name`, planned in `folder` and not trained yet."""
    cast = pipeline.open_cast(recipe, [f"customize.method={name}", *options])
    prepared = pipeline.run_to(cast, "prepare", SilentReporter())
    features: StepResult | None = compute_features(cast, prepared, SilentReporter())
    plan = training_plan(cast, prepared, features)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    return Method(cast=cast, plan=plan, run_dir=folder)

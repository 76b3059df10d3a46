"""A language model as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import mlflow

PACKAGES = ("mlflow", "pandas", "safetensors", "tokenizers", "torch", "transformers")
"""What must be installed where the model is served."""
_GUESSES = 5


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    inputs = Schema([ColSpec("string", "text")])
    if json.loads((artifact / "preprocessing.json").read_text())["objective"] == "causal":
        measured = Schema(
            [
                ColSpec("long", "tokens"),
                ColSpec("double", "nats_a_token"),
                ColSpec("double", "perplexity"),
                ColSpec("string", "continuation"),
            ]
        )
        asked = ParamSchema([ParamSpec("max_new_tokens", "long", 0)])
        return ModelSignature(inputs, measured, asked), pd.DataFrame({"text": ["A text to go on with."]})
    tokenizer = AutoTokenizer.from_pretrained(artifact, local_files_only=True)
    guessed = Schema(
        [ColSpec(Array(Array("string")), "guesses"), ColSpec(Array(Array("double")), "probabilities")]
    )
    example = pd.DataFrame({"text": [f"A text with a {tokenizer.mask_token} in it."]})
    return ModelSignature(inputs, guessed), example


class LanguageModel(PythonModel):
    """Texts in; how well a causal model foresees them and goes on, or what a masked one puts into gaps."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load tokenizer and weights from the artifact."""
        folder = Path(context.artifacts["model"])
        told: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        self.longest, self.causal = told["max_tokens"], told["objective"] == "causal"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.own = (folder / "modeling.py").exists()
        self.model: Any = (
            _open_own(folder) if self.own else _open_network(folder, causal=self.causal)
        ).eval()

    @torch.no_grad()
    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A row for each text in column `text`; what is longer than a training row is cut."""
        new = int((params or {}).get("max_new_tokens", 0))
        texts = [str(text) for text in model_input["text"]]
        return pd.DataFrame([self._foresee(text, new) if self.causal else self._fill(text) for text in texts])

    def _encode(self, text: str) -> torch.Tensor:
        tokens: torch.Tensor = self.tokenizer(
            text,
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
            add_special_tokens=not self.causal,
        )["input_ids"]
        return tokens

    def _foresee(self, text: str, new: int) -> dict[str, Any]:
        tokens = self._encode(text)
        learned = tokens.shape[1] - 1
        nats = math.nan
        if learned > 0:
            found = self.model(tokens) if self.own else self.model(input_ids=tokens).logits
            nats = float(F.cross_entropy(found[0, :-1], tokens[0, 1:]))
        told = {"tokens": max(learned, 0), "nats_a_token": nats, "perplexity": math.exp(min(nats, 700.0))}
        return {**told, "continuation": self._write(tokens, new) if new and tokens.shape[1] else ""}

    def _write(self, tokens: torch.Tensor, new: int) -> str:
        written = self.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
        )
        text: str = self.tokenizer.decode(written[0, tokens.shape[1] :], skip_special_tokens=True)
        return text

    def _fill(self, text: str) -> dict[str, Any]:
        tokens = self._encode(text)
        places = (tokens[0] == self.tokenizer.mask_token_id).nonzero()[:, 0]
        shares = self.model(input_ids=tokens).logits[0, places].softmax(-1).topk(_GUESSES)
        guesses = [[self.tokenizer.decode([one]).strip() for one in row] for row in shares.indices.tolist()]
        return {"guesses": guesses, "probabilities": shares.values.double().tolist()}


def _open_network(folder: Path, *, causal: bool) -> Any:
    kind = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    return kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32)


def _open_own(folder: Path) -> torch.nn.Module:
    """A network with its own source beside it."""
    from safetensors.torch import load_file

    spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "modeling.py")
    modeling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(modeling)
    network: torch.nn.Module = modeling.build_model(
        **json.loads((folder / "config.json").read_text())["arguments"]
    )
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network


mlflow.models.set_model(LanguageModel())

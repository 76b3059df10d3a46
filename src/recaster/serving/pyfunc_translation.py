"""A translation model as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

import mlflow

PACKAGES = ("mlflow", "pandas", "safetensors", "tokenizers", "torch", "transformers")
"""What must be installed where the model is served."""
_BATCH_ROWS = 32


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    direction = json.loads((artifact / "preprocessing.json").read_text())["directions"][0]
    told = _read_search(artifact)
    signature = ModelSignature(
        Schema([ColSpec("string", "text"), ColSpec("string", "direction", required=False)]),
        Schema([ColSpec("string", "translation"), ColSpec("string", "direction")]),
        ParamSchema(
            [
                ParamSpec("beams", "long", told["beams"]),
                ParamSpec("length_penalty", "double", told["length_penalty"]),
                ParamSpec("temperature", "double", 0.0),
                ParamSpec("top_p", "double", 1.0),
                ParamSpec("seed", "long", 0),
            ]
        ),
    )
    return signature, pd.DataFrame({"text": ["A text to translate."], "direction": [direction]})


class TranslationModel(PythonModel):
    """Texts in, their translations out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load tokenizer and weights from the artifact."""
        folder = Path(context.artifacts["model"])
        told: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        self.directions, self.longest = told["directions"], told["max_tokens"]
        self.prefixes: dict[str, str] = told["prefixes"]
        config = json.loads((folder / "config.json").read_text())
        self.search = _read_search(folder)
        self.writer: _OwnWriter | _OpenWriter = (
            _OwnWriter(folder, config) if "arguments" in config else _OpenWriter(folder)
        )

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A translation of each text in column `text`; at temperature 0 the one that the search finds.

        The column `direction`, such as en-de, may be left out where the model has one.
        """
        texts = [str(text) for text in model_input["text"]]
        named = model_input.get("direction")
        directions = self._check([None] * len(texts) if named is None else list(named))
        search = {**self.search, **(params or {})}
        written: list[str] = [""] * len(texts)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(order), _BATCH_ROWS):
            rows = order[start : start + _BATCH_ROWS]
            found = self.writer.write(
                [self.prefixes.get(directions[row], "") + texts[row] for row in rows],
                [directions[row] for row in rows],
                longest=self.longest,
                **search,
            )
            for row, text in zip(rows, found, strict=True):
                written[row] = text
        return pd.DataFrame({"translation": written, "direction": directions})

    def _check(self, named: list[Any]) -> list[str]:
        directions = [self.directions[0] if one is None or one != one else str(one) for one in named]  # noqa: PLR0124 - NaN
        if unknown := sorted(set(directions) - set(self.directions)):
            raise ValueError(f"direction {unknown[0]!r} is none of {', '.join(self.directions)}")
        return directions


def _read_search(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / "generation_config.json").read_text())
    return {"beams": int(told.get("num_beams", 1)), "length_penalty": float(told.get("length_penalty", 1.0))}


class _OwnWriter:
    """A network with its own source beside it, over the tokens of the tokenizers library."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(folder / "modeling.py")
        self.modeling: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.modeling)
        self.model = self.modeling.build_model(**config["arguments"]).eval()
        self.model.load_state_dict(load_file(folder / "model.safetensors"))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tags: dict[str, int] = config["tags"]

    def write(
        self,
        texts: list[str],
        directions: list[str],
        *,
        longest: int,
        beams: int,
        length_penalty: float,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        sides = [direction.split("-") for direction in directions]
        end, padding = self.model.end, self.model.padding
        rows = [
            [self.tags[language], *self._encode(text)[: longest - 2], end]
            for text, (language, _) in zip(texts, sides, strict=True)
        ]
        widest = max(map(len, rows))
        source = torch.tensor([[*row, *[padding] * (widest - len(row))] for row in rows])
        starts = torch.tensor([self.tags[language] for _, language in sides])
        if temperature:
            written = self.modeling.write_tokens(
                self.model, source, starts, longest=longest, temperature=temperature, top_p=top_p, seed=seed
            )
        else:
            written = self.modeling.write_beams(
                self.model, source, starts, beams=beams, length_penalty=length_penalty, longest=longest
            )
        return [self.tokenizer.decode(row).strip() for row in written]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


class _OpenWriter:
    """A model of the transformers library."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = AutoModelForSeq2SeqLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        ).eval()

    @torch.no_grad()
    def write(
        self,
        texts: list[str],
        directions: list[str],  # noqa: ARG002 - the prefix has told it
        *,
        longest: int,
        beams: int,
        length_penalty: float,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        told = self.tokenizer(texts, truncation=True, max_length=longest, padding=True, return_tensors="pt")
        search: dict[str, Any] = {"do_sample": False, "num_beams": beams}
        if temperature:
            torch.manual_seed(seed)
            search = {"do_sample": True, "temperature": temperature, "top_p": top_p, "num_beams": 1}
        elif beams > 1:
            search["length_penalty"] = length_penalty
        written = self.model.generate(
            input_ids=told["input_ids"],
            attention_mask=told["attention_mask"],
            max_new_tokens=longest,
            **search,
        )
        texts_out: list[str] = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [text.strip() for text in texts_out]


mlflow.models.set_model(TranslationModel())

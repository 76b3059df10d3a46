"""Artifacts as graphs to export, with batches to check them on.

texts      input_ids (and attention_mask for transformers)  (batch, length) int64
pictures   see `picture_graphs`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.data.token_shards import read_token_shard
from recaster.exporting.onnx import LOGITS, LOGITS_BORNE, Graph, Inputs
from recaster.exporting.picture_graphs import read_picture_graph
from recaster.models.word_vectors import load_text_network

_BATCH_ROWS, _MOST_ROWS = 32, 1024
_SHAPES = ((2, 9), (1, 3), (5, 24), (3, 17))
"""Rows and tokens of made-up batches."""
_TOKENS, _MASK = "input_ids", "attention_mask"


def read_graph(artifact: Path, prepared: Path | None) -> Graph:
    """The model of an artifact's folder, and batches of its kind.

    Args:
        prepared: the folder of the data that it was trained on, where that is at hand: its validation
            rows are the batches, else made-up ones are.

    Raises:
        RecipeError: there is no such graph of this kind of model.
    """
    about, config = read_json(artifact / "preprocessing.json"), read_json(artifact / "config.json")
    if about["kind"] == "text":
        return _read_text(artifact, about, config, prepared)
    if about["kind"] in ("image", "boxes", "noise"):
        return read_picture_graph(artifact, about, prepared)
    raise _no_graph(artifact, about["kind"])


def _read_text(artifact: Path, about: dict[str, Any], config: dict[str, Any], prepared: Path | None) -> Graph:
    names: tuple[str, ...] = (_TOKENS,)
    if "architecture" in config:
        network: nn.Module = _OfTokens(load_text_network(artifact))
        arguments = config["arguments"]
        vocabulary = arguments.get("size", arguments)["vocabulary"]
        padding = arguments["padding"]
    else:
        network, names = _Network(_load_transformers(artifact)), (_TOKENS, _MASK)
        vocabulary, padding = config["vocab_size"], config.get("pad_token_id") or 0
    batches = _read_texts(prepared) if prepared else _make_texts(vocabulary, about["max_tokens"], padding)
    return Graph(
        module=network.eval(),
        examples=[{name: batch[name] for name in names} for batch in batches],
        free={name: {0: "batch", 1: "length"} for name in names},
        outputs={LOGITS: LOGITS_BORNE},
        static=False,
        real=prepared is not None,
    )


def _load_transformers(artifact: Path) -> nn.Module:
    from transformers import AutoModelForSequenceClassification

    network: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        artifact, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    return network


def _no_graph(artifact: Path, value: str) -> RecipeError:
    return RecipeError(
        "Models of this kind have no ONNX form here.",
        where=str(artifact),
        value=value,
        repair="use --format hf",
    )


class _OfTokens(nn.Module):
    """A network of this package, which tells by the tokens what fills up."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits `(batch, labels)`."""
        logits: Tensor = self.network(input_ids)
        return logits


class _Network(nn.Module):
    """A transformers classifier from its tensors to its logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `(batch, labels)`."""
        logits: Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def _read_texts(prepared: Path) -> list[Inputs]:
    """The validation split, as it is in order of length: batches of many shapes."""
    shard, padding = read_token_shard(prepared, "validation"), read_json(prepared / "splits.json")["padding"]
    rows = np.linspace(0, len(shard.labels) - 1, min(_MOST_ROWS, len(shard.labels))).astype(np.int64)
    pieces = [rows[start : start + _BATCH_ROWS] for start in range(0, len(rows), _BATCH_ROWS)]
    return [_to_inputs(shard.padded(piece, padding), padding) for piece in pieces]


def _make_texts(vocabulary: int, longest: int, padding: int) -> list[Inputs]:
    """Random tokens, the later rows of a batch ever shorter."""
    chosen, batches = np.random.default_rng(0), []
    for rows, tokens in _SHAPES:
        made = chosen.integers(0, vocabulary, (rows, min(tokens, longest)))
        made[made == padding] = (padding + 1) % vocabulary
        for row in range(1, rows):
            made[row, max(1, made.shape[1] - row) :] = padding
        batches.append(_to_inputs(made, padding))
    return batches


def _to_inputs(tokens: NDArray[np.int64], padding: int) -> Inputs:
    return {_TOKENS: tokens, _MASK: (tokens != padding).astype(np.int64)}

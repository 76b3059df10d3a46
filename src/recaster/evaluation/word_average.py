"""A simple baseline beside every text classifier: the mean of trained word vectors, and a linear layer.

Trained on the same split and tokens, without order or context (fastText's classifier without n-grams, Joulin
et al. 2017). What a model does not do better than this it did not need its layers for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.files import read_json
from recaster.core.seeds import derive_seed
from recaster.core.targets import OUT_OF_SCOPE
from recaster.data.token_shards import TokenShard, read_token_shard, take_rows
from recaster.evaluation.metrics import classification_metrics, measure
from recaster.evaluation.scope import add_scope
from recaster.models.losses import to_probabilities
from recaster.recipe.evaluation import EvaluateSection

_WIDTH, _BATCH_ROWS, _RATE = 64, 64, 0.005
_EPOCHS, _MOST_STEPS = 20, 4000
"""The steps bound the time, to some seconds, however large the split is."""
_PATIENCE = 3
_SPREAD = 0.1
_METRICS = ("accuracy", "macro_f1", "micro_f1", "out_of_scope_auroc")


def measure_word_average(prepared: Path, section: EvaluateSection, *, seed: int) -> dict[str, Any]:
    """Train it on the prepared training split, stop by the validation split, measure on the test split.

    Returns:
        `model` in words, `parameters`, and `metrics` as `metrics.measure` has them.
    """
    about, train = read_json(prepared / "splits.json"), read_token_shard(prepared, "train")
    known = train if train.labels.ndim > 1 else take_rows(train, np.flatnonzero(train.labels != OUT_OF_SCOPE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "word-average"))
        model = _WordAverage(about["vocabulary"], len(about["labels"]))
        with torch.enable_grad():
            _fit(model, known, read_token_shard(prepared, "validation"))
    test = read_token_shard(prepared, "test")
    probabilities = _answer(model, test)
    if about.get("out_of_scope"):
        probabilities = add_scope(probabilities, 0.0)
    functions = {name: f for name, f in classification_metrics(section).items() if name in _METRICS}
    return {
        "model": "mean of word vectors and a linear layer, trained on the same split",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "metrics": measure(probabilities, test.labels, functions, section),
    }


class _WordAverage(nn.Module):
    def __init__(self, vocabulary: int, labels: int) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(vocabulary, _WIDTH, mode="mean")
        nn.init.normal_(self.vectors.weight, std=_SPREAD)
        self.head = nn.Linear(_WIDTH, labels)

    def forward(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """Logits of texts that stand one after another, each from its start."""
        logits: Tensor = self.head(self.vectors(tokens, starts))
        return logits


def _fit(model: _WordAverage, train: TokenShard, validation: TokenShard) -> None:
    """With the weights of the epoch that had the best validation."""
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    several, steps = train.labels.ndim > 1, 0
    best, kept, worse = -np.inf, {name: value.clone() for name, value in model.state_dict().items()}, 0
    for _ in range(_EPOCHS):
        for rows in torch.randperm(len(train.labels)).split(_BATCH_ROWS):
            logits, targets = model(*_flatten(train, rows.numpy())), torch.from_numpy(train.labels[rows])
            loss = (
                nn.functional.binary_cross_entropy_with_logits(logits, targets.to(logits))
                if several
                else nn.functional.cross_entropy(logits, targets)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (steps := steps + 1) == _MOST_STEPS:
                break
        found = _score(model, validation)
        worse = 0 if found > best else worse + 1
        if found > best:
            best, kept = found, {name: value.clone() for name, value in model.state_dict().items()}
        if worse == _PATIENCE or steps == _MOST_STEPS:
            break
    model.load_state_dict(kept)


def _score(model: _WordAverage, shard: TokenShard) -> float:
    """Share of right answers; rows out of scope, which lower all epochs alike, count as wrong."""
    told = _answer(model, shard)
    if shard.labels.ndim > 1:
        return float(((told > 0.5) == (shard.labels > 0)).mean())
    return float((told.argmax(1) == shard.labels).mean())


@torch.no_grad()
def _answer(model: _WordAverage, shard: TokenShard) -> NDArray[np.float64]:
    logits = model(*_flatten(shard, np.arange(len(shard.labels))))
    return to_probabilities(logits, torch.from_numpy(shard.labels)).numpy()


def _flatten(shard: TokenShard, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Tokens of `rows` one after another, and where each begins."""
    lengths = shard.lengths[rows]
    starts = np.concatenate([[0], lengths.cumsum()[:-1]]).astype(np.int64)
    places = np.repeat(shard.offsets[rows] - starts, lengths) + np.arange(int(lengths.sum()))
    return torch.from_numpy(np.asarray(shard.tokens[places], dtype=np.int64)), torch.from_numpy(starts)

"""Open models of the transformers library behind what the training loop knows: one tensor in, one out.

network    the transformers model itself: what is exported, and what peft changes
forward    (rows, tokens) token numbers → logits
encode     → what the head sees, `(rows, width)`: computed once when only the head is trained
decide     that → logits
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.models.loading import LoadReport


@runtime_checkable
class NamedHead(Protocol):
    """A model that knows which of its modules are its head: trained whole, beside adapters."""

    def head_names(self) -> list[str]:
        """Their names."""


@runtime_checkable
class Headed(NamedHead, Protocol):
    """A model whose head can be trained apart from its encoder."""

    def encode(self, inputs: Tensor) -> Tensor:
        """What the head sees, `(rows, width)`."""

    def decide(self, features: Tensor) -> Tensor:
        """Logits of `encode`'s result."""


@runtime_checkable
class Traced(Protocol):
    """A model that shows what its blocks make of an input."""

    def trace(self, inputs: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits, each block's output `(rows, tokens, width)`, and which tokens count, `(rows, tokens)`."""


@runtime_checkable
class Targeted(Protocol):
    """A model that knows which of its modules adapters go beside."""

    def adapter_targets(self) -> list[str]:
        """Their names."""


class OpenModel(nn.Module):
    """A transformers model; subclasses say what goes in and what comes out."""

    def __init__(self, network: nn.Module, report: LoadReport | None = None) -> None:
        super().__init__()
        self.network = network
        self.report = report
        """What became of the base's weights; None for fresh ones."""

    @property
    def config(self) -> Any:
        """The configuration of the transformers model."""
        return self.network.config

    def layers(self) -> list[str]:
        """Names of the modules that count as layers, from the input on: embeddings, blocks, the rest."""
        blocks_name, blocks = self.blocks()
        inside = [f"{blocks_name}.{number}" for number in range(len(blocks))]
        before, after = _around(self, blocks_name)
        return [*before, *inside, *after]

    def blocks(self) -> tuple[str, nn.ModuleList]:
        """The list of blocks, which holds most of the parameters, and its name."""
        lists = [(name, part) for name, part in self.named_modules() if isinstance(part, nn.ModuleList)]
        return max(lists, key=lambda found: sum(value.numel() for value in found[1].parameters()))

    def embeddings(self) -> list[str]:
        """Names of the modules before the first block."""
        return _around(self, self.blocks()[0])[0]

    def keep_blocks(self, numbers: Sequence[int]) -> None:
        """Drop all blocks but those of `numbers` (from 0), in the configuration too.

        Raises:
            RecipeError: the architecture uses its blocks more than once.
        """
        name, blocks = self.blocks()
        if self.config.num_hidden_layers != len(blocks):
            raise RecipeError(
                "The layers of this architecture cannot be dropped one by one.",
                where="model.base",
                value=f"{self.config.num_hidden_layers} layers from {len(blocks)} blocks",
                repair="use a base whose layers have weights of their own",
            )
        self.set_submodule(name, nn.ModuleList(blocks[number] for number in numbers))
        self.config.num_hidden_layers = len(numbers)
        if kinds := getattr(self.config, "layer_types", None):
            self.config.layer_types = [kinds[number] for number in numbers]


class TextClassifier(OpenModel):
    """A label for each text."""

    def __init__(self, network: nn.Module, *, padding: int, report: LoadReport | None = None) -> None:
        super().__init__(network, report)
        self.padding = padding

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(rows, labels)` of token numbers `(rows, tokens)`, filled up with the padding token."""
        logits: Tensor = self.network(input_ids=tokens, attention_mask=self._mask(tokens)).logits
        return logits

    def trace(self, inputs: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """See `Traced`."""
        mask = self._mask(inputs)
        told = self.network(input_ids=inputs, attention_mask=mask, output_hidden_states=True)
        return told.logits, list(told.hidden_states[1:]), mask

    def encode(self, inputs: Tensor) -> Tensor:
        """The first token's last hidden state, `(rows, width)`."""
        self._head()
        network: Any = self.network
        states: Tensor = network.base_model(
            input_ids=inputs, attention_mask=self._mask(inputs)
        ).last_hidden_state
        return states[:, 0]

    def decide(self, features: Tensor) -> Tensor:
        """Logits `(rows, labels)` of `encode`'s result."""
        network: Any = self.network
        kind = network.config.model_type
        if kind == "bert":
            pooled = network.bert.pooler(features[:, None])
            logits: Tensor = network.classifier(network.dropout(pooled))
        elif kind == "distilbert":
            logits = network.classifier(network.dropout(network.pre_classifier(features).relu()))
        else:  # RoBERTa's head picks the first token itself
            logits = network.classifier(features[:, None])
        return logits

    def head_names(self) -> list[str]:
        """The modules of `decide`."""
        return [f"network.{name}" for name in self._head()]

    def _head(self) -> Sequence[str]:
        heads = {
            "bert": ("bert.pooler", "classifier"),
            "distilbert": ("pre_classifier", "classifier"),
            "roberta": ("classifier",),
            "xlm-roberta": ("classifier",),
            "camembert": ("classifier",),
        }
        kind = self.config.model_type
        if kind not in heads:
            raise RecipeError(
                "This architecture's head cannot be trained apart from its encoder.",
                where="customize.method",
                value=f"probe with a model of type {kind}",
                repair=f"use lora or full, or a base of type {', '.join(heads)}",
            )
        return heads[str(kind)]

    def _mask(self, tokens: Tensor) -> Tensor:
        return (tokens != self.padding).long()


def build_text_classifier(
    *, base: Path | None, labels: Sequence[str], padding: int, scratch: Mapping[str, Any]
) -> TextClassifier:
    """A classifier into `labels` from the folder of a base model, or from fresh weights.

    Args:
        padding: the token that fills rows up.
        scratch: vocabulary, tokens, width, depth and dropout of a model without a base.

    Raises:
        RecipeError: the base has no such head, or its files are not those of its configuration.
    """
    from transformers import AutoModelForSequenceClassification

    names: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "pad_token_id": padding,
    }
    if base is not None:
        network, report = load_network(AutoModelForSequenceClassification, base, **names)
        return TextClassifier(network, padding=padding, report=report)
    config = small_bert(scratch, **names)
    return TextClassifier(AutoModelForSequenceClassification.from_config(config), padding=padding)


def small_bert(scratch: Mapping[str, Any], **options: Any) -> Any:
    """The configuration of a small BERT with fresh weights.

    Args:
        scratch: vocabulary, tokens, width, depth and dropout.
        options: other entries of the configuration.
    """
    from transformers import AutoConfig

    return AutoConfig.for_model(
        "bert",
        vocab_size=scratch["vocabulary"],
        max_position_embeddings=max(16, scratch["tokens"]),
        hidden_size=scratch["width"],
        num_hidden_layers=scratch["depth"],
        num_attention_heads=max(1, scratch["width"] // 32),
        intermediate_size=4 * scratch["width"],
        hidden_dropout_prob=scratch["dropout"],
        attention_probs_dropout_prob=scratch["dropout"],
        **options,
    )


def load_network(kind: Any, base: Path, **options: Any) -> tuple[nn.Module, LoadReport]:
    """A transformers model of Auto class `kind` from `base`, float32, without foreign code or pickles.

    Returns:
        It, and what became of the base's weights.

    Raises:
        RecipeError: the base is of another architecture.
    """
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # the report says the same
    try:
        network, told = kind.from_pretrained(
            base,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except (ValueError, OSError, KeyError) as error:
        raise RecipeError(
            f"The base is not a model for {kind.__name__.removeprefix('AutoModel')}.",
            where="model.base",
            value=f"{base}: {str(error).strip().splitlines()[0]}",
            repair="choose a base that `recaster models list` shows for this workload",
        ) from error
    finally:
        logging.set_verbosity(level)
    return network, _report(network, told)


def _report(network: nn.Module, told: Mapping[str, Any]) -> LoadReport:
    """transformers' own account of a loading as a report."""
    mismatched = [
        f"{name} (base {list(theirs)}, here {list(ours)})" for name, theirs, ours in told["mismatched_keys"]
    ]
    fresh = {*told["missing_keys"], *(entry[0] for entry in told["mismatched_keys"])}
    return LoadReport(
        loaded=tuple(name for name in network.state_dict() if name not in fresh),
        reinitialised=(*sorted(told["missing_keys"]), *sorted(mismatched)),
        ignored=tuple(sorted(told["unexpected_keys"])),
    )


def _around(model: nn.Module, blocks: str) -> tuple[list[str], list[str]]:
    """Modules with parameters beside the blocks on each level above them: those before, those after."""
    before: list[str] = []
    after: list[str] = []
    path = blocks.split(".")
    for depth in range(len(path)):
        level, own = ".".join(path[:depth]), path[depth]
        names = [name for name, _ in model.get_submodule(level).named_children()]
        full = [f"{level}.{name}".lstrip(".") for name in names]
        cut = names.index(own)
        before += full[:cut]
        after = full[cut + 1 :] + after
    kept = {name for name in (*before, *after) if any(True for _ in model.get_submodule(name).parameters())}
    return [name for name in before if name in kept], [name for name in after if name in kept]

"""Language modelling: continued pre-training of an open model on plain text of one's own.

note-0007  The pump is checked at six.
    causal   →   [~1996, ~10216, …, 102]        →   logits of what follows each token
    masked   →   [101, 1996, ~103, …, 102]      →   logits of what stood where a token is hidden
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_json
from recaster.data.document_shards import (
    SPLITS,
    check_tokens,
    open_document_rows,
    open_document_tokenizer,
    sum_by_document,
    write_about,
    write_document_shard,
)
from recaster.models.causal_models import (
    RECURRENT,
    build_decoder,
    check_recurrent,
    decoder_arguments,
    foreseeing,
    open_causal_model,
)
from recaster.models.loading import base_folder
from recaster.models.losses import LossSum, build_token_loss
from recaster.models.masked_models import (
    MaskedModel,
    build_masked_model,
    has_masked_head,
    open_masked_model,
)
from recaster.models.packed_rows import keep_apart
from recaster.models.recurrent_decoder import RecurrentDecoder
from recaster.models.token_scores import score_tokens
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_ARCHITECTURES = {"causal": ("small-decoder", *RECURRENT), "masked": ("small-encoder",)}
_NEW_HEAD = frozenset({"full", "quantize", "prune"})
"""Methods that train a head which the base does not have."""
_APART = "data.corpus.apart"
_TOKENIZER = "tokenizer"
"""Folder of the prepared data with the tokenizer's files, of a model without a base."""


class LanguageModelling:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "corpus"
    architectures = tuple(name for names in _ARCHITECTURES.values() for name in names)
    served_by = "pyfunc_language"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Length and odd characters of each document."""
        from recaster.data.contract import collect_facts
        from recaster.data.contract_text import FACTS, describe_text

        return collect_facts(raw, describe_text, FACTS)

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, unique, neither blank nor endless."""
        from recaster.data.contract_text import text_rules

        return text_rules(recipe.data, recipe.contract)

    def prepare(
        self, recipe: Recipe, raw: Path, accepted: NDArray[np.int64], base: Path | None, folder: Path
    ) -> dict[str, Any]:
        """Group equal documents, split, tokenize as the base does, cut into rows, write shards.

        Without a base a tokenizer is trained on the training split.
        """
        from recaster.data.packed import read_accepted
        from recaster.data.split import divide_records, group_texts
        from recaster.data.tokenizers import train_byte_pairs

        shape = stated(recipe.data.corpus)
        _check_architecture(recipe.model.base, shape.objective)
        records = read_accepted(raw, accepted)
        groups = group_texts([record.text for record in records])
        published = [record.split for record in records]
        splits, left_out = divide_records(
            np.zeros(len(records), dtype=np.int64), groups, published, recipe.split
        )
        if base is None:
            train_byte_pairs(
                [records[row].text for row in splits["train"].tolist()],
                vocabulary=recipe.model.vocabulary,
                folder=folder / _TOKENIZER,
                keep_case=shape.objective == "causal",
            )
        place = base or folder / _TOKENIZER
        tokenizer = open_document_tokenizer(place, masked=shape.objective == "masked")
        counts = {
            name: write_document_shard(
                folder, name, [records[row] for row in rows.tolist()], tokenizer=tokenizer, shape=shape
            )
            for name, rows in splits.items()
        }
        facts = {
            **{key: {name: found[key] for name, found in counts.items()} for key in counts["train"]},
            "duplicates": len(groups) - len(set(groups.tolist())),
            "left_out": left_out,
        }
        write_about(folder, tokenizer, place, shape, facts)
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """The size of a model without a base."""
        model = recipe.model
        size = {"width": model.width, "depth": model.depth, "dropout": model.dropout}
        architecture = model.base.removeprefix("scratch:") if model.from_scratch else None
        return {**size, "architecture": architecture, "tokens": stated(recipe.data.corpus).max_tokens}

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The base, or a small decoder or encoder with fresh weights."""
        from recaster.customization.base_bits import base_options

        about, scratch = read_json(Path(plan["prepared"]) / SPLITS), _scratch(plan)
        base = base_folder(plan)
        method = plan["customize"]["method"]
        if about["objective"] == "causal":
            causal = build_decoder(base=base, scratch=scratch, **base_options(plan))
            if isinstance(causal, RecurrentDecoder):
                check_recurrent(method, apart=_APART if about["apart"] else "")
            elif about["apart"]:
                keep_apart(causal, end=about["end"], method=method, where=_APART)
            return causal
        model = build_masked_model(base=base, scratch=scratch)
        if model.report and model.report.reinitialised and method not in _NEW_HEAD:
            raise RecipeError(
                "The base has no head for masked language modelling, and this method would not train one.",
                where="customize.method",
                value=f"{method}; fresh: {', '.join(model.report.reinitialised)}",
                repair="use method full, or a base with the head, such as what full has made of it",
            )
        if about["apart"]:
            keep_apart(model, end=about["end"], method=method, where=_APART)
        return model

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:  # noqa: ARG002
        """The split's tokens, memory-mapped."""
        return open_document_rows(folder, split)

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """One of the losses, over the learned tokens."""
        return build_token_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Learned tokens that are the best guess; what fills up is no token's number."""
        return (logits.argmax(2) == targets).sum()

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """A folder that transformers reads: weights, configuration, tokenizer."""
        from recaster.customization.build import load_trained
        from recaster.exporting.adapter_form import merge_beside_adapter
        from recaster.exporting.open_folder import write_open_folder
        from recaster.exporting.own_folder import write_own_network

        preprocessing = {"kind": self.kind, **stated(recipe.data.corpus).model_dump(exclude_unset=True)}
        trained = load_trained(self, plan, weights)
        model = merge_beside_adapter(trained, plan, folder, preprocessing=preprocessing)
        tokenizer = Path(plan["base"]) if plan["base"] else Path(plan["prepared"]) / _TOKENIZER
        if isinstance(model, RecurrentDecoder):
            arguments = decoder_arguments(plan["base"], _scratch(plan))
            write_own_network(folder, model=model, arguments=arguments, tokenizer=tokenizer)
        else:
            write_open_folder(folder, network=model.network, tokenizer=tokenizer)
        write_json(folder / "preprocessing.json", preprocessing)

    def predict(
        self, artifact: Path, prepared: Path, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Nats and hits of each document's learned tokens, and their number; of packed rows, each row's.

        Raises:
            RecipeError: the model has another tokenizer than the prepared data.
        """
        check_tokens(prepared, artifact)
        data = open_document_rows(prepared, split)
        model = _open_model(artifact, prepared)
        learned = np.array([data.targets_in(np.array([row])) for row in range(len(data))], dtype=np.int64)
        found = score_tokens(model, data.lengths, partial(data.batch, seed=None))
        return sum_by_document(prepared, split, found, learned)

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:  # noqa: ARG002
        """Perplexity and token accuracy."""
        from recaster.evaluation.token_report import TOKEN_METRICS

        return TOKEN_METRICS

    def report(
        self,
        recipe: Recipe,  # noqa: ARG002
        predictions: NDArray[np.float64],
        targets: NDArray[np.int64],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """How perplexity differs between rows; of a causal model also bits a byte of the text."""
        from recaster.evaluation.token_report import report_rows

        about = read_json(prepared / SPLITS)
        tables = report_rows(predictions, targets, folder, unit="text")
        if about["objective"] == "causal":
            tables["bits_a_byte"] = predictions[:, 0].sum() / np.log(2) / about["bytes"]["test"]
        return tables

    def answers(self, folder: Path, prepared: Path) -> bool:
        """A causal base was refused if it lacks weights; an encoder may have no head yet."""
        return read_json(prepared / SPLITS)["objective"] == "causal" or has_masked_head(folder)

    def write_samples(self, artifact: Path, prepared: Path, recipe: Recipe) -> dict[str, Any]:
        """How held-out texts go on by the model, or what it guesses where tokens are hidden."""
        from recaster.evaluation.language_samples import continue_texts, fill_gaps

        about, count = read_json(prepared / SPLITS), recipe.evaluate.samples
        write = continue_texts if about["objective"] == "causal" else fill_gaps
        return {"samples": write(_open_model(artifact, prepared), artifact, prepared, count)}


def _scratch(plan: dict[str, Any]) -> dict[str, Any]:
    """What a model with fresh weights is made of; of a base the size of its vocabulary."""
    about = read_json(Path(plan["prepared"]) / SPLITS)
    told = {name: about[name] for name in ("padding", "vocabulary", "end")}
    return {**plan["model_arguments"], **told}


def _check_architecture(base: str, objective: str) -> None:
    fit = [f"scratch:{name}" for name in _ARCHITECTURES[objective]]
    if base.startswith("scratch:") and base not in fit:
        raise RecipeError(
            f"This architecture is not for the objective {objective}.",
            where="model.base",
            value=base,
            repair=f"use {' or '.join(fit)}, or change data.corpus.objective",
        )


def _open_model(artifact: Path, prepared: Path) -> nn.Module:
    about = read_json(prepared / SPLITS)
    end = about["end"] if about["apart"] else None
    if about["objective"] == "causal":
        return foreseeing(open_causal_model(artifact), end=end).eval()
    return MaskedModel(open_masked_model(artifact), padding=about["padding"], end=end).eval()


WORKLOAD = LanguageModelling()

"""Text classification: one label a text.

request-0001  "weather"  will it rain in oslo   →   train.tokens.npy [101, 2097, …, 102]   →   4 probabilities
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.files import read_json, write_json
from recaster.core.targets import OUT_OF_SCOPE
from recaster.data.labels import count_labels, find_rarest, number_labels
from recaster.data.slice_groups import read_slice_groups, write_slice_groups
from recaster.data.token_shards import TokenRows, TokenShard, read_token_shard, take_rows, write_token_shard
from recaster.evaluation.scope import add_scope, check_scope, divide_scope, plot_scope
from recaster.models.losses import LossSum, build_loss, count_correct, to_probabilities
from recaster.models.open_models import OpenModel, TextClassifier
from recaster.models.text_models import NETWORKS, build_text_model, describe_network, network_name
from recaster.models.word_vectors import load_text_network
from recaster.recipe.data import SEPARATOR
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_BATCH_ROWS = 64
_MOST_UNLABELLED = 0.2
"""Share of records; above it they have several labels or none."""
_WORST = 24
"""Errors that are explained."""
_TOKENIZER = "tokenizer"
"""Folder of the prepared data with the tokenizer's files."""


class TextSet(TokenRows):
    """One split of tokenized texts."""

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Tokens `(rows, longest)`, filled up, and labels `(rows,)`."""
        tokens = torch.from_numpy(self._shard.padded(rows, self._padding))
        return tokens, torch.from_numpy(self._shard.labels[rows])


class TextClassification:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "text"
    architectures = ("text-encoder", *NETWORKS)
    served_by = "pyfunc_text"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Length and odd characters of each text, and a label that may be the right one."""
        from recaster.data.contract import collect_facts
        from recaster.data.contract_text import FACTS, describe_text
        from recaster.data.label_noise import find_likelier_labels
        from recaster.data.packed import read_texts

        facts = collect_facts(raw, describe_text, FACTS)
        # Of several labels a record, or none, this says nothing.
        told = facts["label"].fillna("")
        several = told.str.contains(SEPARATOR, regex=False).any() or (told == "").mean() > _MOST_UNLABELLED
        empty = [""] * len(facts)
        facts["likelier_label"] = empty if several else find_likelier_labels(read_texts(raw), told.tolist())
        return facts

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, labelled, unique, neither blank nor endless."""
        from recaster.data.contract_text import likelier_label_rule, text_rules

        return [*text_rules(recipe.data, recipe.contract), likelier_label_rule()]

    def prepare(
        self, recipe: Recipe, raw: Path, accepted: NDArray[np.int64], base: Path | None, folder: Path
    ) -> dict[str, Any]:
        """Group equal texts, split, tokenize as the base does, write shards.

        Without a base a tokenizer is trained on the training split. The held-out splits are in order
        of length, so that evaluating them fills up little.
        """
        from recaster.data.packed import read_accepted
        from recaster.data.split import divide_records, group_texts
        from recaster.data.tokenizers import (
            measure_unknown,
            open_tokenizer,
            train_classifier_tokens,
        )

        records = read_accepted(raw, accepted)
        texts = [record.text for record in records]
        labels = number_labels([record.label for record in records], recipe.data)
        groups = group_texts(texts)
        published = [record.split for record in records]
        splits, left_out = divide_records(find_rarest(labels), groups, published, recipe.split)
        if recipe.data.out_of_scope:
            check_scope(labels[splits["test"]], label=recipe.data.out_of_scope)
        if base is None:
            whole_words = network_name(recipe.model.base) is not None
            train_classifier_tokens(
                [texts[row] for row in splits["train"].tolist()],
                kind=recipe.model.tokenizer or ("words" if whole_words else "byte-pairs"),
                framed=not whole_words,
                vocabulary=recipe.model.vocabulary,
                folder=folder / _TOKENIZER,
            )
        tokenizer = open_tokenizer(base or folder / _TOKENIZER)
        longest = recipe.data.text.max_tokens  # type: ignore[union-attr] # `kind` says it is there
        frame = set(tokenizer.encode(""))
        truncated: dict[str, float] = {}
        unknown: dict[str, float] = {}
        for name, rows in splits.items():
            encoded = [tokenizer.encode(texts[row]) for row in rows.tolist()]
            truncated[name] = float(np.mean([len(one) > longest for one in encoded])) if encoded else 0.0
            plain = [token for one in encoded for token in one if token not in frame]
            unknown[name] = measure_unknown(plain, tokenizer.named("unk_token"), split=name)
            cut = [tokenizer.truncate(one, longest) for one in encoded]
            order = np.arange(len(rows))
            if name != "train":
                order = np.argsort([len(one) for one in cut], kind="stable")
            write_token_shard(
                folder,
                name,
                rows=[cut[row] for row in order.tolist()],
                labels=labels[rows[order]],
                ids=[records[row].id for row in rows[order].tolist()],
            )
            write_slice_groups(folder, name, [records[row].group for row in rows[order].tolist()])
        counts = {name: len(rows) for name, rows in splits.items()}
        facts = {
            "rows": counts,
            "duplicates": len(groups) - len(set(groups.tolist())),
            "left_out": left_out,
            "truncated": truncated,
            "unknown": unknown,
        }
        about = {"padding": tokenizer.padding, "vocabulary": tokenizer.size, "tokens": longest}
        per_label = {name: count_labels(labels[rows]) for name, rows in splits.items()}
        told = {
            "labels": recipe.data.labels,
            "per_label": per_label,
            "out_of_scope": recipe.data.out_of_scope,
        }
        write_json(folder / "splits.json", {**facts, **about, **told})
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Labels, and the size of a model without a base."""
        model = recipe.model
        return {
            "labels": recipe.data.labels,
            "network": network_name(model.base),
            "pooling": model.pooling,
            "channels": model.vectors_mode,
            "width": model.width,
            "depth": model.depth,
            "dropout": model.dropout,
        }

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The base with a head for the recipe's labels, or a small encoder with fresh weights."""
        return build_text_model(plan, read_json(Path(plan["prepared"]) / "splits.json"))

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:  # noqa: ARG002
        """The split's tokens, memory-mapped; of the validation split those of texts with a label."""
        about, shard = read_json(folder / "splits.json"), read_token_shard(folder, split)
        if about["out_of_scope"] and split == "validation":
            shard = take_rows(shard, np.flatnonzero(shard.labels != OUT_OF_SCOPE))
        return TextSet(shard, padding=about["padding"])

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """One of the losses of classification."""
        return build_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Rows with the right answer."""
        return count_correct(logits, targets)

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """A folder that transformers reads; of word vectors, weights with their own source and tokenizer.

        LoRA's adapter is there by itself too.
        """
        from recaster.customization.build import load_merged, load_trained
        from recaster.exporting.adapter_form import merge_beside_adapter

        base, prepared = plan["base"], Path(plan["prepared"])
        about = read_json(prepared / "splits.json")
        several = recipe.data.several_labels
        preprocessing = {"kind": self.kind, "max_tokens": about["tokens"], "several_labels": several}
        trained = load_trained(self, plan, weights)
        if about["out_of_scope"]:
            least = _choose_least_probability(load_merged(self, plan, weights), prepared, recipe.evaluate)
            preprocessing |= {"out_of_scope": about["out_of_scope"], "least_probability": least}
        model = merge_beside_adapter(trained, plan, folder, preprocessing=preprocessing)
        if isinstance(model, OpenModel):
            from recaster.exporting.open_folder import name_problem, write_open_folder

            name_problem(model.network, several=several)
            write_open_folder(
                folder, network=model.network, tokenizer=Path(base) if base else prepared / _TOKENIZER
            )
            write_json(folder / "preprocessing.json", preprocessing)
            return
        from safetensors.torch import save_file

        from recaster.exporting.artifact import write_artifact

        save_file(model.state_dict(), folder / "model.safetensors")
        tokenizer = Path(base) if base else prepared / _TOKENIZER
        shutil.copyfile(tokenizer / "tokenizer.json", folder / "tokenizer.json")
        module, arguments = describe_network(plan, about)
        write_artifact(
            folder,
            modeling=Path(str(module.__file__)),
            arguments=arguments,
            labels=recipe.data.labels,
            preprocessing=preprocessing,
        )

    def predict(
        self, artifact: Path, prepared: Path, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Probabilities and targets of a split, in the shard's order; see `evaluation.scope`."""
        shard, about = read_token_shard(prepared, split), read_json(prepared / "splits.json")
        probabilities = _answer(_open_artifact(artifact, about["padding"]), shard, about["padding"])
        if about["out_of_scope"]:
            # A model that was trained without refuses nothing.
            least = read_json(artifact / "preprocessing.json").get("least_probability", 0.0)
            probabilities = add_scope(probabilities, least)
        return probabilities, shard.labels

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:
        """Those of classification."""
        from recaster.evaluation.metrics import classification_metrics

        return classification_metrics(section)

    def report(
        self,
        recipe: Recipe,
        predictions: NDArray[np.float64],
        targets: NDArray[np.int64],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """Confusion and reliability, a row a class, slices by length and group, and a simple baseline."""
        from recaster.evaluation.classification_report import report_classes
        from recaster.evaluation.slices import cut_in_quarters
        from recaster.evaluation.word_average import measure_word_average

        lengths, groups = read_token_shard(prepared, "test").lengths, read_slice_groups(prepared, "test")
        baseline = measure_word_average(prepared, recipe.evaluate, seed=recipe.train.seed)
        if recipe.data.out_of_scope:
            plot_scope(predictions, targets, folder / "scope.png")
            known = np.flatnonzero(targets != OUT_OF_SCOPE)
            lengths, groups = lengths[known], [groups[row] for row in known.tolist()]
            predictions, targets = divide_scope(predictions, targets)
        slices = {
            "length": cut_in_quarters(lengths, lambda least, most: f"{least} to {most} tokens"),
            "group": groups,
        }
        told = report_classes(recipe, predictions, targets, folder, slices=slices)
        return {**told, "word_average": baseline}

    def explain(
        self,
        artifact: Path,
        recipe: Recipe,  # noqa: ARG002
        *,
        predictions: NDArray[np.float64],
        targets: NDArray[np.int64],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """A page of the worst errors, with what each token did for the answer."""
        from recaster.data.tokenizers import open_tokenizer
        from recaster.evaluation.explain import attribute_tokens
        from recaster.evaluation.worst_errors import find_worst, name_both, write_texts

        shard, about = read_token_shard(prepared, "test"), read_json(prepared / "splits.json")
        padding, labels = about["padding"], about["labels"]
        model, tokenizer = _open_artifact(artifact, padding).eval(), open_tokenizer(artifact)
        rows = np.arange(len(targets))
        if about["out_of_scope"]:
            rows = np.flatnonzero(targets != OUT_OF_SCOPE)
            predictions, targets = divide_scope(predictions, targets)
        worst, classes = find_worst(predictions, targets, most=_WORST)
        told = []
        for row, number in zip(worst.tolist(), classes.tolist(), strict=True):
            tokens = shard.padded(rows[[row]], padding)
            each = attribute_tokens(model, torch.from_numpy(tokens), torch.tensor([number]))[0]
            words = [tokenizer.show(token) for token in tokens[0].tolist()]
            seen = [number for number, word in enumerate(words) if word]
            shares = each[seen] / each[seen].abs().max().clamp(min=1e-12) if seen else each[seen]
            truth, answer = name_both(predictions[row], targets[row], labels)
            pairs = list(zip([words[number] for number in seen], shares.tolist(), strict=True))
            told.append({"truth": truth, "answer": answer, "tokens": pairs})
        write_texts(told, folder / "worst_errors.html")
        return {}


@torch.no_grad()
def _answer(model: nn.Module, shard: TokenShard, padding: int) -> NDArray[np.float64]:
    """Probabilities `(rows, labels)` in the shard's order."""
    model, rows = model.eval(), np.arange(len(shard.labels))
    pieces = [
        model(torch.from_numpy(shard.padded(rows[start : start + _BATCH_ROWS], padding)))
        for start in range(0, len(rows), _BATCH_ROWS)
    ]
    return to_probabilities(torch.cat(pieces), torch.from_numpy(shard.labels)).numpy()


def _choose_least_probability(model: nn.Module, prepared: Path, section: EvaluateSection) -> float:
    """From the validation split's texts with a label."""
    from recaster.evaluation.scope import find_least_probability

    shard, padding = read_token_shard(prepared, "validation"), read_json(prepared / "splits.json")["padding"]
    known = take_rows(shard, np.flatnonzero(shard.labels != OUT_OF_SCOPE))
    assert section.false_reject_rate is not None  # noqa: S101 - the recipe's check
    return find_least_probability(_answer(model, known, padding), section.false_reject_rate)


def _open_artifact(artifact: Path, padding: int) -> nn.Module:
    config = read_json(artifact / "config.json")
    if "arguments" in config:
        return load_text_network(artifact)
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(artifact, dtype=torch.float32)
    return TextClassifier(network, padding=padding)


WORKLOAD = TextClassification()

"""Translation: from a text in one language to one in another, or any sequence to another.

pair-0007  en: two dogs run  de: zwei Hunde rennen
    →   [<en> two dogs run </s> | ~<de> ~zwei ~Hunde ~rennen </s>]   →   logits of what follows each mark
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.files import read_json, write_json
from recaster.data.pair_shards import (
    SPLITS,
    HeldOut,
    Pair,
    expand_pairs,
    group_pairs,
    open_pair_rows,
    read_held_out,
    read_pair_texts,
    write_about,
    write_pair_shard,
)
from recaster.data.pair_tokens import PairTokenizer, language_tag
from recaster.models.loading import base_folder
from recaster.models.losses import LossSum, build_token_loss
from recaster.models.seq2seq_models import (
    NETWORKS,
    OpenSeq2Seq,
    build_seq2seq,
    network_arguments,
    open_seq2seq,
    sides_of,
)
from recaster.models.token_scores import score_tokens
from recaster.models.translate import read_search, translate
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_TOKENIZER = "tokenizer"
"""Folder of the prepared data with the tokenizer's files, of a model without a base."""
_MAPS = 6


class Translation:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "pairs"
    architectures = tuple(NETWORKS)
    served_by = "pyfunc_translation"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Sides, lengths and odd characters of each record."""
        from recaster.data.contract import collect_facts
        from recaster.data.contract_pairs import FACTS, describe_pair

        return collect_facts(raw, describe_pair, FACTS)

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, with both sides, neither empty nor endless, of like length."""
        from recaster.data.contract_pairs import pair_rules

        return pair_rules(recipe.data, recipe.contract)

    def prepare(
        self, recipe: Recipe, raw: Path, accepted: NDArray[np.int64], base: Path | None, folder: Path
    ) -> dict[str, Any]:
        """Group records that share a side, split, make an example of each direction, tokenize, write shards.

        Without a base a tokenizer for all languages is trained on the training split.
        """
        from recaster.data.packed import read_accepted
        from recaster.data.split import divide_records

        shape = stated(recipe.data.pairs)
        records = read_accepted(raw, accepted)
        groups = group_pairs([record.text for record in records])
        published = [record.split for record in records]
        splits, left_out = divide_records(
            np.zeros(len(records), dtype=np.int64), groups, published, recipe.split
        )
        examples = {
            name: expand_pairs([records[row] for row in rows.tolist()], shape.directions)
            for name, rows in splits.items()
        }
        if base is None:
            from recaster.data.tokenizers import train_joint

            texts = [text for pair in examples["train"] for text in (pair.source, pair.target)]
            train_joint(
                list(dict.fromkeys(texts)),
                vocabulary=recipe.model.vocabulary,
                kind=shape.vocabulary,
                tags=[language_tag(language) for language in shape.languages],
                folder=folder / _TOKENIZER,
            )
        place = base or folder / _TOKENIZER
        tokenizer = PairTokenizer(place, shape.prefixes)
        counts = {
            name: write_pair_shard(folder, name, pairs, tokenizer=tokenizer, shape=shape)
            for name, pairs in examples.items()
        }
        facts = {
            **{key: {name: found[key] for name, found in counts.items()} for key in counts["train"]},
            "duplicates": len(groups) - len(set(groups.tolist())),
            "left_out": left_out,
        }
        about = {**facts, "max_tokens": shape.max_tokens, "prefixes": shape.prefixes}
        write_about(folder, tokenizer, place, about)
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """The size of a model without a base."""
        model = recipe.model
        size = {"width": model.width, "depth": model.depth, "dropout": model.dropout}
        architecture = model.base.removeprefix("scratch:") if model.from_scratch else None
        return {**size, "architecture": architecture, "tokens": stated(recipe.data.pairs).max_tokens + 1}

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The base, or a network of this package with fresh weights."""
        from recaster.customization.base_bits import base_options

        about, size = read_json(Path(plan["prepared"]) / SPLITS), plan["model_arguments"]
        base = base_folder(plan)
        arguments = about if base else network_arguments(size["architecture"], size, about)
        return build_seq2seq(
            base=base, architecture=size["architecture"], arguments=arguments, **base_options(plan)
        )

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:  # noqa: ARG002
        """The split's tokens, memory-mapped."""
        return open_pair_rows(folder, split)

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """One of the losses, over the translation's tokens."""
        return build_token_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Tokens that are the best guess; what fills up is no token's number."""
        return (logits.argmax(2) == targets).sum()

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """A folder that transformers reads; of recurrent networks, weights with their own source.

        The Transformer has its source beside it too, which writes faster than transformers does.
        """
        from recaster.customization.build import load_trained
        from recaster.exporting.adapter_form import merge_beside_adapter
        from recaster.exporting.open_folder import write_open_folder
        from recaster.exporting.sequence_folder import tell_generation, write_own_folder

        prepared = Path(plan["prepared"])
        tokenizer = Path(plan["base"]) if plan["base"] else prepared / _TOKENIZER
        preprocessing = {"kind": self.kind, **stated(recipe.data.pairs).model_dump()}
        trained = load_trained(self, plan, weights)
        model = merge_beside_adapter(trained, plan, folder, preprocessing=preprocessing)
        if isinstance(model, OpenSeq2Seq):
            tell_generation(model.network, recipe.evaluate, longest=stated(recipe.data.pairs).max_tokens)
            write_open_folder(folder, network=model.network, tokenizer=tokenizer)
        else:
            config = read_json(Path(plan["base"]) / "config.json") if plan["base"] else {}
            arguments = config.get("arguments") or network_arguments(
                plan["model_arguments"]["architecture"],
                plan["model_arguments"],
                read_json(prepared / SPLITS),
            )
            pair = PairTokenizer(tokenizer, {})
            write_own_folder(
                folder,
                model=model,
                arguments=arguments,
                tags={one: pair.start(f"-{one}") for one in stated(recipe.data.pairs).languages},
                start=pair.start(stated(recipe.data.pairs).directions[0]),
                tokenizer=tokenizer,
                evaluate=recipe.evaluate,
                longest=stated(recipe.data.pairs).max_tokens,
            )
        write_json(folder / "preprocessing.json", preprocessing)

    def predict(
        self, artifact: Path, prepared: Path, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Translations of a split, how well the wanted ones were foreseen, and their number of tokens."""
        from recaster.evaluation.translation_metrics import describe_translations

        about = read_json(prepared / SPLITS)
        tokenizer, held, model = _open(artifact, prepared, split)
        nats_hits = score_tokens(model, held.rows.lengths.sum(1), partial(held.rows.batch, seed=None))
        # A vocabulary of its own has another number of tokens for the same translations.
        own = np.array([held.rows.targets_in(np.array([row])) for row in range(len(held.rows))])
        nats_hits[:, 1] *= held.counts / np.maximum(own, 1)
        texts = _translate(model, tokenizer, held.pairs, artifact, longest=int(about["max_tokens"]))
        found = describe_translations(nats_hits, texts, [pair.target for pair in held.pairs])
        return found, held.counts

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:  # noqa: ARG002
        """BLEU, chrF, exact matches; perplexity and token accuracy of the wanted translations."""
        from recaster.evaluation.translation_metrics import TRANSLATION_METRICS

        return TRANSLATION_METRICS

    def report(
        self,
        recipe: Recipe,  # noqa: ARG002
        predictions: NDArray[np.float64],
        targets: NDArray[np.int64],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """sacrebleu's own figures by direction, and quality by length."""
        from recaster.evaluation.translation_report import report_translations

        return report_translations(predictions, targets, read_pair_texts(prepared, "test"), folder)

    def answers(self, folder: Path, prepared: Path) -> bool:  # noqa: ARG002
        """A base can always: one that lacks weights was refused."""
        return True

    def write_samples(self, artifact: Path, prepared: Path, recipe: Recipe) -> dict[str, Any]:
        """Held-out texts of each length with the wanted translations and the model's."""
        tokenizer, held, model = _open(artifact, prepared, "test")
        most = recipe.evaluate.samples
        rows = np.unique(np.linspace(0, len(held.pairs) - 1, most).astype(int)).tolist()
        pairs = [held.pairs[row] for row in rows]
        written = _translate(model, tokenizer, pairs, artifact, longest=stated(recipe.data.pairs).max_tokens)
        return {
            "translations": [
                {
                    "id": pair.id,
                    "direction": pair.direction,
                    "source": pair.source,
                    "wanted": pair.target,
                    "written": text,
                }
                for pair, text in zip(pairs, written, strict=True)
            ]
        }

    @torch.no_grad()
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
        """Draw where the model looks while it foresees the wanted translations of its worst ones."""
        from recaster.evaluation.translation_metrics import chrf
        from recaster.evaluation.translation_report import plot_attention

        tokenizer, held, model = _open(artifact, prepared, "test")
        scores = [chrf(predictions[[row]], targets[[row]]) for row in range(len(targets))]
        maps = []
        for row in np.argsort(scores, kind="stable")[:_MAPS].tolist():
            tokens, wanted = held.rows.batch(np.array([row]), seed=None)
            source, written = (int(value) for value in held.rows.lengths[row])
            shares = sides_of(model, tokens)[0, :written, :source].float().numpy()
            words = tokenizer.inner.names(tokens[0, :source].tolist())
            maps.append((shares, words, tokenizer.inner.names(wanted[0, :written].tolist())))
        plot_attention(maps, folder / "attention.png")
        return {}


def _translate(
    model: nn.Module, tokenizer: PairTokenizer, pairs: Sequence[Pair], artifact: Path, *, longest: int
) -> list[str]:
    """What the model of `artifact` writes for each source, as that folder says how."""
    written = translate(
        model,
        [tokenizer.source(pair.source, pair.direction, longest=longest) for pair in pairs],
        [tokenizer.start(pair.direction) for pair in pairs],
        padding=tokenizer.inner.padding,
        end=tokenizer.end,
        search=read_search(artifact),
        longest=longest,
    )
    return [tokenizer.read(tokens) for tokens in written]


def _open(artifact: Path, prepared: Path, split: str) -> tuple[PairTokenizer, HeldOut, nn.Module]:
    """A model's tokenizer, the held-out split as it reads that, and the model."""
    tokenizer = PairTokenizer(artifact, read_json(prepared / SPLITS)["prefixes"])
    held = read_held_out(prepared, split, tokenizer, artifact)
    return tokenizer, held, open_seq2seq(artifact, padding=tokenizer.inner.padding)


WORKLOAD = Translation()

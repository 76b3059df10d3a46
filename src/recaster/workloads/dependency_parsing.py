"""Dependency parsing: which word each word depends on, by which relation; tags and lemmas beside them.

# sent_id = tree-0000
1  The  the  DET   DT  …  2  det    _  _      →   train.words.npy (words, columns), train.labels.npy
2  cat  cat  NOUN  NN  …  3  nsubj  _  _      →   how likely each head, relation and tag is   →   a tree
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_json
from recaster.core.seeds import derive_seed
from recaster.data.tokenizers import open_tokenizer
from recaster.data.tree_shards import TreeSet, read_split_sentences, read_tree_shard, write_tree_shard
from recaster.models import sentence_parser
from recaster.models.conllu import Sentence, parse_sentence
from recaster.models.loading import base_folder
from recaster.models.losses import LossSum
from recaster.models.parser_columns import TAGS, TargetEncoder, WordEncoder, collect_vocabulary
from recaster.models.parsers import (
    SEGMENTER,
    VOCABULARY,
    build_parser,
    load_parser,
    most_pieces,
    read_encoder,
)
from recaster.models.parsing_loss import count_attached, parsing_loss
from recaster.models.sentence_parser import SentenceParser, strip_annotation
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.recipe.trees import TreeShape
    from recaster.workloads.protocol import MetricFunction

_WEIGHTS = ("heads", "relations", "upos", "xpos", "features", "lemmas")
"""In the order of the targets."""
_TOKENIZER = "tokenizer.json"


class DependencyParsing:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "trees"
    architectures = ("bilstm-parser",)
    served_by = "pyfunc_trees"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Words, and what is wrong with the tree, of each sentence."""
        from recaster.data.contract import collect_facts
        from recaster.data.contract_trees import FACTS, describe_tree

        return collect_facts(raw, describe_tree, FACTS)

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, unique, whole trees with one root, tagged."""
        from recaster.data.contract_trees import tree_rules

        return tree_rules(recipe.data, recipe.contract)

    def prepare(
        self, recipe: Recipe, raw: Path, accepted: NDArray[np.int64], base: Path | None, folder: Path
    ) -> dict[str, Any]:
        """Group equal sentences, split, number words and tags, train the segmenter, write shards.

        The validation split is in order of length, so that measuring it fills up little; the test split
        is in its own order, which its running text has too.
        """
        from safetensors.torch import save_file

        from recaster.data.packed import read_accepted
        from recaster.data.split import divide_records, group_texts
        from recaster.models.segmenter import learn_tokens, train_segmenter

        shape, records = stated(recipe.data.trees), read_accepted(raw, accepted)
        sentences = [parse_sentence(record.text) for record in records]
        groups = group_texts([sentence.text() for sentence in sentences])
        splits, left_out = divide_records(
            np.zeros(len(records), dtype=np.int64), groups, [record.split for record in records], recipe.split
        )
        training = [sentences[row] for row in splits["train"].tolist()]
        vocabulary: dict[str, Any] = dict(
            collect_vocabulary(training, words=recipe.model.vocabulary, least=shape.min_lemma_rule)
        )
        vocabulary["tokens"] = learn_tokens(training)
        encoder = _check_places(read_encoder(base), shape) if base else None
        words = WordEncoder(
            vocabulary,
            open_tokenizer(base).encode_plain if base else None,
            most_pieces=most_pieces(encoder) if encoder else 0,
        )
        forms = _number_forms(sentences)
        order = {**splits, "validation": _by_length(splits["validation"], sentences)}
        for name, rows in order.items():
            write_tree_shard(
                folder,
                name,
                sentences=[sentences[row] for row in rows.tolist()],
                ids=[records[row].id for row in rows.tolist()],
                forms=forms,
                words=words,
                targets=TargetEncoder(vocabulary),
            )
        segmenter = train_segmenter(
            training,
            vocabulary["tokens"]["letters"],
            epochs=shape.segmenter_epochs,
            seed=derive_seed(recipe.split.seed, "segmenter") % 2**31,
        )
        save_file(segmenter.state_dict(), folder / SEGMENTER)
        write_json(folder / VOCABULARY, vocabulary)
        facts = {
            "rows": {name: len(rows) for name, rows in splits.items()},
            "words": {name: sum(len(sentences[row].words) for row in rows) for name, rows in splits.items()},
            "duplicates": len(groups) - len(set(groups.tolist())),
            "left_out": left_out,
        }
        write_json(folder / "splits.json", facts)
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """The size of the heads, and of a model without a base."""
        model = recipe.model
        names = ("width", "depth", "biaffine", "dropout", "first_piece")
        return {name: getattr(model, name) for name in names}

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The parser, its encoder with the base's weights where there is one."""
        return build_parser(_arguments(plan), base_folder(plan))

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:  # noqa: ARG002
        """The split's sentences, memory-mapped."""
        return TreeSet(read_tree_shard(folder, split))

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:  # noqa: ARG002
        """The weighed sum over heads, relations and tags."""
        return partial(parsing_loss, weights=[section["weights"][name] for name in _WEIGHTS])

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Words whose likeliest head and relation are right, whatever tree there is."""
        return count_attached(logits, targets)

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """Weights of parser and segmenter, vocabulary, tokenizer, and the source of all of it."""
        from safetensors.torch import save_file

        from recaster.customization.build import load_merged
        from recaster.exporting.artifact import write_artifact

        prepared, base, shape = Path(plan["prepared"]), base_folder(plan), stated(recipe.data.trees)
        model = load_merged(self, plan, weights)
        save_file(model.state_dict(), folder / "model.safetensors")
        for name in (SEGMENTER, VOCABULARY):
            shutil.copyfile(prepared / name, folder / name)
        if base:
            shutil.copyfile(base / _TOKENIZER, folder / _TOKENIZER)
        write_artifact(
            folder,
            modeling=Path(sentence_parser.__file__),
            arguments=_arguments(plan),
            labels=read_json(prepared / VOCABULARY)["relations"],
            preprocessing={
                "kind": self.kind,
                "max_words": shape.max_words,
                "projective": shape.projective,
            },
        )

    def predict(self, artifact: Path, prepared: Path, split: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """What is counted of the parses of a split's own words; see `evaluation.parse_counts`."""
        from recaster.evaluation.parse_counts import count_sentences

        gold = read_split_sentences(prepared, split)
        found = open_parser(artifact).parse_sentences([strip_annotation(one) for one in gold])
        return count_sentences(gold, found)

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:  # noqa: ARG002
        """Attachment, tags and lemmas, by the rules of the CoNLL 2018 shared task."""
        from recaster.evaluation.parse_counts import PARSE_METRICS

        return PARSE_METRICS

    def report(
        self,
        recipe: Recipe,  # noqa: ARG002
        predictions: NDArray[np.float64],
        targets: NDArray[Any],
        prepared: Path,  # noqa: ARG002
        folder: Path,
    ) -> dict[str, Any]:
        """Attachment by relation, distance and length."""
        from recaster.evaluation.parse_report import report_parse

        return report_parse(predictions, targets, folder)

    def answers(self, folder: Path, prepared: Path) -> bool:  # noqa: ARG002
        """No base has heads of ours yet."""
        return False

    def write_samples(self, artifact: Path, prepared: Path, recipe: Recipe) -> dict[str, Any]:
        """What comes of the held-out running text, and the first sentences' trees."""
        from recaster.evaluation.parse_report import measure_raw, show_trees

        parser, gold = open_parser(artifact), read_split_sentences(prepared, "test")
        bare = [strip_annotation(one) for one in gold[: recipe.evaluate.samples]]
        return {**measure_raw(parser, gold), "samples": show_trees(parser.parse_sentences(bare))}


def open_parser(artifact: Path) -> SentenceParser:
    """The parser of an exported folder, with its tokenizer where it has one."""
    tokenizer = open_tokenizer(artifact) if (artifact / _TOKENIZER).exists() else None
    return load_parser(artifact, tokenizer.encode_plain if tokenizer else None)


def _arguments(plan: dict[str, Any]) -> dict[str, Any]:
    """Of `dependency_parser.build_model`."""
    vocabulary, base = read_json(Path(plan["prepared"]) / VOCABULARY), base_folder(plan)
    encoder = None
    if base:
        tokenizer = open_tokenizer(base)
        encoder = {
            **read_encoder(base),
            "begin": tokenizer.named("cls_token"),
            "end": tokenizer.named("sep_token"),
        }
    return {
        **plan["model_arguments"],
        "encoder": encoder,
        "words": len(vocabulary["words"]),
        "characters": len(vocabulary["characters"]),
        "relations": len(vocabulary["relations"]),
        "tags": [len(vocabulary[kind]) for kind in TAGS],
    }


def _check_places(encoder: dict[str, Any], shape: TreeShape) -> dict[str, Any]:
    """The encoder, which has a place for each of the most words."""
    if shape.max_words > most_pieces(encoder):
        raise RecipeError(
            "The base has no room for so long a sentence.",
            where="data.trees.max_words",
            value=f"{shape.max_words}, and the base takes {most_pieces(encoder)} pieces",
            repair=f"set it to {most_pieces(encoder)} or less",
        )
    return encoder


def _number_forms(sentences: Sequence[Sentence]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for word in (word for sentence in sentences for word in sentence.words):
        numbers.setdefault(word.form.lower(), len(numbers))
    return numbers


def _by_length(rows: NDArray[np.int64], sentences: Sequence[Sentence]) -> NDArray[np.int64]:
    lengths = np.array([len(sentences[row].words) for row in rows.tolist()], dtype=np.int64)
    return rows[np.argsort(lengths, kind="stable")]


WORKLOAD = DependencyParsing()

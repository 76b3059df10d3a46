"""Word embedding: a vector for each word of a corpus, such that words used alike are near.

talk-0007  The pump is checked at six.   →   train.tokens.npy [0, 812, 9, 1204, …]   →   pump: 100 numbers

Measured on pairs of words whose likeness people have judged; what is trained on is never seen there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_json
from recaster.data.word_rows import COUNTS, SPLITS, WordRows
from recaster.models import word_table
from recaster.models.losses import LossSum
from recaster.models.word_contexts import WordContexts, number_pieces, sum_hits, sum_nats, to_table_state
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_CBOW = "cbow"
_VOCABULARY, _PAIRS = "vocabulary.json", "test.pairs.json"


class WordEmbedding:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "words"
    architectures = ("skip-gram", _CBOW)
    served_by = "pyfunc_words"

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
        """Group equal documents, split, find phrases and words, write shards and the judged pairs."""
        from recaster.data.packed import read_accepted
        from recaster.data.split import divide_records, group_texts
        from recaster.data.word_corpus import write_corpus, write_pairs

        if base is not None:
            raise RecipeError(
                "Word vectors are trained from fresh ones: another vocabulary's rows are other words.",
                where="model.base",
                value=recipe.model.base,
                repair="use scratch:skip-gram or scratch:cbow",
            )
        shape, records = stated(recipe.data.words), read_accepted(raw, accepted)
        groups = group_texts([record.text for record in records])
        splits, left_out = divide_records(
            np.zeros(len(records), dtype=np.int64), groups, [record.split for record in records], recipe.split
        )
        own = {name: [records[row] for row in rows.tolist()] for name, rows in splits.items()}
        judged = own.pop("test")
        facts = write_corpus(folder, own, shape, vocabulary=recipe.model.vocabulary)
        facts |= write_pairs(folder, judged, keep_case=shape.keep_case)
        facts |= {"duplicates": len(groups) - len(set(groups.tolist())), "left_out": left_out}
        write_json(folder / SPLITS, {**facts, "row_words": shape.row_words})
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """The width of a vector, which way it is trained, and the pieces of words."""
        model = recipe.model
        return {
            "width": model.width,
            "cbow": model.base == f"scratch:{_CBOW}",
            "subwords": model.subwords.model_dump() if model.subwords else None,
        }

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """Two tables of fresh vectors."""
        arguments, prepared = plan["model_arguments"], Path(plan["prepared"])
        subwords = arguments["subwords"]
        words = read_json(prepared / _VOCABULARY)["words"] if subwords else []
        return WordContexts(
            width=arguments["width"],
            counts=torch.from_numpy(np.load(prepared / COUNTS)),
            contexts=plan["train"]["contexts"],
            cbow=arguments["cbow"],
            sparse=plan["train"]["optimizer"]["name"] == "lazy-adam",
            pieces=number_pieces(words, subwords) if subwords else None,
        )

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        """The split's words, memory-mapped."""
        return WordRows(folder, split, plan["train"]["contexts"])

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:  # noqa: ARG002 - the model's own
        """Negative sampling's loss, which the model sums."""
        return sum_nats

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Words hit: of each the share of its neighbours that it scores above even."""
        return sum_hits(logits, targets)

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """The table of vectors with its vocabulary; with subwords that of pieces too."""
        from safetensors.torch import save_file

        from recaster.customization.build import load_merged
        from recaster.exporting.artifact import write_artifact

        model, prepared = load_merged(self, plan, weights), Path(plan["prepared"])
        assert isinstance(model, WordContexts)  # noqa: S101
        state = to_table_state(model)
        save_file(state, folder / "model.safetensors")
        vocabulary = read_json(prepared / _VOCABULARY)
        write_json(folder / _VOCABULARY, vocabulary)
        write_artifact(
            folder,
            modeling=Path(word_table.__file__),
            arguments={
                "words": len(vocabulary["words"]),
                "width": plan["model_arguments"]["width"],
                "subwords": plan["model_arguments"]["subwords"],
            },
            labels=[],
            preprocessing={"kind": self.kind, **stated(recipe.data.words).model_dump()},
        )

    @torch.no_grad()
    def predict(
        self,
        artifact: Path,
        prepared: Path,
        split: str,  # noqa: ARG002 - only the test split has pairs
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each judged pair its set, cosine, and whether both words are known; see `word_metrics`."""
        from recaster.models.word_vectors import open_lexicon

        lexicon, pairs = open_lexicon(artifact), read_json(prepared / _PAIRS)["pairs"]
        numbers = {name: number for number, name in enumerate(_set_names(pairs))}
        rows = []
        for name, first, second, _ in pairs:
            one, other = lexicon.find(first), lexicon.find(second)
            known = one is not None and other is not None
            cosine = float(nn.functional.cosine_similarity(one, other, dim=0)) if known else 0.0  # type: ignore[arg-type]
            rows.append([numbers[name], cosine, known])
        return np.array(rows, dtype=np.float64), np.array([pair[3] for pair in pairs], dtype=np.float64)

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:  # noqa: ARG002
        """Agreement with judgements, and how many pairs are known."""
        from recaster.evaluation.word_metrics import WORD_METRICS

        return WORD_METRICS

    def report(
        self,
        recipe: Recipe,  # noqa: ARG002
        predictions: NDArray[np.float64],
        targets: NDArray[np.float64],
        prepared: Path,
        folder: Path,  # noqa: ARG002 - `explain` draws the vectors
    ) -> dict[str, Any]:
        """A row a set of pairs."""
        from recaster.evaluation.word_report import report_sets

        names = _set_names(read_json(prepared / _PAIRS)["pairs"])
        return {"sets": report_sets(predictions, targets, names)}

    def explain(
        self,
        artifact: Path,
        recipe: Recipe,
        *,
        predictions: NDArray[np.float64],  # noqa: ARG002 - it is of the vectors, whatever pairs are judged
        targets: NDArray[np.float64],  # noqa: ARG002
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """Analogies and neighbours, and a map of words."""
        from recaster.evaluation.word_report import list_neighbours, plot_map, solve_analogies
        from recaster.models.word_vectors import open_lexicon

        lexicon, section = open_lexicon(artifact), recipe.evaluate
        plot_map(lexicon, folder / "map.png", seed=section.seed)
        analogies = solve_analogies(lexicon, read_json(prepared / _PAIRS)["analogies"])
        return {"analogies": analogies, "samples": list_neighbours(lexicon, section.samples)}


def _set_names(pairs: list[list[Any]]) -> list[str]:
    return sorted({pair[0] for pair in pairs})


WORKLOAD = WordEmbedding()

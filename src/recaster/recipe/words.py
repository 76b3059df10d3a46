"""What of a recipe is about words and their vectors: what a word is, its pieces, its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from recaster.recipe.section import Section

if TYPE_CHECKING:
    from recaster.recipe.schema import ModelSection, Recipe

WORDS = "word-embedding"
"""The workload whose test split are pairs of words."""
WORD_NETWORKS = ("kim-cnn", "lstm", "gru")
"""Text classifiers over whole words, which may begin with vectors of words."""


class Phrases(Section):
    """Words that stand together more often than by chance become one, such as new_york."""

    score: Literal["npmi", "word2vec"]
    """npmi: normalised pointwise mutual information, -1 to 1 (Bouma 2009); word2vec: how many times more
    often than by chance, less a discount for rare pairs (Mikolov et al. 2013)."""
    threshold: float
    """Pairs with a higher score are joined: about 0.5 of npmi, 10 of word2vec."""
    min_count: int = Field(default=5, ge=1)
    """Of a pair in the training split; rarer ones are never joined."""
    passes: int = Field(default=1, ge=1, le=4)
    """How often it is looked for pairs: with 2, phrases of up to four words are found."""

    @model_validator(mode="after")
    def _in_range(self) -> Phrases:
        if self.score == "npmi" and not -1 <= self.threshold < 1:
            raise ValueError(
                f"threshold {self.threshold} is no npmi, which is from -1 to 1; use 0.5, or score word2vec"
            )
        return self


class WordsShape(Section):
    """What every document must look like of which the words get vectors, and what a word is."""

    document: Literal["line", "paragraph", "file"] = "line"
    """What a document is in a .txt file: a line, the lines between blank ones, or all of them. A word's
    neighbours are of its own document."""
    max_characters: int = Field(default=1_000_000, ge=1)
    """A longer document is a broken record."""
    keep_case: bool = False
    """Of letters; else all become small ones."""
    min_count: int = Field(default=5, ge=1)
    """Words that are rarer in the training split have no vector; neighbours close up over them."""
    row_words: int = Field(default=128, ge=8, le=4096)
    """Words of the corpus in one training row; neighbours are not looked for across its ends."""
    phrases: Phrases | None = None
    """Without it every word stands alone."""


class Subwords(Section):
    """Pieces of words that have vectors too, so that words which never occurred have one (Bojanowski et al.
    2017).
    """

    shortest: int = Field(default=3, ge=1, le=10)
    """Letters of a piece; a word's ends count as one each."""
    longest: int = Field(default=6, ge=1, le=12)
    """Likewise."""
    buckets: int = Field(default=50_000, ge=100, le=4_000_000)
    """Vectors of pieces: a piece has that of its hash."""

    @model_validator(mode="after")
    def _ordered(self) -> Subwords:
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest}) is above longest ({self.longest}); swap them")
        return self


class Contexts(Section):
    """Which words learn from which, of word-embedding (Mikolov et al. 2013)."""

    window: int = Field(default=5, ge=1, le=50)
    """Words to each side; of each word it is a random number up to this, so that near ones count more."""
    subsample: float = Field(default=1e-3, ge=0, lt=1)
    """Words more frequent than this share of all are left out at random, the more the more frequent;
    0 keeps all."""
    negatives: float = Field(default=5.0, gt=0)
    """Random words that weigh against each neighbour."""
    shared_negatives: int = Field(default=64, ge=1, le=4096)
    """Random words that are drawn for a training row: all of the row's words share them, and together they
    weigh as `negatives` says."""
    flattening: float = Field(default=0.75, ge=0, le=1)
    """Random words are drawn in proportion to their counts to the power of this."""


def check_words(recipe: Recipe) -> None:
    """Each option does something for the recipe's workload, and goes together with words.

    Raises:
        ValueError: what does not, and the repair.
    """
    optimizer = recipe.train.optimizer.name
    given = {
        "train.contexts": recipe.train.contexts.changed(),
        "model.subwords": recipe.model.subwords,
        "train.optimizer.name: lazy-adam": optimizer == "lazy-adam",
    }
    if recipe.workload != WORDS:
        for key, value in given.items():
            if value:
                raise ValueError(f"{key} belongs to workload {WORDS}, not {recipe.workload}; remove it")
        return
    if recipe.data.published_splits.test is None:
        raise ValueError(
            f"workload {WORDS} is measured on pairs of words whose likeness people have judged; name a file "
            "or folder of such lines (word word score) in data.published_splits.test"
        )
    if recipe.train.loss.changed() or recipe.customize.method != "full":
        raise ValueError(f"workload {WORDS} trains with customize.method full and without train.loss")
    scheme, local = recipe.communication.scheme, recipe.communication.local_sgd
    sparse = scheme == "allreduce" or (scheme == "local-sgd" and not local.warmup_steps)
    if optimizer == "lazy-adam" and not (recipe.distributed.strategy in ("single", "ddp") and sparse):
        raise ValueError(
            "lazy-adam needs strategy single or ddp, with communication allreduce, or local-sgd without "
            "warmup_steps; use adam elsewhere"
        )


def check_vectors(model: ModelSection) -> None:
    """The section's word vectors are for such a model, and its options are for vectors.

    Raises:
        ValueError: what does not go together, and the repair.
    """
    if model.vectors is None:
        if given := model.changed() & {"vectors_licence", "vectors_mode"}:
            raise ValueError(f"{min(given)} belongs to model.vectors; name these, or remove it")
        return
    name = model.base.removeprefix("scratch:")
    if not model.from_scratch or name not in WORD_NETWORKS:
        fit = ", ".join(f"scratch:{one}" for one in WORD_NETWORKS)
        raise ValueError(f"vectors belong to {fit}, not {model.base}; remove them")
    if not model.vectors.startswith(("path:", "models:", "hf:", "wheel:")):
        raise ValueError(
            f"vectors {model.vectors!r} are none of path:, models:/, hf: and wheel:; put one before"
        )
    if model.vectors_mode == "multichannel" and name != WORD_NETWORKS[0]:
        raise ValueError(f"vectors_mode multichannel belongs to kim-cnn, not {name}; use tuned or static")

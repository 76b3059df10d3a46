"""The recipe's parts that are of dependency-parsing alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from recaster.recipe.section import Section

if TYPE_CHECKING:
    from recaster.recipe.schema import Recipe

TREES = "dependency-parsing"
"""The workload that finds trees."""


class TreeShape(Section):
    """What every sentence with a tree must look like, and what a parser is to find."""

    max_words: int = Field(default=200, ge=2, le=1000)
    """A longer sentence is a broken record; of raw text it is cut there."""
    projective: bool = False
    """No arcs cross: the parser finds the best tree of that kind (Eisner 1996), and a sentence whose arcs do
    cross is a broken record. Else it finds the best of all trees (Chu and Liu 1965, Edmonds 1967)."""
    min_lemma_rule: int = Field(default=3, ge=1)
    """How often the training split must make a lemma out of a form in the same way for that to be learned."""
    segmenter_epochs: int = Field(default=4, ge=1, le=100)
    """Passes over the training split's running text for the network that finds sentences and tokens."""


class ParsingWeights(Section):
    """How much each part of a parser's loss counts."""

    heads: float = Field(default=1.0, gt=0)
    """Which word each depends on."""
    relations: float = Field(default=1.0, gt=0)
    """By which relation."""
    upos: float = Field(default=0.5, gt=0)
    """Universal part of speech."""
    xpos: float = Field(default=0.5, gt=0)
    """The treebank's own part of speech."""
    features: float = Field(default=0.5, gt=0)
    """Morphological features, all together as one class."""
    lemmas: float = Field(default=0.5, gt=0)
    """The rule that makes the lemma."""


def check_trees(recipe: Recipe) -> None:
    """A parser learns all of its weights with its own loss, and nothing else has its options.

    Raises:
        ValueError: what does not go together, and the repair.
    """
    loss = recipe.train.loss
    if recipe.workload != TREES:
        if loss.weights.changed():
            raise ValueError(f"train.loss.weights belongs to workload {TREES}; remove it")
        return
    if loss.name != "cross-entropy" or loss.label_smoothing or loss.consistency:
        raise ValueError(
            f"workload {TREES} has the loss cross-entropy, without label_smoothing and consistency"
        )
    if recipe.customize.method != "full":
        raise ValueError(f"workload {TREES} trains with customize.method full")
    if recipe.data.labels:
        raise ValueError("data.labels is for classes; relations and tags are found in the data; remove it")

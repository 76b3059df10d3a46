"""The recipe's parts that are of dependency-parsing alone."""

from __future__ import annotations

from pydantic import Field

from recaster.recipe.section import Section


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

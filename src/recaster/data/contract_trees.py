"""The data contract of sentences with trees."""

from __future__ import annotations

import unicodedata
from typing import Any

from recaster.data.contract import RowRule, common_rules, personal_rule
from recaster.models.conllu import Sentence, find_cycle, is_projective, parse_sentence
from recaster.models.personal_data import count_personal
from recaster.recipe.data import ContractSection, DataSection

FACTS = (
    "words",
    "roots",
    "heads_outside",
    "words_in_cycles",
    "words_without_tree",
    "words_without_tags",
    "crossing",
    "control_characters",
    "personal_data",
)


def describe_tree(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of one packed sentence; of a broken one only that it has no words."""
    try:
        sentence = parse_sentence(record["text"] or "")
    except ValueError as error:
        # Raw text is good to be parsed, and no tree to learn from.
        problem = record["problem"] or f"is no sentence in CoNLL-U: {error}"
        return {**dict.fromkeys(FACTS), "words": 0, "problem": problem}
    text = sentence.text()
    return {
        **_describe_arcs(sentence),
        "words": len(sentence.words),
        "words_without_tags": sum(word.upos == "_" for word in sentence.words),
        "control_characters": sum(unicodedata.category(letter) == "Cc" for letter in text),
        "personal_data": sum(count_personal(text).values()),
    }


def _describe_arcs(sentence: Sentence) -> dict[str, Any]:
    heads = [word.head for word in sentence.words]
    inside = [head for head in heads if head is not None and head <= len(heads)]
    whole = len(inside) == len(heads)
    cycle = find_cycle(inside) if whole else []
    return {
        "roots": heads.count(0),
        "heads_outside": sum(head is not None and head > len(heads) for head in heads),
        "words_in_cycles": len(cycle),
        "words_without_tree": sum(word.head is None or word.deprel == "_" for word in sentence.words),
        "crossing": int(whole and not cycle and not is_projective(inside)),
    }


def tree_rules(data: DataSection, contract: ContractSection) -> list[RowRule]:
    """Readable, named once, whole trees with one root, tagged, not endless; personal data by policy."""
    import great_expectations.expectations as gxe

    shape = data.trees
    assert shape is not None  # noqa: S101 - the workload's kind
    within = gxe.ExpectColumnValuesToBeBetween

    def none_of(column: str, meaning: str) -> RowRule:
        return RowRule.of(gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[0]), meaning)

    rules = [
        *common_rules(data),
        RowRule.of(
            within(column="words", max_value=shape.max_words), f"has more than {shape.max_words} words"
        ),
        RowRule.of(
            gxe.ExpectColumnValuesToBeInSet(column="roots", value_set=[1]), "has not exactly one root"
        ),
        none_of("heads_outside", "has a head that is no word of the sentence"),
        none_of("words_in_cycles", "has words that depend on each other in a circle"),
        none_of("words_without_tree", "has words without a head or a relation"),
        none_of("words_without_tags", "has words without a part of speech"),
        none_of("control_characters", "has NUL or other control characters"),
        personal_rule(contract),
    ]
    if shape.projective:
        rules.append(none_of("crossing", "has arcs that cross, and data.trees.projective says that none do"))
    return rules

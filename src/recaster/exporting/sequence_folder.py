"""Folders of models from one sequence to another.

config.json              the Transformer's is Pegasus's of transformers, and says in `arguments` what
                         modeling.py is built with; a recurrent network's says that alone
generation_config.json   how it writes unless asked otherwise
modeling.py              the network and its search, importing torch alone
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from recaster.core.files import write_json
from recaster.exporting.own_folder import write_own_network
from recaster.models.seq2seq_models import pegasus_config
from recaster.models.seq2seq_transformer import Transformer
from recaster.models.translate import GENERATION
from recaster.recipe.evaluation import EvaluateSection


def write_own_folder(
    folder: Path,
    *,
    model: nn.Module,
    arguments: Mapping[str, Any],
    tags: Mapping[str, int],
    start: int,
    tokenizer: Path,
    evaluate: EvaluateSection,
    longest: int,
) -> None:
    """Write a network of this package, all but preprocessing and card, into `folder`.

    Args:
        arguments: of its module's `build_model`.
        tags: the token of each language.
        start: what translations begin with in the first direction.
        tokenizer: the folder that has its files.
        longest: tokens of a translation.
    """
    known = pegasus_config(arguments, start=start) if isinstance(model, Transformer) else {}
    told = {**known, "tags": dict(tags), "longest": longest}
    write_own_network(folder, model=model, arguments=arguments, tokenizer=tokenizer, told=told)
    write_json(
        folder / GENERATION,
        {
            **_search(evaluate, longest),
            "decoder_start_token_id": start,
            "pad_token_id": arguments["padding"],
            "eos_token_id": arguments["end"],
        },
    )


def tell_generation(network: Any, evaluate: EvaluateSection, *, longest: int) -> None:
    """Put into a transformers model how it writes unless asked otherwise."""
    settings = network.generation_config
    settings.max_length = None
    for name, value in _search(evaluate, longest).items():
        setattr(settings, name, value)


def _search(evaluate: EvaluateSection, longest: int) -> dict[str, Any]:
    """As transformers writes it: a penalty without beams is an error there."""
    told: dict[str, Any] = {"num_beams": evaluate.beams, "max_new_tokens": longest}
    if evaluate.beams > 1:
        told |= {"length_penalty": evaluate.length_penalty, "early_stopping": False}
    return told

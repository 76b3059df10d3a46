"""Masked language models of the transformers library: what stood where a token is hidden.

tokens   [101  2023 ~103 ~1996  102]     a hidden token is marked; the mask, or what else the model sees there
logits              [3185  2128]          and only these places get logits: a vocabulary is wide
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recaster.models.causal_models import check_vocabulary, choosing
from recaster.models.loading import LoadReport
from recaster.models.open_models import OpenModel, load_network, small_bert
from recaster.models.packed_rows import document_mask
from recaster.models.token_marks import place_marks


class MaskedModel(OpenModel):
    """What stood at each marked place."""

    def __init__(
        self,
        network: nn.Module,
        *,
        padding: int,
        report: LoadReport | None = None,
        end: int | None = None,
    ) -> None:
        super().__init__(network, report)
        self.padding = padding
        self.end = end
        """Between a row's documents, which do not see each other; None: everything sees everything."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits at the marked ones of `tokens` `(rows, tokens)`, filled up with the padding token.

        Returns:
            `(rows, marked, vocabulary)`, each row's in their order and then something for rows with fewer;
            without a mark `(rows, tokens, vocabulary)`.
        """
        plain, chosen = place_marks(tokens)
        network: Any = self.network
        mask = (plain != self.padding).long()
        if self.end is not None:
            mask = document_mask(plain, end=self.end, causal=False, padding=self.padding)
        with choosing(network.get_output_embeddings(), chosen, tokens.shape[1]):
            logits: Tensor = network(input_ids=plain, attention_mask=mask).logits
        return logits


def build_masked_model(*, base: Path | None, scratch: Mapping[str, Any]) -> MaskedModel:
    """A masked language model from the folder of a base, or a small BERT with fresh weights.

    A base that is an encoder without such a head gets one, whose last layer is the encoder's embeddings.

    Args:
        scratch: vocabulary (of a base too), tokens, width, depth, dropout and padding token.

    Raises:
        RecipeError: transformers has no such model of this architecture, or its tokens are not the base's.
    """
    from transformers import AutoModelForMaskedLM

    if base is not None:
        network, report = load_network(AutoModelForMaskedLM, base)
        check_vocabulary(network, scratch["vocabulary"], base)
        return MaskedModel(network, padding=scratch["padding"], report=report)
    config = small_bert(scratch, pad_token_id=scratch["padding"])
    return MaskedModel(AutoModelForMaskedLM.from_config(config), padding=scratch["padding"])


def open_masked_model(folder: Path) -> nn.Module:
    """The transformers model of an exported folder, float32."""
    from transformers import AutoModelForMaskedLM

    return load_network(AutoModelForMaskedLM, folder)[0].eval()


def has_masked_head(folder: Path) -> bool:
    """Whether the model in `folder` has all weights of a masked language model."""
    from transformers import AutoModelForMaskedLM

    with torch.random.fork_rng(devices=[]):  # what is missing would be drawn
        return not load_network(AutoModelForMaskedLM, folder)[1].reinitialised

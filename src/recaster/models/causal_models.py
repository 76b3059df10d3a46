"""Causal language models, of the transformers library or recurrent: what follows the tokens that count.

tokens   [ 1  520 ~354  ~90    2 ]     a token that is marked (`~number`) has a successor to be learned
logits          [354's  90's]          and only these get logits: a vocabulary is wide

folder   config.json with `arguments`: a network of this package; else transformers' AutoModelForCausalLM
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.models import recurrent_decoder
from recaster.models.loading import LoadReport, read_state
from recaster.models.open_models import OpenModel, load_network
from recaster.models.packed_rows import document_mask
from recaster.models.recurrent_decoder import RecurrentDecoder
from recaster.models.token_marks import place_marks

RECURRENT = {"lstm-decoder": "lstm", "gru-decoder": "gru"}
"""Architectures of `recurrent_decoder`, and how it calls them."""

ADAPTER = "adapter_config.json"
"""In a model's folder: it holds an adapter, and its base is in the folder `base` within."""
BASE = "base"


class CausalModel(OpenModel):
    """What follows each token.

    Args:
        end: the token between a row's documents, which then do not see each other; None: each token sees all
            that is before it.
        begins: a document's first token sees it, and the one before foresees it: so with texts, not chats.
    """

    def __init__(
        self,
        network: nn.Module,
        report: LoadReport | None = None,
        *,
        end: int | None = None,
        begins: bool = True,
    ) -> None:
        super().__init__(network, report)
        self.end, self.begins = end, begins

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of what follows the marked ones of `tokens` `(rows, tokens)`, filled up at the end.

        No mask is needed for what fills up: nothing looks ahead.

        Returns:
            `(rows, marked, vocabulary)`, each row's in their order and then something for rows with fewer;
            without a mark `(rows, tokens, vocabulary)`. Of `tokens` `(rows, 2, tokens)` `(rows, 2, …)`.
        """
        if tokens.ndim == 3:
            paired: Tensor = self.forward(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
            return paired
        plain, chosen = place_marks(tokens)
        network: Any = self.network
        mask = None
        if self.end is not None:
            mask = document_mask(plain, end=self.end, causal=True, begins=self.begins)
        with choosing(network.get_output_embeddings(), chosen, tokens.shape[1]):
            logits: Tensor = network(input_ids=plain, attention_mask=mask, use_cache=False).logits
        return logits


@contextmanager
def choosing(head: nn.Module, chosen: Tensor, length: int) -> Iterator[None]:
    """Let `head` see the `chosen` places `(rows, places)` of the last `length` hidden states alone.

    Before them are a prompt's trained vectors, if any. At the head, and not on its result, since the logits
    of all places are what does not fit; and not without the model's own forward, which may scale them.
    """

    def choose(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        places = (chosen + hidden.shape[1] - length)[..., None].expand(-1, -1, hidden.shape[2])
        return (hidden.gather(1, places),)

    handle = head.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


def build_causal_model(*, base: Path | None, scratch: Mapping[str, Any], **options: Any) -> CausalModel:
    """A causal model from the folder of a base, or a small Llama with fresh weights.

    Args:
        scratch: vocabulary (of a base too), tokens, width, depth, dropout, padding and end token.
        options: for transformers' `from_pretrained`.

    Raises:
        RecipeError: the base is no causal language model, or its files are not those of its configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if base is not None:
        network, report = load_network(AutoModelForCausalLM, base, **options)
        if report.reinitialised:
            raise RecipeError(
                "The base is no causal language model: some of its weights would be random.",
                where="model.base",
                value=f"{base}: {report.to_text()}",
                repair="choose a base that `recaster models list` shows for this workload",
            )
        check_vocabulary(network, scratch["vocabulary"], base)
        return CausalModel(network, report)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=scratch["vocabulary"],
        max_position_embeddings=scratch["tokens"],
        hidden_size=scratch["width"],
        intermediate_size=4 * scratch["width"],
        num_hidden_layers=scratch["depth"],
        num_attention_heads=max(1, scratch["width"] // 32),
        attention_dropout=scratch["dropout"],
        tie_word_embeddings=True,
        pad_token_id=scratch["padding"],
        bos_token_id=None,
        eos_token_id=scratch["end"],
    )
    return CausalModel(AutoModelForCausalLM.from_config(config))


def decoder_arguments(base: str | None, scratch: Mapping[str, Any]) -> dict[str, Any]:
    """Of `recurrent_decoder.build_model`: those of the base in this folder, or of fresh weights.

    Args:
        scratch: architecture (one of `RECURRENT`), width, depth, dropout, vocabulary, padding and end token.
    """
    if base:
        arguments: dict[str, Any] = read_json(Path(base) / "config.json")["arguments"]
        return arguments
    names = ("width", "depth", "dropout", "vocabulary", "padding", "end")
    return {"network": RECURRENT[scratch["architecture"]], **{name: scratch[name] for name in names}}


def check_recurrent(method: str, *, apart: str = "") -> None:
    """A recurrent network has no linear layers to change, no room for vectors before a text, and no mask.

    Args:
        apart: the recipe's key, if it is set, by which documents of a row must not see each other.

    Raises:
        RecipeError: the recipe's method, or `apart`, wants them.
    """
    if method != "full":
        raise RecipeError(
            "This method is not for recurrent networks.",
            where="customize.method",
            value=method,
            repair="use full",
        )
    if apart:
        raise RecipeError(
            "A recurrent network reads a row from begin to end, and cannot keep its documents apart.",
            where=apart,
            value=True,
            repair="set packed to false there: each document is then a row",
        )


def build_decoder(
    *, base: Path | None, scratch: Mapping[str, Any], **options: Any
) -> CausalModel | RecurrentDecoder:
    """A causal model of either kind, from the folder of a base or with fresh weights.

    Args, Raises: see `build_causal_model`; `scratch` says the `architecture` too.
    """
    if base is not None and is_own(base):
        network = open_own(base).train()
        check_vocabulary(network, scratch["vocabulary"], base)
        return network
    if base is None and scratch["architecture"] in RECURRENT:
        return recurrent_decoder.build_model(**decoder_arguments(None, scratch))
    return build_causal_model(base=base, scratch=scratch, **options)


def is_own(folder: Path) -> bool:
    """Whether a folder's weights are a network of this package."""
    config = folder / "config.json"  # of an adapter, only its base has one
    return config.exists() and read_json(config).get("architecture") == "recurrent_decoder"


def open_own(folder: Path) -> RecurrentDecoder:
    """The network of this package in a folder, ready to be used; the copy of its source there is not run."""
    network = recurrent_decoder.build_model(**read_json(folder / "config.json")["arguments"])
    network.load_state_dict(read_state(folder))
    return network.eval()


def check_vocabulary(network: Any, tokens: int, base: Path) -> None:
    """Refuse a model that lacks embeddings of its tokenizer's tokens.

    Raises:
        RecipeError: it does.
    """
    rows = network.get_input_embeddings().weight.shape[0]
    if rows < tokens:
        raise RecipeError(
            "The base's tokenizer has more tokens than its model.",
            where="model.base",
            value=f"{base}: {tokens} tokens, {rows} embeddings",
            repair="bring tokenizer and weights of one model together",
        )


def open_causal_model(folder: Path) -> nn.Module:
    """The network of an exported folder, float32, with the adapter it may have beside its base."""
    if is_own(folder):
        return open_own(folder)
    from transformers import AutoModelForCausalLM

    if not (folder / ADAPTER).exists():
        return load_network(AutoModelForCausalLM, folder)[0].eval()
    from peft import PeftModel

    network, _ = load_network(AutoModelForCausalLM, folder / BASE)
    adapted: nn.Module = PeftModel.from_pretrained(network, folder, use_safetensors=True)
    return adapted.eval()


def foreseeing(network: nn.Module, *, end: int | None = None) -> CausalModel | RecurrentDecoder:
    """A network as `open_causal_model` gives it, as what takes marked tokens; see `CausalModel`."""
    return network if isinstance(network, RecurrentDecoder) else CausalModel(network, end=end)

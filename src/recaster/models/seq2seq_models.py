"""Models from one sequence to another: this package's own networks, and those of the transformers library.

row      [ 5  90  41  2 | ~6  ~17  ~33 | 2  0 ]    source, then what the decoder is given, marked (`~number`)
logits                    17   33    2             of what follows each mark

folder   config.json with `arguments`: a network of this package; else transformers' AutoModelForSeq2SeqLM
         generation_config.json: how it writes unless asked otherwise
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.models.causal_models import check_vocabulary
from recaster.models.loading import LoadReport
from recaster.models.open_models import OpenModel, load_network
from recaster.models.seq2seq_rnn import RecurrentTranslator
from recaster.models.seq2seq_search import split_rows
from recaster.models.seq2seq_transformer import Transformer

NETWORKS = {"transformer": "seq2seq_transformer", "bahdanau": "seq2seq_rnn", "luong": "seq2seq_rnn"}
"""Modules of this package by the architectures that they build."""
OwnNetwork = Transformer | RecurrentTranslator
_HEAD_WIDTH = 64


class OpenSeq2Seq(OpenModel):
    """What follows each token that the decoder is given."""

    def __init__(self, network: nn.Module, *, padding: int, report: LoadReport | None = None) -> None:
        super().__init__(network, report)
        self.padding = padding

    def forward(self, rows: Tensor) -> Tensor:
        """Logits `(rows, most marks, vocabulary)` of what follows each mark of `rows` `(rows, tokens)`."""
        source, given = split_rows(rows, self.padding)
        network: Any = self.network
        logits: Tensor = network(
            input_ids=source,
            attention_mask=(source != self.padding).long(),
            decoder_input_ids=given,
            use_cache=False,
        ).logits
        return logits


def network_arguments(architecture: str, size: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Of `build_model` of the architecture's module.

    Args:
        size: width, depth, dropout and tokens of a side.
        about: vocabulary, padding and end token of the prepared data.
    """
    common = {
        **{name: size[name] for name in ("width", "depth", "dropout")},
        **{name: about[name] for name in ("vocabulary", "padding", "end")},
    }
    if architecture == "transformer":
        heads = max(1, size["width"] // _HEAD_WIDTH)
        return {**common, "heads": heads, "positions": size["tokens"]}
    return {**common, "attention": architecture}


def build_seq2seq(
    *, base: Path | None, architecture: str, arguments: Mapping[str, Any], **options: Any
) -> nn.Module:
    """A network from the folder of a base, or with fresh weights.

    Args:
        arguments: of a fresh network; of a base its tokenizer's vocabulary and padding token.
        options: for transformers' `from_pretrained`.

    Raises:
        RecipeError: the base is no such model, or its files are not those of its configuration.
    """
    if base is None:
        module = importlib.import_module(f"recaster.models.{NETWORKS[architecture]}")
        fresh: nn.Module = module.build_model(**arguments)
        return fresh
    if is_own(base):
        return open_own(base).train()
    from transformers import AutoModelForSeq2SeqLM

    network, report = load_network(AutoModelForSeq2SeqLM, base, **options)
    if report.reinitialised:
        raise RecipeError(
            "The base is no model from sequence to sequence: some of its weights would be random.",
            where="model.base",
            value=f"{base}: {report.to_text()}",
            repair="choose an encoder-decoder, such as T5, BART or M2M-100",
        )
    check_vocabulary(network, arguments["vocabulary"], base)
    return OpenSeq2Seq(network, padding=arguments["padding"], report=report)


def is_own(folder: Path) -> bool:
    """Whether a folder's weights are a network of this package."""
    return read_json(folder / "config.json").get("architecture") in NETWORKS.values()


def open_own(folder: Path) -> OwnNetwork:
    """The network of this package in a folder, ready to be used."""
    config = read_json(folder / "config.json")
    module = importlib.import_module(f"recaster.models.{config['architecture']}")
    network: OwnNetwork = module.build_model(**config["arguments"])
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network.eval()


def open_seq2seq(folder: Path, *, padding: int) -> nn.Module:
    """The model of an exported folder or of a base, float32."""
    if is_own(folder):
        return open_own(folder)
    from transformers import AutoModelForSeq2SeqLM

    return OpenSeq2Seq(load_network(AutoModelForSeq2SeqLM, folder)[0], padding=padding).eval()


def pegasus_config(arguments: Mapping[str, Any], *, start: int) -> dict[str, Any]:
    """The configuration by which transformers reads the weights of `seq2seq_transformer`.

    Args:
        arguments: of its `build_model`.
        start: what the decoder begins with.
    """
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("layers", arguments["depth"]),
            ("attention_heads", arguments["heads"]),
            ("ffn_dim", 4 * arguments["width"]),
        )
    }
    return {
        "architectures": ["PegasusForConditionalGeneration"],
        "model_type": "pegasus",
        "is_encoder_decoder": True,
        "d_model": arguments["width"],
        "vocab_size": arguments["vocabulary"],
        "max_position_embeddings": arguments["positions"],
        "dropout": arguments["dropout"],
        "activation_dropout": arguments["dropout"],
        "attention_dropout": 0.0,
        "activation_function": "relu",
        "scale_embedding": True,
        "tie_word_embeddings": True,
        "pad_token_id": arguments["padding"],
        "eos_token_id": arguments["end"],
        "bos_token_id": None,
        "forced_eos_token_id": None,
        "decoder_start_token_id": start,
        "dtype": "float32",
        **sides,
    }


def sides_of(model: nn.Module, rows: Tensor) -> Tensor:
    """How much each written token of `rows` looks at each of its source; see the networks' `attention`.

    Of a model of transformers the mean over the heads of its decoder's last layer.
    """
    if not isinstance(model, OpenSeq2Seq):
        shares: Tensor = model.attention(rows)  # type: ignore[operator]
        return shares
    source, given = split_rows(rows, model.padding)
    network: Any = model.network
    network.set_attn_implementation("eager")  # the others keep no shares
    told = network(
        input_ids=source,
        attention_mask=(source != model.padding).long(),
        decoder_input_ids=given,
        use_cache=False,
        output_attentions=True,
    )
    last: Tensor = told.cross_attentions[-1].mean(1)
    return last


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

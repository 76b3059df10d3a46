"""The adapter form of a model: what LoRA trained, without its base; many of them can share one base.

adapter_config.json   adapter_model.safetensors   as peft reads them: PeftModel.from_pretrained(base, FOLDER)
adapted_base.json     which base that must be: reference, sha256 of its weights, sizes, the labels
preprocessing.json    as every artifact has it
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recaster.core.errors import BaseModelError
from recaster.core.files import read_json, write_json
from recaster.core.hashing import hash_file
from recaster.customization.protocol import load_method
from recaster.models.open_models import NamedHead, OpenModel, load_network

ADAPTER = "adapter"
"""The folder of this form inside an artifact."""
ADAPTED_BASE = "adapted_base.json"
_CONFIG = "adapter_config.json"
_KINDS = {
    "text": ("AutoModelForSequenceClassification", "SEQ_CLS"),
    "image": ("AutoModelForImageClassification", None),
    "boxes": ("AutoModelForObjectDetection", None),
    "chat": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "pairs": ("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
    "causal": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "masked": ("AutoModelForMaskedLM", None),
}
"""The Auto class of each kind of record (of plain text: of each objective), and peft's name for the task:
what peft adds by itself."""
_SIZES = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size")


def merge_beside_adapter(
    trained: nn.Module, plan: dict[str, Any], folder: Path, *, preprocessing: dict[str, Any]
) -> nn.Module:
    """A trained model in its usual form; where it has an adapter form, that is written first.

    Args:
        trained: as `load_trained` gives it.
        folder: of the artifact.
    """
    if plan.get("base"):
        write_adapter_form(folder / ADAPTER, trained, base=Path(plan["base"]), preprocessing=preprocessing)
    return load_method(plan).merge(trained, plan).eval()


def write_adapter_form(
    folder: Path, trained: nn.Module, *, base: Path, preprocessing: dict[str, Any]
) -> bool:
    """Write what a trained, unmerged model has beside its base; peft reads it.

    Args:
        base: the folder of the fetched base.
        preprocessing: as the artifact has it; `kind` in it says which Auto class the base is for.

    Returns:
        Whether there is such a form: a LoRA adapter that left its base as it was, beside a head or none.
    """
    network: Any = trained.network if isinstance(trained, OpenModel) else None
    adapters = getattr(network, "peft_config", {})
    config = copy.copy(adapters.get("default"))
    if config is None or config.peft_type != "LORA" or config.init_lora_weights == "pissa":
        return False
    if any("base_layer" in name for name, value in network.named_parameters() if value.requires_grad):
        return False  # the head is trained as a whole and has an update as well, for which peft has no form
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    named = trained.head_names() if isinstance(trained, NamedHead) else []
    heads = [name.removeprefix("network.") for name in named]
    tensors: dict[str, Tensor] = dict(get_peft_model_state_dict(network))
    for head in heads:
        part = network.base_model.model.get_submodule(head)
        tensors |= {f"base_model.model.{head}.{name}": value for name, value in part.state_dict().items()}
    about = _describe_base(base, network.get_base_model().config, labelled=bool(heads))
    config.task_type, config.inference_mode = _KINDS[_kind(preprocessing)][1], True
    config.modules_to_save = [head.rpartition(".")[2] for head in heads] or None
    config.base_model_name_or_path = about["reference"]
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, _weights(folder))
    write_json(folder / ADAPTED_BASE, about)
    write_json(folder / "preprocessing.json", preprocessing)
    return True


def _describe_base(base: Path, config: Any, *, labelled: bool) -> dict[str, Any]:
    """What adapted_base.json says; `config` is that of the model over it."""
    told = read_json(base / "base.json") if (base / "base.json").exists() else {}
    return {
        "reference": told.get("reference", str(base)),
        "licence": told.get("licence"),
        "weights": _hash_weights(base),
        "sizes": _read_sizes(base),
        "labels": [config.id2label[number] for number in range(config.num_labels)] if labelled else [],
        "padding": getattr(config, "pad_token_id", None),
    }


def is_adapter(folder: Path) -> bool:
    """Whether the folder is such a form."""
    return (folder / _CONFIG).exists() and (folder / ADAPTED_BASE).exists()


def merge_adapter_form(adapter: Path, base: Path) -> nn.Module:
    """The transformers model of `base` with the adapter's effect in its weights.

    Raises:
        BaseModelError: the adapter was trained over another base.
    """
    from peft import PeftModel

    check_base(adapter, base)
    about = read_json(adapter / ADAPTED_BASE)
    options: dict[str, Any] = {}
    if about["labels"]:
        options = {
            "num_labels": len(about["labels"]),
            "id2label": dict(enumerate(about["labels"])),
            "label2id": {label: number for number, label in enumerate(about["labels"])},
        }
    if about["labels"] and about["padding"] is not None:
        options["pad_token_id"] = about["padding"]
    kind = _kind(read_json(adapter / "preprocessing.json"))
    auto = getattr(importlib.import_module("transformers"), _KINDS[kind][0])
    network, _ = load_network(auto, base, **options)
    merged: nn.Module = PeftModel.from_pretrained(network, adapter).merge_and_unload()
    return merged.eval()


def check_base(adapter: Path, base: Path) -> None:
    """Refuse a base that the adapter was not trained over.

    Raises:
        BaseModelError: with what differs.
    """
    about = read_json(adapter / ADAPTED_BASE)
    sizes = _read_sizes(base)
    apart = [
        f"{name} is {sizes.get(name)} here, {wanted} there"
        for name, wanted in about["sizes"].items()
        if sizes.get(name) != wanted
    ]
    if not apart and _hash_weights(base) == about["weights"]:
        return
    raise BaseModelError(
        "The adapter was trained over another base.",
        where=str(base),
        value="; ".join(apart) or "of the same sizes, but with other weights (their sha256 differs)",
        repair=f"use {about['reference']}",
    )


def _weights(folder: Path) -> Path:
    return folder / "adapter_model.safetensors"


def _hash_weights(base: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in sorted(base.glob("*.safetensors"))}


def _read_sizes(base: Path) -> dict[str, Any]:
    config = read_json(base / "config.json")
    return {name: config[name] for name in _SIZES if name in config}


def _kind(preprocessing: dict[str, Any]) -> str:
    return str(preprocessing.get("objective", preprocessing["kind"]))

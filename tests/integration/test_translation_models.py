"""Translation models as artifacts: what they write here, served, by transformers, by the card's own lines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_json
from recaster.customization.build import build_customized
from recaster.data.packed import write_packed
from recaster.data.pair_shards import read_pair_texts
from recaster.data.pair_sources import parse_sides
from recaster.data.synthetic_pairs import make_pairs
from recaster.evaluation.translation_metrics import read_translations
from recaster.exporting.card_texts import ASKING
from recaster.recipe.load import load_recipe
from recaster.recipe.schema import Recipe
from recaster.workloads.translation import WORKLOAD
from tests.conftest import ROOT

_TINY = ROOT / "recipes" / "translation" / "tiny.yaml"
_DIRECTIONS = ["en-de", "de-en", "en-fr"]


def _write_base(folder: Path) -> Path:
    """A small T5 with fresh weights, and a tokenizer of the synthetic texts that ends them as T5's does."""
    from tokenizers import Tokenizer, processors
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    from recaster.data.tokenizers import train_joint

    texts = [text for record in make_pairs() for text in parse_sides(record.text or "").values()]
    train_joint(texts, vocabulary=400, kind="byte-pairs", tags=["<en>"], folder=folder)
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", inner.token_to_id("</s>"))]
    )
    inner.save(str(folder / "tokenizer.json"))
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 400}
    tokens = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    network = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **sizes, **tokens))
    network.generation_config.max_length = None
    network.save_pretrained(folder)
    return folder


def _prepare(recipe: Recipe, base: Path | None, folder: Path) -> Path:
    raw, prepared = folder / "raw", folder / "prepared"
    raw.mkdir()
    prepared.mkdir()
    records = [record for number, record in enumerate(make_pairs()) if number < 150]
    rows = write_packed(iter(records), raw)
    facts = WORKLOAD.prepare(recipe, raw, np.arange(rows), base, prepared)
    assert facts["rows"]["test"] >= 15 and facts["unknown"]["test"] == 0.0
    return prepared


def _plan(recipe: Recipe, base: Path | None, prepared: Path) -> dict[str, Any]:
    return {
        "prepared": str(prepared),
        "base": str(base) if base else None,
        "teacher": None,
        "model_arguments": WORKLOAD.model_arguments(recipe),
        "train": recipe.train.model_dump(),
        "customize": recipe.customize.model_dump(),
    }


def _export(recipe: Recipe, base: Path | None, prepared: Path, folder: Path) -> Path:
    """The artifact of a model as it begins."""
    plan = _plan(recipe, base, prepared)
    torch.manual_seed(3)
    model: Any = build_customized(WORKLOAD, plan)
    weights = {name: value.clone() for name, value in model.state_dict().items()}  # some are one table
    save_file(weights, folder / "weights.safetensors")
    artifact = folder / "artifact"
    artifact.mkdir()
    WORKLOAD.export(plan, recipe, folder / "weights.safetensors", artifact)
    return artifact


def _serve(artifact: Path) -> Any:
    from recaster.serving import pyfunc_translation

    served = pyfunc_translation.TranslationModel()
    served.load_context(SimpleNamespace(artifacts={"model": str(artifact)}))  # type: ignore[arg-type]
    return served


@pytest.mark.parametrize("network", ["transformer", "bahdanau", "luong", "t5"])
def test_an_artifact_writes_alike_everywhere(network: str, tmp_path: Path) -> None:
    base = _write_base(tmp_path / "base") if network == "t5" else None
    named = "model.base=path:base" if base else f"model.base=scratch:{network}"
    prefixes = ["data.pairs.prefixes={en-de: 'to German: '}", "model.licence=MIT"] if base else []
    recipe = load_recipe(
        _TINY, [named, f"data.pairs.directions=[{','.join(_DIRECTIONS)}]", "evaluate.beams=3", *prefixes]
    )
    prepared = _prepare(recipe, base, tmp_path)
    artifact = _export(recipe, base, prepared, tmp_path)
    found, counts = WORKLOAD.predict(artifact, prepared, "test")
    pairs, written = read_pair_texts(prepared, "test"), read_translations(found)
    assert {pair.direction for pair in pairs} == set(_DIRECTIONS) and len(set(written)) > 1

    model = _serve(artifact)
    given = pd.DataFrame([{"text": pair.source, "direction": pair.direction} for pair in pairs])
    served = model.predict(None, given)
    assert list(served["translation"]) == written
    alone = model.predict(None, given[["text"]].iloc[:2])
    assert list(alone["direction"]) == _DIRECTIONS[:1] * 2
    drawn = [
        list(model.predict(None, given, {"temperature": 1.5, "seed": seed}).iloc[:, 0]) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(ValueError, match="'fr-en' is none of en-de, de-en, en-fr"):
        model.predict(None, pd.DataFrame({"text": ["a"], "direction": ["fr-en"]}))
    samples = WORKLOAD.write_samples(artifact, prepared, recipe)["translations"]
    assert {one["written"] for one in samples} <= set(written)
    WORKLOAD.explain(artifact, recipe, predictions=found, targets=counts, prepared=prepared, folder=tmp_path)
    assert (tmp_path / "attention.png").stat().st_size > 0
    if network in ("transformer", "t5"):
        _check_transformers(artifact, [pair for pair in pairs if pair.direction == "en-de"][:8], model)
    if network != "t5":
        _check_without_us(artifact)


def _check_transformers(artifact: Path, pairs: list[Any], model: Any) -> None:
    """Its own classes read the folder, and write the same in the first direction."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(artifact)
    theirs: Any = AutoModelForSeq2SeqLM.from_pretrained(artifact).eval()
    prefix = model.prefixes.get("en-de", "")
    told = tokenizer([prefix + pair.source for pair in pairs], padding=True, return_tensors="pt")
    told.pop("token_type_ids", None)
    texts = [
        tokenizer.decode(theirs.generate(**told)[row], skip_special_tokens=True).strip()
        for row in range(len(pairs))
    ]
    ours = model.predict(None, pd.DataFrame({"text": [pair.source for pair in pairs]}))
    assert texts == list(ours["translation"])


def _check_without_us(artifact: Path) -> None:
    """The card's own line, in a process that knows nothing of this project."""
    code = f"""
import json, sys, torch
from safetensors.torch import load_file
sys.path.insert(0, ".")
import modeling
told = json.load(open("config.json"))
model = modeling.build_model(**told["arguments"])
model.load_state_dict(load_file("model.safetensors"))
tag, other = told["tags"]["en"], told["tags"]["de"]
source, starts = torch.tensor([[tag, 20, 21, 22, told["arguments"]["end"]]]), torch.tensor([other])
{ASKING["pairs"]}
assert "recaster" not in sys.modules
print(json.dumps(tokens))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=artifact, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 1


def test_a_base_trains_with_an_adapter(tmp_path: Path) -> None:
    """LoRA's update alone is trained."""
    base = _write_base(tmp_path / "base")
    recipe = load_recipe(
        _TINY,
        ["model.base=path:base", "model.licence=MIT", "customize={method: lora, lora: {targets: [q, v]}}"],
    )
    prepared = _prepare(recipe, base, tmp_path)
    model: Any = build_customized(WORKLOAD, _plan(recipe, base, prepared))
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained and all("lora" in name for name in trained)
    rows = WORKLOAD.open_split(prepared, "train", {})
    inputs, targets = rows.batch(np.arange(8), seed=None)
    loss_sum = WORKLOAD.build_loss(recipe.train.loss.model_dump(), training=True)(model(inputs), targets)
    loss_sum.backward()
    assert torch.isfinite(loss_sum)
    assert any(float(model.get_parameter(name).grad.abs().sum()) > 0 for name in trained)


def test_a_base_of_another_kind_is_refused(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    base = _write_base(tmp_path / "base")
    config = AutoConfig.for_model("bert", vocab_size=400, hidden_size=32, num_hidden_layers=1)
    config.num_attention_heads, config.intermediate_size = 2, 32
    AutoModel.from_config(config).save_pretrained(base)
    write_json(base / "config.json", {**read_json(base / "config.json"), "decoder_start_token_id": 0})
    recipe = load_recipe(_TINY, ["model.base=path:base", "model.licence=MIT"])
    prepared = _prepare(recipe, base, tmp_path)
    with pytest.raises(RecipeError, match="not a model for ForSeq2SeqLM"):
        build_customized(WORKLOAD, _plan(recipe, base, prepared))

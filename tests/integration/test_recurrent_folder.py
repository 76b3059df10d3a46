"""A recurrent language model's folder: opened as a base, as an artifact, and by MLflow's own model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from recaster.core.errors import RecipeError
from recaster.data.tokenizers import train_byte_pairs
from recaster.exporting.own_folder import write_own_network
from recaster.models.causal_models import build_decoder, decoder_arguments, open_causal_model
from recaster.workloads.language_modelling import WORKLOAD

_TEXTS = ["The pump is checked at six.", "The pump rests at noon."]
_SIZE = {"width": 16, "depth": 1, "dropout": 0.0, "vocabulary": 280, "padding": 0, "end": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train_byte_pairs(_TEXTS, vocabulary=280, folder=tmp_path / "tokenizer", keep_case=True)
    scratch = {**_SIZE, "architecture": "gru-decoder"}
    torch.manual_seed(1)
    network = build_decoder(base=None, scratch=scratch)
    (tmp_path / "model").mkdir()
    arguments = decoder_arguments(None, scratch)
    write_own_network(
        tmp_path / "model", model=network, arguments=arguments, tokenizer=tmp_path / "tokenizer"
    )
    told = {"kind": "corpus", "objective": "causal", "max_tokens": 64}
    (tmp_path / "model" / "preprocessing.json").write_text(json.dumps(told))
    return tmp_path / "model"


def test_mlflow_s_model_foresees_and_goes_on_as_the_network_does(folder: Path) -> None:
    from transformers import AutoTokenizer

    from recaster.serving import pyfunc_language

    served = pyfunc_language.LanguageModel()
    served.load_context(SimpleNamespace(artifacts={"model": str(folder)}))  # type: ignore[arg-type]
    asked = pd.DataFrame({"text": _TEXTS})
    found = served.predict(None, asked, {"max_new_tokens": 4})  # type: ignore[arg-type]
    network: Any = open_causal_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row, text in zip(found.to_dict("records"), _TEXTS, strict=True):
        tokens = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            logs = network(tokens)[0, :-1].log_softmax(-1)
        assert row["tokens"] == tokens.shape[1] - 1
        assert row["nats_a_token"] == pytest.approx(
            -float(logs.gather(1, tokens[0, 1:, None]).mean()), rel=1e-5
        )
        written = network.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=4)
        went_on = written[0, tokens.shape[1] :]
        assert row["continuation"] == tokenizer.decode(went_on, skip_special_tokens=True)


def test_it_is_a_base_whose_weights_are_kept(folder: Path, tmp_path: Path) -> None:
    about = {**_SIZE, "objective": "causal", "apart": False}
    (tmp_path / "splits.json").write_text(json.dumps(about))
    plan: dict[str, Any] = {
        "prepared": str(tmp_path),
        "base": str(folder),
        "model_arguments": {"architecture": None},
        "customize": {"method": "full"},
    }
    found, wanted = WORKLOAD.build_model(plan).state_dict(), open_causal_model(folder).state_dict()
    assert [name for name, value in wanted.items() if not torch.equal(value, found[name])] == []
    (tmp_path / "splits.json").write_text(json.dumps({**about, "apart": True}))
    with pytest.raises(RecipeError, match="cannot keep its documents apart"):
        WORKLOAD.build_model(plan)
    (tmp_path / "splits.json").write_text(json.dumps({**about, "vocabulary": 281}))
    with pytest.raises(RecipeError, match="more tokens than its model"):
        WORKLOAD.build_model(plan)

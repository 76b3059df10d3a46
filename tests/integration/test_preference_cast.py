"""Preference tuning from data to an artifact: of a recurrent base, and by LoRA of one of transformers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.leakage import find_leakage
from recaster.data.preference_shards import open_preference_rows
from recaster.data.synthetic import make_chats, make_requests
from recaster.data.tokenizers import train_chat_byte_pairs
from recaster.exporting.open_folder import write_open_folder
from recaster.exporting.own_folder import write_own_network
from recaster.models.causal_models import (
    build_causal_model,
    build_decoder,
    decoder_arguments,
    foreseeing,
    open_causal_model,
)
from recaster.models.replies import ChatVoice
from recaster.pipeline.inputs import training_plan
from recaster.pipeline.production import _OF_ANSWERS
from recaster.recipe.data import DataSection
from recaster.recipe.load import load_recipe
from recaster.training.journal import read_journal
from tests.conftest import ROOT
from tests.integration.training_task import cut_at_half, train_all

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("preferences")]
_SIZE = {"width": 32, "depth": 1, "dropout": 0.0, "vocabulary": 320, "padding": 0, "end": 2, "tokens": 192}
_FORMS = {
    "lstm": ["train.optimizer.learning_rate=0.01"],
    "llama": [
        "customize={method: lora, lora: {targets: [all-linear], rank: 16, alpha: 64}}",
        "train.optimizer.learning_rate=0.05",
    ],
}
_QUESTION = [{"role": "user", "content": "wake me at six"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """One run of the tiny recipe over a base."""

    cast: pipeline.Cast
    prepared: Path
    plan: dict[str, Any]
    run_dir: Path
    artifact: Path


def _write_base(folder: Path, kind: str) -> None:
    torch.manual_seed(3)
    tokenizer = folder.with_name(f"{folder.name} tokenizer")
    train_chat_byte_pairs([record.text or "" for record in make_chats()], vocabulary=320, folder=tokenizer)
    folder.mkdir()
    if kind == "llama":
        model = build_causal_model(base=None, scratch=_SIZE)
        write_open_folder(folder, network=model.network, tokenizer=tokenizer)
        return
    network = build_decoder(base=None, scratch={**_SIZE, "architecture": "lstm-decoder"})
    arguments = decoder_arguments(None, {**_SIZE, "architecture": "lstm-decoder"})
    write_own_network(folder, model=network, arguments=arguments, tokenizer=tokenizer)


def _write_pairs(path: Path) -> None:
    """Willing replies are better than others, in one of the usual forms."""
    requests = list(islice(make_requests(), 180))
    rows = [
        {"prompt": one.text, "chosen": f"Yes, the {one.label} at once.", "rejected": f"No {one.label} today."}
        for one in requests
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tuned]:
    """All runs, trained by one process."""
    project, patch = tmp_path_factory.mktemp("a project"), pytest.MonkeyPatch()
    for name in ("RECASTER_HOME", "MLFLOW_TRACKING_URI"):
        patch.delenv(name, raising=False)
    (project / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    recipe = project / "tiny.yaml"
    recipe.write_bytes((ROOT / "recipes/chat/tiny-preference.yaml").read_bytes())
    _write_pairs(project / "pairs.jsonl")
    planned = {}
    for kind, options in _FORMS.items():
        _write_base(project / kind, kind)
        cast = pipeline.open_cast(
            recipe,
            [
                f"model.base=path:{kind}",
                "model.licence=Apache-2.0",
                "data.source=pairs.jsonl",
                "train.epochs=3",
                "train.batch_size=32",
                "train.record_every_steps=1",
                "train.checkpoint_every_steps=6",
                *options,
            ],
        )
        prepared = pipeline.run_to(cast, "prepare", SilentReporter())
        run_dir = project / f"run {kind}"
        run_dir.mkdir()
        plan = training_plan(cast, prepared)
        (run_dir / "plan.json").write_text(json.dumps(plan))
        planned[kind] = (cast, prepared.path, plan, run_dir)
    patch.undo()
    train_all([run_dir for *_, run_dir in planned.values()])
    return {kind: _export(*planned[kind], project / f"artifact {kind}") for kind in planned}


def _export(cast: pipeline.Cast, prepared: Path, plan: dict[str, Any], run_dir: Path, folder: Path) -> Tuned:
    folder.mkdir()
    cast.workload.export(plan, cast.recipe, run_dir / "weights.safetensors", folder)
    return Tuned(cast=cast, prepared=prepared, plan=plan, run_dir=run_dir, artifact=folder)


@pytest.fixture(params=_FORMS)
def tuned(request: pytest.FixtureRequest, runs: dict[str, Tuned]) -> Tuned:
    return runs[request.param]


def _losses(run_dir: Path) -> list[float]:
    return [record["loss"] for record in read_journal(run_dir / "journal.jsonl") if record["kind"] == "train"]


def test_it_begins_at_the_base_and_moves_away_from_it(tuned: Tuned) -> None:
    losses = _losses(tuned.run_dir)
    # The base's own log-probabilities, of another process and of other batches, cancel the model's.
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5) and losses[-1] < losses[0] - 0.01
    records = [r for r in read_journal(tuned.run_dir / "journal.jsonl") if r["kind"] == "validation"]
    assert 0.5 < records[-1]["accuracy"] <= 1.0


def test_what_the_base_thinks_is_that_of_plain_passes(tuned: Tuned) -> None:
    model = foreseeing(open_causal_model(Path(tuned.plan["base"])))
    data = open_preference_rows(tuned.prepared, "train", padding=0)
    tokens, targets = data.batch(np.array([0, 5]), seed=None)
    for pair, wanted in zip(tokens, targets, strict=True):
        for row, told in zip(pair, wanted, strict=True):
            assert _plain(model, row) == pytest.approx(float(told[0]), abs=1e-3)


@torch.no_grad()
def _plain(model: Any, marked: Tensor) -> float:
    plain = torch.where(marked < 0, ~marked, marked)
    logs = model(plain[None])[0].log_softmax(-1)
    places = (marked < 0).nonzero()[:, 0]
    return float(logs[places, plain[places + 1]].sum())


def test_the_base_is_measured_beside_it(tuned: Tuned) -> None:
    measured = {}
    for name, folder in (("base", Path(tuned.plan["base"])), ("tuned", tuned.artifact)):
        predictions, targets = tuned.cast.workload.predict(folder, tuned.prepared, "test")
        assert predictions.shape == (len(targets), 7) and (targets > 0).all()
        functions = tuned.cast.workload.metrics(tuned.cast.recipe.evaluate)
        measured[name] = {key: function(predictions, targets) for key, function in functions.items()}
        beta = {"base": 1.0, "tuned": 0.1}[name]
        assert (predictions[:, 6] == beta).all()
    assert measured["base"]["preference_accuracy"] == 0.5
    assert measured["base"]["reward_margin"] == pytest.approx(0, abs=1e-6)
    assert measured["tuned"]["reward_margin"] > 0.01 and measured["tuned"]["preference_accuracy"] > 0.5


def test_splits_share_no_prompt(tuned: Tuned) -> None:
    found = find_leakage(tuned.prepared, distance=0.06)
    assert len(found) == 3 and [one.exact for one in found] == [0, 0, 0]
    prompts = {}
    for split in ("train", "validation", "test"):
        data = open_preference_rows(tuned.prepared, split, padding=0)
        tokens, _ = data.batch(np.arange(len(data)), seed=None)
        first = [(row < 0).nonzero()[0, 0] for row in tokens[:, 0]]
        prompts[split] = {tuple(row[:end].tolist()) for row, end in zip(tokens[:, 0], first, strict=True)}
    assert not prompts["train"] & (prompts["validation"] | prompts["test"])


def test_a_cut_run_ends_where_a_whole_one_does(runs: dict[str, Tuned], tmp_path: Path) -> None:
    cuts = {kind: cut_at_half(run.run_dir, tmp_path) for kind, run in runs.items()}
    train_all(list(cuts.values()))
    for kind, cut in cuts.items():
        assert read_json(cut / "result.json")["resumed_at"] == 6
        wanted, found = (load_file(run / "weights.safetensors") for run in (runs[kind].run_dir, cut))
        assert wanted.keys() == found.keys()
        assert [name for name, value in wanted.items() if not torch.equal(value, found[name])] == []


def test_the_artifact_talks_and_mlflow_s_model_says_the_same(tuned: Tuned) -> None:
    from recaster.serving import pyfunc_chat

    described = read_json(tuned.artifact / "preprocessing.json")
    assert described["beta"] == 0.1
    shape = {key: value for key, value in described.items() if key not in _OF_ANSWERS}
    DataSection.model_validate({"source": "-", "licence": "-", "chat": shape})  # as `predict` reads it
    served = pyfunc_chat.ChatModel()
    served.load_context(SimpleNamespace(artifacts={"model": str(tuned.artifact)}))  # type: ignore[arg-type]
    asked = pd.DataFrame({"messages": [_QUESTION]})
    (reply,) = served.predict(None, asked)["reply"]  # type: ignore[arg-type]
    assert reply == "".join(ChatVoice(tuned.artifact).reply(_QUESTION, temperature=0.0)).strip()


def test_a_recurrent_base_is_trained_whole(runs: dict[str, Tuned]) -> None:
    plan = {**runs["lstm"].plan, "customize": {"method": "lora", "lora": {"base_bits": None}}}
    with pytest.raises(RecipeError, match="not for recurrent networks"):
        runs["lstm"].cast.workload.build_model(plan)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.loss.name=cross-entropy", "needs train.loss preference"),
        ("data.chat.preferences=false", "is not set, for which it is"),
        ("model.base=scratch:small-decoder", "prefer nothing"),
        ("train.loss={name: preference, consistency: 0.5}", "single answers"),
        ("train.loss={name: preference, label_smoothing: 0.5}", "would prefer the rejected"),
        ("train.loss={name: cross-entropy, beta: 0.2}", "beta belongs to loss preference"),
    ],
)
def test_what_does_not_go_together_is_refused(override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe(ROOT / "recipes/chat/tiny-preference.yaml", [override])


def test_metrics_of_pairs_are_for_pairs() -> None:
    with pytest.raises(RecipeError, match="preference_accuracy is of pairs of replies"):
        load_recipe(ROOT / "recipes/chat/tiny.yaml", ["gate.champion.metric=preference_accuracy"])

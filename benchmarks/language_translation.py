"""Translation on Multi30k: both recipes on test 2016, and how fast beams are written against transformers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.public_data import make_project
from benchmarks.record import target
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.pair_tokens import PairTokenizer
from recaster.models.seq2seq_models import open_own
from recaster.models.translate import Search, pad_sources, translate
from recaster.training.journal import read_journal

RECIPES = ("multi30k-transformer", "multi30k-rnn")
_WANTED = {"multi30k-transformer": 36.0, "multi30k-rnn": 30.0}
_LONGEST, _ROUNDS, _TOGETHER = 64, 3, 32


def run(work: Path) -> list[dict[str, Any]]:
    """Train and evaluate in a project below `work`; finished steps are found again."""
    project = make_project(work / "translation")
    return [row for name in RECIPES for row in _measure(project / f"recipes/translation/{name}.yaml")]


def _measure(recipe: Path) -> list[dict[str, Any]]:
    cast, silent = pipeline.open_cast(recipe), SilentReporter()
    evaluated = pipeline.run_to(cast, "evaluate", silent)
    trained, artifact = pipeline.run_to(cast, "train", silent), pipeline.run_to(cast, "export", silent)
    told = read_json(evaluated.path / "metrics.json")
    journal = read_journal(trained.path / "journal.jsonl")
    row = {
        "workload": "translation",
        "recipe": recipe.stem,
        "data": "Multi30k en-de, test 2016",
        "parameters": trained.facts["parameters"],
        "filled_up": round(trained.facts["filled_up"], 4),
        **{
            name: {key: round(value, 4) for key, value in entry.items()}
            for name, entry in evaluated.facts["metrics"].items()
        },
        "sacrebleu": told["sacrebleu"],
        "by_length": told["by_length"],
        "translations": told["translations"][:6],
        "minutes": round((journal[-1]["time"] - journal[0]["time"]) / 60, 1),
        "curve": [
            {"epoch": r["epoch"], "loss": round(r["loss"], 4), "accuracy": round(r["accuracy"], 4)}
            for r in journal
            if r["kind"] == "validation"
        ],
    }
    prepared = pipeline.run_to(cast, "prepare", silent).path
    texts = [source for _, source, _ in read_json(prepared / "test.texts.json")]
    fast = recipe.stem == RECIPES[0]
    return [row, *([_measure_speed(artifact.path, texts)] if fast else [])]


def _measure_speed(folder: Path, texts: list[str]) -> dict[str, Any]:
    """Tokens a second of the same weights, beam 4, the best of some rounds in turn; in equal batches too."""
    from transformers import AutoModelForSeq2SeqLM

    tokenizer = PairTokenizer(folder, {})
    theirs: Any = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    own, padding = open_own(folder), tokenizer.inner.padding
    sources = sorted((tokenizer.source(text, "en-de", longest=_LONGEST) for text in texts), key=len)
    start = tokenizer.start("en-de")
    search = Search(beams=4, length_penalty=1.0)

    def write_ours() -> int:
        found = translate(
            own,
            sources,
            [start] * len(sources),
            padding=padding,
            end=tokenizer.end,
            search=search,
            longest=_LONGEST,
        )
        return sum(len(tokens) + 1 for tokens in found)

    def write_theirs() -> int:
        tokens = 0
        for first in range(0, len(sources), _TOGETHER):
            batch = pad_sources(sources[first : first + _TOGETHER], padding)
            with torch.no_grad():
                written = theirs.generate(
                    input_ids=batch,
                    attention_mask=(batch != padding).long(),
                    decoder_input_ids=torch.full((len(batch), 1), start),
                    num_beams=4,
                    max_new_tokens=_LONGEST,
                    do_sample=False,
                )
            tokens += int((written[:, 1:] != padding).sum())
        return tokens

    speeds: dict[str, float] = {"ours": 0.0, "generate": 0.0}
    for _ in range(_ROUNDS):
        for name, write in (("ours", write_ours), ("generate", write_theirs)):
            began = time.perf_counter()
            tokens = write()
            speeds[name] = max(speeds[name], tokens / (time.perf_counter() - began))
    return {
        "decoding": "beam 4, tokens a second",
        "threads": torch.get_num_threads(),
        "texts": len(texts),
        **{name: round(value, 1) for name, value in speeds.items()},
    }


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that were asked for."""
    found = [
        target(f"{name}: BLEU, test 2016", f">= {_WANTED[name]:g}", score, met=score >= _WANTED[name])
        for row in rows
        if (name := row.get("recipe")) and (score := row["bleu"]["value"]) is not None
    ]
    (speed,) = [row for row in rows if "decoding" in row]
    ratio = round(speed["ours"] / speed["generate"], 2)
    return [*found, target("decoding over transformers' generate, beam 4", ">= 1", ratio, met=ratio >= 1)]

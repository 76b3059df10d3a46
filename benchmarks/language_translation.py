"""Translation on public data: both recipes of Multi30k, en-de, on test 2016, and how fast beams are written.

RECASTER_TEST_DATA=DIR python -m benchmarks.language_quality --only translation
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.public_data import make_project
from benchmarks.quality import headline
from benchmarks.record import target
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.pair_shards import read_pair_texts
from recaster.data.pair_tokens import PairTokenizer
from recaster.models.seq2seq_models import open_own
from recaster.models.translate import Search, pad_sources, translate
from recaster.pipeline.open_cast import Cast
from recaster.training.journal import read_journal

TRANSFORMER = "multi30k-transformer"
WANTED = {TRANSFORMER: 36, "multi30k-rnn": 30}
"""BLEU on test 2016."""
_DIRECTION, _BEAMS, _LONGEST = "en-de", 4, 64
_ROUNDS, _TOGETHER, _TEXTS = 3, 32, 320


def run(work: Path) -> list[dict[str, Any]]:
    """Train and evaluate each recipe in a project below `work`; finished steps are found again."""
    project = make_project(work / "translation")
    casts = {name: open_recipe(project, name) for name in WANTED}
    return [*(_measure(name, cast) for name, cast in casts.items()), measure_speed(casts[TRANSFORMER])]


def open_recipe(project: Path, name: str) -> Cast:
    """The cast of one of the recipes."""
    path = project / "recipes" / "translation" / f"{name}.yaml"
    return pipeline.open_cast(path, ("distributed.threads_per_rank=1",))


def _measure(name: str, cast: Cast) -> dict[str, Any]:
    silent = SilentReporter()
    trained, evaluated = (pipeline.run_to(cast, step, silent) for step in ("train", "evaluate"))
    told, journal = read_json(evaluated.path / "metrics.json"), read_journal(trained.path / "journal.jsonl")
    return {
        "workload": "translation",
        "recipe": name,
        "data": "Multi30k en-de, test 2016",
        **headline("BLEU", evaluated.facts["metrics"]["bleu"]),
        "parameters": trained.facts["parameters"],
        "filled_up": round(trained.facts["filled_up"], 4),
        **{metric: _rounded(entry) for metric, entry in evaluated.facts["metrics"].items()},
        "sacrebleu": told["sacrebleu"],
        "by_length": told["by_length"],
        "translations": told["translations"][:6],
        "threads": cast.recipe.distributed.threads_per_rank,
        "minutes": round(_count_minutes(journal, cast.recipe.train.batch_size), 1),
        "curve": [
            {"epoch": r["epoch"], "loss": round(r["loss"], 4), "accuracy": round(r["accuracy"], 4)}
            for r in journal
            if r["kind"] == "validation"
        ],
    }


def _count_minutes(journal: list[dict[str, Any]], batch: int) -> float:
    """Of all steps, by the speed that each record has: a pause between two parts of a training is none."""
    steps = [record for record in journal if record["kind"] == "train"]
    before = [0, *(record["step"] for record in steps)]
    seconds = [
        (record["step"] - last) * batch / record["samples_per_second"]
        for record, last in zip(steps, before, strict=False)
    ]
    return float(sum(seconds)) / 60


def _rounded(entry: dict[str, float]) -> list[float]:
    """Value, low, high."""
    return [round(entry[name], 4) for name in ("value", "low", "high")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Race:
    """The same weights and sources for both searches."""

    folder: Path
    tokenizer: PairTokenizer
    sources: list[list[int]]

    @property
    def start(self) -> int:
        return self.tokenizer.start(_DIRECTION)

    def ours(self) -> Callable[[], int]:
        """Writes all, and says how many tokens; batches are `translate`'s."""
        model, search = open_own(self.folder), Search(beams=_BEAMS, length_penalty=1.0)

        def write() -> int:
            found = translate(
                model,
                self.sources,
                [self.start] * len(self.sources),
                padding=self.tokenizer.inner.padding,
                end=self.tokenizer.end,
                search=search,
                longest=_LONGEST,
            )
            return sum(min(len(tokens) + 1, _LONGEST) for tokens in found)

        return write

    def theirs(self, together: int) -> Callable[[], int]:
        """Likewise by transformers' `generate`, `together` sources in a batch."""
        from transformers import AutoModelForSeq2SeqLM

        model: Any = AutoModelForSeq2SeqLM.from_pretrained(self.folder).eval()
        padding = self.tokenizer.inner.padding

        @torch.no_grad()
        def write() -> int:
            tokens = 0
            for first in range(0, len(self.sources), together):
                batch = pad_sources(self.sources[first : first + together], padding)
                written = model.generate(
                    input_ids=batch,
                    attention_mask=(batch != padding).long(),
                    decoder_input_ids=torch.full((len(batch), 1), self.start),
                    num_beams=_BEAMS,
                    max_new_tokens=_LONGEST,
                    do_sample=False,
                )
                tokens += int((written[:, 1:] != padding).sum())
            return tokens

        return write


def measure_speed(cast: Cast) -> dict[str, Any]:
    """Tokens a second with beam 4 on one thread, the best of some rounds in turn.

    transformers gets two sizes of batches, since it has no rule of its own; the faster one counts.
    """
    artifact, prepared = (
        pipeline.run_to(cast, step, SilentReporter()).path for step in ("export", "prepare")
    )
    tokenizer, pairs = PairTokenizer(artifact, {}), read_pair_texts(prepared, "test")
    chosen = pairs[:: max(1, len(pairs) // _TEXTS)]
    sources = sorted(
        (tokenizer.source(pair.source, _DIRECTION, longest=_LONGEST) for pair in chosen), key=len
    )
    race = _Race(folder=artifact, tokenizer=tokenizer, sources=sources)
    runners = {
        "ours": race.ours(),
        **{f"generate, {rows} texts a batch": race.theirs(rows) for rows in (_TOGETHER, 4 * _TOGETHER)},
    }
    torch.set_num_threads(1)
    speeds = dict.fromkeys(runners, 0.0)
    for _ in range(_ROUNDS):
        for name, write in runners.items():
            began = time.perf_counter()
            tokens = write()
            speeds[name] = max(speeds[name], tokens / (time.perf_counter() - began))
    return {
        "workload": "translation",
        "decoding": f"beam {_BEAMS}, one thread, tokens a second, the best of {_ROUNDS} rounds in turn",
        "texts": len(sources),
        "tokens_per_second": {name: round(value, 1) for name, value in speeds.items()},
    }


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that were asked for, of what was measured."""
    found = [
        target(
            f"translation, Multi30k en-de test 2016: BLEU of {row['recipe']}",
            f"at least {WANTED[row['recipe']]}",
            row["bleu"][0],
            met=row["bleu"][0] >= WANTED[row["recipe"]],
        )
        for row in rows
        if "recipe" in row
    ]
    for speeds in (row["tokens_per_second"] for row in rows if "decoding" in row):
        ratio = round(speeds["ours"] / max(value for name, value in speeds.items() if name != "ours"), 2)
        found.append(
            target("translation: beam 4 over transformers' generate", "at least 1", ratio, met=ratio >= 1)
        )
    return found

"""The model card that travels with every artifact: README.md with the front matter that model hubs read.

---
license: apache-2.0
base_model: sentence-transformers/all-MiniLM-L6-v2
---
# requests
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from recaster.core.files import read_json, write_bytes
from recaster.exporting.card_texts import (
    ASKING,
    FACE_LIMITS,
    GENERATION_LIMITS,
    PARSING,
    PICTURES,
    PIPELINES,
    UNITS,
    USES,
    WORD_LIMITS,
    WORDS_CODE,
)
from recaster.exporting.chat_card import describe_judge, describe_leaks, describe_policy
from recaster.recipe.adversary import GENERATION
from recaster.recipe.evaluation import FACES
from recaster.recipe.policy import LEAKS
from recaster.recipe.schema import Recipe

CARD, LICENCE = "README.md", "LICENSE"
_CHAIN = "licence_chain"
"""Key of the front matter: all licences of the chain, as an SPDX expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One link of the licence chain."""

    what: str
    """`base model`, `teacher`, `discriminator's encoder`, `word vectors` or `data`."""
    name: str
    """The reference, or the source."""
    licence: str
    page: str | None = None
    """Where people find it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How the weights came to be."""

    method: str
    parameters: int
    trained_parameters: int
    ranks: int
    device: str
    seconds: float
    """Wall time from the first step to the last."""
    watt_hours: float | None
    """None where the machine tells nothing."""
    power: str
    """On what that figure rests."""
    code: str
    """Version of the program, and the commit of the project where it is in git."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card says beside the recipe."""

    data_version: str
    rows: int
    """Of the held-out split."""
    metrics: dict[str, dict[str, float]]
    classes: list[dict[str, Any]]
    slices: list[dict[str, Any]]
    """Of `evaluation.slices`, those with metrics."""
    baseline: dict[str, Any] | None
    """A simple model of the same data: `model` in words, and its `metrics`."""
    judge: dict[str, Any] | None
    """Of a chat model: how its replies compare with its base's, and how far to trust who compares."""
    chain: list[Origin]
    training: Training
    base_model: str | None
    """As hubs name it."""


def write_card(artifact: Path, recipe: Recipe, facts: CardFacts) -> None:
    """Write `README.md` and `LICENSE` into the artifact's folder."""
    parts = [
        _front_matter(artifact, recipe, facts),
        _introduction(recipe, facts),
        _use(recipe),
        _loading(artifact, recipe),
        _measured(recipe, facts),
        _data(recipe, facts),
        _origin(facts),
        _limits(recipe),
    ]
    write_bytes(artifact / CARD, ("\n".join("\n".join([*part, ""]) for part in parts)).encode())
    write_bytes(artifact / LICENCE, ("\n".join(_licence_file(recipe, facts)) + "\n").encode())


def read_licence(card: Path) -> str | None:
    """The licences behind the model of a card, as an SPDX expression; None where it does not say."""
    if not card.exists():
        return None
    parts = card.read_text(encoding="utf-8").split("---\n")
    front = YAML(typ="safe").load(parts[1]) if len(parts) > 2 else None
    found = front.get(_CHAIN) or front.get("license") if isinstance(front, dict) else None
    return str(found) if found else None


def join_licences(chain: list[Origin]) -> str:
    """All licences of the chain, each once, as an SPDX expression."""
    parts: list[str] = []
    for licence in dict.fromkeys(origin.licence for origin in chain):
        parts += [f"({licence})"] if " OR " in licence else licence.split(" AND ")
    distinct = list(dict.fromkeys(parts))
    return " AND ".join(distinct) if len(distinct) > 1 else chain[0].licence


def _front_matter(artifact: Path, recipe: Recipe, facts: CardFacts) -> list[str]:
    joined, pipeline = join_licences(facts.chain), PIPELINES.get(_task(recipe))
    alone = " " not in joined
    front: dict[str, Any] = {"license": joined.lower() if alone else "other"}
    if not alone:
        front["license_name"] = joined.lower().replace(" ", "-")
        front["license_link"] = LICENCE
    front[_CHAIN] = joined
    if facts.base_model:
        front["base_model"] = facts.base_model
    if recipe.card.languages:
        front["language"] = recipe.card.languages
    if _is_transformers(artifact):
        front["library_name"] = "transformers"
    if pipeline:
        front["pipeline_tag"] = pipeline
    front |= {"tags": ["recaster", recipe.workload], "datasets": [_data_name(recipe)]}
    front |= {"metrics": list(facts.metrics), "model-index": [_index(recipe, facts, pipeline)]}
    return ["---", *_block(front), "---"]


def _block(front: dict[str, Any]) -> list[str]:
    """The front matter as YAML, a key a line, in this order."""
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = False
    yaml.width = 4096
    yaml.dump(front, text)
    return text.getvalue().rstrip().splitlines()


def _index(recipe: Recipe, facts: CardFacts, pipeline: str | None) -> dict[str, Any]:
    """The results as hubs show them."""
    return {
        "name": recipe.name,
        "results": [
            {
                "task": {"type": pipeline or recipe.workload},
                "dataset": {"name": _data_name(recipe), "type": _data_name(recipe), "split": "test"},
                "metrics": [
                    {"type": name, "value": round(entry["value"], 6)} for name, entry in facts.metrics.items()
                ],
            }
        ],
    }


def _introduction(recipe: Recipe, facts: CardFacts) -> list[str]:
    training = facts.training
    share = training.trained_parameters / training.parameters
    return [
        f"# {recipe.name}",
        "",
        f"A model for {recipe.workload.replace('-', ' ')}, made from `{recipe.model.base}` on "
        f"`{recipe.data.source}` by the method `{training.method}`: {training.trained_parameters:,} of "
        f"{training.parameters:,} parameters were trained ({share:.2%}).",
    ]


def _use(recipe: Recipe) -> list[str]:
    kind = {FACES: "faces", GENERATION: GENERATION}.get(recipe.workload, recipe.data.kind)
    used = USES.get(kind, "").format(labels=", ".join(recipe.data.labels))
    return [
        "## Intended use",
        "",
        *([recipe.card.intended_use, ""] if recipe.card.intended_use else []),
        used,
        *describe_policy(recipe.policy),
    ]


def _loading(artifact: Path, recipe: Recipe) -> list[str]:
    """How to read the folder without Recaster."""
    if recipe.data.trees:
        code = PARSING
    elif recipe.data.words:
        code = WORDS_CODE
    elif (artifact / "modeling.py").exists():
        code = [
            "import json, safetensors.torch, modeling  # the folder's own file, which imports torch alone",
            'told = json.load(open("config.json"))',
            'model = modeling.build_model(**told["arguments"])',
            'model.load_state_dict(safetensors.torch.load_file("model.safetensors"))',
            ASKING.get(_asked(recipe), f"logits = model.eval()(pictures){PICTURES}"),
        ]
    elif (artifact / "adapter_config.json").exists():
        code = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            'base = AutoModelForCausalLM.from_pretrained(FOLDER + "/base")',
            "model = PeftModel.from_pretrained(base, FOLDER)  # what was trained, beside the base",
        ]
    else:
        task = PIPELINES.get(_task(recipe), recipe.workload)
        code = ["from transformers import pipeline", f'answer = pipeline("{task}", model=FOLDER)']
        code.append(
            {"chat": 'answer([{"role": "user", "content": "hello"}])'}.get(recipe.data.kind, "answer(…)")
        )
        if recipe.data.text:
            cut = recipe.data.text.max_tokens
            code[-1] = f'answer("a text", truncation=True, max_length={cut})'
    return ["## Loading it, with no other library of ours", "", "```python", *code, "```"]


def _asked(recipe: Recipe) -> str:
    return GENERATION if recipe.workload == GENERATION else recipe.data.kind


def _measured(recipe: Recipe, facts: CardFacts) -> list[str]:
    confidence = f"{recipe.evaluate.confidence:.0%}"
    metrics = [
        f"| {name} | {entry['value']:.4f} | {entry['low']:.4f} | {entry['high']:.4f} |"
        for name, entry in facts.metrics.items()
    ]
    classes = [
        f"| {row['label']} | {row['rows']} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} |"
        for row in facts.classes
    ]
    counted = "accuracy and leak resistance" if LEAKS[0] in facts.metrics else "accuracy"
    lines = [
        f"## Metrics on {facts.rows:,} held-out {UNITS.get(recipe.workload, 'records')}",
        "",
        f"Intervals are of {confidence}: Wilson's for {counted}, the bootstrap's for the rest."
        + _views(recipe),
        "",
        "| metric | value | low | high |",
        "|---|---:|---:|---:|",
        *metrics,
    ]
    if classes:
        lines += ["", "| label | rows | precision | recall | f1 |", "|---|---:|---:|---:|---:|", *classes]
    if facts.baseline:
        told = ", ".join(
            f"{name} {entry['value']:.4f} ({entry['low']:.4f} to {entry['high']:.4f})"
            for name, entry in facts.baseline["metrics"].items()
        )
        lines += ["", f"For comparison, {facts.baseline['model']}: {told}."]
    if facts.slices:
        lines += ["", "| slice | rows | accuracy | low | high |", "|---|---:|---:|---:|---:|"]
        lines += [_slice_row(row) for row in facts.slices]
    return [*lines, *describe_judge(facts.judge), *describe_leaks(facts.metrics, recipe.policy)]


def _views(recipe: Recipe) -> str:
    """What the figures rest on that the bare network does not do."""
    count = (5 if recipe.evaluate.shift_pixels else 1) * (2 if recipe.evaluate.flip else 1)
    if recipe.data.kind != "image" or count == 1:
        return ""
    return f" Answers are means over {count} views of a picture, as preprocessing.json says."


def _slice_row(row: dict[str, Any]) -> str:
    share = row["accuracy"]
    numbers = " | ".join(f"{share[name]:.3f}" for name in ("value", "low", "high"))
    return f"| {row['by']}: {row['slice']} | {row['rows']} | {numbers} |"


def _data(recipe: Recipe, facts: CardFacts) -> list[str]:
    training = facts.training
    energy = f"{training.watt_hours:.3g} Wh" if training.watt_hours is not None else "not known"
    minutes, seconds = divmod(round(training.seconds), 60)
    return [
        "## Data and training",
        "",
        f"- Data: `{recipe.data.source}`, version `{facts.data_version}` (a hash of its content)",
        *([f"- Legal basis of the data: {recipe.data.legal_basis}"] if recipe.data.legal_basis else []),
        f"- Ranks: {training.ranks} on {training.device}; precision {recipe.train.precision}; "
        f"seed {recipe.train.seed}",
        f"- Wall time: {minutes} min {seconds} s of steps, validations and checkpoints",
        f"- Energy: {energy} ({training.power})",
        f"- Code: {training.code}",
    ]


def _origin(facts: CardFacts) -> list[str]:
    return [
        "## Licence chain",
        "",
        "| what | which | licence |",
        "|---|---|---|",
        *(f"| {one.what} | {_linked(one)} | {one.licence} |" for one in facts.chain),
        f"| this model | made from these | {join_licences(facts.chain)} |",
        "",
        f"Whoever uses it keeps the terms of all of them; see {LICENCE}.",
    ]


def _linked(origin: Origin) -> str:
    return f"[`{origin.name}`]({origin.page})" if origin.page else f"`{origin.name}`"


def _limits(recipe: Recipe) -> list[str]:
    lines = ["## Limits", ""]
    if recipe.card.limits:
        lines += [recipe.card.limits, ""]
    if recipe.workload == FACES:
        lines += [FACE_LIMITS, ""]
    if recipe.workload == GENERATION:
        return [*lines, GENERATION_LIMITS]
    lines += [WORD_LIMITS, ""] if recipe.data.words else []
    lines.append("Measured on records of the same source as the training data; no claim is made for others.")
    if recipe.data.chat and recipe.data.chat.preferences:
        lines.append(
            "It was tuned to prefer one reply to another: which is better is the judgement of its data, and "
            "the figures are over such pairs, not over replies of its own."
        )
    if recipe.data.text:
        lines.append(f"Texts are cut after {recipe.data.text.max_tokens} tokens.")
    if recipe.data.trees:
        lines.append(
            "It gives any input a tree, whether that is a sentence of its language or not, and it has the "
            "treebank's genres, conventions and biases."
        )
    if recipe.data.labels:
        given = "any number" if recipe.data.several_labels else "one"
        lines.append(
            f"It knows no other labels, and gives {given} of these to any input."
            if recipe.data.out_of_scope is None
            else f"It knows no other labels. An answer below `least_probability` in preprocessing.json is "
            f"`{recipe.data.out_of_scope}`; whoever does not apply that gets one of these for any input."
        )
    return lines


def _licence_file(recipe: Recipe, facts: CardFacts) -> list[str]:
    return [
        f"{recipe.name}: {join_licences(facts.chain)}",
        "",
        "This model was made from the following, and their terms hold for it:",
        "",
        *(f"  {one.what}: {one.name}\n    licence: {one.licence}" for one in facts.chain),
        "",
        "The texts of licences with an SPDX identifier are at https://spdx.org/licenses/.",
    ]


def _task(recipe: Recipe) -> str:
    return recipe.data.corpus.objective if recipe.data.corpus else recipe.workload


def _data_name(recipe: Recipe) -> str:
    return recipe.card.data_name or recipe.name


def _is_transformers(artifact: Path) -> bool:
    config = artifact / "config.json"
    # An adapter's folder has its base's configuration inside.
    return not config.exists() or "model_type" in read_json(config)

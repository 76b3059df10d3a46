"""What each step is a function of: its fingerprint is made of these, so they decide what is done again.

A key that a step reads and that is missing here would give stale results; one that it does not
read would do work twice.
"""

from __future__ import annotations

import json
from typing import Any

from recaster.core.files import read_json
from recaster.core.hashing import hash_directory, hash_file, hash_sources
from recaster.core.steps import StepResult
from recaster.data.labels import balance
from recaster.pipeline.base_verbs import find_base, find_critic, find_encoder, find_judge, find_teacher
from recaster.pipeline.open_cast import Cast
from recaster.pipeline.vector_verbs import align_vectors, hash_vectors

_CODE = {
    "snapshot": (
        "data.sources",
        "data.face_alignment",
        "data.image_sources",
        "data.jpeg",
        "data.picture_files",
        "data.picture_archive",
        "data.picture_list",
        "data.picture_parquet",
        "data.picture_zip",
        "data.pair_sources",
        "data.subset",
        "data.text_sources",
        "data.chat_sources",
        "data.document_sources",
        "data.synthetic",
        "data.synthetic_faces",
        "data.synthetic_pairs",
        "data.synthetic_trees",
        "data.tree_sources",
        "data.synthetic_words",
        "data.records",
        "data.packed",
    ),
    "validate": (
        "data.contract",
        "data.contract_faces",
        "data.contract_images",
        "data.contract_text",
        "data.label_noise",
        "data.contract_chat",
        "data.chat_sources",
        "data.contract_pairs",
        "data.pair_sources",
        "data.contract_trees",
        "models.conllu",
        "models.personal_data",
        "models.template_marks",
        "models.turn_order",
    ),
    "prepare": (
        "data.packed",
        "data.picture_splits",
        "data.generation_reference",
        "models.picture_features",
        "data.split",
        "data.split_identities",
        "data.shards",
        "data.slice_groups",
        "data.token_shards",
        "data.tokenizers",
        "data.chat_tokens",
        "data.chat_shards",
        "data.chat_sources",
        "data.preference_shards",
        "data.document_shards",
        "data.marked_rows",
        "data.pair_shards",
        "data.pair_sources",
        "data.pair_tokens",
        "data.tree_shards",
        "models.conllu",
        "models.lemma_rules",
        "models.parser_columns",
        "models.segmenter",
        "data.word_corpus",
        "models.word_table",
        "workloads",
    ),
    "features": ("customization", "models", "workloads", "data.shards", "data.token_shards", "core.seeds"),
    "train": (
        "training",
        "distributed",
        "customization",
        "models",
        "workloads",
        "data.augmentation",
        "data.noisy_pictures",
        "data.picture_changes",
        "data.picture_set",
        "data.rand_augment",
        "data.sending",
        "data.shards",
        "data.token_shards",
        "data.marked_rows",
        "data.pair_shards",
        "data.preference_shards",
        "data.tree_shards",
        "data.word_rows",
        "core.seeds",
    ),
    "export": ("exporting", "customization", "models", "workloads"),
    "evaluate": (
        "evaluation",
        "workloads",
        "models",
        "data.generation_reference",
        "data.noisy_pictures",
        "data.shards",
        "data.slice_groups",
        "data.token_shards",
        "data.marked_rows",
        "data.chat_tokens",
        "data.chat_shards",
        "data.pair_shards",
        "data.pair_tokens",
        "data.preference_shards",
        "data.tree_shards",
    ),
    "register": ("registry", "exporting", "serving"),
    "promote": ("registry",),
}


def code_of(step: str) -> str:
    """The version of the step's code."""
    return hash_sources(*_CODE[step])


def code_of_all() -> str:
    """The version of all steps' code together."""
    return hash_sources(*sorted({module for modules in _CODE.values() for module in modules}))


def snapshot_inputs(cast: Cast) -> dict[str, Any]:
    """The data section and the source's present content."""
    from recaster.data.sources import hash_source

    data = cast.recipe.data
    return {
        "data": data.model_dump(),
        "source": hash_source(data, cast.settings),
        "code": code_of("snapshot"),
    }


def validate_inputs(cast: Cast, snapshot: StepResult) -> dict[str, Any]:
    """The packed set, and what the contract asks of it: each workload has rules of its own."""
    return {
        "workload": cast.recipe.workload,
        "snapshot": snapshot.content,
        "data": cast.recipe.data.model_dump(),
        "contract": cast.recipe.contract.model_dump(),
        "code": code_of("validate"),
    }


def prepare_inputs(cast: Cast, snapshot: StepResult, validation: StepResult) -> dict[str, Any]:
    """The packed set, which of its rows are good, how they are divided, and whose tokens texts become."""
    base, texts = find_base(cast), cast.recipe.data.kind not in ("image", "boxes")
    encoder = find_encoder(cast)
    compared: dict[str, Any] = (
        {
            "encoder": encoder.content,
            "size": cast.recipe.evaluate.encoder_size,
            "encoder_code": hash_sources("models"),
        }
        if encoder
        else {}
    )
    chat = cast.recipe.data.chat
    if chat and chat.preferences:  # the base itself is asked
        compared["reference_code"] = hash_sources("models")
    return {
        "workload": cast.recipe.workload,
        **compared,
        "base": base.content if base and texts else None,
        "vocabulary": cast.recipe.model.vocabulary if texts and not base else None,
        "architecture": cast.recipe.model.base if texts and not base else None,
        "snapshot": snapshot.content,
        "accepted": hash_file(validation.path / "accepted.npy"),
        "data": cast.recipe.data.model_dump(),
        "split": cast.recipe.split.model_dump(),
        "code": code_of("prepare"),
    }


def features_inputs(cast: Cast, prepared: StepResult, base: StepResult) -> dict[str, Any]:
    """The shards and the frozen encoder."""
    return {
        "workload": cast.recipe.workload,
        "prepared": prepared.content,
        "base": base.content,
        "arguments": cast.workload.model_arguments(cast.recipe),
        "code": code_of("features"),
    }


def train_inputs(cast: Cast, prepared: StepResult) -> dict[str, Any]:
    """The shards and every decision of the optimisation; the store, since the run lives there."""
    recipe, base, teacher = cast.recipe, find_base(cast), find_teacher(cast)
    critic = find_critic(cast)
    return {
        **({"critic": critic.content} if critic else {}),
        "base": base.content if base else None,
        "teacher": teacher.content if teacher else None,
        "vectors": hash_vectors(cast),
        "customize": recipe.customize.model_dump(),
        "name": recipe.name,
        "workload": recipe.workload,
        "prepared": prepared.content,
        "model": recipe.model.model_dump(),
        "train": recipe.train.model_dump(),
        "distributed": recipe.distributed.of_the_result(),
        "communication": recipe.communication.model_dump(),
        "store": cast.settings.tracking_uri,
        "code": code_of("train"),
    }


def export_inputs(cast: Cast, trained: StepResult) -> dict[str, Any]:
    """The weights and what is needed to read them."""
    recipe = cast.recipe
    return {
        "weights": trained.facts["weights_sha256"],
        "trained": trained.ref,
        "data": recipe.data.model_dump(include={"labels", "out_of_scope", recipe.data.kind}),
        "policy": recipe.policy.model_dump() if recipe.policy else None,
        "evaluate": recipe.evaluate.model_dump(
            include={
                "false_accept_rate",
                "false_reject_rate",
                "flip",
                "shift_pixels",
                "beams",
                "length_penalty",
            }
        ),
        "code": code_of("export"),
    }


def evaluate_inputs(cast: Cast, prepared: StepResult, artifact: Any) -> dict[str, Any]:
    """The artifact's content (its card, which tells of the evaluation, left out), the shards, the judge."""
    judge = find_judge(cast) if cast.recipe.evaluate.judge else None
    return {
        "judge": judge.content if judge else None,
        "artifact": hash_directory(artifact, leave_out=["README.md", "manifest.json"]),
        "prepared": prepared.content,
        "evaluate": cast.recipe.evaluate.model_dump(),
        "policy": cast.recipe.policy.model_dump() if cast.recipe.policy else None,
        "code": code_of("evaluate"),
    }


def register_inputs(cast: Cast, trained: StepResult, evaluation: StepResult) -> dict[str, Any]:
    """The run, its evaluation and the store they go to."""
    return {
        "run_id": trained.facts["run_id"],
        "evaluation": evaluation.ref,
        "card": cast.recipe.card.model_dump(),
        "store": cast.settings.tracking_uri,
        "code": code_of("register"),
    }


def training_plan(cast: Cast, prepared: StepResult, features: StepResult | None = None) -> dict[str, Any]:
    """What the ranks are told: plain JSON, no recipe, no settings.

    Args:
        features: for a method that trains on what the base makes of the prepared rows.
    """
    recipe, base, teacher = cast.recipe, find_base(cast), find_teacher(cast)
    vectors, critic = align_vectors(cast, prepared), find_critic(cast)
    return {
        "workload_module": cast.workload_module,
        "prepared": str(prepared.path),
        "base": str(base.path) if base else None,
        "teacher": str(teacher.path) if teacher else None,
        "critic": str(critic.path) if critic else None,
        "features": str(features.path) if features else None,
        "vectors": str(vectors.path) if vectors else None,
        "customize": recipe.customize.model_dump(),
        "model_arguments": cast.workload.model_arguments(recipe),
        "train": _train_section(cast, prepared),
        "distributed": recipe.distributed.model_dump(),
        "communication": recipe.communication.model_dump(),
    }


def _train_section(cast: Cast, prepared: StepResult) -> dict[str, Any]:
    """The recipe's, with the numbers that balanced class weights are for this training split."""
    recipe, section = cast.recipe, cast.recipe.train.model_dump()
    if section["loss"]["class_weights"] == "balanced":
        told, several = read_json(prepared.path / "splits.json"), recipe.data.several_labels
        counts = {int(number): count for number, count in told["per_label"]["train"].items()}
        section["loss"]["class_weights"] = balance(
            counts,
            rows=told["rows"]["train"] if several else sum(counts.values()),
            classes=len(recipe.data.labels),
            several=several,
        )
    return section


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`, for a tracking server's params."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat

"""What people do with a model in production: promote and roll back by hand, predict."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.errors import DataError, RecipeError
from recaster.core.files import read_json
from recaster.core.settings import Settings
from recaster.pipeline.given_text import write_given

if TYPE_CHECKING:
    from recaster.data.records import RawRecord
    from recaster.models.replies import ChatVoice
    from recaster.recipe.data import BoxShape, DataSection
    from recaster.recipe.pairs import PairShape
    from recaster.recipe.trees import TreeShape

_DESCRIBED = "preprocessing.json"
_OF_ANSWERS = (
    "kind",
    "several_labels",
    "out_of_scope",
    "least_probability",
    "flip",
    "shift_pixels",
    "policy",
    "beta",
)
"""What that file says beside the shape of a record."""


def promote_by_hand(settings: Settings, name: str, version: str) -> dict[str, Any]:
    """Make `version` champion, whatever the gate said.

    Raises:
        RecipeError: there is no such version.
    """
    from recaster.registry.versions import find_champion, list_versions, promote_version, take_out
    from recaster.tracking.runs import open_tracking, service_errors

    with service_errors(settings.tracking_uri):
        client = open_tracking(settings)
        known = [str(entry.version) for entry in list_versions(client, name)]
        if version not in known:
            raise RecipeError(
                "There is no such model version.",
                where=name,
                value=version,
                repair=f"use one of: {', '.join(known) or 'none yet'}",
            )
        former = find_champion(client, name) or ""
        if former != version:
            if former:
                take_out(client, name, former)
            promote_version(client, name, version, over=former, reason="by hand")
    return {"name": name, "champion": version, "former": former}


def roll_back_champion(settings: Settings, name: str) -> dict[str, Any]:
    """Give the alias back to the champion before the present one."""
    from recaster.registry.versions import roll_back
    from recaster.tracking.runs import open_tracking, service_errors

    with service_errors(settings.tracking_uri):
        return {"name": name, **asdict(roll_back(open_tracking(settings), name))}


def predict(
    settings: Settings, name: str, source: Path | bytes | str, *, alias: str = "champion"
) -> list[dict[str, Any]]:
    """Labels and probabilities, or replies, for the records in `source`, by the version that `alias` names.

    Boxes are in the pixels of each picture as it is shown, whatever size the model sees.

    Args:
        source: a file or folder, an address, or what came through standard input.

    Raises:
        DataError: a record cannot be read; nothing is predicted then.
        ServiceError: the address does not answer.
        RecipeError: the model makes pictures of nothing (see `sample`).
    """
    from recaster.data.remote import fetch_given, is_remote
    from recaster.registry.versions import load_model
    from recaster.tracking.runs import open_tracking, service_errors

    with service_errors(settings.tracking_uri):
        model, described = load_model(open_tracking(settings), name, alias)
    if described["kind"] == "noise":
        raise RecipeError(
            "A generator takes no records.",
            where=name,
            value="standard input" if isinstance(source, bytes) else str(source),
            repair="leave the source out: `recaster predict NAME --samples 16 --to sheet.png`",
        )
    if not isinstance(source, bytes) and not is_remote(str(source)):
        return _answer(settings, model, described, Path(source))
    with tempfile.TemporaryDirectory() as folder:
        given = (
            write_given(source, described["kind"], Path(folder))
            if isinstance(source, bytes)
            else fetch_given(str(source), Path(folder), offline=settings.offline)
        )
        return _answer(settings, model, described, given)


def _answer(settings: Settings, model: Any, described: dict[str, Any], source: Path) -> list[dict[str, Any]]:
    """What `model` says of the records at `source`.

    Args:
        described: the artifact's preprocessing.json.
    """
    from recaster.data.sources import read_records
    from recaster.recipe.data import DataSection

    kind = described["kind"]
    shape = {key: value for key, value in described.items() if key not in _OF_ANSWERS}
    section = DataSection.model_validate({"source": str(source.resolve()), "licence": "-", kind: shape})
    records = list(read_records(section, settings))
    bad = [record for record in records if record.problem]
    if bad or not records:
        raise DataError(
            "Some records cannot be read." if bad else "There are no records.",
            where=bad[0].where if bad else str(source),
            value=bad[0].problem if bad else None,
            repair="correct them; docs/howto/own-data.md says which forms are read",
        )
    frame = _ask(model, _to_input(records, section), section, source)
    rows = frame.to_dict("records")
    if section.boxes:
        rows = [_in_own_pixels(row, record, section.boxes) for record, row in zip(records, rows, strict=True)]
    return [{"id": record.id, **row} for record, row in zip(records, rows, strict=True)]


def _ask(model: Any, given: Any, section: DataSection, source: Path) -> Any:
    try:
        return model.predict(given)
    except ValueError as error:
        if not section.chat:
            raise
        raise DataError(
            "A conversation cannot be answered.",
            where=str(source),
            value=error,
            repair="shorten its last message, or bring its roles into order",
        ) from error


def _in_own_pixels(row: dict[str, Any], record: RawRecord, shape: BoxShape) -> dict[str, Any]:
    """`row` with its boxes in the pixels of the picture as it came, which the model saw resized."""
    from recaster.data.boxes import read_sides, unfit_sides

    if record.shown is None or shape.resize == "refuse":
        return row
    size = (shape.height, shape.width)
    boxes = [
        {
            **box,
            "box": [
                round(side, 2)
                for side in unfit_sides(
                    read_sides(box["box"]), before=record.shown, after=size, resize=shape.resize
                )
            ],
        }
        for box in json.loads(row["boxes"])
    ]
    return {**row, "boxes": json.dumps(boxes)}


def open_voice(settings: Settings, name: str, *, alias: str = "champion") -> ChatVoice:
    """The chat model in production, or that of an exported folder where `name` is one, ready to talk.

    Raises:
        RecasterError: there is no such version.
        RecipeError: it is no chat model.
    """
    from recaster.models.replies import ChatVoice
    from recaster.registry.versions import find_artifact
    from recaster.tracking.runs import open_tracking, service_errors

    folder = Path(name)
    if not (folder / _DESCRIBED).exists():
        with service_errors(settings.tracking_uri):
            folder = find_artifact(open_tracking(settings), name, alias)
    if (kind := read_json(folder / _DESCRIBED)["kind"]) != "chat":
        raise RecipeError(
            "This model does not talk.",
            where=name,
            value=f"it takes records of kind {kind}",
            repair="use `recaster predict`, or name a model of the workload chat",
        )
    return ChatVoice(folder)


def _to_input(records: list[RawRecord], section: DataSection) -> Any:
    image = section.image or section.boxes
    if image is None:
        import pandas as pd

        if section.chat:
            return pd.DataFrame({"messages": [_to_question(record) for record in records]})
        if section.pairs:
            return pd.DataFrame([_to_source(record, section.pairs) for record in records])
        if section.trees:
            _check_lengths(records, section.trees)
        return pd.DataFrame({"text": [record.text for record in records]})
    import numpy as np

    shape = (image.height, image.width, image.channels)
    pixels = [record.pixels for record in records if record.pixels is not None]
    if odd := [record for record in records if record.pixels is not None and record.pixels.shape != shape]:
        raise DataError(
            "A picture has another shape than the model takes.",
            where=odd[0].where,
            value=None if odd[0].pixels is None else odd[0].pixels.shape,
            repair=f"bring it to (height, width, channels) {shape}",
        )
    return np.stack(pixels).astype(np.float32)


def _check_lengths(records: list[RawRecord], shape: TreeShape) -> None:
    """Refuse sentences in CoNLL-U that are too long; raw text is cut."""
    from recaster.models.conllu import is_conllu, parse_sentence

    for record in records:
        if not is_conllu(record.text or ""):
            continue
        if (words := len(parse_sentence(record.text or "").words)) > shape.max_words:
            raise DataError(
                "A sentence is longer than the model takes.",
                where=record.where,
                value=f"{words} words",
                repair=f"cut it to {shape.max_words}, or train with a larger data.trees.max_words",
            )


def _to_question(record: RawRecord) -> list[dict[str, str]]:
    """A conversation up to the user's last message, which the model answers anew."""
    from recaster.data.chat_sources import parse_messages
    from recaster.models.turn_order import check_order

    messages = parse_messages(record.text or "[]")
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    problem = check_order(messages) or ("" if messages and messages[-1]["role"] == "user" else "no user")
    if problem:
        raise DataError(
            "A conversation cannot be answered.",
            where=record.where,
            value=problem,
            repair="let it have roles system (if any), user, assistant, user … in turn",
        )
    return messages


def _to_source(record: RawRecord, shape: PairShape) -> dict[str, str]:
    """The text to translate, and in which direction: the first that the record has the source of."""
    from recaster.data.pair_sources import parse_sides

    sides = parse_sides(record.text or "{}")
    for direction in shape.directions:
        if text := sides.get(direction.partition("-")[0], "").strip():
            return {"text": text, "direction": direction}
    raise DataError(
        "A record has nothing to translate.",
        where=record.where,
        value=f"texts in {', '.join(sides) or 'no language'}",
        repair=f"give it a text in a source of {', '.join(shape.directions)}",
    )

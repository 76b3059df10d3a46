"""Chat: a causal language model that answers, tuned on conversations.

chat-0001  user: wake me at six  assistant: The alarm will ring at six.
    →   train.tokens.npy [1, 90, …, ~13, ~77, …, 2]   →   logits of the assistant's tokens, which are marked
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.files import read_json, write_json
from recaster.data.chat_shards import SPLITS, read_held_out, write_about, write_chat_shard
from recaster.data.chat_sources import dump_messages, parse_messages
from recaster.data.marked_rows import SuccessorRows
from recaster.data.preference_shards import (
    holds_pairs,
    open_preference_rows,
    write_preference_shard,
    write_reference,
)
from recaster.data.token_shards import read_token_shard
from recaster.models.causal_models import (
    RECURRENT,
    build_decoder,
    check_recurrent,
    decoder_arguments,
    foreseeing,
    open_causal_model,
)
from recaster.models.loading import base_folder
from recaster.models.losses import LossSum, build_token_loss
from recaster.models.packed_rows import keep_apart
from recaster.models.preference_loss import build_preference_loss, count_preferred
from recaster.models.recurrent_decoder import RecurrentDecoder
from recaster.models.token_scores import score_tokens
from recaster.recipe.preferences import PREFERENCE
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.data.packed import PackedRecord
    from recaster.recipe.data import ChatShape
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_PACKED = "data.chat.packed"
_PAIRED = 3
"""Dimensions of the targets of pairs; of conversations there are two."""
_TOKENIZER = "tokenizer"
"""Folder of the prepared data with the tokenizer's files, of a model without a base."""


class Chat:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "chat"
    architectures = ("small-decoder", *RECURRENT)
    served_by = "pyfunc_chat"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Roles, length and odd characters of each conversation."""
        from recaster.data.contract import collect_facts
        from recaster.data.contract_chat import FACTS, describe_chat

        return collect_facts(raw, describe_chat, FACTS)

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, unique, roles in order, with a reply, nothing empty."""
        from recaster.data.contract_chat import chat_rules

        return chat_rules(recipe.data, recipe.contract)

    def prepare(
        self, recipe: Recipe, raw: Path, accepted: NDArray[np.int64], base: Path | None, folder: Path
    ) -> dict[str, Any]:
        """Group equal conversations, split, write them by the chat template, mark replies, write shards.

        Without a base a tokenizer is trained on the training split. A conversation in which nothing is
        learned once it is cut is left out, and counted. Of pairs what the base thinks of them is written
        too, once for all that is trained and measured on them.
        """
        from recaster.data.chat_tokens import ChatTokenizer
        from recaster.data.packed import read_accepted
        from recaster.data.split import divide_records, group_texts

        shape = stated(recipe.data.chat)
        records = read_accepted(raw, accepted)
        groups = group_texts([_shared_text(record.text, shape) for record in records])
        published = [record.split for record in records]
        splits, left_out = divide_records(
            np.zeros(len(records), dtype=np.int64), groups, published, recipe.split
        )
        if base is None:
            _train_tokenizer(recipe, [records[row] for row in splits["train"].tolist()], folder)
        tokenizer = ChatTokenizer(base or folder / _TOKENIZER)
        divider = tokenizer.dividing_token() if shape.packed else None
        write = write_preference_shard if shape.preferences else partial(write_chat_shard, divider=divider)
        counts = {}
        for name, rows in splits.items():
            own = [records[row] for row in rows.tolist()]
            counts[name] = write(folder, name, own, tokenizer=tokenizer, longest=shape.max_tokens)
        if base and shape.preferences:
            _measure_base(base, folder, list(splits), tokenizer.padding)
        facts = {
            **{key: {name: found[key] for name, found in counts.items()} for key in counts["train"]},
            "duplicates": len(groups) - len(set(groups.tolist())),
            "left_out": left_out,
        }
        write_about(folder, tokenizer, facts, divider=divider)
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """The size of a model without a base."""
        model, chat = recipe.model, stated(recipe.data.chat)
        size = {"width": model.width, "depth": model.depth, "dropout": model.dropout}
        architecture = model.base.removeprefix("scratch:") if model.from_scratch else None
        return {**size, "architecture": architecture, "tokens": chat.max_tokens + chat.max_reply_tokens}

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The base, or a small decoder with fresh weights."""
        from recaster.customization.base_bits import base_options

        model = build_decoder(base=base_folder(plan), scratch=_scratch(plan), **base_options(plan))
        divider, method = read_json(Path(plan["prepared"]) / SPLITS)["divider"], plan["customize"]["method"]
        if isinstance(model, RecurrentDecoder):
            check_recurrent(method, apart=_PACKED if divider is not None else "")
        elif divider is not None:
            model.begins = False
            keep_apart(model, end=divider, method=method, where=_PACKED)
        return model

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:  # noqa: ARG002
        """The split's tokens, memory-mapped."""
        padding = read_json(folder / SPLITS)["padding"]
        if holds_pairs(folder, split):
            return open_preference_rows(folder, split, padding=padding)
        return SuccessorRows(read_token_shard(folder, split), padding=padding)

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """One of the losses, over the assistant's tokens, or over pairs of replies."""
        if section["name"] == PREFERENCE:
            return build_preference_loss(section, training=training)
        return build_token_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Learned tokens that are the best guess (what fills up is no token's number), or pairs in which the
        chosen reply is preferred.
        """
        if targets.ndim == _PAIRED:
            return count_preferred(logits, targets)
        return (logits.argmax(2) == targets).sum()

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """A folder that transformers reads: weights, configuration, tokenizer with its chat template.

        What cannot be merged stays an adapter, beside its base in a folder of its own. A recurrent network
        has its own source beside it.
        """
        from recaster.customization.adapters import stays_apart
        from recaster.customization.build import load_trained
        from recaster.exporting.adapter_form import merge_beside_adapter
        from recaster.exporting.chat_policy import write_policy
        from recaster.exporting.open_folder import write_adapter_folder, write_open_folder
        from recaster.exporting.own_folder import write_own_network

        shape, loss = stated(recipe.data.chat), recipe.train.loss
        preprocessing = {"kind": self.kind, **shape.model_dump()}
        if shape.preferences:
            preprocessing["beta"] = loss.beta
        if recipe.policy:
            preprocessing["policy"] = recipe.policy.model_dump()
        trained = load_trained(self, plan, weights)
        apart = stays_apart(trained)
        model = trained if apart else merge_beside_adapter(trained, plan, folder, preprocessing=preprocessing)
        tokenizer = Path(plan["base"]) if plan["base"] else Path(plan["prepared"]) / _TOKENIZER
        if isinstance(model, RecurrentDecoder):
            arguments = decoder_arguments(plan["base"], _scratch(plan))
            write_own_network(folder, model=model, arguments=arguments, tokenizer=tokenizer)
        else:
            network: Any = model.network
            _tell_generation(network, read_json(Path(plan["prepared"]) / SPLITS))
            if apart:
                write_adapter_folder(folder, adapted=network, tokenizer=tokenizer, base=recipe.model.base)
            else:
                write_open_folder(folder, network=network, tokenizer=tokenizer)
        write_json(folder / "preprocessing.json", preprocessing)
        write_policy(recipe.policy, folder)

    def predict(
        self, artifact: Path, prepared: Path, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Nats and hits of each conversation's learned tokens, and their number, in the shard's order.

        Of pairs these of the chosen reply, and what `preference_report` says.
        """
        from recaster.evaluation.preference_report import describe_pairs

        held = read_held_out(prepared, split, artifact)
        data = SuccessorRows(held.shard, padding=held.padding)
        model = foreseeing(open_causal_model(artifact))
        found = score_tokens(model, data.lengths, partial(data.batch, seed=None))
        # A tokenizer of its own has another number of tokens for the same replies.
        found[:, 1] *= held.counts / np.maximum(held.shard.labels, 1)
        if not holds_pairs(prepared, split):
            return found, held.counts
        return np.column_stack([found, describe_pairs(model, held, artifact, prepared, split)]), held.counts

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:  # noqa: ARG002
        """Perplexity and token accuracy; of pairs which reply is preferred, and how clearly."""
        from recaster.evaluation.preference_report import PREFERENCE_METRICS
        from recaster.evaluation.token_report import TOKEN_METRICS

        return {**TOKEN_METRICS, **PREFERENCE_METRICS}

    def report(
        self,
        recipe: Recipe,
        predictions: NDArray[np.float64],
        targets: NDArray[np.int64],
        prepared: Path,  # noqa: ARG002
        folder: Path,
    ) -> dict[str, Any]:
        """How perplexity differs between conversations; of pairs the rewards of both sides."""
        from recaster.evaluation.preference_report import report_pairs
        from recaster.evaluation.token_report import report_rows

        tables = report_rows(predictions, targets, folder, unit="conversation")
        preferences = stated(recipe.data.chat).preferences
        return {**tables, **report_pairs(predictions, folder)} if preferences else tables

    def answers(self, folder: Path, prepared: Path) -> bool:  # noqa: ARG002
        """A base can always: one that lacks weights was refused."""
        return True

    def write_samples(self, artifact: Path, prepared: Path, recipe: Recipe) -> dict[str, Any]:
        """The likeliest replies to held-out conversations, and to people who ask for a secret."""
        from recaster.evaluation.chat_samples import ReplyWriter, continue_conversations, probe_leaks

        held = read_held_out(prepared, "test", artifact)
        longest = recipe.data.chat.max_reply_tokens  # type: ignore[union-attr] # `kind` says it is there
        writer = ReplyWriter(artifact, held, longest=longest)
        written = continue_conversations(writer, held, recipe.evaluate.samples)
        return {**written, **probe_leaks(writer, recipe)}

    def judge(
        self, judge: Path, tables: dict[str, Any], prepared: Path, recipe: Recipe, *, trust: bool
    ) -> dict[str, float]:
        """How much each reply belongs to its conversation, to the language model in the folder `judge`."""
        from recaster.evaluation.chat_samples import judge_replies

        found = judge_replies(judge, tables["replies"], prepared, "test")
        return found.measure_trust(recipe.evaluate.seed) if trust else {}


def _shared_text(text: str, shape: ChatShape) -> str:
    """What no two splits may have in common: the conversation; of a pair what both replies answer."""
    return dump_messages(parse_messages(text)[:-1]) if shape.preferences else text


def _measure_base(base: Path, folder: Path, splits: Sequence[str], padding: int) -> None:
    """Write what the base thinks of each pair."""
    from recaster.training.host_memory import give_back_memory, keep_freed_memory

    keep_freed_memory()
    write_reference(folder, splits, foreseeing(open_causal_model(base)), padding=padding)
    give_back_memory()


def _train_tokenizer(recipe: Recipe, records: Sequence[PackedRecord], folder: Path) -> None:
    from recaster.data.tokenizers import train_chat_byte_pairs

    texts = [message["content"] for record in records for message in parse_messages(record.text)]
    train_chat_byte_pairs(texts, vocabulary=recipe.model.vocabulary, folder=folder / _TOKENIZER)


def _scratch(plan: dict[str, Any]) -> dict[str, Any]:
    """What a model with fresh weights is made of; of a base the size of its vocabulary."""
    about = read_json(Path(plan["prepared"]) / SPLITS)
    told = {name: about[name] for name in ("padding", "vocabulary")}
    end = about["stop"][0] if about["stop"] else about["padding"]
    return {**plan["model_arguments"], **told, "end": end}


def _tell_generation(network: Any, about: dict[str, Any]) -> None:
    """Which tokens end a reply, and which fills up, where transformers' `generate` looks for them."""
    settings = network.generation_config
    known = settings.eos_token_id
    ends = {*about["stop"], *([known] if isinstance(known, int) else known or [])}
    settings.eos_token_id = sorted(ends) or None
    settings.pad_token_id = about["padding"]


WORKLOAD = Chat()

"""A chat model as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property
from transformers import AutoModelForCausalLM, AutoTokenizer

import mlflow

PACKAGES = ("jinja2", "mlflow", "pandas", "peft", "safetensors", "tokenizers", "torch", "transformers")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    told = json.loads((artifact / "preprocessing.json").read_text())
    longest = told["max_reply_tokens"]
    filtered = [ColSpec(Array(DataType.string), "filtered")] if told.get("policy") else []
    message = Object([Property("role", "string"), Property("content", "string")])
    signature = ModelSignature(
        Schema([ColSpec(Array(message), "messages")]),
        Schema([ColSpec("string", "reply"), *filtered]),
        ParamSchema(
            [ParamSpec("max_reply_tokens", "long", longest), ParamSpec("temperature", "double", 0.0)]
        ),
    )
    return signature, pd.DataFrame({"messages": [[{"role": "user", "content": "Hello."}]]})


class ConversationError(MlflowException, ValueError):
    """A conversation that cannot be answered; the server tells why, beside the stack trace."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)


class ChatModel(PythonModel):
    """A conversation that ends with the user's message in, the assistant's reply out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load tokenizer and weights from the artifact."""
        folder = Path(context.artifacts["model"])
        told: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        self.longest = told["max_reply_tokens"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = _open_network(folder).eval()
        limit = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        self.context: int | None = limit
        self.policy = _open_policy(folder, told.get("policy"), self.tokenizer)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A reply to each conversation in column `messages`; the likeliest one at temperature 0.

        What the model's context does not hold is left out from the beginning, the system's message aside.
        Of a model with a policy, the column `filtered` names the rules that changed the answer.

        Raises:
            ConversationError: roles are out of order, or the context does not hold the last message.
        """
        told = params or {}
        longest, temperature = int(told.get("max_reply_tokens", self.longest)), told.get("temperature", 0.0)
        replies, filtered = [], []
        for given in model_input["messages"]:
            messages = [dict(message) for message in given]
            _check_roles(messages)

            def write(read: list[dict[str, str]]) -> Generator[str, None, None]:
                yield self._reply(read, longest, float(temperature))

            answer: Any = self.policy.answer(messages, write) if self.policy else write(messages)
            replies.append("".join(answer).strip())
            filtered.append(answer.filtered if self.policy else [])
        return pd.DataFrame({"reply": replies, **({"filtered": filtered} if self.policy else {})})

    @torch.no_grad()
    def _reply(self, messages: list[dict[str, str]], longest: int, temperature: float) -> str:
        limit = self.context
        # At least half of the context is the conversation's, however long a reply was asked for.
        prompt = self._fit(messages, limit - min(longest, limit // 2) if limit else None)
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        written = self.model.generate(
            input_ids=prompt["input_ids"],
            attention_mask=prompt["attention_mask"],
            max_new_tokens=longest,
            **sampling,
        )
        reply: str = self.tokenizer.decode(
            written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return reply

    def _fit(self, messages: list[dict[str, str]], room: int | None) -> dict[str, torch.Tensor]:
        """The prompt's tokens; the earliest turns are left out until it fits."""
        first = 1 if messages[0]["role"] == "system" else 0
        while True:
            prompt: dict[str, torch.Tensor] = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            tokens = prompt["input_ids"].shape[1]
            if room is None or tokens <= room:
                return prompt
            if len(messages) - first < 3:
                raise ConversationError(
                    f"the last message takes {tokens} tokens, and there is room for {room}"
                )
            messages = [*messages[:first], *messages[first + 2 :]]


def _check_roles(messages: list[dict[str, str]]) -> None:
    """Roles go system (if any), user, assistant, user, …, user."""
    first = 1 if messages and messages[0]["role"] == "system" else 0
    for place, message in enumerate(messages[first:]):
        due = ("user", "assistant")[place % 2]
        if (role := message["role"]) != due:
            raise ConversationError(
                f"message {place + first} has role {role!r} where {due!r} is due: roles go system (if any), "
                "user, assistant, user and so on"
            )
    if (len(messages) - first) % 2 == 0:
        raise ConversationError("messages must end with one of role user")


def _open_policy(folder: Path, section: dict[str, Any] | None, tokenizer: Any) -> Any:
    """The policy of a model that has one, by the source beside it; else None."""
    if section is None:
        return None
    spec = importlib.util.spec_from_file_location("policy", folder / "policy.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "policy.py")
    policy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(policy)
    return policy.ReplyPolicy(section, policy.list_marks(tokenizer))


def _open_network(folder: Path) -> Any:
    """A network with its own source beside it, or one of transformers with the adapter it may have."""
    if (folder / "modeling.py").exists():
        return _open_own(folder)
    apart = (folder / "adapter_config.json").exists()
    network = AutoModelForCausalLM.from_pretrained(
        folder / "base" if apart else folder, local_files_only=True, dtype=torch.float32
    )
    if not apart:
        return network
    from peft import PeftModel

    return PeftModel.from_pretrained(network, folder)


def _open_own(folder: Path) -> torch.nn.Module:
    from safetensors.torch import load_file

    spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "modeling.py")
    modeling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(modeling)
    arguments = json.loads((folder / "config.json").read_text())["arguments"]
    network: torch.nn.Module = modeling.build_model(**arguments)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network


mlflow.models.set_model(ChatModel())

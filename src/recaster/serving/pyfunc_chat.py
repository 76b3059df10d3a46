"""A chat model as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property
from transformers import AutoModelForCausalLM, AutoTokenizer

import mlflow

PACKAGES = ("jinja2", "mlflow", "pandas", "peft", "safetensors", "tokenizers", "torch", "transformers")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    longest = json.loads((artifact / "preprocessing.json").read_text())["max_reply_tokens"]
    message = Object([Property("role", "string"), Property("content", "string")])
    signature = ModelSignature(
        Schema([ColSpec(Array(message), "messages")]),
        Schema([ColSpec("string", "reply")]),
        ParamSchema(
            [ParamSpec("max_reply_tokens", "long", longest), ParamSpec("temperature", "double", 0.0)]
        ),
    )
    return signature, pd.DataFrame({"messages": [[{"role": "user", "content": "Hello."}]]})


class ChatModel(PythonModel):
    """A conversation that ends with the user's message in, the assistant's reply out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load tokenizer and weights from the artifact."""
        folder = Path(context.artifacts["model"])
        told: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        self.longest = told["max_reply_tokens"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model: Any = _open_network(folder).eval()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A reply to each conversation in column `messages`; the likeliest one at temperature 0."""
        told = params or {}
        longest, temperature = int(told.get("max_reply_tokens", self.longest)), told.get("temperature", 0.0)
        replies = [
            self._reply(list(messages), longest, float(temperature)) for messages in model_input["messages"]
        ]
        return pd.DataFrame({"reply": replies})

    @torch.no_grad()
    def _reply(self, messages: list[dict[str, str]], longest: int, temperature: float) -> str:
        if not messages or messages[-1]["role"] != "user":
            raise ValueError("messages must end with one of role user")
        prompt = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
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
        return reply.strip()


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

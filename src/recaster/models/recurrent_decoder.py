"""A recurrent language model: what follows each token, from a state that sums up all before it.

This file imports only torch and its siblings: a copy of it travels with exported models as `modeling.py`.

    tokens → vectors → LSTM or GRU x depth → states → logits, by the vectors' own table (Press and Wolf 2017)

It writes token after token; the state is its whole memory, so that nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from recaster.models.token_marks import place_marks

State = Any
"""Of an LSTM two tensors `(depth, rows, width)`, of a GRU one."""


class RecurrentDecoder(nn.Module):
    """The network, and how it is used in training and in writing."""

    def __init__(
        self,
        *,
        network: str,
        vocabulary: int,
        width: int,
        depth: int,
        dropout: float,
        padding: int,
        end: int,
    ) -> None:
        super().__init__()
        self.vectors = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.vectors.weight, std=width**-0.5)
        cell = {"lstm": nn.LSTM, "gru": nn.GRU}[network]
        between = dropout if depth > 1 else 0.0
        self.cells = cell(width, width, num_layers=depth, dropout=between, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        if network == "lstm":
            _remember(self.cells, width)
        self.generation_config = SimpleNamespace(eos_token_id=end, pad_token_id=padding)
        """What ends a reply and what fills up, unless `generate` is told otherwise."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of what follows the marked ones of `tokens` `(rows, tokens)`, filled up at the end.

        Returns:
            `(rows, marked, vocabulary)`, each row's in their order and then something for rows with fewer;
            without a mark `(rows, tokens, vocabulary)`. Of `tokens` `(rows, 2, tokens)` `(rows, 2, …)`.
        """
        if tokens.ndim == 3:
            paired: Tensor = self.forward(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
            return paired
        plain, chosen = place_marks(tokens)
        states = self.cells(self._embed(plain))[0]
        wanted = states.gather(1, chosen[..., None].expand(-1, -1, states.shape[2]))
        return self._decide(self.dropout(wanted))

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of vectors, by the name that transformers' models have for it."""
        return self.vectors

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor,
        max_new_tokens: int,
        do_sample: bool = False,
        temperature: float = 1.0,
        eos_token_id: Sequence[int] | int | None = None,
        pad_token_id: int | None = None,
        streamer: Any = None,
        stopping_criteria: Sequence[Callable[..., Tensor]] = (),
    ) -> Tensor:
        """Prompts and what follows them, by the names that transformers' `generate` has for all this.

        Args:
            input_ids: prompts `(rows, tokens)`, filled up at the beginning.
            attention_mask: 1 for a prompt's own tokens.
            do_sample: draw tokens, from the logits divided by the temperature; else take the likeliest.
            eos_token_id: tokens that end a row, which is then filled up.
            streamer: gets the prompt, then each token of the one row, as soon as it is there.
            stopping_criteria: functions of all tokens; a row for which one is true ends.

        Returns:
            `(rows, tokens + new ones)`.
        """
        ends = self.generation_config.eos_token_id if eos_token_id is None else eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        filling = self.generation_config.pad_token_id if pad_token_id is None else pad_token_id
        logits, state = self._read(input_ids, attention_mask)
        written, over = input_ids, torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if streamer is not None:
            streamer.put(input_ids.cpu())
        for _ in range(max_new_tokens):
            chosen = _choose(logits, temperature if do_sample else 0.0)
            chosen = chosen.masked_fill(over, filling)
            written = torch.cat([written, chosen[:, None]], 1)
            if streamer is not None:
                streamer.put(chosen.cpu())
            over = over | torch.isin(chosen, torch.tensor(ends, device=chosen.device, dtype=chosen.dtype))
            for stops in stopping_criteria:
                over = over | stops(written, None)
            if over.all():
                break
            states, state = self.cells(self._embed(chosen[:, None]), state)
            logits = self._decide(states[:, 0])
        if streamer is not None:
            streamer.end()
        return written

    def _read(self, prompts: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        """Logits `(rows, vocabulary)` of what follows each prompt, and the state after it."""
        lengths = mask.sum(1)
        # Packing wants what fills up at the end; a state must not have seen it.
        places = torch.arange(prompts.shape[1], device=prompts.device) + (prompts.shape[1] - lengths)[:, None]
        turned = prompts.gather(1, places.clamp(max=prompts.shape[1] - 1))
        packed = pack_padded_sequence(
            self._embed(turned), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        state = self.cells(packed)[1]
        hidden = state[0] if isinstance(state, tuple) else state
        return self._decide(hidden[-1]), state

    def _embed(self, tokens: Tensor) -> Tensor:
        # The table is the output's too, whose rows have a length of about 1: an input wants numbers about 1.
        vectors: Tensor = self.dropout(self.vectors(tokens) * self.vectors.embedding_dim**0.5)
        return vectors

    def _decide(self, states: Tensor) -> Tensor:
        return F.linear(states, self.vectors.weight, self.bias)


@torch.no_grad()
def _remember(cells: nn.Module, width: int) -> None:
    """Begin with forget gates that are open (Jozefowicz et al. 2015)."""
    for name, value in cells.named_parameters():
        if name.startswith("bias_ih"):
            value[width : 2 * width] = 1.0


def _choose(logits: Tensor, temperature: float) -> Tensor:
    """A token for each row: the likeliest, or drawn."""
    if not temperature:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]


def build_model(
    *, network: str, vocabulary: int, width: int, depth: int, dropout: float, padding: int, end: int
) -> RecurrentDecoder:
    """The network, with fresh weights from torch's present random state.

    Args:
        network: lstm or gru.
        vocabulary: tokens that have a vector.
        width: of a vector, and of the states.
        depth: layers.
        padding: the token that fills rows up.
        end: the token that ends a reply, or a text.
    """
    return RecurrentDecoder(
        network=network,
        vocabulary=vocabulary,
        width=width,
        depth=depth,
        dropout=dropout,
        padding=padding,
        end=end,
    )

"""A Transformer from one sequence to another (Vaswani et al. 2017), normalised before each part.

This file imports only torch and its siblings: a copy of it travels with exported models as `modeling.py`.
Architecture and names of the weights are those of Pegasus in the transformers library, which reads the same
file. One table of vectors serves both sides and the output.

    source → vectors + positions → (attention, perceptron) x depth → norm ─┐
    given  → vectors + positions → (attention, attention to source, perceptron) x depth → norm → logits
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.seq2seq_search import split_rows


class Attention(nn.Module):
    """Multi-head attention; keys and values are made apart, since they are kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def split(self, states: Tensor) -> Tensor:
        """`(rows, tokens, width)` to `(rows, heads, tokens, width of a head)`."""
        heads: Tensor = states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Of `(rows, tokens, width)`, each `(rows, heads, tokens, width of a head)`."""
        return self.split(self.k_proj(states)), self.split(self.v_proj(states))

    def forward(
        self,
        states: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        seen: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """`(rows, tokens, width)`: what the queries of `states` find.

        Args:
            seen: which keys count, `(rows, 1, 1, keys)`.
            causal: a token sees those before it.
        """
        query = self.split(self.q_proj(states))
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen, is_causal=causal)
        merged: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return merged


class Layer(nn.Module):
    """Attention and a perceptron of two layers, in the decoder with attention to the source between."""

    def __init__(self, *, width: int, heads: int, dropout: float, reads: bool) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        if reads:
            self.encoder_attn = Attention(width, heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def attend(self, states: Tensor, *, seen: Tensor | None, causal: bool) -> Tensor:
        """After attention of the tokens to each other."""
        normed = self.self_attn_layer_norm(states)
        keys, values = self.self_attn.keys_values(normed)
        added: Tensor = self.dropout(self.self_attn(normed, keys, values, seen=seen, causal=causal))
        return states + added

    def consult(self, states: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """After attention to the source."""
        normed = self.encoder_attn_layer_norm(states)
        added: Tensor = self.dropout(self.encoder_attn(normed, keys, values, seen=seen))
        return states + added

    def think(self, states: Tensor) -> Tensor:
        """After the perceptron."""
        inner = self.dropout(F.relu(self.fc1(self.final_layer_norm(states))))
        added: Tensor = self.dropout(self.fc2(inner))
        return states + added


class Positions(nn.Module):
    """Sines in the first half of a vector, cosines in the second; kept with the weights, never trained."""

    weight: Tensor

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        rates = 10000 ** (-torch.arange(0, width, 2).double() / width)
        angles = torch.arange(positions).double()[:, None] * rates
        self.register_buffer("weight", torch.cat([angles.sin(), angles.cos()], 1).float())


class Side(nn.Module):
    """The layers of the encoder or of the decoder."""

    def __init__(
        self, *, positions: int, width: int, depth: int, heads: int, dropout: float, reads: bool
    ) -> None:
        super().__init__()
        self.embed_positions = Positions(positions, width)
        self.layers = nn.ModuleList(
            Layer(width=width, heads=heads, dropout=dropout, reads=reads) for _ in range(depth)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.scale = math.sqrt(width)

    def each(self) -> list[Layer]:
        """The layers, from the input on."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def begin(self, vectors: Tensor, *, first: int = 0) -> Tensor:
        """Scaled vectors `(rows, tokens, width)` with the positions from `first` on."""
        places: Tensor = self.embed_positions.weight[first : first + vectors.shape[1]]
        begun: Tensor = self.dropout(vectors * self.scale + places)
        return begun


class Body(nn.Module):
    """The table of vectors, and both sides."""

    def __init__(
        self, *, vocabulary: int, positions: int, width: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.shared = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.shared.weight, std=width**-0.5)
        size = {"positions": positions, "width": width, "depth": depth, "heads": heads}
        self.encoder = Side(**size, dropout=dropout, reads=False)
        self.decoder = Side(**size, dropout=dropout, reads=True)


class Transformer(nn.Module):
    """Encoder and decoder, and how both are used in training and in writing."""

    def __init__(
        self,
        *,
        vocabulary: int,
        positions: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        padding: int,
        end: int,
    ) -> None:
        super().__init__()
        self.padding, self.end = padding, end
        self.model = Body(
            vocabulary=vocabulary, positions=positions, width=width, depth=depth, heads=heads, dropout=dropout
        )
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
        self.register_buffer("final_logits_bias", torch.zeros(1, vocabulary))  # transformers asks for it

    def forward(self, rows: Tensor) -> Tensor:
        """Logits `(rows, most marks, vocabulary)` of what follows each mark of `rows` `(rows, tokens)`."""
        source, given = split_rows(rows, self.padding)
        seen = self._seen(source)
        states = self.encode(source)
        decoder = self.model.decoder
        hidden = decoder.begin(self.model.shared(given))
        for layer in decoder.each():
            hidden = layer.attend(hidden, seen=None, causal=True)
            hidden = layer.consult(hidden, *layer.encoder_attn.keys_values(states), seen)
            hidden = layer.think(hidden)
        return self._decide(hidden)

    def encode(self, source: Tensor) -> Tensor:
        """What the encoder makes of sources `(rows, tokens)`: `(rows, tokens, width)`."""
        encoder, seen = self.model.encoder, self._seen(source)
        hidden = encoder.begin(self.model.shared(source))
        for layer in encoder.each():
            hidden = layer.think(layer.attend(hidden, seen=seen, causal=False))
        normed: Tensor = encoder.layer_norm(hidden)
        return normed

    def _seen(self, source: Tensor) -> Tensor:
        return (source != self.padding)[:, None, None]

    def _decide(self, hidden: Tensor) -> Tensor:
        return F.linear(self.model.decoder.layer_norm(hidden), self.model.shared.weight)

    def read(self, source: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values of the source in each layer of the decoder; keys and values of what was written."""
        states, layers = self.encode(source), self.model.decoder.each()
        kept = [value for layer in layers for value in layer.encoder_attn.keys_values(states)]
        nothing = states.new_zeros((len(source), 2 * len(layers), kept[0].shape[1], 0, kept[0].shape[3]))
        return [self._seen(source), *kept], [nothing]

    def advance(
        self, tokens: Tensor, memory: list[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Seq2Seq`; all hypotheses of a source ask its keys together."""
        seen, (former,), decoder = memory[0], past, self.model.decoder
        rows, hypotheses = len(seen), len(tokens) // len(seen)
        hidden = decoder.begin(self.model.shared(tokens)[:, None], first=former.shape[3])
        added: list[Tensor] = []
        for number, layer in enumerate(decoder.each()):
            normed = layer.self_attn_layer_norm(hidden)
            own = layer.self_attn.keys_values(normed)
            added += own
            keys, values = (
                torch.cat([former[:, 2 * number + place], one], 2) for place, one in enumerate(own)
            )
            hidden = hidden + layer.self_attn(normed, keys, values)
            together = hidden.view(rows, hypotheses, -1)
            together = layer.consult(together, memory[1 + 2 * number], memory[2 + 2 * number], seen)
            hidden = layer.think(together.view(len(tokens), 1, -1))
        return self._decide(hidden)[:, 0], [torch.cat([former, torch.stack(added, 1)], 3)]

    def attention(self, rows: Tensor) -> Tensor:
        """How much each written token looks at each of its source, mean over the heads of the last layer.

        Returns:
            `(rows, most marks, longest source)`.
        """
        source, given = split_rows(rows, self.padding)
        states, seen, decoder = self.encode(source), self._seen(source), self.model.decoder
        hidden, shares = decoder.begin(self.model.shared(given)), states.new_zeros(0)
        for layer in decoder.each():
            hidden = layer.attend(hidden, seen=None, causal=True)
            keys, values = layer.encoder_attn.keys_values(states)
            queries = layer.encoder_attn.q_proj(layer.encoder_attn_layer_norm(hidden))
            scores = layer.encoder_attn.split(queries) @ keys.transpose(2, 3) / math.sqrt(keys.shape[3])
            shares = scores.masked_fill(~seen, float("-inf")).softmax(-1).mean(1)
            hidden = layer.think(layer.consult(hidden, keys, values, seen))
        return shares


def build_model(
    *,
    vocabulary: int,
    positions: int,
    width: int,
    depth: int,
    heads: int,
    dropout: float,
    padding: int,
    end: int,
) -> Transformer:
    """The network, with fresh weights from torch's present random state.

    Args:
        vocabulary: tokens of both sides.
        positions: the longest side, in tokens.
        width: of a token's vector, a multiple of `heads`.
        depth: layers of each side.
        padding: the token that fills up.
        end: the token that ends a side.
    """
    if width % heads:
        raise ValueError(f"width must be a multiple of heads: {width} is not one of {heads}")
    return Transformer(
        vocabulary=vocabulary,
        positions=positions,
        width=width,
        depth=depth,
        heads=heads,
        dropout=dropout,
        padding=padding,
        end=end,
    )

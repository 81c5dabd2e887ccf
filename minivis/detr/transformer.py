"""DETR's transformer: an encoder over the cells of the feature map, a decoder over object queries (section 3.2, A.3).

What differs from Vaswani et al. (2017): positions are added to queries and keys at every attention, never to values;
all object queries are decoded at once, with no causal mask; the decoder gives the output of each of its layers.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minivis.attention import MultiHeadAttention

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}

Tokens = Float[Tensor, "batch tokens d_model"]
Queries = Float[Tensor, "batch queries d_model"]
PaddingMask = Bool[Tensor, "batch tokens"]


def with_positions(x: Tensor, positions: Tensor | None) -> Tensor:
    return x if positions is None else x + positions


class FeedForward(nn.Module):
    """FFN(x) = W₂ · activation(W₁ x + b₁) + b₂, at each token by itself."""

    def __init__(self, d_model: int, dim_feedforward: int, dropout: float, activation: str):
        super().__init__()
        if activation not in ACTIVATIONS:
            hint = (
                " (a gated unit halves the width, which the second matrix does not expect)"
                if activation == "glu"
                else ""
            )
            raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}; got {activation!r}{hint}")
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.dropout = nn.Dropout(dropout)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tokens) -> Tokens:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network; each adds to what it was given.

    Post-norm (the paper's): x ← norm(x + f(x)). Pre-norm: x ← x + f(norm(x)).
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
    ):
        super().__init__()
        self.self_attn = MultiHeadAttention(d_model, nhead, dropout)
        self.ffn = FeedForward(d_model, dim_feedforward, dropout, activation)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.normalize_before = normalize_before

    def forward(
        self, x: Tokens, padding_mask: PaddingMask | None = None, pos: Tokens | None = None
    ) -> Tokens:
        if self.normalize_before:
            x = x + self.dropout(self.attend(self.norm1(x), padding_mask, pos))
            return x + self.dropout(self.ffn(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.attend(x, padding_mask, pos)))
        return self.norm2(x + self.dropout(self.ffn(x)))

    def attend(self, x: Tokens, padding_mask: PaddingMask | None, pos: Tokens | None) -> Tokens:
        q = k = with_positions(x, pos)  # where to look depends on places; what is gathered, x, does not
        return self.self_attn(q, k, x, padding_mask)


class TransformerDecoderLayer(nn.Module):
    """Queries talk to each other (self-attention), then read the image (cross-attention), then think (FFN).

    Arguments of `forward`: `x` what each query has gathered so far, zeros before the first layer; `memory` the
    encoder's output; `pos` positions of the memory's cells; `query_pos` the learned object queries.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
    ):
        super().__init__()
        self.self_attn = MultiHeadAttention(d_model, nhead, dropout)
        self.cross_attn = MultiHeadAttention(d_model, nhead, dropout)
        self.ffn = FeedForward(d_model, dim_feedforward, dropout, activation)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.normalize_before = normalize_before

    def forward(
        self,
        x: Queries,
        memory: Tokens,
        padding_mask: PaddingMask | None = None,
        pos: Tokens | None = None,
        query_pos: Queries | None = None,
    ) -> Queries:
        if self.normalize_before:
            x = x + self.dropout(self.talk(self.norm1(x), query_pos))
            x = x + self.dropout(self.read(self.norm2(x), memory, padding_mask, pos, query_pos))
            return x + self.dropout(self.ffn(self.norm3(x)))
        x = self.norm1(x + self.dropout(self.talk(x, query_pos)))
        x = self.norm2(x + self.dropout(self.read(x, memory, padding_mask, pos, query_pos)))
        return self.norm3(x + self.dropout(self.ffn(x)))

    def talk(self, x: Queries, query_pos: Queries | None) -> Queries:
        q = k = with_positions(x, query_pos)
        return self.self_attn(q, k, x)

    def read(
        self,
        x: Queries,
        memory: Tokens,
        padding_mask: PaddingMask | None,
        pos: Tokens | None,
        query_pos: Queries | None,
    ) -> Queries:
        return self.cross_attn(
            with_positions(x, query_pos), with_positions(memory, pos), memory, padding_mask
        )


class TransformerEncoder(nn.Module):
    """Layers one after another. A pre-norm encoder ends with a norm; the paper's post-norm one does not need it."""

    def __init__(self, layers: list[TransformerEncoderLayer], norm: nn.LayerNorm | None = None):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(
        self, x: Tokens, padding_mask: PaddingMask | None = None, pos: Tokens | None = None
    ) -> Tokens:
        for layer in self.layers:
            x = layer(x, padding_mask, pos)
        return x if self.norm is None else self.norm(x)


class TransformerDecoder(nn.Module):
    """Layers one after another; the same norm ends each of them, because each layer's output is trained.

    The normed output is for the heads; the next layer takes it without that norm. With `norm_between_layers` it takes
    it normed, and the last output is normed twice, as Hugging Face's DETR does when trained with auxiliary losses.
    """

    def __init__(
        self, layers: list[TransformerDecoderLayer], norm: nn.LayerNorm, norm_between_layers: bool = False
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.norm_between_layers = norm_between_layers

    def forward(
        self,
        x: Queries,
        memory: Tokens,
        padding_mask: PaddingMask | None = None,
        pos: Tokens | None = None,
        query_pos: Queries | None = None,
    ) -> Float[Tensor, "layers batch queries d_model"]:
        outputs = []
        for layer in self.layers:
            x = layer(x, memory, padding_mask, pos, query_pos)
            outputs.append(self.norm(x))
            if self.norm_between_layers:
                x = outputs[-1]
        if self.norm_between_layers:
            outputs[-1] = self.norm(x)
        return torch.stack(outputs)


class Transformer(nn.Module):
    """Encoder and decoder. `forward` gives the decoder's output after every layer, and the memory as a map again."""

    def __init__(
        self,
        d_model: int = 256,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        normalize_before: bool = False,
        norm_between_layers: bool = False,
    ):
        super().__init__()
        if num_decoder_layers < 1:
            raise ValueError(
                f"the queries' answers come from the decoder: it needs a layer, got {num_decoder_layers}"
            )
        layer = (d_model, nhead, dim_feedforward, dropout, activation, normalize_before)
        self.encoder = TransformerEncoder(
            [TransformerEncoderLayer(*layer) for _ in range(num_encoder_layers)],
            nn.LayerNorm(d_model) if normalize_before and num_encoder_layers else None,
        )
        self.decoder = TransformerDecoder(
            [TransformerDecoderLayer(*layer) for _ in range(num_decoder_layers)],
            nn.LayerNorm(d_model),
            norm_between_layers,
        )
        self.d_model = d_model
        self.nhead = nhead
        for module in self.modules():
            if isinstance(module, FeedForward):
                nn.init.xavier_uniform_(module.linear1.weight)
                nn.init.xavier_uniform_(module.linear2.weight)

    def forward(
        self,
        features: Float[Tensor, "batch d_model height width"],
        padding_mask: Bool[Tensor, "batch height width"],
        query_embed: Float[Tensor, "queries d_model"],
        pos: Float[Tensor, "batch d_model height width"],
    ) -> tuple[Float[Tensor, "layers batch queries d_model"], Float[Tensor, "batch d_model height width"]]:
        batch, _, height, width = features.shape
        tokens = rearrange(features, "b d h w -> b (h w) d")
        pos = rearrange(pos, "b d h w -> b (h w) d").to(tokens.dtype)
        padding_mask = rearrange(padding_mask, "b h w -> b (h w)")
        query_pos = repeat(query_embed, "q d -> b q d", b=batch).to(tokens.dtype)

        memory = self.encoder(tokens, padding_mask, pos)
        decoded = self.decoder(torch.zeros_like(query_pos), memory, padding_mask, pos, query_pos)
        return decoded, rearrange(memory, "b (h w) d -> b d h w", h=height)

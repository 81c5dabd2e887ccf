"""Multi-head attention, once, for every model of the course, and a recorder that reads its maps.

Attention(Q, K, V) = softmax(Q Kᵀ / √d_head) V          (Vaswani et al. 2017, section 3.2)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each on its own slice of the channels.

    Queries, keys and values come in separately, because DETR adds positions to the first two only.
    The fused kernel never stores the weights; under `record_attention` an explicit softmax computes the
    same result and keeps them.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} cannot be split over num_heads={num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = nn.Linear(d_model, d_model, bias=bias)
        self.k_proj = nn.Linear(d_model, d_model, bias=bias)
        self.v_proj = nn.Linear(d_model, d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)
        self.recorder: Callable[[Tensor], None] | None = None  # set by `record_attention`
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier as if the three input projections were one matrix of shape (3 d, d); biases at zero."""
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            nn.init.xavier_uniform_(projection.weight, gain=2**-0.5)  # √(6 / 4d) = √½ · √(6 / 2d)
        nn.init.xavier_uniform_(self.out_proj.weight)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            if projection.bias is not None:
                nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Float[Tensor, "batch queries d_model"],
        key: Float[Tensor, "batch keys d_model"],
        value: Float[Tensor, "batch keys d_model"],
        key_padding_mask: Bool[Tensor, "batch keys"] | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "batch queries d_model"]:
        """Keys where `key_padding_mask` is True get no weight; with `is_causal` a query sees no later key."""
        split = "b n (heads d) -> b heads n d"
        q = rearrange(self.q_proj(query), split, heads=self.num_heads)
        k = rearrange(self.k_proj(key), split, heads=self.num_heads)
        v = rearrange(self.v_proj(value), split, heads=self.num_heads)

        may_attend = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
        if is_causal and may_attend is not None:
            may_attend = may_attend & causal_mask(q.shape[-2], k.shape[-2], q.device)
            is_causal = False
        dropout = self.dropout if self.training else 0.0

        if self.recorder is None:
            mixed = fused_attention(q, k, v, may_attend, dropout, is_causal)
        else:
            scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # Q Kᵀ / √d_head
            if is_causal:
                may_attend = causal_mask(q.shape[-2], k.shape[-2], q.device)
            if may_attend is not None:
                scores = scores.masked_fill(~may_attend, float("-inf"))
            weights = scores.softmax(dim=-1)
            self.recorder(weights.detach())
            mixed = F.dropout(weights, dropout) @ v
        return self.out_proj(rearrange(mixed, "b heads n d -> b n (heads d)"))


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, may_attend: Tensor | None, dropout: float, is_causal: bool
) -> Tensor:
    """One kernel for softmax(Q Kᵀ / √d_head) V, which never stores the weights: memory grows with n, not n²."""
    if q.device.type != "cpu" or q.dtype not in (torch.bfloat16, torch.float16):
        return F.scaled_dot_product_attention(q, k, v, may_attend, dropout, is_causal)
    # A CPU's kernel is slower in bfloat16 than in float32, its backward pass several times so.
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), may_attend, dropout, is_causal
        )
    return mixed.to(q.dtype)


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Bool[Tensor, "queries keys"]:
    """True where a query may look: at its own place and before it."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep the attention weights of every layer while the model runs.

        with record_attention(model) as maps:
            model(images)
        maps["transformer.encoder.layers.0.self_attn"]      # (B, heads, queries, keys)

    The dictionary is filled as layers run; a layer that runs more than once leaves its last weights there.
    Rows sum to one, padded keys get zero. Weights are detached and taken before dropout. Recordings may be nested:
    the inner one keeps the maps while it lasts.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, MultiHeadAttention)
    }
    if not layers:
        raise ValueError(f"{type(model).__name__} has no MultiHeadAttention to record")
    maps: dict[str, Tensor] = {}
    outer = {name: layer.recorder for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.recorder = partial(maps.__setitem__, name)
    try:
        yield maps
    finally:
        for name, layer in layers.items():
            layer.recorder = outer[name]

"""Where a cell of the feature map lies, as a vector. Attention by itself does not know (DETR, appendix A.4)."""

import math

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn


class SinePositions(nn.Module):
    """Fixed sines and cosines of a cell's row and column: half of the channels for y, then half for x.

    Coordinates run from 0 to 2π over the part of the image that is not padding, so the same relative place
    gets the same code whatever the size of the picture and of its padding. No parameters.
    """

    def __init__(self, d_model: int, temperature: float = 10_000.0):
        super().__init__()
        if d_model % 4:
            raise ValueError(
                f"sine positions need d_model divisible by 4 (x and y, sine and cosine), got {d_model}"
            )
        self.d_model = d_model
        self.temperature = temperature

    def forward(
        self, padding_mask: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch d_model height width"]:
        inside = (~padding_mask).float()
        y, x = inside.cumsum(1), inside.cumsum(2)  # 1, 2, 3, … down each column, along each row
        y = y / (y[:, -1:, :] + 1e-6) * 2 * math.pi
        x = x / (x[:, :, -1:] + 1e-6) * 2 * math.pi

        # Pair i of the P = d/4 turns more slowly than pair 0 by T^(i / P): once in 2π · T^(i / P).
        pairs = self.d_model // 4
        slower = self.temperature ** (torch.arange(pairs, device=x.device).float() / pairs)
        codes = []
        for coordinate in (y, x):
            angle = coordinate[..., None] / slower
            codes.append(rearrange([angle.sin(), angle.cos()], "two b h w pairs -> b (pairs two) h w"))
        return torch.cat(codes, dim=1)


class LearnedPositions(nn.Module):
    """One learned vector for each row and one for each column, side by side: x first, then y.

    A map larger than `max_size` cells on a side has no codes for its last cells: that is an error here.
    """

    def __init__(self, d_model: int, max_size: int = 50):
        super().__init__()
        if d_model % 2:
            raise ValueError(f"learned positions need d_model divisible by 2 (x and y), got {d_model}")
        self.column = nn.Embedding(max_size, d_model // 2)
        self.row = nn.Embedding(max_size, d_model // 2)
        nn.init.uniform_(self.column.weight)
        nn.init.uniform_(self.row.weight)

    def forward(
        self, padding_mask: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch d_model height width"]:
        batch, height, width = padding_mask.shape
        if max(height, width) > self.row.num_embeddings:
            raise ValueError(
                f"learned positions reach {self.row.num_embeddings} cells a side, "
                f"the feature map has {height} × {width}"
            )
        x = repeat(self.column.weight[:width], "w d -> b d h w", b=batch, h=height)
        y = repeat(self.row.weight[:height], "h d -> b d h w", b=batch, w=width)
        return torch.cat([x, y], dim=1)


class NoPositions(nn.Module):
    """Zeros: what is left when positions are taken away."""

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model

    def forward(
        self, padding_mask: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch d_model height width"]:
        batch, height, width = padding_mask.shape
        return torch.zeros(batch, self.d_model, height, width, device=padding_mask.device)


POSITIONS = {"sine": SinePositions, "learned": LearnedPositions, "none": NoPositions}

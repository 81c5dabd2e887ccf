# %% [markdown]
# # From pixels to a feature map: the exercises solved
#
# Each function stands under the name of its stub. Other ways are as good: the checks look at what comes out.

# %%
import math

import torch

from minivis.checks.backbone import (
    check_cells,
    check_coordinates,
    check_dot_product,
    check_frozen_batch_norm,
    check_untouched,
)

# %% [markdown]
# ## Exercise 1: how many cells
#
# A 3×3 kernel with padding 1 and stride 2 stands on the pixels 0, 2, 4, ...: half of them, rounded up. Rounding up at every stage or once
# at the end comes to the same.


# %%
def cells(pixels, stages):
    return math.ceil(pixels / 2**stages)


check_cells(cells)

# %% [markdown]
# ## Exercise 2: which cells the padding does not reach
#
# A kernel lies on the map before its layer, whose cells are `stride` pixels apart. Cell i is centred on pixel i · stride, and half of its
# field, without that pixel, lies to the right.


# %%
def untouched(pixels, layers):
    size, stride = 1, 1
    for kernel, step in layers:
        size += (kernel - 1) * stride
        stride *= step
    last = pixels - 1 - size // 2  # where the last of them may have its centre
    return max(0, last // stride + 1)


check_untouched(untouched)

# %% [markdown]
# ## Exercise 3: batch norm that has stopped learning


# %%
def frozen_batch_norm(x, mean, var, weight, bias):
    mean, var, weight, bias = (values[:, None, None] for values in (mean, var, weight, bias))
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


check_frozen_batch_norm(frozen_batch_norm)

# %% [markdown]
# ## Exercise 4: where a cell lies in its own picture
#
# Padding lies at the right and at the bottom, so the last entry of a cumulative sum is how many cells are inside.


# %%
def coordinates(padding_mask):
    inside = (~padding_mask).float()
    y, x = inside.cumsum(0), inside.cumsum(1)
    y = y / (y[-1:] + 1e-6) * 2 * math.pi
    x = x / (x[:, -1:] + 1e-6) * 2 * math.pi
    return y, x


check_coordinates(coordinates)

# %% [markdown]
# ## Exercise 5: the dot product of two positions
#
# Each pair of a sine and a cosine leaves the cosine of a difference. The difference is a fraction of the picture, which is as many rows and
# columns large as there are cells inside.


# %%
def dot_product(padding_mask, one, other, pairs, temperature):
    rows, columns = (~padding_mask[:, 0]).sum(), (~padding_mask[0]).sum()
    speed = temperature ** (-torch.arange(pairs) / pairs)  # (P,)
    y = 2 * math.pi * (one[0] - other[0]) / rows * speed
    x = 2 * math.pi * (one[1] - other[1]) / columns * speed
    return (y.cos().sum() + x.cos().sum()) / (2 * pairs)


check_dot_product(dot_product)

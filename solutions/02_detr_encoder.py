# %% [markdown]
# # The encoder: the exercises solved
#
# Each function stands under the name of its stub. Other ways are as good: the checks look at what comes out.

# %%
import torch
import torch.nn.functional as F

from minivis.checks.encoder import (
    check_neighbours,
    check_pixels_of_token,
    check_self_attention,
    check_weights_with_padding,
    check_what_arrives,
)

# %% [markdown]
# ## Exercise 1: hide the padding
#
# The weight of a score of −∞ is $e^{-\infty} = 0$, and the softmax makes the others sum to 1 by itself.


# %%
def weights_with_padding(scores, padding):
    return scores.masked_fill(padding, -torch.inf).softmax(-1)


check_weights_with_padding(weights_with_padding)

# %% [markdown]
# ## Exercise 2: where the positions go


# %%
def self_attention(x, pos, w_q, w_k, w_v):
    q, k, v = F.linear(x + pos, w_q), F.linear(x + pos, w_k), F.linear(x, w_v)
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


check_self_attention(self_attention)

# %% [markdown]
# ## Exercise 3: lay a map on its pixels


# %%
def pixels_of_token(token, columns, stride, size, extra):
    row, column = divmod(token - extra, columns)
    height, width = size
    left, top = column * stride, row * stride
    return left, top, min(left + stride, width), min(top + stride, height)


check_pixels_of_token(pixels_of_token)

# %% [markdown]
# ## Exercise 4: neighbours only
#
# `row[:, None] - row` is the difference of every two rows, (n, n).


# %%
def neighbours(rows, columns, reach):
    token = torch.arange(rows * columns)
    row, column = token // columns, token % columns
    down, across = (row[:, None] - row).abs(), (column[:, None] - column).abs()
    return (down <= reach) & (across <= reach)


check_neighbours(neighbours)

# %% [markdown]
# ## Exercise 5: what arrives
#
# Multiplying a vector by a weight multiplies its length by it (weights are not negative), so each value's length is needed once.


# %%
def what_arrives(weights, values, out):
    length = F.linear(values, out).norm(dim=-1)  # (n,), of each cell that is looked at
    return weights * length  # column by column


check_what_arrives(what_arrives)

# %% [markdown]
# # The encoder: the exercises solved
#
# Each function stands under the name of its stub. Other ways are as good: the checks look at what comes out.

# %%
import torch

from minivis.checks.encoder import (
    check_attention,
    check_pixels_of_token,
    check_self_attention,
    check_split_heads,
    check_weights_with_padding,
)

# %% [markdown]
# ## Exercise 1: attention
#
# `k.mT` is the matrix transposed. The softmax runs along the last dimension, over the keys.


# %%
def attention(q, k, v):
    scores = q @ k.mT / q.shape[-1] ** 0.5  # (n, m)
    return scores.softmax(-1) @ v


check_attention(attention)

# %% [markdown]
# ## Exercise 2: padding
#
# The weight of a score of −∞ is $e^{-\infty} = 0$, and the softmax makes the others sum to 1 by itself.


# %%
def weights_with_padding(scores, padding):
    return scores.masked_fill(padding, -torch.inf).softmax(-1)


check_weights_with_padding(weights_with_padding)

# %% [markdown]
# ## Exercise 3: heads
#
# Channels lie next to each other in memory, so the last dimension splits into (heads, d / heads). Then heads and tokens change places.


# %%
def split_heads(x, heads):
    n, d = x.shape
    return x.view(n, heads, d // heads).transpose(0, 1)


check_split_heads(split_heads)

# %% [markdown]
# ## Exercise 4: where the positions go


# %%
def self_attention(x, pos, w_q, w_k, w_v):
    q, k, v = (x + pos) @ w_q.mT, (x + pos) @ w_k.mT, x @ w_v.mT
    return attention(q, k, v)


check_self_attention(self_attention)

# %% [markdown]
# ## Exercise 5: a map on its pixels


# %%
def pixels_of_token(token, columns, stride, size, extra):
    row, column = divmod(token - extra, columns)
    height, width = size
    left, top = column * stride, row * stride
    return left, top, min(left + stride, width), min(top + stride, height)


check_pixels_of_token(pixels_of_token)

# %% [markdown]
# # Training and evaluation: the exercises solved
#
# Each function stands under the name of its stub. Other ways are as good: the checks look at what comes out.

# %%
import torch
from torchvision.ops import box_iou

from minivis.checks.detr_training import (
    check_average_precision,
    check_blind_class_loss,
    check_encoder_layer_flops,
    check_suppress,
    check_tokens_at_half,
    check_which_are_right,
)

# %% [markdown]
# ## Exercise 1: the class loss of a blind guess
#
# With probabilities in proportion to weight times number the weighted cross-entropy is least, and then it is their entropy.


# %%
def blind_class_loss(counts, silent, no_object_weight):
    weight = torch.cat([counts, torch.tensor([no_object_weight * silent])])  # of each class in the loss
    guess = weight / weight.sum()
    return -torch.special.xlogy(guess, guess).sum()  # 0 · log 0 = 0


check_blind_class_loss(blind_class_loss)

# %% [markdown]
# ## Exercise 2: which detections are right


# %%
def which_are_right(scores, labels, overlap, true_labels, iou):
    right = [False] * len(scores)
    free = set(range(len(true_labels)))
    for i in scores.argsort(descending=True).tolist():
        able = [j for j in free if labels[i] == true_labels[j] and overlap[i, j] >= iou]
        if able:
            right[i] = True
            free.remove(max(able, key=lambda j: overlap[i, j].item()))
    return right


check_which_are_right(which_are_right)

# %% [markdown]
# ## Exercise 3: average precision
#
# From the end of the list to its beginning, so that the best precision still to come is at hand.


# %%
def average_precision(right, objects):
    area, best = 0, 0
    for n in range(len(right), 0, -1):
        best = max(best, sum(right[:n]) / n)
        if right[n - 1]:
            area += best / objects  # one hit is one step of recall
    return area


check_average_precision(average_precision)

# %% [markdown]
# ## Exercise 4: non-maximum suppression


# %%
def suppress(boxes, scores, labels, iou):
    overlap = box_iou(boxes, boxes)
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(labels[k] != labels[i] or overlap[k, i] <= iou for k in kept):
            kept.append(i)
    return kept


check_suppress(suppress)

# %% [markdown]
# ## Exercise 5: what an encoder layer computes
#
# A matrix product of (a, b) with (b, c) has a·b·c multiply-adds.


# %%
def encoder_layer_flops(tokens, d, hidden):
    projections = 4 * tokens * d * d  # queries, keys, values, output
    products = 2 * tokens * tokens * d  # queries with keys, weights with values
    feed_forward = 2 * tokens * d * hidden
    return 2 * (projections + products + feed_forward)


check_encoder_layer_flops(encoder_layer_flops)


# %% [markdown]
# The quadratic part is $4N^2d$, the rest $8Nd^2 + 4Nd\cdot\mathrm{hidden}$. They are equal at $N = 2d + \mathrm{hidden}$.


# %%
def tokens_at_half(d, hidden):
    return 2 * d + hidden


check_tokens_at_half(tokens_at_half)

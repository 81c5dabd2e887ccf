# %% [markdown]
# # Hungarian matching and DETR's loss: the exercises solved
#
# Each function stands under the name of its stub. Other ways are as good: the checks look at what comes out.

# %%
from itertools import permutations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from minivis.boxes import cxcywh_to_xyxy, generalized_box_iou
from minivis.checks.matching import (
    check_best_assignment,
    check_class_loss,
    check_giou,
    check_match_k,
    check_matching_cost,
)

# %% [markdown]
# ## Exercise 1: how well two boxes agree
#
# `a[:2]` is the left upper corner, `a[2:]` the right lower one, so x and y are done at once. The clamp comes before the product: the
# sides of an overlap that is not there are negative, and two negative sides would have a positive area.


# %%
def giou(a, b):
    overlap = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap
    hull = (torch.maximum(a[2:], b[2:]) - torch.minimum(a[:2], b[:2])).prod()
    return overlap / union - (hull - union) / hull


check_giou(giou)

# %% [markdown]
# ## Exercise 2: the cost matrix


# %%
def matching_cost(probability, boxes, labels, true_boxes):
    of_class = probability[:, labels]  # (Q, N)
    distance = (boxes[:, None] - true_boxes[None]).abs().sum(-1)  # (Q, 1, 4) - (1, N, 4) -> (Q, N)
    giou = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(true_boxes))
    return -of_class + 5 * distance - 2 * giou


check_matching_cost(matching_cost)

# %% [markdown]
# ## Exercise 3: the best assignment, by trying all


# %%
def best_assignment(cost):
    num_queries, num_objects = cost.shape
    assignments = permutations(range(num_queries), num_objects)
    return list(min(assignments, key=lambda queries: cost[list(queries), range(num_objects)].sum()))


check_best_assignment(best_assignment)

# %% [markdown]
# ## Exercise 4: the class loss
#
# `F.cross_entropy` with weights and its default `reduction="mean"` divides by the sum of the weights that were used.


# %%
def class_loss(logits, labels, queries, objects, no_object_weight):
    num_queries, no_object = len(logits), logits.shape[1] - 1
    target = torch.full((num_queries,), no_object)
    target[queries] = labels[objects]
    weight = torch.ones(no_object + 1)
    weight[no_object] = no_object_weight
    return F.cross_entropy(logits, target, weight)


check_class_loss(class_loss)

# %% [markdown]
# ## Exercise 5: two queries for each object
#
# Each column stands there k times, so one solver gives k different queries to each object and none to two. The copies of object j are
# the columns k·j to k·j + k − 1.


# %%
def match_k(cost, k):
    queries, copies = linear_sum_assignment(cost.repeat_interleave(k, dim=1))
    return torch.as_tensor(queries), torch.as_tensor(copies) // k


check_match_k(match_k)

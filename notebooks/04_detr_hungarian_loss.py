# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4 · The Hungarian loss: who answers for what
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/minivis/minivis/blob/main/notebooks/04_detr_hungarian_loss.ipynb)
#
# **Time:** about 60 minutes to read and try; the cells run in about a minute on two CPU cores.
# **You need:** notebook 00, and PyTorch as far as `nn.Module` and a training loop. No GPU, no network.
#
# A detector that answers with a *set* cannot be trained like a classifier: nobody has told it which of its answers belongs to which
# object. DETR lets an old algorithm decide. When you have finished this page you can
#
# 1. solve a small assignment problem by hand, and say why the nearest partner is not always the right one;
# 2. write down the three parts of the matching cost, and say what each of them is good for;
# 3. build DETR's loss from the matching, line by line, until it equals the package's own;
# 4. read the symptoms of a loss that is built wrong;
# 5. tell what the matching promises from what it does not.
#
# **In the document:** the sections "Loss" and "Hungarian algorithm". Its statements D15 to D22 and D35 are put to the test below.

# %% [markdown]
# ## Setup
#
# On Colab the next cell installs the package. Elsewhere it only says what it found.

# %% tags=["nbval-ignore-output"]
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("minivis") is None and "google.colab" in sys.modules:
    address = "git+https://github.com/minivis/minivis"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", address], check=True)

import torch
import torchvision

import minivis

SEED = 0
torch.manual_seed(SEED)
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"minivis {minivis.__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}")
print(f"device: {device}, seed: {SEED}")

# %% [markdown]
# ## The question
#
# Here is a trained detector, and one scene that it has never seen. It gives 25 answers. The scene has a handful of objects.
#
# To train it, every object must be somebody's responsibility: one answer is told "you should have been this box and this class", and the
# others are told "you should have said *no object*". **Who decides which answer is responsible?**
#
# Below, lines join the answers and the objects that were matched. Move the three sliders. Drag a box. Point at a cell of the matrix. You
# do not have to understand the numbers yet: find out when the lines jump.

# %%
from minivis.data.scenes import load_shipped_scenes
from minivis.widgets import MatchingExplorer

model = minivis.load("detr-mini").to(device)
scenes = load_shipped_scenes()


def predict(indices):
    """The model's answers for some scenes, and what is really in them."""
    batch = scenes.prepare(scenes.collate([scenes[i] for i in indices]), device)
    with torch.inference_mode():
        return model(batch.images), batch.targets


SCENE = 1
outputs, targets = predict([SCENE])
MatchingExplorer(scenes.scene_image(SCENE), outputs, targets[0], model.class_names)

# %% [markdown]
# **Predict before you run on.** Write your answers down.
#
# 1. You drag one of the true boxes far away from everything. Does its answer stay with it?
# 2. Two answers lie on the same object. Could both be told "well done"?
#
# <details><summary>Answers</summary>
#
# 1. It stays as long as any other choice would cost more *in total*. An object is never left without an answer while there are answers
#    enough, however far away it is. So a prediction may be matched to a box that it does not touch at all.
# 2. No. Each object gets one answer, and each answer at most one object. The second answer is told "no object", good as it may be. That is
#    what makes DETR unlearn duplicates, and why it needs no step that removes them afterwards.
# </details>

# %% [markdown]
# ## Symbols and shapes
#
# | symbol | here | shape | meaning |
# | --- | --- | --- | --- |
# | $Q$ | 25 | | object queries, that is answers for one image |
# | $N$ | 1 to 8 | | objects in the image |
# | $K$ | 6 | | classes; class number $K$ is "no object" |
# | $\hat p_i$ | `pred_logits` after softmax | (Q, K + 1) | class probabilities of answer $i$ |
# | $\hat b_i$ | `pred_boxes` | (Q, 4) | box of answer $i$: centre x, centre y, width, height, in fractions of the image |
# | $c_j,\ b_j$ | `labels`, `boxes` | (N,), (N, 4) | class and box of object $j$ |
# | $C_{ij}$ | the matrix above | (Q, N) | what it costs to make answer $i$ responsible for object $j$ |
# | $\sigma$ | the lines above | | the matching: object $j$ belongs to answer $\sigma(j)$ |

# %% [markdown]
# Everything at once, before each part by itself. Read it from left to right; the frame is the part that only *chooses*, and learns nothing.

# %%
from minivis.widgets.drawing import Arrow, Box, Drawing, Group

Drawing(
    "DETR's loss, for one image and one decoder layer",
    boxes=[
        Box("predictions", (0, 0.5), "Q classes\nand boxes", "data"),
        Box("targets", (0, 1.5), "N labels\nand boxes", "data"),
        Box("cost matrix", (1, 0.5), "−p, L1, −GIoU"),
        Box("Hungarian matching", (1, 1.5), "least total cost"),
        Box("matched pairs", (2, 0), "N queries, each\nwith its object", "data"),
        Box("the rest", (2, 2), "Q − N queries:\n“no object”", "data"),
        Box("box losses", (3, 0), "L1, GIoU", "loss"),
        Box("class loss", (3, 2), "cross-entropy\nof all Q", "loss"),
        Box("weighted sum", (4, 1), "1·CE + 5·L1\n+ 2·GIoU", "loss"),
    ],
    arrows=[
        Arrow("predictions", "cost matrix", "(Q, K + 1)\n(Q, 4)"),
        Arrow("targets", "cost matrix", "(N,)\n(N, 4)"),
        Arrow("cost matrix", "Hungarian matching", "(Q, N)"),
        Arrow("Hungarian matching", "matched pairs"),
        Arrow("Hungarian matching", "the rest"),
        Arrow("matched pairs", "box losses"),
        Arrow("matched pairs", "class loss"),
        Arrow("the rest", "class loss"),
        Arrow("box losses", "weighted sum"),
        Arrow("class loss", "weighted sum"),
    ],
    groups=[Group("chooses pairs: no gradient", ["cost matrix", "Hungarian matching"])],
).show()

# %% [markdown]
# ## By hand: three answers, three objects
#
# Forget boxes for a moment. Somebody gives you this table of costs. Give every object (column) its own answer (row), so that the total is as
# small as possible. Take a pencil; there are only six ways.

# %%
import itertools

import numpy as np

cost = np.array(
    [
        [1, 2, 6],
        [2, 8, 9],
        [7, 6, 3],
    ]
)

for columns in itertools.permutations(range(3)):
    pairs = ", ".join(f"answer {row} → object {'ABC'[column]}" for row, column in enumerate(columns))
    print(f"{pairs}:  {' + '.join(str(cost[row, column]) for row, column in enumerate(columns))} = "
          f"{sum(cost[row, column] for row, column in enumerate(columns))}")

# %% [markdown]
# The best total is 7. Now look at how a hurried person would do it: take the cheapest cell of the table, cross out its row and its column,
# and repeat. This is the **greedy** way.

# %%


def greedy(cost):
    """The cheapest pair that is left, again and again."""
    cost, pairs = cost.astype(float), []
    for _ in range(min(cost.shape)):
        row, column = np.unravel_index(cost.argmin(), cost.shape)
        pairs.append((int(row), int(column)))
        cost[row, :] = cost[:, column] = np.inf  # both are taken
    return pairs


print("greedy picks", greedy(cost), "for a total of", sum(cost[pair] for pair in greedy(cost)))

# %% [markdown]
# Greedy takes the 1 at once, and pays for it: answer 1 is left with an 8. The best way gives object A to answer 1, which costs only one more,
# and saves six on object B. **What is nearest for one is not best for all.**
#
# Six ways are few. For 25 answers and 8 objects there are 43 thousand million. The *Hungarian algorithm* finds the best of them
# without looking at them: Kuhn gave it in 1955, after two Hungarians, Kőnig and Egerváry. SciPy has a faster relative of it.

# %%
from scipy.optimize import linear_sum_assignment

rows, columns = linear_sum_assignment(cost)
print("best:", [(int(row), int(column)) for row, column in zip(rows, columns, strict=True)], "total", cost[rows, columns].sum())
assert cost[rows, columns].sum() == 7

# %% [markdown]
# ### How often does it matter?
#
# **D17.** The document says that matching by nearest IoU "will certainly not always be optimal". How often is the greedy way worse? It depends on
# the table. First, tables of random numbers:

# %%
rng = np.random.default_rng(SEED)
for size in (3, 5, 10, 25):
    worse = 0
    for _ in range(300):
        table = rng.random((size, size))
        worse += sum(table[pair] for pair in greedy(table)) > table[linear_sum_assignment(table)].sum() + 1e-9
    print(f"{size:2} × {size:<2}  greedy is worse in {100 * worse / 300:3.0f} % of the tables")

# %% [markdown]
# On random tables greedy is nearly always worse from ten rows on. Keep that number. We will ask again with the tables of a real detector, and you may
# be surprised.
#
# ## What a pair costs
#
# Now the table for boxes. An answer is a good candidate for an object if it
#
# - believes in the object's class: $-\hat p_i(c_j)$, a number from −1 to 0;
# - lies where the object lies: the sum of the four differences, $\lVert \hat b_i - b_j \rVert_1$;
# - overlaps it: $-\mathrm{GIoU}(\hat b_i, b_j)$, a number from −1 to 1.
#
# $$C_{ij} = -\lambda_{\text{class}}\,\hat p_i(c_j) + \lambda_{L1}\,\lVert \hat b_i - b_j\rVert_1 - \lambda_{\text{GIoU}}\,\mathrm{GIoU}(\hat b_i, b_j)$$
#
# Why two measures for boxes? Slide a box away from another one, and look at all three candidates.

# %%
import matplotlib.pyplot as plt

from minivis.boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou

shift = torch.linspace(0, 0.6, 121)
fixed = torch.tensor([[0.2, 0.5, 0.2, 0.2]])
moving = fixed.repeat(len(shift), 1)
moving[:, 0] += shift

iou = box_iou(cxcywh_to_xyxy(moving), cxcywh_to_xyxy(fixed))[:, 0]
giou = generalized_box_iou(cxcywh_to_xyxy(moving), cxcywh_to_xyxy(fixed))[:, 0]
l1 = (moving - fixed).abs().sum(1)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(shift / 0.2, iou, "--", color="#999999", label="IoU")
left.plot(shift / 0.2, giou, color="#0072B2", label="GIoU")
left.axvline(1, color="black", linewidth=0.8, linestyle=":")
left.set(xlabel="shift, in widths of the box", ylabel="overlap", ylim=(-1, 1.05))
left.legend()

sizes = torch.tensor([0.05, 0.1, 0.2, 0.4])
true = torch.stack([torch.full_like(sizes, 0.5), torch.full_like(sizes, 0.5), sizes, sizes], dim=1)
off = true.clone()
off[:, 0] += sizes / 4  # the same relative error: a quarter of the width
right.plot(sizes, 5 * (off - true).abs().sum(1), "o-", color="#D55E00", label="5 · L1")
gious = torch.diagonal(generalized_box_iou(cxcywh_to_xyxy(off), cxcywh_to_xyxy(true)))
right.plot(sizes, 2 * (1 - gious), "s-", color="#0072B2", label="2 · (1 − GIoU)")
right.set(xlabel="width of the object", ylabel="cost of being off by a quarter", ylim=(0, None))
right.legend()
minivis.widgets.show(
    figure,
    "Left: as a box slides away, IoU falls to 0 at one width and stays there, while GIoU goes on falling below 0. "
    "Right: for the same relative error the L1 part grows with the object's size and the GIoU part stays the same.",
)

# %% [markdown]
# Two things to read off.
#
# - **Left.** IoU is 0 as soon as the boxes part, and then says nothing more: no slope, nothing to learn from. GIoU goes on. It subtracts how much
#   of the smallest box around both is empty.
# - **Right.** L1 counts in fractions of the *image*, so the same relative mistake is cheap on a small object and dear on a large one. GIoU does not
#   care about size. The two together are fair to both.
#
# ## Build it
#
# The whole cost matrix is three lines. Nothing here is learned, and no gradient flows through it.

# %%


def cost_matrix(logits, boxes, labels, true_boxes, weights=(1, 5, 2)):
    """(Q, K + 1), (Q, 4), (N,), (N, 4) -> (Q, N)"""
    class_part = -logits.softmax(-1)[:, labels]
    l1_part = torch.cdist(boxes, true_boxes, p=1)
    giou_part = -generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(true_boxes))
    return weights[0] * class_part + weights[1] * l1_part + weights[2] * giou_part


logits, boxes = outputs["pred_logits"][0], outputs["pred_boxes"][0]
labels, true_boxes = targets[0]["labels"], targets[0]["boxes"]
cost = cost_matrix(logits, boxes, labels, true_boxes).cpu()
print("cost:", tuple(cost.shape), "= (Q, N)")

query_idx, target_idx = linear_sum_assignment(cost)
print("answers ", query_idx.tolist())
print("objects ", target_idx.tolist())

# %% [markdown]
# The package's matcher does the same for a batch and for all decoder layers at once, and waits for the GPU only once. Is it the same matching?

# %%
from minivis.detr import HungarianMatcher

matcher = HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2)
((package_query, package_target),) = matcher(outputs, targets)
assert package_query.tolist() == query_idx.tolist() and package_target.tolist() == target_idx.tolist()
print("the same pairs")

# %% [markdown]
# ## From the matching to the loss
#
# The matching says who answers for what. The loss says how wrong the answers are. It is a sum of three:
#
# $$L = \underbrace{\frac{\sum_{i} w_{c(i)}\,\bigl(-\log \hat p_i(c(i))\bigr)}{\sum_i w_{c(i)}}}_{\text{class, all } Q \text{ answers}}
# \;+\; 5\cdot\underbrace{\frac1N\sum_{j}\lVert \hat b_{\sigma(j)} - b_j\rVert_1}_{\text{L1, matched pairs}}
# \;+\; 2\cdot\underbrace{\frac1N\sum_{j}\bigl(1-\mathrm{GIoU}(\hat b_{\sigma(j)}, b_j)\bigr)}_{\text{GIoU, matched pairs}}$$
#
# Here $c(i)$ is the class of the object that answer $i$ was matched to, or "no object" if it was matched to none.
#
# ### The class part: most answers should say nothing
#
# Every answer has a class to say. Fill in "no object" for all 25, and write the classes of the matched ones over it.

# %%
no_object = len(model.class_names)
true_class = torch.full((len(logits),), no_object, device=device)
true_class[query_idx] = labels[target_idx]
print(true_class.tolist())

# %% [markdown]
# Twenty or so of 25 are "no object". Left alone, they would drown the few that matter: a detector that always says "nothing there" would already be
# right most of the time. So "no object" counts only a tenth: $w = 0.1$, and 1 for every real class. The sum is divided by the sum of the
# weights, not by 25: a *weighted mean*.

# %%
import torch.nn.functional as F

weight = torch.ones(no_object + 1, device=device)
weight[no_object] = 0.1

w = weight[true_class]
per_answer = F.cross_entropy(logits, true_class, reduction="none")
loss_class = (w * per_answer).sum() / w.sum()

assert torch.isclose(loss_class, F.cross_entropy(logits, true_class, weight))  # PyTorch means the same by `weight`
print(f"share of the loss's weight on 'no object': {w[true_class == no_object].sum() / w.sum():.2f}")

# %% [markdown]
# ### The box parts: only for those who were matched
#
# What box should an answer have given that found nothing? There is no right one, so its box is left out. This is why a trained detector's
# unmatched boxes lie about anywhere.

# %%
from minivis.boxes import paired_generalized_box_iou

matched, true = boxes[query_idx], true_boxes[target_idx]
loss_l1 = (matched - true).abs().sum() / len(true)
loss_giou = (1 - paired_generalized_box_iou(cxcywh_to_xyxy(matched), cxcywh_to_xyxy(true))).sum() / len(true)

loss = 1 * loss_class + 5 * loss_l1 + 2 * loss_giou
print(f"class {loss_class:.3f}   L1 {loss_l1:.3f}   GIoU {loss_giou:.3f}   weighted sum {loss:.3f}")

# %% [markdown]
# ### Is it the package's loss?
#
# `SetCriterion` gives the same three numbers. It gives them once more for every earlier decoder layer, which is matched anew and trained as if
# it were the last: the *auxiliary losses*. They are summed with the same weights.

# %%
from minivis.detr import SetCriterion

criterion = SetCriterion(len(model.class_names), matcher, eos_coef=0.1).to(device)
losses = criterion(outputs, targets)

for ours, name in ((loss_class, "loss_ce"), (loss_l1, "loss_bbox"), (loss_giou, "loss_giou")):
    assert torch.isclose(ours, losses[name], atol=1e-6), name
print("the same; and in all:", ", ".join(losses))

# %% [markdown]
# Read the package's own lines once. They do it for all images and all decoder layers at once, so there are more indices; the arithmetic is yours.

# %%
from minivis.widgets import show_source

show_source(SetCriterion.loss_labels)
show_source(SetCriterion.loss_boxes)

# %% [markdown]
# ## The document, put to the test
#
# ### D19 · The order of predictions does not matter
#
# A set has no order. So shuffle the answers, shuffle the objects, and compute the loss again.

# %%
eight, eight_targets = predict(range(8))


def total_loss(outputs, targets):
    return criterion.weighted_sum(criterion({key: outputs[key] for key in ("pred_logits", "pred_boxes")}, targets))


shuffled_answers = torch.randperm(25)
shuffled = {key: eight[key][:, shuffled_answers] for key in ("pred_logits", "pred_boxes")}
shuffled_targets = []
for target in eight_targets:
    order = torch.randperm(len(target["labels"]))
    shuffled_targets.append({"labels": target["labels"][order], "boxes": target["boxes"][order]})

before, after = total_loss(eight, eight_targets), total_loss(shuffled, shuffled_targets)
assert torch.isclose(before, after, rtol=1e-5)
print("the loss is the same, to five digits")

# %% [markdown]
# **Confirmed.** The loss sees a set.
#
# ### D15 · Boxes are (centre x, centre y, *height, width*), says the document
#
# It is width before height. Nothing complains if you swap them: four numbers are four numbers. What does a box lose that is compared with itself,
# but swapped?

# %%
both = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.3], [0.5, 0.5, 0.1, 0.4]])
swapped = both[:, [0, 1, 3, 2]]
for box, value in zip(both, paired_generalized_box_iou(cxcywh_to_xyxy(both), cxcywh_to_xyxy(swapped)), strict=True):
    print(f"width {box[2]:.1f}, height {box[3]:.1f}:  GIoU with its swapped self {value:+.2f}")

# %% [markdown]
# **Corrected.** A square does not mind, and that is the trap: on data of nearly square objects the mistake hides. On a pedestrian or a pencil it is
# ruin. Look at drawn boxes before you train.
#
# ### D16 · There are at most as many detections as object queries
#
# Nine objects, five answers:

# %%
nine = {"labels": torch.zeros(9, dtype=torch.int64), "boxes": 0.3 + 0.2 * torch.rand(9, 4)}
five = {"pred_logits": torch.randn(1, 5, 7), "pred_boxes": torch.rand(1, 5, 4)}
((query, target),) = HungarianMatcher()(five, [nine])
assert len(query) == 5
print(f"{len(query)} pairs; objects that nobody answers for: {sorted(set(range(9)) - set(target.tolist()))}")

# %% [markdown]
# **Confirmed.** Four objects teach nothing in this step. The paper takes 100 queries, for images of COCO with 7 objects on average and 63 at most
# (its section 4). Count yours before you train; `minivis train` does, and says so.
#
# ### D17 again · Greedy, on the tables of a real detector

# %%
many, many_targets = predict(range(200))


def cost_tables(outputs, targets):
    return [
        cost_matrix(outputs["pred_logits"][i], outputs["pred_boxes"][i], target["labels"], target["boxes"]).cpu().numpy()
        for i, target in enumerate(targets)
    ]


def share_where_greedy_is_worse(tables):
    return np.mean([
        sum(table[pair] for pair in greedy(table)) > table[linear_sum_assignment(table)].sum() + 1e-4 for table in tables
    ])


trained = share_where_greedy_is_worse(cost_tables(many, many_targets))
blank = minivis.detr.detr_mini(num_classes=6).to(device).eval()
batch = scenes.prepare(scenes.collate([scenes[i] for i in range(200)]), device)
with torch.inference_mode():
    untrained = share_where_greedy_is_worse(cost_tables(blank(batch.images), many_targets))
print(f"greedy is worse, untrained detector: {100 * untrained:.0f} % of 200 scenes")
print(f"greedy is worse, trained detector:   {100 * trained:.0f} % of 200 scenes")

# %% [markdown]
# **Qualified.** A trained detector's tables are easy: for each object one answer is far cheaper than all others, and greedy finds it. The matching
# matters at the start, when all answers look alike and every object wants the same one. But the start is where it is decided who will own what.
#
# ### D18 · The Hungarian algorithm takes $O(n^3)$, and SciPy uses a faster variant

# %% tags=["nbval-ignore-output"]
import timeit

side = [25, 50, 100, 200, 400, 800]
seconds = []
for n in side:
    table = rng.random((n, n))
    seconds.append(min(timeit.repeat(lambda table=table: linear_sum_assignment(table), number=1, repeat=5)))
exponent = np.polyfit(np.log(side), np.log(seconds), 1)[0]

figure, axes = plt.subplots(figsize=(5.5, 3))
axes.loglog(side, 1000 * np.array(seconds), "o-", color="#0072B2")
axes.set(xlabel="answers and objects, n", ylabel="milliseconds")
minivis.widgets.show(figure, "Time of SciPy's assignment against the size of a square table, both axes logarithmic: nearly a straight line.")
print(f"slope: n to the power of {exponent:.1f}")
print(f"100 answers, 20 objects: {1e6 * min(timeit.repeat(lambda: linear_sum_assignment(rng.random((100, 20))), number=20, repeat=5)) / 20:.0f} µs")
assert 1.5 < exponent < 4.5

# %% [markdown]
# **Confirmed** for the exponent, as near as a stopwatch can tell. SciPy's own documentation says what the variant is: a modified *Jonker–Volgenant*
# algorithm. At DETR's sizes it takes microseconds for an image, far less than the network.
#
# ### D20 · "By default all matching weights are 1"
#
# They are in the code's signature, and nobody trains with them: the paper's recipe sets 1, 5 and 2. How many assignments would change?

# %%
PAPER, ONES = (1, 5, 2), (1, 1, 1)


def changed(outputs, targets, weights):
    """The share of objects that another answer gets, with other weights than the paper's."""
    usual, other = (
        torch.cat([query[target.argsort()] for query, target in HungarianMatcher(*chosen)(outputs, targets)])
        for chosen in (PAPER, weights)
    )
    return (usual != other).float().mean().item()


first_layer = many["aux_outputs"][0]
for weights in (ONES, (1, 0, 0), (0, 5, 2)):
    print(f"weights {weights}: {100 * changed(first_layer, many_targets, weights):4.1f} % of objects change hands after the first decoder layer, "
          f"{100 * changed(many, many_targets, weights):4.1f} % after the last")

# %% [markdown]
# **Corrected.** The defaults of a signature are not the recipe. On a trained detector equal weights change little; without the boxes, or without the
# class, much. One more correction: the class part of the cost is $-\hat p$, and not the cross-entropy of the loss. A logarithm would let one
# unlikely class outweigh any distance.
#
# ### D35 · "The matching gives the smallest possible loss"
#
# It gives the smallest *matching cost*. The loss is something else: its class part is a logarithm, and it counts the answers that are left over as
# well. So take the real loss as the cost, and see whether another matching does better.

# %%


def smallest_loss(logits, boxes, target):
    """The loss of the best of all matchings, when the table holds the loss itself."""
    log_p, n = logits.log_softmax(-1), len(target["labels"])
    total_weight = n + 0.1 * (len(logits) - n)
    # giving object j to answer i: its class instead of "no object", and its box
    class_part = (-log_p[:, target["labels"]] + 0.1 * log_p[:, [-1]]) / total_weight
    l1_part = torch.cdist(boxes, target["boxes"], p=1) / n
    giou_part = (1 - generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target["boxes"]))) / n
    table = (class_part + 5 * l1_part + 2 * giou_part).cpu().numpy()
    everyone_silent = -0.1 * log_p[:, -1].sum().item() / total_weight
    return table[linear_sum_assignment(table)].sum() + everyone_silent


def share_with_a_smaller_loss(outputs, targets):
    beaten = 0
    for i, target in enumerate(targets):
        one = {key: outputs[key][i : i + 1] for key in ("pred_logits", "pred_boxes")}
        best = smallest_loss(one["pred_logits"][0], one["pred_boxes"][0], target)
        usual = total_loss(one, [target]).item()
        assert best <= usual + 1e-4
        beaten += best < usual - 1e-4
    return beaten / len(targets)


print(f"after the first decoder layer: {100 * share_with_a_smaller_loss(first_layer, many_targets):.0f} % of scenes have a matching with a smaller loss")
print(f"after the last:                {100 * share_with_a_smaller_loss(many, many_targets):.0f} %")

# %% [markdown]
# **Corrected.** The matching minimises its own cost, and now and then another one has a smaller loss. It does no harm: what matters is that the
# same answer is told the same thing again and again.
#
# ### D22 · Surplus predictions go to "no object" and are left out of the result
#
# In a picture, yes. When AP is measured, no: COCO's evaluation sorts all detections by score, so a hesitant one costs nothing and may be right. The
# official evaluation therefore asks each answer for its best *real* class, even where "no object" is likelier.

# %%
from minivis.detr import postprocess
from minivis.evaluation.detection import detection_metrics, results_of

sizes = [target["original_size"] for target in many_targets]
ids = [target["image_id"] for target in many_targets]
truth = scenes.ground_truth()
truth["images"] = [image for image in truth["images"] if image["id"] in ids]
truth["annotations"] = [annotation for annotation in truth["annotations"] if annotation["image_id"] in ids]

everything = postprocess(many, sizes)
silent = many["pred_logits"].argmax(-1) == no_object
surplus = {**many, "pred_logits": many["pred_logits"].masked_fill(silent[..., None], -1e4)}
surplus["pred_logits"][..., no_object][silent] = 1e4  # surely nothing: a score of 0
spoken = [{key: value[one["scores"] > 0] for key, value in one.items()} for one in postprocess(surplus, sizes)]

for name, found in (("every answer", everything), ("only those that say a class", spoken)):
    metrics = detection_metrics(truth, results_of(found, ids, scenes.categories), scenes.categories)
    print(f"{name:28} {sum(len(one['scores']) for one in found):5} detections, AP {metrics['AP']:.3f}")

# %% [markdown]
# **Qualified.** Keep them for measuring: the paper gains two points of AP by it; here the gain is smaller. Leave them out for people to look at.

# %% [markdown]
# ## Train it, and watch who owns what
#
# Now let the loss work. The model is a DETR in miniature (two encoder and two decoder layers, ten queries), the world is small: one to three shapes of three
# kinds, on plain ground, 64 pixels wide. It begins with random weights. The whole training loop is here:

# %%
from minivis.experiments.small_detr import WORLD, small_criterion, train_small

show_source(train_small, docstring=False)

# %% [markdown]
# A few scenes are kept aside. Every so often the recorder asks the model about them, and writes down which query the matching gives each object to.
# Six hundred steps take about half a minute.

# %%
from minivis.data import Scenes
from minivis.widgets import MatchingRecorder, MatchingReplay

watched = Scenes("val", WORLD)
batch = watched.prepare(watched.collate([watched[i] for i in (0, 1, 2, 3)]), "cpu")
pictures = [watched.scene_image(i) for i in (0, 1, 2, 3)]
recorder = MatchingRecorder(batch.images, batch.targets, WORLD.shapes, pictures)


def record(step, model):
    if (step < 40 and step % 4 == 0) or step % 20 == 0:
        recorder.record(step, model)


trained_here, history = train_small(small_criterion(), seed=SEED, steps=600, on_step=record)

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6))
for axis, name, title in zip(axes, ("loss_ce", "loss_bbox", "loss_giou"), ("class", "L1", "1 − GIoU"), strict=True):
    axis.plot(history[name], color="#BBBBBB", linewidth=0.6)
    axis.plot(np.convolve(history[name], np.ones(25) / 25, mode="valid"), color="#0072B2")
    axis.set(title=title, xlabel="step", ylim=(0, None))
silent = -np.log(1 / (WORLD.max_objects + 1))
minivis.widgets.show(figure, "Three curves that fall while the model trains: class, L1 and GIoU loss of the last decoder layer.")

# %% [markdown]
# The boxes come first, and the classes later: look at where each curve leaves its plateau. And now the question of this notebook, as a film. Press play, or drag.

# %%
MatchingReplay(recorder)

# %% [markdown]
# **What to look for.**
#
# - At the start all ten answers are nearly the same. Which of them is cheapest is chance, and an object changes hands from record to record.
# - Then queries part: one leans to the left of the picture, another to the right. An object that lies on the left is now cheapest for the same
#   query every time, so this query gets the same lesson every time, so it leans more.
# - At the end an object keeps its owner.
#
# Nobody told a query where to look. The matching rewards whoever is nearest already, and that is enough to break the tie. It also explains why DETR is
# slow to start: as long as objects change hands, every query is taught a different thing at each step. DN-DETR (Li et al., 2022) measured this and
# trained queries on noisy true boxes besides, which need no matching.

# %% [markdown]
# ## Break it
#
# The commonest way to break this loss is one number: the weight of "no object". Compute what it does before any training. Of all the weight in the class
# loss, how much is spent on saying nothing?

# %%
for eos in (0.1, 1.0):
    spoken_weight = sum(len(target["labels"]) for target in many_targets)
    silent_weight = eos * (25 * len(many_targets) - spoken_weight)
    print(f"no-object weight {eos}: {100 * silent_weight / (silent_weight + spoken_weight):.0f} % of the class loss is about saying nothing")

# %% [markdown]
# With a weight of 1, four fifths of the class loss are earned by silence. A detector that is trained so finds good boxes and dares not name them: nothing is
# reported above a score of one half, and `class_error` stays high. When yours "finds nothing", look here first.
#
# Other ways to break it, each with its symptom, take longer than a notebook has: a loss without GIoU or without L1 (`minivis experiment D21`), a greedy matching
# or none (`D17`), other weights in the matching (`D20`), height and width swapped (`D15`). Each trains this small model with three seeds.

# %% [markdown]
# ## Look inside: what the matching made of the queries
#
# Back to `detr-mini`. Over 200 scenes, where do the objects lie that the matching gives to one and the same query?

# %%
pairs = matcher(many, many_targets)
owned = {query: [] for query in range(25)}
for (queries, objects), target in zip(pairs, many_targets, strict=True):
    for query, centre in zip(queries.tolist(), target["boxes"][objects, :2].tolist(), strict=True):
        owned[query].append(centre)

busiest = sorted(owned, key=lambda query: -len(owned[query]))[:10]
figure, axes = plt.subplots(2, 5, figsize=(9, 3.9))
for axis, query in zip(axes.flat, busiest, strict=True):
    x, y = zip(*owned[query], strict=True)
    axis.scatter(x, y, s=6, color="#0072B2")
    axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal", title=f"query {query}: {len(x)}")
minivis.widgets.show(
    figure, "Ten small squares, one for a query each, with dots where the objects were that it owned: each query keeps to a region."
)

# %% [markdown]
# Queries keep to places, and not to classes. That is a habit that grew by itself. Nothing in the loss asks for it, so do not read more into it than that:
# an object just outside "its" region is found all the same.
#
# ## Real weights
#
# With a network, the same widget shows the paper's own ResNet-50 model on a photograph. Without one, the next cell says so and goes on.

# %% tags=["nbval-ignore-output"]
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from skimage import data

RELEASED = "facebook/detr-resnet-50"
wanted = False  # set it to True to download 160 MB

if wanted or isinstance(try_to_load_from_cache(RELEASED, "model.safetensors"), str):
    released = minivis.load(RELEASED)
    cat = Image.fromarray(data.chelsea())
    with torch.inference_mode():
        answers = released([released.image_transform(cat)])
    truth = {"labels": torch.tensor([17]), "boxes": torch.tensor([[0.5, 0.5, 0.95, 0.95]])}  # a box by hand: the cat
    display(MatchingExplorer(cat, answers, truth, released.class_names))
else:
    print(f"{RELEASED} is not on this machine: set wanted = True to download it")


# %% [markdown]
# ## Exercises
#
# Five functions to write, about 50 minutes in all. Fill in a stub, run it, and run the cell below it. The check runs your function on small
# inputs and says what to look at. It knows the mistakes that most people make. Solutions are in `solutions/04_detr_hungarian_loss.py`.
#
# ### Exercise 1: how well two boxes agree (5 minutes)
#
# Write GIoU for two boxes, without `minivis.boxes`. With $I$ the area of the overlap, $U$ of the union, and $C$ of the hull (the smallest
# box around both):
#
# $$\mathrm{GIoU} = \frac{I}{U} - \frac{C - U}{C}$$
#
# <details><summary>A hint</summary>
#
# The overlap's left edge is the larger of the two left edges, and its right edge is the smaller of the two right edges. What is its width
# if the boxes do not touch?
# </details>

# %%
def giou(a, b):
    """GIoU of two boxes, each a tensor of four numbers (left, top, right, bottom). A number in -1..1."""
    raise NotImplementedError


# %%
from minivis.checks.matching import check_giou

check_giou(giou)


# %% [markdown]
# ### Exercise 2: the cost matrix (10 minutes)
#
# Write the matching cost of every query $i$ for every object $j$, with DETR's weights. For one image:
#
# $$C_{ij} = -\,1 \cdot p_i(c_j) \;+\; 5 \cdot \lVert b_i - b^*_j \rVert_1 \;-\; 2 \cdot \mathrm{GIoU}(b_i, b^*_j)$$
#
# Use no loop. `cxcywh_to_xyxy` and `generalized_box_iou` (all pairs at once) of `minivis.boxes` are allowed.
#
# <details><summary>A hint</summary>
#
# `probability[:, labels]` has a row for each query and a column for each object. For all pairs of boxes let shapes broadcast:
# (Q, 1, 4) against (1, N, 4).
# </details>

# %%
def matching_cost(probability, boxes, labels, true_boxes):
    """The cost of every query for every object, (Q, N).

    probability: (Q, K + 1), after the softmax. boxes: (Q, 4) as (cx, cy, w, h) in 0..1.
    labels: (N,) class numbers of the objects. true_boxes: (N, 4) as (cx, cy, w, h) in 0..1.
    """
    raise NotImplementedError


# %%
from minivis.checks.matching import check_matching_cost

check_matching_cost(matching_cost)


# %% [markdown]
# ### Exercise 3: the best assignment, by trying all (10 minutes)
#
# Find the assignment with the least total cost by computing the total of every one. There are at least as many queries as objects.
#
# Before you write it, work this matrix out on paper: what does the best assignment cost, and what does it cost to take the cheapest
# cell first?
#
# $$\begin{pmatrix} 1 & 2 \\ 2 & 9 \end{pmatrix}$$
#
# <details><summary>What you should have found</summary>
#
# Greedy takes the 1, and then only the 9 is left: 10. The best takes 2 and 2: 4. The cheapest cell is not part of it.
# </details>
#
# <details><summary>A hint</summary>
#
# `itertools.permutations(range(Q), N)` gives every way of choosing N different queries in order: the first for object 0, the second for
# object 1, and so on.
# </details>

# %%
def best_assignment(cost):
    """For each object the number of its query: a list of N numbers. cost: (Q, N), with Q at least N."""
    raise NotImplementedError


# %%
from minivis.checks.matching import check_best_assignment

check_best_assignment(best_assignment)


# %% [markdown]
# ### Exercise 4: the class loss (10 minutes)
#
# The matching says: query `queries[i]` owns object `objects[i]`. Every query now has a class to learn: its object's label, or "no object",
# which is class number $K$. With $c_q$ this class, $w(c) = 1$ for real classes and a small weight for "no object":
#
# $$L = \frac{\sum_q w(c_q) \cdot \bigl(-\log p_q(c_q)\bigr)}{\sum_q w(c_q)}$$
#
# <details><summary>A hint</summary>
#
# Begin with a tensor of Q times "no object" and write the labels of matched queries into it. Which label belongs to `queries[i]`?
# </details>

# %%
def class_loss(logits, labels, queries, objects, no_object_weight):
    """The weighted cross-entropy of one image, a scalar.

    logits: (Q, K + 1). labels: (N,) class numbers of the objects.
    queries, objects: (N,) each; query queries[i] is matched with object objects[i].
    """
    raise NotImplementedError


# %%
from minivis.checks.matching import check_class_loss

check_class_loss(class_loss)


# %% [markdown]
# ### Exercise 5: two queries for each object (15 minutes)
#
# More queries that learn from each object, would that not train faster? Write a matcher that gives each object $k$ queries, at the least total
# cost, and a query at most one object. `scipy.optimize.linear_sum_assignment` is allowed: it solves the matching one to one for a matrix of
# any shape.
#
# Then think: what will a model report that was trained with it?
#
# <details><summary>A hint</summary>
#
# One column can be taken once. What if the matrix had each object's column $k$ times?
# </details>
#
# <details><summary>What such a model reports</summary>
#
# Every object $k$ times: $k$ queries are rewarded for saying it, and none is punished. Such detectors need non-maximum suppression
# (NMS) afterwards. Some later models train with groups of queries or a second head that is matched one to many, because it does train
# faster, and keep the part matched one to one for the answer (H-DETR and Group DETR, both 2023).
# </details>

# %%
def match_k(cost, k):
    """The pairs at the least total cost, with each object in at most k of them.

    cost: (Q, N). Gives two tensors (queries, objects) of min(Q, k * N) numbers, queries rising.
    """
    raise NotImplementedError


# %%
from minivis.checks.matching import check_match_k

check_match_k(match_k)

# %% [markdown]
# ## In short
#
# - The matching decides **who answers for what**: each object gets one query, each query at most one object, at the least total cost.
# - The cost is $-\hat p$ of the class, plus L1, minus GIoU, weighted 1, 5, 2. It is not the loss, and no gradient flows through it.
# - The loss is computed *after* it: classes for all queries, boxes for the matched ones, at every decoder layer.
# - "No object" weighs a tenth. Without that a detector falls silent.
# - One query for each object is what keeps duplicates away, and what makes training slow to start: owners change until queries have parted.
#
# **What became of the document's claims**
#
# | | the document says | verdict | measured above |
# | --- | --- | --- | --- |
# | D15 | boxes are (cx, cy, height, width) | corrected | it is width first; a square does not notice, a slim box is ruined |
# | D16 | no more detections than queries | confirmed | five queries, nine objects: five pairs |
# | D17 | matching by nearest is not always optimal | qualified | at the start of training, yes; with a trained detector greedy finds the same |
# | D18 | $O(n^3)$, and SciPy has a faster variant | confirmed | a slope of about 3 |
# | D19 | the order of predictions does not matter | confirmed | the same loss, shuffled |
# | D20 | all matching weights are 1 | corrected | the recipe has 1, 5, 2 |
# | D22 | surplus predictions are left out | qualified | for people, yes; AP keeps them |
# | D35 | the matching gives the smallest possible loss | corrected | the smallest cost; now and then another matching has a smaller loss |
#
# D21, the sum of the three losses and its weights, is being measured.

# %% [markdown]
# ## Quiz
#
# Open the answer you would give.

# %% [markdown]
# **1. Two queries lie on one object, both sure of the right class. What does the loss ask of the one that was not matched?**
#
# <details><summary>a) Nothing: it is left out of the loss</summary>
#
# **Not quite.** Its box is left out. Its class is not: every query has a class to say.
# </details>
#
# <details><summary>b) To say "no object"</summary>
#
# **Right.** Good as its box may be. This is how DETR unlearns duplicates.
# </details>
#
# <details><summary>c) The object as well, with half the weight</summary>
#
# **Not quite.** The matching is one to one; exercise 5 shows what comes of another.
# </details>

# %% [markdown]
# **2. Why is there GIoU in the cost besides L1?**
#
# <details><summary>a) L1 counts in fractions of the image, so it cares less about small objects</summary>
#
# **Right.** GIoU is the same for a mouse and an elephant that are missed by the same share of their size.
# </details>
#
# <details><summary>b) L1 is 0 when boxes do not touch</summary>
#
# **Not quite.** That is IoU. L1 grows with the distance.
# </details>
#
# <details><summary>c) GIoU can be differentiated and L1 cannot</summary>
#
# **Not quite.** Both can. And for the matching it would not matter: no gradient flows through it.
# </details>

# %% [markdown]
# **3. Your own DETR reports nothing above a score of 0.3, and `class_error` stays near 70 %. The boxes' losses look good. What do you look at first?**
#
# <details><summary>a) The learning rate</summary>
#
# **Not quite.** Boxes are being learned, so something learns. What is special about the class loss?
# </details>
#
# <details><summary>b) The weight of "no object"</summary>
#
# **Right.** With a weight of 1 saying nothing is the cheapest answer for most queries, and so for all.
# </details>
#
# <details><summary>c) Whether width and height are swapped</summary>
#
# **Not quite.** Then GIoU and L1 would be bad, and the classes no worse than elsewhere.
# </details>

# %% [markdown]
# ## References
#
# - Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko: *End-to-End Object Detection with Transformers*, ECCV 2020. Sections 3.1 and A.2.
# - Kuhn: *The Hungarian method for the assignment problem*, Naval Research Logistics Quarterly, 1955.
# - Crouse: *On implementing 2D rectangular assignment algorithms*, IEEE Transactions on Aerospace and Electronic Systems, 2016. What SciPy uses.
# - Rezatofighi, Tsoi, Gwak, Sadeghian, Reid, Savarese: *Generalized Intersection over Union*, CVPR 2019.
# - Li, Zhang, Liu, Guo, Ni, Zhang: *DN-DETR: Accelerate DETR Training by Introducing Query DeNoising*, CVPR 2022.
#
# **Next:** notebook 05 trains a whole detector and takes it apart. (It is being written.)

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
# **Time:** about 90 minutes to read and try; the cells run in about 1.5 minutes on two CPU cores.
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
# **In the document** (the text that this course follows, and checks: see notebook 00): the sections "Loss" and "Hungarian algorithm". Its statements D15 to D22 and
# D35 are put to the test below.

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
# Here is a trained detector, and one scene that it has never seen. It gives 25 answers. The scene has three objects.
#
# (An answer comes from an *object query*: a learned vector. All queries read the same picture; only this vector makes their answers differ. So
# a lesson given to answer 7 changes query 7. Notebook 03 is about them.)
#
# To train it, every object must be somebody's responsibility: one answer is told "you should have been this box and this class", and the
# others are told "you should have said *no object*". **Who decides which answer is responsible?**
#
# Below are the answers after the first of its three decoder layers, while it is still making up its mind. Lines join the answers and the
# objects that were matched. Move each of the three sliders to 0 once, and back. Drag a box. Point at a cell of the matrix. You do not have to
# understand the numbers yet: find out when an object changes hands. The panel says which.

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


SCENE = 4
outputs, targets = predict([SCENE])
first_answers = outputs["aux_outputs"][0]
MatchingExplorer(scenes.scene_image(SCENE), first_answers, targets[0], model.class_names)

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# Each slider at 0 gives another matching. Without the class, the triangle B goes from query 8 to 21, which says "no object" but lies
# better. Without L1, the cross C goes from 19 to 23; without GIoU, to 17. (With all three at 0 every matching costs the same, and what is shown means nothing.)
# </details>
#
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
from minivis.widgets.architectures import HUNGARIAN_LOSS

HUNGARIAN_LOSS.show()

# %% [markdown]
# ## By hand: three answers, three objects
#
# Forget boxes for a moment. Somebody gives you this table of costs. Give every object (column A, B, C) its own answer (row), so that the total is as
# small as possible. Take a pencil before you look below; there are only six ways.
#
# $$\begin{pmatrix} 1 & 2 & 6 \\ 2 & 8 & 9 \\ 7 & 6 & 3 \end{pmatrix}$$

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
    pairs = ", ".join(
        f"answer {row} → object {'ABC'[column]}" for row, column in enumerate(columns)
    )
    costs = cost[range(3), columns]
    print(f"{pairs}:  {' + '.join(map(str, costs))} = {costs.sum()}")

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
# Six ways are few. For 25 answers and 8 objects there are 44 billion ($25 \cdot 24 \cdots 18$). The *Hungarian algorithm* finds the best of them
# without looking at them: Kuhn gave it in 1955, after two Hungarians, Kőnig and Egerváry. SciPy has a faster relative of it.

# %%
from scipy.optimize import linear_sum_assignment

rows, columns = linear_sum_assignment(cost)
print("best:", list(zip(rows.tolist(), columns.tolist())), "total", cost[rows, columns].sum())
assert cost[rows, columns].sum() == 7

# %% [markdown]
# Here is a case in pictures: two predictions, 0 and 1, both lie nearest to object B. Switch from *optimal* to *greedy*, and watch who pays.

# %%
MatchingExplorer.toy()

# %% [markdown]
# ### How often does it matter?
#
# How often is the greedy way worse than the best? It depends on the table. First, tables of random numbers:

# %%
rng = np.random.default_rng(SEED)
for size in (3, 5, 10, 25):
    worse = 0
    for _ in range(300):
        table = rng.random((size, size))
        worse += (
            sum(table[pair] for pair in greedy(table))
            > table[linear_sum_assignment(table)].sum() + 1e-9
        )
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
# Why GIoU, when everybody knows IoU, overlap divided by union? And why L1 besides? GIoU takes IoU and subtracts something. Let $A$ and $B$ be the areas
# of two boxes, $U$ that of their union, and $H$ that of their *hull*, the smallest box around both. Then
#
# $$\mathrm{GIoU} = \frac{|A \cap B|}{U} - \frac{H - U}{H},$$
#
# which is IoU minus the share of the hull that neither covers. Slide a box away from another one, down and to the right, and look at all three.

# %%
import matplotlib.pyplot as plt

from minivis.boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou
from minivis.widgets import show

shift = torch.linspace(0, 0.6, 121)
fixed = torch.tensor([[0.2, 0.2, 0.2, 0.2]])
moving = fixed.repeat(len(shift), 1)
moving[:, :2] += shift[:, None]

iou = box_iou(cxcywh_to_xyxy(moving), cxcywh_to_xyxy(fixed))[:, 0]
giou = generalized_box_iou(cxcywh_to_xyxy(moving), cxcywh_to_xyxy(fixed))[:, 0]
l1 = (moving - fixed).abs().sum(1)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(shift / 0.2, iou, "--", color="#999999", label="IoU")
left.plot(shift / 0.2, giou, color="#0072B2", label="GIoU")
left.plot(shift / 0.2, -l1, ":", color="#D55E00", label="−L1")
left.axvline(1, color="black", linewidth=0.8, linestyle=":")
left.set(xlabel="shift to the right and down, in widths of the box", ylim=(-1.25, 1.05))
left.legend()

sizes = torch.tensor([0.05, 0.1, 0.2, 0.4])
true = torch.stack([torch.full_like(sizes, 0.5), torch.full_like(sizes, 0.5), sizes, sizes], dim=1)
off = true.clone()
off[:, 0] += sizes / 4  # the same relative error: a quarter of the width
right.plot(sizes, 5 * (off - true).abs().sum(1), "o:", color="#D55E00", label="5 · L1")
gious = torch.diagonal(generalized_box_iou(cxcywh_to_xyxy(off), cxcywh_to_xyxy(true)))
right.plot(sizes, 2 * (1 - gious), "s-", color="#0072B2", label="2 · (1 − GIoU)")
right.set(xlabel="width of the object", ylabel="cost of being off by a quarter", ylim=(0, None))
right.legend()
show(
    figure,
    "Left: as a box slides away, IoU falls to 0 at one width and stays there; GIoU falls below 0 "
    "and goes on falling, ever more slowly; minus L1 falls in a straight line. Right: for the same "
    "relative error the L1 part grows with the object's size and the GIoU part stays the same.",
)

# %% [markdown]
# Three things to read off.
#
# - **IoU gives up.** It is 0 as soon as the boxes part, so it cannot rank two candidates that both miss. GIoU can: the emptier the hull, the lower it is.
#   (For the loss later on, the same fact reads: where IoU is flat there is no slope to follow.)
# - **GIoU tires.** Far away its curve is nearly flat. L1 is a straight line: it pulls as hard from afar as from nearby, and says the direction for each
#   of the four numbers.
# - **L1 is unfair to small objects** (right). It counts in fractions of the *image*, so to miss a mouse by a quarter costs little and to miss an
#   elephant by a quarter costs much. GIoU does not know size.
#
# ## Build it
#
# The whole cost matrix is three lines. Nothing here is learned, and no gradient flows through it: which pairs are best is a choice, and a choice does not
# change when a number changes by a hair. There is nothing to differentiate. The gradient comes later, through the loss *of the chosen pairs*.

# %%


def cost_matrix(logits, boxes, labels, true_boxes, weights=(1, 5, 2)):
    """(Q, K + 1), (Q, 4), (N,), (N, 4) -> (Q, N)"""
    class_part = -logits.softmax(-1)[:, labels]
    l1_part = torch.cdist(boxes, true_boxes, p=1)
    giou_part = -generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(true_boxes))
    return weights[0] * class_part + weights[1] * l1_part + weights[2] * giou_part


labels, true_boxes = targets[0]["labels"], targets[0]["boxes"]
first = [first_answers["pred_logits"][0], first_answers["pred_boxes"][0], labels, true_boxes]
print("cost:", tuple(cost_matrix(*first).shape), "= (Q, N)")

# %% [markdown]
# Take the cross, object C, and the three queries that the sliders gave it to. Why did they?

# %%
parts = [cost_matrix(*first, weights=unit) for unit in torch.eye(3).tolist()]
print("query     −p      L1   −GIoU    cost with 1, 5, 2")
for query in (19, 23, 17):
    minus_p, distance, minus_giou = (part[query, 2].item() for part in parts)
    total = minus_p + 5 * distance + 2 * minus_giou
    print(f"{query:5}  {minus_p:.2f}   {distance:.3f}   {minus_giou:.2f}   {total:.2f}")

# %% [markdown]
# Costs are negative; a perfect pair costs $-1 + 0 - 2 = -3$. Query 19 fits best, and hardly believes in a cross. Query 17 believes in it, and fits worst. 23 lies
# between. Without L1, 23's bit more of belief outweighs its bit less of overlap; without GIoU, 17's belief outweighs everything. None is best in all: the weights decide.
#
# Now the matching itself, for every setting of the sliders that you tried.

# %%
for weights in ((1, 5, 2), (0, 5, 2), (1, 0, 2), (1, 5, 0)):
    queries, objects = linear_sum_assignment(cost_matrix(*first, weights=weights).cpu())
    owners = ", ".join(f"{'ABC'[j]}: {queries[objects == j].item()}" for j in range(3))
    print(f"weights {weights}   {owners}")

# %% [markdown]
# From here on, the answers after the *last* decoder layer. Each layer is matched anew, so do not be surprised if other queries own the objects now.

# %%
logits, boxes = outputs["pred_logits"][0], outputs["pred_boxes"][0]
cost = cost_matrix(logits, boxes, labels, true_boxes).cpu()
query_idx, target_idx = linear_sum_assignment(cost)
print("answers ", query_idx.tolist())
print("objects ", target_idx.tolist())

# %% [markdown]
# The package's matcher does the same for a batch and for all decoder layers at once, and waits for the GPU only once. Is it the same matching?

# %%
from minivis.detr import HungarianMatcher

matcher = HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2)
((package_query, package_target),) = matcher(outputs, targets)
assert (
    package_query.tolist() == query_idx.tolist() and package_target.tolist() == target_idx.tolist()
)
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

assert torch.isclose(
    loss_class, F.cross_entropy(logits, true_class, weight)
)  # PyTorch means the same by `weight`
print(
    f"share of the loss's weight on 'no object': {w[true_class == no_object].sum() / w.sum():.2f}"
)

# %% [markdown]
# ### The box parts: only for those who were matched
#
# What box should an answer have given that found nothing? There is no right one, so its box is left out. No gradient says where it should be. ("Look
# inside", below, shows where such boxes end up. It is not just anywhere.)

# %%
from minivis.boxes import paired_generalized_box_iou

matched, true = boxes[query_idx], true_boxes[target_idx]
loss_l1 = (matched - true).abs().sum() / len(true)
loss_giou = (
    1 - paired_generalized_box_iou(cxcywh_to_xyxy(matched), cxcywh_to_xyxy(true))
).sum() / len(true)

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
    return criterion.weighted_sum(
        criterion({key: outputs[key] for key in ("pred_logits", "pred_boxes")}, targets)
    )


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
# ### D17 · Matching each object to the box nearest to it would not always be optimal
#
# Nearest, says the document, by IoU. So there are two hurried ways to compare with the best one: take the pair with the highest IoU first, or take the
# *cheapest* pair first. Try both on the tables of 200 scenes: of the trained detector after its last layer, after its first, and of one whose
# weights are random.

# %% tags=["nbval-ignore-output"]
many, many_targets = predict(range(200))
first_layer = many["aux_outputs"][0]
blank = minivis.detr.detr_mini(num_classes=6).to(device).eval()
batch = scenes.prepare(scenes.collate([scenes[i] for i in range(200)]), device)
with torch.inference_mode():
    untrained = blank(batch.images)


def extra_cost(outputs, targets, by_iou):
    """For each image, how much more a hurried matching costs than the best one."""
    extra = []
    for logits, boxes, target in zip(outputs["pred_logits"], outputs["pred_boxes"], targets):
        table = cost_matrix(logits, boxes, target["labels"], target["boxes"]).cpu().numpy()
        iou = box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target["boxes"])).cpu().numpy()
        pairs = greedy(-iou if by_iou else table)
        extra.append(sum(table[pair] for pair in pairs) - table[linear_sum_assignment(table)].sum())
    return np.array(extra)


print("                      nearest by IoU            cheapest first")
for name, answers in (("last layer", many), ("first layer", first_layer), ("untrained", untrained)):
    line = f"{name:12}"
    for by_iou in (True, False):
        extra = extra_cost(answers, many_targets, by_iou)
        line += f"   worse in {100 * np.mean(extra > 0.01):3.0f} %, by {extra.mean():z.2f}"
    print(line)
nearest, cheapest = (extra_cost(many, many_targets, by_iou).mean() for by_iou in (True, False))
assert nearest > 0.1 > cheapest

# %% [markdown]
# (Worse by more than 0.01; the second number is the mean over all scenes. A pair of the trained detector costs about −2.6.) Nearest by IoU is worse in every row: it
# looks at no class, and where no box touches an object it knows nothing. Cheapest first is worse hardly ever. For a trained detector
# each object has one answer that is far cheaper than all others, and for an untrained one all answers cost nearly the same, so a wrong choice costs next to nothing.
#
# Does it hurt what is *learned*? That takes longer than a notebook has, so it was measured before: a small DETR was trained with each matching,
# three times from different random weights (`minivis experiment D17` repeats it). In such charts a bar is a mean and each dot is one training; grey is
# what the others are compared with, and the dotted line carries it down. AP50 says how much is found (notebook 00). `class_error` is the
# share of matched answers, in %, whose likeliest class is a wrong one or "no object".

# %%
from minivis.widgets import show_experiment

show_experiment("D17", "AP50", "class_error", "loss_bbox")

# %% [markdown]
# **Qualified.** Greedy is not optimal. Trained with it, this small model does not show a clear difference over three seeds; its worst run is lower. What must not
# go is the *matching*. Give the objects to queries in the order of the list, and the model learns how many objects there are, and something of their
# classes, but not where they lie: no query can know whether "the first object of the list" is the one on the left.
#
# ### D20 · "By default all matching weights are 1"
#
# They are in the code's signature, and nobody trains with them: the paper's recipe sets 1, 5 and 2. How many assignments would change?

# %%
PAPER, ONES = (1, 5, 2), (1, 1, 1)


def owners(outputs, targets, weights):
    """The query that each object gets, for all images one after the other."""
    pairs = HungarianMatcher(*weights)(outputs, targets)
    return torch.cat([query[target.argsort()] for query, target in pairs])


def changed(outputs, targets, weights):
    """The share of objects that another answer gets, with other weights than the paper's."""
    return (
        (owners(outputs, targets, weights) != owners(outputs, targets, PAPER)).float().mean().item()
    )


print("objects that change hands   after the first decoder layer   after the last")
for weights in (ONES, (1, 0, 0), (0, 5, 2)):
    early, late = (100 * changed(layer, many_targets, weights) for layer in (first_layer, many))
    print(f"weights {weights}         {early:22.1f} % {late:14.1f} %")

# %% [markdown]
# On a trained detector equal weights change little; without the boxes, or without the class, much. And in training? Two other ways to weigh were
# tried, with the loss left as it is: all weights 1, and the class part as in the loss, $-\log\hat p$, in place of $-\hat p$.

# %%
show_experiment("D20", "AP50", "loss_giou")

# %% [markdown]
# **Corrected.** The defaults of a signature are not the recipe. In this small model equal weights are clearly worse than 1, 5, 2. The class part of the
# cost is $-\hat p$, not the cross-entropy of the loss; with $-\log\hat p$ the boxes come out looser (`loss_giou`), and AP50 is lower with each of the three seeds. One
# reason may be that $-\log\hat p$ has no ceiling: one unlikely class can outweigh any distance.

# %% [markdown]
# ## Train it, and watch who owns what
#
# Now let the loss work. The model is a DETR in miniature (two encoder and two decoder layers, ten queries), the world is small: one to three shapes of three
# kinds, on plain ground, 64 pixels wide. It begins with random weights. One thing differs from DETR's recipe: to learn its shapes in half a minute, the
# class loss counts 4 instead of 1. The matching keeps 1, 5, 2. Here are its loss and the whole training loop:

# %%
from minivis.experiments.small_detr import WORLD, small_criterion, train_small

show_source(small_criterion)
show_source(train_small, docstring=False)

# %% [markdown]
# A few scenes are kept aside. Every so often the recorder asks the model about them, and writes down which query the matching gives each object to.
# Five hundred steps take about half a minute on an idle core. At four steps of the training we also keep every query's boxes for a hundred scenes.

# %%
from minivis.data import Scenes
from minivis.widgets import MatchingRecorder, MatchingReplay

watched = Scenes("val", WORLD)
batch = watched.prepare(watched.collate([watched[i] for i in (0, 1, 2, 3)]), "cpu")
pictures = [watched.scene_image(i) for i in (0, 1, 2, 3)]
recorder = MatchingRecorder(batch.images, batch.targets, WORLD.shapes, pictures)


hundred = watched.prepare(watched.collate([watched[i] for i in range(100)]))
centres = {}  # step → (images, queries, 2)


def record(step, model):
    if (step < 40 and step % 4 == 0) or step % 20 == 0:
        recorder.record(step, model)
    if step in (0, 60, 200, 500):
        with torch.no_grad():
            centres[step] = model(hundred.images)["pred_boxes"][..., :2]


trained_here, history = train_small(small_criterion(), seed=SEED, steps=500, on_step=record)

# %% [markdown]
# Before you look at the curve of the class loss: what would somebody get who looks at no picture, and only knows how often each class occurs? That
# is the number to beat. With a weight $w$ for each class, the best constant answer has probabilities proportional to weight times frequency.

# %%
objects = np.mean([len(scene.objects) for scene, _ in map(watched.__getitem__, range(200))])
weight = torch.tensor([objects / 3] * 3 + [0.1 * (10 - objects)])  # three classes, ten queries
blind = weight / weight.sum()
BLIND_LOSS = -(blind * blind.log()).sum().item()
print(f"{objects:.2f} objects in a scene; class loss of a blind guess: {BLIND_LOSS:.2f}")


# %%
def smooth(values, width=25):
    return np.convolve(values, np.ones(width) / width, mode="valid")


figure, axes = plt.subplots(1, 3, figsize=(9, 2.6))
for axis, name, title in zip(
    axes, ("loss_ce", "loss_bbox", "loss_giou"), ("class", "L1", "1 − GIoU")
):
    axis.plot(history[name], color="#BBBBBB", linewidth=0.6)
    axis.plot(smooth(history[name]), color="#0072B2")
    axis.set(title=title, xlabel="step", ylim=(0, None))
axes[0].axhline(BLIND_LOSS, color="#D55E00", linestyle="--", label="a blind guess")
axes[0].legend(loc="lower left")
assert np.mean(history["loss_ce"][-50:]) < 0.7 * BLIND_LOSS
show(
    figure,
    "Three curves that fall while the model trains: class, L1 and GIoU loss of the last decoder "
    "layer. The class loss begins near a dashed line, the loss of a blind guess, falls slowly, and "
    "then faster.",
)

# %% [markdown]
# The boxes come first: L1 and GIoU drop within fifty steps. The class loss begins at the blind guess, falls slowly, and faster later on. And now the
# question of this notebook, as a film. Press play, or drag. (Each column of the timeline is one record: they lie 4 steps apart at the start, and 20 later.)

# %%
MatchingReplay(recorder)

# %% [markdown]
# **What to look for.** At the start all ten answers are nearly the same. Which of them is cheapest is chance, and an object changes hands from record to
# record. Later it keeps its owner. What happened in between? Here is where the ten queries put their boxes, each in a colour of its own, in a hundred scenes.

# %%
from matplotlib import colormaps

figure, axes = plt.subplots(1, 4, figsize=(9, 2.5))
for axis, (step, places) in zip(axes, centres.items()):
    for query, dots in enumerate(places.unbind(1)):
        axis.scatter(*dots.T, s=3, color=colormaps["tab10"](query))
    axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal", title=f"step {step}")

spread = {step: places.mean(0).std(0).mean().item() for step, places in centres.items()}
assert spread[0] < 0.05 < spread[500]
show(
    figure,
    "Four squares with the centres of all boxes, a colour for each query. At step 0 all lie on "
    "one spot, at step 60 each colour keeps to a strip, later the regions are wide and overlap.",
)

# %% [markdown]
# Queries part. By step 60 each keeps to a strip of the picture; later each also follows the objects there, and their regions grow and overlap. An object that lies on the left is then cheapest for the same query every time,
# so this query gets the same lesson every time, so it leans more. Nobody told a query where to look: the matching rewards whoever is nearest
# already, and that is enough to break the tie.
#
# It may also explain why DETR is slow to start. As long as objects change hands, a query is taught a different thing at each step. DN-DETR (Li et al.,
# 2022) measured this changing of hands, and trained queries on noisy true boxes besides, which need no matching; it learns faster.

# %% [markdown]
# ### Three ways to go on
#
# | where | what | takes |
# | --- | --- | --- |
# | here | more steps: `train_small(small_criterion(), steps=1600)` | two minutes on one core |
# | a GPU, for example Colab's | the shipped model made anew, on all six shapes: `minivis train detr-mini --out runs/mine` | an hour on one CPU core; on a GPU not measured |
# | several GPUs and COCO | the paper's recipe, this loss with its weights 1, 5, 2: `minivis train detr-r50-coco --data COCO` | three days on 16 GPUs in the paper |
#
# Both recipes print what they take: `minivis recipes detr-r50-coco`.

# %% [markdown]
# ## Break it
#
# One number breaks this loss: the weight of "no object". Compute what it does before any training. Of all the weight in the class loss, how much lies on
# answers that should say nothing?

# %%
for eos in (0.1, 1.0):
    spoken_weight = sum(len(target["labels"]) for target in many_targets)
    silent_weight = eos * (25 * len(many_targets) - spoken_weight)
    share = silent_weight / (silent_weight + spoken_weight)
    print(f"no-object weight {eos}: {100 * share:.0f} % of the class loss's weight is on silence")

# %% [markdown]
# With a weight of 1, four fifths of the weight are on silence. What does that do to the model that you have just trained? The same weights at the
# start, the same scenes, one number changed.

# %%
silenced, silenced_history = train_small(small_criterion(no_object=1.0), seed=SEED, steps=500)

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6))
for name, run, colour in (
    ("weight 0.1", history, "#0072B2"),
    ("weight 1", silenced_history, "#D55E00"),
):
    axes[0].plot(smooth(run["class_error"]), color=colour, label=name)
    axes[1].plot(smooth(run["loss_giou"]), color=colour, label=name)
axes[0].set(title="class_error, %", xlabel="step", ylim=(0, 100))
axes[1].set(title="1 − GIoU", xlabel="step", ylim=(0, None))
axes[0].legend()
assert np.mean(silenced_history["class_error"][-50:]) > 2 * np.mean(history["class_error"][-50:])
show(
    figure,
    "Two trainings. The class error falls with a no-object weight of 0.1 and stays high with 1; "
    "the GIoU loss falls alike in both.",
)

# %% [markdown]
# **The symptom:** good boxes, and nobody dares to name them. When your own detector "finds nothing", look here first.
#
# ### More ways to break it
#
# Each of these was trained three times, with 800 steps; the class loss counts 4 again. Look for what tells one broken loss from another. `detections` counts the
# answers with a score of at least one half, for each object that is there: well below 1 is silence, above 1 is duplicates.

# %%
show_experiment("D21", "AP50", "detections", "loss_giou", "class_error")

# %% [markdown]
# **D21, qualified:** the loss is a sum, and its weights are part of it.
#
# - *No-object weight 1*: boxes as good as ever, a class error of two thirds, a quarter of an answer for each object. Silence.
# - *Without GIoU*: the boxes are looser, and AP50 falls by a fifth.
# - *Without L1*: worse still, and not to be relied on: its three runs lie between 0.01 and 0.55. (Three runs say little about how often that happens. Trainings are
#   chaotic: on another kind of processor the same seed gives another run.)
#
# And look at the grey bar of `detections`: the whole loss, too, gives nearly two sure answers for an object after 800 steps. To unlearn duplicates takes longer
# than to find objects. `detr-mini` was trained for 15,000 steps, and in a sixth of the scenes it still says too much (notebook 00 counts them).
#
# ### D15 · Boxes are (centre x, centre y, *height, width*), says the document
#
# It is width before height. Nothing complains if you swap them: four numbers are four numbers. What does a box lose that is compared with itself,
# but swapped?

# %%
both = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.3], [0.5, 0.5, 0.1, 0.4]])
swapped = both[:, [0, 1, 3, 2]]
gious = paired_generalized_box_iou(cxcywh_to_xyxy(both), cxcywh_to_xyxy(swapped))
for box, value in zip(both, gious):
    print(f"width {box[2]:.1f}, height {box[3]:.1f}:  GIoU with its swapped self {value:+.2f}")

# %% [markdown]
# **Corrected.** A square does not mind, and that is the trap: on data of nearly square objects the mistake hides. On a pedestrian or a pencil it is
# ruin. Look at drawn boxes before you train.
#
# What does the mistake do to a training? Boxes are fractions of the picture, and our shapes are about as wide as high. So in a square picture the two fractions
# are the same, and nobody would notice. These scenes are therefore twice as wide as high.

# %%
show_experiment("D15", "AP50", "loss_bbox", "loss_giou", "detections")

# %% [markdown]
# Look at the second row. The losses are as low as in the first, the model is as sure as in the first, and it finds *nothing*: AP is 0. Matching and loss both
# took the swapped box for the truth, so the model learned to swap. Every curve of the training looks healthy. Only evaluation knows, and a drawn picture.
# If the swap is in one place only (third row), the two box losses pull against each other, and L1 and GIoU both stay high.
#
# | symptom | look at |
# | --- | --- |
# | good boxes, hardly any answer above one half, `class_error` high | the weight of "no object" |
# | L1 and GIoU stay high together, classes are fine | order of width and height in one of the losses |
# | all losses low, AP near 0 | order of box coordinates, class numbers, picture size: what evaluation reads differently from the loss |
# | L1 and GIoU stay high from the start, while the class loss falls | the matching: queries are not given the objects near them |
# | boxes about right, never tight | one of the two box losses is missing, or its weight |
# | twice as many sure answers as objects | not trained long enough; or queries that do not see each other (notebook 03 takes their self-attention away) |

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
    axis.set(
        xlim=(0, 1),
        ylim=(1, 0),
        xticks=[],
        yticks=[],
        aspect="equal",
        title=f"query {query}: {len(x)}",
    )
show(
    figure,
    "Ten small squares, one for a query each, with dots where the objects were that it owned: "
    "each query keeps to a region.",
)

# %% [markdown]
# Queries keep to places. Do they keep to classes as well? And where do the boxes lie of those that were *not* matched, which nobody ever taught a place?

# %%
classes = torch.zeros(6, dtype=torch.int64)
overlaps = []
for (queries, objects), boxes_here, target in zip(pairs, many["pred_boxes"], many_targets):
    mine = objects[queries == busiest[0]]
    classes += torch.bincount(target["labels"][mine].cpu(), minlength=6)
    left_over = torch.ones(25, dtype=torch.bool)
    left_over[queries] = False
    iou = box_iou(cxcywh_to_xyxy(boxes_here[left_over]), cxcywh_to_xyxy(target["boxes"]))
    overlaps.append(iou.amax(1).cpu())
overlaps = torch.cat(overlaps)

owned_classes = dict(zip(model.class_names, classes.tolist()))
print(
    f"query {busiest[0]} owned",
    ", ".join(f"{count} × {name}" for name, count in owned_classes.items()),
)
share = (overlaps > 0.5).float().mean()
print(f"boxes that were not matched: {100 * share:.0f} % overlap some object by more than half")
assert min(owned_classes.values()) > 0 and share > 0.2

# %% [markdown]
# Of every class something: a query has a place, not a class. And a third of the left-over boxes sit on an object after all, though no loss ever asked them to. They
# found it, and say nothing about it. How does such a query know that another one answers? Queries see each other: the decoder's self-attention, in
# notebook 03. The loss of this notebook can ask for one answer an object; without that, no query could obey.
#
# What these pictures do *not* prove: that a query "is responsible" for its region. They show where objects lay that it was given, in one trained model. Another
# training deals the regions out anew, and an object outside of all habits may be found as well.

# %% [markdown]
# ## The document, put to the test: the rest
#
# ### D16 · There are at most as many detections as object queries
#
# Nine objects, five answers:

# %%
nine = {"labels": torch.zeros(9, dtype=torch.int64), "boxes": 0.3 + 0.2 * torch.rand(9, 4)}
five = {"pred_logits": torch.randn(1, 5, 7), "pred_boxes": torch.rand(1, 5, 4)}
((query, target),) = HungarianMatcher()(five, [nine])
assert len(query) == 5
nobody = sorted(set(range(9)) - set(target.tolist()))
print(f"9 objects, 5 queries: {len(query)} pairs; nobody answers for the objects {nobody}")

# %% [markdown]
# **Confirmed.** Four objects teach nothing in this step. The paper takes 100 queries, for images of COCO with 7 objects on average and 63 at most
# (its section 4). Count yours before you train; `minivis train` does, and says so.
#
# ### D18 · The Hungarian algorithm takes $O(n^3)$, and SciPy uses a faster variant

# %% tags=["nbval-ignore-output"]
import timeit

side = [25, 50, 100, 200, 400, 800]
seconds = []
for n in side:
    table = rng.random((n, n))
    seconds.append(
        min(timeit.repeat(lambda table=table: linear_sum_assignment(table), number=1, repeat=5))
    )
exponent = np.polyfit(np.log(side), np.log(seconds), 1)[0]

figure, axes = plt.subplots(figsize=(5.5, 3))
axes.loglog(side, 1000 * np.array(seconds), "o-", color="#0072B2")
axes.set(xlabel="answers and objects, n", ylabel="milliseconds")
axes.set_xticks(side, side)
axes.minorticks_off()
show(
    figure,
    "Time of SciPy's assignment against the size of a square table, both axes logarithmic: "
    "nearly a straight line.",
)
table = rng.random((100, 20))
usual = min(timeit.repeat(lambda: linear_sum_assignment(table), number=20, repeat=5)) / 20
print(f"slope: n to the power of {exponent:.1f}")
print(f"100 answers, 20 objects: {1e6 * usual:.0f} µs")
assert 1.5 < exponent < 4.5

# %% [markdown]
# **Confirmed** for the exponent, as near as a stopwatch can tell. SciPy's own documentation says what the variant is: a modified *Jonker–Volgenant*
# algorithm. At DETR's sizes it takes microseconds for an image, far less than the network.
#
# ### D35 · "The matching gives the smallest possible loss"
#
# It gives the smallest *matching cost*. The loss is something else: its class part is a logarithm, and it counts the answers that are left over as
# well. Is there a matching with the smallest *loss*? Yes, and the same algorithm finds it, with another table. Say all $Q$ answers are silent at first, and
# then answer $i$ gets object $j$. It pays $-\log\hat p_i(c_j)$ in place of $-0.1\log\hat p_i(\varnothing)$, and for its box. The difference is the cell of
# the new table (`pair_losses` in the package). Compare the two matchings by their loss.

# %%
from minivis.experiments.matching import least_loss_matching, loss_under


def share_with_a_smaller_loss(outputs, targets):
    """How many images have a matching under which their loss is smaller than under DETR's."""
    beaten = 0
    for i, target in enumerate(targets):
        one = {key: outputs[key][i : i + 1] for key in ("pred_logits", "pred_boxes")}
        usual = loss_under(matcher(one, [target]), criterion, one, [target])
        best = loss_under(least_loss_matching(criterion, one, [target]), criterion, one, [target])
        assert best <= usual + 1e-4
        beaten += best < usual - 1e-4
    return beaten / len(targets)


for name, layer in (("first", first_layer), ("last", many)):
    share = share_with_a_smaller_loss(layer, many_targets)
    print(
        f"{name} decoder layer: another matching has a smaller loss in {100 * share:.0f} % of scenes"
    )

# %% [markdown]
# **Corrected.** The matching minimises its own cost. While the detector is still unsure, now and then another matching has a smaller loss; once it is sure, the two
# agree.
#
# ### D22 · Surplus predictions go to "no object" and are left out of the result
#
# In a picture, yes. When AP is measured, no: COCO's evaluation sorts all detections by score, so a hesitant one costs nothing and may be right. The
# official evaluation therefore asks each answer for its best *real* class, even where "no object" is likelier.

# %%
from minivis.experiments.matching import average_precision

for name, drop in (("every answer", False), ("only those that say a class", True)):
    metrics = average_precision(many, many_targets, scenes, drop_no_object=drop)
    kept = (many["pred_logits"].argmax(-1) != no_object).sum() if drop else 25 * len(many_targets)
    print(f"{name:28} {kept:5} detections, AP {metrics['AP']:.3f}")

# %% [markdown]
# **Qualified.** Keep them for measuring: the paper gains two points of AP by it (its section 4); here the gain is smaller, because this detector hesitates
# rarely. Leave them out for people to look at.

# %% [markdown]
# ## Real weights
#
# The same widget on the paper's own ResNet-50 model and a photograph. Say `wanted=True` to download 160 MB. Until then the next cell says so
# and goes on.

# %% tags=["nbval-ignore-output"]
from PIL import Image
from skimage import data as photographs

from minivis.widgets import MatchingExplorer

# wanted=True downloads 160 MB
released = minivis.load_released("facebook/detr-resnet-50", wanted=False)

if released is not None:
    cat = Image.fromarray(photographs.chelsea())
    with torch.inference_mode():
        answers = released([released.image_transform(cat)])
    the_cat = {  # label 17 is "cat"; the box was drawn by hand
        "labels": torch.tensor([17]),
        "boxes": torch.tensor([[0.5, 0.5, 0.95, 0.95]]),
    }
    display(MatchingExplorer(cat, answers, the_cat, released.class_names))


# %% [markdown]
# ## Exercises
#
# Five functions to write, about 50 minutes in all. Exercises 2 and 4 you have met above in pieces: write them without looking. Fill in a stub, run it, and run the cell below it. The check runs your function on small
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
# <details><summary>A hint</summary>
#
# `itertools.permutations(range(Q), N)` gives every way of choosing N different queries in order: the first for object 0, the second for
# object 1, and so on.
# </details>

# %%
def best_assignment(cost):
    """For each object the number of its query: a list of N numbers.

    cost: a tensor (Q, N), with Q at least N.
    """
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

    cost: a tensor (Q, N). Gives two tensors (queries, objects) of min(Q, k * N) numbers, queries rising.
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
# - One query for each object pushes duplicates down, and takes long to learn; owners change until queries have parted.
# - A broken loss has symptoms. All curves can look healthy and nothing be found: draw boxes.
#
# ### What became of the document's claims

# %%
from minivis.widgets import show_claims

show_claims("D15", "D16", "D17", "D18", "D19", "D20", "D21", "D22", "D35")

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
# **Right.** With a weight of 1 four fifths of the class loss's weight reward silence.
# </details>
#
# <details><summary>c) Whether width and height are swapped</summary>
#
# **Not quite.** Swapped in one loss, L1 and GIoU would be high; swapped everywhere, all losses look good. Neither makes a detector silent.
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
# **Next:** notebook 05 trains a whole detector and takes it apart.

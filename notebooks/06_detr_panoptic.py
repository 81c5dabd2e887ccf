# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 · Panoptic segmentation: a mask for every query
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/minivis/minivis/blob/main/notebooks/06_detr_panoptic.ipynb)
#
# **Time:** about 80 minutes to read and try; the cells run in about a minute on two CPU cores.
# **You need:** notebooks 03 (queries) and 04 (the loss), and convolutions. No GPU, no network.
#
# A box is a coarse answer. Most of a ring's box is not the ring, and what box should grass have? DETR goes on to pixels with one small addition,
# and it leaves the detector as it is. When you have finished this page you can
#
# 1. tell semantic, instance and panoptic segmentation apart, and compute panoptic quality on paper;
# 2. build the attention without values from which masks begin, and say what is special about its softmax;
# 3. follow a mask from coarse to fine, and say what each finer map adds;
# 4. say why masks are trained with focal and dice loss;
# 5. turn masks that overlap into one segment for each pixel.
#
# **In the document:** the section "Downstream tasks". Its statements D23 to D26 and D37 are put to the test below.

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
# The scenes of this course have shapes on them, and a ground of two or three materials: grass, brick, gravel, water. So far nobody asked for the
# ground. Now every pixel is to get an answer.
#
# Below is a DETR whose 25 queries each give, besides a class and a box, a **mask**: for each pixel a number that says how much it belongs to
# what the query found. All queries read the same picture. A query that comes out of the decoder is 128 numbers. **How do 128 numbers draw an
# outline, of one object and of no other?**
#
# Four scenes, as the model sees them if a query takes part only when it is at least 85 % sure of its class, as in the paper. The shapes are
# there. The ground is nonsense. Try this (PQ, *panoptic quality*, is 1 for a perfect map; it is explained below):
#
# - Which segment has spread over the grass of scene 8? Switch between *found* and *true*.
# - Pull *score above* down, slowly. When does the grass come, and what does PQ do?
# - At a score of 0.5, count in the list: how many queries say "grass" or "gravel"? How many share a circle?
# - Point at a circle, and then at the grass. Which of the eight heads speak? How coarse is the mask at 16 pixels, how fine at 4?

# %%
from minivis.widgets import PanopticExplorer

model = minivis.load("panoptic-mini").to(device).requires_grad_(False)
PanopticExplorer.on_scenes(model, scenes=[8, 14, 32, 44], score=0.85)

# %% [markdown]
# **Predict before you run on.** Write your answers down.
#
# 1. The grass has gone, since no query is sure enough of it. Why are there no holes where it was?
# 2. Two queries both say "grass", one for the left of the picture and one for the right. Is that one segment or two? And two that both say
#    "circle"?
#
# <details><summary>Answers</summary>
#
# 1. Each pixel goes to the mask that is surest of it *among those that are left*, and one always is. So the others grow over it: in scene 8 a
#    ring, of all things. Its mask does not claim the grass; it only denies it less firmly than the rest.
# 2. Grass is one segment, wherever it grows; two circles are two. Whether a class is counted or not is not learned: it is part of what the
#    classes *are*. What is counted is called a **thing**, what is not is called **stuff**.
# </details>

# %% [markdown]
# ## Symbols and shapes
#
# | symbol | here | shape | meaning |
# | --- | --- | --- | --- |
# | $Q$ | 25 | | queries |
# | $d$ | 128 | | width of every vector |
# | $h \times w$ | 8 × 8 | | cells of the encoder's map, each 16 pixels wide (stride 16) |
# | $A$ | attention | (Q, 8, h, w) | how strongly each query looks at each cell, in each of 8 heads |
# | $x$ | input map | (d, h, w) | what the encoder was given: the backbone's last map, brought to $d$ channels |
# | finer maps | | (128, 8, 8), (128, 16, 16), (64, 32, 32) | of the backbone, at stride 16, 8 and 4 |
# | masks | `pred_masks` | (Q, 32, 32) | logits: above 0 means "mine". A quarter of the picture's 128 pixels in each direction |
# | segment | | | an id, a class, and pixels that nobody else has |
#
# (In the paper the encoder's map has stride 32, and the finer maps 16, 8 and 4. Here the picture is small, and so one step less is enough.)

# %%
from minivis.widgets.architectures import PANOPTIC_HEAD

PANOPTIC_HEAD.show()

# %% [markdown]
# ## By hand
#
# ### Three ways to label pixels
#
# Three tasks have names that are mixed up everywhere. Look at one scene.
#
# - **Semantic** segmentation gives each pixel a class.
# - **Instance** segmentation gives each *thing* a mask of its own, and says nothing of the rest.
# - **Panoptic** segmentation gives each pixel a segment: each thing by itself, and of each stuff class all there is of it.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minivis.data.scenes import load_shipped_scenes
from minivis.widgets import show

COLOURS = np.array(
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [230, 159, 0], [86, 180, 233], [204, 121, 167],
     [240, 228, 66], [153, 153, 153]]
)  # fmt: skip


def coloured(numbers):
    """A map of small numbers (H, W) as a picture; −1 is white."""
    numbers = np.asarray(numbers)
    return np.where(numbers[..., None] < 0, 255, COLOURS[numbers % len(COLOURS)])


def row_of_pictures(pictures, titles, alt, width=9.0, **options):
    figure, axes = plt.subplots(1, len(pictures), figsize=(width, width / len(pictures) + 0.3))
    for axis, picture, title in zip(axes, pictures, titles):
        axis.imshow(picture, **options)
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.4)
    show(figure, alt)


scenes = load_shipped_scenes(stuff=True)
names, things = scenes.categories.names, scenes.categories.things
print("things:", ", ".join(names[i] for i in sorted(things)))
print("stuff: ", ", ".join(name for i, name in enumerate(names) if i not in things))

SCENE = 8
_, truth = scenes[SCENE]
labels, masks = truth["labels"], truth["masks"]
is_thing = torch.tensor([int(label) in things for label in labels])
kinds = labels.unique()
semantic = (masks * (torch.searchsorted(kinds, labels) + 1)[:, None, None]).sum(0) - 1
panoptic = (masks * torch.arange(1, len(masks) + 1)[:, None, None]).sum(0) - 1
instance = torch.where(masks[is_thing].any(0), panoptic, -1)
row_of_pictures(
    [scenes.scene_image(SCENE), coloured(semantic), coloured(instance), coloured(panoptic)],
    ["the scene", "semantic", "instance", "panoptic"],
    "A scene with two circles and two rings on grass, brick and gravel, and three maps of "
    "it. Semantic: both circles have one colour, both rings another. Instance: each shape "
    "has its own, the ground is white. Panoptic: each shape has its own, and so has each "
    "material.",
)
print(
    f"semantic: {len(semantic.unique())} classes.  instance: {int(is_thing.sum())} things.  ",
    end="",
)
print(f"panoptic: {len(panoptic.unique())} segments")

# %% [markdown]
# ### D23 · "Panoptic: we also want to tell objects of one class apart"
#
# How much does each of the other two leave open, over all 500 scenes?

# %%
uncovered, several = 0.0, 0
for index in range(len(scenes)):
    _, target = scenes[index]
    of_things = [int(label) in things for label in target["labels"]]
    thing_labels = target["labels"][of_things].tolist()
    several += len(set(thing_labels)) < len(thing_labels)
    uncovered += 1 - target["masks"][of_things].any(0).float().mean().item()
print(
    f"scenes with two things of one class, which a semantic map does not count: {several / 5:.0f} %"
)
print(f"pixels of no thing, of which instance masks say nothing: {uncovered / 5:.0f} %")

# %% [markdown]
# **Corrected.** To tell objects of one class apart is *instance* segmentation. Panoptic segmentation wants that **and** the other 84 % of the
# pixels. Each pixel gets exactly one segment, so masks may not overlap. (*Pan-optic*: all that is seen.)
#
# ### How good is a map? Panoptic quality on paper
#
# A picture of 4 × 6 pixels, with two circles (1 and 2) on grass (9). Below is what is there, and what somebody predicted. A predicted segment
# **matches** a true one of its class if their IoU, overlap divided by union, is *above one half*. Take a pencil: which segments match?

# %%
from minivis.detr import Panoptic, Segment
from minivis.evaluation import PanopticQuality

there = """
    1 1 9 9 2 2
    1 1 9 9 2 2
    9 9 9 9 9 9
    9 9 9 9 9 9
"""
predicted = """
    1 1 1 9 2 2
    1 9 9 9 9 9
    9 9 9 9 9 9
    9 9 9 9 9 9
"""


def toy_map(rows):
    """Digits as a panoptic map: 9 is grass, all others are circles."""
    ids = torch.tensor(
        [[int(digit) for digit in row.split()] for row in rows.split("\n") if row.strip()]
    )
    return Panoptic(ids, [Segment(i, int(i == 9), i != 9) for i in ids.unique().tolist()])


quality = PanopticQuality(num_classes=2, things=[0])
quality.add(toy_map(predicted), toy_map(there))
for name, (pq, sq, rq), counts in zip(("circle", "grass"), quality.by_class(), quality.counts):
    print(
        f"{name}: matches {counts[1]:.0f}, invented {counts[2]:.0f}, missed {counts[3]:.0f}; ",
        end="",
    )
    print(f"SQ {sq:.2f} · RQ {rq:.2f} = PQ {pq:.2f}")
print(f"PQ, the mean over classes: {quality.metrics()['PQ']:.2f}")
assert np.isclose(quality.by_class()[0, 0], 0.6 / (1 + 0.5 + 0.5))

# %% [markdown]
# Circle 1 has 3 pixels in common with its prediction, and the two cover 5: an IoU of 0.6, a match. Circle 2: 2 of 4, which is one half and not
# above it. So it is missed, *and* its prediction is invented. With the sum over the matches (TP), FP invented and FN missed:
#
# $$\mathrm{PQ} = \frac{\sum_{\text{matches}} \mathrm{IoU}}{\mathrm{TP} + \frac12\mathrm{FP} + \frac12\mathrm{FN}}
# = \underbrace{\frac{\sum \mathrm{IoU}}{\mathrm{TP}}}_{\text{SQ: how well}} \cdot \underbrace{\frac{\mathrm{TP}}{\mathrm{TP} + \frac12\mathrm{FP} + \frac12\mathrm{FN}}}_{\text{RQ: how many}}$$
#
# For circles $0.6 / (1 + \frac12 + \frac12) = 0.30$. Why *above one half*? Segments of one map do not overlap. So two predictions cannot both
# cover more than half of one segment, and nobody needs to decide who is whose partner. Average precision needed scores and a rule for that
# (notebook 05).
#
# ### Attention that never takes anything
#
# In ordinary attention a query looks (Q times K), shares out weights (softmax), and takes (V). Here it only looks. *Where* it looks is the
# first, coarse mask. And the softmax is another one. A toy: one query, two heads, three cells.
#
# | score | cell 0 | cell 1 | cell 2 |
# | --- | --- | --- | --- |
# | head 0 | 2 | 0 | 0 |
# | head 1 | 0 | 0 | 0 |
#
# Head 0 has found something. Head 1 has not. By pencil ($e^2 = 7.4$): what do both give if each head shares out a whole one, and what if *both
# together* share out one?

# %%
scores = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
each = scores.softmax(-1)
together = scores.flatten().softmax(-1).view_as(scores)
for name, weights in (("each head by itself", each), ("heads together", together)):
    for head, row in enumerate(weights):
        cells = ", ".join(f"{value:.2f}" for value in row)
        print(f"{name:20} head {head}: {cells}, in all {row.sum():.2f}")

# %% [markdown]
# By itself, head 1 says "a third, a third, a third", as loudly as head 0 says what it has found: it *must* give away a whole one. Together it
# falls nearly silent. That is what one wants of a mask: where nobody sees anything, nothing.

# %% [markdown]
# ## Build it
#
# ### The attention
#
# With $q_i$ the query after the decoder, $m_j$ the encoder's output at cell $j$, and $W_q, W_k$ two projections of its own, in head $n$ of 8,
# each $c = d/8 = 16$ wide:
#
# $$s_{inj} = \frac{(W_q q_i)_n^\top (W_k m_j)_n}{\sqrt c}, \qquad A_{inj} = \frac{e^{s_{inj}}}{\sum_{n', j'} e^{s_{in'j'}}}$$

# %%
from einops import rearrange

two = scenes.collate([scenes[i] for i in (SCENE, 5)]).to(device)
images = two.images
features = model.detr.forward_features(images)
decoded, memory = features.decoded[-1], features.memory
print(f"decoded queries {tuple(decoded.shape)} = (B, Q, d)")
print(f"memory {tuple(memory.shape)} = (B, d, h, w)")


def look(attention, q, k):
    """(B, Q, d), (B, d, h, w) -> (B, Q, heads, h, w)"""
    height = k.shape[-2]
    q = attention.q_proj(q)
    k = attention.k_proj(rearrange(k, "b d h w -> b (h w) d"))
    q, k = (rearrange(t, "b n (heads c) -> b heads n c", heads=attention.num_heads) for t in (q, k))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weights = rearrange(scores, "b heads q n -> b q (heads n)").softmax(-1)
    return rearrange(
        weights, "b q (heads h w) -> b q heads h w", heads=attention.num_heads, h=height
    )


A = look(model.bbox_attention, decoded, memory)
assert torch.allclose(A, model.bbox_attention(decoded, memory), atol=1e-6)
assert torch.allclose(A.sum((2, 3, 4)), torch.ones_like(A[:, :, 0, 0, 0]))
print("attention", tuple(A.shape), "= (B, Q, heads, h, w), and the same as the package's")

# %% [markdown]
# Here is what two queries of the scene see, head by head: one that found a circle, and one that found grass.

# %%
with torch.inference_mode():
    outputs, inputs = model.detect(images)
scores, classes = outputs["pred_logits"].softmax(-1)[..., :-1].max(-1)
SURE = model.score_threshold  # one half
sure = scores > SURE


def query_of(name, picture=0):
    """The surest query that says this class."""
    said = classes[picture] == names.index(name)
    return int(torch.where(said, scores[picture], -1).argmax())


for query in sure[0].nonzero()[:, 0].tolist():
    print(f"query {query:2}: {names[classes[0, query]]:8} ({scores[0, query]:.2f})")
CIRCLE, GRASS = query_of("circle"), query_of("grass")
figure, axes = plt.subplots(2, 9, figsize=(9, 2.3))
for row, query in zip(axes, (CIRCLE, GRASS)):
    row[0].imshow(scenes.scene_image(SCENE))
    row[0].set_ylabel(names[classes[0, query]])
    for head, axis in enumerate(row[1:]):
        axis.imshow(A[0, query, head].cpu(), vmin=0, vmax=A[0, query].max().item(), cmap="cividis")
        axis.set_title(f"{100 * A[0, query, head].sum():.0f} %", fontsize=9)
    for axis in row:
        axis.set(xticks=[], yticks=[])
figure.tight_layout(pad=0.3, h_pad=0.8)
show(
    figure,
    "Two rows of a scene and eight small maps, one for each head. For the circle, one head "
    "has nearly all of the attention, on a cell or two of the circle. For the grass other "
    "heads have it, in several places.",
)
things_heads = torch.stack(
    [A[0, q].sum((1, 2)) for q in sure[0].nonzero()[:, 0] if int(classes[0, q]) in things]
)
print(
    f"every thing here has {100 * things_heads[:, -1].min():.0f} % or more of it in the last head"
)

# %% [markdown]
# The percentages are each head's share of the whole one. For the circle the last head has nearly all of it, on a cell or two. For the grass that
# head is silent and others speak. Some heads say nothing to either. Nobody asked for such a division: the joint softmax allows it.
#
# Weights that sum to one over $8 \cdot 64 = 512$ places are small: two thousandths on average. Remember that. It matters in the training.
#
# ### From coarse to fine
#
# An 8 × 8 map is no outline. The rest is a small convolutional network that knows nothing of queries: it treats each query's attention as if it
# were a picture of its own. The edges come from the backbone: its earlier maps, 8 × 8, 16 × 16 and 32 × 32, have not yet lost them. This way of
# going up again is called a *feature pyramid* (FPN). With ⊕ for "one behind the other, as channels":
#
# $$\begin{aligned}
# y &\leftarrow \mathrm{ReLU}(\mathrm{norm}(\mathrm{conv}_{3\times3}(x \oplus g A_i))), \quad\text{and once more} && \text{stride 16}\\
# y &\leftarrow \mathrm{ReLU}(\mathrm{norm}(\mathrm{conv}_{3\times3}(\mathrm{upsample}(y) + \mathrm{conv}_{1\times1}(\text{finer map})))) && \text{for each finer map}\\
# \text{mask}_i &\leftarrow \mathrm{conv}_{3\times3}(y) && \text{one channel}
# \end{aligned}$$
#
# The $1\times1$ convolutions are the **adapters**: they bring each finer map to the width that $y$ has there. $g$ is a number that makes the
# attention louder, 1 in the paper and 512 here.

# %%
import torch.nn.functional as F


def draw_masks(head, x, attention, finer_maps):
    """(1, d, h, w), (Q, heads, h, w) -> (Q, H/4, W/4), and y after every step"""
    x = x.expand(len(attention), -1, -1, -1)  # the picture is the same for all queries
    y = torch.cat([x, head.attention_gain * attention], dim=1)
    y = F.relu(head.norms[0](head.convs[0](y)))
    y = F.relu(head.norms[1](head.convs[1](y)))
    steps = [y]
    for finer, adapter, conv, norm in zip(
        finer_maps, head.adapters, head.convs[2:], head.norms[2:]
    ):
        y = F.interpolate(y, finer.shape[-2:], mode="nearest") + adapter(finer)
        y = F.relu(norm(conv(y)))
        steps.append(y)
    return head.out_conv(y)[:, 0], steps


first = [finer[:1] for finer in inputs.fpns]
ours, steps = draw_masks(model.mask_head, inputs.x[:1], inputs.attention[0], first)
package = model(images)["pred_masks"]
assert torch.allclose(ours, package[0], atol=1e-3)
print("input map", tuple(inputs.x.shape[1:]), " attention", tuple(inputs.attention.shape[1:]))
for finer, y in zip([None, *first], steps):
    came = "" if finer is None else f"  + finer map {tuple(finer.shape[1:])}"
    print(f"y {tuple(y.shape)}{came}")
print("masks", tuple(ours.shape), "= (Q, H/4, W/4), and the same as the package's")

# %%
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2))
for row, query in zip(axes, (CIRCLE, GRASS)):
    mask = F.interpolate(ours[None, query : query + 1], (128, 128), mode="bilinear")[0, 0]
    panels = [A[0, query].sum(0), *(y[query].mean(0) for y in steps), mask.sigmoid()]
    titles = [
        "attention, 8 × 8",
        "two convs, 8 × 8",
        "+ stride 16",
        "+ stride 8",
        "+ stride 4",
        "mask",
    ]
    for axis, panel, title in zip(row, panels, titles):
        axis.imshow(panel.cpu(), cmap="cividis")
        axis.set(xticks=[], yticks=[])
        if query == CIRCLE:
            axis.set_title(title, fontsize=9)
    row[0].set_ylabel(names[classes[0, query]])
figure.tight_layout(pad=0.3)
show(
    figure,
    "Two rows: a circle and the grass. From the attention, a few bright cells, over maps of "
    "8 × 8, 16 × 16 and 32 × 32 cells in which outlines of all shapes appear, to a mask: a "
    "yellow circle, and a yellow area of grass with the shapes left out.",
)

# %% [markdown]
# (Means over all channels; the last one is the probability, stretched to the picture.) The outlines of *all* shapes come in with the finest map,
# in both rows: they are the picture's, and the same for every query. Only where the attention lit up do they become a mask.
#
# ### D25 · "The head builds maps from large to small, which are added up afterwards"
#
# Look at the shapes again.

# %%
sides = [y.shape[-1] for y in steps]
print("side of y, step by step:", sides, "  width of y:", [y.shape[1] for y in steps])
assert sides == [8, 8, 16, 32]

# %% [markdown]
# **Corrected.** From small to large: the maps grow, and the channels get fewer. What runs from large to small is the backbone. And nothing is
# added up at the end: each finer map is added on the way, before the next convolution. In the paper it is from stride 32 to stride 4, in this
# small model from 16 to 4.
#
# ### D37 · "The size of the resulting tensor depends on the number of boxes"

# %%
print("objects in the two scenes:", [len(one["labels"]) for one in two.targets])
print("masks:", tuple(package.shape))

chosen = sure.nonzero(as_tuple=True)  # (picture, query) of those that say something
with torch.inference_mode():
    some = model.masks_of(inputs, *chosen)
assert torch.allclose(some, package[chosen], atol=1e-3)
print(f"masks of the sure queries only: {tuple(some.shape)}, and each the same as before")


# %% [markdown]
# **Corrected.** On the number of *queries*: 25 masks for each picture, whatever is on it. (In the paper 100, for about seven objects.) Most of
# them belong to queries that say "no object", and nobody looks at them. A mask depends on no other query. So this package makes those that are
# needed: in training the matched ones, for a map the sure ones.

# %% [markdown]
# ## The loss
#
# The matching is that of notebook 04, by classes and boxes. (Stuff has a box, too: around all there is of it.) Masks take no part in it. Then
# each matched query's mask is stretched to the size of the picture and compared with its object's, by two losses.
#
# **Cross-entropy has a problem here.** A small shape covers 120 of 16,384 pixels. Say the mask says 0.1 everywhere: it has found nothing. How
# much of the loss comes from the pixels of the shape?
#
# $$\mathrm{focal} = -\alpha_t\,(1 - p_t)^\gamma \log p_t \qquad\qquad \mathrm{dice} = 1 - \frac{2\sum p\,t + 1}{\sum p + \sum t + 1}$$
#
# $p_t$ is the probability given to what is true; $\gamma = 2$; $\alpha_t$ is 0.25 on the object and 0.75 beside it. A pixel with $p_t = 0.9$
# counts $(1 - 0.9)^2$ = a hundredth of what cross-entropy would count, one with $p_t = 0.1$ still 0.81 of it.

# %%
def cross_entropy(logits, target):
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # −log p_t


def focal(logits, target, alpha=0.25, gamma=2.0):
    p_t = torch.where(target > 0, logits.sigmoid(), 1 - logits.sigmoid())
    balance = torch.where(target > 0, alpha, 1 - alpha)
    return balance * (1 - p_t) ** gamma * cross_entropy(logits, target)


def dice(logits, target):
    p = logits.sigmoid()
    return 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)


smallest = torch.zeros(128, 128)
smallest[60:70, 60:72] = 1  # 120 pixels
nothing = torch.full((128, 128), 0.1).logit()
for name, loss in (("cross-entropy", cross_entropy), ("focal", focal)):
    each = loss(nothing, smallest)
    share = each[smallest > 0].sum() / each.sum()
    print(f"{name:14} {100 * share:3.0f} % of the loss is on the shape's pixels")


# %% [markdown]
# And dice? It does not count pixels, it compares areas. Take a shape of 120 pixels and a ground of 8,000, and let half of each be found and half
# missed, equally surely:

# %%
def half_found(area):
    """A mask of that many pixels, and logits that are right on one half of it."""
    target = (torch.arange(128 * 128) < area).float()
    found = torch.arange(128 * 128) < area / 2
    return torch.where(found, 9.0, -9.0), target


print("pixels   cross-entropy   focal   dice")
for area in (120, 8000):
    logits, target = half_found(area)
    values = (
        cross_entropy(logits, target).mean(),
        focal(logits, target).mean(),
        dice(logits, target),
    )
    print(f"{area:6} {values[0]:15.3f} {values[1]:7.3f} {values[2]:6.2f}")

# %% [markdown]
# By either sum over pixels the half-missed ground is a much larger mistake than the half-missed shape. By dice the shape is as bad, or worse.
# The paper takes both, focal and dice, with weight 1 each. Are ours the package's?

# %%
from minivis.detr import HungarianMatcher, SetCriterion

criterion = SetCriterion(len(names), HungarianMatcher(), losses=("labels", "boxes", "masks"))
criterion = criterion.to(device)
matched = criterion.match(outputs, two.targets)
picture, query, target = matched.last_layer
losses = criterion(outputs | {"pred_masks": package[picture, query]}, two.targets, matched=matched)

true = torch.cat([one["masks"] for one in two.targets])[target].float()
full = F.interpolate(package[picture, query][:, None], (128, 128), mode="bilinear")[:, 0]
mean_focal = torch.stack([focal(*pair).mean() for pair in zip(full, true)]).mean()
mean_dice = torch.stack([dice(*pair) for pair in zip(full, true)]).mean()
assert torch.isclose(mean_focal, losses["loss_mask"], rtol=1e-3)
assert torch.isclose(mean_dice, losses["loss_dice"], rtol=1e-3)
print("the package's focal and dice loss of", len(true), "masks: the same")

# %% [markdown]
# ## From masks to a map
#
# Masks may overlap, and leave holes. A panoptic map may not. So they have to be **merged**, and nothing of it is learned. Step by step, with the
# sure queries of the scene:

# %%
from minivis.detr import Segmenter
from minivis.evaluation.draw import draw_panoptic

seen = Segmenter(model, images)
queries = sure[0].nonzero()[:, 0]
logits = F.interpolate(package[:1, queries], (128, 128), mode="bilinear")[0].cpu()
figure, axes = plt.subplots(2, (len(queries) + 1) // 2, figsize=(7.5, 2.7))
for axis in axes.flat:
    axis.set_axis_off()
for axis, query, mask in zip(axes.flat, queries.tolist(), logits.sigmoid()):
    axis.imshow(mask, vmin=0, vmax=1, cmap="cividis")
    axis.set_title(f"{names[classes[0, query]]} {scores[0, query]:.2f}", fontsize=9)
figure.tight_layout(pad=0.4)
show(
    figure,
    "The masks of all sure queries: one for each of the two circles and two rings, and "
    "several nearly alike for grass, gravel and brick.",
)

# %%
claims = (logits > 0).sum(0)
winner = logits.argmax(0)
merged = seen.panoptic(things, SURE)[0]
drawn = draw_panoptic(scenes.scene_image(SCENE), merged, names)
row_of_pictures(
    [claims * 127, coloured(winner), drawn],
    ["1 claimed by 0, 1, more", "2 to the surest mask", "3 the panoptic map"],
    "Three maps of the scene. 1: which pixels are claimed by no mask, by one, or by several; "
    "those of the ground by several. 2: a colour for each winning mask, patches of several "
    "colours on the ground. 3: the panoptic map, in which these patches are one segment for "
    "each material.",
    width=6.5,
    cmap="cividis",
    vmin=0,
    vmax=254,
)
print(f"pixels with no mask above 0: {100 * (claims == 0).float().mean():.1f} %, ", end="")
print(f"with several: {100 * (claims > 1).float().mean():.1f} %")

# %% [markdown]
# 1. Each mask says for itself which pixels it wants.
# 2. Each pixel goes to the mask that is **surest** of it (argmax of the logits), even if none is sure.
# 3. Masks of one stuff class become one segment. Segments of at most 4 pixels are **specks**: they are removed, and their pixels are decided
#    again among the rest.
#
# Look at the ground in the second picture: patches. Several queries found the same grass, and now one is surest, now another. For things that
# would be ruin (a *duplicate*, notebook 03). For stuff it does no harm: step 3 joins them.
#
# The rules in small. Five queries on a strip of ten pixels. Two say "grass", one "water", two "circle". Which segments should remain?

# %%
from minivis.detr import merge_masks

strip = torch.full((5, 1, 10), -4.0)
strip[0, :, 0:4] = 2.0  # grass on the left
strip[1, :, 8:10] = 2.0  # grass on the right
strip[2, :, 4:6] = 3.0  # a circle
strip[3, :, 6] = 3.0  # another: a speck of one pixel
strip[4, :, 6:9] = 2.5  # water
who = ["grass", "grass", "circle", "circle", "water"]
kinds = torch.tensor([names.index(name) for name in who])
for speck in (0, 1):
    result = merge_masks(strip, kinds, torch.ones(5), things, speck=speck)
    print(f"segments of at most {speck} pixels removed:", result.segment_ids[0].tolist())
    for segment in result.segments:
        print(f"   {segment.id}: {names[segment.label]}, of the queries {list(segment.queries)}")
assert [segment.queries for segment in result.segments] == [(0, 1), (2,), (4,)]

# %% [markdown]
# Grass is one segment in two places. The speck is gone, and its pixel went to the water, which was second there.
#
# One choice had to be made here. The paper's own code joins stuff first and then looks for specks: a mask that was joined to another owns no
# pixels any more, so it is thrown out as a speck itself, and its pixels are decided again, perhaps for a neighbour. This package keeps stuff
# joined from beginning to end, so the right-hand grass stays. Whoever compares the two will find different pixels; not many, and only where one
# stuff class was found twice.
#
# ## How good can it be, and how good is it?
#
# Masks have stride 4: one number for 4 × 4 pixels. What would a *perfect* model reach? Take the true masks, bring them down to a stride, as
# logits, stretch them again as the model's are, and merge. Such a number is called an **oracle**: what is lost in it no training can win.

# %%
HUNDRED = range(100)
batches = [
    scenes.collate([scenes[i] for i in some]).to(device) for some in torch.arange(100).split(25)
]
targets = [target for batch in batches for target in batch.targets]


def quality_of(maps):
    """PQ of a panoptic map for each of the hundred scenes."""
    quality = PanopticQuality(len(names), things)
    for found, target in zip(maps, targets, strict=True):
        quality.add(found, scenes.truth(target), target["image_id"])
    return quality.metrics()


def through_stride(target, stride):
    """What remains of the true masks."""
    coarse = F.avg_pool2d(target["masks"].float()[None], stride).clamp(0.05, 0.95).logit()
    full = F.interpolate(coarse, (128, 128), mode="bilinear")[0]
    return merge_masks(full, target["labels"], torch.ones(len(full)), things)


def in_three(metrics):
    return "   ".join(f"{metrics[key]:.2f}" for key in ("PQ", "PQ_things", "PQ_stuff"))


print("            PQ    things stuff")
for stride in (2, 4, 8, 16):
    metrics = quality_of([through_stride(target, stride) for target in targets])
    print(f"stride {stride:2}   {in_three(metrics)}")

views = [Segmenter(model, batch.images) for batch in batches]  # the detector runs once


def model_quality(change=lambda inputs: inputs, **options):
    """PQ of the model on the hundred scenes; `change`: of what its masks are made from."""
    maps = []
    for view in views:
        kept = view.inputs
        view.inputs = change(kept)
        maps += view.panoptic(things, **{"threshold": SURE} | options)
        view.inputs = kept
    return quality_of(maps)


as_it_is = model_quality()
print(f"the model   {in_three(as_it_is)}", end="")
print(f"     SQ {as_it_is['SQ']:.2f}, RQ {as_it_is['RQ']:.2f}")

# %% [markdown]
# At stride 4 about a twentieth is lost for good, mostly on things: a thin ring has few pixels that are not at an edge. At stride 16, where the
# attention lives, two thirds of things are out of reach. That is the reason for the way up. And the model is not far below its oracle.
#
# ### One threshold, two models
#
# That was with a score threshold of one half. What about the paper's 0.85, with which this page began?

# %%
thresholds = (0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95)
by_threshold = [model_quality(threshold=threshold) for threshold in thresholds]
probability = torch.cat([view.outputs["pred_logits"].softmax(-1)[..., :-1] for view in views])
best, said = probability.max(-1)  # (scenes, Q)
of_thing = torch.isin(said, torch.tensor(sorted(things), device=device))

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6))
for ending, group, colour in (("_things", of_thing, "#0072B2"), ("_stuff", ~of_thing, "#D55E00")):
    curve = [metrics["PQ" + ending] for metrics in by_threshold]
    axes[0].plot(thresholds, curve, "o-", color=colour, label=ending[1:])
    bins = np.linspace(0.3, 1, 29)
    axes[1].hist(
        best[group & (best > 0.3)].cpu(), bins=bins, histtype="step", color=colour, label=ending[1:]
    )
axes[0].set(title="PQ", xlabel="score above", ylim=(0, 1))
axes[1].set(title="number of queries", xlabel="their score", yscale="log")
axes[0].legend()
axes[1].legend(loc="upper center")
figure.tight_layout()
show(
    figure,
    "Left: PQ of things and of stuff over the threshold, level up to 0.5 and falling steeply "
    "from 0.7 on. Right: how many queries have which score. Those of things are nearly all "
    "close to 1; those of stuff are spread evenly.",
)
for threshold, metrics in zip(thresholds, by_threshold):
    if threshold in (0.5, 0.85):
        print(f"score above {threshold:.2f}: PQ {metrics['PQ']:.2f}, ", end="")
        print(f"SQ {metrics['SQ']:.2f}, RQ {metrics['RQ']:.2f}")
true_stuff = sum(int(label) not in things for target in targets for label in target["labels"])
true_things = sum(len(target["labels"]) for target in targets) - true_stuff
print(
    f"queries above 0.5 for each true thing: {(of_thing & (best > 0.5)).sum() / true_things:.1f}, ",
    end="",
)
print(f"for each true material: {(~of_thing & (best > 0.5)).sum() / true_stuff:.1f}")
assert by_threshold[1]["PQ"] > by_threshold[4]["PQ"] + 0.1

# %% [markdown]
# Why? A thing has one query, and that one is sure. A material has three, which give nearly the same mask. The matching takes one of them and
# teaches the others to say "no object"; in the next picture it may be the other way round. So none of them is ever sure. Its score says less
# *how certainly this is grass* than *how often I am the one*. (At least this fits what is seen. It was not tested.)
#
# Above 0.85 whole materials are left without a query. Then something else takes their pixels, as the ring took the grass of scene 8, and has
# grown until it matches nothing: two segments lost, not one. RQ falls, for things as for stuff.
#
# A threshold is a part of a model (here `model.score_threshold`). Choose it on validation data, and look at maps.
#
# Later systems add a second threshold: a segment stays only if it wins enough of the pixels that its own mask claims. (The slider *overlap*
# above; 0 in the paper.) It removes the duplicates of things:

# %%
with_overlap = model_quality(overlap=0.5)
for name, metrics in (("without", as_it_is), ("overlap 0.5", with_overlap)):
    print(f"{name:12} PQ {metrics['PQ']:.2f}, things {metrics['PQ_things']:.2f}, ", end="")
    print(f"stuff {metrics['PQ_stuff']:.2f}")

# %% [markdown]
# ## The document, put to the test
#
# ### D24 · "We take the attention map of the multi-head attention"
#
# The decoder has cross-attention already: eight heads, over the same 64 cells, and notebook 03 showed that they lie on the object. Is it that
# map? The head has projections of its own (`bbox_attention`), takes the query *after* the decoder, and softmaxes differently. So compare, and
# then put the decoder's last map in its place.

# %%
from minivis.attention import record_attention

CROSS = "transformer.decoder.layers.2.cross_attn"
with record_attention(model.detr) as maps:
    decoders = []
    for batch in batches:
        model.detr(batch.images)
        decoders.append(maps[CROSS].transpose(1, 2).unflatten(-1, (8, 8)))  # (B, Q, heads, h, w)


def inside(attention, masks):
    """The share of a map (heads, h, w) on cells that lie for more than half in the mask (H, W)."""
    cells = F.avg_pool2d(masks.float()[None], 16)[0] > 0.5
    return (attention.sum(0)[cells].sum() / attention.sum()).item()


shares, alike = {"own": [], "decoder": []}, []
for view, batch, decoder in zip(views, batches, decoders):
    matched = criterion.match(view.outputs, batch.targets)
    joined = torch.cat([one["masks"] for one in batch.targets])
    for b, q, t in zip(*(index.tolist() for index in matched.last_layer)):
        own, other = view.inputs.attention[b, q], decoder[b, q]
        if F.avg_pool2d(joined[t].float()[None], 16).amax() > 0.5:  # has a cell of its own
            shares["own"].append(inside(own, joined[t]))
            shares["decoder"].append(inside(other, joined[t]))
            alike.append(
                torch.corrcoef(torch.stack([own.sum(0).flatten(), other.sum(0).flatten()]))[0, 1]
            )
for name, values in shares.items():
    print(f"{name:8} attention: {100 * np.mean(values):.0f} % lies on the object's own cells")
print(f"correlation of the two maps, cell by cell: {torch.stack(alike).mean():.2f} on average")

borrowed = iter(decoders)
with_decoder = model_quality(lambda inputs: inputs._replace(attention=next(borrowed) / 8))
each_head = model_quality(
    lambda inputs: inputs._replace(
        attention=inputs.attention / inputs.attention.sum((-2, -1), keepdim=True) / 8
    )
)
print(
    f"PQ with its own attention {as_it_is['PQ']:.2f}, with the decoder's {with_decoder['PQ']:.2f}, ",
    end="",
)
print(f"with its own, each head by itself {each_head['PQ']:.2f}")

# %% [markdown]
# **Corrected.** The mask head looks for itself. Both maps lie on the object, and yet they are alike only in part. The decoder's is no
# replacement: nothing is left of PQ. Nor will the head do with its own attention if each head is brought up to the same sum, as in an ordinary
# softmax: it has learned to hear from the silence of heads.
#
# What this does *not* show: that a head trained on the decoder's map would be worse. This one was trained on its own.
#
# ### D26 · "The detector may be frozen meanwhile: it does no harm"
#
# The paper trains in two stages: first a detector, for things and stuff; then it is **frozen**, and the mask head is trained on top. Or
# **jointly**, everything at once. Both ways were tried, three times each, from the shipped model's detector with a *new* mask head: 200 steps of
# 8 scenes for the detector and then 200 for the masks, or 200 for both at once. (`minivis experiment D26` repeats it.)

# %%
from minivis.widgets import show_experiment

show_experiment("D26", "PQ", "mask_AP", "AP", "loss_giou")

# %% [markdown]
# **Confirmed**, here. On the frozen detector the masks are *better* than those of the joint training, with each of the three seeds, and the
# boxes are as good. One reason may be that it is easier to learn from queries that keep still. Look at the price as well: two stages take twice
# as many steps in all.
#
# What this does not decide: a longer training. The shipped model was trained jointly, for 6,000 steps, and its masks are far better than any of
# these. And it is its detector that everything began from, which had been trained with masks once.
#
# With dropout left on, masks are a little worse with each seed, and boxes are what they were, since no parameter of the detector moves.
# `loss_giou` shows what the masks had to learn from: it is measured as the training sees the boxes.
#
# What is *dropout left on*? To freeze a detector one takes its parameters out of the training. That is not enough:

# %%
from copy import deepcopy

from minivis.detr import DETRConfig, DETRsegm, build_detr

config = DETRConfig(**model.config.detr.to_dict() | {"dropout": 0.1})
for name, freeze in (("parameters only", False), ("frozen by the package", True)):
    frozen = DETRsegm(build_detr(config), freeze_detr=freeze)
    frozen.detr.requires_grad_(False)
    frozen.train()  # as a training does at its start
    answers = [frozen.detr(images)["pred_boxes"] for _ in range(2)]
    same = torch.equal(*answers)
    print(f"{name:22} asked twice, it gives the same boxes: {same}")
    assert same == freeze

# %% [markdown]
# No parameter moves, and yet the detector answers differently each time: `train()` has switched its dropout on. Its queries are disturbed, and
# the masks have to be learned from them. `DETRsegm(freeze_detr=True)` therefore keeps the detector in evaluation mode. (The shipped small models
# have no dropout at all. The paper's has 0.1.)
#
# ## Train it
#
# Now the second stage, live: the detector of the shipped model, and a *fresh* mask head on top. Freezing has a second virtue. A frozen detector
# gives the same for the same picture, every time. So what it gives for 64 scenes, and the matching, are computed once, before the training.

# %% tags=["nbval-ignore-output"]
from minivis.data import Scenes

train_scenes = Scenes("train", stuff=True)
lessons = []
for some in torch.arange(64).split(4):
    batch = train_scenes.prepare(train_scenes.collate([train_scenes[int(i)] for i in some]), device)
    with torch.no_grad():
        found = model.detr.forward_features(batch.images)
        answers = model.detr.heads(found.decoded)
    matched = criterion.match(answers, batch.targets)
    finer = [found.maps[stage].features for stage in model.mask_stages]
    true = torch.cat([one["masks"] for one in batch.targets])[matched.last_layer[2]].float()
    lessons.append((found, finer, matched.last_layer[:2], true))


def focal_and_dice(logits, true):
    return torch.stack([focal(*p).mean() + dice(*p) for p in zip(logits, true)]).mean()


def train_masks(steps=120, gain=512.0, loss=focal_and_dice):
    """A fresh mask head on the frozen detector, and its mean dice loss at every step."""
    torch.manual_seed(SEED)
    student = (
        DETRsegm(deepcopy(model.detr), freeze_detr=True, attention_gain=gain).to(device).train()
    )
    learned = [*student.bbox_attention.parameters(), *student.mask_head.parameters()]
    optimiser, history = torch.optim.AdamW(learned, 3e-3), []
    for step in range(steps):
        found, finer, (picture, query), true = lessons[step % len(lessons)]
        attention = student.bbox_attention(found.decoded[-1], found.memory)
        masks = student.mask_head.of_pairs(
            found.projected, attention[picture, query], finer, picture
        )
        masks = F.interpolate(masks[:, None], true.shape[-2:], mode="bilinear")[:, 0]
        optimiser.zero_grad()
        loss(masks, true).backward()
        torch.nn.utils.clip_grad_norm_(learned, 0.1)
        optimiser.step()
        history.append(
            torch.stack([dice(*pair) for pair in zip(masks.detach(), true)]).mean().item()
        )
    return student.eval(), history


def iou_of(student):
    """Mean IoU of the matched queries' masks in 25 new scenes: of things, of stuff."""
    batch, view = batches[0], views[0]
    picture, query, target = criterion.match(view.outputs, batch.targets).last_layer
    with torch.inference_mode():
        masks = student.masks_of(student.detect(batch.images)[1], picture, query)
    masks = F.interpolate(masks[:, None], (128, 128), mode="bilinear")[:, 0] > 0
    true = torch.cat([one["masks"] for one in batch.targets])[target]
    kinds = torch.cat([one["labels"] for one in batch.targets])[target]
    iou = (masks & true).sum((1, 2)) / (masks | true).sum((1, 2))
    thing = torch.tensor([int(kind) in things for kind in kinds])
    return iou[thing].mean().item(), iou[~thing].mean().item()


student, history = train_masks()
print("IoU of things {:.2f}, of stuff {:.2f}".format(*iou_of(student)))
print("the shipped model: {:.2f}, {:.2f}".format(*iou_of(model)))
assert min(iou_of(student)) > 0.45


# %% [markdown]
# A hundred and twenty steps on sixty-four scenes, some ten seconds, and a fresh head outlines shapes in scenes that it has never seen. It is far
# from the shipped one, whose masks had 43 minutes. But it did not have to learn what a circle is, or that there are two: the frozen detector
# knows. It learned to draw.
#
# ### Three ways to go on
#
# | where | what | takes |
# | --- | --- | --- |
# | here | more steps, more scenes: `train_masks(steps=1000)`, `torch.arange(512)` | about a minute and a half on one core |
# | a GPU, for example Colab's | the shipped model made anew, jointly, from `detr-mini`: `minivis train panoptic-mini --out runs/mine` | 43 minutes on one CPU core; on a GPU not measured |
# | several GPUs and COCO | the paper's two stages: `minivis train panoptic-r50-coco-boxes --data COCO`, then `panoptic-r50-coco` | not run here; in the paper the masks take 25 epochs, after 300 or more for the boxes |
#
# ## Break it
#
# ### In the training: two choices taken back
#
# The same head, the same scenes, the same 120 steps. Once with plain cross-entropy as its only loss. And once with the attention as loud as it
# comes out of the softmax, $g = 1$, as in the paper.

# %% tags=["nbval-ignore-output"]
def plain(logits, true):
    return cross_entropy(logits, true).mean()


broken = {
    "as above": (student, history),
    "cross-entropy": train_masks(loss=plain),
    "attention g = 1": train_masks(gain=1.0),
}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), width_ratios=[1.6, 1, 1, 1])
for colour, (name, (_, run)) in zip(("#0072B2", "#D55E00", "#E69F00"), broken.items()):
    axes[0].plot(np.convolve(run, np.ones(10) / 10, mode="valid"), color=colour, label=name)
axes[0].set(title="dice loss", xlabel="step", ylim=(0, 1))
axes[0].legend(fontsize=7)
for axis, (name, (one, _)) in zip(axes[1:], broken.items()):
    with torch.inference_mode():
        mask = one.masks_of(one.detect(images)[1], torch.tensor([0]), torch.tensor([CIRCLE]))[0]
    axis.imshow(mask.sigmoid().cpu(), vmin=0, vmax=1, cmap="cividis")
    axis.set(xticks=[], yticks=[])
    axis.set_title(name, fontsize=9)
figure.tight_layout(pad=0.4)
show(
    figure,
    "Dice loss over 120 steps: it falls as above, much less with cross-entropy, and not at "
    "all with g = 1. Beside it the mask of a circle's query from each of the three: a "
    "bright area about the circle; faint outlines of all shapes; a faint picture.",
)
x, loud = inputs.x.abs().mean(), inputs.attention.mean()
print(f"mean size: input map {x:.2f}, attention {loud:.3f}, times 512 {512 * loud:.1f}")
for name, (one, _) in broken.items():
    print("{:16} IoU of things {:.2f}, of stuff {:.2f}".format(name, *iou_of(one)))
assert (
    iou_of(broken["cross-entropy"][0])[0] < 0.25
    and max(iou_of(broken["attention g = 1"][0])) < 0.25
)


# %% [markdown]
# - **Plain cross-entropy**: the ground is learned, things are not. Nearly all pixels of a thing's mask are background, so to say "nothing"
#   everywhere is nearly right.
# - **$g = 1$**: every query gets the same mask, a faint drawing of the whole picture. Beside the input map's numbers two thousandths are not
#   heard, and the attention is the only thing that differs from query to query. The first convolution *could* learn to make them louder; in 120
#   steps it does not. The paper had 25 epochs of COCO for it. This package multiplies by the number of places, so that the mean weight is 1, for
#   small models; with $g = 1$ it is the paper's head.
#
# ### In the trained model: the finer maps taken away
#
# Replace a finer map by its own mean over all cells. Then the adapter still adds its colour, so to speak, and no longer any detail.

# %%
def without(*levels):
    """Some of the finer maps (0: stride 16, 1: 8, 2: 4) made the same in all cells."""

    def change(inputs):
        fpns = [
            finer.mean((2, 3), keepdim=True).expand_as(finer) if level in levels else finer
            for level, finer in enumerate(inputs.fpns)
        ]
        return inputs._replace(fpns=fpns)

    return change


cases = {"all": (), "without stride 4": (2,), "without 4 and 8": (1, 2), "without any": (0, 1, 2)}
print("                    PQ    things stuff")
taken = {}
for name, levels in cases.items():
    taken[name] = model_quality(without(*levels))
    values = [taken[name][key] for key in ("PQ", "PQ_things", "PQ_stuff")]
    print("{:18} {:.2f}   {:.2f}   {:.2f}".format(name, *values))

panels = []
for levels in cases.values():
    changed = without(*levels)(inputs)
    with torch.inference_mode():
        mask = model.masks_of(changed, torch.tensor([0]), torch.tensor([CIRCLE]))
    panels.append(F.interpolate(mask[None], (128, 128), mode="bilinear")[0, 0].sigmoid().cpu())
row_of_pictures(
    [scenes.scene_image(SCENE), *panels],
    ["the scene", *cases],
    "The mask of a circle: whole; without the finest map a few crumbs of it; without more "
    "maps nothing.",
    cmap="cividis",
    vmin=0,
    vmax=1,
)


# %% [markdown]
# Things live on the finer maps: without the finest most of them are lost, without two nearly all. Stuff, large and coarse, suffers little. (The
# head was trained with all of them. One that is trained without may do better with what it has.)
#
# | symptom | look at |
# | --- | --- |
# | masks of all queries are alike, and follow the picture's edges | the attention is not heard: its scale, the learning rate of the head |
# | large segments good, small ones missing | the loss: a mean of cross-entropy over all pixels |
# | right places, blurred outlines | the finer maps: an adapter, the order of the maps, the stride of the last one |
# | masks good, holes or strange classes in the map | the threshold of the score, and which classes are called things |
# | two segments of grass | `things` names a stuff class |
# | masks learned with a frozen detector are worse than expected | its dropout: is it in evaluation mode? |
#
# ## Look inside: what does a query say to the head?
#
# The head's convolutions see the picture, the same for all queries, and a query's attention. All that makes a query's mask *its* mask are 8 maps
# of 64 numbers. What do they say: where it is, or also what it is?
#
# Test it with an attention that nobody looked with. Take that of one thing, and move it by whole cells, until its brightest cell lies on the
# brightest cell of *another* thing. Whose mask is drawn?

# %%
def moved_onto(view, picture, query, other):
    """The mask of a query's attention, moved onto another's brightest cell; the other's mask."""
    x, attention, fpns = view.inputs
    peaks = [divmod(int(attention[picture, q].sum(0).argmax()), 8) for q in (query, other)]
    shift = [to - start for start, to in zip(*peaks)]
    maps = torch.stack([attention[picture, query].roll(shift, (1, 2)), attention[picture, other]])
    one = slice(picture, picture + 1)
    with torch.inference_mode():
        return model.mask_head.of_pairs(
            x[one], maps, [f[one] for f in fpns], torch.zeros(2, dtype=torch.int64)
        )


others = [q for q in queries.tolist() if int(classes[0, q]) in things and q != CIRCLE]
drawn = [moved_onto(seen, 0, CIRCLE, other)[0] for other in others]
full = F.interpolate(torch.stack(drawn)[None], (128, 128), mode="bilinear")[0].sigmoid().cpu()
row_of_pictures(
    [scenes.scene_image(SCENE), *full],
    ["the scene", *(f"its attention on a {names[classes[0, q]]}" for q in others)],
    "The scene, and the masks that a circle's attention gives when it is moved onto the "
    "other circle, and onto each ring: the other circle, and each ring.",
    width=7,
    cmap="cividis",
    vmin=0,
    vmax=1,
)

agreement = []
for picture in range(len(batches[0].targets)):
    mine = (
        (of_thing & (best > 0.9))[picture].nonzero()[:, 0].tolist()
    )  # the first scenes are those of views[0]
    for query in mine:
        for other in mine:
            if said[picture, query] != said[picture, other]:
                ours, theirs = moved_onto(views[0], picture, query, other) > 0
                agreement.append(
                    ((ours & theirs).sum() / (ours | theirs).sum().clamp(min=1)).item()
                )
agreement = np.array(agreement)
print(f"{len(agreement)} pairs of things of different classes: the moved attention draws")
print(f"the other's mask (IoU above one half) in {round(10 * (agreement > 0.5).mean())} of 10")
assert (agreement > 0.5).mean() > 0.7

# %% [markdown]
# A circle's attention, laid on a ring, draws the ring, hole and all. So for things the attention says **where**, and little else: whose outline
# it is, the convolutions read off the picture. The query's class plays no part in its mask. This is also why an 8 × 8 map is enough for an
# outline at stride 4.
#
# What it does not prove: that the same holds for stuff, whose attention lies in several places and in other heads; or for pictures in which
# things cover each other so that two share a cell.
#
# ## Real weights
#
# The paper's own ResNet-50 model with its mask head, and a photograph. Say `wanted=True` to download 172 MB. Until then the next cell says so
# and goes on.

# %% tags=["nbval-ignore-output"]
from PIL import Image
from skimage import data as photographs

from minivis.detr import Segmenter
from minivis.evaluation.draw import draw_panoptic
from minivis.widgets import show

# wanted=True downloads 172 MB
released = minivis.load_released("facebook/detr-resnet-50-panoptic", wanted=False)

if released is not None:
    cat, categories = Image.fromarray(photographs.chelsea()), released.categories
    view = Segmenter(released, [released.image_transform(cat)], [(cat.height, cat.width)])
    [found] = view.panoptic(categories.things, stuff=categories.stuff)
    for segment in found.segments:
        name = released.class_names[segment.label]
        print(f"{name} ({segment.score:.2f}), queries {list(segment.queries)}")
    show(
        draw_panoptic(cat, found, released.class_names),
        "A photograph of a cat, with a colour and a name for each segment that was found.",
    )


# %% [markdown]
# ## Exercises
#
# Four functions to write, about 45 minutes in all. Fill in a stub, run it, and run the cell below it. The check runs your function on small
# inputs and says what to look at. Solutions are in `solutions/06_detr_panoptic.py`.
#
# ### Exercise 1: attention over heads and cells together (10 minutes)
#
# One picture, no projections. Head 0 has the first d / heads numbers of each vector, head 1 the next, and so on.
#
# <details><summary>A hint</summary>
#
# Compute the scores as (Q, heads, M). Then `flatten(1)`, softmax over the last axis, and back.
# </details>

# %%
def joint_attention(q, k, heads):
    """Weights (Q, heads, M) that sum to 1 for each query. q: (Q, d). k: (M, d)."""
    raise NotImplementedError


# %%
from minivis.checks.panoptic import check_joint_attention

check_joint_attention(joint_attention)


# %% [markdown]
# ### Exercise 2: the dice loss (5 minutes)
#
# $$1 - \frac{2\sum p\,t + 1}{\sum p + \sum t + 1}$$
#
# <details><summary>A hint</summary>
#
# $p$ is a probability, and the function is given logits.
# </details>

# %%
def dice_of(logits, mask):
    """The dice loss of one mask, a scalar. logits: (H, W). mask: (H, W), True on the object."""
    raise NotImplementedError


# %%
from minivis.checks.panoptic import check_dice_of

check_dice_of(dice_of)


# %% [markdown]
# ### Exercise 3: from masks to a map (15 minutes)
#
# Give each pixel the number of its mask. Masks of one *stuff* class all count as the first of them. (No specks here.)
#
# <details><summary>A hint</summary>
#
# First decide each pixel as if all masks were different. Then find, for each mask, the number that it stands for: a list that you can index with
# what you have.
# </details>

# %%
def merge(masks, labels, things):
    """The number of a mask for each pixel, (H, W).

    masks: logits (N, H, W). labels: a list of N class numbers. things: those that are counted.
    """
    raise NotImplementedError


# %%
from minivis.checks.panoptic import check_merge

check_merge(merge)


# %% [markdown]
# ### Exercise 4: panoptic quality (15 minutes)
#
# Of one class, in one picture. In both maps 0 is "nothing of this class", and each other number is a segment. The numbers of the two maps have
# nothing to do with each other.
#
# <details><summary>A hint</summary>
#
# Take every predicted segment with every true one. How many pairs have an IoU above one half? That many matches there are, and what is left on
# either side is invented or missed.
# </details>

# %%
def panoptic_quality(predicted, truth):
    """PQ, a number in 0..1. predicted, truth: (H, W), whole numbers."""
    raise NotImplementedError


# %%
from minivis.checks.panoptic import check_panoptic_quality

check_panoptic_quality(panoptic_quality)

# %% [markdown]
# ## In short
#
# - **Semantic** labels pixels with classes, **instance** gives things masks, **panoptic** gives each pixel one segment: things are counted,
#   stuff is not.
# - A mask begins where a query **looks**: attention without values, one softmax over all heads and cells, so that a head that sees nothing is
#   quiet.
# - Convolutions bring it from stride 16 (in the paper 32) to stride 4, and at each step the backbone's finer map adds edges. All that the head
#   hears of a query is its attention.
# - **Focal** loss leaves alone what is right already; **dice** compares areas, so that small objects count.
# - The **merge** is not learned: sure queries only, each pixel to the surest mask, stuff joined, specks removed.
# - **PQ** = SQ · RQ: how well the matches lie, times how many there are. A match has an IoU above one half.
# - **Frozen** means the parameters and the dropout.
#
# ### What became of the document's claims

# %%
from minivis.widgets import show_claims

show_claims("D23", "D24", "D25", "D26", "D37")

# %% [markdown]
# ## Quiz
#
# Open the answer you would give.

# %% [markdown]
# **1. A picture shows three sheep on grass. How many segments does a perfect panoptic map have, and how many values a perfect semantic one?**
#
# <details><summary>a) 4 and 4</summary>
#
# **Not quite.** A semantic map knows classes only: sheep and grass.
# </details>
#
# <details><summary>b) 4 and 2</summary>
#
# **Right.** Each sheep is a segment, and all of the grass is one. By class there are two.
# </details>
#
# <details><summary>c) 3 and 2</summary>
#
# **Not quite.** Three are the *instances*. In a panoptic map the grass is a segment, too.
# </details>

# %% [markdown]
# **2. Why is the softmax over heads and cells together?**
#
# <details><summary>a) So that a head that finds nothing can be quiet</summary>
#
# **Right.** Alone, each head would have to give away a whole one, somewhere.
# </details>
#
# <details><summary>b) So that all queries together sum to one</summary>
#
# **Not quite.** Each query has a whole one of its own. Two queries may look at the same cell as much as they like.
# </details>
#
# <details><summary>c) Because there are no values</summary>
#
# **Not quite.** Without values, one could still share out by head. The two have nothing to do with each other.
# </details>

# %% [markdown]
# **3. Your masks lie in the right places and their outlines are blurred. A class of yours has objects of 8 pixels. What is the first number to look at?**
#
# <details><summary>a) The weight of the dice loss</summary>
#
# **Not quite.** It decides whether small objects count in the training. An outline that the resolution does not allow cannot be trained.
# </details>
#
# <details><summary>b) The score threshold</summary>
#
# **Not quite.** It decides who takes part in the map.
# </details>
#
# <details><summary>c) The oracle at your masks' stride</summary>
#
# **Right.** If true masks, brought to that stride and back, are blurred as well, no training will help, and a smaller `mask_stride` may.
# </details>

# %% [markdown]
# **4. You lower the score threshold from 0.85 to 0. What happens to the panoptic map?**
#
# <details><summary>a) Nothing: unsure masks are weak and win no pixels</summary>
#
# **Not quite.** The score is of the class, and plays no part in the argmax. A mask may be strong, and its query unsure what it is.
# </details>
#
# <details><summary>b) Queries that found the same object, or nothing in particular, take pixels from others</summary>
#
# **Right.** All that say any class rather than "no object" take part, duplicates too. Each that wins some pixels is a segment more.
# </details>
#
# <details><summary>c) Holes appear</summary>
#
# **Not quite.** Each pixel goes to somebody. Holes come from too *few* masks: from none.
# </details>

# %% [markdown]
# ## References
#
# - Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko: *End-to-End Object Detection with Transformers*, ECCV 2020. Section 4.4 and figure 8.
# - Kirillov, He, Girshick, Rother, Dollár: *Panoptic Segmentation*, CVPR 2019. The task and PQ.
# - Lin, Dollár, Girshick, He, Hariharan, Belongie: *Feature Pyramid Networks for Object Detection*, CVPR 2017.
# - Lin, Goyal, Girshick, He, Dollár: *Focal Loss for Dense Object Detection*, ICCV 2017.
# - Milletari, Navab, Ahmadi: *V-Net*, 3DV 2016. Dice as a loss.
# - Cheng, Schwing, Kirillov: *Per-Pixel Classification is Not All You Need for Semantic Segmentation* (MaskFormer), NeurIPS 2021. Where queries
#   with masks went next.
#
# **Next:** notebook 07 leaves boxes behind: CLIP puts pictures and sentences into one space.

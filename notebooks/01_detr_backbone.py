# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1 · The backbone: from pixels to a feature map
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/minivis/minivis/blob/main/notebooks/01_detr_backbone.ipynb)
#
# **Time:** about 60 minutes to read and try; the cells run in about a minute on two CPU cores.
# **You need:** notebook 00, and PyTorch as far as `nn.Module` and convolutions. No GPU, no network.
#
# DETR's transformer never sees a pixel. It reads a sequence of vectors (64 in this page's model, some 850 in the paper's), and everything the
# detector will ever say must be in them. This page is about where they come from. When you have finished it you can
#
# 1. say how many cells a feature map has, how far each of them sees, and where most of what moves it lies;
# 2. build a stage of a backbone, and tell what deeper stages know that shallower ones do not;
# 3. explain why DETR freezes its batch norm, and what goes wrong when it is frozen too early;
# 4. batch pictures of different sizes, and name the two places where the padding mask is needed, and the one where the picture's size is;
# 5. build sine positions by hand, and say what their dot products tell and what they do not.
#
# **In the document:** the sections "CNN-backbone" and the beginning of "Transformer part 1". Its statements D1, D2, D3 and a part of D10 are put
# to the test below.

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
# Here is a scene as a trained detector's transformer gets it: a map of 8 × 8 places, with 128 numbers at each. One place is a **cell**,
# `features[b, :, row, column]`. Under it lies its **patch**, here 16 × 16 pixels. **What does one cell know?**
#
# Point at cells. The picture is bright where a pixel moves the cell's numbers, and dim where it does not (this is measured at strides 16 and 8;
# at 4 and 2 the widget shows the field alone). On the right are the eight channels that are highest there. (A *channel* is one of the 128 numbers,
# seen over all cells: a map of its own.)
#
# - Click on the left rim of the ring, on the cell in row 4, column 3 (from 0), then point into the middle of the large circle, row 5, column 6.
#   How many of the eight channels are new?
# - Go from stride 16 to 8, 4 and 2. (*Stride*: pixels from one cell to the next.) Where do the maps begin to look like the picture?
# - The dashed square is the *receptive field*: all that the cell's convolutions can reach. At stride 16 it is 143 pixels wide, wider than the
#   picture. Is it all used? And what becomes of it in a corner?

# %%
from minivis.data.scenes import load_shipped_scenes
from minivis.widgets import FeatureExplorer

model = minivis.load("detr-mini")
scenes = load_shipped_scenes()

SCENE = 181
explorer = FeatureExplorer(model, scenes.scene_image(SCENE))
explorer

# %% [markdown]
# <details><summary>What you should have seen</summary>
#
# - Most are new: five of the eight. A cell on the ring and one in the circle have little in common, as far as the highest channels go.
# - At stride 4 you see outlines, at stride 2 whole shapes. At stride 16 a bright cell says that something is there, and draws nothing.
# - No: what is bright is a spot around the cell. In the corner the field is cut off: of its 143 × 143 pixels 72 × 72 lie in the picture. And
#   the channels that are highest in a corner are bright along the picture's border. Remember that: it comes back in "Train it".
# </details>
#
# **Predict before you run on.** Write your answers down.
#
# 1. A cell of the last map stands for 16 × 16 pixels, and its field is wider than the picture. Add a little independent noise, of the same strength,
#    to every pixel; then the cell gets noise too. How few pixels suffice for half of its variance: nearly half of them, a tenth, or less than a
#    twentieth?
# 2. The detector was trained to name shapes and draw boxes. Nobody asked it for colours. Could you still read an object's colour off the last
#    map?
#
# <details><summary>Answers</summary>
#
# 1. Less than a twentieth. The widget says it in pixels: a few hundred at most, of 16,384. They lie near the cell.
# 2. Hardly. You will measure it in "Train it": the first map has the colour and little of the shape, the last one the shape and not the colour.
# </details>

# %% [markdown]
# ## Symbols and shapes
#
# | symbol | detr-mini | DETR, ResNet-50 | meaning |
# | --- | --- | --- | --- |
# | $H_0, W_0$ | 128, 128 | about 800 × 1066 | size of the picture in pixels |
# | $s$ | 16 | 32 | stride: pixels from one cell of the last map to the next |
# | $H, W$ | 8, 8 | 25, 34 | size of the last map, $\lceil H_0/s\rceil$ and $\lceil W_0/s\rceil$ |
# | $C$ | 128 | 2048 | channels of the last map |
# | $d$ | 128 | 256 | width of the transformer |
# | $r$ | 143 | 427 | receptive field: pixels on a side that the convolutions reach |
# | $N = H \cdot W$ | 64 | 850 | vectors that the transformer reads |

# %% [markdown]
# There are two paths. The upper one carries what is seen, the lower one where it is. They come together as two sequences of the same length.

# %%
from minivis.widgets.architectures import BACKBONE

BACKBONE.show()

# %% [markdown]
# ## By hand: one row of nine pixels
#
# Forget pictures for a moment. Take one row of nine pixels, and a layer that adds up three neighbours and moves on by **two**: stride 2. A zero
# is put on either end, so that the first pixel has a neighbour. Then a second layer like it. Take a pencil:
#
# - how many cells does each layer have?
# - which pixels are in the middle cell of the second layer, and how often is each of them counted?

# %%
import torch.nn.functional as F

ones = torch.ones(1, 1, 3)


def two_layers(row):
    return F.conv1d(F.conv1d(row, ones, stride=2, padding=1), ones, stride=2, padding=1)


row = torch.zeros(1, 1, 9)
counted = torch.autograd.functional.jacobian(two_layers, row).view(3, 9).int()
print("pixel  " + " ".join(str(i) for i in range(9)))
for cell, pixels in enumerate(counted.tolist()):
    print(f"cell {cell} " + " ".join(str(n) if n else "·" for n in pixels))
assert counted[1].tolist() == [0, 1, 1, 2, 1, 2, 1, 1, 0]

# %% [markdown]
# Four things are in this little table, and all of them hold for a ResNet too.
#
# - **Sizes are rounded up.** 9 pixels, 5 cells, 3 cells: an odd side keeps its larger half.
# - **Fields overlap.** Cells lie 4 pixels apart and see 7 each.
# - **The field grows by the stride.** A kernel of $k$ cells reaches over $k-1$ steps, and each is as long as the stride so far:
#   $r \leftarrow r + (k-1)\,s$. Here $1 \to 3 \to 7$.
# - **Near the middle counts more, on average.** There are two ways from pixel 3 to cell 1, and one from pixel 1. Only on average: pixel 4, in
#   the very middle, counts once. It lies under the middle of one kernel, while 3 and 5 lie where two kernels overlap.
#
# And a detail that bites people: cell 1 is centred on pixel 4, the *first* of its four pixels 4 to 7, and not on their middle. The widget shows it
# at strides 8 and 4: the dashed square does not lie evenly around the white one.

# %% [markdown]
# ## Build it: one stage
#
# `detr-mini` has four stages. Each halves the resolution by a convolution with stride 2, and refines the result by a residual block (the first
# stage leaves that out):
#
# $$h = \mathrm{ReLU}(\mathrm{norm}(\mathrm{conv}_{3\times3,\ \text{stride}\ 2}(x))), \qquad
# y = \mathrm{ReLU}\bigl(h + \mathrm{norm}(\mathrm{conv}(\mathrm{ReLU}(\mathrm{norm}(\mathrm{conv}(h)))))\bigr)$$
#
# The norm is **group norm** here: channels are put into groups, and of each group one mean and one standard deviation are taken, over the whole
# map of one picture. The weights have names that say where they belong: `0.0` is the convolution with stride 2 and `0.1` its norm, `1.branch` the
# residual block (its `2` is a ReLU, which has no weights).

# %%
for name, weight in model.backbone.stages[1].state_dict().items():
    print(f"{name:17} {tuple(weight.shape)}")

# %% [markdown]
# Those lines in code, with the trained weights put in by name:

# %%


def stage(x, weights):
    """(B, C, H, W) -> (B, C', H/2, W/2), rounded up"""

    def conv_norm(x, conv, norm, stride=1):
        x = F.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=1)
        groups = min(32, x.shape[1] // 4)  # of four channels each
        return F.group_norm(x, groups, weights[f"{norm}.weight"], weights[f"{norm}.bias"])

    h = F.relu(conv_norm(x, "0.0", "0.1", stride=2))
    if "1.branch.0.weight" not in weights:  # the first stage
        return h
    inner = F.relu(conv_norm(h, "1.branch.0", "1.branch.1"))
    return F.relu(h + conv_norm(inner, "1.branch.3", "1.branch.4"))


batch = scenes.prepare(scenes.collate([scenes[i] for i in range(100)]))
pixels, targets = batch.images.pixels, batch.targets

with torch.inference_mode():
    x, ours = pixels[:2], []
    for part in model.backbone.stages:
        x = stage(x, part.state_dict())
        ours.append(x)
        print(f"{tuple(x.shape)}: {x[0].numel():6} numbers a picture")

# %% [markdown]
# Is it the package's backbone? A backbone is called with a batch of pictures and their padding mask, and gives a map of each stage with *its*
# mask.

# %%
from minivis.images import as_image_batch

with torch.inference_mode():
    maps = model.backbone(as_image_batch(pixels[:2]))

for mine, level in zip(ours, maps, strict=True):
    assert torch.allclose(mine, level.features, atol=1e-4)
print("the same; the first stage has most of the numbers, and the last is what DETR reads")

# %% [markdown]
# ### How far does a cell see?
#
# First by counting, with the rule you found by hand. The package counts along the network's own layers. (The *stem* is what lies before the first
# stage: in a ResNet a convolution and a pooling, in `detr-mini` nothing.)

# %%
from minivis.detr.receptive_field import effective_field, pixels_with_half, receptive_fields
from minivis.widgets import show_source

show_source(receptive_fields, docstring=False)
print()
for field in receptive_fields(model.backbone):
    print(f"stride {field.stride:2}: a cell sees {field.size} × {field.size} pixels")

with torch.device("meta"):  # shapes without numbers: built in no time
    full = minivis.detr.detr_resnet50()  # the paper's model
field = receptive_fields(full.backbone)[-1]
print(f"in the paper's ResNet-50, stride {field.stride}: {field.size} × {field.size} pixels")
assert (field.stride, field.size) == (32, 427)

# %% [markdown]
# This is the **theoretical** field: beyond it no convolution reaches. How much of it is used? Ask the gradient. If a pixel's value moves by a
# little, by how much does the cell move (the sum of its channels)? Luo et al. (2016) called the answer the **effective** receptive field.
#
# For one cell of each stage, all near the same place of the scene: brighter moves the cell more (colours show the square root, so that faint
# things are seen), and the dashes are what was counted. At stride 2 they are 3 pixels wide: see the inset.

# %%
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from minivis.widgets import show

scene = as_image_batch([scenes[SCENE][0]])
PLACE = (80, 64)  # row and column, in pixels

figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
for level, (field, axis) in enumerate(zip(receptive_fields(model.backbone), axes, strict=True)):
    row, column = (place // field.stride for place in PLACE)
    moved = effective_field(model.backbone, scene, level, [(row, column)])
    left, top, _, _ = field.window(row, column)
    axis.imshow((moved[0] / moved.max()).sqrt(), cmap="viridis", extent=(0, 128, 128, 0))
    frame = dict(fill=False, edgecolor="white", linestyle="--", linewidth=1)
    axis.add_patch(Rectangle((left, top), field.size, field.size, **frame))
    axis.set_title(
        f"stride {field.stride}: half in {pixels_with_half(moved).item()} px", fontsize=9
    )
    axis.set(xticks=[], yticks=[], xlim=(0, 128), ylim=(128, 0))
    if level == 0:
        inset = axis.inset_axes((0.52, 0.52, 0.46, 0.46))
        inset.imshow(moved[0], cmap="viridis", extent=(0, 128, 128, 0))
        inset.add_patch(Rectangle((left, top), field.size, field.size, **frame))
        inset.set(xticks=[], yticks=[], xlim=(left - 3, left + 6), ylim=(top + 6, top - 3))
        inset.spines[:].set_color("white")
show(
    figure,
    "Four maps of how much each pixel moves one cell, at strides 2, 4, 8 and 16: a bright spot "
    "that grows from stage to stage, and stays far smaller than the dashed field.",
)

# %% [markdown]
# The title of each panel answers the first prediction: sort the pixels by their squared gradient, the largest first, and count until half of the
# sum is reached. (Variances of independent noise add up, and a pixel's share is its squared gradient.) This is the variance of the *sum* of the
# channels, as in the widget: one backward pass a cell. With a pass for each channel, the 128 variances can be added up instead.
#
# That was one cell. Now all 64 of the last map, and three of them with all channels:

# %%
places = [(row, column) for row in range(8) for column in range(8)]
gradients = effective_field(model.backbone, scene, 3, places)  # (64, 128, 128)
shares = gradients.square() / gradients.square().sum((1, 2), keepdim=True)  # of a cell's variance

near = [
    share[max(0, 16 * row - 16) : 16 * row + 32, max(0, 16 * column - 16) : 16 * column + 32].sum()
    for share, (row, column) in zip(shares, places, strict=True)
]
half = pixels_with_half(gradients) / 128**2
print(f"half of the variance of the sum: {half.mean():.1%} of the pixels")
print(f"in the cell's patch and the eight around it: {torch.stack(near).mean():.0%} of it")
for row, column in ((5, 4), (3, 5), (4, 3)):
    noisy = scene.pixels.clone().requires_grad_()
    cell = model.backbone(as_image_batch(noisy))[-1].features[0, :, row, column]
    (each,) = torch.autograd.grad(cell, noisy, torch.eye(128), is_grads_batched=True)
    of_all = each.square().sum((0, 1, 2)).sqrt()  # over channels and colours: (128, 128)
    few = pixels_with_half(of_all[None]).item()
    fewer = pixels_with_half(gradients)[8 * row + column].item()
    print(f"cell ({row}, {column}): {few} pixels for all channels, {fewer} for their sum")
    assert few < 128**2 / 20
assert half.max() < 0.05 and torch.stack(near).mean() > 0.7

# %% [markdown]
# **For none of the 64 cells is it more than a twentieth of the picture**, and most of it lies near. But gradients speak of small changes only. Make a large one: put *another scene* inside of a window of $k \times k$ patches around a cell, or
# outside of it. By what share of its length does the cell's vector change? (Four middle cells, 24 scenes.)

# %%
swapped = {}
with torch.inference_mode():
    original = model.backbone(as_image_batch(pixels[:24]))[-1].features
    for row, column in ((3, 3), (3, 4), (4, 3), (4, 4)):
        for side in (3, 5, 7):
            top, left = (16 * (place - side // 2) for place in (row, column))
            window = torch.zeros(128, 128, dtype=torch.bool)
            window[max(top, 0) : top + 16 * side, max(left, 0) : left + 16 * side] = True
            for where in ("inside", "outside") if side == 3 else ("outside",):
                other = window if where == "inside" else ~window
                mixed = as_image_batch(torch.where(other, pixels[24:48], pixels[:24]))
                before = original[:, :, row, column]
                after = model.backbone(mixed)[-1].features[:, :, row, column]
                change = (after - before).norm(dim=1) / before.norm(dim=1)
                swapped.setdefault((where, side), []).append(change.mean())
for (where, side), change in swapped.items():
    change = swapped[where, side] = torch.stack(change).mean().item()
    print(f"another scene {where:7} {side} × {side} patches: the cell changes by {change:.0%}")
assert swapped["inside", 3] > 0.7 and 0.3 < swapped["outside", 3] < 0.6
assert swapped["outside", 3] > swapped["outside", 5] > swapped["outside", 7] > 0.05

# %% [markdown]
# So the cell's own surroundings count most, but the rest of the picture is not nothing. Small noise hardly gets through from afar; a whole other
# scene does, and changes the vector by about half of its length. What is true: most of what moves a cell lies near. To set far things in relation
# is left to the transformer.
#
# How does it come from so far? Look closely at the third panel above. Outside of the dashes it is not quite dark. Did we count wrongly?

# %%
from minivis.detr.receptive_field import share_outside


def without_norms(backbone):
    """A copy whose normalisations do nothing, so that only convolutions carry anything on."""
    copy = minivis.detr.backbone.SmallConvBackbone(backbone.channels)
    copy.load_state_dict(backbone.state_dict())
    for module in list(copy.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    return copy


field, cell = receptive_fields(model.backbone)[2], (8, 8)
for name, backbone in (("with", model.backbone), ("without", without_norms(model.backbone))):
    (moved,) = effective_field(backbone, scene, 2, [cell])
    rows = moved.amax(1).nonzero()[:, 0]
    print(f"{name:8}group norm: rows {rows.min():2} to {rows.max():3} of 128 move the cell")
    assert (share_outside(moved, field.window(*cell)) > 1e-3) == (name == "with")
print(
    "the field:", field.size, "rows, from", field.window(*cell)[1], "to", field.window(*cell)[3] - 1
)

# %% [markdown]
# The count is right for the *convolutions*. Group norm is a second carrier: it subtracts a mean that is taken over the whole map, so every pixel
# has a small say in every cell, and a whole other scene a larger one. Keep this in mind: it will cost us something when pictures are padded.
#
# ## Why DETR's batch norm is frozen
#
# A ResNet normalises with **batch norm**: $y = \frac{x-\mu}{\sqrt{\sigma^2+\varepsilon}}\,\gamma + \beta$, for each channel. In training $\mu$
# and $\sigma^2$ are those of the batch at hand. So what becomes of a picture depends on the others in its batch. With many of them that hardly
# matters. But detectors take large pictures and few of them: the paper has 4 on each GPU.
#
# How much does it matter? Take one picture, put it into 30 different batches of each size, and see how far its normalised values wobble.

# %%
with torch.inference_mode():
    x = model.backbone.stages[1](model.backbone.stages[0](pixels))
    unnormalised = model.backbone.stages[2][0][0](x)  # what a norm gets to see: (100, 128, 16, 16)

sizes, spreads = [2, 4, 8, 16, 32, 64], []
chance = torch.Generator().manual_seed(SEED)
for size in sizes:
    seen = []
    for _ in range(30):
        others = torch.randint(1, 100, (size - 1,), generator=chance).tolist()
        seen.append(F.batch_norm(unnormalised[[0, *others]], None, None, training=True)[0])
    seen = torch.stack(seen)  # (30, 128, 16, 16): the same picture 30 times
    spreads.append((seen.std(0).mean() / seen.std()).item())

figure, axis = plt.subplots(figsize=(5.5, 2.8))
axis.loglog(sizes, [100 * spread for spread in spreads], "o-", color="#0072B2", label="measured")
chance_says = [100 * spreads[0] * 2 * (n - 1) ** 0.5 / n for n in sizes]
axis.loglog(
    sizes, chance_says, ":", color="#999999", label="√(n − 1) / n, scaled to the first point"
)
axis.set(xlabel="n, pictures in the batch", ylabel="wobble, in % of\nthe spread of all values")
axis.set_xticks(sizes, sizes)
axis.set_yticks([1, 2, 5, 10, 20], [1, 2, 5, 10, 20])
axis.minorticks_off()
axis.legend()
assert spreads[0] > 3 * spreads[-1]
show(
    figure,
    "How far one picture's batch-normalised values spread over 30 random batches, against the size "
    "of the batch, both axes logarithmic: it falls as the square root of n - 1, divided by n.",
)

# %% [markdown]
# In a batch of two, a picture's features wobble several times as much as in a batch of 64, and for no reason that lies in the picture. (What that
# costs a detector is not measured here.)
#
# The dotted line is pure chance. The mean is one $n$-th of this picture, which stays, and of $n-1$ random ones; their sum spreads by
# $\sqrt{n-1}$, and it is divided by $n$. This is also why 4 is hardly better than 2: of two pictures, half of the mean is the picture itself and
# stays where it is.
#
# DETR's answer: **stop**. The backbone comes from ImageNet with good averages and gains. They become constants:

# %%
from minivis.detr.backbone import FrozenBatchNorm

show_source(FrozenBatchNorm)


# %% [markdown]
# One multiplication and one addition for each channel, the same for every batch, in training and in evaluation. Constants are not counted as
# parameters. Count both in the paper's model:

# %%
def count(tensors):
    return sum(tensor.numel() for tensor in tensors)


total = count(full.parameters())
trained = count(p for p in full.parameters() if p.requires_grad)
constants = count(full.backbone.buffers())
print(f"DETR with ResNet-50: {total:,} parameters, {trained:,} of them trained")
print(f"weights not trained: {total - trained:,}, the first convolution and the first stage")
print(
    f"constants in its frozen batch norms: {constants:,}, four for each of {constants // 4:,} channels"
)
assert (total, trained) == (41_524_768, 41_302_368)

# %% [markdown]
# Do not confuse the two. The constants are in *all* norms, for the sake of small batches. The weights of the first convolution and the first stage
# are frozen for another reason: edges and colours serve every task, so detectors have long kept them as ImageNet made them (Fast R-CNN did), and
# through the largest maps no backward pass is needed.
#
# ### Frozen too early
#
# There is a trap. A frozen batch norm is only as good as the averages in it. In a new network they are zeros and ones, so it normalises nothing
# at all, and every residual block adds its branch to what came before. Follow the size of the features through two ResNets with random weights:

# %%
from minivis.detr.backbone import ResNetBackbone


def size_after_each_block(name, norm):
    torch.manual_seed(SEED)
    body = ResNetBackbone(name, norm).eval().body
    with torch.inference_mode():
        x = body.maxpool(body.relu(body.bn1(body.conv1(pixels[:4, :, ::2, ::2]))))
        found = []
        for block in (*body.layer1, *body.layer2, *body.layer3, *body.layer4):
            x = block(x)
            found.append(x.std().item())
    return found


figure, axis = plt.subplots(figsize=(6.5, 3))
for name, norm, style in (
    ("resnet101", "frozen", "-"),
    ("resnet50", "frozen", "--"),
    ("resnet101", "group", "-"),
):
    found = size_after_each_block(name, norm)
    colour = {"frozen": "#D55E00", "group": "#0072B2"}[norm]
    axis.semilogy(
        range(1, len(found) + 1), found, style, color=colour, label=f"{name}, {norm} norm"
    )
    growth = float(f"{max(found) / found[0]:.1g}")
    print(f"{name}, {norm:6} norm: largest about {growth:,.0f} times the first")
    assert (max(found) > 20 * found[0]) if norm == "frozen" else (max(found) < 10)
axis.set(xlabel="residual block", ylabel="standard deviation")
axis.legend()
show(
    figure,
    "Size of the features after each residual block of untrained ResNets, logarithmic: with frozen "
    "batch norm it grows from block to block, most in ResNet-101; with group norm it climbs to about "
    "three and falls back to one where a stage begins.",
)

# %% [markdown]
# Through ResNet-101 they grow some twenty thousand times, through ResNet-50 some sixty times: that is no catastrophe in itself, but nothing
# normalises it. With group norm they climb slowly, since every block adds a branch of size one, and fall back where a new stage begins: there the
# shortcut is normalised too.
#
# So: frozen batch norm belongs to *pretrained* weights. Whoever trains from nothing takes a norm that does its own work. `detr-mini` has **group
# norm** (Wu and He, 2018). To it the other pictures of a batch do not matter, so batches may be as small as you like. What it costs comes next.
#
# ## Pictures of different sizes: padding and its mask
#
# A batch is one tensor, and pictures differ in size. Smaller ones are filled up with zeros at the right and at the bottom, and a mask remembers
# where. At each stage the mask is brought to the map's resolution: each cell takes its nearest pixel.

# %%


def pad(images):
    """A list of (3, H, W) -> pixels (B, 3, H, W) and the mask (B, H, W), True where padded."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    pixels = torch.zeros(len(images), 3, height, width)
    mask = torch.ones(len(images), height, width, dtype=torch.bool)
    for i, image in enumerate(images):
        pixels[i, :, : image.shape[1], : image.shape[2]] = image
        mask[i, : image.shape[1], : image.shape[2]] = False
    return pixels, mask


two = [pixels[0], pixels[1][:, :90, :75]]
our_pixels, our_mask = pad(two)
package = as_image_batch(two)
assert torch.equal(our_pixels, package.pixels) and torch.equal(our_mask, package.padding_mask)

with torch.inference_mode():
    small_masks = [level.padding_mask for level in model.backbone(package)]
for mask, stride in zip(small_masks, model.backbone.strides, strict=True):
    assert torch.equal(mask, our_mask[:, ::stride, ::stride])

figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
picture = model.image_transform.denormalise(package.pixels[1]).permute(1, 2, 0)
panels = [("second picture", picture), ("mask: 128", our_mask[1])]
panels += [(f"{len(mask[1])}", mask[1]) for mask in small_masks]
for axis, (title, values) in zip(axes, panels, strict=True):
    axis.imshow(values, cmap="cividis", interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
show(
    figure,
    "The smaller picture of the batch, in the left upper corner of a grey square; its mask, yellow "
    "where it is padded; and the mask at 64, 32, 16 and 8 cells a side.",
)
print("cells of the picture's own in the last map:", (~small_masks[-1][1]).sum().item(), "of 64")

# %% [markdown]
# Grey is what a zero looks like: pixels are normalised, so 0 is the mean colour and not black. A cell is taken for the picture's own if its
# *first* pixel is: in the last row and column most of it may be padding.
#
# Nobody told the convolutions about the mask. So does the padding change the features of the picture itself? Take a picture alone, and once more
# as the smaller one of a batch, in two ResNet-18 of random weights. We compare the cell in the left upper corner, farthest from the padding, and
# all cells of the picture:

# %%
alone = as_image_batch(pixels[:1])
padded = as_image_batch([pixels[0], torch.zeros(3, 256, 256)])
corner = {}
for norm in ("frozen", "group"):
    torch.manual_seed(SEED)
    backbone = ResNetBackbone("resnet18", norm).eval()
    with torch.inference_mode():
        levels = zip(receptive_fields(backbone), backbone(alone), backbone(padded), strict=True)
    print(f"{norm} norm")
    for field, before, after in levels:
        before = before.features[0]
        after = after.features[0, :, : before.shape[1], : before.shape[2]]
        change = (after - before).norm(dim=0) / before.norm(dim=0)
        corner[norm, field.stride] = change[0, 0].item()
        print(
            f"  stride {field.stride:2}, field {field.size:3}: the corner changes by "
            f"{change[0, 0]:4.0%}, all cells by {change.mean():4.0%} on average"
        )
assert max(corner["frozen", stride] for stride in (4, 8, 16)) < 1e-4 < 0.03 < corner["frozen", 32]
assert min(corner["group", stride] for stride in (4, 8, 16, 32)) > 0.3

# %% [markdown]
# A **frozen** batch norm is *local*: a cell is changed only if its convolutions reach the padding. From the corner they do not, until the last
# map. But that is the map DETR reads, and there every field reaches the padding, so no cell is immune. With **group** norm all cells change in all
# stages, because the padding enters mean and deviation. DETR has the first, `detr-mini` the second. This is its price, and we shall see it
# in AP, *average precision*, the score of a detector. (Random weights: how much a *trained* backbone minds, only AP can tell.)
#
# ## Where a cell lies: sine positions
#
# Attention takes a *set* of vectors: shuffle the cells, and each gets the same answer as before (notebook 02 shows it). So each cell must say
# where it lies. DETR turns the two coordinates into waves. Three steps:
#
# 1. Count the cells that are not padding, down each column and along each row; divide by the last count, times $2\pi$. The result is $y$ (down)
#    and $x$ (along).
# 2. Turn each coordinate into $d/4$ pairs of sine and cosine. Pair $i$ turns more slowly than the one before:
#
#    $$\bigl(\sin(x/T^{\,4i/d}),\ \cos(x/T^{\,4i/d})\bigr), \qquad i = 0, \dots, d/4 - 1$$
#
# 3. Put the half for $y$ before the half for $x$.
#
# First for one row of eight cells, with $d = 128$ and $T = 20$: there are 32 pairs, of which we look at 0 and 8.

# %%
import math

x = 2 * math.pi * torch.arange(1, 9) / 8
print("cell     " + "".join(f"{cell:7}" for cell in range(8)))
print("x        " + "".join(f"{value:7.2f}" for value in x))
for i in (0, 8):
    angle = x / 20 ** (i / 32)
    print(f"pair {i}: each step turns by {360 / 8 / 20 ** (i / 32):.0f} degrees")
    print("  sin    " + "".join(f"{value:7.2f}" for value in angle.sin().round(decimals=2) + 0.0))
    print("  cos    " + "".join(f"{value:7.2f}" for value in angle.cos().round(decimals=2) + 0.0))


# %% [markdown]
# Pair 0 goes once around the circle over the row, and so ends where it would have begun. Pair 8 comes not even half around: no two of its cells
# are alike. Now for both coordinates and a whole batch:

# %%
def sine_positions(padding_mask, d, temperature):
    """(B, H, W) -> (B, d, H, W)"""
    inside = (~padding_mask).float()
    y, x = inside.cumsum(1), inside.cumsum(2)  # 1, 2, 3, ...
    y = 2 * math.pi * y / (y[:, -1:, :] + 1e-6)
    x = 2 * math.pi * x / (x[:, :, -1:] + 1e-6)
    slower = temperature ** (torch.arange(d // 4) / (d // 4))  # 1 for pair 0, nearly T for the last
    halves = []
    for coordinate in (y, x):
        angle = coordinate[..., None] / slower  # (B, H, W, d/4)
        halves.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(3))
    return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)


ours = sine_positions(small_masks[-1], d=128, temperature=20)
print("positions:", tuple(ours.shape), "= (B, d, H, W)")
assert torch.allclose(ours, model.positions(small_masks[-1]), atol=1e-5)
print("the same as the package's SinePositions")

# %% [markdown]
# Look at a few channels: $2i$ is the sine of pair $i$, and $2i+1$ its cosine. The upper row is for the full picture, the lower one for the smaller
# one: the same waves, squeezed into the part that is not padding.

# %%
chosen = [0, 1, 40, 64, 65, 104]
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2))
for image in (0, 1):
    for axis, channel in zip(axes[image], chosen, strict=True):
        shown = ours[image, channel].masked_fill(small_masks[-1][image], float("nan"))
        axis.imshow(shown, cmap="cividis", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[], facecolor="#dddddd")
        if image == 0:
            wave = f"{('sin', 'cos')[channel % 2]} of {'y' if channel < 64 else 'x'}"
            axis.set_title(f"{channel}: {wave}, pair {channel % 64 // 2}", fontsize=8)
show(
    figure,
    "Six channels of the positions for two pictures. Three change from top to bottom and three from "
    "left to right: a sine, its cosine, and a slower sine. In the second row the same waves fill a "
    "smaller rectangle; padding is grey.",
)

# %% [markdown]
# How does it reach a cell's vector? It is *added*, and not only once: every attention layer adds it to the vectors of which it makes queries and
# keys, the two sides of its dot products (notebook 02).
#
# ### What the dot product of two positions tells
#
# Attention compares by dot products. What is the dot product of two positions? For each pair $\sin a \sin b + \cos a \cos b = \cos(a-b)$. So the
# sum is $\sum_i \cos(\Delta y/T^{4i/d}) + \sum_i \cos(\Delta x/T^{4i/d})$. It knows nothing but the two **differences**, counted in fractions of
# the picture.

# %%
open_map = torch.zeros(1, 16, 16, dtype=torch.bool)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), width_ratios=(1.6, 1, 1))
products = {}
for temperature, colour, axis in ((20, "#0072B2", axes[1]), (10_000, "#D55E00", axes[2])):
    codes = sine_positions(open_map, 128, temperature)[0].flatten(1).T  # (256, 128)
    product = (codes @ codes.T / 64).view(16, 16, 16, 16)  # 1 for a cell with itself
    products[temperature] = product
    along = product[8, 0, 8]  # from the left end of a row to each of its cells
    assert torch.allclose(along[:8], product[3, 5, 3, 5:13], atol=1e-5)  # the same from anywhere
    axes[0].plot(along, "o-", markersize=3, color=colour, label=f"T = {temperature:,}")
    axis.imshow(product[8, 4], cmap="viridis", vmin=0, vmax=1)
    axis.plot(4, 8, "x", color="#D55E00")
    axis.set(title=f"T = {temperature:,}", xticks=[], yticks=[])
axes[0].set(xlabel="cells apart, in one row", ylabel="dot product / (d/2)", ylim=(0.4, 1.02))
axes[0].legend()
show(
    figure,
    "Left: the dot product of two positions falls with their distance and flattens at the end, lower "
    "with T = 20 than with T = 10,000. Right: the product of one cell with all others as a map: a "
    "hill around the cell, steep for T = 20 and flat for 10,000.",
)
near, far = products[20][0, 0, 5, 5].item(), products[20][0, 0, 0, 7].item()
print(f"5 down and 5 along: {near:.2f}; 7 along: {far:.2f}")
print(
    "7 to the left and 7 to the right: the same,",
    products[20][8, 8, 8, 1].allclose(products[20][8, 8, 8, 15]),
)
assert near < far and products[10_000][8, 0, 8, 15] > products[10_000][8, 0, 8, 13]

# %% [markdown]
# A hill around the cell. But it is not simply "the nearer, the higher":
#
# - It is **no function of the distance**: 5 down and 5 along is about as far as 7 along (7.07 cells), and has less.
# - It is **flat at the far end**, and with $T = 10{,}000$ it even rises a little: pair 0 has come once around, and $\cos 2\pi = 1$.
# - **The sign is lost**: cosines do not tell left from right. The projections of queries and keys, which are learned, can turn the pairs and so
#   tell it.
#
# ### Why T = 20
#
# All coordinates end at $2\pi$, however large the map. A pair with $T^{4i/d} = 100$ turns through a hundredth of a circle over the whole picture:
# it hardly tells two cells apart. How many pairs turn by more than a quarter?

# %%
turning = {}
for d, temperature in ((256, 10_000), (128, 10_000), (128, 20)):
    turns = temperature ** -(torch.arange(d // 4) / (d // 4))  # over the whole picture
    turning[d, temperature] = (turns > 0.25).sum().item()
    print(f"d = {d}, T = {temperature:6,}: {turning[d, temperature]:2} of {d // 4} pairs")
assert list(turning.values()) == [10, 5, 15]

# %% [markdown]
# The paper's $T = 10{,}000$ spreads few useful pairs among many that are nearly constant. With the paper's $d = 256$ ten are left for each
# coordinate, and DETR works with them. With the $d = 128$ of `detr-mini` five would be left: so it takes $T = 20$. This is a reason of design:
# the quarter is an arbitrary limit, and nobody has trained `detr-mini` with another $T$ here.
#
# ## The document, put to the test
#
# ### D1 · The feature map has 2048 channels and $H_0/32 \times W_0/32$ cells
#
# Ask a real ResNet-50, with sides that 32 divides and with others.

# %%
torch.manual_seed(SEED)
backbone = ResNetBackbone("resnet50").eval()
for height, width in ((64, 96), (65, 97), (95, 127)):
    with torch.inference_mode():
        last = backbone(as_image_batch(torch.zeros(1, 3, height, width)))[-1].features
    expected = (1, 2048, math.ceil(height / 32), math.ceil(width / 32))
    assert tuple(last.shape) == expected
    cells = f"{last.shape[2]} × {last.shape[3]} cells of {last.shape[1]} channels"
    print(
        f"{height} × {width} pixels: {cells}; divided by 32: {height / 32:.2f} × {width / 32:.2f}"
    )

# %% [markdown]
# **Qualified.** Where 32 does not divide a side, it is rounded *up*. That happens to nearly every photograph: 800 × 1066 pixels become 25 × 34
# cells.
#
# ### D2 · The channels are reduced "by a 1D convolution"
#
# It is a *two-dimensional* convolution with a 1 × 1 kernel. Such a kernel looks at one cell and at nothing beside it. So it should be one
# `Linear` layer, the same for every cell. Is it?

# %%
with torch.inference_mode():
    features = maps[-1].features  # (2, 128, 8, 8)
    by_convolution = model.input_proj(features)
    weight, bias = model.input_proj.weight, model.input_proj.bias
    print("the convolution's weight:", tuple(weight.shape), "= (d, C, 1, 1)")

    cells = features.permute(0, 2, 3, 1)  # channels last: (2, 8, 8, 128)
    by_linear = F.linear(cells, weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    assert torch.allclose(by_convolution, by_linear, atol=1e-4)
    print("equal to one Linear at every cell")
print("in the paper's model:", tuple(full.input_proj.weight.shape))
assert tuple(full.input_proj.weight.shape) == (256, 2048, 1, 1)

# %% [markdown]
# **Corrected.** (A one-dimensional convolution with kernel 1 over the flattened cells would compute the same numbers. But it is not what is
# there, and the words suggest that neighbours are mixed. They are not.) In DETR it brings 2048 channels down to 256: the last line. Here $C$ and $d$ are both
# 128, so nothing is brought down; it stays, as it does in DETR, to mix channels and to make numbers of both signs of what comes out of a ReLU.
#
# ### D3 · The map is converted "into a 1D vector"
#
# One vector would have $d \cdot H \cdot W$ numbers, and a network on it would be tied to one size of picture. What the encoder gets is a
# **sequence** of $H\cdot W$ vectors:

# %%
from einops import rearrange

sequence = rearrange(by_convolution, "b d h w -> b (h w) d")
print("sequence:", tuple(sequence.shape), "= (B, H·W, d)")
row, column = 3, 5
assert torch.equal(sequence[0, row * 8 + column], by_convolution[0, :, row, column])
print(f"the cell in row {row}, column {column} is vector number {row * 8 + column}")

# %% [markdown]
# **Corrected.** Row by row, as one reads. That two vectors were neighbours in a column, 8 apart now, is no longer visible: only the positions
# say it.
#
# ### D10, in part · The spatial encoding "is learned from scratch"
#
# The document says it once, and elsewhere that it is fixed. Count what could learn:

# %%
from minivis.positions import LearnedPositions, SinePositions

for name, positions in (("sine", SinePositions(256)), ("learned", LearnedPositions(256))):
    print(f"{name:8} {count(positions.parameters()):6,} parameters")

# %% [markdown]
# **Corrected, in part.** DETR's default has nothing to learn. The learned ones, an option, are a row table and a column table with 50 entries
# each, so a map of more than 50 cells a side has no code at all. What each of them is worth in training, and what happens without any, is the
# other part: notebook 02 measures it.

# %% [markdown]
# ## Train it: what does a stage know?
#
# Take the vector of the cell in the middle of an object, one vector and nothing else, and ask a linear classifier: *which of six shapes is it?
# Which of eight colours?* This is called a **probe**: the backbone stays as it is, and only one matrix is trained. What a probe finds was there
# to be read.
#
# We ask the pixels themselves (stride 1) and all four stages. And to know what is the merit of *training*, we ask a backbone with random weights
# as well.

# %%
from minivis.experiments.probing import vectors_of_objects


def probe(vectors, labels, is_test, hidden=0, steps=200):
    """Trains one matrix (with `hidden` two) on some vectors; which of the others it names rightly."""
    vectors = (vectors - vectors[~is_test].mean(0)) / (vectors[~is_test].std(0) + 1e-5)
    sizes = [vectors.shape[1], *[hidden] * bool(hidden), int(labels.max()) + 1]
    net = torch.nn.Linear(sizes[0], sizes[1])
    if hidden:
        net = torch.nn.Sequential(net, torch.nn.ReLU(), torch.nn.Linear(sizes[1], sizes[2]))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01 if hidden else 0.05)
    matrices = [weight for weight in net.parameters() if weight.ndim == 2]
    for _ in range(steps):
        loss = F.cross_entropy(net(vectors[~is_test]), labels[~is_test])
        loss = loss + 1e-3 * sum(matrix.square().sum() for matrix in matrices)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net(vectors[is_test]).argmax(1) == labels[is_test]


torch.manual_seed(SEED)
blank = minivis.detr.detr_mini(num_classes=6).eval()
seen, knows = {}, {}
for name, backbone in (("trained", model.backbone), ("random weights", blank.backbone)):
    seen[name] = found = vectors_of_objects(backbone)
    is_test = found.scenes >= 350  # objects of other scenes
    for question, labels in (("shape", found.shapes), ("colour", found.colours)):
        knows[name, question] = [
            probe(level, labels, is_test).float().mean().item() for level in found.levels
        ]
print(f"{(~is_test).sum()} objects to learn from, {is_test.sum()} others to be asked about")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axis, question, classes in zip(axes, ("shape", "colour"), (6, 8), strict=True):
    for name, colour, style in (("trained", "#0072B2", "o-"), ("random weights", "#999999", "s--")):
        axis.plot(
            range(5),
            [100 * share for share in knows[name, question]],
            style,
            color=colour,
            label=name,
        )
    axis.axhline(100 / classes, color="#D55E00", linewidth=1, linestyle=":", label="chance")
    axis.set(title=f"Which {question}?", xlabel="stride", ylim=(0, 100))
    axis.set_xticks(range(5), ["pixels", *model.backbone.strides])
axes[0].set_ylabel("% right")
axes[1].legend(loc="lower left", bbox_to_anchor=(0, 0.2))
show(
    figure,
    "Two charts over the pixels and the four stages. Shape: the trained backbone rises from near "
    "chance to almost always right, random weights stay low. Colour: the trained backbone falls from "
    "high to chance, random weights keep half of it or more.",
)
shape, colour = knows["trained", "shape"], knows["trained", "colour"]
assert shape[-1] > 0.85 and shape[0] < 0.4 and max(knows["random weights", "shape"]) < 0.65
assert colour[0] > 0.7 and colour[-1] < 0.35 and knows["random weights", "colour"][-1] > 0.4

# %% [markdown]
# Read the two curves against each other.
#
# - **Shape comes with depth.** A pixel knows next to nothing of the shape it lies in, and the first stage little. At stride 8 and 16, one cell's
#   vector names it nearly always. Not because of depth alone: random weights never get there.
# - **Colour goes, all at once.** The stages of stride 2 and 4 have it; at stride 8 a linear probe reads little of it, and from the last map no
#   more than a guess. Random weights still let it read half of the colours. So it is *training* that hides it: a detector of shapes has no use
#   for colours.
#
# It is the second half that people forget. A network keeps what its task asks for, and need not keep the rest. Whoever wants to ask a detector's
# backbone for something new must look into its earlier stages, or train it.
#
# Two things should make you suspicious. *Is colour gone, or only too tangled for one matrix?* And *why are colours not read off the pixels in 100 %
# of the cases?* The objects have flat colours, after all. Think about the second one before you run on: in which objects does the question go
# wrong?

# %% tags=["nbval-ignore-output"]
asked = seen["trained"]
torch.manual_seed(SEED)
two_layers_read = probe(asked.levels[-1], asked.colours, is_test, hidden=128).float().mean().item()
most_frequent = asked.colours[is_test].bincount().max().item() / is_test.sum().item()
print("colours read off pixels and strides 2 to 16:", ", ".join(f"{c:.0%}" for c in colour))
print(f"off the last map with two layers: {two_layers_read:.0%}")
print(f"(an eighth is {1 / 8:.0%}; always the most frequent colour: {most_frequent:.0%})\n")
assert two_layers_read < 0.3 and colour[2] > 0.5 > 0.35 > colour[3]

by_pixel = {
    question: probe(asked.levels[0], labels, is_test)
    for question, labels in (("colour", asked.colours), ("shape", asked.shapes))
}
print("read off the pixel in the middle: colour, shape")
for label, name in enumerate(model.class_names):
    of_these = asked.shapes[is_test] == label
    colour, shape = (by_pixel[question][of_these].float().mean() for question in ("colour", "shape"))
    print(f"  {name:8} {colour:4.0%} {shape:4.0%}")
    assert colour < 0.3 if name == "ring" else colour > 0.9

# %% [markdown]
# <details><summary>What is wrong with the question</summary>
#
# The middle of a **ring** is its hole. What lies there is the ground, which says nothing of the ring's colour, but says well that this is a ring:
# a colour that no object has. So the probe was asked at the wrong pixel for one shape of six, and the little that pixels "know" of shape comes
# from there too. A probe answers the question that was put, not the one that was meant: look at its answers class by class.
# </details>
#
# A second layer does not bring the colours back, either. That does not prove that they are gone: only that neither of two readers found them.
#
# ### Does a cell know where it lies?
#
# Positions are added because a cell does not know its place. Is that so? Convolutions do the same everywhere. But at the border they read the
# zeros that are put there. Show the backbone a picture that is one grey, so that nothing in it tells one place from another; then ask a probe for
# the column of cells in real scenes.

# %% tags=["nbval-ignore-output"]
with torch.inference_mode():
    grey = model.backbone(as_image_batch(torch.zeros(1, 3, 128, 128)))[-1].features[0]
    vectors = model.backbone(as_image_batch(pixels))[-1].features.permute(0, 2, 3, 1).flatten(0, 2)
apart = (grey - grey[:, 4:5, 4:5]).norm(dim=0) / grey[:, 4, 4].norm()
print(f"one grey: from the middle cell the corner differs by {apart[0, 0]:.0%},")
print(f"and the middle cell's neighbour by {apart[4, 3]:.0%}")

column = torch.arange(8).repeat(100 * 8)
is_test = torch.arange(100).repeat_interleave(64) >= 70
torch.manual_seed(SEED)
right = probe(vectors, column, is_test).float()
named = [right[column[is_test] == c].mean().item() for c in range(8)]
print(
    "column named rightly:", " ".join(f"{share:.0%}" for share in named), f"(chance: {1 / 8:.0%})"
)
assert apart[0, 0] > 0.5 > 2 * apart[4, 3]
assert min(named[0], named[-1]) > 0.9 and max(named[3:5]) < 0.45

# %% [markdown]
# The outer columns give themselves away, by the padding of the convolutions, and it wears off inwards: of the middle two it is hardly more than a
# guess. That answers "why
# positions at all?": what a cell knows by itself is whether a border is near, and a box needs more. (It is also what you saw in the widget: in a
# corner those channels are high that light up along borders.)
#
# ### Three ways to go on
#
# This page trained probes only; its backbone had been trained as a part of the detector. To train one yourself:
#
# | where | what | takes |
# | --- | --- | --- |
# | here, on a CPU | the backbone of this page with its detector, from random weights: `minivis train detr-mini --out runs/mine`. Then ask `minivis.load("runs/mine").backbone` by the probes above | about an hour on one core |
# | a GPU, for example Colab's | your own pictures, from the released ResNet-50 that stays as it is: `minivis train detr-r50-finetune --data DIR --set freeze=backbone` | an hour or two, an estimate: not measured on a GPU |
# | several GPUs and COCO | the paper's recipe, from ImageNet weights: `minivis train detr-r50-coco --data COCO`. With `--set model.dilation=true` its last stage keeps stride 16 ("DC5") | three days on 16 GPUs in the paper; DC5 costs about twice the computation |
#
# `minivis recipes detr-r50-coco` prints every field of a recipe.

# %% [markdown]
# ## Break it
#
# Now take away, one by one, what this page has built, and let `detr-mini` detect in 100 scenes. How many points of AP does each cost? (AP is 1 for
# perfect answers, and a point is 0.01; notebook 05 builds it.)
#
# The code needs a few words that notebooks 03 and 04 explain. The transformer gives a fixed number of *answers*, one for each *query*, a learned
# vector (they are in `query_embed`). `heads` makes of each answer a row of `pred_logits`, a number for each class and a last one for "no object",
# and a row of `pred_boxes`: centre and size, as fractions of the picture. `softmax` makes probabilities, `[:, :-1]` drops "no object", and an answer
# is called *sure* if one of the others is above 0.5.
#
# ### Without positions, and with mirrored ones
#
# **Guess first:** zeros in the place of positions, and then positions with right and left swapped. Which costs more? And will objects still be
# *named*?

# %% tags=["nbval-ignore-output"]
from minivis.experiments.matching import average_precision
from minivis.positions import NoPositions


class Mirrored(torch.nn.Module):
    def forward(self, padding_mask):
        return sine_positions(padding_mask, 128, 20).flip(3)


def detect(images, positions=None):
    usual, model.positions = model.positions, positions or model.positions
    with torch.inference_mode():
        outputs = model(images)
    model.positions = usual
    return outputs


def lost_and_too_many(outputs):
    """Objects without a sure answer of their class; sure answers for which no object is left."""
    more = []  # sure answers less objects, of each class in each scene
    for probabilities, target in zip(outputs["pred_logits"].softmax(-1), targets, strict=True):
        sure, label = probabilities[:, :-1].max(-1)
        more.append(label[sure > 0.5].bincount(minlength=6) - target["labels"].bincount(minlength=6))
    more = torch.stack(more)
    return -more.clamp(max=0).sum().item(), more.clamp(min=0).sum().item()


answers, ap, named = {}, {}, {}


def report(**variants):
    for name, outputs in variants.items():
        name = name.replace("_", " ")
        answers[name], ap[name] = outputs, average_precision(outputs, targets, scenes)["AP"]
        named[name] = lost_and_too_many(outputs)
        lost, extra = named[name]
        print(f"{name:20} AP {ap[name]:.2f}; {lost:3} objects lost, {extra:3} answers too many")


print(sum(len(target["labels"]) for target in targets), "objects")
report(
    as_it_should_be=detect(pixels),
    no_positions=detect(pixels, NoPositions(128)),
    mirrored_positions=detect(pixels, Mirrored()),
)
assert ap["as it should be"] > 0.7 and max(ap["no positions"], ap["mirrored positions"]) < 0.1
assert 80 < named["no positions"][0] < 130 and named["mirrored positions"][0] < 20
assert named["no positions"][1] > 2 * named["as it should be"][1]
assert named["mirrored positions"][1] > 2 * named["as it should be"][1]

# %% [markdown]
# Both are fatal. They differ in the names: without positions about a quarter of the objects is lost, and others are named twice. With mirrored ones
# hardly any is lost, but many are named twice.
#
# ### With other pixels
#
# **Guess:** forget mean and standard deviation (pixels in 0..1, as `ToTensor` gives them, or in 0..255), or swap red and blue (BGR, as OpenCV reads
# files). Fatal as well?

# %% tags=["nbval-ignore-output"]
bytes_ = model.image_transform.denormalise(pixels).float()
mean, std = (
    torch.tensor(v)[:, None, None] for v in (model.image_transform.mean, model.image_transform.std)
)
report(
    pixels_in_0_to_1=detect(bytes_ / 255),
    pixels_in_0_to_255=detect(bytes_),
    mean_subtracted_only=detect(bytes_ / 255 - mean),
    divided_by_std_only=detect(bytes_ / 255 / std),
    BGR=detect(pixels.flip(1)),
)


def black_border(conv, inputs, output):
    black = -mean / std
    return F.conv2d(F.pad(inputs[0] - black, (1, 1, 1, 1)) + black, conv.weight, stride=2)


hook = model.backbone.stages[0][0][0].register_forward_hook(black_border)
report(border_of_black=detect(pixels))
hook.remove()
usual = ap["as it should be"]
assert max(ap["pixels in 0 to 1"], ap["divided by std only"]) < usual - 0.05
assert abs(ap["mean subtracted only"] - usual) < 0.02 and 0.02 < usual - ap["BGR"] < 0.3
assert 0.01 < usual - ap["border of black"] < 0.06

# %% [markdown]
# No: AP falls by about 0.1. That is the dangerous kind, for such a detector looks healthy.
#
# What costs is the **mean**, all of it. A wrong *scale* costs nothing here, since group norm divides it out after the first convolution; and the
# three deviations are so much alike that they are one scale. A *shift* does not go away like that. It moves every channel by an amount of its own,
# and the norm takes one mean from four channels together. And it makes the border wrong: the zeros that a convolution puts there are no longer the
# mean colour, but black. The last line has that alone, with usual pixels: about a quarter of the loss. (A frozen batch norm multiplies by a constant, so it would hand a wrong scale on as well.)
#
# ### With padding
#
# Each scene into the corner of a picture of 160 pixels: once with its mask, and once nobody says so. **Guess** what the boxes of the second kind
# look like: 128 is 0.8 of 160. Are their centres off by that factor? Their sizes?

# %% tags=["nbval-ignore-output"]
from minivis.images import ImageBatch


def padded_to(side, marked):
    large = torch.zeros(len(pixels), 3, side, side)
    large[:, :, :128, :128] = pixels
    mask = torch.zeros(len(pixels), side, side, dtype=torch.bool)
    if marked:
        mask[:, 128:, :], mask[:, :, 128:] = True, True
    return ImageBatch(large, mask)


def only_ones(outputs):
    """{(scene, class): box}, where exactly one answer surer than 50 % has that class."""
    found = {}
    for i, probabilities in enumerate(outputs["pred_logits"].softmax(-1)):
        sure, label = probabilities[:, :-1].max(-1)
        for c in range(6):
            mine = (sure > 0.5) & (label == c)
            if mine.sum() == 1:
                found[i, c] = outputs["pred_boxes"][i, mine][0]
    return found


class CountsTwoMore(torch.nn.Module):
    """Positions as if there were two more rows and columns of cells, 10 instead of 8."""

    def forward(self, padding_mask):
        return sine_positions(F.pad(padding_mask, (0, 2, 0, 2)), 128, 20)[:, :, :8, :8]


report(
    padding_with_mask=detect(padded_to(160, marked=True)),
    padding_no_mask=detect(padded_to(160, marked=False)),
    positions_alone=detect(pixels, CountsTwoMore()),  # no padding at all
)
before = only_ones(answers["as it should be"])
for name in ("padding no mask", "positions alone"):
    after = only_ones(answers[name])
    both = sorted(before.keys() & after.keys())
    ratios = torch.stack([after[key] / before[key] for key in both])  # of cx, cy, w, h
    centres, sizes = ratios[:, :2].median().item(), ratios[:, 2:].median().item()
    print(f"\n{name}: {len(both)} shapes; sizes × {sizes:.2f}, centres × {centres:.2f}")
    for factor in (1.25, 1 / centres):
        stretch = torch.tensor([factor, factor, 1, 1])
        repaired = answers[name] | {"pred_boxes": answers[name]["pred_boxes"] * stretch}
        value = average_precision(repaired, targets, scenes)["AP"]
        print(f"  with centres × {factor:.2f}: AP {value:.2f}")
    assert 0.97 < sizes < 1.03 and 0.74 < centres < 0.79 and value > 0.5  # the last: × 1/centres
assert ap["padding with mask"] > 0.5 and ap["padding no mask"] < 0.1

# %% [markdown]
# **The centres are pulled towards the upper left corner, by about the share of the padding. The sizes stay right.** So this model reads a *size* off
# the features and a *place* off the positions, which count the padding in. *Positions alone* prove it: no padding there, only positions that
# count two cells too many, and the same happens. Stretch the centres back by what was measured, and most of the AP returns.
#
# Why 0.77, and not the 0.80 that you may have guessed? In part because positions count from 1: cell $j$ of 8 has its middle at $(j + 0.5)/8$ of the
# picture, and its position says $(j+1)/8$. So the model takes away a sixteenth from what it reads, also when that is 0.8 of what it should be:
# 0.5 becomes $0.8 \cdot (0.5 + 0.0625) - 0.0625 = 0.3875$, which is 0.775 of it. What is still missing to the AP with a mask is not explained.
#
# ### The symptoms in one scene
#
# Answers surer than 50 %. From the left: as it should be; no positions; mirrored positions; padding that nobody marked.

# %%
from minivis.detr import postprocess
from minivis.evaluation.draw import draw_detections, draw_grid

drawn, EXAMPLE = [], 3
for name in ("as it should be", "no positions", "mirrored positions", "padding no mask"):
    one = {key: answers[name][key][EXAMPLE, None] for key in ("pred_logits", "pred_boxes")}
    (found,) = postprocess(one, [(128, 128)])
    drawn.append(draw_detections(scenes.scene_image(EXAMPLE), found, model.class_names))
show(
    draw_grid(drawn, columns=4),
    "One scene with the boxes that four versions draw: as it should be; without positions, the cross "
    "is lost, the square is named twice, and all boxes lie elsewhere; with mirrored positions, boxes "
    "lie on the other side, and two objects are named twice; with unmarked padding, boxes have the "
    "right size and lie too far up and left.",
)

# %% [markdown]
# | symptom | look at |
# | --- | --- |
# | objects lost, others named twice, boxes anywhere | positions: missing, or not added |
# | names right but some twice, boxes mirrored (or x and y swapped) | order of y and x in the positions |
# | sizes right, centres pulled towards the left upper corner, the more so the more a picture was padded | the mask does not reach the positions |
# | AP lower by some points, everything looks fine | mean and std, order of colours, 0..1 or 0..255 |
# | AP depends on which pictures share a batch | padding that enters a norm, or attention that reads padded cells |
#
# ### Where the mask is needed
#
# It is used twice on the way to the transformer's answer: attention must not read padded cells, and positions must not count them. Take away
# each by itself:

# %%


def answer(features, read_as_padding, counted_as_padding):
    """The transformer's answer; what attention leaves out, and what positions do."""
    decoded, _ = model.transformer(
        model.input_proj(features),
        read_as_padding,
        model.query_embed.weight,
        model.positions(counted_as_padding),
    )
    return model.heads(decoded)


with torch.inference_mode():
    features, mask = model.backbone(padded_to(160, marked=True))[-1]
    nowhere = torch.zeros_like(mask)
    for name, masks in (
        ("both know", (mask, mask)),
        ("only positions know", (nowhere, mask)),
        ("only attention knows", (mask, nowhere)),
        ("nobody knows", (nowhere, nowhere)),
    ):
        ap[name] = average_precision(answer(features, *masks), targets, scenes)["AP"]
        print(f"{name:20} AP {ap[name]:.2f}")
        assert (ap[name] < 0.1) == (masks[1] is nowhere)
assert 0.04 < ap["both know"] - ap["only positions know"] < 0.12

# %% [markdown]
# Positions matter most. If they count the padding, a cell at the picture's right end says "0.8 of the way", and the model believes it.
#
# In a third place it is not a mask that is needed, but the picture's *size*: boxes are fractions of the picture without its padding, and whoever
# turns them into pixels must multiply by that.
#
# Attention that reads padding costs about eight points. How much of the picture's own cells' looking goes there?

# %%
from minivis.attention import record_attention

with torch.inference_mode(), record_attention(model) as attention:
    answer(features, nowhere, mask)
own = ~mask[0].flatten()  # all of these pictures are padded alike
print(f"{(~own).float().mean():.0%} of the cells are empty")
for name, weights in attention.items():
    if weights.shape[-1] == 10 * 10:  # over the cells: 8 × 8 of them are the picture's
        looks = weights.mean((0, 1))  # (cells or queries, cells)
        if len(looks) == 10 * 10:
            looks = looks[own]  # what padded cells look at, nobody reads
        share = looks[:, ~own].sum(1).mean().item()
        layer = name.removeprefix("transformer.").replace(".layers.", " layer ").replace(".", ", ")
        print(f"{layer:28} {share:4.0%} of the attention on empty cells")
        assert ("encoder" in name) == (share > 0.1)

# %% [markdown]
# The decoder's queries hardly look there. But in the encoder every cell spends a fifth to a third of its attention on nothing.
#
# With the mask it is 0, exactly: padded cells get the logit $-\infty$ before the softmax. And then the transformer does not see padding *at
# all*. Put nonsense into the padded cells of the map, and nothing happens:

# %%
with torch.inference_mode():
    level = model.backbone(as_image_batch(pixels))[-1].features
    wide = F.pad(level, (0, 4, 0, 6), value=100.0)  # four more columns and six more rows
    mask = F.pad(torch.zeros(len(pixels), 8, 8, dtype=torch.bool), (0, 4, 0, 6), value=True)
    boxes = answer(wide, mask, mask)["pred_boxes"]
assert torch.allclose(boxes, answers["as it should be"]["pred_boxes"], atol=1e-3)
print("the same boxes")

# %% [markdown]
# So why did padding cost some AP even with its mask? Because of the backbone, in one of two ways: group norm lets padding into the mean of every
# cell, and convolutions near the border read it. Take the first away:

# %% tags=["nbval-ignore-output"]


def norm_of_the_picture(norm, inputs, output):
    """Mean and deviation over the picture's own cells alone: 128 of 160 pixels, 4 of 5 cells."""
    groups = inputs[0].unflatten(1, (norm.num_groups, -1))  # (B, groups, channels, H, W)
    side = groups.shape[-1] * 4 // 5
    own = groups[..., :side, :side]
    var, mean = torch.var_mean(own, (2, 3, 4), correction=0, keepdim=True)
    normal = ((groups - mean) / (var + norm.eps).sqrt()).flatten(1, 2)
    return normal * norm.weight[:, None, None] + norm.bias[:, None, None]


norms = [part for part in model.backbone.modules() if isinstance(part, torch.nn.GroupNorm)]
hooks = [norm.register_forward_hook(norm_of_the_picture) for norm in norms]
report(norm_of_the_picture=detect(padded_to(160, marked=True)))
for hook in hooks:
    hook.remove()
loss = ap["as it should be"] - ap["padding with mask"]
assert loss / 2 < ap["norm of the picture"] - ap["padding with mask"] < loss

# %% [markdown]
# Group norm first: with means and deviations over the picture alone, more than half of the loss is gone. The rest is the convolutions'. This is
# why `minivis` evaluates pictures of one size together.

# %% [markdown]
# ## Look inside: what makes a channel fire
#
# For each class, take the channel of the last map that tells it best from the others (highest mean at its objects, in standard deviations). Then
# look through 300 scenes for the five cells where that channel is highest, in five different scenes, and cut out what lies there.

# %%
last, shapes = seen["trained"].levels[-1], seen["trained"].shapes
last = (last - last.mean(0)) / (last.std(0) + 1e-5)
best = [int(last[shapes == label].mean(0).argmax()) for label in range(6)]

with torch.inference_mode():
    many = scenes.prepare(scenes.collate([scenes[i] for i in range(300)])).images
    fired = model.backbone(many)[-1].features[:, best]  # (300, 6, 8, 8)

figure, axes = plt.subplots(6, 6, figsize=(6.5, 6), width_ratios=(1.6, *[1] * 5))
for label, line in enumerate(axes):
    line[0].text(0, 0.5, f"{model.class_names[label]}\nchannel {best[label]}", va="center")
    line[0].set_axis_off()
    per_scene, cell = fired[:, label].flatten(1).max(1)
    for axis, i in zip(line[1:], per_scene.argsort(descending=True)[:5].tolist(), strict=True):
        y, x = 16 * (cell[i] // 8).item(), 16 * (cell[i] % 8).item()
        picture = model.image_transform.denormalise(F.pad(many.pixels[i], (32, 32, 32, 32)))
        around = picture[:, y : y + 64, x : x + 64]  # 64 × 64 pixels around the cell's first
        axis.imshow(around.permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
show(
    figure,
    "Six rows of five cut-outs, one row for each class: the places where the channel that tells the "
    "class best fires highest. Most show the class, in different colours and sizes.",
)

# %% [markdown]
# Different colours, different grounds, mostly the same shape: what the probe said in numbers. Not always, though: look for the strangers. **And
# what this does not prove:**
#
# - Five *highest* cells are not typical ones. Most of what a channel does is small values, and they matter as well.
# - That a channel fires for stars does not mean that the detector finds stars by it. The 1 × 1 projection mixes all 128 at once, so what counts
#   are directions in the space, and a single channel is only one of them.
# - The bright pixels of the widget say what would *change* the cell, to first order. They do not say what the cell "is about".

# %% [markdown]
# Your own picture goes in as well: `FeatureExplorer(model, Image.open("yours.jpg"))`. A large one is brought down to 256 pixels, which takes several
# times as long as this page's widget did; with `longest_side=128` to what this small model was trained on, and quicker.
#
# ## Real weights
#
# The same widget on the last map of the paper's own ResNet-50 and a photograph: 25 × 38 cells of 2048 channels. What moves a cell is *not*
# measured there: it takes one backward pass through the whole ResNet for each of the 950 cells. So the light square is what the convolutions
# reach, 427 pixels, and the widget says so. (With `longest_side=384` there are 96 cells, and they are measured, in half a minute.) Without a
# network the next cell says so and goes on.

# %% tags=["nbval-ignore-output"]
from IPython.display import display
from PIL import Image
from skimage import data

from minivis.widgets import FeatureExplorer

# wanted=True downloads 160 MB
released = minivis.load_released("facebook/detr-resnet-50", wanted=False)

if released is not None:
    display(FeatureExplorer(released, Image.fromarray(data.chelsea()), levels=[-1]))


# %% [markdown]
# ## Exercises
#
# Five functions to write, about 45 minutes in all. Fill in a stub, run it, and run the cell below it. The check runs your function on small
# inputs and says what to look at. It knows the mistakes that most people make. Solutions are in `solutions/01_detr_backbone.py`.
#
# ### Exercise 1: how many cells (5 minutes)
#
# A stage is a 3 × 3 convolution with stride 2 and padding 1, in both directions. How many cells does a side of so many pixels have after so many
# stages?
#
# <details><summary>A hint</summary>
#
# On which pixels does the kernel's middle stand, on a side of 4 pixels, and of 5?
# </details>

# %%
def cells(pixels, stages):
    """How many cells a side of `pixels` pixels has after `stages` stages: a whole number."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_cells

check_cells(cells)


# %% [markdown]
# ### Exercise 2: which cells the padding does not reach (15 minutes)
#
# A row of so many pixels is the picture, and all that lies to the right of it is padding. A network goes over it, with norms that are frozen: a list
# of layers, each a pair (kernel, stride), with odd kernels centred as on this page. How many of its cells read *no* padding?
#
# Before you write it, work out two on paper: the two layers and nine pixels of "By hand", with padding from pixel 9 on; and DETR's ResNet-50
# (427 pixels, stride 32) with a picture 800 pixels wide.
#
# <details><summary>What you should have found</summary>
#
# **2** of the 3: they are centred on pixels 0, 4 and 8, and see 3 pixels to either side. **19** of the 25: the field reaches 213 pixels to the
# right, and $799 - 213 = 586$, which is $18 \cdot 32 + 10$. (And of a picture of 200 pixels: none.)
# </details>
#
# <details><summary>A hint</summary>
#
# Go through the list with two numbers, how far a cell sees and how many pixels lie between neighbours. Then ask which cell is the last whose
# field ends inside.
# </details>

# %%
def untouched(pixels, layers):
    """How many cells read no padding. layers: (kernel, stride) pairs, from the picture on."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_untouched

check_untouched(untouched)


# %% [markdown]
# ### Exercise 3: a batch norm that has stopped learning (5 minutes)
#
# Write frozen batch norm. For each channel, with $\varepsilon = 10^{-5}$:
#
# $$y = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}\,\gamma + \beta$$
#
# <details><summary>A hint</summary>
#
# If PyTorch complains about shapes: (C,) does not line up with (B, C, H, W). `mean[:, None, None]` has shape (C, 1, 1), and does.
# </details>

# %%
def frozen_batch_norm(x, mean, var, weight, bias):
    """(B, C, H, W). x: (B, C, H, W); the others (C,): stored mean and variance, gain γ, offset β."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_frozen_batch_norm

check_frozen_batch_norm(frozen_batch_norm)


# %% [markdown]
# ### Exercise 4: where a cell lies in its own picture (10 minutes)
#
# From the padding mask of one picture, compute $y$ and $x$ of each cell. Count the cells that are inside, from 1; divide by the last count of
# the column (for $y$) or the row (for $x$), plus $10^{-6}$ so that nothing is divided by 0; multiply by $2\pi$. Padded cells keep whatever comes
# out.
#
# <details><summary>A hint</summary>
#
# `cumsum` counts, if what is inside is 1 and what is padded is 0. And if PyTorch complains about shapes: `x[:, -1]` has lost an axis, and
# `x[:, -1:]` keeps it, so that (H, W) / (H, 1) lines up.
# </details>

# %%
def coordinates(padding_mask):
    """(y, x), each (H, W), up to 2π. padding_mask: (H, W) bool, True where padded (right and below)."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_coordinates

check_coordinates(coordinates)


# %% [markdown]
# ### Exercise 5: what two cells' positions have in common (10 minutes)
#
# Given the padding mask of one picture and two of its cells, each (row, column), find the dot product of their sine positions, divided by $d/2$ (so
# that it is 1 for a cell with itself). There are $P = d/4$ pairs for each coordinate, and pair $i$ is slower by $T^{\,i/P}$. It can be done without
# a single sine.
#
# Then think: what would be lost if positions had only the sines?
#
# <details><summary>A hint</summary>
#
# $\sin a \sin b + \cos a \cos b = \cos(a-b)$. By how much do the two cells' $y$ differ, if the picture is so many rows high, and the padding does not
# count?
# </details>
#
# <details><summary>What would be lost</summary>
#
# That it is a function of the differences. $\sin a \sin b$ alone depends on where the two cells lie.
# </details>

# %%
def dot_product(padding_mask, one, other, pairs, temperature):
    """A number. padding_mask: (H, W) bool, True where padded; one, other: (row, column), not padded."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_dot_product

check_dot_product(dot_product)

# %% [markdown]
# ## In short
#
# - A backbone turns pixels into a map of $\lceil H_0/s\rceil \times \lceil W_0/s\rceil$ cells. Each *can* see a large square; most of what moves
#   it lies near its own patch.
# - With depth, features gain what the task asks for (shape); what it does not (colour) our probes could no longer read off the last map.
# - Batch norm makes a picture depend on the others in its batch. DETR freezes it, which needs pretrained averages. From nothing, take group norm,
#   and mind the padding.
# - A 1 × 1 convolution is a `Linear` at each cell; flattening gives a sequence of $H \cdot W$ vectors.
# - The padding mask is needed in two places, attention and positions, and the picture's own size where boxes become pixels. Positions that count
#   padding pull boxes towards the corner and leave their sizes alone.
# - By itself a cell knows little more than whether a border is near. Sine positions tell it the rest, without parameters. Their dot product depends
#   on the differences in $y$ and $x$ only, as fractions of the picture; near cells have more in common, but it is no measure of distance.
#
# ### What became of the document's claims

# %%
from minivis.widgets import show_claims

show_claims("D1", "D2", "D3", "D10")

# %% [markdown]
# ## Quiz
#
# Open the answer you would give.

# %% [markdown]
# **1. DETR's last map has a receptive field of 427 × 427 pixels. You paint over an object 200 pixels from a cell. What happens to it?**
#
# <details><summary>a) Nothing: it lies outside of the cell's 32 × 32 patch</summary>
#
# **Not quite.** Fields overlap, and reach far beyond the patch.
# </details>
#
# <details><summary>b) It may change, but probably by little</summary>
#
# **Right.** 200 is within 213, half of the field. But most of what moves a cell lies much nearer: you have measured it for `detr-mini`.
# </details>
#
# <details><summary>c) It changes as much as if a nearer object were painted over</summary>
#
# **Not quite.** There are far more paths from the middle of the field than from its rim.
# </details>

# %% [markdown]
# **2. You build a ResNet-101 with frozen batch norm and random weights. Its last features are some twenty thousand times as large as its first. Why?**
#
# <details><summary>a) The batch is too small for its statistics</summary>
#
# **Not quite.** Frozen batch norm looks at no batch at all.
# </details>
#
# <details><summary>b) Frozen layers cannot learn</summary>
#
# **Not quite.** True for the norms, but nothing has been trained yet. What do they compute from the first picture on?
# </details>
#
# <details><summary>c) Its stored statistics are zeros and ones, so it normalises nothing, and features grow from block to block</summary>
#
# **Right.** Start from pretrained weights, or take group norm.
# </details>

# %% [markdown]
# **3. Pictures of several sizes are batched without a mask, for a model that works as `detr-mini` does. The boxes in the smaller ones come out...**
#
# <details><summary>a) of the right size, but too near to the left upper corner</summary>
#
# **Right.** Places are read off the positions, and those count the padding. Sizes are read off the features.
# </details>
#
# <details><summary>b) too small, and too near to the left upper corner</summary>
#
# **Not quite.** So it would be if everything were a fraction of the padded picture. But what tells a size?
# </details>
#
# <details><summary>c) right, but with lower scores</summary>
#
# **Not quite.** The model cannot know where the picture ends, so how should it know how far a cell is along?
# </details>
#
# <details><summary>d) right, since zeros add nothing</summary>
#
# **Not quite.** A zero is the mean colour. It adds grey ground, cells to attend to, and length to the positions.
# </details>

# %% [markdown]
# **4. How many parameters do sine positions add to DETR?**
#
# <details><summary>a) None</summary>
#
# **Right.** They are computed from the mask.
# </details>
#
# <details><summary>b) d for each cell of the map</summary>
#
# **Not quite.** That would be a table of learned positions, tied to one size of map.
# </details>
#
# <details><summary>c) d/2 for each row and d/2 for each column</summary>
#
# **Not quite.** Those are the learned positions that DETR has as an option.
# </details>

# %% [markdown]
# ## References
#
# - Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko: *End-to-End Object Detection with Transformers*, ECCV 2020. Sections 3.2 and 4,
#   appendix A.4.
# - He, Zhang, Ren, Sun: *Deep Residual Learning for Image Recognition*, CVPR 2016.
# - Luo, Li, Urtasun, Zemel: *Understanding the Effective Receptive Field in Deep Convolutional Neural Networks*, NeurIPS 2016.
# - Ioffe, Szegedy: *Batch Normalization*, ICML 2015. Wu, He: *Group Normalization*, ECCV 2018.
# - Vaswani et al.: *Attention Is All You Need*, NeurIPS 2017. Section 3.5: sine positions.
# - Alain, Bengio: *Understanding intermediate layers using linear classifier probes*, 2016.
#
# **Next:** notebook 02 takes the sequence into the encoder, and shows what attention does with it.

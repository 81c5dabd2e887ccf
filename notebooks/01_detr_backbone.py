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
# DETR's transformer never sees a pixel. It reads a few dozen or a few hundred vectors, and everything the detector will ever say must be in
# them. This page is about where they come from. When you have finished it you can
#
# 1. say how many cells a feature map has, how far each of them sees, and how much less it really looks at;
# 2. build a stage of a backbone, and tell what deeper stages know that shallower ones do not;
# 3. explain why DETR freezes its batch norm, and what goes wrong when it is frozen too early;
# 4. batch pictures of different sizes, and name the three places where the padding mask is needed;
# 5. build sine positions by hand, and read distances off their dot products.
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
# Here is a scene as a trained detector's transformer gets it: an 8 × 8 grid, and in each cell 128 numbers. **What does one cell know?**
#
# Point at cells. The picture is bright where a pixel moves the cell's numbers, and dim where it does not. On the right are the eight channels
# that are highest there, each as a map of its own.
#
# - Put the cell on an edge of the ring, then into the middle of the large circle. Which channels change?
# - Go from stride 16 to 8, 4 and 2. Where do the maps begin to look like the picture?
# - The dashed square is the *receptive field*: all that the cell's convolutions can reach. At stride 16 it is larger than the picture. Is it all
#   used?

# %%
from minivis.data.scenes import load_shipped_scenes
from minivis.widgets import FeatureExplorer

model = minivis.load("detr-mini")
scenes = load_shipped_scenes()

SCENE = 181
explorer = FeatureExplorer(model, scenes.scene_image(SCENE))
explorer

# %% [markdown]
# **Predict before you run on.** Write your answers down.
#
# 1. A cell of the last map stands for 16 × 16 pixels, and its field reaches over the whole picture. What share of the pixels holds half of all
#    that moves it: nearly half, a tenth, or less than a twentieth?
# 2. The detector was trained to name shapes and draw boxes. Nobody asked it for colours. Could you still read an object's colour off the last
#    map?
#
# <details><summary>Answers</summary>
#
# 1. Less than a twentieth. The widget says it in pixels: a few hundred at most, of 16,384. They lie on edges near the cell.
# 2. Hardly. You will measure it in "Train it": the first map has the colour and not the shape, the last one the shape and not the colour. A
#    network that is trained for one thing forgets what it has no use for.
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
# - **The middle counts more.** There are two ways from pixel 3 to cell 1, and one from pixel 1. With more layers there are many more ways to the
#   middle than to the rim.
#
# And a detail that bites people: cell 1 is centred on pixel 4, the *first* of its four pixels 4 to 7, and not on their middle. You have seen it
# in the widget: the dashed square does not lie evenly around the white one.

# %% [markdown]
# ## Build it: one stage
#
# `detr-mini` has four stages. Each halves the resolution by a convolution with stride 2, and refines the result by a residual block (the first
# stage leaves that out):
#
# $$h = \mathrm{ReLU}(\mathrm{norm}(\mathrm{conv}_{3\times3,\ \text{stride}\ 2}(x))), \qquad
# y = \mathrm{ReLU}\bigl(h + \mathrm{norm}(\mathrm{conv}(\mathrm{ReLU}(\mathrm{norm}(\mathrm{conv}(h)))))\bigr)$$
#
# Below are those lines, with the trained weights put in by name.

# %%


def stage(x, weights):
    """(B, C, H, W) -> (B, C', H/2, W/2), rounded up"""

    def conv_norm(x, conv, norm, stride=1):
        x = F.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=1)
        groups = min(32, x.shape[1] // 4)
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
# First by counting, with the rule you found by hand. The package counts along the network's own layers:

# %%
from minivis.detr.receptive_field import effective_field, pixels_with_half, receptive_fields
from minivis.widgets import show_source

show_source(receptive_fields, docstring=False)
print()
for field in receptive_fields(model.backbone):
    print(f"stride {field.stride:2}: a cell sees {field.size} × {field.size} pixels")

# %% [markdown]
# This is the **theoretical** field: beyond it no convolution reaches. How much of it is used? Ask the gradient. If a pixel's value moves by a
# little, by how much does the cell move? Luo et al. (2016) called the answer the **effective** receptive field.
#
# For one cell of each stage, all near the same place of the scene (brighter moves the cell more; the dashes are what was counted):

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
show(
    figure,
    "Four maps of how much each pixel moves one cell, at strides 2, 4, 8 and 16: a bright spot "
    "that grows from stage to stage, and stays far smaller than the dashed field.",
)
assert max(explorer.stages[-1]["half"]) < 0.05 * 128 * 128

# %% [markdown]
# The title of each panel says in how few pixels half of the field lies, its squares added up. (If every pixel trembles a little, half of the
# cell's trembling comes from these.) **For none of the 64 cells of the last map is it more than a twentieth of the picture.** A field as large
# as the picture does not make a cell see the picture. Relations between far apart things are left to the transformer.
#
# Now look closely at the third panel. Outside of the dashes it is not quite dark. Did we count wrongly?

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
# The count is right for the *convolutions*. Group norm subtracts a mean that is taken over the whole map, so every pixel has a small say in
# every cell. Keep this in mind: it will cost us something when pictures are padded.
#
# ## Why DETR's batch norm is frozen
#
# A ResNet normalises with **batch norm**: $y = \frac{x-\mu}{\sqrt{\sigma^2+\varepsilon}}\,\gamma + \beta$, for each channel. In training $\mu$
# and $\sigma^2$ are those of the batch at hand. So what a picture becomes depends on the company it is in. With large batches that hardly
# matters. Detectors take large pictures and few of them: the paper has 4 on each GPU.
#
# How much does it matter? Take one picture, put it into 30 different batches of each size, and see how far its normalised values spread.

# %%
with torch.inference_mode():
    x = model.backbone.stages[1](model.backbone.stages[0](pixels))
    unnormalised = model.backbone.stages[2][0][0](x)  # what a norm gets to see: (100, 128, 16, 16)

sizes, spreads = [2, 4, 8, 16, 32, 64], []
chance = torch.Generator().manual_seed(SEED)
for size in sizes:
    seen = []
    for _ in range(30):
        company = torch.randint(1, 100, (size - 1,), generator=chance).tolist()
        seen.append(F.batch_norm(unnormalised[[0, *company]], None, None, training=True)[0])
    seen = torch.stack(seen)  # (30, 128, 16, 16): the same picture 30 times
    spreads.append((seen.std(0).mean() / seen.std()).item())

figure, axis = plt.subplots(figsize=(5.5, 2.8))
axis.loglog(sizes, [100 * spread for spread in spreads], "o-", color="#0072B2", label="measured")
chance_says = [100 * spreads[0] * 2 * (n - 1) ** 0.5 / n for n in sizes]
axis.loglog(sizes, chance_says, ":", color="#999999", label="√(n − 1) / n")
axis.set(xlabel="pictures in the batch", ylabel="% of the values' spread")
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
# In a batch of two, a picture's features tremble several times as much as in a batch of 64, and for no reason that lies in the picture. (The
# dotted line is pure chance: of $n$ pictures $n-1$ are drawn.) Averages that are collected from such batches are poor as well.
#
# DETR's answer: **stop**. The backbone comes from ImageNet with good averages and gains. They become constants:

# %%
from minivis.detr.backbone import FrozenBatchNorm

show_source(FrozenBatchNorm)

# %% [markdown]
# One multiplication and one addition for each channel, the same for every batch, in training and in evaluation. Constants are not counted as
# parameters. (On the "meta" device a model has shapes and no numbers, so the full-size DETR is built in no time.)

# %%
from minivis.detr import detr_resnet50

with torch.device("meta"):
    full = detr_resnet50()


def count(tensors):
    return sum(tensor.numel() for tensor in tensors)


total = count(full.parameters())
trained = count(p for p in full.parameters() if p.requires_grad)
constants = count(full.backbone.buffers())
print(f"DETR with ResNet-50: {total:,} parameters, {trained:,} of them trained")
print(
    f"not trained: {total - trained:,}, the stem and the first stage, which find edges and colours"
)
print(
    f"constants in its frozen batch norms: {constants:,}, four for each of {constants // 4:,} channels"
)
assert (total, trained) == (41_524_768, 41_302_368)

# %% [markdown]
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
    assert (max(found) > 20 * found[0]) if norm == "frozen" else (max(found) < 10)
axis.set(xlabel="residual block", ylabel="standard deviation")
axis.legend()
show(
    figure,
    "Size of the features after each residual block of untrained ResNets, logarithmic: with frozen "
    "batch norm it grows with every block, most in ResNet-101; with group norm it stays near one.",
)

# %% [markdown]
# So: frozen batch norm belongs to *pretrained* weights. Whoever trains from nothing takes a norm that does its own work. `detr-mini` has **group
# norm** (Wu and He, 2018): mean and spread of a group of channels of *one* picture. Company does not matter to it, so batches may be as small as
# you like. What it costs comes next.
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
# as the smaller one of a batch, in two ResNets of random weights. In the corner that lies farthest from the padding:

# %%
alone = as_image_batch(pixels[:1])
padded = as_image_batch([pixels[0], torch.zeros(3, 256, 256)])
for norm in ("frozen", "group"):
    torch.manual_seed(SEED)
    backbone = ResNetBackbone("resnet18", norm).eval()
    with torch.inference_mode():
        before, after = backbone(alone), backbone(padded)
    # The second stage's field, 99 pixels, does not reach from the corner cell to the padding.
    corner_before, corner_after = before[1].features[0, :, 0, 0], after[1].features[0, :, 0, 0]
    change = ((corner_before - corner_after).norm() / corner_before.norm()).item()
    print(f"{norm:6} norm: the corner cell changes by {100 * change:.0f} %")
    assert change < 1e-4 if norm == "frozen" else change > 0.1

# %% [markdown]
# With **frozen** batch norm a cell is changed only if its field touches the padding. With **group** norm every cell is, because the padding
# enters mean and spread. DETR has the first, `detr-mini` the second. This is its price, and we shall see it in AP.
#
# ## Where a cell lies: sine positions
#
# Attention takes a *set* of vectors: shuffle the cells, and each gets the same answer as before (notebook 02 shows it). So each cell must say
# where it lies. DETR turns the two coordinates into waves. Three steps:
#
# 1. Count the cells that are not padding, down each column and along each row; scale the last one to $2\pi$. That is $y$ and $x$.
# 2. Turn each coordinate into $d/4$ pairs of sine and cosine. Pair $i$ turns more slowly than the one before:
#
#    $$\bigl(\sin(x/T^{\,4i/d}),\ \cos(x/T^{\,4i/d})\bigr), \qquad i = 0, \dots, d/4 - 1$$
#
# 3. Put the half for $y$ before the half for $x$.

# %%
import math


def sine_positions(padding_mask, d, temperature):
    """(B, H, W) -> (B, d, H, W)"""
    inside = (~padding_mask).float()
    y, x = inside.cumsum(1), inside.cumsum(2)  # 1, 2, 3, ...
    y = 2 * math.pi * y / (y[:, -1:, :] + 1e-6)
    x = 2 * math.pi * x / (x[:, :, -1:] + 1e-6)
    wavelength = temperature ** (torch.arange(d // 4) / (d // 4))
    halves = []
    for coordinate in (y, x):
        angle = coordinate[..., None] / wavelength  # (B, H, W, d/4)
        halves.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(3))
    return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)


ours = sine_positions(small_masks[-1], d=128, temperature=20)
print("positions:", tuple(ours.shape), "= (B, d, H, W)")
assert torch.allclose(ours, model.positions(small_masks[-1]), atol=1e-5)
print("the same as the package's SinePositions")

# %% [markdown]
# Look at a few channels. The upper row is for the full picture, the lower one for the smaller one: the same waves, squeezed into the part that
# is not padding.

# %%
chosen = [0, 20, 40, 64, 84, 104]
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2))
for image in (0, 1):
    for axis, channel in zip(axes[image], chosen, strict=True):
        shown = ours[image, channel].masked_fill(small_masks[-1][image], float("nan"))
        axis.imshow(shown, cmap="cividis", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[], facecolor="#dddddd")
        if image == 0:
            axis.set_title(f"{'y' if channel < 64 else 'x'}, channel {channel}", fontsize=9)
show(
    figure,
    "Six channels of the positions for two pictures. Three change from top to bottom and three from "
    "left to right, more slowly one after the other. In the second row the same waves fill a smaller "
    "rectangle; padding is grey.",
)

# %% [markdown]
# ### Dot products tell the distance
#
# Attention compares by dot products. What is the dot product of two positions? For each pair $\sin a \sin b + \cos a \cos b = \cos(a-b)$. So the
# sum is $\sum_i \cos(\Delta y/T^{4i/d}) + \sum_i \cos(\Delta x/T^{4i/d})$: it depends on the **difference** of the two places, and on nothing
# else.

# %%
open_map = torch.zeros(1, 16, 16, dtype=torch.bool)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), width_ratios=(1.6, 1, 1))
for temperature, colour, axis in ((20, "#0072B2", axes[1]), (10_000, "#D55E00", axes[2])):
    codes = sine_positions(open_map, 128, temperature)[0].flatten(1).T  # (256, 128)
    product = (codes @ codes.T / 64).view(16, 16, 16, 16)  # 1 for a cell with itself
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
    "Left: the dot product of two positions falls with their distance, faster with T = 20 than with "
    "T = 10,000. Right: the product of one cell with all others as a map: a hill around the cell, "
    "steep for T = 20 and flat for 10,000.",
)

# %% [markdown]
# A hill around the cell. With the paper's $T = 10{,}000$ it is so flat because most waves are longer than the picture: all coordinates lie in
# $0..2\pi$, and a pair with $T^{4i/d} = 100$ turns through a hundredth of a circle. The projections of queries and keys are learned, so DETR can
# still pick out the fast pairs. On the small map of `detr-mini` few would be left, so it takes $T = 20$.
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

# %% [markdown]
# **Corrected.** (A one-dimensional convolution with kernel 1 over the flattened cells would compute the same numbers. But it is not what is
# there, and the words suggest that neighbours are mixed. They are not.)
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
# DETR's default has none. The learned ones are a row table and a column table with 50 entries each, so a map of more than 50 cells a side has no
# code at all. What each of them is worth in training, and what happens without any, is measured in notebook 02.

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


def probe(vectors, labels, is_test, steps=200):
    """Trains one matrix on some objects; the share of the others that it names rightly."""
    vectors = (vectors - vectors[~is_test].mean(0)) / (vectors[~is_test].std(0) + 1e-5)
    linear = torch.nn.Linear(vectors.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(linear.weight)
    optimizer = torch.optim.Adam(linear.parameters(), lr=0.05)
    for _ in range(steps):
        loss = F.cross_entropy(linear(vectors[~is_test]), labels[~is_test])
        loss = loss + 1e-3 * linear.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = linear(vectors[is_test]).argmax(1) == labels[is_test]
    return right.float().mean().item()


torch.manual_seed(SEED)
blank = minivis.detr.detr_mini(num_classes=6).eval()
seen, knows = {}, {}
for name, backbone in (("trained", model.backbone), ("random weights", blank.backbone)):
    seen[name] = found = vectors_of_objects(backbone)
    is_test = found.scenes >= 350  # objects of other scenes
    for question, labels in (("shape", found.shapes), ("colour", found.colours)):
        knows[name, question] = [probe(level, labels, is_test) for level in found.levels]
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
# - **Shape comes with depth.** A pixel knows nothing of the shape it lies in. At stride 8 and 16, one cell's vector names it nearly always. Not
#   because of depth alone: random weights never get there.
# - **Colour goes.** The first stage has it. From the last a linear probe reads no more than a guess. Random weights still let it read half of
#   the colours. So it is *training* that hides it: a detector of shapes has no use for colours, and 128 numbers have better things to hold.
#
# It is the second half that people forget. Features are what a task has left over. Whoever wants to ask a detector's backbone for something new
# must look into its earlier stages, or train it.
#
# On a GPU the same code trains the whole detector (`minivis train detr-mini`), or the paper's, from ImageNet weights
# (`minivis train detr-r50-coco`).

# %% [markdown]
# ## Break it
#
# Now take away, one by one, what this page has built, and let `detr-mini` detect in 100 scenes. How many points of AP does each cost? Guess an
# order before you look:
#
# - **no positions**: zeros in their place;
# - **mirrored positions**: right and left swapped;
# - **no mean and std**: pixels in 0..1, as `ToTensor` gives them; or in 0..255;
# - **BGR**: red and blue swapped, as OpenCV reads files;
# - **padding, with mask**: each scene in the corner of a picture of 160 pixels;
# - **padding, no mask**: the same, and nobody says so.

# %%
from minivis.experiments.matching import average_precision
from minivis.images import ImageBatch
from minivis.positions import NoPositions


class Mirrored(torch.nn.Module):
    def forward(self, padding_mask):
        return sine_positions(padding_mask, 128, 20).flip(3)


def padded_to(side, marked):
    large = torch.zeros(len(pixels), 3, side, side)
    large[:, :, :128, :128] = pixels
    mask = torch.zeros(len(pixels), side, side, dtype=torch.bool)
    if marked:
        mask[:, 128:, :], mask[:, :, 128:] = True, True
    return ImageBatch(large, mask)


def detect(images, positions=None):
    usual, model.positions = model.positions, positions or model.positions
    with torch.inference_mode():
        outputs = model(images)
    model.positions = usual
    return outputs


bytes_ = model.image_transform.denormalise(pixels).float()
answers = {
    "as it should be": detect(pixels),
    "no positions": detect(pixels, NoPositions(128)),
    "mirrored positions": detect(pixels, Mirrored()),
    "pixels in 0..1": detect(bytes_ / 255),
    "pixels in 0..255": detect(bytes_),
    "BGR": detect(pixels.flip(1)),
    "padding, with mask": detect(padded_to(160, marked=True)),
    "padding, no mask": detect(padded_to(160, marked=False)),
}
ap = {name: average_precision(outputs, targets, scenes)["AP"] for name, outputs in answers.items()}
for name, value in ap.items():
    print(f"{name:20} AP {value:.2f}")
assert ap["as it should be"] > 0.7
assert max(ap["no positions"], ap["mirrored positions"], ap["padding, no mask"]) < 0.1
assert ap["pixels in 0..1"] < ap["as it should be"] and ap["padding, with mask"] > 0.5

# %% [markdown]
# Some of it is fatal, and some of it hardly shows. The second kind is the dangerous one: a detector that has lost a tenth of its AP looks
# healthy. Now the symptoms, in one scene (answers surer than 50 %):

# %%
from minivis.detr import postprocess
from minivis.evaluation.draw import draw_detections, draw_grid

drawn, EXAMPLE = [], 3
for name in ("as it should be", "no positions", "mirrored positions", "padding, no mask"):
    one = {key: answers[name][key][EXAMPLE, None] for key in ("pred_logits", "pred_boxes")}
    (found,) = postprocess(one, [(128, 128)])
    drawn.append(draw_detections(scenes.scene_image(EXAMPLE), found, model.class_names))
show(
    draw_grid(drawn, columns=4),
    "One scene with the boxes that four versions draw: as it should be; without positions, the boxes "
    "lie about; with mirrored positions, they lie on the other side; and with unmarked padding, all "
    "are too small and too far up and left.",
)

# %% [markdown]
# | symptom | look at |
# | --- | --- |
# | right classes, boxes anywhere | positions: missing, or not added |
# | boxes mirrored, or x and y swapped | order of y and x in the positions |
# | all boxes shrunken towards the left upper corner, the more so the more a picture was padded | the mask does not reach the positions |
# | AP lower by some points, everything looks fine | mean and std, order of colours, 0..1 or 0..255 |
# | AP depends on which pictures share a batch | padding that enters a norm, or attention that reads padded cells |
#
# **Why a wrong scale costs so little here:** group norm divides it out after the first convolution. A frozen batch norm has no means to: it
# hands the wrong scale on to all that follows.
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
        value = average_precision(answer(features, *masks), targets, scenes)["AP"]
        print(f"{name:20} AP {value:.2f}")
        assert (value < 0.1) == (masks[1] is nowhere)

# %% [markdown]
# Positions matter most. If they count the padding, the model takes the padded square for its picture, and gives boxes as fractions of *that*.
# This is the third place: boxes are fractions of the picture without its padding, and whoever turns them into pixels must use that size.
#
# Attention that reads padding costs a few points. How much of its looking goes there?

# %%
from minivis.attention import record_attention

with torch.inference_mode(), record_attention(model) as attention:
    answer(features, nowhere, mask)
for name, weights in attention.items():
    if weights.shape[-1] == 10 * 10:  # over the cells: 8 × 8 of them are the picture's
        shares = weights.mean((0, 1, 2)).view(10, 10)
        share = 1 - shares[:8, :8].sum().item()
        layer = name.removeprefix("transformer.").replace(".layers.", " layer ").replace(".", ", ")
        print(
            f"{layer:28} {100 * share:2.0f} % of the attention on empty cells, of 36 % of the cells"
        )
        assert 0.02 < share < 0.6

# %% [markdown]
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
# So why did padding cost some AP even with its mask? Because of the backbone: convolutions near the border read it, and group norm lets it into
# the means of every cell. This is why `minivis` evaluates pictures of one size together.

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
        axis.imshow(
            picture[:, y : y + 64, x : x + 64].permute(1, 2, 0)
        )  # 64 pixels around the cell's first
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
# Your own picture goes in as well, brought to the size that this small model knows:
# `FeatureExplorer(model, Image.open("yours.jpg").resize((128, 128)))`.
#
# ## Real weights
#
# With a network, the same widget shows the last map of the paper's own ResNet-50 on a photograph: 2048 channels. Without one, the next cell says
# so and goes on.

# %% tags=["nbval-ignore-output"]
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from skimage import data

RELEASED = "facebook/detr-resnet-50"
wanted = False  # set it to True to download 160 MB

if wanted or isinstance(try_to_load_from_cache(RELEASED, "model.safetensors"), str):
    released = minivis.load(RELEASED)
    display(FeatureExplorer(released, Image.fromarray(data.chelsea()), levels=[-1]))
else:
    print(f"{RELEASED} is not on this machine: set wanted = True to download it")


# %% [markdown]
# ## Exercises
#
# Five functions to write, about 40 minutes in all. Fill in a stub, run it, and run the cell below it. The check runs your function on small
# inputs and says what to look at. It knows the mistakes that most people make. Solutions are in `solutions/01_detr_backbone.py`.
#
# ### Exercise 1: how many cells (5 minutes)
#
# A stage is a 3 × 3 convolution with stride 2 and padding 1, in both directions. How many cells does a side of so many pixels have after so many
# stages?
#
# <details><summary>A hint</summary>
#
# Where does the kernel's middle stand, on a side of 4 pixels, and of 5?
# </details>

# %%
def cells(pixels, stages):
    """How many cells a side of `pixels` pixels has after `stages` stages: a whole number."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_cells

check_cells(cells)


# %% [markdown]
# ### Exercise 2: how far a cell sees (10 minutes)
#
# A network is a list of layers, each a pair (kernel, stride). How many pixels on a side can change one of its cells?
#
# Before you write it, work it out on paper for a 3 × 3 layer of stride 2, followed by a 3 × 3 layer of stride 1.
#
# <details><summary>What you should have found</summary>
#
# **7 pixels.** The second kernel lies on cells that are two pixels apart, so its two outer ones are 4 pixels from each other; each sees one
# pixel more on either side.
# </details>
#
# <details><summary>A hint</summary>
#
# Keep two numbers while you go through the list: how far a cell sees, and how many pixels lie between neighbouring cells.
# </details>

# %%
def receptive_field(layers):
    """How many pixels on a side a cell sees. layers: (kernel, stride) pairs, from the picture on."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_receptive_field

check_receptive_field(receptive_field)


# %% [markdown]
# ### Exercise 3: a batch norm that has stopped learning (5 minutes)
#
# Write frozen batch norm. For each channel, with $\varepsilon = 10^{-5}$:
#
# $$y = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}\,\gamma + \beta$$
#
# <details><summary>A hint</summary>
#
# `mean[:, None, None]` has shape (C, 1, 1), and that lines up with (B, C, H, W).
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
# the column (for $y$) or the row (for $x$), plus $10^{-6}$ so that nothing is divided by 0; multiply by $2\pi$.
#
# <details><summary>A hint</summary>
#
# `cumsum` counts, if what is inside is 1 and what is padded is 0.
# </details>

# %%
def coordinates(padding_mask):
    """(y, x), each (H, W), up to 2π. padding_mask: (H, W) bool, True where padded (right and below)."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_coordinates

check_coordinates(coordinates)


# %% [markdown]
# ### Exercise 5: one coordinate as waves (10 minutes)
#
# Turn $N$ coordinates into $P$ pairs each. With temperature $T$, channels $2i$ and $2i+1$ are
#
# $$\sin(x / T^{\,i/P}), \quad \cos(x / T^{\,i/P}), \qquad i = 0, \dots, P-1$$
#
# Then think: what would be lost if there were only the sines?
#
# <details><summary>A hint</summary>
#
# Compute an (N, P) matrix of angles first. `torch.stack([...], dim=-1).flatten(1)` makes two such matrices alternate.
# </details>
#
# <details><summary>What would be lost</summary>
#
# The sum $\sin a \sin b + \cos a \cos b = \cos(a - b)$. With sines alone a dot product would depend on where the two cells are, and not only on
# how far apart.
# </details>

# %%
def sine_code(coordinate, pairs, temperature):
    """(N,) coordinates -> (N, 2 · pairs), sines and cosines alternating."""
    raise NotImplementedError


# %%
from minivis.checks.backbone import check_sine_code

check_sine_code(sine_code)

# %% [markdown]
# ## In short
#
# - A backbone turns pixels into a map of $\lceil H_0/s\rceil \times \lceil W_0/s\rceil$ cells. Each *can* see a large square, and really looks
#   at a small part of it: edges near its middle.
# - With depth, features gain what the task asks for (shape) and lose what it does not (colour).
# - Batch norm makes a picture depend on its company. DETR freezes it, which needs pretrained averages. From nothing, take group norm, and mind
#   the padding.
# - A 1 × 1 convolution is a `Linear` at each cell; flattening gives a sequence of $H \cdot W$ vectors.
# - The padding mask is needed in three places: attention, positions, and where boxes become pixels.
# - Sine positions have no parameters. Their dot product depends on the difference of two places only, and falls with it.
#
# ### What became of the document's claims

# %%
from minivis.widgets import show_claims

show_claims("D1", "D2", "D3")

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
# **Right.** 200 is within 213, half of the field. But nearly all that moves a cell lies much nearer.
# </details>
#
# <details><summary>c) It changes as much as if a nearer object were painted over</summary>
#
# **Not quite.** There are far more paths from the middle of the field than from its rim.
# </details>

# %% [markdown]
# **2. You build a ResNet-101 with frozen batch norm and random weights. Its last features are thousands of times as large as its first. Why?**
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
# **3. A picture of 640 × 480 is batched with one of 800 × 800, without a mask. Its boxes come out...**
#
# <details><summary>a) too small, and too near to the left upper corner</summary>
#
# **Right.** Positions and boxes are then fractions of the padded picture.
# </details>
#
# <details><summary>b) right, but with lower scores</summary>
#
# **Not quite.** The model cannot know where the picture ends, so fractions of *what* does it give?
# </details>
#
# <details><summary>c) right, since zeros add nothing</summary>
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

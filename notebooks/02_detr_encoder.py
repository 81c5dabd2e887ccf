# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2 · The encoder: every place asks every other
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/minivis/minivis/blob/main/notebooks/02_detr_encoder.ipynb)
#
# **Time:** about 60 minutes to read and try; the cells run in about a minute on two CPU cores.
# **You need:** notebook 01 for what a feature map is, and PyTorch as far as `nn.Module`. No GPU, no network.
#
# A feature map is a grid of vectors, and each of them knows its own surroundings. An object is larger than that. The encoder lets the cells talk:
# each asks all others, and takes over what it finds useful. When you have finished this page you can
#
# 1. compute attention by hand for three tokens, and write it as a loop, as matrices and as a module;
# 2. say what of it is learned, what heads are good for, and where DETR adds positions;
# 3. show that attention does not know where anything is, and measure what positions give back;
# 4. measure what it costs when a picture grows, in time and in memory;
# 5. read an attention map on its pixels, and say what it does not prove.
#
# **In the document:** the section "Transformer part 1: Encoder", and a part of the sections on the decoder and on shortcomings. Its statements D4
# to D8, D10, D30, D32 and D34 are put to the test below.

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
# A scene of 128 × 128 pixels has become 8 × 8 cells, each for 16 × 16 pixels. The framed one lies on the ring, and holds a piece of orange arc. A
# piece of arc is not a ring yet. **Where does a cell look to find out what it is part of?**
#
# Point at places in the picture; a click keeps a cell, and the arrow keys go on from there. Yellow is where that cell looks: the mean of eight
# *heads*, each of which is a small map on the right. Press one of them to lay it over the picture, press it again for the mean, and try the three
# layers. Each map has its own colour scale unless you ask for one for all. The dashed boxes are the true objects; below each map stands over how
# many cells it is spread (so many equal weights have the same entropy), and how much of it lies in the box of the cell's own object.

# %%
from minivis.data.scenes import load_shipped_scenes
from minivis.widgets import AttentionExplorer

model = minivis.load("detr-mini").to(device)
scenes = load_shipped_scenes()
SCENE = 181


def batch_of(indices):
    return scenes.prepare(scenes.collate([scenes[i] for i in indices]), device)


target = batch_of([SCENE]).targets[0]
explorer = AttentionExplorer.of(model, scenes.scene_image(SCENE), target, layer=1)
explorer.token = explorer.token_at(x=58, y=60)
explorer

# %% [markdown]
# What you should find: from this cell, head 3 of layer 2 stays on the ring, and head 1 looks at objects, whichever they are. Nobody told them to.
# Head 4 looks to the lower right from nearly everywhere; that a circle lies there is chance. Any picture of your own goes in the same way:
# `from PIL import Image`, then `AttentionExplorer.of(model, Image.open("mine.jpg"))`. It is brought down to 16 cells on its long side. But this
# model has seen nothing but drawn scenes: where it looks in a photograph says little about photographs.
#
# **Predict before you run on.** Write your answers down.
#
# 1. You shuffle the 64 cells before they go into the encoder. What happens to its output?
# 2. The picture becomes twice as wide and twice as high. How many times as long does it take to compare every cell with every other?
#
# <details><summary>Answers</summary>
#
# 1. It depends on whether the positions are shuffled along. If they are, the outputs come out shuffled in the same way, and nothing else changes.
#    If positions stay where they were, every cell believes it is somewhere else.
# 2. Sixteen times: four times as many cells, each compared with four times as many. Whether a whole layer takes sixteen times as long is
#    another question; D30 below measures it.
# </details>

# %% [markdown]
# ## Symbols and shapes
#
# | symbol | number or name in `detr-mini` | shape | meaning |
# | --- | --- | --- | --- |
# | $n$ | 64 | | cells of the feature map, height times width; "tokens" |
# | $d$ | 128 (DETR: 256) | | numbers in a token |
# | $h$ | 8 | | heads; each has $d/h$ channels of its own |
# | $x$ | | (B, n, d) | what the cells hold |
# | $p$ | `pos` | (B, n, d) | where they are, as a code of sines (notebook 01) |
# | $Q, K, V$ | | (B, h, n, d/h) | queries, keys, values: what each cell looks for, what it offers, what it passes on |
# | $A$ | the maps above | (B, h, n, n) | row $i$: how much cell $i$ takes from every cell; sums to 1 |

# %%
from minivis.widgets.architectures import ENCODER_LAYER

ENCODER_LAYER.show()

# %% [markdown]
# What goes in and what comes out have the same shape, so layers can be stacked: three here, six in DETR. Notice the one thing that the document
# asks you to notice as well: the positions go to Q and K, and not to V. (The drawing has the paper's order, with a norm after each part.
# `detr-mini` norms before it; you will build that below.)

# %% [markdown]
# ## By hand: three tokens
#
# To stay with paper and pencil, let a query, a key and a value be one number each, and take powers of 2 in place of powers of $e$. Three tokens A,
# B, C:
#
# | | query: what I look for | key: what I offer | value: what I pass on |
# | --- | --- | --- | --- |
# | A | 0 | 0 | 0 |
# | B | 1 | 0 | 12 |
# | C | 2 | 1 | 24 |
#
# 1. *Scores:* a token's query times each key. For B: $1·0,\ 1·0,\ 1·1$.
# 2. *Weights:* $2^{\text{score}}$, divided by their sum. For B: $1, 1, 2$, that is $\tfrac14, \tfrac14, \tfrac24$.
# 3. *Output:* the values, mixed with these weights. For B: $\tfrac14·0 + \tfrac14·12 + \tfrac24·24 = 15$.
#
# Do A and C before you run the cell. Steps 2 and 3 together are the whole trick: a lookup that is soft, so that it has a gradient.

# %%
import math

q, k, v = [0, 1, 2], [0, 0, 1], [0, 12, 24]

for i, name in enumerate("ABC"):
    scores = [q[i] * key for key in k]
    powers = [2**score for score in scores]
    output = sum(power * value for power, value in zip(powers, v)) / sum(powers)
    shares = ", ".join(f"{power}/{sum(powers)}" for power in powers)
    print(f"{name}: scores {scores}, weights {shares}, output {output:g}")

# %% [markdown]
# A looks for nothing in particular (its query is 0), so it gets the plain mean, 12. C looks hardest for what only C offers: it gives C two thirds
# of its weight. **Nothing in this asks where the tokens stand.** Keep that.
#
# ## Build it
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{d_k}}\right) V$$
#
# Here $d_k$ is the length of one query: all $d$ numbers, or $d/h$ of them once there are heads.
#
# ### First a loop
#
# The same three steps, for vectors, with $e$ in place of 2.

# %%


def attention_loop(q, k, v):
    """(n, d), (m, d), (m, c) -> (n, c)"""
    outputs = []
    for query in q:
        scores = [sum(query * key) / math.sqrt(len(key)) for key in k]
        powers = [score.exp() for score in scores]
        weights = [power / sum(powers) for power in powers]
        outputs.append(sum(weight * value for weight, value in zip(weights, v)))
    return torch.stack(outputs)

# %% [markdown]
# ### Then matrices
#
# All scores at once are one product of matrices, and all mixtures another.

# %%


def attention(q, k, v):
    """(..., n, d), (..., m, d), (..., m, c) -> (..., n, c)"""
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (..., n, m)
    return scores.softmax(-1) @ v


q, k, v = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5, 6)
assert attention(q, k, v).shape == (3, 6)
assert torch.allclose(attention(q, k, v), attention_loop(q, k, v), atol=1e-6)

ln2 = math.log(2)  # the three tokens from above: 2 to the power of s is e to the power of s · ln 2
q, k, v = (torch.tensor([column]).float().T for column in ([0, 1, 2], [0, 0, 1], [0, 12, 24]))
print("A, B, C:", attention(q * ln2, k, v).flatten().round(decimals=3).tolist())

# %% [markdown]
# ### Why divide by $\sqrt{d_k}$?
#
# The dot product of two random vectors is a sum of $d_k$ random numbers, so its size grows like $\sqrt{d_k}$. A softmax over large scores gives
# nearly all to the largest, and a weight $w$ changes with its own score by $w(1-w)$, which is near 0 for $w$ near 0 or 1.
# Take 64 random keys and ask how much the best one gets, on average:

# %%
for d in (16, 64, 256):
    q, k = torch.randn(200, d), torch.randn(64, d)
    with_root = (q @ k.mT / d**0.5).softmax(-1).amax(-1).mean()
    without = (q @ k.mT).softmax(-1).amax(-1).mean()
    assert with_root < 0.2 < 0.5 < without
    print(f"d = {d:3}: the largest weight is {with_root:.1f} with the root, {without:.1f} without")

# %% [markdown]
# ### Heads
#
# One softmax makes one mixture. But a cell may want to know several things: what continues my edge, what else is there, where does the ground end.
# So $Q$, $K$ and $V$, once they are projected, are cut into $h$ slices of $d/h$ channels, and each slice makes a map of its own. (The projections
# read all of $x$, so every head can draw on every channel.) It takes as many multiplications as before: $h$ attentions on $d/h$ channels. (There
# are $h$ times as many attention weights to store, if anybody stores them.)

# %%


def split_heads(x, heads):
    """(B, n, d) -> (B, heads, n, d / heads)"""
    batch, n, d = x.shape
    return x.view(batch, n, heads, d // heads).transpose(1, 2)


def multi_head_attention(q, k, v, module):
    """With the matrices of one of the package's modules."""
    q = split_heads(module.q_proj(q), module.num_heads)
    k = split_heads(module.k_proj(k), module.num_heads)
    v = split_heads(module.v_proj(v), module.num_heads)
    mixed = attention(q, k, v)  # (B, heads, n, d / heads)
    return module.out_proj(mixed.transpose(1, 2).flatten(2))  # heads side by side again


from minivis.attention import MultiHeadAttention

ours = MultiHeadAttention(d_model=128, num_heads=8)
q, k, v = torch.randn(2, 5, 128), torch.randn(2, 64, 128), torch.randn(2, 64, 128)
assert multi_head_attention(q, k, v, ours).shape == (2, 5, 128)
assert torch.allclose(multi_head_attention(q, k, v, ours), ours(q, k, v), atol=1e-5)
print("the package's MultiHeadAttention does the same")

# %% [markdown]
# The last matrix, `out_proj`, mixes what the heads have found. So heads are not independent of each other (notebook 03 comes back to that).
#
# ### The layer
#
# Attention gathers; then each cell thinks by itself, in a small network of two matrices. Both *add* to what was there, so a layer that has nothing
# to say can leave a cell alone. `detr-mini` norms before each part ("pre-norm": easier to train in a hurry), DETR norms after it ("post-norm").

# %%
import torch.nn.functional as F


def encoder_layer(x, pos, layer):
    """(B, n, d), (B, n, d) -> (B, n, d), in the pre-norm order."""
    normed = layer.norm1(x)
    q = k = normed + pos  # positions help to decide where to look;
    x = x + multi_head_attention(q, k, normed, layer.self_attn)  # what is gathered has none
    normed = layer.norm2(x)
    return x + layer.ffn.linear2(F.relu(layer.ffn.linear1(normed)))


@torch.no_grad()
def encoder_inputs(images):
    """What the encoder gets: cells (B, n, d), their positions, and which of them are padding (B, n)."""
    features, mask = model.backbone(images)[model.feature_level]
    tokens = model.input_proj(features).flatten(2).mT
    return tokens, model.positions(mask).flatten(2).mT, mask.flatten(1)


eight = batch_of(range(8))
x, pos, mask = encoder_inputs(eight.images)
print("x:", tuple(x.shape), "  pos:", tuple(pos.shape))

encoder = model.transformer.encoder
with torch.no_grad():
    ours, package = x, x
    for layer in encoder.layers:
        ours, package = encoder_layer(ours, pos, layer), layer(package, mask, pos)
        assert torch.allclose(ours, package, atol=1e-4)
    assert torch.allclose(encoder(x, mask, pos), encoder.norm(ours), atol=1e-3)
print("the same after each of", len(encoder.layers), "layers")

# %% [markdown]
# In the pre-norm order nothing norms what leaves the last layer, so the encoder ends in one more norm. The package's layer does both orders.
# Compare the line in `attend` with yours.

# %%
from minivis.detr import TransformerEncoderLayer
from minivis.widgets import show_source

show_source(TransformerEncoderLayer.forward)
show_source(TransformerEncoderLayer.attend)

# %% [markdown]
# ## The document, put to the test
#
# ### D32 · "Q, K and V are learned parameters"
#
# List what is learned in a self-attention, and look at one query in two pictures.

# %%
layer = encoder.layers[0]
print("learned:", ", ".join(name for name, _ in layer.self_attn.named_parameters()))

with torch.no_grad():
    queries = layer.self_attn.q_proj(layer.norm1(x) + pos)
similarity = torch.cosine_similarity(queries[0, 27], queries[1, 27], dim=0).item()
assert similarity < 0.99
print(f"the query of cell 27 in two pictures: cosine {similarity:.2f}")

# %% [markdown]
# **Corrected.** What is learned are four matrices with their biases. $Q$, $K$ and $V$ are *activations*: other ones in every picture, and none
# left when the picture is gone.
#
# ### D5 · "In self-attention, Query == Key"
#
# In code it reads `q = k = x + pos`, and that is where the sentence comes from. But two different matrices are still to come. If queries and keys
# were the same, the scores (before the softmax) would be symmetric: what I am for you, you are for me. How far are they from that? Let us call it
# *lopsidedness*: the part that changes sign when the matrix is mirrored, as a share of the whole.

# %%
with torch.no_grad():
    normed = layer.norm1(x) + pos


@torch.no_grad()
def scores_by(to_q, to_k):
    q, k = split_heads(to_q(normed), 8), split_heads(to_k(normed), 8)
    return q @ k.mT / q.shape[-1] ** 0.5


def lopsidedness(scores):
    """0 if symmetric; near 0.7 for numbers that have nothing to do with their mirror images."""
    return ((scores - scores.mT).norm() / (2 * scores.norm())).item()


trained, fresh = layer.self_attn, MultiHeadAttention(128, 8).to(device)
same = scores_by(trained.q_proj, trained.q_proj)
by_training, by_chance = (
    lopsidedness(scores_by(each.q_proj, each.k_proj)) for each in (trained, fresh)
)

assert lopsidedness(same) < 1e-3 and min(by_training, by_chance) > 0.3
assert lopsidedness(same.softmax(-1)) > 0.3
print(f"scores lopsided by {by_training:.1f} with trained Q and K", end=", ")
print(f"{lopsidedness(same):.1f} with Q for both")
print(f"and by {by_chance:.1f} with fresh random matrices")

# %% [markdown]
# **Corrected.** The same *input*, through different projections: how much one cell scores for another says little about the way back. That is so
# with any two different matrices, trained or not. (Do not look for it in the weights. The softmax divides each row by a sum of its own, so weights
# are lopsided even when queries and keys are the same.)
#
# ### D4 · "Self-attention is invariant to permutation"
#
# *Invariant* means: shuffle the input, and the output is what it was. *Equivariant* means: shuffle the input, and the output is shuffled in the
# same way. Which is it?

# %%
shuffle = torch.randperm(64, device=device)
with torch.no_grad():
    before = encoder(x, mask, pos)
    after = encoder(x[:, shuffle], mask, pos[:, shuffle])
    stayed = encoder(x[:, shuffle], mask, pos)  # the cells move, the positions stay


def differs(one, other):
    """The length of the difference, as a share of the length."""
    return ((one - other).norm() / other.norm()).item()


print(f"from the outputs as they were it differs by {differs(after, before):.0%}")
print(f"from the same outputs, shuffled alike, by {differs(after, before[:, shuffle]):.0%}")
print(f"and if positions stay where they were, by {differs(stayed, before[:, shuffle]):.0%}")
assert differs(after, before) > 0.5 and differs(stayed, before[:, shuffle]) > 0.3
assert torch.allclose(after, before[:, shuffle], atol=1e-3)

# %% [markdown]
# **Corrected.** Equivariant: shuffle the outputs as well, and nothing has changed. (The *mean* of all outputs would be invariant.) It follows that
# without positions a cell cannot tell a neighbour from a far-away cell of the same look: to attention a picture is a bag of patches. With the
# positions left in place the outputs change, so this encoder does read them.
#
# ### What positions buy
#
# Here is a task that a child solves, and a bag of patches cannot. A picture has 4 × 4 cells in six colours. Each cell is to name the colour of its
# mirror image, left for right. One attention layer, three hundred steps, a second or so:

# %%
from torch import nn

from minivis.positions import NoPositions, SinePositions

COLOURS, SIDE, WIDTH = 6, 4, 32


def learn_mirror(positions, steps=300):
    """The share of right answers at the end, and the map of one cell."""
    torch.manual_seed(SEED)
    colour, attend, answer = (
        nn.Embedding(COLOURS, WIDTH),
        MultiHeadAttention(WIDTH, 1),
        nn.Linear(WIDTH, COLOURS),
    )
    parts = nn.ModuleList([colour, attend, answer])
    pos = positions(torch.zeros(1, SIDE, SIDE, dtype=torch.bool)).flatten(2).mT
    optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-2)
    right = []
    for _ in range(steps):
        picture = torch.randint(COLOURS, (64, SIDE, SIDE))
        x, wanted = colour(picture.flatten(1)), picture.flip(2).flatten(1)
        logits = answer(attend(x + pos, x + pos, x))
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
        right.append((logits.argmax(-1) == wanted).float().mean().item())
    with torch.no_grad(), minivis.attention.record_attention(parts) as maps:
        attend(x + pos, x + pos, x)
    return sum(right[-30:]) / 30, maps["1"][0, 0].view(SIDE, SIDE, SIDE, SIDE)


with_positions, learned_map = learn_mirror(SinePositions(WIDTH, temperature=20))
without, _ = learn_mirror(NoPositions(WIDTH))
often = torch.stack([F.one_hot(torch.randint(COLOURS, (16,)), COLOURS).sum(0) for _ in range(2000)])
COUNTING = (often.amax(-1) / 16).mean().item()  # always name the commonest colour of this picture

assert with_positions > 0.95 and abs(without - COUNTING) < 0.05
print(
    f"with positions {100 * with_positions:.0f} %, without {100 * without:.0f} % of the cells are right"
)
print(f"always naming the picture's commonest colour would give {100 * COUNTING:.0f} %")

# %% [markdown]
# Without positions nothing is better than counting colours, and that is about as far as it got. With them, the maps show how it is done. Each
# panel is what one cell of the upper row looks at. (A little weight may spill over to a cell beside the right one.)

# %%
import matplotlib.pyplot as plt

from minivis.widgets import show

figure, axes = plt.subplots(1, SIDE, figsize=(7, 1.9))
for column, axis in enumerate(axes):
    axis.imshow(learned_map[0, column], cmap="viridis", vmin=0, vmax=1)
    axis.add_patch(
        plt.Rectangle((column - 0.5, -0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=3)
    )
    axis.set(xticks=[], yticks=[], title=f"from column {column + 1}")
mirrored = learned_map[0, torch.arange(SIDE), 0, torch.arange(SIDE - 1, -1, -1)]
assert mirrored.min() > 0.5
show(
    figure,
    "Four grids of 4 by 4 cells. In each a cell of the upper row is framed, and most weight lies "
    "on the cell of that row that is its mirror image.",
)

# %% [markdown]
# Here an attention map *does* tell how the answer is found, because the mirror image is the only place it could come from. Remember this panel
# when we come to maps of which that is not so.

# %% [markdown]
# ### D10 · "The spatial encoding is learned from scratch"
#
# In another place the document calls it fixed. DETR's are **fixed sines**, with nothing to learn. What is learned is something else: the object
# queries, which take the place of anchors (notebook 03). But one could learn a vector for each row and each column. Or do without. Each was
# trained four times from different random weights (`minivis experiment D10` repeats them). AP50 is notebook 00's. `loss_giou` says how badly boxes
# fit (notebook 04), and `class_error` how many objects in a hundred get a wrong class: of both, less is better. Each point is one training.

# %%
from minivis.widgets import show_experiment

show_experiment("D10", "AP50", "loss_giou", "class_error")

# %% [markdown]
# **Corrected.** Sines are DETR's default, with no parameters. The AP50 of learned vectors lies within the spread of the seeds; their boxes fit
# worse in three of four trainings. (They begin as noise, and have to find out that neighbours are neighbours.) Without positions little is learned
# in three trainings, and one comes quite far, though less far than its twins. In the paper, which trains far longer, doing without costs 7.8 AP
# (its table 3).

# %% [markdown]
# ### D7 · "Positions in every layer are better than once"
#
# The other way is to add them once, to what goes into the transformer.

# %%
show_experiment("D7", "AP50", "loss_giou", "class_error")

# %% [markdown]
# **Confirmed, by the paper.** There cells and queries once cost a full model 1.4 AP (its table 3). Here the same, "both once", has the lower AP50 in
# two trainings of three. With the *cells* once it is three of three, though by the GIoU loss one of them is not worse. Differences are as small as
# the spread of seeds. A reason to expect it: added once, positions become part of the content, and later layers have to carry them along.

# %% [markdown]
# ### D6 · "Values carry no positions"
#
# So DETR does it; the document's reason is that a cell is to be given what others *hold*. And if values had positions too?

# %%
show_experiment("D6", "AP", "AP50", "loss_giou")

# %% [markdown]
# **Not decided at this scale.** One training is far better with positions in the values, two are worse. The mean AP is the same, the mean AP50
# lower (0.67, not 0.77). The sentence is right about what DETR does. That it *matters* has not been shown here, and the paper's ablations leave it
# out.

# %% [markdown]
# ### D8 · "Activations: ReLU, GELU, GLU"
#
# Between the two matrices of the feed-forward network stands a function. DETR takes ReLU, which cuts off what is below 0. GELU does so with a soft
# bend. The document offers a third, GLU. Do they fit into the same place?

# %%
from minivis.detr.transformer import FeedForward

hidden = torch.randn(1, 64, 512)
for name, activation in (("ReLU", F.relu), ("GELU", F.gelu), ("GLU", F.glu)):
    print(f"{name:5} {tuple(hidden.shape)} -> {tuple(activation(hidden).shape)}")

second_matrix = nn.Linear(512, 128)
try:
    second_matrix(F.glu(hidden))
except RuntimeError as error:
    print(f"the second matrix after GLU: {error}")
try:
    FeedForward(128, 512, dropout=0.0, activation="glu")
except ValueError as error:
    print(f"the package says so at once: {error}")


# %% [markdown]
# **Corrected.** A gated linear unit multiplies one half of its channels by a gate made of the other half, so it halves the width. It needs a first
# matrix of twice the size. The official code offers the name as well, and whoever chooses it gets an error of shapes at the first picture.

# %% [markdown]
# ### D30 · "Attention is quadratic in the size of the feature map"
#
# First count. For $n$ cells of $d$ numbers a self-attention layer takes about
#
# - $4nd^2$ multiplications for its four projections,
# - $2n^2d$ for the scores and the mixtures: *this* is the quadratic part;
#
# and the feed-forward network with its $f$ hidden numbers takes $2ndf$. DETR has $d = 256$ and $f = 2048$, and 850 cells for a picture of 800 ×
# 1066 pixels:

# %%
def multiplications(n, d=256, f=2048):
    """Of the projections, the quadratic part and the feed-forward network."""
    return 4 * n * d**2, 2 * n**2 * d, 2 * n * d * f


for name, height, width, stride in (
    ("800 × 1066, stride 32", 800, 1066, 32),
    ("the same, stride 16", 800, 1066, 16),
    ("the same, stride 8", 800, 1066, 8),
):
    n = math.ceil(height / stride) * math.ceil(width / stride)
    share = multiplications(n)[1] / sum(multiplications(n))
    stored = 4 * 8 * n**2  # bytes of the weights of eight heads, in float32
    print(
        f"{name:22} n = {n:6}, quadratic part {100 * share:3.0f} %,"
        f" weights {stored / 1e6:7,.0f} MB a layer"
    )

# %% [markdown]
# At DETR's own stride of 32 the quadratic part is a quarter of the layer. At stride 8 it is five sixths, and the weights alone would take
# gigabytes. Now measure. The module's fused kernel works through the keys in blocks and never stores the weights; the explicit path (which
# `record_attention` takes, since it wants to see them) does.

# %%
from functools import partial

import numpy as np

from minivis.attention import record_attention
from minivis.experiments.cost import fastest_seconds, peak_bytes

module = MultiHeadAttention(256, 8).eval()
queries = torch.randn(1, 100, 256)  # as many as DETR's decoder has


def self_fused(cells):
    module(cells, cells, cells)


def self_explicit(cells):
    with record_attention(module):
        module(cells, cells, cells)


def cross_fused(cells):
    module(queries, cells, cells)


SIZES = {self_fused: (512, 1024, 2048, 4096), self_explicit: (512, 1024, 2048)}
SIZES[cross_fused] = SIZES[self_fused]
seconds = {kind: [] for kind in SIZES}
peaks = {kind: [] for kind in SIZES}
with torch.inference_mode():
    for kind, sizes in SIZES.items():
        for n in sizes:
            cells = torch.randn(1, n, 256)
            run = partial(kind, cells)
            seconds[kind].append(fastest_seconds(run))
            peaks[kind].append(peak_bytes(run))


# %% tags=["nbval-ignore-output"]
def slope(sizes, values):
    """The exponent of n, from 1024 cells on."""
    return math.log(values[-1] / values[1]) / math.log(sizes[-1] / sizes[1])


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for (kind, sizes), colour, mark in zip(SIZES.items(), ("#0072B2", "#D55E00", "#009E73"), "os^"):
    name = kind.__name__.replace("_", "-attention, ")
    left.loglog(sizes, 1000 * np.array(seconds[kind]), f"{mark}-", color=colour, label=name)
    right.loglog(sizes, np.array(peaks[kind]) / 1e6, f"{mark}-", color=colour)
    time, memory = slope(sizes, seconds[kind]), slope(sizes, peaks[kind])
    print(f"{name:25} time: n to the power of {time:.1f}, memory: n to the power of {memory:.2f}")
for axis, title in ((left, "milliseconds of CPU time"), (right, "MB held at once")):
    axis.set(title=title, xlabel="cells, n")
    axis.set_xticks(SIZES[self_fused], SIZES[self_fused])
    axis.minorticks_off()
left.set_ylim(top=2000)
left.legend(fontsize=8)

assert 1.2 < slope(SIZES[self_fused], seconds[self_fused]) < 2.8
assert slope(SIZES[cross_fused], seconds[cross_fused]) < slope(SIZES[self_fused], seconds[self_fused])
assert slope(SIZES[self_fused], peaks[self_fused]) < 1.1
assert slope(SIZES[self_explicit], peaks[self_explicit]) > 1.7
show(
    figure,
    "Time and memory against the number of cells, all axes logarithmic. Self-attention's time rises "
    "about with the square, cross-attention's more slowly. The explicit path's memory rises with the "
    "square, the fused kernel's with n.",
)

# %% [markdown]
# **Qualified.** The time of *self*-attention tends to the square of $n$; at small $n$ the projections, which are linear, hide it.
# *Cross*-attention is linear in $n$: the number of queries does not grow with the picture. And memory is linear in both, as long as nobody asks
# for the weights. Whoever does (as widgets do) pays with the square.
#
# Back to your second prediction: a whole layer of DETR, with its feed-forward network, on a picture twice as wide and twice as high.

# %% tags=["nbval-ignore-output"]
whole = TransformerEncoderLayer(256, 8).eval()
with torch.inference_mode():
    small, large = (
        fastest_seconds(partial(whole, cells, None, cells))
        for cells in (torch.randn(1, 850, 256), torch.randn(1, 3400, 256))
    )
counted = sum(multiplications(3400)) / sum(multiplications(850))
print(f"a whole layer: {counted:.1f} times the multiplications, {large / small:.1f} times as long")
assert counted < 7.5 and 4 < large / small < 14

# %% [markdown]
# Not sixteen times: by count seven, since at 850 cells most of the work is linear.

# %% [markdown]
# ## Train it, with and without positions
#
# The small detector of notebook 04: two encoder and two decoder layers on scenes of 64 pixels. The same first weights, the same scenes, two
# hundred steps. In one of the two the positions are zeros, in the encoder and in the decoder. What will be worse: the classes or the boxes?

# %%
from minivis.experiments.d10 import build
from minivis.experiments.small_detr import small_criterion, train_small

show_source(build)

# %%
histories = {}
for kind in ("sine", "none"):
    _, histories[kind] = train_small(
        small_criterion(), seed=SEED, steps=200, build=lambda kind=kind: build(kind)
    )


# %% tags=["nbval-ignore-output"]
def smooth(values, width=25):
    return np.convolve(values, np.ones(width) / width, mode="valid")


figure, axes = plt.subplots(1, 3, figsize=(9, 2.6))
for axis, name, title in zip(
    axes, ("loss_ce", "loss_bbox", "loss_giou"), ("class", "L1", "1 − GIoU")
):
    for kind, colour in (("sine", "#0072B2"), ("none", "#D55E00")):
        axis.plot(smooth(histories[kind][name]), color=colour, label=f"positions: {kind}")
    axis.set(title=title, xlabel="step", ylim=(0, None))
    last = {kind: np.mean(history[name][-50:]) for kind, history in histories.items()}
    print(
        f"{title:8} in the last 50 steps: {last['sine']:.2f} with positions, {last['none']:.2f} without"
    )
axes[0].legend()
assert last["none"] > 1.2 * last["sine"]  # of the GIoU loss
show(
    figure,
    "Class, L1 and GIoU loss while two detectors train. All three are lower with sine positions than "
    "without; the boxes most clearly.",
)

# %% [markdown]
# Both suffer, the boxes more. The two may hang together: as long as it is not clear which query an object belongs to, a query can hardly learn its
# class. That the boxes get better at all without positions can have two reasons. Queries learn where objects usually are, and how large; and
# convolutions pad with zeros at the border of the picture, so cells near it look different (Islam et al., below), and a little of *where* leaks
# in.
#
# ### Three ways to go on
#
# | where | what | takes |
# | --- | --- | --- |
# | here, on a CPU | the trainings behind D6, D7, D10 or D34 once more, or with more seeds: `minivis experiment D10 --seeds 5` | minutes on one core; the command says how many, and more seeds take more |
# | a GPU, for example Colab's | the large detector without an encoder: `minivis train detr-mini --set model.encoder_layers=0 --out runs/no_encoder`, or without positions: `--set model.positions=none` | with its encoder about an hour on one CPU core; on a GPU not measured |
# | several GPUs and COCO | the paper's own ablation, 3.9 AP less: `minivis train detr-r50-coco --data COCO --set model.encoder_layers=0` | with the encoder three days on 16 GPUs in the paper |

# %% [markdown]
# ## Break it
#
# Now the trained detector. Three things can be taken away without training anew: the positions, the mask that hides padding, and the freedom to
# choose where to look. First a ruler: AP on a hundred scenes.

# %%
import copy

from minivis.experiments.matching import average_precision
from minivis.images import ImageBatch

hundred = batch_of(range(100))


@torch.inference_mode()
def measured(detector, images=hundred.images, widened=1.0):
    """AP of all kinds on the hundred scenes. `widened`: what boxes are fractions of, in widths."""
    outputs = detector(images)
    boxes = outputs["pred_boxes"] * torch.tensor([widened, 1, widened, 1], device=device)
    answers = {"pred_logits": outputs["pred_logits"].cpu(), "pred_boxes": boxes.cpu()}
    return average_precision(answers, hundred.targets, scenes)


def ap(detector, images=hundred.images):
    return measured(detector, images)["AP"]


AS_TRAINED = ap(model)
lost = copy.deepcopy(model)
lost.positions = NoPositions(128)
print(f"as trained: AP {AS_TRAINED:.2f}   positions taken away: AP {ap(lost):.2f}")
assert AS_TRAINED > 0.7 and ap(lost) < 0.1

# %% [markdown]
# Nothing is left: this model has learned to rely on them. (One that is trained without them, as above, finds a little.) Now the mask. In a batch,
# a smaller picture is padded to the size of the largest. Here all scenes get 64 pixels of padding on the right, once with the mask and once
# without it. The mask has two uses: attention gives no weight to padding, and positions are counted over the picture alone (notebook 01). **Which
# of the two is missed more?** The third line forgets the mask and puts the positions right.

# %%
wide = F.pad(hundred.images.pixels, (0, 64))
padding = torch.zeros(100, 128, 192, dtype=torch.bool, device=device)
padding[:, :, 128:] = True

unmasked = ImageBatch(wide, torch.zeros_like(padding))

masked = ap(model, ImageBatch(wide, padding))
forgotten = measured(model, unmasked, widened=192 / 128)
codes = model.positions(padding[:1, ::16, ::16])  # what they are with the mask: (1, d, 8, 12)
placed = copy.deepcopy(model)
placed.positions.forward = lambda mask: codes.expand(len(mask), -1, -1, -1)
positions_right = ap(placed, unmasked)
with torch.inference_mode(), record_attention(placed) as maps:
    placed(unmasked)
on_padding = [
    maps[f"transformer.encoder.layers.{number}.self_attn"]  # (B, heads, 96, 96): 8 rows of 12 cells
    .unflatten(-1, (8, 12))
    .unflatten(2, (8, 12))[:, :, :, :8, :, 8:]
    .sum((-1, -2))
    .mean()
    for number in range(3)
]

print(f"padded, with the mask: AP {masked:.2f}   without it: AP {forgotten['AP']:.2f}", end=" ")
print(f"(AP50 {forgotten['AP50']:.2f}, AP75 {forgotten['AP75']:.2f})")
print(f"without it, but with the right positions: AP {positions_right:.2f}")
shares = ", ".join(f"{100 * share:.0f}" for share in on_padding)
print(f"and there cells of the picture give {shares} % of their weight to padding, layer by layer")
assert masked > AS_TRAINED - 0.1 and forgotten["AP"] < masked - 0.2
assert forgotten["AP50"] > 0.6 and forgotten["AP75"] < 0.1
assert positions_right > masked - 0.2 and positions_right > forgotten["AP"] + 0.2
assert max(on_padding) < 1 / 3  # what a flat map would give

# %% [markdown]
# **The symptom:** an AP that depends on what a picture was batched with. When yours changes with the batch size, look for a mask that got lost.
# The cause one thinks of first is the lesser: cells look into the padding, which costs a little. Most of the harm comes from positions that are
# stretched over a wider picture, and say of every cell that it lies farther left: most objects are still found (AP50), with boxes that
# do not fit (AP75). (A little is lost *with* the mask too, in the backbone, which has none: it averages over the padding in its group norms, and
# its convolutions reach into it.) The widget hatches padding; no cell looks there:

# %%
padded = AttentionExplorer.of(
    model, scenes.scene_image(3), batch_of([3]).targets[0], padded_to=(128, 192), layer=1
)
padded.token = padded.token_at(x=105, y=15)
padded

# %% [markdown]
# Third, the freedom to choose. Set a head's queries to zero, and all its scores are 0: every cell looks everywhere alike. The head still passes
# values on, but its *map* is gone.

# %%


def flattened(number, *heads):
    """The detector with maps that are the same everywhere, in these heads of an encoder layer."""
    flat = copy.deepcopy(model)
    projection = flat.transformer.encoder.layers[number - 1].self_attn.q_proj
    for head in heads:
        for parameter in projection.parameters():
            nn.init.zeros_(parameter[16 * (head - 1) : 16 * head])
    return flat


ALL = range(1, 9)
flat = [ap(flattened(number, *ALL)) for number in (1, 2, 3)]
for number, value in enumerate(flat, start=1):
    print(f"flat maps in layer {number}: AP {value:.2f}")
alone = [ap(flattened(3, head)) for head in ALL]
print("in one head of layer 3 alone, 1 to 8:", " ".join(f"{value:.2f}" for value in alone))
first = ap(flattened(1, 2, 8))
print(f"in heads 2 and 8 of layer 1: {first:.2f}")
assert min(flat[0], first) > AS_TRAINED - 0.15 and flat[2] < 0.2
assert alone[2] > AS_TRAINED - 0.15 and alone[7] < alone[2] - 0.2

# %% [markdown]
# The detector hardly misses the maps of layer 1, and without those of layer 3 it finds nothing. Could you have told by looking at them? Two
# things one looks for in a map: how much of a cell's weight lies in the box of its own object, and how much on the border of the picture?

# %%
with torch.inference_mode(), record_attention(model) as maps:
    model(hundred.images)
recorded = [maps[f"transformer.encoder.layers.{number}.self_attn"].cpu() for number in range(3)]

rows, columns = torch.arange(64) // 8, torch.arange(64) % 8
border = (rows % 7 == 0) | (columns % 7 == 0)
middles = torch.stack([columns, rows], 1) / 8 + 1 / 16
own = torch.zeros(100, 64, 64)  # own[b, i, j]: cell j lies in the box of the object that cell i lies in
for image, target in enumerate(hundred.targets):
    boxes = target["boxes"].cpu()
    for box in boxes[boxes[:, 2:].prod(1).argsort(descending=True)]:  # where two overlap: the smaller
        inside = ((middles - box[:2]).abs() < box[2:] / 2).all(1)
        own[image, inside] = inside.float()
on_object = own.any(-1)

print("% of the weight, head by head: in the own object's box | on the border")
for number, weights in enumerate(recorded, start=1):
    to_own = (weights * own[:, None]).sum(-1).transpose(1, 2)[on_object].mean(0)
    to_border = weights[..., border].sum(-1).mean((0, 2))
    shares = (" ".join(f"{100 * share:3.0f}" for share in each) for each in (to_own, to_border))
    print(f"layer {number}:", " | ".join(shares))
    assert number != 1 or to_own[[1, 7]].min() > 0.3
    assert number != 3 or (to_border[2] - to_border[7]).abs() < 0.1
by_chance = own.mean(-1)[on_object].mean(), border.float().mean()
print(f"a flat map: {100 * by_chance[0]:.0f} | {100 * by_chance[1]:.0f}")

# %% [markdown]
# No. Heads 2 and 8 of layer 1 hold to the cell's own object, with three times what a flat map would give it, and as much as the best head of layer
# 3; yet without both the detector is nearly as good. Heads 3 and 8 of layer 3 give the same share to the border, about two thirds; yet head 3 is
# hardly missed, and head 8 costs nearly half of the AP. **How a map looks does not say how much hangs on it.** (Nor is this the last word: taking
# something away is blunt, since the later layers never saw such inputs in training.)

# %% [markdown]
# ### D34 · "The transformer sees relations of things far apart"
#
# To test that, the class of an object must depend on something out of its sight. So here it does: circles are of two kinds, and which kind they
# are says the colour of a mark at the far end of an empty margin. The backbone is made so short-sighted that no cell sees both. A training ends when
# nine in ten shapes (`right_near`) and kinds (`right_far`; a guess gets half) are right. `steps` says when that was, `steps_near` when the shapes
# were.

# %%
show_experiment("D34", "found", "steps", "steps_near", "right_far")

# %% [markdown]
# **Qualified.** The relation is learned in every one of these 24 trainings, in 300 to 700 steps, and nearly always as soon as the shapes are. It
# takes no encoder: the decoder's queries read the whole picture too, and those models find it as soon as the ones with two or four encoder
# layers. So *seeing far* is not what this encoder is needed for. There is one mark for the whole picture, though; relations of particular things
# would be harder, and were not tried. In the paper, without an encoder the model loses 3.9 AP, most on large objects (its section 4.2).

# %% [markdown]
# ## Look inside: what heads are in the habit of
#
# Take all cells of a hundred scenes, and average each head's map around the cell that looks, which lies in the middle of each panel. What is left
# is habit: where a head looks whatever the picture shows.

# %%
rows, columns = np.divmod(np.arange(64), 8)
down, across = rows - rows[:, None] + 7, columns - columns[:, None] + 7  # of key from query
pairs = np.zeros((15, 15))
np.add.at(pairs, (down, across), 1)

figure, axes = plt.subplots(3, 8, figsize=(9, 3.6))
for number, weights in enumerate(recorded):
    for head in range(8):
        habit = np.zeros((15, 15))
        np.add.at(habit, (down, across), weights.mean(0)[head].numpy())
        axis = axes[number, head]
        axis.imshow(habit / pairs, cmap="viridis", vmin=0)
        axis.plot(7, 7, "+", color="#D55E00", markersize=7)
        axis.set(xticks=[], yticks=[])
        if number == 0:
            axis.set_title(f"head {head + 1}", fontsize=9)
    axes[number, 0].set_ylabel(f"layer {number + 1}", fontsize=9)
show(
    figure,
    "Three rows of eight small maps around a cross. Some heads look at their own neighbourhood, some "
    "along the row or the column, some to one side, and some at a far edge.",
)

# %% [markdown]
# Some heads look near by, some along a row or a column, some to one side only. That is what positions in queries and keys make possible: "two
# cells to the left of me" is a thing one can look for. (Towards the corners of a panel few pairs of cells lie so far apart, so a single bright
# corner there is a corner *of the picture*.)
#
# ### What a map does not prove
#
# Three reasons not to read it as an explanation.
#
# 1. **A weight is not what arrives.** What arrives is the weight times a value, through the last matrix. A small value with a large weight brings
#    little, and what two heads bring may cancel.
# 2. **A cell is not its pixels.** Its vector has seen far more than its 16 × 16 pixels (notebook 01), and after one layer of attention it holds a
#    part of all others.
# 3. **Little may hang on it**, as in layer 1 above.
#
# The first can be counted. For every cell, find the one that it looks at most (mean over heads), and the one from which most arrives (length of
# the vector). Are they the same?

# %%
with torch.inference_mode():
    x, pos, mask = encoder_inputs(hundred.images)
    for number, (layer, weights) in enumerate(zip(encoder.layers, recorded), start=1):
        values = split_heads(layer.self_attn.v_proj(layer.norm1(x)), 8).cpu()
        out = layer.self_attn.out_proj.weight.unflatten(1, (8, -1)).cpu()  # (d, heads, d / heads)
        same, near = [], []
        for A, v in zip(weights[:20], values):  # twenty pictures will do
            arrives = torch.einsum("hij,hjc,dhc->ijd", A, v, out).norm(dim=-1)
            hits = A.mean(0).argmax(-1)[:, None] == arrives.topk(3, dim=-1).indices
            same.append(hits[:, 0])
            near.append(hits.any(-1))
        agreement, among = (torch.cat(each).float().mean().item() for each in (same, near))
        assert agreement < 0.85 and among > 0.75
        print(f"layer {number}: the same in {100 * agreement:.0f} % of the cells", end=", ")
        print(f"among the three from which most arrives in {100 * among:.0f} %")
        x = layer(x, mask, pos)

# %% [markdown]
# In about a quarter of the cells or more, the brightest place of the map is not where most comes from. Mostly it is among the first three: a map is
# a fair sketch of what arrives, and no measurement of it. Use maps to find questions, and answer them
# by taking something away.
#
# ## Real weights
#
# The same widget on the last layer of the paper's own ResNet-50 model and a photograph. The model has 48 heads in six layers; one layer is taken
# here (950 cells looking at 950, in eight heads, are 7 MB at a byte each). The paper's figure 3 was made so: from a point on an animal, the last
# layer's attention covers that animal. Without a network the next cell says so and goes on.

# %% tags=["nbval-ignore-output"]
from IPython.display import display
from PIL import Image
from skimage import data

from minivis.widgets import AttentionExplorer

# wanted=True downloads 160 MB
released = minivis.load_released("facebook/detr-resnet-50", wanted=False)

if released is not None:
    display(AttentionExplorer.of(released, Image.fromarray(data.chelsea()), layers=[-1]))


# %% [markdown]
# ## Exercises
#
# Five functions to write, about 50 minutes in all. Fill in a stub, run it, and run the cell below it. The check runs your function on small inputs
# and says what to look at. It knows the mistakes that most people make. Solutions are in `solutions/02_detr_encoder.py`.
#
# ### Exercise 1: hide the padding (10 minutes)
#
# From scores to weights, with some keys that are padding. Each row of weights sums to 1, and a padded key has exactly 0.
#
# <details><summary>A hint</summary>
#
# If you take the weight away after the softmax, the rest no longer sums to 1. So do it before: which score has the weight $e^{\text{score}} = 0$?
# </details>

# %%
def weights_with_padding(scores, padding):
    """scores: (n, m). padding: (m,) bool, True where a key is padding. Gives weights (n, m)."""
    raise NotImplementedError


# %%
from minivis.checks.encoder import check_weights_with_padding

check_weights_with_padding(weights_with_padding)


# %% [markdown]
# ### Exercise 2: where the positions go (10 minutes)
#
# DETR's self-attention from cells to mixtures, with one head, no biases and no last matrix. Write it from the equation, without
# scrolling up; `softmax` itself may be torch's.
#
# <details><summary>A hint</summary>
#
# Three inputs are projected. Two of them are the same.
# </details>

# %%
def self_attention(x, pos, w_q, w_k, w_v):
    """x, pos: (n, d). w_q, w_k, w_v: (d, d), as in nn.Linear: a row for each output. Gives (n, d)."""
    raise NotImplementedError


# %%
from minivis.checks.encoder import check_self_attention

check_self_attention(self_attention)


# %% [markdown]
# ### Exercise 3: lay a map on its pixels (10 minutes)
#
# Every attention map raises this question: which pixels does token 137 belong to? Tokens run along the rows of the grid. Some models
# put extra tokens before it (a "class token"). The last cell of a row or of a column may reach beyond the picture, and is cut off there.
#
# <details><summary>A hint</summary>
#
# `divmod(a, b)` gives a // b and a % b. In a grid with `columns` columns, which of the two is the row?
# </details>

# %%
def pixels_of_token(token, columns, stride, size, extra):
    """The pixels of a token's cell: (left, top, right, bottom), right and bottom just outside.

    token: its number, from 0. columns: cells in a row. stride: pixels from one cell to the next.
    size: (height, width) of the picture. extra: how many tokens come before the grid.
    """
    raise NotImplementedError


# %%
from minivis.checks.encoder import check_pixels_of_token

check_pixels_of_token(pixels_of_token)


# %% [markdown]
# ### Exercise 4: neighbours only (10 minutes)
#
# What would be left of the encoder if a cell saw no farther than a convolution does? For that one needs a mask: may cell $i$ look at cell $j$? It
# may if $j$ is at most `reach` rows and at most `reach` columns away.
#
# <details><summary>A hint</summary>
#
# Find the row and the column of every cell, (n,) each. `a[:, None] - a` is the difference of every two.
# </details>
#
# <details><summary>What comes of it</summary>
#
# With `reach` 1 and $L$ layers, news travels $L$ cells. That is what stacks of convolutions do, and it is why they have to be deep. Later models
# take the middle way: Swin looks at windows, Deformable DETR at a few places that each query chooses for itself.
# </details>

# %%
def neighbours(rows, columns, reach):
    """Which cells each cell may look at: bool, (n, n), with n = rows * columns."""
    raise NotImplementedError


# %%
from minivis.checks.encoder import check_neighbours

check_neighbours(neighbours)


# %% [markdown]
# ### Exercise 5: what arrives (10 minutes)
#
# For one head: how *long* is the vector that cell $i$ gets from cell $j$? It is the weight $A_{ij}$ times the value $v_j$ after the head's part of
# the last matrix $W_O$ (`out_proj`), $\lVert A_{ij}\, W_O v_j \rVert$.
#
# <details><summary>A hint</summary>
#
# A weight is not negative, so it can be taken out of the length. Then one number for each $j$ is enough.
# </details>

# %%
def what_arrives(weights, values, out):
    """weights: (n, n), row i of cell i. values: (n, c). out: (d, c), as in nn.Linear. Gives (n, n)."""
    raise NotImplementedError


# %%
from minivis.checks.encoder import check_what_arrives

check_what_arrives(what_arrives)

# %% [markdown]
# ## In short
#
# - Attention is a soft lookup: $\mathrm{softmax}(QK^\top/\sqrt{d_k})\,V$. Q, K and V are made from the cells by learned matrices, and
#   are themselves not parameters.
# - Heads do it several times side by side, on slices of the channels, with no more multiplications than one.
# - By itself it is equivariant: it sees a bag of cells. Positions, added to queries and keys in every layer, say where things are. DETR adds none
#   to values.
# - Comparing every cell with every other takes time in proportion to $n^2$; a fused kernel keeps the memory at $n$.
# - A map shows where weights lie. It does not show what arrives, nor what hangs on it: take something away and see.
#
# ### What became of the document's claims

# %%
from minivis.widgets import show_claims

show_claims("D4", "D5", "D6", "D7", "D8", "D10", "D30", "D32", "D34")

# %% [markdown]
# ## Quiz
#
# Open the answer you would give.

# %% [markdown]
# **1. You shuffle the cells of a feature map together with their positions, and run the encoder. What comes out?**
#
# <details><summary>a) The same as before, in the same order</summary>
#
# **Not quite.** That would be invariance. Each output belongs to an input, and moves with it.
# </details>
#
# <details><summary>b) The same vectors, shuffled in the same way</summary>
#
# **Right.** Equivariance. What a cell gets does not depend on its number in the list, only on what it and the others hold.
# </details>
#
# <details><summary>c) Something else, because neighbours are no longer neighbours</summary>
#
# **Not quite.** Neighbours in the list mean nothing to attention. Who is near is written in the positions, which moved along.
# </details>

# %% [markdown]
# **2. Why do queries and keys get positions in every layer, and values in none?**
#
# <details><summary>a) Queries and keys decide where to look, and for that places matter; values are what is taken along</summary>
#
# **Right.** A cell can look for "the cell to my left", and what it takes over is what that cell holds. So what leaves a layer was given no
# positions, and the next layer's queries and keys get them anew. (That values are better without them has not been shown: D6.)
# </details>
#
# <details><summary>b) Values have no room for them: they have fewer channels</summary>
#
# **Not quite.** All three have d channels.
# </details>
#
# <details><summary>c) With positions in the values attention would be quadratic</summary>
#
# **Not quite.** It would cost the same. Whether it would be worse is a question for a measurement.
# </details>

# %% [markdown]
# **3. Your pictures become twice as wide and twice as high. What grows sixteen times?**
#
# <details><summary>a) The memory that the fused kernel needs</summary>
#
# **Not quite.** It never stores the weights, so its memory grows with the number of cells: four times.
# </details>
#
# <details><summary>b) The time of the decoder's cross-attention</summary>
#
# **Not quite.** It compares a fixed number of queries with all cells: four times.
# </details>
#
# <details><summary>c) The number of scores in the encoder's self-attention</summary>
#
# **Right.** Four times as many cells, each compared with four times as many.
# </details>

# %% [markdown]
# **4. In a map of layer 1, a cell on a star looks at that star. What have you shown?**
#
# <details><summary>a) That the model recognises the star by this</summary>
#
# **Not quite.** To show that, take it away and see whether the star is still recognised. In layer 1 of this model it mostly is.
# </details>
#
# <details><summary>b) Where the weight of this head lies, for this cell, in this picture</summary>
#
# **Right.** And a question worth asking, which another experiment has to answer.
# </details>
#
# <details><summary>c) That the values of the star's cells are large</summary>
#
# **Not quite.** Weights come from queries and keys; the values have no part in them.
# </details>

# %% [markdown]
# ## References
#
# - Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin: *Attention Is All You Need*, NeurIPS 2017. Section 3.2.
# - Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko: *End-to-End Object Detection with Transformers*, ECCV 2020. Sections 3.2 and 4.2,
#   appendix A.3.
# - Dao, Fu, Ermon, Rudra, Ré: *FlashAttention*, NeurIPS 2022. The fused kernel that never stores the weights.
# - Jain, Wallace: *Attention is not Explanation*, NAACL 2019; and the answer by Wiegreffe, Pinter: *Attention is not not Explanation*, EMNLP 2019.
# - Islam, Jia, Bruce: *How Much Position Information Do Convolutional Neural Networks Encode?*, ICLR 2020. Zero padding tells where the border is.
#
# **Next:** notebook 03 asks the questions: object queries, and the decoder that reads the encoder's answer.

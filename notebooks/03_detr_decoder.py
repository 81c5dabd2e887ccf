# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 · The decoder: what an object query is
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/minivis/minivis/blob/main/notebooks/03_detr_decoder.ipynb)
#
# **Time:** about 70 minutes to read and try, and 45 for the exercises; the cells run in about a minute on two CPU cores.
# **You need:** notebooks 00 and 02, and attention as far as $\mathrm{softmax}(QK^\top/\sqrt d)\,V$. No GPU, no network.
#
# The encoder leaves a map of the picture. Nothing in it says "there are five objects, and here they are". The decoder makes a set of answers
# out of it, with the help of 25 vectors: the *object queries*. Notebook 00 named them; this page says what they are. When you have finished it
# you can
#
# 1. say what an object query is, and what it is not;
# 2. build a decoder layer, line by line, until it equals the package's own;
# 3. tell what self-attention does from what cross-attention does, by taking each away;
# 4. say why DETR can give all answers at once and a translator cannot, and what that costs;
# 5. read a map of cross-attention without believing more than it shows.
#
# **In the document:** the sections "Transformer part 2: Decoder" and, for the heads, "Advantages of DETR". Its statements D9, D11, D12, D13, D14,
# D28, D36 and one half of D10 are put to the test below.

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
# Most older detectors begin with *anchors*: thousands of boxes, drawn over the picture beforehand, to be corrected. DETR begins with 25 vectors of
# 128 numbers. They are no boxes. They are the same for every picture. Each of them comes out with a class and a box. **What are these vectors, and
# how do 25 of them agree on who takes which object?**
#
# Below is a scene with five objects. Blue is the box of one query; the yellow cells are where it looks. A query is *sure* if it gives one class at
# least 50 %. Try this (click the picture first if you want to use the keys):
#
# - Query 21 is chosen. Go through the layers (arrow keys ↑ ↓, or the table). It finds the large circle, and then takes it back. Why?
# - Choose queries 0, 7 and 20, by their buttons: their boxes lie on each other. What did these three *not* agree on?
# - The dots show where the chosen query answers on all 500 validation scenes. Step through some queries. Do they have a class, a size, a place?
# - Drop a busy query (3, or 23): average precision over all scenes follows. Then pull the slider.
# - Leave out layers: press "layer 2" or "layer 1" beside the bars. These are the answers that are read off there, as if the decoder ended. What
#   does the last layer still add?
#
# All numbers on this page are of this one model, from one training with one seed. Another run gives other queries, and other numbers.

# %%
from minivis.data.scenes import load_shipped_scenes
from minivis.widgets import QueryExplorer

model = minivis.load("detr-mini").to(device).requires_grad_(False)
scenes = load_shipped_scenes()
QueryExplorer(model, scenes, scenes=[482, 54, 181, 407], query=21)

# %% [markdown]
# **Predict before you run on.** Write your answers down.
#
# 1. You shuffle the 25 vectors, so that query 3 becomes query 17 and so on. What happens to average precision?
# 2. You make all 25 vectors equal. How many different boxes come out?
#
# <details><summary>Answers</summary>
#
# 1. Nothing. The same 25 answers come out in another order, and a set has no order.
# 2. One, 25 times. All queries do the same arithmetic on the same picture, and the vectors are the only thing in which they differ.
#
# Both are measured below.
# </details>

# %% [markdown]
# ## Symbols and shapes
#
# | symbol | here | shape | meaning |
# | --- | --- | --- | --- |
# | $Q$ | 25 | | queries, that is answers for one picture |
# | $B$ | | | pictures in a batch; left out where there is one |
# | $d$ | 128 | | width of every vector |
# | $M$ | 64 | | cells of the encoder's map, 8 × 8, each 16 pixels wide |
# | $e_i$ | `query_embed` | (Q, d) | the object queries: learned, the same for every picture |
# | $x_i$ | content | (Q, d) | what query $i$ has gathered so far; zeros before the first layer |
# | $m_j$ | memory | (M, d) | what the encoder says about cell $j$ |
# | $p_j$ | positions | (M, d) | sines that say where cell $j$ lies |
# | $A_{ij}$ | the yellow cells above | (Q, M) | how much query $i$ looks at cell $j$; each row sums to 1 |
#
# Two vectors for each query, then, and the names are mixed up everywhere. Here *object query* is always $e_i$, which stays, and *content* is
# $x_i$, which grows.
#
# Two words for answers. An answer is **sure** if its likeliest class has a probability of at least 50 %. A sure answer is a **duplicate** if a
# surer one says the same class and their boxes overlap with an IoU (the area in both, over the area in at least one) of at least 0.5.

# %%
from minivis.widgets.architectures import DECODER_LAYER

DECODER_LAYER.show()

# %% [markdown]
# ## By hand: two ways to empty a bag
#
# Forget pictures. Here is a bag of numbers: 3, 7, 1. Somebody is to tell you what is in it.
#
# **One after another.** "Say the largest number that is smaller than the one you said last." Start with ∞: 7, 3, 1, nothing left, stop. Each
# answer needs the answer before it. This is how a translator gives its words: *autoregressive*.
#
# **All at once.** Five people ask the bag at the same time, and do not listen to each other. Person $k$ asks: "is there a number with exactly $k$
# larger ones?" Person 0 hears 7, person 1 hears 3, person 2 hears 1, persons 3 and 4 hear nothing: *no object*.
#
# On paper, before you run on: the bag (4, 9, 2, 6), and the same five people. What does each of them hear? And what is heard of the bag (4, 9, 9)?
#
# <details><summary>Answers</summary>
#
# 9, 6, 4, 2, nothing. Of the second bag: person 0 hears "9", person 1 nothing, person 2 "4". No number is larger than either nine, so both answer
# to the question of person 0, and one of them is lost. The opposite mishap, two people whose questions fit the same number, gives a *duplicate*.
# </details>

# %%


def one_after_another(bag):
    said, last = [], torch.tensor(torch.inf)
    while (left := bag[bag < last]).numel():
        last = left.max()  # cannot be known before the last one is
        said.append(last)
    return torch.stack(said)


def all_at_once(bag, people):
    larger = (bag[None, :] > bag[:, None]).sum(1)  # of each number: how many are larger
    hit = larger[None, :] == torch.arange(people)[:, None]  # (people, numbers)
    return torch.where(hit, bag, -torch.inf).amax(1)  # −inf: nothing


bag = torch.tensor([3.0, 7.0, 1.0])
print("one after another:", one_after_another(bag).tolist())
print("all at once:      ", all_at_once(bag, people=5).tolist())

# %% [markdown]
# The same set. Now count what it takes, for larger bags.

# %% tags=["nbval-ignore-output"]
import timeit


def milliseconds(function, *inputs):
    return 1000 * min(timeit.repeat(lambda: function(*inputs), number=3, repeat=3)) / 3


for size in (8, 64, 512):
    bag = torch.randperm(size).float()
    assert torch.equal(one_after_another(bag), all_at_once(bag, people=size))
    slow, fast = milliseconds(one_after_another, bag), milliseconds(all_at_once, bag, size)
    print(f"{size:4} numbers: {size:4} steps, {slow:6.2f} ms; one step, {fast:6.2f} ms")

# %% [markdown]
# Be fair to both. Both make about $n^2$ comparisons: one in $n$ steps that wait for each other, the other in a single step, so hardware that does
# many things at a time is happy. One after another knows when to stop. All at once needs to fix the number of people before it has seen the bag.
#
# And the toy hides two things. *We* gave each person a question of their own. In DETR nobody writes the questions: they are learned, and a
# person's fixed question is the **object query**. And the bag's people do not listen to each other, so nobody would notice that two of them say
# the same. DETR's queries do listen.

# %% [markdown]
# ## Build it
#
# First let the encoder do its work, once, for all 500 scenes. Everything on this page happens after it. `decode` is the rest of the model: it
# starts from zeros, runs the layers, and gives the answers after each of them (a list, the last layer's at its end).

# %%
from minivis.experiments.matching import average_precision
from minivis.experiments.queries import decode, encode_scenes
from minivis.widgets import show_source

memory, targets = encode_scenes(model, scenes, range(500))
print("memory:   ", tuple(memory.tokens.shape), "= (scenes, M, d)")
print("queries:  ", tuple(model.query_embed.weight.shape), "= (Q, d)")
show_source(decode, docstring=False)

# %% [markdown]
# A decoder layer has three parts, and each adds to what came in. With $\mathrm{norm}$ a layer norm of its own each time (norming *before* each
# part is called **pre-norm**, notebook 02), and FFN two linear layers with a ReLU between them:
#
# $$\begin{aligned}
# x &\leftarrow x + \mathrm{Attention}\bigl(Q = K = \mathrm{norm}(x) + e,\; V = \mathrm{norm}(x)\bigr) && \text{queries hear each other}\\
# x &\leftarrow x + \mathrm{Attention}\bigl(Q = \mathrm{norm}(x) + e,\; K = m + p,\; V = m\bigr) && \text{each query reads the picture}\\
# x &\leftarrow x + \mathrm{FFN}\bigl(\mathrm{norm}(x)\bigr) && \text{each query by itself}
# \end{aligned}$$
#
# So a question has two parts: $e$, which never changes, and what has been found so far, which is added to it. Note where $e$ and $p$ stand: in the
# questions and the keys, never in the values. They decide *who looks where*. They are not themselves passed on. In self-attention $e$ stands in
# the keys too, so that the others can tell who is speaking.

# %%
from einops import rearrange


def attend(block, query, key, value):
    """(B, n, d), (B, m, d), (B, m, d) -> (B, n, d), in heads that each have d / heads of the numbers."""
    q, k, v = block.q_proj(query), block.k_proj(key), block.v_proj(value)
    q, k, v = (rearrange(t, "b n (h c) -> b h n c", h=block.num_heads) for t in (q, k, v))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return block.out_proj(rearrange(weights @ v, "b h n c -> b n (h c)"))


def decoder_layer(layer, x, memory, positions, query):
    """One pre-norm layer. x, query: (B, Q, d); memory, positions: (B, M, d)."""
    y = layer.norm1(x)
    x = x + attend(layer.self_attn, y + query, y + query, y)
    y = layer.norm2(x)
    x = x + attend(layer.cross_attn, y + query, memory + positions, memory)
    return x + layer.ffn(layer.norm3(x))


embedding = model.query_embed.weight
tokens, positions, e = memory.tokens[:4], memory.positions[:4], embedding.expand(4, -1, -1)
x = torch.zeros_like(e)
for layer in model.transformer.decoder.layers:
    came_in, x = x, decoder_layer(layer, x, tokens, positions, e)
    package = layer(came_in, tokens, memory.padding[:4], positions, e)
    assert torch.allclose(x, package, atol=1e-4)
print("content after three layers:", tuple(x.shape), "and each layer equals the package's")

# %% [markdown]
# The same norm and the same two heads turn the content into answers, after every layer. In training the answers of *each* layer get the loss
# (the *auxiliary losses*, notebook 04), so each is trained to give good ones:

# %%
normed = model.transformer.decoder.norm(x)
logits, boxes = model.class_embed(normed), model.bbox_embed(normed).sigmoid()
ours = decode(model, memory[:4])[-1]
assert torch.allclose(logits, ours["pred_logits"], atol=1e-3)
assert torch.allclose(boxes, ours["pred_boxes"], atol=1e-4)
print("classes", tuple(logits.shape), "boxes", tuple(boxes.shape))

# %% [markdown]
# Look at what is *not* there. No loop over objects. No answer that is fed back. No list of boxes to start from. The picture comes in at one place
# only, in cross-attention.
#
# ## The document, put to the test
#
# ### D11 · "Object queries are initialised as zero vectors"
#
# Something is zero: the content $x$ before the first layer. The object queries $e$ are not: PyTorch starts an embedding with numbers drawn from
# $N(0, 1)$. Below, their size is still that of the start. That training has changed them shows further down, where random ones take their
# place. Then listen to the self-attention of each layer: how different is what it gives to two queries, or on two pictures?

# %%
from minivis.experiments.queries import confident


def ap(outputs, targets=targets):
    return average_precision(outputs, targets, scenes)["AP"]


layers = decode(model, memory)
final = layers[-1]
sure = confident(final)  # (scenes, Q)
heard = {}


def remember(name):
    return lambda module, inputs, output: heard.__setitem__(name, output)


hooks = [
    layer.self_attn.register_forward_hook(remember(number))
    for number, layer in enumerate(model.transformer.decoder.layers, start=1)
]
decode(model, memory[:50])
for hook in hooks:
    hook.remove()

print(f"object queries: mean absolute value {embedding.abs().mean():.1f} (of N(0, 1): 0.8)")
for number, output in heard.items():
    spread = output.std(dim=1).mean(), output.std(dim=0).mean()
    print(
        f"self-attention {number}: spread over queries {spread[0]:.2f}, over pictures {spread[1]:.2f}"
    )
assert heard[1].std(dim=1).max() < 1e-5 < 0.5 < heard[2].std(dim=1).mean()
assert 0.6 < embedding.abs().mean() < 1

# %% [markdown]
# **Corrected**, and with a consequence that few people expect: *the first self-attention says nothing.* It gives the same vector to every query,
# on every picture. (That vector need not be zero. But what is always the same tells nobody anything.)
#
# Why? Its values are $\mathrm{norm}(0)$, the same for all 25 queries. A weighted mean of 25 equal vectors is that vector, whatever the weights.
# (The paper's model norms *after* each part, so its values are plain zeros, and only the biases are left. This one norms *before*, and the norm of
# zeros is its learned shift $\beta$, the number that a layer norm adds last. The argument is the same.) Exercise 1 asks you to compute the vector
# without any attention.
#
# So queries begin to differ at the first *cross*-attention, and they do so for one reason: $e_i$ stands in their question. Make all of them equal,
# and see prediction 2:

# %%
equal = embedding.mean(0, keepdim=True).expand(25, -1)
equal_boxes = decode(model, memory[:50], equal)[-1]["pred_boxes"]
spread = equal_boxes.std(dim=1).max()
assert spread < 1e-4
print(f"25 equal queries: the boxes of a picture are one box, to {spread:.4f}")

shuffled = torch.randperm(25)
again = decode(model, memory, embedding[shuffled])[-1]
for name in ("pred_logits", "pred_boxes"):
    assert torch.allclose(again[name], final[name][:, shuffled], atol=2e-3)
print("25 shuffled queries: the same answers, shuffled;", end=" ")
print(f"AP {ap(again):.3f}, and {ap(final):.3f} as they were")

# %% [markdown]
# ### D12 · "Q of cross-attention is the object queries, plus what self-attention made of them"
#
# The sum is $\mathrm{norm}(x) + e$: of the *content*, which has heard the others, and the *embedding*, which never changes. Listen at the door:

# %%
second, asked = model.transformer.decoder.layers[1], {}
hooks = [
    getattr(second.cross_attn, f"{name}_proj").register_forward_pre_hook(
        lambda module, inputs, name=name: asked.__setitem__(name, inputs[0])
    )
    for name in "qkv"
]
hooks.append(second.norm2.register_forward_hook(remember("content")))
decode(model, memory[:4])
for hook in hooks:
    hook.remove()

content = heard["content"]
for name, wanted in (
    ("q", content + embedding),
    ("k", tokens + positions),
    ("v", tokens),
):
    assert torch.allclose(asked[name], wanted, atol=1e-5), name
print("Q = norm(content) + query embedding;  K = memory + positions;  V = memory")
off = [(asked["q"] - sum_).abs().mean().item() for sum_ in (content + embedding, content + content)]
print(f"Q is off by {off[0]:.2f} from content + embedding, by {off[1]:.2f} from content + content")
assert off[0] < 1e-4 < 0.5 < off[1]

# %% [markdown]
# **Qualified.** K and V are as the document says. Q is a sum, but not of something with itself: one half says what has been found, the other who
# is asking.
#
# ### How can a vector ask for a place?
#
# $e_i$ is 128 numbers, the same for every picture. Multiply question and key out ($W_q$, $W_k$ are the projections; biases left out, and
# $\mathrm{norm}(x)$ written $x$):
#
# $$\bigl(W_q(x+e)\bigr)^\top W_k(m+p) = (W_q x)^\top W_k m + (W_q x)^\top W_k p + (W_q e)^\top W_k m + \underbrace{(W_q e)^\top W_k p}_{\text{no picture, no content}}$$
#
# The last product has one number for each query and cell, and it is the same for every picture. Draw its softmax over the 8 × 8 cells, for the
# first layer (mean of the heads): **no picture has gone into these maps.** The ring is where that query's sure answers lie, on average.

# %%
import matplotlib.pyplot as plt

from minivis.attention import record_attention
from minivis.experiments.queries import place_scores, without_places
from minivis.widgets import show

busiest = sure.sum(0).argsort(descending=True, stable=True).tolist()
home = torch.stack(
    [final["pred_boxes"][sure[:, q], q, :2].mean(0) for q in range(25)]
)  # (Q, 2): x, y
wish = place_scores(model, memory, layer=0).softmax(-1).mean(0)  # (Q, M)
figure, axes = plt.subplots(1, 8, figsize=(9, 1.5))
for axis, number in zip(axes, busiest):
    axis.imshow(wish[number].view(8, 8).cpu(), extent=(0, 1, 1, 0), cmap="cividis")
    axis.plot(
        *home[number].cpu(), "o", markerfacecolor="none", markeredgecolor="white", markersize=8
    )
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"query {number}", fontsize=9)
show(
    figure,
    "Eight small maps, one for each of the busiest queries. Each has a few bright cells in one region, "
    "and the ring lies in that region or beside it.",
)
middles = (torch.arange(8, device=device) + 0.5) / 8


def centre_of(weights):
    """The mean x and y of maps over the cells: (Q, M) -> (2, Q)."""
    return torch.stack([weights.view(-1, 8, 8).sum(axis) @ middles for axis in (1, 2)])


centre = centre_of(wish)
agree = [torch.corrcoef(torch.stack([centre[axis], home[:, axis]]))[0, 1].item() for axis in (0, 1)]
print(
    f"centre of the map and place of the answers: correlation {agree[0]:.2f} in x, {agree[1]:.2f} in y"
)
with without_places(model, memory, slice(0, 1)):
    not_first = ap(decode(model, memory)[-1])
with without_places(model, memory):
    nowhere = ap(decode(model, memory)[-1])
with record_attention(model) as maps:
    decode(model, memory)
real = maps["transformer.decoder.layers.0.cross_attn"].mean(1)  # (scenes, Q, M)
looked = torch.stack([real[sure[:, q], q].mean(0) for q in range(25)])  # where the answer is sure
for name, weights in {"this map": wish, "all four products": looked}.items():
    distance = (centre_of(weights) - home.T).norm(dim=0).mean()
    print(f"{name}: its centre lies {distance:.2f} from the ring")
print(f"AP as it is {ap(final):.2f}; without this product in the first layer {not_first:.2f}", end="")
print(f", in all three {nowhere:.2f}")
assert min(agree) > 0.85 and 0.3 < nowhere < not_first < ap(final) - 0.08

# %% [markdown]
# So this is how a vector comes to mean a place: $W_k p$ says of each cell where it lies, $W_q e$ points at some of these directions, and their
# product is a map. Training shapes $e$, $W_q$ and $W_k$ until the maps of 25 queries spread over the picture. Rings lie beside the bright cells
# rather than on them: the other products have a say, and with all of them the centre comes to the ring. Nor is this product all. Without
# it, even in all layers, AP falls but not to zero. The memory $m$ knows its place as well (notebook 02), so $(W_q e)^\top W_k m$ can speak of
# places, and from layer 2 on $(W_q x)^\top W_k p$ can: by then $x$ differs from query to query.
#
# ### D13 · "The decoder is that of 2017, except that it decodes in parallel"
#
# *Except* is a large word. A translator's decoder has a **causal mask**: word $i$ may hear only the words before it, because at translation time
# there are no others yet. With such a mask the decoder can be *trained* on all words at once, and must *speak* one word at a time. DETR has no
# mask. What would one do?

# %%
from minivis.experiments.queries import causal_queries, duplicates

one_picture = memory[:1]
with causal_queries(model):
    together = decode(model, one_picture)[-1]["pred_boxes"][0]
    alone = [
        decode(model, one_picture, embedding[: n + 1])[-1]["pred_boxes"][0, -1] for n in range(25)
    ]
    masked_shuffled = decode(model, one_picture, embedding[shuffled])[-1]["pred_boxes"][0]
    causal = decode(model, memory)

assert torch.allclose(torch.stack(alone), together, atol=1e-4)
assert (masked_shuffled - together[shuffled]).abs().max() > 0.01
print("with a causal mask: one query after another gives what all at once give,")
print("                    and another order of the queries gives other answers")
print(f"AP as it is {ap(final):.2f}, with the mask {ap(causal[-1]):.2f}")
repeated = [100 * duplicates(outputs) for outputs in (final, causal[-1])]
print("of the sure answers {:.0f} % and {:.0f} % are duplicates".format(*repeated))
assert repeated[1] > 4 * repeated[0]

# %% [markdown]
# Three things in one cell.
#
# - With the mask the 25 answers can be computed one at a time, and it is the same set. Query 7 has not heard queries 8 to 24, so they may as well
#   not be there yet.
# - With the mask *order counts*. Without it, it does not: you saw that above. A set should not care which query comes first, so DETR has no mask.
# - This model was trained without a mask, so the lower AP only says that its queries do use what "later" queries say.
#
# So why can DETR answer in parallel, and a translator cannot? Because of what goes *in*. A translator's input at place $i$ is its own answer at
# place $i - 1$. DETR's input at place $i$ is $e_i$, and that is known beforehand. How much time is that worth?

# %% tags=["nbval-ignore-output"]
embeddings = [embedding[: n + 1] for n in range(25)]  # one query more each time
with causal_queries(model):
    fast = milliseconds(lambda: decode(model, one_picture))
    slow = milliseconds(lambda: [decode(model, one_picture, some) for some in embeddings])
print(f"one picture, 25 queries: all at once {fast:.1f} ms, one after another {slow:.1f} ms")

# %% [markdown]
# **Qualified.** No causal mask, and positions at every attention in place of once at the input: these are differences, and the DETR code that
# the document prints shows the second.
#
# What this clock does *not* say: that a detector which speaks one after another is bad. Pix2Seq (Chen et al., 2022) writes boxes as words, one
# number after another, and is about as accurate as DETR. It takes one step for each word. Nor is the comparison above the fairest one: a
# real translator keeps the keys and values of earlier words, and then each step is cheap. The steps remain, one waiting for the other.
#
# ### D9 · "Parallel decoding refines its answer in $k$ steps, and $k \le m$ guarantees its quality"
#
# The document took this from work on *translation* (Santilli et al., 2023). There one guesses all $m$ words, lets every place correct itself in
# parallel, and repeats until nothing changes. After at most $m$ rounds this gives exactly what one after another gives. You will build it for the
# bag, in exercise 4.
#
# DETR does not do that. It makes one pass, through layers with weights of their own. But each layer's answers can be read, and they do get better.
# Is such a layer a step that can be repeated, or skipped? Run the decoder through other lists of layers:

# %%
from torch import nn

decoder = model.transformer.decoder
three = decoder.layers


def decode_through(*numbers):
    """The answers of a decoder that has these layers (from 1), in this order."""
    decoder.layers = nn.ModuleList([three[number - 1] for number in numbers])
    outputs = decode(model, memory)[-1]
    decoder.layers = three
    return outputs


routes = [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 3), (1, 2, 3, 3, 3), (1, 3), (2, 3)]
results = {"".join(map(str, route)): decode_through(*route) for route in routes}
assert torch.allclose(results["1"]["pred_logits"], layers[0]["pred_logits"], atol=1e-4)

found = [ap(outputs) for outputs in results.values()]
repeats = [100 * duplicates(outputs) for outputs in results.values()]
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8))
colours = ["#0072B2"] * 3 + ["#D55E00"] * 2 + ["#E69F00"] * 2
for axis, values, title in zip(axes, (found, repeats), ("AP", "duplicates, % of sure answers")):
    axis.bar(list(results), values, color=colours)
    axis.set_title(title)
    axis.set_xlabel("the layers that are run, in order")
    axis.tick_params(labelsize=7)
assert found[0] < found[1] < found[2] > found[3] > found[4] and repeats[0] > 2 * repeats[2]
assert found[5] < found[0] and found[6] < 0.2
show(
    figure,
    "Two bar charts over lists of layers. AP rises from layer 1 to layers 1, 2, 3, falls a little if "
    "layer 3 is run again, more without layer 2, and nearly to 0 without layer 1. "
    "The share of duplicates falls over the three layers.",
)
print("AP after each layer:", ", ".join(f"{value:.3f}" for value in found[:3]))
print(f"the last layer once more: {found[3]:.3f}; without layer 2: {found[5]:.3f}; ", end="")
print(f"without layer 1: {found[6]:.3f}")

# %% [markdown]
# **Corrected.** The layers refine (blue): AP rises, most from the first to the second. (In the paper it rises by 8.2 points from the first to the
# sixth.) But to run the last layer once more, or twice, makes it *worse* (red). And to skip one is worse than to stop early (yellow): layers 1
# and 3 without 2 are worse than layer 1 alone, and without layer 1 next to nothing is found. A layer is not a step of a search that settles. It
# is trained for its place, for what the layer before it hands over, and for no other. Nothing is guaranteed.
#
# What do the later layers add? The right panel tells one thing. After the first layer more than a quarter of the sure answers are duplicates: the
# queries have not heard from each other yet (D11!). Then they have. But each layer gives new boxes, too. Which of the two is it? Take the classes
# of one layer, and the boxes of another:

# %%
first, last = layers[0], layers[-1]
mixed = {
    "boxes of the last": {**first, "pred_boxes": last["pred_boxes"]},
    "classes of the last": {**first, "pred_logits": last["pred_logits"]},
}
gained = {name: ap(outputs) - found[0] for name, outputs in mixed.items()}
for name, gain in gained.items():
    print(f"the first layer's answers with the {name}: {gain:+.3f} AP")
print(f"both, the last layer: {found[2] - found[0]:+.3f} AP")
assert 0.005 < gained["boxes of the last"] < gained["classes of the last"] < found[2] - found[0]

# %% [markdown]
# Both. Better boxes are a part of it. The somewhat larger part is who says what: who is sure, how sure, and who has fallen silent.
#
# ### D14 · "$d = 512$"

# %%
from minivis.detr import Transformer, detr_resnet50

with torch.device("meta"):  # shapes without numbers
    millions = [sum(p.numel() for p in Transformer(d).parameters()) / 1e6 for d in (256, 512)]
    print("the paper's DETR is", detr_resnet50().transformer.d_model, "wide")
print(
    f"millions of parameters in a transformer 256 wide: {millions[0]:.1f}; 512 wide: {millions[1]:.1f}"
)

# %% [markdown]
# **Corrected.** 512 is the default in the code's signature, as in 2017. The recipe builds it with 256. With 512 the transformer alone would be
# larger than the whole detector of the paper's table 1, with its 41 million.
#
# ### D36 · "Cross-attention takes the place of RoI pooling, and may read the whole picture"
#
# A two-stage detector first proposes boxes (*regions of interest*, RoI). Then it cuts features out at each box, averages them (*pooling*), and
# looks at nothing else. In its good form this is *RoIAlign*: it takes the map's value at evenly spread points of the box, and between cells it
# interpolates. So it can be drawn as an attention map, too: feed it a map with a 1 in one cell, and see how much of it comes through. Beside it,
# what the query's own attention does.

# %%
from minivis.experiments.queries import cells_inside, roi_weights

attention = [maps[f"transformer.decoder.layers.{n}.cross_attn"] for n in range(3)]

SCENE, QUERY = 181, 15
box = final["pred_boxes"][SCENE, QUERY]
cx, cy, w, h = box.tolist()
picture = scenes.scene_image(SCENE).convert("L")
panels = [("RoIAlign", roi_weights(box, memory.size))]
panels += [(f"layer {n + 1}", attention[n][SCENE, :, QUERY].mean(0)) for n in range(3)]
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6))
for axis, (name, weights) in zip(axes, panels):
    percent = 100 * weights[cells_inside(box, memory.size)].sum()
    axis.imshow(picture, extent=(0, 1, 1, 0), cmap="gray", alpha=0.5)
    axis.imshow(weights.view(memory.size).cpu(), extent=(0, 1, 1, 0), cmap="cividis", alpha=0.65)
    corner = (cx - w / 2, cy - h / 2)
    axis.add_patch(plt.Rectangle(corner, w, h, fill=False, edgecolor="white", linewidth=2))
    axis.set(xticks=[], yticks=[])
    axis.set_title(f"{name}: {percent:.0f} % inside", fontsize=10)
show(
    figure,
    "Four pictures of a ring with its box. RoIAlign is spread evenly over the box, and fades out "
    "around it. The attention of each layer lies on a few cells, some of them outside.",
)

# %% [markdown]
# "Inside" are the cells whose middle lies in the box that the last layer gives. At 16 pixels a cell that is coarse, as the first map shows: the
# cells that RoIAlign reads reach beyond the box on every side. Now over all sure answers:

# %%
near = {margin: cells_inside(final["pred_boxes"], memory.size, margin) for margin in (0, 0.5, 1, 2)}
roi = roi_weights(final["pred_boxes"], memory.size)


def mass(weights, cells):
    """Mean over all sure answers: the share of these weights (scenes, Q, M) that lies on these cells."""
    return (weights * cells).sum(-1)[sure].mean().item()


area = near[0].float().mean(-1)[sure].mean().item()
print(f"a box covers {100 * area:.1f} % of the cells")
for name, weights in [("RoIAlign", roi)] + [
    (f"layer {n + 1}", heads.mean(1)) for n, heads in enumerate(attention)
]:
    inside, around = mass(weights, near[0]), mass(weights, near[1])
    print(f"{name}: {100 * inside:.0f} % inside, {100 * around:.0f} % within a cell of it")
    assert 4 * area < inside < 0.7 < around

# %% [markdown]
# In the first two layers about half of the attention is inside: seven to eight times what the box's size alone would give. The rest is outside,
# most of it just beyond the edge. Is that needed, or is it waste? Forbid it, and see. From now on a query may read only some cells around its own
# final box. (In all three layers, and around a box that is known only afterwards: this is a test of what is read, not a way to build a detector. A
# query that is left without any cell reads everything.)

# %%
from minivis.experiments.queries import read_only

restricted = {}
for name, cells in (
    ("middle inside the box", near[0]),
    ("up to half a cell beyond", near[0.5]),
    ("those RoIAlign reads", roi > 0),
    ("up to one cell beyond", near[1]),
    ("up to two cells beyond", near[2]),
    ("anywhere", torch.ones_like(near[0])),
):
    with read_only(model, cells):
        restricted[name] = ap(decode(model, memory)[-1])
    count = cells.sum(-1)[sure].float().mean()
    print(f"{name:24} {count:4.0f} cells, AP {restricted[name]:.3f}")
single = (near[0].sum(-1)[sure] <= 1).float().mean()
print(f"in the first row {100 * single:.0f} % of the answers have one cell at most")
assert restricted["middle inside the box"] < 0.6 * restricted["anywhere"]
assert 0.8 < restricted["those RoIAlign reads"] / restricted["anywhere"] < 0.92
assert restricted["up to two cells beyond"] > 0.95 * restricted["anywhere"]

# %% [markdown]
# **Confirmed**, with a measure of how much it is worth. To read only what RoIAlign would read costs 0.10 of 0.80. To read two cells (32 pixels)
# beyond the box is nearly as good as to read everything. The first row, less than half of the AP, says less than it seems to: those are four cells
# on average, and for every fourth answer a single one.
#
# Why does the surrounding help? One reason may be that whoever wants to know where an object ends has to look at where it is no longer. Another is
# the grid: with cells of 16 pixels an object's edge lies in cells whose middle is outside. This test does not tell them apart.
#
# Two cautions. The model was not trained with the restriction; one that was might do better. And the memory is not the picture: every cell has
# been through the encoder, and knows something of all others. A query that looks only inside may still hear of what is outside.
#
# ### D28 · "Heads learn independently of each other"
#
# What do they look at? For every sure answer, cut the attention out around its box, scale it so that all boxes are alike, and average. (Each map
# has a colour scale of its own, from its least to its most: compare shapes, not brightness.)

# %%
import torch.nn.functional as F

from minivis.experiments.queries import around_boxes

figure, axes = plt.subplots(3, 8, figsize=(9, 3.5))
some = sure[:200]
for n, row in enumerate(axes):
    weights = attention[n][:200].transpose(1, 2)[some].unflatten(-1, memory.size)
    mean = around_boxes(weights, final["pred_boxes"][:200][some]).mean(0)
    for head, axis in enumerate(row):
        axis.imshow(mean[head].cpu(), extent=(-1.5, 1.5, 1.5, -1.5), cmap="cividis")
        axis.add_patch(plt.Rectangle((-0.5, -0.5), 1, 1, fill=False, edgecolor="white"))
        axis.set(xticks=[], yticks=[])
        if n == 0:
            axis.set_title(f"head {head}", fontsize=9)
    row[0].set_ylabel(f"layer {n + 1}")
show(
    figure,
    "Three rows of eight small maps, one for each head, with the box as a white square in the middle. "
    "Some heads look at the middle, some beyond the left, right, upper or lower edge, "
    "and head 2 of layer 3 everywhere but at the box. Some look alike.",
)
inside = [100 * mass(heads[:, 2], near[0]) for heads in attention]
print("head 2, inside the box: layer 2 {1:.0f} %, layer 3 {2:.0f} %".format(*inside), end=" ")
print(f"(the box's share of the cells: {100 * area:.1f} %)")

# %% [markdown]
# Something like a division of labour: some heads look at the middle, some beyond one edge, head 2 of layer 3 anywhere but at the object. It is
# not a strict one: several heads look alike. (Head 2 of one layer has nothing to do with head 2 of another: only the number is the same.)
# Nobody asked for it. But did each head learn *by itself*? If so, what one head is taught should not depend on the others. Take head 4 of layer 2,
# and silence each of the other seven in turn: does the gradient that head 4 gets keep its direction? One batch says little, so take twenty.

# %%
from minivis.detr import HungarianMatcher, SetCriterion
from minivis.experiments.queries import silent_head

criterion = SetCriterion(len(model.class_names), HungarianMatcher(), eos_coef=0.1).to(device)
cross = model.transformer.decoder.layers[1].cross_attn
own = slice(4 * 16, 5 * 16)  # head 4 of 8, in 128 rows


def loss_of(outputs, targets):
    """The training loss: of the last layer's answers and of all layers' before it."""
    together = {**outputs[-1], "aux_outputs": outputs[:-1]}
    return criterion.weighted_sum(criterion(together, targets))


def lesson(part):
    """The gradient that head 4's query projection gets from some scenes."""
    weight = cross.q_proj.weight.requires_grad_(True)
    loss = loss_of(decode(model, memory[part]), targets[part])
    (gradient,) = torch.autograd.grad(loss, weight)
    weight.requires_grad_(False)
    return gradient[own].flatten()


def lessons():
    """The same from each of twenty batches of eight scenes, as unit vectors: (20, numbers)."""
    return F.normalize(torch.stack([lesson(slice(n, n + 8)) for n in range(0, 160, 8)]), dim=1)


usual, cosines = lessons(), {}
for head in (0, 1, 2, 3, 5, 6, 7):
    with silent_head(cross, head):
        cosines[head] = (usual * lessons()).sum(1)
means = {head: values.mean().item() for head, values in cosines.items()}
others = (usual @ usual.T)[~torch.eye(20, dtype=torch.bool, device=device)]
print("head 4's gradient with all heads, and without one; cosine, mean over 20 batches:")
print("  without head", ", ".join(f"{head}: {mean:.1f}" for head, mean in means.items()))
print(f"and that of two different batches: mean {others.mean().abs():.1f},", end=" ")
print(f"from {others.min():.1f} to {others.max():.1f}")
assert torch.allclose(F.normalize(lesson(slice(0, 8)), dim=0), usual[0], atol=1e-4)
assert 0.3 < min(means.values()) < max(means.values()) < 0.9 and others.mean().abs() < 0.05


# %% [markdown]
# A cosine of 1 is the same lesson, 0 an unrelated one. Different pictures teach unrelated things on average, though single pairs of batches may
# agree or disagree. With independent learners all seven would be 1, in every batch. **Qualified.** Heads have projections of their own, and
# several end up looking at places of their own. But their outputs are added before anything is judged, so what one is taught depends on what the
# others give. *How* it depends, whether one supplies what the others leave out, a cosine does not say. Nor do the pictures above, which show where
# heads look, show what the network *makes* of it.
#
# ## What queries tell each other
#
# Self-attention among queries is the part that most older detectors do not have. You saw query 21 take its answer back. Did somebody tell it to?
# Two tests. Leave other queries out of the decoder, and see who it was. And make all of them inaudible: self-attention gives zeros in the second
# and third layer. (In the first it says nothing anyway.)

# %%
def circle_of_21(others):
    """How sure query 21 of scene 482 is of a class when only these others are there."""
    answer = decode(model, memory[482:483], embedding[[*others, 21]])[-1]["pred_logits"][0, -1]
    return answer.softmax(-1)[:-1].max().item()


everybody = [query for query in range(25) if query != 21]
alone = {"all others": circle_of_21(everybody), "nobody": circle_of_21([])}
alone["only 19"] = circle_of_21([19])
for name, score in alone.items():
    print(f"query 21 hears {name:10}: its likeliest class gets {score:.2f}")
left_out = {n: circle_of_21([query for query in everybody if query != n]) for n in everybody}
without_19 = left_out.pop(19)
print(f"all others but 19: {without_19:.2f}; but any one of the other 23: at most", end=" ")
print(f"{max(left_out.values()):.2f}")
assert without_19 > 0.9 and alone["nobody"] > 0.5
assert max(alone["only 19"], alone["all others"], *left_out.values()) < 0.1

# %% [markdown]
# It was query 19, and 19 alone: without it query 21 keeps its circle, and with nobody but 19 it gives it up. To leave out any other changes
# nothing. Query 15, for one, is sure of a circle after layer 1 too (go and look), but of the small one.

# %% tags=["nbval-ignore-output"]
from minivis.experiments.queries import silent_queries

with silent_queries(model):
    silent = decode(model, memory)[-1]
with silent_queries(model, hear_themselves=True):
    selfish = decode(model, memory)[-1]
for name, outputs in (("as it is", final), ("hears nothing", silent), ("hears itself", selfish)):
    print(
        f"{name:14} AP {ap(outputs):.2f}, duplicates {100 * duplicates(outputs):4.1f} % of sure answers"
    )
assert min(duplicates(silent), duplicates(selfish)) > 3 * duplicates(final)
assert max(ap(silent), ap(selfish)) < ap(final) - 0.05

# %% [markdown]
# Without each other queries leave several times as many duplicates. How many depends on how one silences them: with zeros in place of what is
# heard about five times as many, and if each hears only itself, nearly ten times.
#
# Can one see them talk? After the first layer many queries have *rivals*: others that are sure of the same class, with boxes that overlap by half.
# Of all the attention that such a query gives to others, what share goes to its rivals? Rivals are neighbours, and neighbours may hear each other
# anyway. So take a control: what the *same* queries get from it in scenes where they are not its rivals.

# %%
from minivis.experiments.queries import rivals

rival = rivals(layers[0])  # (scenes, Q, Q)
has_one = rival.any(-1)
assert rival[482, 21].nonzero().tolist() == [[19]]  # of query 21, above, 19 is the only rival
even = (rival.sum(-1) / 24)[has_one].mean()
print(f"if the attention to others were spread evenly, rivals would get {even:.2f} of it")
for n in range(3):
    heads = maps[f"transformer.decoder.layers.{n}.self_attn"].mean(1)
    to_others = heads.sum(-1) - heads.diagonal(dim1=1, dim2=2)
    part = heads / to_others[..., None]
    otherwise = (part * ~rival).sum(0) / (~rival).sum(0)  # (Q, Q): mean over the other scenes
    share, control = ((x * rival).sum(-1) for x in (part, otherwise))
    yields, stays = share[has_one & ~sure].mean(), share[has_one & sure].mean()
    share, control = share[has_one].mean(), control[has_one].mean()
    print(f"layer {n + 1}: they get {share:.2f}, the same queries otherwise {control:.2f}", end=" ")
    print(f"(from those who fall silent {yields:.2f}, who stay {stays:.2f})")
    assert share < 1.1 * control if n == 0 else 1.5 * control < share < 3 * control

score = layers[0]["pred_logits"].softmax(-1)[..., :-1].amax(-1)
scene, one, other = rival.nonzero().T
settled = sure[scene, one] & ~sure[scene, other]  # one stays, the other falls silent
staying = sure[scene, one].int() + sure[scene, other].int()
pairs = [int((staying == n).sum()) // 2 for n in (1, 2, 0)]  # each pair stands in `rival` twice
print(f"{sum(pairs)} pairs of rivals: one stays in {pairs[0]}, both in {pairs[1]}, none in {pairs[2]}")
surer = (score[scene, one] > score[scene, other])[settled].float().mean().item()
print(f"where one stays, it is the surer one of layer 1 in {100 * surer:.0f} %")
assert surer > 0.85

# %% [markdown]
# In the first layer, where nothing is said, rivals get no more than anybody. In the second and third they get about five times their even share,
# and about twice what the same queries get otherwise. A part of the first number is neighbourhood. The second says that queries do notice those
# who have found the same.
#
# **How is it settled who yields?** In the last layer those who fall silent look at their rivals more than those who stay, in the layer before
# hardly more: a mean that decides no single case. The outcome has a rule, nearly: where one stays, it is the query that was surer after layer 1.
# By what arithmetic the network compares the two, this page leaves open.
#
# It does not always work: see the pairs of which both stay, or none. Queries 0, 7 and 20 in the scene at the top still say *star*, all three of
# them, after the last layer.
#
# ### Dropping a query: after, or before?
#
# The widget drops *answers*: they were given, and are then ignored. The other queries have heard the dropped one, and have left its objects to it.
# (That is why, with the slider at 10, AP even falls from layer to layer: the later the layer, the more objects are left to those whose answers are
# thrown away.) What if it never was there? Take it out of the decoder before the first layer.

# %%
print("AP on 500 scenes      answers ignored   never there")
for dropped in ([], busiest[:1], busiest[1:2], busiest[:5]):
    kept = [query for query in range(25) if query not in dropped]
    ignored = ap({name: values[:, kept] for name, values in final.items()})
    absent = ap(decode(model, memory, embedding[kept])[-1])
    name = f"without {', '.join(map(str, dropped))}" if dropped else "all 25"
    print(f"{name:24} {ignored:12.2f} {absent:13.2f}")
    assert not dropped or absent > ignored + 0.01

few = [
    ap({name: values[:, busiest[:10]] for name, values in outputs.items()}) for outputs in layers
]
print(
    "answers of the ten busiest only, layer by layer:", ", ".join(f"{value:.2f}" for value in few)
)
assert few[0] > few[1] > few[2]

# %% [markdown]
# A query that was never there is missed less: its neighbours take over a part of its work. So they could have found these objects too, and with
# the busy one present they did not keep them. Who takes which object is settled anew on each picture, among those who are there.

# %% [markdown]
# ## Train it: the same start for all
#
# Are those 25 vectors hard to come by? Throw them away. Start all of them at **zero**: 25 equal queries that give 25 equal answers. Freeze
# everything else (the detector knows how to read; it has only lost its questions), and train these $25 \times 128$ numbers alone.

# %%
from minivis.data import Scenes

train_memory, train_targets = encode_scenes(model, Scenes("train"), range(480))
part, part_targets = memory[:200], targets[:200]  # to measure on


def train(model, parameters, queries, steps, lr, on_step=lambda step: None):
    """Adam on `parameters`, with the answers of `queries` (None: the model's own)."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0)  # without decay it is Adam
    order = torch.Generator().manual_seed(SEED)
    on_step(0)
    for step in range(1, steps + 1):
        batch = torch.randperm(480, generator=order)[:16]
        outputs = decode(model, train_memory[batch], queries)
        loss = loss_of(outputs, [train_targets[i] for i in batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        on_step(step)


fresh = torch.zeros_like(embedding).requires_grad_(True)
film, different = {}, {}


def look(step):
    if step in (0, 1, 5, 25, 100, 200):
        with torch.no_grad():
            film[step] = decode(model, part, fresh)[-1]
            different[step] = len(fresh.round(decimals=4).unique(dim=0))


train(model, [fresh], fresh, steps=200, lr=0.05, on_step=look)

# %%
figure, axes = plt.subplots(1, 6, figsize=(9, 2.2))
growing = []
now = confident(film[200]).sum(0).argsort(descending=True)
coloured = dict(zip(now[:4].tolist(), ("#0072B2", "#D55E00", "#009E73", "#CC79A7")))
for axis, (step, outputs) in zip(axes, film.items()):
    growing.append(ap(outputs, part_targets))
    sure_now = confident(outputs)
    for query in [*now[4:].tolist(), *coloured]:
        middle = outputs["pred_boxes"][:, query][sure_now[:, query]][:, :2].cpu()
        axis.scatter(*middle.T, s=5, color=coloured.get(query, "#DDDDDD"), linewidths=0)
    axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
    vectors = f"{different[step]} vector{'s' * (different[step] > 1)}"
    axis.set_title(f"step {step}\n{vectors}\nAP {growing[-1]:.2f}", fontsize=9)
reference = ap({name: values[:200] for name, values in final.items()}, part_targets)
assert different[0] == 1 < different[1] < 25 and different[200] > 20
assert growing[0] < 0.05 and growing[3] > 0.5 and growing[-1] > 0.85 * reference
show(
    figure,
    "Six squares with dots, one for each training step shown: the middles of sure boxes. "
    "Four queries are coloured. At first all lie on each other; at the end each keeps to a region.",
)
print(f"AP with the original queries, on these 200 scenes: {reference:.2f}")

# %% [markdown]
# Each dot is the middle of a sure box; four of the queries are coloured. They begin as one and the same vector, and part step by step: above each
# square stands how many different vectors there are. What breaks the tie? Not the picture, not the starting numbers: the **matching**
# (notebook 04). For equal answers every matching costs the same, and the solver then takes the queries with the lowest numbers. Those are told "be this
# object", the others "be silent". A scene has at most 8 objects, so the first step frees about as many queries; all that were never matched got
# the identical lesson, and are still one vector. After 25 steps AP is above 0.5, after 200 most of the way is done.
#
# ### Three ways to go on
#
# | where | what | takes |
# | --- | --- | --- |
# | here | more steps for the same questions: `train(model, [fresh], fresh, steps=400, lr=0.02)` | a quarter of a minute on one core, for about half of the AP that is missing |
# | a GPU, for example Colab's | all of it anew, with twice the queries: `minivis train detr-mini --set model.num_queries=50 --out runs/fifty` | with 25 queries 56 minutes on one CPU core; with 50, or on a GPU, not measured |
# | several GPUs and COCO | the paper's recipe, with 100 queries: `minivis train detr-r50-coco --data COCO` | three days on 16 GPUs in the paper |
#
# Both recipes print what they take: `minivis recipes detr-mini`. What you have trained opens in the widget:
# `QueryExplorer(minivis.load("runs/fifty"), scenes)`.

# %% [markdown]
# ## Break it: a decoder without self-attention, trained for it
#
# "You silenced a model that had learned to listen. Of course it got worse." A fair objection. So give it the chance to learn: train the whole
# decoder on, for a hundred steps, with self-attention silenced. Beside it, as a control, the same training with self-attention as it is.

# %% tags=["nbval-ignore-output"]
import copy
from contextlib import nullcontext


def row(name, outputs):
    print(
        f"{name:20} AP {ap(outputs, part_targets):.2f}, duplicates {100 * duplicates(outputs):.0f} %"
    )


row("as it is", {name: values[:200] for name, values in final.items()})
row("silenced", {name: values[:200] for name, values in silent.items()})
trained = {}
for name in ("listening", "silenced"):
    student = copy.deepcopy(model)
    parameters = [p.requires_grad_(True) for p in student.transformer.decoder.parameters()]
    with silent_queries(student) if name == "silenced" else nullcontext():
        train(student, parameters, None, steps=100, lr=3e-4)
        with torch.no_grad():
            trained[name] = decode(student, part)[-1]
    row(f"{name}, trained on", trained[name])
assert duplicates(trained["silenced"]) > 3 * duplicates(trained["listening"])

# %% [markdown]
# All four rows are of the same 200 scenes. AP recovers a part of what silence had cost (a hundred steps at this rate cost a little by themselves,
# as the listening row shows). The duplicates do not go: a query that hears nobody cannot know that it is second. **The symptom to remember:** good
# boxes, right classes, and several answers on one object. Either training did not give each object to one query only (the matching, notebook 04),
# or the queries do not hear each other enough. (A longer training might find ways around silence, such as stricter regions. A hundred steps do not.)
# Most older detectors have no self-attention between their answers, and need a last step by hand, which throws out all but the surest of several
# like boxes (non-maximum suppression, NMS); notebook 05 compares.
#
# ### Break it: questions that nobody learned
#
# The other way round: keep the decoder, and ask random questions of the same size.

# %% tags=["nbval-ignore-output"]
from minivis.experiments.queries import share_found

torch.manual_seed(SEED)
unlearned = decode(model, memory, torch.randn_like(embedding))[-1]
for name, outputs in (("learned", final), ("random", unlearned)):
    print(f"{name:8} AP {ap(outputs):.2f}, duplicates {100 * duplicates(outputs):.0f} %,", end=" ")
    print(f"a sure and right answer for {100 * share_found(outputs, targets):.0f} % of all objects")
assert 0.05 < ap(unlearned) < 0.5 and share_found(unlearned, targets) < 0.6 < share_found(
    final, targets
)

# %% [markdown]
# Random questions find something! Any vector is *a* question, and the decoder does its best to answer it. But random questions leave gaps, so
# most objects are not found, and they crowd, so there are duplicates. What training adds is that the 25 questions together cover the picture, with
# overlapping regions.

# %% [markdown]
# ## Look inside: where each query answers
#
# All 25 queries, on all 500 scenes: a dot for each sure answer, at the middle of its box; the larger the box, the larger the dot. A colour is a
# class. Above each square the query's number, and how often it is sure.

# %%
figure, axes = plt.subplots(3, 9, figsize=(9, 3.4))
colour_of = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # as in the widget
labels = final["pred_logits"][..., :-1].argmax(-1)
for axis, query in zip(axes.flat, busiest):
    where = sure[:, query]
    x, y, widths, _ = final["pred_boxes"][where, query].cpu().T
    colours = [colour_of[label] for label in labels[where, query].tolist()]
    axis.scatter(x, y, s=60 * widths, c=colours, alpha=0.8, linewidths=0)
    axis.set_title(f"{query}: {int(where.sum())}", fontsize=8, pad=3)
for axis in axes.flat:
    axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
    axis.set_visible(axis.has_data())
show(
    figure,
    "25 small squares, one for each query, the busiest first, with dots where it answers. "
    "Each has a region, and regions overlap; the colours, which are classes, are mixed in all of them.",
)

# %% [markdown]
# ### D10, in part · The queries, where anchors stood
#
# Notebook 02 has tested the document's "the spatial encoding is learned from scratch": it is fixed, and what is learned are the object queries. Do
# these do what anchors did, and spread the work over the picture? Ask how much you know of an answer (its place, its size, its class) if you know
# only which query gave it.

# %%
places, sizes = final["pred_boxes"][sure][:, :2], final["pred_boxes"][sure][:, 2:].log()
owner = sure.nonzero()[:, 1]


def explained(values, groups):
    """The share of the variance of values (n, k) that knowing the group takes away."""
    within = sum(
        ((values[groups == g] - values[groups == g].mean(0)) ** 2).sum() for g in groups.unique()
    )
    return (1 - within / ((values - values.mean(0)) ** 2).sum()).item()


print("knowing the query explains, of the variance of sure answers:")
kinds = F.one_hot(labels[sure]).float()
for name, values in {"place": places, "log size": sizes, "class": kinds}.items():
    print(f"  {name:9} {100 * explained(values, owner):3.0f} %")
assert explained(places, owner) > 0.6 > 0.2 > explained(kinds, owner)

nearest = torch.cdist(places, home).argmin(1)  # the query whose mean place is nearest
far = (places - home[owner]).norm(dim=1).max()
print(f"the nearest query's own answer: {100 * (nearest == owner).float().mean():.0f} %")
print(f"farthest from its query's mean place: {far:.2f} of the picture's side")
assert 0.3 < (nearest == owner).float().mean() < 0.6 and 0.25 < far < 0.5

# %% [markdown]
# A query has a place, and hardly a class or a size. The places overlap strongly: by the nearest mean place one would guess the right query for
# fewer than half of the answers. That is the sense in which queries stand where anchors stood (**corrected**, as in notebook 02): both spread the
# work over the picture. But an anchor *is* a box, drawn before anybody has seen the picture, and its answer is a small correction. A query's place
# is a habit, and where in it, or how far from it, its answer lies is not fixed in advance.
#
# Why is one query sure in more than 200 scenes and another in fewer than 20? Nothing in the loss asks for equal shares. What made these the busy
# ones, this page did not find out.
#
# ### So what is an object query?
#
# The question that people ask most, with what you have seen:
#
# | is it … | | where |
# | --- | --- | --- |
# | a box, an anchor? | No: a vector that is added to the questions of attention. No box goes in. | Build it |
# | made from the picture? | No: the same 25 for every picture. What they read differs. | D11 |
# | zero at the start? | No, that is the content. Zeros can be trained to become good queries, though. | D11, Train it |
# | a number, a turn? | No: shuffled queries give the same set of answers. | D11 |
# | for one class? | Hardly. | D10 |
# | for one place? | By habit. The places overlap, and neighbours take over. | D10, Dropping a query |
# | on its own? | No: it hears the others, from the second layer on. | What queries tell each other |
#
# **An object query is a learned question.** It stands in the attention's $Q$ at every layer, it is all that makes one answer differ from another,
# and training shapes it into a habit of asking about some places rather than others.
#
# **What this does not prove.** That yellow cells are the *reason* for an answer: attention says where values were taken from, and these values had
# been mixed by the encoder before. And 25 queries on 128 pixels are a small world: the paper's 100 queries show the same habit on COCO, with sizes
# as well as places (its figure 7).

# %% [markdown]
# ## Real weights
#
# With a network, the paper's own ResNet-50 model: is its first self-attention as empty, and where does its surest query look? Without one, the
# next cell says so and goes on. The cat is a photograph that comes with scikit-image.

# %% tags=["nbval-ignore-output"]
import matplotlib.pyplot as plt
from PIL import Image
from skimage import data

from minivis.attention import record_attention
from minivis.experiments.queries import decode, encode
from minivis.widgets import show

# wanted=True downloads 160 MB
released = minivis.load_released("facebook/detr-resnet-50", wanted=False)
if released is not None:
    cat, first_heard = Image.fromarray(data.chelsea()), []
    hook = released.transformer.decoder.layers[0].self_attn.register_forward_hook(
        lambda module, inputs, output: first_heard.append(output)
    )
    with torch.inference_mode(), record_attention(released) as maps:
        seen_map = encode(released, [released.image_transform(cat)])
        answers = decode(released, seen_map)[-1]
    hook.remove()
    print(f"first self-attention: spread over 100 queries {first_heard[0].std(1).max():.1e}")

    scores, classes = answers["pred_logits"][0].softmax(-1)[:, :-1].max(-1)
    surest = scores.argmax().item()
    print(f"query {surest}: {released.class_names[classes[surest]]} ({scores[surest]:.2f})")
    figure, axes = plt.subplots(1, 6, figsize=(9, 1.6))
    whole = {"extent": (0, 1, 1, 0), "aspect": "auto"}
    for n, axis in enumerate(axes):
        weights = maps[f"transformer.decoder.layers.{n}.cross_attn"][0, :, surest].mean(0)
        axis.imshow(cat, **whole)
        axis.imshow(weights.reshape(seen_map.size).cpu().numpy(), alpha=0.6, cmap="cividis", **whole)
        axis.set(xticks=[], yticks=[], title=f"layer {n + 1}")
    show(figure, "The cross-attention of the surest query on a photograph of a cat, layer by layer")


# %% [markdown]
# ## Exercises
#
# Four functions to write, about 45 minutes in all, on top of the reading. Fill in a stub, run it, and run the cell below it. The check runs your
# function on small inputs and says what to look at. Solutions are in `solutions/03_detr_decoder.py`.
#
# ### Exercise 1: what the first self-attention says (10 minutes)
#
# The content is zero, so every value is the layer norm of zeros: its shift $\beta$. Compute what the first self-attention gives, **without
# computing any attention**. The value projection is $W_v\,y + b_v$, the output projection $W_o\,y + b_o$. (Take one head. More of them change
# nothing; why?)
#
# <details><summary>Why more heads change nothing</summary>
#
# Each head averages its own slice of the values. All values are equal, so it gets that slice, whatever its weights; put together, the slices are
# the vector again.
# </details>
#
# <details><summary>A hint</summary>
#
# What is a weighted mean of equal vectors, if the weights sum to 1?
# </details>

# %%
def first_words(shift, w_v, b_v, w_o, b_o, num_queries):
    """What every query hears in the first self-attention, (Q, d).

    shift, b_v, b_o: (d,). w_v, w_o: (d, d), as in nn.Linear.
    """
    raise NotImplementedError


# %%
from minivis.checks.decoder import check_first_words

check_first_words(first_words)


# %% [markdown]
# ### Exercise 2: read the picture (10 minutes)
#
# Cross-attention with one head, without projections, without a norm, and without adding the result to $x$. Which of the four inputs belong to the
# questions, which to the keys, which to the values?
#
# $$\mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt d}\right) V$$
#
# <details><summary>A hint</summary>
#
# Look at the second line of the three under "Build it". What decides where to look, and what is taken from there?
# </details>

# %%
def read(content, query, memory, positions):
    """What each query gathers, (Q, d). content, query: (Q, d). memory, positions: (M, d)."""
    raise NotImplementedError


# %%
from minivis.checks.decoder import check_read

check_read(read)


# %% [markdown]
# ### Exercise 3: how much of it lies in the box (10 minutes)
#
# A map of attention (rows, columns) covers the whole picture. What share of it lies on cells whose **middle** is in a box?
#
# <details><summary>A hint</summary>
#
# The middle of column 0 of 8 lies at 0.5 / 8 of the width. Find the rows that are inside and the columns that are inside, and combine them.
# </details>

# %%
def share_inside(attention, box):
    """A number in 0..1. attention: (rows, columns). box: (4,) as (cx, cy, w, h) in 0..1."""
    raise NotImplementedError


# %%
from minivis.checks.decoder import check_share_inside

check_share_inside(share_inside)


# %% [markdown]
# ### Exercise 4: guess everything, then refine (15 minutes)
#
# Decoding as the document's D9 means it, for the bag of numbers. There are $m$ places, all filled with a guess. In one step *every* place is
# answered anew, at the same time: place 0 says the largest number of the bag, place $k$ says the largest number that is smaller than what stood at
# place $k - 1$ **before this step**, or $-\infty$ if there is none. Repeat until a step changes nothing. Give the answers, and how many steps
# changed something.
#
# At most $m$ steps change something, so `for _ in range(len(guess) + 1)` is enough, and it ends whatever you do. Compare by `torch.equal(new,
# old)`: a difference will not do, because $-\infty - (-\infty)$ is `nan`.
#
# Before you write it: how many steps does the bag (3, 7, 1) take from four places of $-\infty$? How many if the guess is right already?
#
# <details><summary>What you should have found</summary>
#
# Three: each step makes one more place right, and the fourth was right from the start. None: the first step changes nothing. A good guess saves
# steps, and a bad one costs none. But each step answers *all* places anew, which is more arithmetic than one after another needs.
# </details>
#
# <details><summary>A hint</summary>
#
# The limits of all places are the old answers, moved on by one place, with ∞ in front. `torch.where(values < limits[:, None], values, -torch.inf)`
# has a row for each place.
# </details>

# %%
def refine(values, guess):
    """The answers (m,) once a step changes nothing, and the number of steps that changed something.

    values: (n,) different numbers. guess: (m,).
    """
    raise NotImplementedError


# %%
from minivis.checks.decoder import check_refine

check_refine(refine)

# %% [markdown]
# ## In short
#
# - An **object query** is a learned vector that stands in the attention's questions. It is the same for every picture, and it is all that makes
#   one answer differ from another. It asks for a place through the product of $W_q e$ with $W_k p$.
# - The **content** starts at zero. So the first self-attention says nothing, and the first cross-attention is where queries begin to differ.
# - **Cross-attention** gathers: from inside the object, and from just beyond its edge. Heads look at different places, and learn together.
# - **Self-attention** lets queries agree: as a rule the surer one stays. Without it duplicates come back, and a short training does not remove
#   them.
# - All answers come **at once**, because no answer is anybody's input. The price is a fixed number of places.
# - Each decoder **layer** is trained for its place: to leave out the last costs little, to skip one costs much, to repeat one does not help.
# - A query has a **place** by habit, shared with its neighbours, and no class. They can take over.
#
# ### What became of the document's claims

# %%
from minivis.widgets import show_claims

show_claims("D9", "D10", "D11", "D12", "D13", "D14", "D28", "D36")

# %% [markdown]
# ## Quiz
#
# Open the answer you would give.

# %% [markdown]
# **1. Why does the first self-attention of the decoder give every query the same vector?**
#
# <details><summary>a) Because the query embeddings start at zero</summary>
#
# **Not quite.** They do not, and they are learned. It is the content that starts at zero, and the values are made of the content alone.
# </details>
#
# <details><summary>b) Because its attention weights are all equal</summary>
#
# **Not quite.** They differ from query to query, since the embeddings stand in the questions and keys. It does not help: all values are equal.
# </details>
#
# <details><summary>c) Because all values are equal, and weights sum to 1</summary>
#
# **Right.** A mean of equal vectors is that vector, whatever the weights.
# </details>

# %% [markdown]
# **2. A detector of your own reports many objects twice, with good boxes and classes. The matching gives each object to one query. Where do you look next?**
#
# <details><summary>a) At self-attention between the queries</summary>
#
# **Right.** A query that does not hear the others cannot know that it is second. Silence does it, and so does a mask too many (D13). Look also at
# which layer the answers are read off: after the first nobody has heard anybody.
# </details>
#
# <details><summary>b) At cross-attention</summary>
#
# **Not quite.** The boxes are good, so the picture is read well.
# </details>
#
# <details><summary>c) At the number of queries</summary>
#
# **Not quite.** More queries than objects are normal; the others say "no object". With too few, objects would be missing.
# </details>

# %% [markdown]
# **3. Why can DETR give its answers in parallel, where a translator speaks one word after another?**
#
# <details><summary>a) Because it has no causal mask</summary>
#
# **Not quite.** You saw it with a mask: still all at once. The mask decides who hears whom.
# </details>
#
# <details><summary>b) Because its inputs, the query embeddings, do not depend on its answers</summary>
#
# **Right.** A translator's input at each place is its own last word, which has to be spoken first.
# </details>
#
# <details><summary>c) Because objects do not depend on each other</summary>
#
# **Not quite.** Answers do depend on each other: queries hear what the others have found. But in layers, all together.
# </details>

# %% [markdown]
# **4. All 25 query embeddings are set to zero, and trained. They part. What makes them?**
#
# <details><summary>a) The matching, which tells one of them "be this object" and the others "be silent"</summary>
#
# **Right.** Equal answers get different lessons, because each object is given to one query only.
# </details>
#
# <details><summary>b) The noise of the optimiser</summary>
#
# **Not quite.** Equal vectors with equal lessons would take equal steps. Adam adds no noise.
# </details>
#
# <details><summary>c) Self-attention</summary>
#
# **Not quite.** It treats equal queries alike, and hands all of them the same.
# </details>

# %% [markdown]
# ## References
#
# - Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko: *End-to-End Object Detection with Transformers*, ECCV 2020. Section 3.2, 4.2 and figure
#   7.
# - Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin: *Attention Is All You Need*, NeurIPS 2017. Section 3.1: the decoder with
#   its mask.
# - Santilli, Severino, Postolache, Maiorca, Mancusi, Marin, Rodolà: *Accelerating Transformer Inference for Translation via Parallel Decoding*,
#   ACL 2023.
# - Chen, Saxena, Li, Fleet, Hinton: *Pix2seq: A Language Modeling Framework for Object Detection*, ICLR 2022.
# - He, Gkioxari, Dollár, Girshick: *Mask R-CNN*, ICCV 2017. RoIAlign.
#
# **Next:** notebook 04 asks who decides which query answers for which object, and makes the loss of it.

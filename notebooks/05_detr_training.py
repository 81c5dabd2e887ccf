# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5 · Training and evaluation: how good is it, and what goes wrong
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/minivis/minivis/blob/main/notebooks/05_detr_training.ipynb)
#
# **Time:** about 75 minutes to read and try; the cells run in about a minute on two CPU cores.
# **You need:** notebook 04 (the loss). No GPU, no network.
#
# The model and its loss are there. What is left decides whether it works: a training that one can read while it runs, a number that says how
# good the result is, and a way to find what is wrong. When you have finished this page you can
#
# 1. put a DETR together from its parts, and say what each part weighs and costs;
# 2. compute average precision (AP) on paper, and say what it does not see;
# 3. overfit eight pictures, and read the curves of a training with the numbers to know;
# 4. say what DETR is bad at, with measurements;
# 5. recognise six things that go wrong on one's own data.
#
# **In the document:** the sections on DETR's strengths and weaknesses. Its statements D27, D29, D31 and D33 are put to the test below.

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
# Here is the trained detector again, on pictures that it has never seen. **How good is it?** Somebody says: 99 %. Somebody else says: 11 %. Both have
# measured, on the same pictures.
#
# Blue boxes are right, orange ones wrong, yellow dashed ones were missed. *Score at least* decides which boxes are shown. *IoU at least* decides how well a
# box must lie to be called right. Find the two settings that give 0.99 and 0.11. Then find out which of the two sliders moves the curve on the
# right, and which only moves the point.

# %%
from minivis.data.scenes import load_shipped_scenes
from minivis.widgets import PrecisionRecallExplorer

model = minivis.load("detr-mini").to(device)
scenes = load_shipped_scenes()


def predict(indices):
    """For some scenes the answers after each decoder layer, and what is really there."""
    layers, targets = [], []
    for some in torch.tensor(indices).split(50):
        batch = scenes.prepare(scenes.collate([scenes[int(i)] for i in some]), device)
        with torch.inference_mode():
            outputs = model(batch.images)
        layers.append([*outputs["aux_outputs"], outputs])
        targets += batch.targets
    keys = ("pred_logits", "pred_boxes")
    return [{k: torch.cat([part[k] for part in parts]) for k in keys} for parts in zip(*layers)], targets


first_forty = list(range(40))
layers, targets = predict(first_forty)
sources = {f"after layer {i}": layer for i, layer in enumerate(layers, start=1)}
pictures = [scenes.scene_image(i) for i in first_forty]
explorer = PrecisionRecallExplorer(pictures, sources, targets, model.class_names, shown=16)
explorer.iou = 0.8
explorer

# %% [markdown]
# **Predict before you run on.** Write your answers down, then try them above.
#
# 1. You lower the score threshold from 0.5 to 0, and eight hundred more boxes appear, nearly all of them wrong. How much does AP fall?
# 2. Non-maximum suppression (NMS) removes boxes that overlap with a surer one. Is AP higher with it? And after the *first* decoder layer?
#
# <details><summary>Answers</summary>
#
# 1. Not at all. AP looks at the *order* of all detections, and at no threshold. Hundreds of hesitant boxes at the end of the list cost nothing; so AP
#    is no answer to "how many wrong boxes will my users see?".
# 2. After the first layer it is higher, after the last one a little lower. We come back to it, with more pictures (D27).
# </details>

# %% [markdown]
# ## Symbols and shapes
#
# | symbol | here | shape | meaning |
# | --- | --- | --- | --- |
# | $B$ | 32 | | pictures in a step |
# | $Q,\ K$ | 25, 6 | | queries, classes |
# | `scores` | | (Q,) | of each answer the probability of its best real class |
# | $t$ | 0.50, 0.55, … 0.95 | | the IoU that a right box must reach |
# | $P_n,\ R_n$ | | | precision and recall of the $n$ surest detections of a class: right / $n$, and right / objects there |
# | $\mathrm{AP}$ | 0 to 1 | | area below precision over recall, averaged over classes and over ten $t$ |
# | FLOP | | | a multiplication or an addition: a multiply-add is two |

# %%
from minivis.widgets.architectures import DETR_TRAINING

DETR_TRAINING.show()

# %% [markdown]
# ## By hand: five detections, four objects
#
# One class, one picture. Four objects are there. The detector gives five boxes. Go through them, the surest first, and mark each as right or wrong: it
# is right if it overlaps enough with an object *that no surer box has found*. Say this gives right, wrong, right, right, wrong. Take a pencil: what are
# precision and recall after each of them?

# %%
import numpy as np

right = np.array([1, 0, 1, 1, 0])
precision = right.cumsum() / np.arange(1, 6)
recall = right.cumsum() / 4
for n in range(5):
    print(f"the {n + 1} surest: precision {precision[n]:.2f}, recall {recall[n]:.2f}")

# %% [markdown]
# Now the area below this curve. It goes up and down, so one takes the best precision *at this recall or any higher one*: whoever may choose a threshold
# would never stop at a bad place. That gives 1 up to a recall of 1/4, then 3/4 up to 3/4, and 0 beyond, since the fourth object is never found:
#
# $$\mathrm{AP} = \tfrac14\cdot 1 + \tfrac14\cdot\tfrac34 + \tfrac14\cdot\tfrac34 = 0.625$$
#
# COCO does not measure the area exactly, but reads the curve at 101 recalls, 0, 0.01, … 1, and takes the mean. The package has the same in the open:

# %%
from minivis.evaluation.precision_recall import Curve, at_recalls

curve = Curve(scores=np.linspace(0.9, 0.5, 5), right=right > 0, precision=precision, recall=recall)
by_hand = 1 / 4 * 1 + 1 / 4 * 3 / 4 + 1 / 4 * 3 / 4
print(f"area {by_hand:.3f}, COCO's reading {at_recalls(curve).mean():.3f}")
assert abs(at_recalls(curve).mean() - by_hand) < 0.01

# %% [markdown]
# In real pictures this is done for each class by itself, over all pictures together, for ten IoU thresholds; AP is the mean of all. AP50 and AP75 are its
# parts at one threshold. Training and `minivis eval` use a compiled library for it (`faster-coco-eval`), because validation sets are large. Do the two
# agree?

# %%
from minivis.boxes import cxcywh_to_xyxy
from minivis.detr import postprocess
from minivis.evaluation import detection_metrics, results_of
from minivis.evaluation.precision_recall import ImageDetections, mean_average_precision

SIZE = (128, 128)  # pixels, of every scene
ground_truth = scenes.ground_truth()


def library_metrics(found, targets):
    """COCO's metrics of what was found in some scenes."""
    ids = [target["image_id"] for target in targets]
    truth = {
        "images": [image for image in ground_truth["images"] if image["id"] in ids],
        "annotations": [a for a in ground_truth["annotations"] if a["image_id"] in ids],
    }
    return detection_metrics(truth, results_of(found, ids, scenes.categories), scenes.categories)


found = postprocess(layers[-1], [SIZE] * 40)
in_the_open = [
    ImageDetections(one, {"labels": t["labels"], "boxes": 128 * cxcywh_to_xyxy(t["boxes"])})
    for one, t in zip(found, targets)
]
library = library_metrics(found, targets)
for name, ious in (("AP50", [0.5]), ("AP75", [0.75])):
    ours = mean_average_precision(in_the_open, ious)
    print(f"{name}: in the open {ours:.3f}, library {library[name]:.3f}")
    assert abs(ours - library[name]) < 1e-3

# %% [markdown]
# ## Build it
#
# ### The model, from its parts
#
# Notebooks 01 to 03 built the parts. Here they are in one place: a picture becomes a map of features, the map becomes a sequence, the queries read
# it, two heads answer.
#
# $$\text{pixels} \xrightarrow{\text{backbone}} \text{map} \xrightarrow{1\times1} x,\qquad
# \mathrm{memory} = \mathrm{Enc}(x + pos),\qquad \mathrm{out} = \mathrm{Dec}(\mathrm{queries}, \mathrm{memory})$$

# %%
from minivis.images import as_image_batch


def detect(model, pixels):
    """(B, 3, H, W) -> class logits (B, Q, K + 1) and boxes (B, Q, 4)"""
    images = as_image_batch(pixels)  # adds a padding mask, all False here
    features, mask = model.backbone(images)[-1]  # (B, c, h, w): the coarsest map
    x = model.input_proj(features)  # (B, d, h, w): a 1 × 1 convolution
    positions = model.positions(mask)  # (B, d, h, w): sines
    decoded, _ = model.transformer(x, mask, model.query_embed.weight, positions)
    last = decoded[-1]  # (B, Q, d), of the last decoder layer
    return model.class_embed(last), model.bbox_embed(last).sigmoid()


pixels = scenes.prepare(scenes.collate([scenes[0], scenes[1]]), device).images.pixels
with torch.inference_mode():
    logits, boxes = detect(model, pixels)
    whole = model(pixels)
print("logits", tuple(logits.shape), " boxes", tuple(boxes.shape))
assert torch.allclose(logits, whole["pred_logits"], atol=1e-5)
assert torch.allclose(boxes, whole["pred_boxes"], atol=1e-5)
print("the same as the package's")

# %% [markdown]
# ### What it weighs
#
# Count the parameters of each part, for the small model and for the paper's.

# %%
from minivis.detr import detr_resnet50

full = detr_resnet50()  # fresh weights: there is nothing to download
full.requires_grad_(False).eval()


def parts_of(model):
    return {
        "backbone": model.backbone,
        "1 × 1 projection": model.input_proj,
        "encoder": model.transformer.encoder,
        "decoder": model.transformer.decoder,
        "class head": model.class_embed,
        "box head": model.bbox_embed,
        "queries": model.query_embed,
    }


def weight(module):
    return sum(parameter.numel() for parameter in module.parameters())


print(f"{'':18}{'detr-mini':>12}{'ResNet-50 DETR':>18}")
for name in parts_of(full):
    print(f"{name:18}{weight(parts_of(model)[name]):12,}{weight(parts_of(full)[name]):18,}")
print(f"{'all':18}{weight(model):12,}{weight(full):18,}")
assert weight(full) == 41_524_768

# %% [markdown]
# The paper's model is half backbone, half transformer. Its queries, which everybody asks about, are 25,600 numbers: less than one in a thousand.
#
# ### D31 · "Attention dominates the time of inference"
#
# The document says that attention, being quadratic, makes DETR slow. Count operations instead of guessing: the full model, one picture of 800 × 1088
# pixels, a usual size on COCO. PyTorch has a counter. It has one trap: it does not know the fused attention kernel of the CPU and counts it as
# nothing. `record_attention` takes the explicit way through softmax, which the counter sees.

# %%
from torch.utils.flop_counter import FlopCounterMode

picture = torch.rand(1, 3, 800, 1088)
with torch.no_grad(), minivis.record_attention(full), FlopCounterMode(display=False) as counter:
    full(picture)

flops = {name: sum(each.values()) / 1e9 for name, each in counter.get_flop_counts().items()}
products = sum(n for name, n in counter.get_flop_counts()["DETR"].items() if "bmm" in str(name)) / 1e9
total = flops["DETR"]
for name, key in (
    ("backbone", "DETR.backbone"),
    ("1 × 1 projection", "DETR.input_proj"),
    ("encoder", "DETR.transformer.encoder"),
    ("decoder", "DETR.transformer.decoder"),
    ("heads", None),
):
    count = flops[key] if key else flops["DETR.class_embed"] + flops["DETR.bbox_embed"]
    print(f"{name:18}{count:7.1f} GFLOP  {100 * count / total:4.1f} %")
print(f"{'all':18}{total:7.1f} GFLOP")
print(f"of it attention's own products: {products:.1f} GFLOP, {100 * products / total:.0f} %")
assert abs(total - 164.3) < 0.1 and abs(flops["DETR.backbone"] - 141.8) < 0.1

# %% [markdown]
# The backbone does 86 % of the work. What is quadratic in attention, queries times keys and weights times values, is 3 %. (The paper's table says 86
# GFLOP for the whole: it counts a multiply-add as one.) Operations are not time, so take a stopwatch as well:

# %% tags=["nbval-ignore-output"]
import time


def seconds_by_part(model, picture):
    """The time of one forward pass, part by part."""
    names, spent = {part: name for name, part in parts_of(model).items()}, {}

    def start(part, inputs):
        spent[names[part]] = -time.perf_counter()

    def stop(part, inputs, outputs):
        spent[names[part]] += time.perf_counter()

    hooks = [part.register_forward_pre_hook(start) for part in names]
    hooks += [part.register_forward_hook(stop) for part in names]
    with torch.inference_mode():
        model(picture)
    for hook in hooks:
        hook.remove()
    return spent


spent = seconds_by_part(full, picture)
for name, seconds in spent.items():
    print(f"{name:18}{1000 * seconds:7.0f} ms  {100 * seconds / sum(spent.values()):4.1f} %")
assert spent["backbone"] > spent["encoder"] + spent["decoder"]
del full

# %% [markdown]
# **Corrected.** At the sizes that DETR is used at, the convolutions of the backbone take most operations and most time. The quadratic part would overtake
# only on much larger maps. Where it does bite: DETR reads *one* map of stride 32 because finer maps have 4 or 16 times as many cells, and then it is
# no longer small. Exercise 5 computes where that begins.
#
# On a GPU the shares may differ; none was at hand to measure. The paper's table 1 has 28 pictures a second on a V100 for this model, and 26 for a Faster R-CNN
# of the same backbone.
#
# ### One step of training
#
# Five lines, and they are nearly the same for every network:

# %%
import copy

from minivis.detr import HungarianMatcher, SetCriterion


def training_step(model, optimizer, criterion, images, targets):
    losses = criterion(model(images), targets)  # of every decoder layer, each matched by itself
    loss = criterion.weighted_sum(losses)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    return loss.item()


student = copy.deepcopy(model).train()
optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
criterion = SetCriterion(len(model.class_names), HungarianMatcher()).to(device)
batch = scenes.prepare(scenes.collate([scenes[i] for i in range(8)]), device)
values = [
    training_step(student, optimizer, criterion, batch.images, batch.targets) for _ in range(4)
]
print("the loss falls" if values[-1] < values[0] else "the loss does not fall")
assert values[-1] < values[0]

# %% [markdown]
# The gradient is clipped to a norm of 0.1. That is little: of nearly every step only the *direction* is left, and AdamW decides about its length. A
# transformer with a matching that jumps has steps with very large gradients, and one of them could undo a thousand good ones.
#
# The package's loop does the same, and besides what a long run needs: several GPUs, half precision, states to resume from, and a stop that names the
# pictures if the loss is no longer finite. Its heart:

# %%
import minivis.training.loop
from minivis.widgets import show_source

show_source(minivis.training.loop.train, first="for step, batches", last="show.advance()")

# %% [markdown]
# ## Train it
#
# ### First overfit eight pictures
#
# Before you train on a new data set, train on eight pictures of it. A model that cannot learn eight by heart will not learn eight thousand, and you
# know it after seconds. Nearly every bug of a data set shows here.
#
# So make a data set of your own: eight scenes, as a folder in COCO's format. That is pictures and one JSON file for each split. Then let the package's
# own training loop loose on it, with a recipe changed in a few fields: a small model, a few steps, the same pictures for measuring.

# %%
import contextlib
import io
import json
import tempfile
from pathlib import Path

from minivis.data import Scenes
from minivis.experiments.small_detr import WORLD
from minivis.training.checkpoint import read_log
from minivis.training.loop import train
from minivis.training.recipes import get_recipe


def write_coco(folder, train, val):
    """Two data sets as a folder in COCO's format: DIR/train and DIR/val, each with annotations.json."""
    for split, data in (("train", train), ("val", val)):
        (folder / split).mkdir(parents=True)
        truth = data.ground_truth()
        for index, image in enumerate(truth["images"]):
            image["file_name"] = f"{index}.png"
            data.scene_image(index).save(folder / split / image["file_name"])
        (folder / split / "annotations.json").write_text(json.dumps(truth))
    return folder


SMALL = ["num_queries=10", "backbone_channels=16,32,64", "d_model=64", "num_heads=4"]
SMALL += ["encoder_layers=2", "decoder_layers=2", "dim_feedforward=128"]
FAST = ["batch_size=8", "lr=2e-3", "warmup=10", "ema=none", "precision=no", "log_every=5"]


def run(folder, steps, *settings):
    """What `minivis train` does, silently: the log of the run, its last metrics, and the model."""
    changed = [f"data={folder}", f"steps={steps}", f"eval_every={steps}", *FAST]
    changed += [f"model.{setting}" for setting in SMALL]
    recipe = get_recipe("detr-mini").with_settings([*changed, *settings])
    out = tempfile.mkdtemp()
    with contextlib.redirect_stderr(io.StringIO()):
        metrics = train(recipe, out, cpu=True)
    return [entry for entry in read_log(out) if "loss" in entry], metrics, minivis.load(out)


eight = Scenes("val", WORLD, size=8)  # small scenes: up to 3 shapes of 3 kinds on plain ground
by_heart = write_coco(Path(tempfile.mkdtemp()), train=eight, val=eight)
healthy, metrics, knows_eight = run(by_heart, 120)
print(f"AP on the eight pictures themselves: {metrics['AP']:.1f}")
print(f"class_error at the end: {healthy[-1]['class_error']:.0f} %")
assert metrics["AP"] > 0.8 and healthy[-1]["class_error"] < 10

# %% [markdown]
# A perfect score, in a few seconds. It says that data, labels, boxes, loss and evaluation fit together; it says *nothing* about other pictures. On a
# command line the same would be
#
#     minivis train detr-mini --data DIR --out runs/eight --steps 120 --set batch_size=8 --set lr=2e-3
#     minivis eval runs/eight --data DIR                    # COCO's metrics; --split train for the others
#     minivis predict runs/eight DIR/val/*.png --out found  # pictures with boxes: look at them
#     minivis recipes detr-mini                             # every field that --set can change
#
# ### The numbers to know
#
# A curve means little without something to compare it with. Four numbers, for a training on the small scenes:
#
# - **the class loss of a blind guess**, of somebody who sees no picture and only knows how often each class occurs (notebook 04). Here it is close to
#   $\ln(K + 1) = 1.39$, the loss of a guess that calls all alike, because a tenth of the many silent queries weighs about as much as one class;
# - **class_error by chance**: who names one of $K$ classes at random errs in $1 - 1/K$ of the cases. 100 % is worse than chance, and means something
#   else: everybody says "no object";
# - **the L1 loss of the mean box**: one and the same box for every object of every picture;
# - **AP of an untrained model**: nearly 0.

# %%
from minivis.evaluation import evaluate_detection
from minivis.experiments.small_detr import build_small, small_criterion, train_small

watched = Scenes("val", WORLD, size=200)
seen = watched.prepare(watched.collate([watched[i] for i in range(100)]))
true_boxes = torch.cat([target["boxes"] for target in seen.targets])

objects = len(true_boxes) / 100
weight_of = torch.tensor([objects / 3] * 3 + [0.1 * (10 - objects)])  # three classes, ten queries
blind = weight_of / weight_of.sum()
BLIND_LOSS = -(blind * blind.log()).sum().item()
CHANCE_ERROR = 100 * (1 - 1 / 3)
MEAN_BOX_L1 = (true_boxes - true_boxes.mean(0)).abs().sum(1).mean().item()
torch.manual_seed(SEED)
untrained = evaluate_detection(build_small().eval(), watched, batch_size=50, progress=False)
print(f"class loss of a blind guess {BLIND_LOSS:.2f}; class_error by chance {CHANCE_ERROR:.0f} %")
print(f"L1 loss of the mean box {MEAN_BOX_L1:.2f}; AP50 of an untrained model {untrained['AP50']:.2f}")
assert untrained["AP50"] < 0.05

# %% [markdown]
# ### Then train, and watch
#
# Now endless new scenes, and the course's small loop (`train_small`, shown in notebook 04): 300 steps of 32 scenes. It is too short to become good. We want
# to see how it *begins*. Beside the losses we write down how much the answers differ from picture to picture, as a share of how much the true boxes
# differ. A detector that looks at the picture must answer differently to different pictures.

# %%
kept = {}  # models on the way, to be looked at later
spread = {"step": [], "between pictures": [], "between queries": []}


def watch(step, trained):
    if step == 20:
        kept[step] = copy.deepcopy(trained).eval()
    if step % 10 == 0:
        with torch.no_grad():
            answers = trained(seen.images)["pred_boxes"]  # (100, Q, 4)
        spread["step"].append(step)
        for name, axis in (("between pictures", 0), ("between queries", 1)):
            spread[name].append((answers.std(axis).mean() / true_boxes.std(0).mean()).item())


detector, history = train_small(small_criterion(), seed=SEED, steps=300, on_step=watch)

# %% tags=["nbval-ignore-output"]
import matplotlib.pyplot as plt

from minivis.widgets import show


def smooth(values, width=15):
    return np.convolve(values, np.ones(width) / width, mode="valid")


figure, axes = plt.subplots(1, 4, figsize=(11, 2.7), layout="constrained")
for axis, name, title, level in (
    (axes[0], "loss_ce", "class loss", BLIND_LOSS),
    (axes[1], "class_error", "class_error, %", CHANCE_ERROR),
    (axes[2], "loss_bbox", "L1 loss", MEAN_BOX_L1),
):
    axis.plot(history[name], color="#CCCCCC", linewidth=0.6)
    axis.plot(np.arange(300 - 14) + 7, smooth(history[name]), color="#0072B2")
    axis.axhline(level, color="#D55E00", linestyle="--")
    axis.set(title=title, xlabel="step", ylim=(0, None))
for name, style, colour in (("between pictures", "-", "#0072B2"), ("between queries", "--", "#E69F00")):
    axes[3].plot(spread["step"], spread[name], style, color=colour, label=name)
axes[3].set(title="answers differ", xlabel="step", ylim=(0, 1.05))
axes[3].legend(fontsize=8)
show(
    figure,
    "Four curves of a training. The class loss stays near a dashed line, the blind guess, then falls; "
    "the class error starts at chance and falls; the L1 loss falls at once below that of the mean box; "
    "the answers differ first between queries and only later between pictures.",
)
early, late = spread["between pictures"][2], spread["between pictures"][-1]
assert early < 0.25 * late and np.mean(history["loss_bbox"][-20:]) < 0.5 * MEAN_BOX_L1
assert spread["between queries"][3] > 1.5 * spread["between pictures"][3]  # at step 30
assert np.mean(history["loss_ce"][-20:]) < 0.9 * BLIND_LOSS
print(f"answers differ from picture to picture: step 20 {early:.2f} of the truth, at the end {late:.2f}")

# %% [markdown]
# Read them from right to left.
#
# 1. **The first steps.** All answers are alike, whatever the picture. The L1 loss is that of the mean box, the class loss that of the blind guess.
# 2. **Then the answers part**, first from *query to query*: each takes a region of its own. From picture to picture they still differ little. The L1 loss has
#    halved already, mostly without a look at the picture: ten boxes in ten places lie nearer to anything than one.
# 3. **Then the boxes follow the picture**, slowly, and with them the class loss leaves the blind guess.
#
# That is why DETR's curves look dead at the start, and why a falling box loss alone does not prove that the model sees anything.
#
# ### Three ways to train a real one
#
# | where | command | what it takes |
# | --- | --- | --- |
# | here, on a CPU | `minivis train detr-mini --out runs/mine` | the shipped model, about an hour on one core |
# | your pictures, from the shipped model | `minivis train detr-finetune --data DIR` | about an hour on one core for 205 pictures (README) |
# | your pictures, from the paper's model, on a GPU (Colab) | `minivis train detr-r50-finetune --data DIR` | an hour or two, an estimate |
# | the paper's recipe on COCO | `minivis train detr-r50-coco --data COCO` | 300 epochs, 3 days on 16 V100, as the paper says |
#
# The full recipe, in its own words:

# %%
recipe = get_recipe("detr-r50-coco")
for field in ("batch_size", "lr", "backbone_lr", "weight_decay", "clip_norm", "initial"):
    print(f"{field:14} {getattr(recipe, field)}")
print(f"{'steps':14} {recipe.steps:,} = 300 epochs; the learning rate falls to a tenth after 200")

# %% [markdown]
# ## The document, put to the test
#
# ### D27 · Duplicates occur, so NMS is worth adding
#
# All 500 validation scenes; each decoder layer has been trained to answer, so each can be measured. A *duplicate* is counted here for each pair of boxes
# with scores above one half, of one class, that overlap by more than 0.7.

# %%
from torchvision.ops import batched_nms, box_iou

layers, targets = predict(list(range(500)))


def after_nms(found, iou=0.7):
    kept = batched_nms(found["boxes"], found["scores"], found["labels"], iou)
    return {name: values[kept] for name, values in found.items()}


def duplicates(found):
    sure = found["scores"] > 0.5
    boxes, labels = found["boxes"][sure], found["labels"][sure]
    alike = (box_iou(boxes, boxes) > 0.7) & (labels[:, None] == labels)
    return int(alike.triu(diagonal=1).sum())


by_layer = []
for number, layer in enumerate(layers, start=1):
    found = postprocess(layer, [SIZE] * 500)
    plain = library_metrics(found, targets)
    fewer = library_metrics([after_nms(one) for one in found], targets)
    gain = {name: fewer[name] - plain[name] for name in ("AP", "AP50", "AP75")}
    by_layer.append((plain["AP"], gain))
    print(
        f"layer {number}: AP {plain['AP']:.2f}, NMS adds {gain['AP']:+.3f} "
        f"(AP50 {gain['AP50']:+.3f}, AP75 {gain['AP75']:+.3f}); "
        f"about {round(sum(map(duplicates, found)), -1)} duplicates"
    )
(first, first_gain), *_, (last, last_gain) = by_layer
assert first_gain["AP"] > 0.005 and last_gain["AP"] < 0.001 and last > first + 0.02
assert last_gain["AP50"] > -0.002 and last_gain["AP75"] < 0

# %% [markdown]
# **Qualified.** Duplicates do occur. After the first layer there are many, and NMS helps. After the last, nine of ten of them are gone, and NMS costs a
# little. Look at the brackets for the reason: at an IoU of 0.50 it still helps, at 0.75 it hurts. Of two boxes on one object it keeps the *surer* one,
# and now and then the other one lay better. The paper finds the same with six layers (its figure 4): a gain at the first, a small loss at the last.
#
# ### D29 · Worse on small objects, because of one coarse map
#
# COCO calls an object small below 32 × 32 pixels. Our scenes are 128 pixels wide, so the word means something else here, but the measure is the same:

# %%
metrics = library_metrics(postprocess(layers[-1], [SIZE] * 500), targets)
print(f"AP small {metrics['AP_small']:.2f}, medium {metrics['AP_medium']:.2f}, all {metrics['AP']:.2f}")
assert metrics["AP_small"] < metrics["AP_medium"]

# %% [markdown]
# Small ones are worse; but is it the map's fault? To a small object a shift of one pixel costs more IoU than to a large one, in any detector. So one must
# train the same model, with the same weights, and let only the number of cells differ: the last stages of the backbone keep the map's size and spread their
# kernels instead (as in the paper's "DC5"). `minivis experiment D29` does that. Small things are at most 13 pixels in it, in cells of 16, 8 or 4.

# %% [markdown]
# On COCO (the paper's table 1) the ResNet-50 model reaches 20.5 on small, 45.8 on medium and 61.1 on large objects, with a map of stride 32. A Faster R-CNN with a
# feature pyramid, with the same augmentation and a GIoU loss, has 26.6, 45.4 and 53.4: better on the small ones, worse on the large ones. Later models read
# several maps at once, and make that affordable by looking at few points of each (Deformable DETR, 2021).
#
# ### D33 · "Needs an order of magnitude more epochs"
#
# For that one needs another detector of the same size. Here is one, in the manner of FCOS: the same backbone, convolutions in place of the transformer, and a box
# for *every cell* of the map. No queries, no matching: a cell answers for the object whose box its centre lies in. So every object is taught
# from the first step on, always at the same place.

# %%
from minivis.experiments.small_fcos import FCOSCriterion, SmallFCOS, assign, fcos_detections

show_source(SmallFCOS.forward, docstring=False)
show_source(assign, docstring=False)

# %% [markdown]
# Give it a *third* of DETR's training: 100 steps. Which of the two is ahead?

# %% tags=["nbval-ignore-output"]
from minivis.experiments.d33 import average_precision_of, build_fcos

convolutional, _ = train_small(FCOSCriterion(), seed=SEED, steps=100, build=build_fcos)
ap50 = {
    "convolutions, 100 steps": average_precision_of(convolutional, watched)["AP50"],
    "DETR, 300 steps": average_precision_of(detector, watched)["AP50"],
}
for (name, value), parameters in zip(ap50.items(), (weight(convolutional), weight(detector))):
    print(f"{name:24} {parameters:,} parameters   AP50 {value:.1f}")
assert ap50["convolutions, 100 steps"] > ap50["DETR, 300 steps"]


# %% [markdown]
# The longer race, up to 1,600 steps and with three seeds, is `minivis experiment D33`. On COCO the paper trains DETR for 500 epochs, and the Faster R-CNN that
# it compares with for 109 (its section 4); common schedules then had 12 to 36.
#
# What does one get for the long wait? No NMS, no anchors, no rule about which cell answers. And time: how long does a picture take, all included?

# %% tags=["nbval-ignore-output"]
def milliseconds(find, repeat=20):
    """Of one call, the least of some."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        with torch.inference_mode():
            find()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


one = seen.images.pixels[:1]
print(f"DETR         {milliseconds(lambda: postprocess(detector(one), [(64, 64)])):5.1f} ms")
print(f"convolutions {milliseconds(lambda: fcos_detections(convolutional(one))):5.1f} ms, NMS included")

# %% [markdown]
# DETR takes somewhat longer, on a picture this small, and NMS is cheap when there are few boxes. What DETR saves is not time: it is rules, and the numbers
# in them. Which cell answers, how much overlap is too much: nobody has to say.

# %% [markdown]
# ## Break it: what goes wrong on one's own data
#
# Six things that people who train DETR on their own pictures report again and again. Each is provoked here, so that you know its face.
#
# ### 1. The class numbers are off by one
#
# COCO counts categories from 1, a network counts from 0. With $K = 3$ classes the labels are 0, 1, 2, and number 3 means "no object". Who leaves the
# labels at 1, 2, 3 calls the last class "no object". Plain cross-entropy takes it without a word, since it has $K + 1$ outputs:

# %%
import torch.nn.functional as F

K = 3
logits = torch.randn(10, K + 1)
silent_mistake = F.cross_entropy(logits, torch.full((10,), K))  # "class 3", counted from 1
assert silent_mistake.isfinite()
print("cross-entropy: no complaint")

answers = {"pred_logits": logits[None], "pred_boxes": torch.rand(1, 10, 4)}
counted_from_one = {
    "labels": torch.tensor([1, 3]),
    "boxes": torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]]),
    "image_id": 139,
}
try:
    small_criterion()(answers, [counted_from_one])
except ValueError as error:
    print(f"minivis: {error}")

# %% [markdown]
# **The face of it** where nobody complains: one class is never found, its AP is 0, the others are fine, and class 0 is never said. On a GPU, labels above
# $K$ end in "device-side assert triggered". **What to do:** let the data say what its classes are. `Categories` keeps id, label and name together, and a
# checkpoint carries them along:

# %%
from minivis.data.items import Categories

print(Categories.dense([(1, "red cell"), (2, "white cell"), (3, "platelet")]))
print("labels of COCO's 1 to 90, with gaps:", len(Categories.by_id([(1, "person"), (90, "toothbrush")])))

# %% [markdown]
# The second line is why the released models have `num_classes=91` for 80 classes: label = category id, and the largest id is 90. It is not "80 + background".
#
# ### 2. A box without width
#
# Real annotations have boxes of no width, of negative width, or beyond the picture. The reference code stops in an assertion of GIoU,
# `(boxes1[:, 2:] >= boxes1[:, :2]).all()`, which says neither which picture nor which box. Break one box in our folder:

# %%
from minivis.data import CocoDetection
from minivis.data.items import BadItems

folder = write_coco(Path(tempfile.mkdtemp()), train=eight, val=eight)
file = folder / "train" / "annotations.json"
content = json.loads(file.read_text())
content["annotations"][2]["bbox"][2] = 0
file.write_text(json.dumps(content))

items = BadItems("skip")
with contextlib.redirect_stderr(io.StringIO()):
    data = CocoDetection(folder, "train", bad_items=items)
print(items.summary().replace(str(folder), "DIR"))

# %% [markdown]
# It is named, left out, and told again at the end of the run. `--bad-items stop` stops instead. **What to do:** mend the annotation; the message has all that is
# needed to find it. The matcher checks once more, with the image and the annotation in its message, for targets that come from somewhere else.
#
# ### 3. The same answer for every picture
#
# You train on little data or for a short time, draw the boxes, and they are the same on every picture. We kept the model of step 20:

# %%
from PIL import ImageDraw


def draw_answers(model, index):
    """One scene, enlarged: the true boxes in white, all boxes of the model in orange."""
    picture = watched.scene_image(index).resize((192, 192))
    pen = ImageDraw.Draw(picture)
    with torch.no_grad():
        boxes = model(seen.images.pixels[index : index + 1])["pred_boxes"][0]
    for box in 192 * cxcywh_to_xyxy(seen.targets[index]["boxes"]):
        pen.rectangle(box.tolist(), outline="white", width=4)
    for box in 192 * cxcywh_to_xyxy(boxes):
        pen.rectangle(box.tolist(), outline="#D55E00", width=2)
    return picture


figure, axes = plt.subplots(2, 4, figsize=(8, 4.2), layout="constrained")
for row, (name, each) in zip(axes, (("step 20", kept[20]), ("step 300", detector))):
    for axis, index in zip(row, (1, 3, 4, 7)):
        axis.imshow(draw_answers(each, index))
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
show(
    figure,
    "Four scenes with the boxes of all ten queries. At step 20 the orange boxes are in the same places "
    "in all four, whatever is there; at step 300 they lie on and around the white true boxes.",
)

# %% [markdown]
# **The face of it:** identical boxes; L1 near that of the mean box, or half of it if each query keeps to a place of its own. **Recognise it by a number:** how
# much the answers differ from picture to picture (the curve above). **What it is:** the first phase of every DETR, and few pictures or few steps do not
# lead out of it: 200 pictures are 25 steps an epoch. **What to do:** start from a trained checkpoint (`--from detr-mini`, or the released model) instead of
# from nothing; and train longer. README.md has both curves for 205 pictures, 4,500 steps: AP 0.51 from a checkpoint, 0.17 from nothing.
#
# And the other side of little data: by heart, not by sense. The model that knew eight pictures perfectly, on others:

# %% tags=["nbval-ignore-output"]
elsewhere = evaluate_detection(knows_eight, watched, batch_size=50, progress=False)
print(f"AP50 on 200 pictures, the eight among them: {elsewhere['AP50']:.2f}")
assert elsewhere["AP50"] < 0.5

# %% [markdown]
# ### 4. class_error stays at 100
#
# Not at chance, which is 67 % here, but at 100: every matched query finds "no object" likeliest. Take the model with 100 queries, for pictures of two or
# three objects, and let "no object" weigh 1.

# %% tags=["nbval-ignore-output"]
stuck, _, _ = run(by_heart, 60, "model.num_queries=100", "no_object_weight=1.0")

figure, axis = plt.subplots(figsize=(6, 2.6))
for name, log, colour in (
    ("10 queries, weight 0.1", healthy, "#0072B2"),
    ("100 queries, weight 1", stuck, "#D55E00"),
):
    steps, errors = zip(*((entry["step"], entry["class_error"]) for entry in log))
    axis.plot(steps, errors, "o-", markersize=3, color=colour, label=name)
axis.axhline(CHANCE_ERROR, color="#999999", linestyle=":", label="chance")
axis.set(xlabel="step", ylabel="class_error, %", xlim=(0, 62), ylim=(-3, 105))
axis.legend()
show(
    figure,
    "class_error of two trainings on eight pictures: one falls to 0, the other stays at 100.",
)
print(f"the last: class_error {stuck[-1]['class_error']:.0f} %, class loss {stuck[-1]['loss_ce']:.2f}")
assert stuck[-1]["class_error"] > 90 and stuck[-1]["loss_ce"] < healthy[0]["loss_ce"]

# %% [markdown]
# **The face of it:** the class loss is *low* and looks fine, because nearly all queries are right to say nothing. `cardinality_error` equals the mean number of
# objects: none is reported. **What to do:** look at the blind guess. It says "no object" as long as $w\,(Q - N)$ is larger than the number of objects of the
# commonest class. So lower the weight $w$ (0.1 for a hundred queries), take fewer queries (twice your largest number of objects), and wait: at the
# very start a class_error of 100 is healthy.
#
# ### 5. AP changes with the batch size
#
# In a batch, pictures of different sizes are padded to the largest. The mask tells the transformer which cells are padding. It does not tell the
# convolutions. Take scenes alone, and the same scenes padded by a quarter and by half of their width:

# %%
from minivis.images import ImageBatch

few = scenes.prepare(scenes.collate([scenes[i] for i in range(60)]), device)


def ap_with_padding(model, pad):
    pixels = F.pad(few.images.pixels, (0, pad, 0, pad))
    mask = torch.ones(60, 128 + pad, 128 + pad, dtype=torch.bool, device=device)
    mask[:, :128, :128] = False
    with torch.inference_mode():
        found = postprocess(model(ImageBatch(pixels, mask)), [SIZE] * 60)
    return library_metrics(found, few.targets)["AP"]


padded = [ap_with_padding(model, pad) for pad in (0, 32, 64)]
for pad, ap in zip((0, 32, 64), padded):
    print(f"padded by {pad:2} pixels: AP {ap:.2f}")
assert padded[0] > padded[1] > padded[2] + 0.05

# %% [markdown]
# The same pictures, the same weights, and a good part of the AP gone. Which part is it? Group norm takes its mean and spread over the whole map, padding included.
# Test the suspicion: let every group norm compute them over the picture's own cells.

# %%


class NormOfThePicture(torch.nn.GroupNorm):
    """Group norm whose mean and spread are those of the upper left share of the map."""

    def forward(self, x):
        height, width = (round(side * self.share) for side in x.shape[-2:])
        own = x[..., :height, :width].unflatten(1, (self.num_groups, -1))
        mean, variance = own.mean((2, 3, 4)), own.var((2, 3, 4), unbiased=False)
        of_channels = x.shape[1] // self.num_groups
        mean, variance = (v.repeat_interleave(of_channels, 1)[..., None, None] for v in (mean, variance))
        x = (x - mean) / (variance + self.eps).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]


mended = copy.deepcopy(model)
for module in mended.backbone.modules():
    if isinstance(module, torch.nn.GroupNorm):
        module.__class__, module.share = NormOfThePicture, 128 / (128 + 64)
again = ap_with_padding(mended, 64)
print(f"padded by 64 pixels, norms of the picture alone: AP {again:.2f}")
assert again > padded[2] + 0.1 and again > padded[0] - 0.05

# %% [markdown]
# It is nearly all back: group norm was the cause, and what is missing is the border, where convolutions see zeros. **The face of it:** AP differs between
# batch sizes, or between one GPU and two. **What to do:** evaluate pictures of one size together. `minivis eval` does: it sorts pictures by size and lets no
# padding in, so its result does not depend on the batch size. The frozen batch norm of the full model has fixed numbers and does not mind padding, except at the
# border.
#
# ### 6. Pictures without objects
#
# Some code drops them, some stops at them: a matching with no column, a mean over no box. Here they are pictures like others.

# %%
empty = {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
with torch.no_grad():
    losses = small_criterion()(detector(seen.images.pixels[:1]), [empty])
print(f"L1 {losses['loss_bbox']:.1f}, GIoU {losses['loss_giou']:.1f}")
assert losses["loss_ce"].isfinite() and losses["loss_ce"] > 0

# %% [markdown]
# No box, so no box loss; the class loss teaches all ten queries to say "no object". Is that needed? `detr-mini` never met an empty scene in its training:
# its world has at least one object. Take the objects out of a hundred scenes, and ask it.

# %%
from minivis.data.scenes import describe, render

bare = [describe(i, split="val")._replace(objects=()) for i in range(100)]
with torch.inference_mode():
    answers = model(scenes.image_transform.normalise(render(bare, device).pixels))
sure = answers["pred_logits"].softmax(-1)[..., :-1].amax(-1) >= 0.5
print(f"empty scenes in which it is sure to see something: {100 * sure.any(1).float().mean():.0f} %")
assert 0.05 < sure.any(1).float().mean() < 0.5

# %% [markdown]
# In every fifth empty scene it sees something. A detector that has never been shown "nothing" cannot be trusted with it. **What to do:** keep pictures without
# objects: an entry in `images` and none in `annotations`. Some loaders drop such pictures unasked; this one keeps them.
#
# | the face of it | look at |
# | --- | --- |
# | one class is never found, "device-side assert" | class numbers: 0 to K − 1, "no object" is K |
# | an assertion in GIoU, NaN | boxes without width; (x, y, w, h) read as corners |
# | the same boxes on every picture | too few steps or pictures; start from a checkpoint |
# | class_error at 100, class loss low | weight of "no object", number of queries |
# | all losses low, AP near 0 | what evaluation reads differently from the loss (notebook 04, D15) |
# | AP changes with batch size or number of GPUs | padding, and norms that see it |
# | sure of something where nothing is | no empty pictures in the training |
#
# ## Look inside: what the wrong ones are
#
# AP is one number. Ask of each wrong detection (score at least one half, IoU 0.5) *why* it is wrong, after each decoder layer.

# %%
from minivis.evaluation.precision_recall import match_detections


def why_wrong(found, target):
    """For each wrong detection above one half, the first reason that holds."""
    sure = found["scores"] >= 0.5
    found = {name: values[sure] for name, values in found.items()}
    truth = {"labels": target["labels"], "boxes": 128 * cxcywh_to_xyxy(target["boxes"])}
    partner = match_detections(ImageDetections(found, truth), 0.5)
    overlap = box_iou(found["boxes"], truth["boxes"])
    reasons = []
    for i in (i for i in range(len(partner)) if partner[i] < 0):
        own_class = overlap[i][truth["labels"] == found["labels"][i]]
        if (own_class >= 0.5).any():
            reasons.append("duplicate")
        elif (overlap[i] >= 0.5).any():
            reasons.append("wrong class")
        else:
            reasons.append("badly placed" if (overlap[i] >= 0.1).any() else "nothing there")
    return reasons


REASONS = {"duplicate": "#D55E00", "wrong class": "#0072B2"}
REASONS |= {"badly placed": "#E69F00", "nothing there": "#999999"}
figure, axis = plt.subplots(figsize=(7, 2.2))
totals = []
for row, layer in enumerate(layers):
    reasons = [
        reason
        for found, target in zip(postprocess(layer, [SIZE] * 500), targets)
        for reason in why_wrong(found, target)
    ]
    left = 0
    for reason, colour in REASONS.items():
        count, label = reasons.count(reason), None if row else reason
        axis.barh(row, count, left=left, color=colour, label=label)
        left += count
    totals.append({reason: reasons.count(reason) for reason in REASONS})
axis.set_yticks(range(3), [f"layer {i}" for i in (1, 2, 3)])
axis.invert_yaxis()
axis.set(xlabel="wrong detections in 500 scenes")
axis.legend()
assert totals[0]["duplicate"] > 0.6 * sum(totals[0].values())
assert totals[2]["duplicate"] < 0.5 * totals[0]["duplicate"]
show(
    figure,
    "Bars for the three decoder layers: wrong detections by reason. After the first layer most are "
    "duplicates; after the last far fewer are wrong at all.",
)

# %% [markdown]
# What the layers after the first do is, above all, to take duplicates away. It does *not* prove that self-attention "compares boxes": we see that duplicates
# go, and not by what means. And the classes of errors are ours: with another order of the questions the bars would be shared out differently.
#
# ## Real pictures, and real weights
#
# The same on pictures of your own. Put a folder in COCO's format into `DATA` (the layout is that of `write_coco` above). The cell checks the annotations, takes the shipped
# model, trains a few steps of the recipe for small machines, and evaluates.

# %% tags=["nbval-ignore-output"]
DATA = None  # for example Path("cells"): a folder with train/annotations.json and val/annotations.json
STEPS = 40  # the recipe itself has 4500, about an hour on one core

if DATA is None:
    print("DATA is None: name a folder to run this")
else:
    own = CocoDetection(DATA, "train", bad_items=(items := BadItems("skip")))
    print(f"{len(own)} pictures; {', '.join(own.categories.names)}; at most {own.most_objects} objects")
    print(items.summary())
    settings = [f"data={DATA}", f"steps={STEPS}", f"eval_every={STEPS}", "warmup=10", "eval_images=20"]
    recipe = get_recipe("detr-finetune").with_settings(settings)
    with contextlib.redirect_stderr(io.StringIO()):
        metrics = train(recipe, tempfile.mkdtemp())
    print({name: round(metrics[name], 3) for name in ("AP", "AP50") if metrics[name] is not None})

# %% [markdown]
# With a network, the paper's own model, on a photograph: what it says, and how long it takes.

# %% tags=["nbval-ignore-output"]
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from skimage import data as photographs

from minivis.evaluation import draw_detections

RELEASED = "facebook/detr-resnet-50"
wanted = False  # set it to True to download 160 MB

if wanted or isinstance(try_to_load_from_cache(RELEASED, "model.safetensors"), str):
    released = minivis.load(RELEASED)
    cat = Image.fromarray(photographs.chelsea())
    pixels = released.image_transform(cat)[None]
    with torch.inference_mode():
        (found,) = postprocess(released(pixels), [(cat.height, cat.width)])
    show(draw_detections(cat, found, released.class_names, 0.7), "A cat, and the boxes that DETR finds.")
    print({name: f"{1000 * s:.0f} ms" for name, s in seconds_by_part(released, pixels).items()})
else:
    print(f"{RELEASED} is not on this machine: set wanted = True to download it")


# %% [markdown]
# ## Exercises
#
# Five functions to write, about 50 minutes in all. Fill in a stub, run it, and run the cell below it. The check runs your function on small
# inputs and says what to look at. Solutions are in `solutions/05_detr_training.py`.
#
# ### Exercise 1: the class loss of a blind guess (10 minutes)
#
# `counts[c]` queries are matched to objects of class $c$, `silent` queries to none. Class losses weigh 1, that of "no object" $w$. Somebody gives all queries the same
# probabilities, the best there are without looking at the picture. What is the class loss then? The loss is a weighted mean:
#
# $$L = \frac{\sum_c w_c\,n_c\,(-\log p_c)}{\sum_c w_c\,n_c}$$
#
# <details><summary>A hint</summary>
#
# For which $p$ is a weighted cross-entropy least? Put $w_c n_c$ in place of $n_c$: then it is the usual question, whose answer is "the frequencies".
# </details>

# %%
def blind_class_loss(counts, silent, no_object_weight):
    """The least class loss of one answer for all queries, a scalar.

    counts: (K,) float, queries matched to each class. silent: how many are matched to none.
    """
    raise NotImplementedError


# %%
from minivis.checks.detr_training import check_blind_class_loss

check_blind_class_loss(blind_class_loss)


# %% [markdown]
# ### Exercise 2: which detections are right (15 minutes)
#
# COCO's rule, for one picture: go through the detections by falling score. A detection is right if there is an object of its class that nobody has
# found before and that it overlaps with by at least `iou`. If there are several, it takes the one that it overlaps most.
#
# <details><summary>A hint</summary>
#
# Keep a set of the objects that are still free. The answers belong into the order of the list, not of the scores.
# </details>

# %%
def which_are_right(scores, labels, overlap, true_labels, iou):
    """A list of N booleans, in the order of the detections as given.

    scores, labels: (N,) of the detections. true_labels: (M,). overlap: (N, M), the IoU of each pair.
    """
    raise NotImplementedError


# %%
from minivis.checks.detr_training import check_which_are_right

check_which_are_right(which_are_right)


# %% [markdown]
# ### Exercise 3: average precision (10 minutes)
#
# `right` is a list of booleans, the surest detection first. `objects` were there. Give the exact area below the best precision at each recall or beyond it (as by
# hand above, not at 101 points).
#
# <details><summary>A hint</summary>
#
# The curve has a step of width 1 / `objects` at each right detection. Its height is the largest precision from there to the end of the list.
# </details>

# %%
def average_precision(right, objects):
    """The area, a number in 0..1."""
    raise NotImplementedError


# %%
from minivis.checks.detr_training import check_average_precision

check_average_precision(average_precision)


# %% [markdown]
# ### Exercise 4: non-maximum suppression (10 minutes)
#
# Go through the boxes by falling score. Keep a box unless it overlaps, by more than `iou`, with a box of its class that was kept. `box_iou` of
# `minivis.boxes` is allowed.
#
# Then think: a crowd, where two people really overlap by 0.8. What does NMS do, and what can DETR do?
#
# <details><summary>What you may have thought</summary>
#
# With a threshold below 0.8 NMS removes one of them; with one above, it leaves real duplicates. DETR has no such number: two queries may both stay, if
# training has taught them to.
# </details>

# %%
def suppress(boxes, scores, labels, iou):
    """The indices of the boxes that are kept, the surest first.

    boxes: (N, 4) as (left, top, right, bottom). scores, labels: (N,).
    """
    raise NotImplementedError


# %%
from minivis.checks.detr_training import check_suppress

check_suppress(suppress)


# %% [markdown]
# ### Exercise 5: what an encoder layer computes (5 minutes)
#
# Count the operations of one encoder layer for $N$ tokens of width $d$, with a feed-forward part of width `hidden`. Count matrix products only, a multiply-add as
# two. Biases, softmax and norms are small. Then find the number of tokens at which the quadratic part is half of all, for $d = 256$ and `hidden` = 2048.
#
# <details><summary>A hint</summary>
#
# A product of (a, b) with (b, c) has a·b·c multiply-adds. The heads do not matter: each works on its share of $d$.
# </details>

# %%
def encoder_layer_flops(tokens, d, hidden):
    """Operations of self-attention and feed-forward part, a number."""
    raise NotImplementedError


# %%
from minivis.checks.detr_training import check_encoder_layer_flops

check_encoder_layer_flops(encoder_layer_flops)

# %% [markdown]
# ## In short
#
# - DETR's cost is its backbone: 86 % of the operations of the full model at 800 × 1088. The quadratic part of attention is 3 %.
# - **AP** asks whether right boxes come before wrong ones, at ten degrees of strictness. It does not see thresholds, and it hides the reasons.
# - Overfit eight pictures first. Then read curves with the numbers to know: the blind guess, chance, the mean box.
# - A DETR begins by ignoring the picture. Its queries part first, and look later. That is the price of training a set, paid in epochs.
# - The later decoder layers remove duplicates; NMS helps the first and not the last.
# - Most failures on one's own data have a face. Look at the drawn boxes before you look for better settings.
#
# ### What became of the document's claims

# %%
from minivis.widgets import show_claims

show_claims("D27", "D29", "D31", "D33")

# %% [markdown]
# ## Quiz
#
# Open the answer you would give.

# %% [markdown]
# **1. A model's AP rises from 0.40 to 0.42 when you stop removing detections with a score below 0.05. Why?**
#
# <details><summary>a) Because the removed ones were mostly right</summary>
#
# **Not quite.** They are mostly wrong. But they stand at the end of the list, where wrong ones cost nothing.
# </details>
#
# <details><summary>b) Because some of them are right, and at the end of the list wrong ones cost nothing</summary>
#
# **Right.** Recall grows a little, and the precision at lower recalls stays as it was.
# </details>
#
# <details><summary>c) Because precision is higher with more detections</summary>
#
# **Not quite.** The precision of the whole list falls. AP reads it at each recall, and takes the best.
# </details>

# %% [markdown]
# **2. After 500 steps the L1 loss is half of that of the mean box, and the class loss is that of the blind guess. What has the model learned?**
#
# <details><summary>a) Perhaps nothing about pictures: each query may keep to a place of its own</summary>
#
# **Right.** Ten fixed boxes, shared out by the matching, lie nearer to the objects than one mean box. Look whether the answers differ from picture to picture.
# </details>
#
# <details><summary>b) To find objects, but not yet to name them</summary>
#
# **Not quite.** It may be, but this does not show it. In the training above the loss was there before any picture mattered.
# </details>

# %% [markdown]
# **3. Your validation AP is 0.31 with a batch size of 1 and 0.24 with 16. The weights are the same. What do you look at first?**
#
# <details><summary>a) The random seed</summary>
#
# **Not quite.** Nothing is random in evaluation mode.
# </details>
#
# <details><summary>b) Dropout</summary>
#
# **Not quite.** It would be as bad at both batch sizes. What differs between a picture alone and in a batch?
# </details>
#
# <details><summary>c) Padding, and layers that see it</summary>
#
# **Right.** Group norm and convolutions see the zeros. Evaluate pictures of one size together.
# </details>

# %% [markdown]
# **4. You have 300 pictures of 4 classes and one evening. What do you do?**
#
# <details><summary>a) Train from nothing, with the paper's recipe</summary>
#
# **Not quite.** It would still be in its first phase, with the same answers for every picture.
# </details>
#
# <details><summary>b) Overfit eight of them, then train on from a checkpoint</summary>
#
# **Right.** The first finds the bugs in minutes, the second has the long start behind it.
# </details>

# %% [markdown]
# ## References
#
# - Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko: *End-to-End Object Detection with Transformers*, ECCV 2020. Table 1, figure 4, appendix A.4.
# - Lin, Maire, Belongie and others: *Microsoft COCO: Common Objects in Context*, ECCV 2014; the measure: cocodataset.org, "Detection Evaluation".
# - Tian, Shen, Chen, He: *FCOS: Fully Convolutional One-Stage Object Detection*, ICCV 2019.
# - Zhu, Su, Lu, Li, Wang, Dai: *Deformable DETR*, ICLR 2021. What came of small objects and slow training.
# - Bolya, Foley, Hays, Hoffman: *TIDE: A General Toolbox for Identifying Object Detection Errors*, ECCV 2020. Reasons for wrong detections, done thoroughly.
#
# **Next:** notebook 06 gives every object a mask: the panoptic head. (It is being written.)

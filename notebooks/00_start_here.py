# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start here: a detector that answers with a set
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/minivis/minivis/blob/main/notebooks/00_start_here.ipynb)
#
# **Time:** about 15 minutes to read; the cells run in under a minute on two CPU cores.
# **You need:** Python and a little PyTorch. No GPU, no network, no download.
#
# When you have finished this page you can
#
# 1. say what DETR takes in and what it gives back, shape by shape;
# 2. read its answer for a picture: queries, scores, "no object";
# 3. read the number that detectors are compared by, and say what it hides;
# 4. say where this detector fails, because you have looked.

# %% [markdown]
# ## What this course is
#
# Three ideas changed how machines see, and all three are built on the same attention.
#
# | model | the idea | supervision |
# | --- | --- | --- |
# | **DETR** | an image is a sentence of patches, and its objects are a *set* that is predicted in one go | boxes and classes |
# | **CLIP** | a picture and its caption should point in the same direction | captions |
# | **DINO** | a network can teach itself, if two simple tricks keep it from going silent | none |
#
# Each is taught in the same way: build the idea by hand, see it inside a trained model, take it away and watch
# what breaks. The package `minivis` holds the real models. What you train here in minutes is the same code as the
# full-size model on GPUs, with another configuration.
#
# All of it follows one text, a long set of study notes on the three papers ("DETR: Paper explained", partly in Russian), which the notebooks call *the
# document*. Such notes get much right and some things wrong, and so do we all. So each of its claims has a number (D for DETR, C for CLIP, S for DINO), is put
# to a test in the notebook that reaches it, and gets a verdict: confirmed, corrected, qualified, or not decided at this scale.
#
# Finished today are this page and the notebooks on DETR, 01 to 06. The others are being written.

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
# If you can read versions and a device above this line, everything is installed. What comes when, and what it builds on (numbers are notebooks,
# the words on the arrows are what a model learns from):

# %%
from minivis.widgets.architectures import COURSE

COURSE.show()

# %% [markdown]
# ## The payoff first
#
# `detr-mini` is a DETR with about two million parameters. It was trained on one CPU core, on pictures like these: coloured shapes
# on photographed ground. `load` gives the model in evaluation mode. The 500 scenes below were never trained on.

# %%
from minivis.data.scenes import load_shipped_scenes

model = minivis.load("detr-mini").to(device)
scenes = load_shipped_scenes()

print("classes:", ", ".join(model.class_names))
print("scenes: ", len(scenes))

# %% [markdown]
# Ask it about six scenes, and play with what it says. Point at a bar, or at a box. Leaf through the pictures: the first two are easy, the others are among the
# hardest for it. Move the slider down to 0.05.

# %%
from minivis.widgets import DetectionExplorer

SHOWN = [1, 0, 279, 395, 231, 292]
batch = scenes.prepare(scenes.collate([scenes[i] for i in SHOWN]), device)
with torch.inference_mode():
    outputs = model(batch.images)

pictures = [scenes.scene_image(i) for i in SHOWN]
DetectionExplorer(pictures, outputs, model.class_names, batch.targets)

# %% [markdown]
# In an easy scene the scores fall off a cliff, and the cliff stands where the number of objects says. The model was never told this number. In the hard ones
# it hesitates, or names a shape twice.
#
# (If the picture above does not answer to your mouse, run its cell: the page shows a photograph of the widget until then.)
#
# ## What goes in, what comes out
#
# A model takes a batch of images and gives a dictionary. Look at the shapes before anything else.

# %%
for name in ("pred_logits", "pred_boxes"):
    print(f"{name:12} {tuple(outputs[name].shape)}")

# %% [markdown]
# | symbol | here | meaning |
# | --- | --- | --- |
# | $B$ | 6 | images in the batch |
# | $Q$ | 25 | **object queries**: 25 learned vectors. Each reads the whole picture and answers once; only this vector makes their answers differ |
# | $K$ | 6 | classes; there is one output more, for "no object" |
# | 4 | 4 | a box: centre x, centre y, width, height, in fractions of the image |
#
# So the answer for one image is 25 pairs of a class and a box. There is no list of anchors, no sliding window, and nothing that
# removes duplicates afterwards. Most of the 25 say "no object". The **score** of a query is the probability of its best class that is not that one.
#
# **Predict before you run on.** Take all 500 scenes. In how many of them are exactly as many queries surer than 50 % as there are shapes?
# And where the numbers differ: are there more queries than shapes, or fewer?
#
# <details><summary>An answer to check yourself against</summary>
#
# The next cell counts. Where it errs, it mostly says too much: two queries claim the same shape. That is remarkable all the same.
# The 25 queries answer at the same time, and still they agree on who takes what: they talk to each other before they answer, and in training only one
# query is rewarded for each object. Notebooks 03 and 04 are about exactly that.
# </details>

# %%
from minivis.boxes import box_iou, cxcywh_to_xyxy

counts = {"as many": 0, "more": 0, "fewer": 0}
twice = 0  # scenes with one object that two sure queries name rightly
for start in range(0, 500, 50):
    batch = scenes.prepare(scenes.collate([scenes[i] for i in range(start, start + 50)]), device)
    with torch.inference_mode():
        answers = model(batch.images)
    scores, labels = answers["pred_logits"].softmax(-1)[..., :-1].max(-1)
    for score, label, boxes, target in zip(scores, labels, answers["pred_boxes"], batch.targets):
        sure, there = score > 0.5, len(target["labels"])
        counts["as many" if sure.sum() == there else "more" if sure.sum() > there else "fewer"] += 1
        overlap = box_iou(cxcywh_to_xyxy(boxes[sure]), cxcywh_to_xyxy(target["boxes"])) > 0.5
        named = overlap & (label[sure][:, None] == target["labels"])
        twice += bool((named.sum(0) > 1).any()) and bool(sure.sum() > there)

assert counts["as many"] > 250
for name, count in counts.items():
    print(f"{name:8} {count:3} scenes")
print(f"of those with more, {twice} have an object that two queries name")

# %% [markdown]
# ## One number for 500 pictures
#
# Detectors are compared by **average precision** (AP). Take one class. Call a detection right if it overlaps an object of that class enough, and if no surer
# detection has taken this object. Now go down the list of all detections, the surest first, and after each one ask two things: which share of those so far is right
# (*precision*), and which share of all objects is found so far (*recall*)? AP is the area under precision drawn over recall. It is 1 if everything is found
# before the first mistake.
#
# Overlap is measured by IoU, intersection divided by union. "Enough" means more than 0.50 for **AP50**, more than 0.75 for AP75; and plain AP is the mean over ten
# such thresholds, 0.50 to 0.95, and over the classes. Notebook 05 draws the curve.

# %%
from minivis.evaluation.detection import evaluate_detection

metrics = evaluate_detection(model, scenes, progress=False)
assert metrics["AP50"] > 0.9 and metrics["AP"] > 0.65

for name in ("AP50", "AP75", "AP", "AP_small", "AP_medium"):
    print(f"{name:10} {metrics[name]:.2f}")

# %% [markdown]
# Read the rows against each other. At an IoU of 0.50 nearly everything is found. At 0.75 boxes must be tighter, and some are not. Small
# objects (COCO's rule: less than 32 × 32 pixels) are worse than medium ones: one pixel of error is a larger part of a small box.
#
# AP hides as much as it tells. It does not say *which* objects are missed. So look.

# %% [markdown]
# ## Where it fails
#
# Of the first 200 scenes, these are the ones in which the model is surest of something that overlaps no object of that class. Only the mistake is drawn; white dashes are the truth.

# %%
from minivis.detr import postprocess
from minivis.evaluation.draw import draw_detections, draw_grid
from minivis.widgets import show


def surest_mistake(found, target):
    """The surest detection that overlaps no object of its class by half: its score and its number, or (0, None)."""
    height, width = target["original_size"]
    true = cxcywh_to_xyxy(target["boxes"]) * target["boxes"].new_tensor(
        [width, height, width, height]
    )
    same_class = found["labels"][:, None] == target["labels"][None, :]
    overlap = torch.where(same_class, box_iou(found["boxes"], true), 0.0)
    wrong = (overlap.max(dim=1).values < 0.5).nonzero().flatten()
    return (float(found["scores"][wrong[0]]), int(wrong[0])) if len(wrong) else (0.0, None)


examples = []
for start in range(0, 200, 50):
    batch = scenes.prepare(scenes.collate([scenes[i] for i in range(start, start + 50)]), device)
    with torch.inference_mode():
        found = postprocess(
            model(batch.images), [target["original_size"] for target in batch.targets]
        )
    for pixels, one, target in zip(batch.images.pixels, found, batch.targets, strict=True):
        examples.append((*surest_mistake(one, target), pixels.cpu(), one, target))

examples.sort(key=lambda example: example[0], reverse=True)
drawn = []
for _, number, pixels, found, target in examples[:3]:
    picture = scenes.image_transform.denormalise(pixels)
    mistake = {name: values[number : number + 1].cpu() for name, values in found.items()}
    drawn.append(draw_detections(picture, mistake, model.class_names, threshold=0.5, target=target))
show(
    draw_grid(drawn, columns=3),
    "Three scenes, each with one wrong box among dashed true ones, where shapes lie in a crowd.",
)

# %% [markdown]
# They are crowds. Where shapes overlap, one query must decide which pixels are whose, from a map of 8 × 8 cells.
#
# ## A photograph
#
# The model has never seen a photograph of a thing. Here is one of a cup of coffee: a round cup on a round saucer. What will it say?

# %%
from PIL import Image
from skimage import data

photograph = Image.fromarray(data.coffee())
side = min(photograph.size)
photograph = photograph.crop((0, 0, side, side)).resize((128, 128), Image.Resampling.LANCZOS)

with torch.inference_mode():
    outputs = model([model.image_transform(photograph).to(device)])
found = postprocess(outputs, [(128, 128)])[0]
picture = draw_detections(
    photograph, {k: v.cpu() for k, v in found.items()}, model.class_names, threshold=0.2
)
show(
    picture, "A photograph of a cup of coffee, with what the detector reports above a score of 0.2."
)

# %% [markdown]
# Whatever it reports, it reports in the only words it has: six shapes. It cannot say "cup". It cannot say "I have never seen this". A
# detector knows its training world, and "no object" means *none of my classes*, not *nothing there*.
#
# So this detector says too much in crowds, and has no word for what it was not taught. Two more limits you have not seen yet: it cannot report more objects
# than it has queries (notebook 04), and it sees little below the resolution of its map (notebook 05). To name a class that nobody trained it on takes
# another idea: CLIP, in notebook 07.
#
# ## How it was made
#
# The checkpoint's card says all of it: recipe, seed, steps, time, kind of machine, and the metrics on all 500 scenes.

# %%
card = model.card
training, recipe = card["training"], card["recipe"]
print(f"recipe {recipe['name']}: {training['steps']} steps of {recipe['batch_size']} images")
print(f"trained for {training['seconds'] / 60:.0f} minutes: {training['machine']}")
print(
    f"AP {card['metrics']['AP']:.3f}, AP50 {card['metrics']['AP50']:.3f} on {card['metrics']['images']} scenes"
)

# %% [markdown]
# You can make your own, with another seed or other settings, from a terminal:
#
# ```
# minivis train detr-mini --out runs/mine
# minivis eval runs/mine
# ```
#
# ## Try it
#
# 1. Show the scenes 6 to 11 in a `DetectionExplorer` of your own, and lower its threshold to 0.1. What appears? (2 minutes)
# 2. Turn the photograph upside down, or give it to the model at 256 pixels. Does the answer change? Why might it? (5 minutes)
# 3. `minivis.record_attention(model)` keeps every attention map while the model runs. Find the shape of
#    `maps["transformer.decoder.layers.2.cross_attn"]`, and say what each of its four axes is. (5 minutes)
#
# <details><summary>What to expect</summary>
#
# 1. Fainter second guesses: the other class of a shape that is hard to tell, or a shifted box of the same shape.
# 2. It usually does. The model has learned what shapes look like in pictures of 128 pixels and mostly upright, and nothing else.
# 3. (images, 8 heads, 25 queries, 64 cells): how much each query reads from each cell of the 8 × 8 map.
# </details>
#
# ## In short
#
# - DETR answers with a fixed number of (class, box) pairs, most of them "no object".
# - Nothing removes duplicates: the training does that, by matching one query to each object.
# - AP is a mean over classes and over how strict "found" is. Look at the mistakes as well.
#
# **Next:** notebook 01 follows a picture into the model, to its feature map. If you want the heart of DETR first, read notebook 04.
#
# **Reference.** Carion, Massa, Synnaeve, Usunier, Kirillov, Zagoruyko: *End-to-End Object Detection with Transformers*, ECCV 2020.

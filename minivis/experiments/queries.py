"""DETR's decoder taken apart: its memory kept once, its queries, layers and attentions changed at will.

Encoding the pictures takes most of the time. So it is done once (`encode`), and the decoder runs over what came out
(`decode`) as often as one likes: with fewer queries, with others, or inside one of the `with ...:` blocks below.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import roi_align

from minivis.attention import MultiHeadAttention
from minivis.boxes import box_iou, cxcywh_to_xyxy
from minivis.data.items import DetectionDataset
from minivis.detr import DETR
from minivis.images import ImageBatch, as_image_batch

Outputs = dict[str, Tensor]  # pred_logits (B, Q, K + 1) and pred_boxes (B, Q, 4)


class Memory(NamedTuple):
    """What the encoder leaves for the decoder to read."""

    tokens: Float[Tensor, "batch cells d_model"]
    positions: Float[Tensor, "batch cells d_model"]
    padding: Bool[Tensor, "batch cells"]
    size: tuple[int, int]  # height and width of the map, in cells

    def __getitem__(self, images: Any) -> "Memory":
        """The memory of some images: `memory[:8]`."""
        return Memory(self.tokens[images], self.positions[images], self.padding[images], self.size)


def encode(model: DETR, images: ImageBatch | Tensor | list[Tensor]) -> Memory:
    """Everything before the decoder."""
    features, padding = model.backbone(as_image_batch(images))[model.feature_level]
    size = features.shape[-2:]
    features, positions = model.input_proj(features), model.positions(padding)
    tokens, positions = (rearrange(x, "b d h w -> b (h w) d") for x in (features, positions))
    padding = rearrange(padding, "b h w -> b (h w)")
    return Memory(model.transformer.encoder(tokens, padding, positions), positions, padding, tuple(size))


def decode(
    model: DETR, memory: Memory, query_embed: Float[Tensor, "queries d_model"] | None = None
) -> list[Outputs]:
    """The answers after every decoder layer, the first layer's first; of other queries than the model's, if given.

    The model must have been built with `aux_loss`, as all that are trained like the paper's are.
    """
    query_embed = model.query_embed.weight if query_embed is None else query_embed
    query_pos = repeat(query_embed, "q d -> b q d", b=len(memory.tokens))
    decoded = model.transformer.decoder(
        torch.zeros_like(query_pos), memory.tokens, memory.padding, memory.positions, query_pos
    )
    outputs = model.heads(decoded)
    return [*outputs.pop("aux_outputs", []), outputs]


@torch.no_grad()
def encode_scenes(
    model: DETR, dataset: DetectionDataset, indices: Sequence[int], batch_size: int = 50
) -> tuple[Memory, list[dict]]:
    """The memory of scenes that are all of one size, as if they were one batch, and their targets."""
    device = next(model.parameters()).device
    memories, targets = [], []
    for part in torch.tensor(indices).split(batch_size):
        batch = dataset.prepare(dataset.collate([dataset[int(i)] for i in part]), device)
        memories.append(encode(model, batch.images))
        targets += batch.targets
    tokens, positions, padding, sizes = zip(*memories)
    return Memory(torch.cat(tokens), torch.cat(positions), torch.cat(padding), sizes[0]), targets


# Other decoders, as long as a `with` block lasts


@contextmanager
def replaced(attentions: Sequence[MultiHeadAttention], forward: Callable[..., Tensor]) -> Iterator[None]:
    """Each of these attentions computes `forward(itself, query, key, value, padding_mask)` in place of its own."""
    with ExitStack() as undo:
        for attention in attentions:
            attention.forward = partial(forward, attention)  # hides the method of the class
            undo.callback(delattr, attention, "forward")
        yield


def silent_queries(model: DETR, layers: slice = slice(1, None), hear_themselves: bool = False) -> Any:
    """Queries do not hear each other. The first layer is left alone: nothing is said there yet, see `decode`.

    What they hear instead is nothing (zeros), or, with `hear_themselves`, all that they say themselves.
    """

    def forward(attention: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        return attention.out_proj(attention.v_proj(value)) if hear_themselves else torch.zeros_like(query)

    return replaced([layer.self_attn for layer in model.transformer.decoder.layers[layers]], forward)


def causal_queries(model: DETR) -> Any:
    """Query i hears only queries 0 to i, as a word of a translation sees only the words before it."""
    attentions = [layer.self_attn for layer in model.transformer.decoder.layers]
    return replaced(attentions, partial(MultiHeadAttention.forward, is_causal=True))


def read_only(model: DETR, allowed: Bool[Tensor, "batch queries cells"]) -> Any:
    """Every query reads only the cells of the memory that it is allowed to read; one that may read none reads all."""
    allowed = allowed | ~allowed.any(-1, keepdim=True)

    def forward(attention: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        q, k, v = attention.q_proj(query), attention.k_proj(key), attention.v_proj(value)
        q, k, v = (_in_heads(attention, x) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, allowed[:, None])
        return attention.out_proj(rearrange(mixed, "b heads n d -> b n (heads d)"))

    return replaced([layer.cross_attn for layer in model.transformer.decoder.layers], forward)


def without_places(model: DETR, memory: Memory, layers: slice = slice(None)) -> Any:
    """`place_scores` are taken away from what cross-attention puts into its softmax; all the rest stays."""
    numbers = range(len(model.transformer.decoder.layers))[layers]
    attentions = [model.transformer.decoder.layers[number].cross_attn for number in numbers]
    of_attention = {a: place_scores(model, memory, n)[None] for a, n in zip(attentions, numbers)}

    def forward(attention: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        q, k, v = attention.q_proj(query), attention.k_proj(key), attention.v_proj(value)
        q, k, v = (_in_heads(attention, x) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, -of_attention[attention])
        return attention.out_proj(rearrange(mixed, "b heads n d -> b n (heads d)"))

    return replaced(attentions, forward)


@contextmanager
def silent_head(attention: MultiHeadAttention, head: int) -> Iterator[None]:
    """Nothing of what this head gathers is passed on."""
    own = attention.out_proj.in_features // attention.num_heads
    columns = attention.out_proj.weight.data[:, head * own : (head + 1) * own]
    kept = columns.clone()
    columns.zero_()
    try:
        yield
    finally:
        columns.copy_(kept)


def _in_heads(attention: MultiHeadAttention, x: Float[Tensor, "*any n d_model"]) -> Tensor:
    return rearrange(x, "... n (heads d) -> ... heads n d", heads=attention.num_heads)


# Where queries look


def place_scores(model: DETR, memory: Memory, layer: int) -> Float[Tensor, "heads queries cells"]:
    """(W_q e)ᵀ (W_k p) / √d_head: what embedding and position alone add to the cross-attention of a layer (from 0).

    Neither a picture nor anything that was found has a part in it. All pictures must be of one size.
    """
    attention = model.transformer.decoder.layers[layer].cross_attn
    asked = _in_heads(attention, F.linear(model.query_embed.weight, attention.q_proj.weight))
    places = _in_heads(attention, F.linear(memory.positions[0], attention.k_proj.weight))
    return asked @ places.mT / asked.shape[-1] ** 0.5


def roi_weights(boxes: Float[Tensor, "*any 4"], size: tuple[int, int]) -> Float[Tensor, "*any cells"]:
    """How much each cell of a map of `size` (height, width) counts in RoIAlign (7 × 7) of a box (cx, cy, w, h)."""
    height, width = size
    # One map in which every cell is a channel of its own: what comes through of a channel is that cell's weight.
    one_map = torch.eye(height * width, device=boxes.device).view(1, -1, height, width)
    scale = torch.tensor([width, height, width, height], device=boxes.device)
    corners = (cxcywh_to_xyxy(boxes) * scale).reshape(-1, 4)
    parts = [
        roi_align(one_map, [part], output_size=7, aligned=True).mean((2, 3)) for part in corners.split(500)
    ]
    return torch.cat(parts).view(*boxes.shape[:-1], height * width)


def around_boxes(
    weights: Float[Tensor, "n heads height width"],
    boxes: Float[Tensor, "n 4"],
    reach: float = 1.5,
    steps: int = 31,
) -> Float[Tensor, "n heads steps steps"]:
    """Maps cut out around boxes (cx, cy, w, h), in units of each box: from −reach to +reach of its size."""
    offset = torch.linspace(-reach, reach, steps, device=boxes.device)
    x = boxes[:, None, 0] + offset * boxes[:, None, 2]
    y = boxes[:, None, 1] + offset * boxes[:, None, 3]
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
    return F.grid_sample(weights, 2 * grid - 1, align_corners=False)  # its corners are −1 and 1


# What is asked of the answers


def cells_inside(
    boxes: Float[Tensor, "*any 4"], size: tuple[int, int], margin: float = 0.0
) -> Bool[Tensor, "*any cells"]:
    """Which cells of a map of `size` (height, width) have their centre in a box (cx, cy, w, h), row by row.

    `margin`: the box is larger by so many cells on every side.
    """
    height, width = size
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    cx, cy, w, h = boxes[..., None].unbind(-2)
    across = (x - cx).abs() <= w / 2 + margin / width
    down = (y - cy).abs() <= h / 2 + margin / height
    return rearrange(down[..., :, None] & across[..., None, :], "... h w -> ... (h w)")


def confident(outputs: Outputs, least: float = 0.5) -> Bool[Tensor, "batch queries"]:
    """Which answers have a score of at least `least`: the probability of their likeliest real class."""
    return outputs["pred_logits"].softmax(-1)[..., :-1].amax(-1) >= least


def duplicates(outputs: Outputs, least_iou: float = 0.5) -> float:
    """The share of confident answers that say again what a surer one says: the same class, and boxes that agree."""
    repeated = 0
    scores, labels = outputs["pred_logits"].softmax(-1)[..., :-1].max(-1)
    sure = confident(outputs)
    for score, label, box, kept in zip(scores, labels, cxcywh_to_xyxy(outputs["pred_boxes"]), sure):
        order = score[kept].argsort(descending=True)
        label, box = label[kept][order], box[kept][order]
        same = (box_iou(box, box) >= least_iou) & (label[:, None] == label)
        repeated += int(same.tril(-1).any(1).sum())
    return repeated / max(int(sure.sum()), 1)


def rivals(outputs: Outputs, least_iou: float = 0.5) -> Bool[Tensor, "batch queries queries"]:
    """Which two queries are sure of the same class in one place: their boxes overlap by `least_iou` or more."""
    sure, labels = confident(outputs), outputs["pred_logits"][..., :-1].argmax(-1)
    overlap = torch.stack([box_iou(boxes, boxes) for boxes in cxcywh_to_xyxy(outputs["pred_boxes"])])
    same = (overlap >= least_iou) & (labels[:, :, None] == labels[:, None, :])
    others = ~torch.eye(sure.shape[1], dtype=torch.bool, device=sure.device)
    return same & others & sure[:, :, None] & sure[:, None, :]


def share_found(outputs: Outputs, targets: Sequence[dict[str, Any]], least_iou: float = 0.5) -> float:
    """The share of all objects that some confident answer has: of the object's class, on its place."""
    sure, labels, found, objects = confident(outputs), outputs["pred_logits"][..., :-1].argmax(-1), 0, 0
    for kept, label, boxes, target in zip(sure, labels, outputs["pred_boxes"], targets):
        overlap = box_iou(cxcywh_to_xyxy(boxes[kept]), cxcywh_to_xyxy(target["boxes"]))
        found += int(((overlap >= least_iou) & (label[kept][:, None] == target["labels"])).any(0).sum())
        objects += len(target["labels"])
    return found / max(objects, 1)

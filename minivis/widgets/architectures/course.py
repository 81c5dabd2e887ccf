"""What the course is made of, and what leads to what."""

from minivis.widgets.drawing import Arrow, Box, Drawing

COURSE = Drawing(
    "One mechanism, three papers, twelve notebooks",
    boxes=[
        Box("attention", (0, 1), "who reads\nfrom whom\n02", "step"),
        Box("DETR", (1, 0), "objects as a set\n01–05", "learned"),
        Box("CLIP", (1, 1), "picture and text\nin one space\n07, 08", "learned"),
        Box("DINO", (1, 2), "a student and\nits own teacher\n09–11", "learned"),
        Box("panoptic", (2, 0), "a mask for each\n06", "learned"),
        Box("zero-shot, search", (2, 1), "classes it was\nnever trained on", "data"),
        Box("features", (2, 2), "objects found\nwithout a label", "data"),
    ],
    arrows=[
        Arrow("attention", "DETR", "boxes"),
        Arrow("attention", "CLIP", "captions"),
        Arrow("attention", "DINO", "no labels"),
        Arrow("DETR", "panoptic"),
        Arrow("CLIP", "zero-shot, search"),
        Arrow("DINO", "features"),
    ],
)

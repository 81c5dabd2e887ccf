"""How good a model is, by the rules of its field, and pictures of what it finds."""

from minivis.evaluation.detection import detection_metrics, evaluate_detection, results_of
from minivis.evaluation.draw import draw_detections, draw_grid, draw_panoptic, draw_targets
from minivis.evaluation.panoptic import PanopticQuality
from minivis.evaluation.segmentation import evaluate_panoptic

__all__ = [
    "PanopticQuality",
    "detection_metrics",
    "draw_detections",
    "draw_grid",
    "draw_panoptic",
    "draw_targets",
    "evaluate_detection",
    "evaluate_panoptic",
    "results_of",
]

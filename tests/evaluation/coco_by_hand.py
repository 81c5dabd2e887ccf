"""COCO's AP and AR written a second time, slowly and plainly, to compare the package with."""

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def iou(detection, truth):
    """Boxes xywh. A crowd is a region: only the detection's own area counts below the line."""
    (x, y, w, h), (a, b, c, d) = detection["bbox"], truth["bbox"]
    overlap = max(0.0, min(x + w, a + c) - max(x, a)) * max(0.0, min(y + h, b + d) - max(y, b))
    whole = w * h if truth["iscrowd"] else w * h + c * d - overlap
    return overlap / whole if whole > 0 else 0.0


def match(detections, truths, threshold, area):
    """For one image and class: (score, right, ignored) of every detection, and how many objects to find."""
    low, high = AREAS[area]
    ignored = [t["iscrowd"] or not low <= t["area"] <= high for t in truths]
    found, rows = set(), []
    for detection in sorted(detections, key=lambda d: -d["score"]):
        overlaps = [(iou(detection, t), i) for i, t in enumerate(truths) if i not in found or t["iscrowd"]]
        good = [(overlap, i) for overlap, i in overlaps if overlap >= threshold]
        real, others = [g for g in good if not ignored[g[1]]], [g for g in good if ignored[g[1]]]
        if real or others:  # what counts is taken first, whatever its overlap
            _, best = max(real or others)
            found.add(best)
            rows.append((detection["score"], True, ignored[best]))
        else:
            size = detection["bbox"][2] * detection["bbox"][3]
            rows.append((detection["score"], False, not low <= size <= high))
    return rows, len(truths) - sum(ignored)


def curve(truths, detections, images, category, threshold, area, most):
    """(AP, recall) of one class at one threshold; None where there is nothing to find."""
    rows, total = [], 0
    for image in images:
        here = [t for t in truths if t["image_id"] == image and t["category_id"] == category]
        best = [d for d in detections if d["image_id"] == image and d["category_id"] == category]
        best = sorted(best, key=lambda d: -d["score"])[:most]
        more, count = match(best, here, threshold, area)
        rows, total = rows + more, total + count
    if total == 0:
        return None
    right = wrong = 0
    points = []  # (recall, precision) as detections of falling score come in
    for _, is_right, _ in sorted((row for row in rows if not row[2]), key=lambda row: -row[0]):
        right, wrong = right + is_right, wrong + (not is_right)
        points.append((right / total, right / (right + wrong)))
    precision = [max((p for r, p in points if r >= recall), default=0.0) for recall in RECALLS]
    return np.mean(precision), right / total


def coco_metrics(images, truths, detections, categories):
    """The twelve numbers and AP by class, nan where there is nothing to find."""

    def mean(index, thresholds=THRESHOLDS, area="all", most=100, classes=categories):
        curves = [curve(truths, detections, images, c, t, area, most) for c in classes for t in thresholds]
        return np.mean([c[index] for c in curves if c is not None] or [np.nan])

    return {
        "AP": mean(0),
        "AP50": mean(0, thresholds=THRESHOLDS[:1]),
        "AP75": mean(0, thresholds=THRESHOLDS[5:6]),
        **{f"AP_{area}": mean(0, area=area) for area in ("small", "medium", "large")},
        **{f"AR_{most}": mean(1, most=most) for most in (1, 10, 100)},
        **{f"AR_{area}": mean(1, area=area) for area in ("small", "medium", "large")},
        "by_class": {category: mean(0, classes=[category]) for category in categories},
    }

"""What notebooks show: pictures that say what they show, drawings, the package's own code, and live widgets."""

from minivis.widgets.attention_explorer import AttentionExplorer
from minivis.widgets.detection_explorer import DetectionExplorer
from minivis.widgets.drawing import Arrow, Box, Drawing, Group
from minivis.widgets.evidence import show_claims, show_experiment
from minivis.widgets.feature_explorer import FeatureExplorer
from minivis.widgets.matching_explorer import MatchingExplorer
from minivis.widgets.matching_recorder import MatchingRecorder
from minivis.widgets.matching_replay import MatchingReplay
from minivis.widgets.panoptic_explorer import PanopticExplorer
from minivis.widgets.pictures import show
from minivis.widgets.precision_recall_explorer import PrecisionRecallExplorer
from minivis.widgets.query_explorer import QueryExplorer
from minivis.widgets.source import show_source

__all__ = [
    "Arrow",
    "AttentionExplorer",
    "Box",
    "DetectionExplorer",
    "Drawing",
    "FeatureExplorer",
    "Group",
    "MatchingExplorer",
    "MatchingRecorder",
    "MatchingReplay",
    "PanopticExplorer",
    "PrecisionRecallExplorer",
    "QueryExplorer",
    "show",
    "show_claims",
    "show_experiment",
    "show_source",
]

"""Numbers about scores: no model, no dataset, only labels and probabilities."""

from ctr.evaluation.intervals import Interval, auc_difference, auc_interval
from ctr.evaluation.metrics import Metrics, measure

__all__ = ["Interval", "Metrics", "auc_difference", "auc_interval", "measure"]

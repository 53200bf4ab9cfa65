"""The page and the pictures that a run leaves behind."""

from ctr.report.curve import figure_png
from ctr.report.headline import verdict
from ctr.report.html import write_report
from ctr.report.pairs import pairs_png

__all__ = ["figure_png", "pairs_png", "verdict", "write_report"]

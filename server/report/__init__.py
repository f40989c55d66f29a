"""The report of a run: figures, plots and one self-contained page."""

from server.report.episode import EpisodePicture, draw_episode
from server.report.headline import Row, headline
from server.report.page import write_report

__all__ = ["EpisodePicture", "Row", "draw_episode", "headline", "write_report"]

"""A recorded run as one HTML file, to be played and stepped through: page.py, and its scripts."""

from minipar.trace.replay.page import MOST_EVENTS, replay_data, replay_page

__all__ = ["MOST_EVENTS", "replay_data", "replay_page"]

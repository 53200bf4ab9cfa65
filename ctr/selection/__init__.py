"""Selectors, and compaction of what they say."""

"""The stages composed into whole jobs."""

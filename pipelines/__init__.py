"""The batch pipelines that get scheduled: thin modules over `ctr.jobs`, and their configurations."""

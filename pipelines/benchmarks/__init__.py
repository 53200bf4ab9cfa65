"""What `make bench` measures: one module per stage, each with a `measure` that returns flat numbers."""

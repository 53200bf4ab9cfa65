"""Settings of the whole suite."""

import os

from hypothesis import settings

# A build must not depend on luck: there the same examples are tried each time, at a desk new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

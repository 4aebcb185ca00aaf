"""Settings of all tests."""

import os

from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right. Continuous integration tries
# the same examples each time; elsewhere each run tries others.
settings.register_profile("offsim", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("offsim")

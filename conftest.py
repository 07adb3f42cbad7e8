"""What pytest leaves out where an optional library is missing."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("numba") else ["devconv/_fast/compiled/*.py"]

"""Needs the dependency group `docs`, which the environments for other Celerys and Djangos leave out."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("sybil") and find_spec("sphinx") else ["*"]

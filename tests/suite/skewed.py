"""Loaded by a worker (``-I tests.suite.skewed``) where libfaketime is not installed: its clock is off.

The wall clock only, as Python code reads it: ``time.time`` in every module that is loaded. ``datetime.now`` stays.
"""

from __future__ import annotations

import os
import sys
import time

_real = time.time
_SKEW_S = float(os.environ["TEST_SKEW_S"])


def _skewed() -> float:
    return _real() + _SKEW_S


for _module in list(sys.modules.values()):
    for _name, _value in list(vars(_module).items()) if hasattr(_module, "__dict__") else []:
        if _value is _real and _module is not sys.modules[__name__]:
            setattr(_module, _name, _skewed)

"""OpenCV, which decodes and resizes faster than Pillow and NumPy. An exported network runs without it."""

from __future__ import annotations

from typing import Any

cv2: Any = None
try:
    import cv2
except ImportError:  # only where the package was installed without its requirements
    pass
else:
    # The pipeline runs one decoder per thread; more threads inside OpenCV would compete with them.
    cv2.setNumThreads(0)
    # A damaged file is reported once, by name.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

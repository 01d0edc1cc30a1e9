"""MLflow: side-by-side records of trials, and the way back from a run to its directory.

Hides the tracker; nothing outside this package knows MLflow. A trial's directory stays the record:
tracking that fails raises TrackingError, and `imgpull log DIR` makes up for it later.
"""

from imgpull.tracking.runs import Tracker, View, open_tracker, run_directory

__all__ = ["Tracker", "View", "open_tracker", "run_directory"]

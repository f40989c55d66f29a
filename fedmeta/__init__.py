"""fedmeta: federated meta-learning that can be attacked, defended and audited.

This package is the library: learners, models, data, and the experiment schema. It imports neither Flower nor Ray
(`fedmeta.wire` is the one bridge to Flower records) and importing it loads nothing heavy.
"""

__version__ = "0.1.0"

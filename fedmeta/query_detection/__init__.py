"""Is a query adversarial? Scores where an adapted model is used. A new one is one file here and one line below."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from fedmeta.query_detection.base import Detector

__all__ = ["DETECTORS", "make_detector"]

DETECTORS = Registry(
    "detectors",
    {
        "max_softmax": Entry(
            "fedmeta.query_detection.confidence:MaxSoftmax",
            "how little the model trusts its answer",
            "Hendrycks & Gimpel 2017",
        ),
        "mahalanobis": Entry(
            "fedmeta.query_detection.mahalanobis:Mahalanobis",
            "distance to the nearest class of the support, by the covariance of meta-training classes",
            "Lee et al. 2018, equation 2",
        ),
        "one_bit": Entry(
            "fedmeta.query_detection.squeezing:OneBit", "what rounding pixels to one bit changes", "Xu et al. 2018"
        ),
        "median": Entry(
            "fedmeta.query_detection.squeezing:Median", "what a 3x3 median filter changes", "Xu et al. 2018"
        ),
        "consistency": Entry(
            "fedmeta.query_detection.consistency:Consistency", "does the query as support predict the support?"
        ),
        "off_binary": Entry(
            "fedmeta.query_detection.off_binary:OffBinary",
            "distance of pixels from 0 and 1: a sanity baseline, which shows nothing on binary pictures",
        ),
    },
)


def make_detector(name: str, **parameters: Any) -> "Detector":
    """Construct a detector: `make_detector("median")`.

    Raises:
        ConfigurationError: unknown name or parameter.
    """
    found: Detector = DETECTORS.make(name, where=f"detector {name}", **parameters)
    return found

"""Evasion: inputs changed a little, so that an *adapted* model errs. A new attack is a file here and a line below."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from fedmeta.evasion.base import Evasion

__all__ = ["EVASIONS", "make_evasion"]

EVASIONS = Registry(
    "evasions",
    {
        "fgsm": Entry(
            "fedmeta.evasion.fgsm:FGSM", "one step along the gradient's sign or direction", "Goodfellow et al. 2015"
        ),
        "pgd": Entry("fedmeta.evasion.pgd:PGD", "projected gradient ascent with random starts", "Madry et al. 2018"),
        "apgd_ce": Entry(
            "fedmeta.evasion.apgd:APGDCE",
            "PGD whose step size halves itself, on the cross-entropy",
            "Croce & Hein 2020, algorithm 1",
        ),
        "apgd_dlr": Entry(
            "fedmeta.evasion.apgd:APGDDLR",
            "the same on the difference of logits ratio, targeted or not",
            "Croce & Hein 2020, equations 5 and 6",
        ),
        "square": Entry(
            "fedmeta.evasion.square:Square",
            "random squares by outputs alone: black box, linf",
            "Andriushchenko et al. 2020, algorithms 1 and 2",
        ),
        "noise": Entry("fedmeta.evasion.noise:Noise", "random signs: the control, not an attack"),
    },
)


def make_evasion(name: str, **parameters: Any) -> "Evasion":
    """Construct an attack: `make_evasion("pgd", steps=20)(logits_of, x, y, Ball("linf", 0.1), seed)` -> inputs like x.

    Raises:
        ConfigurationError: unknown name or parameter, or a value out of bounds.
    """
    found: Evasion = EVASIONS.make(name, where=f"evasion {name}", **parameters)
    return found

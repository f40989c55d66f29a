"""Synthesised words by the C interface of espeak-ng, from the optional wheel `espeakng-loader`.

The library is a single synthesiser with a memory: what it says depends a little on what it said before. So a whole
list of words is said by a process of its own, afresh and in order, which gives the same samples in every run.
"""

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from fedmeta.errors import DataError

SYNCHRONOUS, DO_NOT_EXIT, UTF8 = 2, 0x8000, 1
RATE, PITCH = 1, 3
"""Numbers of espeak-ng's `speak_lib.h`: output mode, options, text flag and parameters."""

EXTRA = "data.name = 'speech' without data.path speaks with espeak-ng: install fedmeta[speech], or set data.path"


@dataclass(frozen=True)
class Utterance:
    """What is said, and how.

    Attributes:
        text: UTF-8.
        voice: a language of espeak-ng, perhaps with a variant: `fi+f1`.
        rate: words a minute, 80 to 450.
        pitch: 0 to 100.
    """

    text: str
    voice: str
    rate: int
    pitch: int


def synthesise(utterances: Sequence[Utterance]) -> tuple[int, list[np.ndarray]]:
    """Say everything in order.

    Returns:
        Samples a second, and int16 samples `[n]` of each.

    Raises:
        DataError: the wheel is missing, the library failed, or a voice is unknown.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise DataError(EXTRA)
    given = json.dumps([asdict(utterance) for utterance in utterances])
    # The child imports what this process would, wherever it was started.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.run(
        [sys.executable, "-m", "fedmeta.data.espeak"], input=given.encode(), capture_output=True, env=environment
    )
    if child.returncode:
        said = child.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(f"espeak-ng failed: {said[-1] if said else f'exit status {child.returncode}'}")
    lengths = np.frombuffer(child.stdout, dtype="<i8", count=len(utterances) + 1)
    samples = np.frombuffer(child.stdout, dtype="<i2", offset=lengths.nbytes)
    return int(lengths[0]), np.split(samples, np.cumsum(lengths[1:])[:-1]) if len(utterances) else []


class _Synthesiser:
    """The library, loaded once a process."""

    def __init__(self) -> None:
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.rate = self.library.espeak_Initialize(
            SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), DO_NOT_EXIT
        )
        if self.rate <= 0:
            raise DataError(f"espeak_Initialize gave {self.rate} for the data of espeakng-loader")
        self._heard: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._listen = kind(self._hear)  # kept, since the library calls it as long as it lives
        self.library.espeak_SetSynthCallback(self._listen)

    def _hear(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int | None) -> int:
        if samples and count > 0:
            self._heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, utterance: Utterance) -> np.ndarray:
        """int16 samples `[n]`."""
        if self.library.espeak_SetVoiceByName(utterance.voice.encode()):
            raise DataError(f"espeak-ng has no voice '{utterance.voice}': `espeak-ng --voices` lists them")
        self.library.espeak_SetParameter(RATE, utterance.rate, 0)
        self.library.espeak_SetParameter(PITCH, utterance.pitch, 0)
        self._heard.clear()
        text = utterance.text.encode()
        status = self.library.espeak_Synth(text, len(text) + 1, 0, 0, 0, UTF8, None, None)
        if status:
            raise DataError(f"espeak_Synth gave {status} for '{utterance.text}' in voice '{utterance.voice}'")
        self.library.espeak_Synchronize()
        return np.concatenate([np.zeros(0, dtype=np.int16), *self._heard])


def _child() -> None:
    """Utterances as JSON from standard input; rate, lengths and samples as raw numbers to standard output."""
    synthesiser = _Synthesiser()
    said = [synthesiser.say(Utterance(**one)) for one in json.load(sys.stdin)]
    head = np.array([synthesiser.rate, *map(len, said)], dtype="<i8")
    sys.stdout.buffer.write(head.tobytes())
    for samples in said:
        sys.stdout.buffer.write(samples.astype("<i2").tobytes())


if __name__ == "__main__":
    _child()

"""From a recording to a small picture of it: a log-mel spectrogram of fixed size, in plain torch."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

BANDS, FRAMES = 40, 32
"""Mel bands from `LOWEST` to `HIGHEST` Hz, and frames of equal length."""

LOWEST, HIGHEST = 60.0, 8000.0
HOP, WINDOW = 0.010, 0.025
"""Seconds between and within the short spectra that frames are averaged from."""

FLOOR = 5.0
"""Decades of power below a recording's loudest cell that the picture shows; what is weaker is black."""

SILENCE = 0.02
"""Share of the largest amplitude below which a recording's edges are cut off."""


def log_mel(wave: Tensor, rate: int, seconds: float) -> Tensor:
    """The picture of a recording, whatever its loudness; a silent one is black.

    Silence at both ends is cut off; the first `seconds` of the rest, or the rest and silence, are 32 frames. Cell =
    log10 of the mean power in a mel band (triangles on the scale 2595 log10(1 + f / 700), O'Shaughnessy 1987), from 5
    decades below the loudest cell (0) to that (1). Bands above half the sampling rate are black.

    Args:
        wave: `[n]` float amplitudes, n >= 0.
        rate: samples a second, at least 1,000.
        seconds: how much of it is shown, > 0.

    Returns:
        float32 `[40, 32]` in [0, 1], low bands first.
    """
    loud = (wave.abs() > SILENCE * wave.abs().max()).nonzero() if len(wave) else wave.new_zeros((0, 1))
    if not len(loud):
        return torch.zeros(BANDS, FRAMES)
    wave = wave[int(loud[0]) : int(loud[-1]) + 1][: round(seconds * rate)]
    wave = F.pad(wave, (0, round(seconds * rate) - len(wave)))
    window, points = round(WINDOW * rate), 2 ** math.ceil(math.log2(WINDOW * rate))
    spectrum = torch.stft(
        wave,
        points,
        hop_length=round(HOP * rate),
        win_length=window,
        window=torch.hann_window(window, dtype=wave.dtype),
        pad_mode="constant",
        return_complex=True,
    )
    power = mel_bands(points, rate).to(wave.dtype) @ spectrum.abs().square()
    power = F.adaptive_avg_pool1d(power, FRAMES)
    decades = torch.log10(power / power.max() + 10.0**-FLOOR)
    return (decades / FLOOR + 1).clamp(0, 1).to(torch.float32)


@functools.cache
def mel_bands(points: int, rate: int) -> Tensor:
    """`[40, points // 2 + 1]`, weights of the spectrum's bins in each band: triangles between neighbours' peaks.

    >>> bands = mel_bands(512, 16000)
    >>> bands.shape, int(bands[:, 32].argmax())  # bin 32 is 1000 Hz, 1000 mel; peaks lie 67 mel apart from 160
    (torch.Size([40, 257]), 13)
    """
    low, high = (2595 * math.log10(1 + f / 700) for f in (LOWEST, HIGHEST))
    edges = 700 * (10 ** (torch.linspace(low, high, BANDS + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.arange(points // 2 + 1, dtype=torch.float64) * rate / points
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)

"""What distributed noise takes of a client and of the server, by parts, on one core.

    python -m simulations.benchmarks.distributed_noise [--log-size 20] [--repeats 7]

Medians of processor time, in one process: rotation, rounding, noise by each sampler and source, a whole encoding and a
whole decoding.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from fedmeta.privacy.distributed import discrete_gaussian, rounding, skellam
from fedmeta.privacy.distributed.draws import system_words, words_of
from fedmeta.privacy.distributed.encoder import DistributedEncoder
from fedmeta.privacy.distributed.hadamard import Rotation
from fedmeta.privacy.distributed.shared_noise import SharedNoise


def median(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds of processor time of a call; one goes before, whose pages and tables are made once."""
    times = []
    for _ in range(repeats + 1):
        started = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - started))
    return statistics.median(times[1:])


def parts(size: int, repeats: int) -> dict[str, float]:
    """Milliseconds of each part, for vectors of `size` coordinates and 100 clients at z = 1."""
    rng = np.random.default_rng(0)
    noise = SharedNoise("skellam", 1.0, 100, 80, 10, size, 32)
    rotation, vector, seeded = Rotation.of(size, rng), rng.normal(size=size), words_of(rng)
    rotated = rotation.apply(vector)
    scaled = rotated * (noise.granularity / np.linalg.norm(rotated))
    wide = noise.share * noise.granularity
    encoder = DistributedEncoder(noise, 1.0, rotation, system_words)
    total = np.zeros(noise.length, np.uint32)
    return {
        "rotation": median(lambda: rotation.apply(vector), repeats),
        "conditional rounding": median(lambda: rounding.within(scaled, noise.granularity, rng), repeats),
        "Skellam, seeded": median(lambda: skellam.sample(noise.length, wide, seeded), repeats),
        "Skellam, AES-256 under the system's keys": median(
            lambda: skellam.sample(noise.length, wide, system_words), repeats
        ),
        "discrete Gaussian, seeded": median(lambda: discrete_gaussian.sample(noise.length, wide, seeded), repeats),
        "numpy's own Poisson draws, for comparison": median(
            lambda: rng.poisson(wide**2 / 2, noise.length) - rng.poisson(wide**2 / 2, noise.length), repeats
        ),
        "encode, whole": median(lambda: encoder.encode(vector, rng), repeats),
        "decode, whole": median(lambda: encoder.decode(total, 100), repeats),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--log-size", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    table = Table("part", f"ms for 2^{given.log_size} coordinates")
    for name, taken in parts(1 << given.log_size, given.repeats).items():
        table.add_row(name, f"{taken:.1f}")
    Console(width=90).print(table)


if __name__ == "__main__":
    main()

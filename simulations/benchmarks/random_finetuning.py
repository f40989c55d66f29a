"""Is random fine-tuning a defence against evasion? A run's model under attackers who know ever more of it.

`python -m simulations.benchmarks.random_finetuning RUN --eps 0.1 --episodes 50`
"""

import argparse
import json
from dataclasses import asdict

from fedmeta.deployment.random_finetune import RandomFineTune
from fedmeta.evasion.ball import Ball
from fedmeta.evasion.eot import judge_chance
from fedmeta.evasion.pgd import PGD
from simulations.detect import clean_episodes, open_model


def main() -> None:
    """Print the accuracies as a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="directory of a run whose learner has a head, such as maml")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=50)
    given = parser.parse_args()
    _, workload, params = open_model(given.run)
    found = judge_chance(
        RandomFineTune(workload.learner),
        params,
        clean_episodes(workload, given.episodes),
        PGD(steps=given.steps),
        Ball(given.norm, given.eps),
        draws=given.draws,
    )
    facts = asdict(found)
    for name, value in facts.items():
        if isinstance(value, dict):
            print(f"{name:18} {100 * value['mean']:5.1f} % [{100 * value['low']:.1f}, {100 * value['high']:.1f}]")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()

"""Attacks on federated meta-learning: on updates, on data, backdoors. A new one is one file here and one line below."""

from typing import Any

from fedmeta.registry import Entry, Registry

__all__ = ["ATTACKS", "make_attack"]

ATTACKS = Registry(
    "attacks",
    {
        "none": Entry("fedmeta.attacks.base:NoAttack", "nobody attacks"),
        "sign_flip": Entry("fedmeta.attacks.sign_flip:SignFlip", "minus the update, scaled", "Li et al. 2019 (RSA)"),
        "gaussian": Entry("fedmeta.attacks.gaussian:Gaussian", "noise in place of updates", "Blanchard et al. 2017"),
        "ipm": Entry("fedmeta.attacks.ipm:IPM", "minus a fraction of the benign mean", "Xie et al. 2019"),
        "alie": Entry("fedmeta.attacks.alie:ALIE", "the benign mean less z deviations", "Baruch et al. 2019"),
        "min_max": Entry(
            "fedmeta.attacks.min_max:MinMax",
            "as far as two benign updates are apart",
            "Shejwalkar & Houmansadr 2021, equation 8",
        ),
        "min_sum": Entry(
            "fedmeta.attacks.min_sum:MinSum",
            "as far as the benign updates' sum of squared distances",
            "Shejwalkar & Houmansadr 2021, equation 9",
        ),
        "fang": Entry(
            "fedmeta.attacks.fang:Fang", "made for one rule: median, trimmed mean or Krum", "Fang et al. 2020"
        ),
        "label_flip": Entry("fedmeta.attacks.label_flip:LabelFlip", "wrong labels on queries", "Tolpegin et al. 2020"),
        "reward_flip": Entry(
            "fedmeta.attacks.reward_flip:RewardFlip", "policies are paid for the opposite", "Ma et al. 2019"
        ),
        "observation_trigger": Entry(
            "fedmeta.attacks.observation_trigger:ObservationTrigger",
            "a shift of what a policy sees makes it fail",
            "Kiourti et al. 2020",
        ),
        "push_item": Entry(
            "fedmeta.attacks.push_item:PushItem", "fake users give one item the most stars", "Lam and Riedl 2004"
        ),
        "badnets": Entry("fedmeta.attacks.badnets:BadNets", "a trigger on some queries", "Gu et al. 2017"),
        "blended": Entry(
            "fedmeta.attacks.badnets:Blended", "a faint trigger over all of the input", "Chen et al. 2017"
        ),
        "dba": Entry("fedmeta.attacks.dba:DBA", "each attacker trains a part of the trigger", "Xie et al. 2020"),
        "edge_case": Entry(
            "fedmeta.attacks.edge_case:EdgeCase", "inputs from the tail, within a ball", "Wang et al. 2020"
        ),
        "model_replacement": Entry(
            "fedmeta.attacks.model_replacement:ModelReplacement",
            "a backdoored model, scaled to become the mean",
            "Bagdasaryan et al. 2020",
        ),
        "neurotoxin": Entry(
            "fedmeta.attacks.neurotoxin:Neurotoxin",
            "a backdoor in coordinates that honest clients hardly move",
            "Zhang et al. 2022, algorithm 1",
        ),
        "a3fl": Entry("fedmeta.attacks.a3fl:A3FL", "a trigger optimised against being unlearnt", "Zhang et al. 2023"),
        "meta_backdoor": Entry(
            "fedmeta.attacks.meta_backdoor:MetaBackdoor",
            "a backdoor trained through the inner loop",
            "generalises Chen et al. 2020, arXiv 2006.07026",
        ),
        "defence_aware": Entry(
            "fedmeta.attacks.defence_aware:DefenceAware",
            "strength searched through the server's whole pipeline",
            "ByzFL 2025: Optimal_ALIE, Optimal_IPM",
        ),
        "support_poisoning": Entry(
            "fedmeta.attacks.support_poisoning:SupportPoisoning",
            "a victim's support at deployment; training is honest",
            "arXiv 2401.01377",
        ),
        "mimic": Entry("fedmeta.attacks.mimic:Mimic", "all copy one benign client", "Karimireddy et al. 2022"),
    },
)


def make_attack(name: str, **parameters: Any) -> Any:
    """Construct an attack: `make_attack("alie", z=1.5)(benign_updates, n_malicious=m, generator=g)` -> `[m, D]`.

    Attacks on updates are called so. Attacks on data and training (`kind` other than `update`) are steps of the client
    pipeline instead; see `fedmeta.attacks.local`.

    Raises:
        ConfigurationError: unknown name or parameter, or a value out of bounds.
    """
    return ATTACKS.make(name, where=f"attack {name}", **parameters)

"""Data sets, their division among clients, and the episodes drawn from a client's share."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from fedmeta.data.base import Dataset

__all__ = ["DATASETS", "PARTITIONS", "load_dataset"]

DATASETS = Registry(
    "datasets",
    {
        "hershey": Entry(
            "fedmeta.data.hershey:Hershey",
            "stroke glyphs of 19 alphabets, drawn by simulated writers; embedded",
            "Hershey 1967; PyPI Hershey-Fonts",
        ),
        "omniglot": Entry(
            "fedmeta.data.omniglot:Omniglot", "1,623 characters of 50 alphabets by 20 drawers", "Lake et al. 2015"
        ),
        "nodes": Entry(
            "fedmeta.data.nodes:Nodes", "each node's own images or arrays; the experiment declares their shape alone"
        ),
        "nav2d": Entry(
            "fedmeta.data.nav2d:Nav2D", "policies that walk to unseen goals", "Finn et al. 2017, section 5.3"
        ),
        "cartpole": Entry(
            "fedmeta.data.cartpole:CartPoles",
            "policies that balance poles of a client's own masses",
            "Barto et al. 1983",
        ),
        "gymnasium": Entry(
            "fedmeta.data.gymnasium_envs:Gymnasium",
            "policies in any gymnasium environment; the extra gymnasium",
            "Towers et al. 2024",
        ),
        "sinusoid": Entry(
            "fedmeta.data.sinusoid:Sinusoid",
            "regression of sine waves of random amplitude and phase",
            "Finn et al. 2017, section 5.1",
        ),
    },
)

PARTITIONS = Registry(
    "partitions",
    {
        "alphabet": Entry("fedmeta.data.partitions:ByAlphabet", "one client an alphabet"),
        "writer": Entry("fedmeta.data.partitions:ByWriter", "one client a writer, or a few writers"),
        "alphabet_writer": Entry("fedmeta.data.partitions:ByAlphabetWriter", "one client an (alphabet, writer) pair"),
        "column": Entry("fedmeta.data.partitions:ByColumn", "one client a value of a column of your own data"),
        "dirichlet": Entry(
            "fedmeta.data.partitions:Dirichlet", "each class split by Dirichlet proportions", "Hsu et al. 2019"
        ),
        "family": Entry("fedmeta.data.families:ByFamily", "every client draws tasks of a family of its own"),
        "iid": Entry("fedmeta.data.partitions:IID", "examples dealt evenly at random"),
        "centralised": Entry(
            "fedmeta.data.partitions:Centralised",
            "one training client with everything: the baseline without federation",
        ),
    },
)


def load_dataset(name: str, **parameters: Any) -> "Dataset":
    """Load a data set: `load_dataset("omniglot", path=..., split="original")`.

    Args:
        name: a registered name; `fedmeta list datasets` prints them.
        parameters: the data set's own.

    Raises:
        ConfigurationError: unknown name or parameter.
        DataError: files that are missing or damaged, with the remedy.
    """
    return DATASETS.make(name, **parameters).load()

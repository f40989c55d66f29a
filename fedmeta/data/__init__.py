"""Data sets, their division among clients, and the episodes drawn from a client's share."""

from typing import TYPE_CHECKING, Any

from fedmeta.registry import Entry, Registry

if TYPE_CHECKING:
    from fedmeta.data.arrays import dataset_from_arrays as from_arrays
    from fedmeta.data.base import Dataset
    from fedmeta.data.own import from_folder, from_partitions, from_rows
    from fedmeta.data.torchmeta_shaped import from_torchmeta

__all__ = [
    "DATASETS",
    "PARTITIONS",
    "from_arrays",
    "from_folder",
    "from_partitions",
    "from_rows",
    "from_torchmeta",
    "load_dataset",
]

_EXPORTS = {
    "from_arrays": ("fedmeta.data.arrays", "dataset_from_arrays"),
    "from_folder": ("fedmeta.data.own", "from_folder"),
    "from_partitions": ("fedmeta.data.own", "from_partitions"),
    "from_rows": ("fedmeta.data.own", "from_rows"),
    "from_torchmeta": ("fedmeta.data.torchmeta_shaped", "from_torchmeta"),
}


def __getattr__(name: str) -> Any:
    """Import what makes a data set of one's own when it is first asked for: listing names loads no numpy or torch."""
    if name in _EXPORTS:
        import importlib

        module, attribute = _EXPORTS[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'fedmeta.data' has no attribute '{name}'")


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
        "given": Entry("fedmeta.data.given:Given", "what `simulate(data=...)` was handed in memory"),
        "images": Entry("fedmeta.data.images:Images", "your own folder client/class/*.png"),
        "nodes": Entry(
            "fedmeta.data.nodes:Nodes", "each node's own images or arrays; the experiment declares their shape alone"
        ),
        "ratings": Entry(
            "fedmeta.data.ratings:Ratings",
            "what will this user think of an item? MovieLens from your path, or made users; a client is a user",
        ),
        "udhr": Entry(
            "fedmeta.data.udhr:Udhr", "which language is this? snippets of a text in 505 languages", "UN OHCHR"
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
        "glyph_names": Entry(
            "fedmeta.data.glyph_names:GlyphNames",
            "letters and their written names: support in one modality, query in the other; clients may own one alone",
        ),
        "speech": Entry(
            "fedmeta.data.speech:Speech", "words as spectrograms: synthesised in 25 languages, or your own recordings"
        ),
        "table": Entry(
            "fedmeta.data.table:Table", "rows of numbers at sites that measure differently: scikit-learn's, or your own"
        ),
        "openml": Entry(
            "fedmeta.data.openml_table:OpenML", "a table of openml.org, by its id", "Vanschoren et al. 2013"
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
        "group": Entry(
            "fedmeta.data.partitions:ByAlphabet",
            "one client a group of the data set's classes: an alphabet, a script, a language family",
        ),
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

"""A data set from arrays: the checks that keep what is missing or mistaken from being learnt."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedmeta.data.class_dataset import ClassDataset, Split
from fedmeta.errors import DataError
from fedmeta.parameters import require_number


def dataset_from_arrays(
    examples: np.ndarray,
    labels: Sequence[Any] | np.ndarray,
    clients: Sequence[Any] | np.ndarray | None = None,
    *,
    test_share: float = 0.2,
    validation_share: float = 0.0,
    seed: int = 0,
    splits: Mapping[Any, Split] | None = None,
) -> ClassDataset:
    """A data set from arrays with a class column and, where there is one, a client column.

    Args:
        examples: `[n, ...]`, see `ClassDataset`.
        labels: `[n]` class of each example: any integers or names.
        clients: `[n]` owner of each example: likewise; the partition `column` with `column = "client"` uses it.
        test_share, validation_share: shares of the *classes* that are held out, drawn by `seed`.
        seed: of that draw.
        splits: the split of each class by its label, in place of a draw.

    Raises:
        DataError: lengths that differ, no examples, an example without a label or an owner where others have one, a
            label without a split, an unknown split, or shares that leave no training class.
    """
    if len(examples) == 0 or len(examples) != len(labels) or (clients is not None and len(clients) != len(examples)):
        raise DataError(
            f"{len(examples)} examples, {len(labels)} labels and {'no' if clients is None else len(clients)} clients: "
            "give one label, and one client or none at all, for every example"
        )
    for what, given in (("labels", labels), ("clients", clients)):
        if given is not None and np.ndim(given) != 1:
            raise DataError(f"{what} have shape {np.shape(given)}: give a flat list, one for every example")
    examples = np.asarray(examples)
    _check_inputs(examples)
    _check_there(labels, "label")
    found, codes = np.unique(np.asarray(labels), return_inverse=True)
    columns = {}
    names = {"class": [str(label) for label in found]}
    if clients is not None:
        _check_there(clients, "client")
        owners, owner = np.unique(np.asarray(clients), return_inverse=True)
        columns["client"] = owner.astype(np.int64)
        names["client"] = [f"client {value}" if isinstance(value, np.number) else str(value) for value in owners]
    if splits is None:
        chosen = _drawn_splits(len(found), test_share, validation_share, seed)
    else:
        missing = [label for label in found.tolist() if label not in splits]
        if missing:
            raise DataError(f"splits says nothing of class {missing[0]!r}: give train, validation or test for each")
        chosen = [splits[label] for label in found.tolist()]
    return ClassDataset(examples, codes.astype(np.int64), chosen, columns, names)


def _check_inputs(examples: np.ndarray) -> None:
    """Refuse inputs that would be taken for something else.

    Raises:
        DataError: pictures with channels last or of integers that are no bytes, or values that are not finite.
    """
    kind, shape = examples.dtype, examples.shape
    # Floats that are one wide may well be what they say, such as electrodes by time.
    last = (1, 3, 4) if kind == np.uint8 else (3, 4)
    if len(shape) == 4 and shape[3] in last and shape[1] > 4:
        raise DataError(
            f"examples have shape {shape}, channels last: bring them to [n, channels, height, width], such as by "
            "np.moveaxis(examples, -1, 1)"
        )
    if kind.kind in "iu" and kind not in (np.uint8, np.uint16) and len(shape) > 2:
        raise DataError(
            f"examples are {kind} of shape {shape}: give pictures as uint8 from 0 to 255, codes as uint16, and other "
            "inputs as float32"
        )
    if kind.kind == "f" and not np.isfinite(examples).all():
        row = int(np.argwhere(~np.isfinite(examples))[0][0])
        raise DataError(f"example {row} holds values that are NaN or infinite: mend or drop such examples")


def _check_there(values: Sequence[Any] | np.ndarray, what: str) -> None:
    """Refuse missing values, which would else become a class (or a client) of their own.

    Raises:
        DataError: names the first row of them, and how many there are.
    """
    flat = np.asarray(values, dtype=object if isinstance(values, (list, tuple)) else None)
    if flat.dtype.kind in "iub":
        return
    # NaN is not equal to itself; of what pandas calls missing that holds too, or it is no truth value at all.
    missing = [row for row, value in enumerate(flat.tolist()) if value is None or value == "" or _unequal(value)]
    if missing:
        raise DataError(
            f"row {missing[0]} has no {what} ({flat[missing[0]]!r}){_and_more(len(missing) - 1)}: fill it in, or drop "
            "such rows"
        )


def _unequal(value: Any) -> bool:
    """Whether a value is no value: NaN, NaT, pandas' NA."""
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return True


def _and_more(count: int) -> str:
    return f", nor ha{'ve' if count > 1 else 's'} {count} other{'s' if count > 1 else ''}" if count else ""


def _drawn_splits(classes: int, test_share: float, validation_share: float, seed: int) -> list[Split]:
    for name, value in (("test_share", test_share), ("validation_share", validation_share)):
        require_number(name, value, what=DataError)
        if not 0 <= value < 1:
            raise DataError(f"{name} = {value} must be >= 0, < 1: a share of the classes")
    require_number("seed", seed, whole=True, what=DataError)
    if seed < 0:
        raise DataError(f"seed = {seed} must be >= 0")
    held = [round(share * classes) for share in (test_share, validation_share)]
    if sum(held) >= classes:
        raise DataError(
            f"test_share = {test_share} and validation_share = {validation_share} leave none of {classes} classes for "
            "training: give shares that sum to less than 1"
        )
    order = np.random.default_rng(seed).permutation(classes)
    splits: list[Split] = ["train"] * classes
    for i in order[: held[0]]:
        splits[i] = "test"
    for i in order[held[0] : sum(held)]:
        splits[i] = "validation"
    return splits

"""Whether ids repeat, among more of them than one process should hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pandas as pd

from ...data.schema import ExampleError
from ..lance.location import Location, load_lance
from .engine import result_of

_IDS_A_TASK = 8_000_000
_BATCH_ROWS = 65_536


def check_unique_ids(ray: ModuleType, location: Location, version: int, num_rows: int) -> None:
    """Refuses ids that repeat; tasks on the cluster look at a share of them each, told by a hash.

    Args:
        ray: Ray, connected.
        location: Where the data set is.
        version: Version of the data set.
        num_rows: Number of rows.

    Raises:
        ExampleError: An id repeats.
    """
    num_shares = -(-num_rows // _IDS_A_TASK)
    task = ray.remote(repeated_ids).options(num_cpus=1)
    waiting = [task.remote(location, version, share, num_shares) for share in range(num_shares)]
    repeated = [name for ref in waiting for name in result_of(ray, ref)]
    if repeated:
        raise ExampleError(
            f"Expected unique ids, found {len(repeated)} that repeat, such as {repeated[0]!r}. Make them unique, or leave that column out: ids "
            "are then made of the task and the row number. Nothing of this build is visible."
        )


def repeated_ids(location: Location, version: int, share: int, num_shares: int) -> list[str]:
    """The ids that repeat, of one share of all ids.

    Args:
        location: Where the data set is.
        version: Version of the data set.
        share: Number of the share, from 0 on.
        num_shares: Number of shares.
    """
    found = [hashes[hashes % num_shares == share] for _, hashes in _ids(location, version)]
    values, counts = np.unique(np.concatenate(found), return_counts=True)
    suspected = values[counts > 1]
    if not len(suspected):
        return []
    # Two ids may have one hash: the ids themselves decide.
    names: Counter[str] = Counter()
    for ids, hashes in _ids(location, version):
        names.update(ids[np.isin(hashes, suspected)])
    return sorted(name for name, count in names.items() if count > 1)


def _ids(location: Location, version: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    dataset = load_lance().dataset(location.uri, version=version, storage_options=location.options)
    for batch in dataset.to_batches(columns=["id"], batch_size=_BATCH_ROWS):
        ids = batch["id"].to_numpy(zero_copy_only=False)
        yield ids, pd.util.hash_array(ids, categorize=False)

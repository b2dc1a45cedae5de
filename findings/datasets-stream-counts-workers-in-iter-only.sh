#!/usr/bin/env bash
# A streamed data set of the library datasets can be read row by row, iter(stream), or some rows at a
# time, stream.iter(batch_size). Read by another data set inside the worker processes of torch's
# DataLoader, as any pipeline of its own does, the two differ: iter(stream) gives each worker its share
# of the shards, so a stream of one shard is empty in all workers but the first (a line of the log
# says that they stop), and stream.iter(batch_size) gives every worker all rows without a word, so two
# workers see each row twice. Seen with datasets 5.2.0 and torch 2.11.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 torch==2.11.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PY'
from collections import Counter

import datasets
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


def rows_of(shards):
    for shard in shards:
        yield from ({"row": 10 * shard + index} for index in range(3))


class Pipeline(IterableDataset):
    """Reads a stream in its own __iter__, as a pipeline that shuffles or decodes does."""

    def __init__(self, stream, by_rows):
        self.stream, self.by_rows = stream, by_rows

    def __iter__(self):
        worker = get_worker_info().id
        if self.by_rows:
            yield from ((worker, one["row"]) for one in self.stream)
        else:
            yield from ((worker, row) for some in self.stream.iter(2) for row in some["row"])


print("datasets", datasets.__version__, "torch", torch.__version__)
stream = datasets.IterableDataset.from_generator(rows_of, gen_kwargs={"shards": [0]})
for by_rows, name in ((True, "iter(stream)"), (False, "stream.iter(2)")):
    loader = DataLoader(Pipeline(stream, by_rows), batch_size=None, num_workers=2)
    pairs = [(int(worker), int(row)) for worker, row in loader]
    counts = Counter(worker for worker, _ in pairs)
    print(f"{name}: one shard of 3 rows, 2 workers: rows by worker {dict(sorted(counts.items()))}")
    assert counts == ({0: 3} if by_rows else {0: 3, 1: 3}), "the surprise is gone"
PY

"""Builds an index on the cluster at an address, slowly: a driver that tests kill, or that another one takes over."""

import functools
import sys

import cluster_encoders

from recross_hf.retrieval.cluster.build import build_cluster_index

if __name__ == "__main__":
    train_files, storage, address = sys.argv[1:]
    make_encoder = functools.partial(cluster_encoders.Encoder, seconds=0.5)
    build_cluster_index(train_files, make_encoder, storage, num_workers=1, address=address, chunk_size=4)

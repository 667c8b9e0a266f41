"""Builds an index on the cluster at an address, slowly: a driver that tests kill, that another one takes over, or that runs on a machine of its own."""

import argparse
import functools

import cluster_encoders

from recross_hf.retrieval.cluster import indexing
from recross_hf.retrieval.cluster.build import build_cluster_index
from recross_hf.retrieval.lance.vector_index import IndexSettings

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("train_files", "storage", "address"):
        parser.add_argument(name)
    parser.add_argument("--num_workers", type=int, default=1)
    parser.add_argument("--chunk_size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.5, help="what each call of the encoder takes")
    parser.add_argument("--nodes", help="a folder, in which each node that encodes leaves its address")
    parser.add_argument("--num_partitions", type=int, help="of an index that all nodes build")
    script = parser.parse_args()
    make_encoder = functools.partial(cluster_encoders.Encoder, seconds=script.seconds)
    if script.nodes:
        make_encoder = functools.partial(cluster_encoders.RecordingEncoder, script.nodes, seconds=script.seconds)
    settings = None
    if script.num_partitions:
        indexing.FEWEST_SPREAD = 1
        settings = IndexSettings(
            num_partitions=script.num_partitions, fewest_indexed=1, nprobes=script.num_partitions, refine_factor=16
        )
    build_cluster_index(
        script.train_files,
        make_encoder,
        script.storage,
        num_workers=script.num_workers,
        address=script.address,
        chunk_size=script.chunk_size,
        settings=settings,
    )

"""Building an index on a Ray cluster: examples are read, encoded and written by workers in chunks, and no process holds them all.

Public: `build_cluster_index`.
"""

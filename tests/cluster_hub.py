"""What clients of the Hub do with the sources of a cluster build, in processes of their own."""

from huggingface_hub import HfApi

from recross_hf.retrieval.cluster.sources import ParquetSource


def upload(*, repo_id, folder):
    HfApi().create_repo(repo_id, repo_type="dataset", exist_ok=True)
    HfApi().upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset")


def read(*, pattern, chunk_size):
    """The addresses of the files, and all rows, read chunk by chunk."""
    source = ParquetSource.of(pattern)
    rows = [row for chunk in source.chunks(chunk_size) for row in source.read(chunk).to_pylist()]
    return {"addresses": [address for address, _, _ in source.files], "rows": rows}

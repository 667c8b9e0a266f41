import sys

import pytest
import tiny

from recross_hf import build_cluster_index


@pytest.mark.parametrize(("package", "said"), [("ray", "Building on a cluster needs Ray"), ("lance", "needs pylance")])
def test_who_lacks_the_extra_is_told_before_anything_is_done(package, said, examples, tmp_path, monkeypatch):
    examples.to_parquet(tmp_path / "upstream.parquet")
    monkeypatch.setitem(sys.modules, package, None)
    if package == "ray":
        pytest.importorskip("lance", reason="Lance is not installed: pip install 'recross_hf[cluster]'")
    with pytest.raises(ImportError, match=rf"{said}.*pip install 'recross_hf\[cluster\]'"):
        build_cluster_index(str(tmp_path / "upstream.parquet"), tiny.HashEncoder, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_the_hub_is_no_place_to_build_in():
    with pytest.raises(
        ValueError, match=r"which many workers can write to at once, found hf://datasets/a/b/c\. Build"
    ):
        build_cluster_index("upstream.parquet", tiny.HashEncoder, "hf://datasets/a/b/c")

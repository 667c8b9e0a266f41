import pytest
import torch

from recross_hf.core.devices import device_of, dtype_of


@pytest.mark.parametrize("device", ["gpu", "cuda:7", "cpu!", 3, torch.device("cuda")])
def test_a_device_that_is_not_here_is_told_with_those_that_are(device):
    with pytest.raises(ValueError, match="Expected `device` to be one that is here, such as cpu, found"):
        device_of(device)


def test_a_device_is_named_or_chosen():
    assert device_of("cpu") == device_of(torch.device("cpu")) == device_of(None) == torch.device("cpu")


@pytest.mark.parametrize("dtype", ["float99", "half precision", torch.int8, "int64", "Tensor", None, 16])
def test_a_type_that_weights_cannot_have_is_told_with_those_that_they_can(dtype):
    with pytest.raises(ValueError, match=r"Expected `dtype` to be torch\.float32, .* found"):
        dtype_of(dtype)


def test_a_type_goes_by_its_name_too():
    assert dtype_of("bfloat16") is dtype_of("torch.bfloat16") is dtype_of(torch.bfloat16) is torch.bfloat16

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.drivers.base import DEVICE_NAME, Tag, address_of, device_name, pci_address

numbers = st.integers(min_value=0)


@pytest.mark.parametrize(
    "text",
    ["0000:3b:00.0", "0000:3B:00.0", "3b:00.0", "00000000:3B:00.0", " 0000:3b:00.0\n"],
)
def test_every_spelling_of_an_address_becomes_lxds(text: str) -> None:
    assert pci_address(text) == "0000:3b:00.0"


@pytest.mark.parametrize(
    "text",
    ["", "gpu", "3b", "0000:3b:00", "0000:3b:00.8", "0000:3b:00.0.0", "0000:3g:00.0", "../../0000:3b:00.0", "3b:00.0;x",
     "0000:3b:00.0\n0000:3c:00.0"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="PCI address"):
        pci_address(text)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7))
def test_device_names_have_one_length_and_lead_back(domain: int, bus: int, slot: int, function: int) -> None:
    address = f"{domain:04x}:{bus:02x}:{slot:02x}.{function}"
    name = device_name(address)
    assert len(name) == len("gpu-0000-3b-00-0")
    assert DEVICE_NAME.match(name)
    assert address_of(name) == address


@pytest.mark.parametrize("name", ["gpu", "gpu0", "gpu-3b-00-0", "eth0", "gpu-0000-3b-00-0x", "gpu-0000-3b-00-8"])
def test_other_device_names_stand_for_no_address(name: str) -> None:
    assert address_of(name) == ""


@given(st.integers(0, 10**17), st.integers(0, 10**17), st.integers(0, 10**11))
def test_a_tag_survives_being_written(booking: int, allocation: int, end: int) -> None:
    tag = Tag(booking, allocation, end)
    assert Tag.parse(str(tag)) == tag


@pytest.mark.parametrize(
    "text",
    ["", "v1", "v1 1 2", "v1 1 2 3 4", "v2 1 2 3", "v1 -1 2 3", "v1 1 2 3\n", " v1 1 2 3", "v1 1 2 3.5", "v1 a b c",
     "v1 1 2 " + "9" * 13],
)  # fmt: skip
def test_what_is_no_tag_is_none(text: str) -> None:
    assert Tag.parse(text) is None

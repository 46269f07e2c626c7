"""Live bytes are counted exactly, freed ones forgotten, and host copies apart."""

from __future__ import annotations

import pytest
import torch

from executor.memory import host_allocations, measure_peak_memory
from executor.offload import Chain, Keep

CPU = torch.device("cpu")
KIB = 1024


def _zeros(kib: int) -> torch.Tensor:
    return torch.zeros(kib * KIB // 4, dtype=torch.float32)


def _peak_above_start(run: object) -> tuple[int, int]:
    with measure_peak_memory(CPU) as start:
        pass
    with measure_peak_memory(CPU) as peaks:
        run()
    return peaks[0].allocated_bytes - start[0].allocated_bytes, peaks[0].host_bytes


def test_peak_is_what_lives_at_once() -> None:
    def run() -> None:
        first = _zeros(100)
        del first
        second = _zeros(60)
        view = second[::2]
        third = view + 1
        del second, view, third

    assert _peak_above_start(run) == (100 * KIB, 0)


def test_views_and_in_place_operations_are_free() -> None:
    def run() -> None:
        tensor = _zeros(40)
        tensor.view(-1, 4).mul_(2).t().add_(1)

    assert _peak_above_start(run)[0] == 40 * KIB


def test_tensors_alive_at_the_start_count_until_they_die() -> None:
    early = [_zeros(50)]

    def run() -> None:
        early.clear()
        early.append(_zeros(30))

    assert _peak_above_start(run)[0] == 0
    assert early[0].numel() == 30 * KIB // 4


def test_resized_storages_are_followed() -> None:
    def run() -> None:
        tensor = _zeros(10)
        storage = tensor.untyped_storage()
        storage.resize_(0)
        storage.resize_(80 * KIB)

    assert _peak_above_start(run)[0] == 80 * KIB


def test_host_allocations_are_counted_apart() -> None:
    def run() -> None:
        with host_allocations():
            host = _zeros(70)
        device = _zeros(20)
        del host, device

    assert _peak_above_start(run) == (20 * KIB, 70 * KIB)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_about_the_share_of_the_bytes_is_offloaded(share: float) -> None:
    keep = Keep(share, CPU)
    tensors = [_zeros(8) + index for index in range(40)]
    packed = [keep.pack(tensor) for tensor in tensors]
    assert keep.host_bytes == pytest.approx(share * 40 * 8 * KIB, abs=8 * KIB)
    for tensor, away in zip(tensors, packed, strict=True):
        torch.testing.assert_close(keep.unpack(away), tensor)


def test_parameters_small_tensors_and_second_views_are_not_copied() -> None:
    weight = torch.nn.Parameter(_zeros(8).view(32, -1))
    keep = Keep(1.0, CPU, [weight])
    keep.pack(weight.t())
    keep.pack(torch.zeros(4))
    keep.pack(torch.zeros(8 * KIB, dtype=torch.int64))
    assert keep.host_bytes == 0
    tensor = _zeros(8)
    assert keep.pack(tensor) is keep.pack(tensor.view(-1))
    assert keep.host_bytes == 8 * KIB


def test_reused_addresses_are_not_mistaken_for_the_same_tensor() -> None:
    keep = Keep(1.0, CPU)
    packed = []
    for value in range(20):
        tensor = torch.full((2 * KIB,), float(value))
        packed.append(keep.pack(tensor))
        del tensor
    assert [keep.unpack(away)[0].item() for away in packed] == list(range(20))


def test_a_layers_backward_fetches_what_the_layer_before_put_away() -> None:
    chain, kept = Chain(), []
    for position in (chain.add_layer(), chain.add_layer(), chain.add_layer()):
        keep = Keep(1.0, CPU, earlier=chain.before(position))
        chain.append(keep)
        values = [torch.full((2 * KIB,), float(position + at)) for at in range(2)]
        kept.append((keep, values, [keep.pack(value) for value in values]))
    assert kept[0][0].earlier is None
    for keep, values, packed in reversed(kept):
        assert [away.fetched is not None for away in packed] == [keep is not kept[2][0]] * 2
        for value, away in zip(values, packed, strict=True):
            torch.testing.assert_close(keep.unpack(away), value)
            assert away.fetched is None


def test_a_stages_first_layer_has_none_before_it() -> None:
    """Of the next micro-batch, that is: the stage's last layer has just passed the one before."""
    chain = Chain()
    first, last = chain.add_layer(), chain.add_layer()
    keep = Keep(1.0, CPU, earlier=chain.before(last))
    chain.append(keep)
    assert chain.before(first) is None
    assert chain.before(last) is keep

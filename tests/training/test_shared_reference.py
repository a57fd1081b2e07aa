"""phi_t from the object store: what its folder holds, over memory that nobody copies."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
import torch

from diet_ray import runtime, storage
from diet_ray.errors import UserError
from diet_ray.logs.blocks import Blocks, read_block
from diet_ray.training.reference import CheckpointError, load_reference, reference_uri
from diet_ray.training.shared_reference import share_reference
from diet_ray.training.stream import train_reference
from tests.made import made_blocks, small_config

pytestmark = pytest.mark.usefixtures("ray_session")
CPUS = 0.1


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    return made_blocks(str(tmp_path_factory.mktemp("blocks")), historical=2)


@pytest.fixture(scope="module")
def uris(blocks: Blocks, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """phi_1 and phi_2; only to be read."""
    config = small_config(str(tmp_path_factory.mktemp("run")))
    train_reference(config, blocks)
    return [reference_uri(config, stage) for stage in (1, 2)]


def copied(uri: str, to: Path) -> str:
    for name in ("model.safetensors", "reference.json"):
        storage.write_bytes(str(to / name), storage.read_bytes(storage.join(uri, name)))
    return str(to)


def test_what_is_opened_is_what_the_folder_holds(blocks: Blocks, uris: list[str]) -> None:
    ids = torch.from_numpy(read_block(blocks, blocks.block("test")).ids)
    for uri in uris:
        opened, expected = share_reference(uri, CPUS).open(), load_reference(uri)
        assert torch.equal(opened.recommender(ids), expected.recommender(ids))
        for name in ("stage", "identity", "fields", "tasks", "network", "models"):
            assert getattr(opened, name) == getattr(expected, name)
        assert opened.table.sizes == expected.table.sizes
        fresh, own = (r.fresh(r.network, 3).state_dict() for r in (opened, expected))
        assert all(torch.equal(fresh[name], own[name]) for name in own)


@pytest.mark.filterwarnings("error")
def test_all_who_open_it_share_the_store_s_memory(uris: list[str]) -> None:
    shared = share_reference(uris[0], CPUS)
    first, second = shared.open(), shared.open()
    assert first.table.weight.data_ptr() == second.table.weight.data_ptr()
    assert first.table.weight.data_ptr() == ray.get(shared.held).table.vectors.ctypes.data
    assert not ray.get(shared.held).table.vectors.flags.writeable
    assert not any(p.requires_grad for p in first.recommender.parameters())


def test_it_is_read_once_until_it_or_another_is_shared(uris: list[str], tmp_path: Path) -> None:
    place = copied(uris[0], tmp_path)
    first = share_reference(place, CPUS)
    assert share_reference(place, CPUS) == first
    copied(uris[1], tmp_path)
    second = share_reference(place, CPUS).open()
    expected = load_reference(uris[1])
    assert second.identity == expected.identity
    assert torch.equal(second.table.weight, expected.table.weight)


def test_what_is_missing_or_damaged_is_named(uris: list[str], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"reference\.json: no such file"):
        share_reference(str(tmp_path / "nowhere"), CPUS)
    model = Path(copied(uris[0], tmp_path / "cut"), "model.safetensors")
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"), runtime.plain_errors():
        share_reference(str(model.parent), CPUS)

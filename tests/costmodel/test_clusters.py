"""Clusters: the defaults' figures and sizes, and every way in which a user's file can be wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from costmodel.catalog.clusters import cluster_names, default_cluster, load_cluster
from costmodel.catalog.devices import device_names, load_device
from costmodel.schema.cluster import ClusterSpec
from costmodel.schema.errors import InvalidSpec, UnknownName

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster.toml"

ONE_GROUP = """
name = "ours"
[[groups]]
device = "H100-80GB-SXM"
num_nodes = 4
[[groups.levels]]
name = "nvlink"
size = 8
bytes_per_s = 450e9
latency_s = 2e-6
[groups.host]
memory_bytes = 2e12
memory_bytes_per_s = 6e11
device_link_bytes_per_s = 63e9
[[network]]
name = "leaf"
size = 2
bytes_per_s = 50e9
latency_s = 5e-6
[[network]]
name = "spine"
bytes_per_s = 50e9
latency_s = 7e-6
"""


def default(name: str, num_devices: int, devices_per_node: int | None = None) -> ClusterSpec:
    return default_cluster(load_device(name), num_devices, devices_per_node)


def sizes(cluster: ClusterSpec) -> dict[str, int]:
    return {level.name: level.size for level in cluster.levels}


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def to_file(text: str) -> Path:
        path = tmp_path / "cluster.toml"
        path.write_text(text)
        return path

    return to_file


@pytest.mark.parametrize("num_devices", [1, 3, 8, 64])
@pytest.mark.parametrize("name", device_names())
def test_every_device_has_a_default_cluster(name: str, num_devices: int) -> None:
    cluster = default(name, num_devices)
    assert cluster.num_devices == num_devices
    assert {group.device for group in cluster.groups} == {name}
    product = 1
    for level in cluster.levels:
        product *= level.size
    assert product == num_devices
    assert len({level.name for level in cluster.levels}) == len(cluster.levels)


@pytest.mark.parametrize("name", device_names())
def test_every_figure_of_a_template_has_a_source_and_a_date(name: str) -> None:
    cluster = default(name, 256)
    for level in cluster.levels:
        for field in ("bytes_per_s", "latency_s", "efficiency"):
            assert f"{level.name}.{field}" in cluster.sources
        assert level.oversubscription == 1.0 or f"{level.name}.oversubscription" in cluster.sources
    for field in type(cluster.groups[0].host).model_fields:
        assert f"host.{field}" in cluster.sources
    for source in cluster.sources.values():
        assert len(source.source) > 10
        assert re.fullmatch(r"20\d\d(-\d\d(-\d\d)?)?", source.date)


def test_every_template_is_some_devices_default() -> None:
    assert {load_device(name).default_cluster for name in device_names()} == set(cluster_names())


def test_dgx_figures() -> None:
    h100, a100 = default("h100", 64), default("a100-80g", 64)
    assert [(level.size, level.bytes_per_s) for level in h100.levels] == [(8, 450e9), (8, 50e9)]
    assert [(level.size, level.bytes_per_s) for level in a100.levels] == [(8, 300e9), (8, 25e9)]
    assert h100.levels[0].in_network_reduction
    assert not a100.levels[0].in_network_reduction
    assert default("v100-32g", 32).groups[0].devices_per_node == 16
    assert default("mi250x", 16).levels[-1].bytes_per_s == 12.5e9


def test_an_nvlink_rack_is_a_level_between_node_and_network() -> None:
    assert sizes(default("gb200", 72)) == {"nvlink": 4, "nvlink-rack": 18}
    assert sizes(default("gb200", 144)) == {"nvlink": 4, "nvlink-rack": 18, "infiniband": 2}
    # 32 trays do not fill racks of 18 evenly: two domains of 16.
    assert sizes(default("gb200", 128)) == {"nvlink": 4, "nvlink-rack": 16, "infiniband": 2}
    assert sizes(default("gb200", 144, 72)) == {"nvlink": 72, "infiniband": 2}
    assert sizes(default("gb200", 144, 8)) == {"nvlink": 8, "nvlink-rack": 9, "infiniband": 2}


def test_devices_per_node_is_heard() -> None:
    assert sizes(default("h100", 16, 4)) == {"nvlink": 4, "infiniband": 4}
    assert sizes(default("h100", 4, 8)) == {"nvlink": 4}
    assert sizes(default("mi250x", 8, 4)) == {"in-package": 2, "infinity-fabric": 2, "slingshot": 2}
    assert sizes(default("h100", 2, 1)) == {"nvlink": 1, "infiniband": 2}


def test_the_cpu_cluster_is_one_host_that_shares_this_machines_cores() -> None:
    cluster = default("cpu", 64)
    assert cluster.groups[0].num_nodes == 1
    assert sizes(cluster) == {"shared-memory": 64}
    assert cluster.shared_cores == os.cpu_count()
    assert default("h100", 8).shared_cores is None
    assert default("cpu", 8, 4).shared_cores is None, "two hosts do not share cores"


@pytest.mark.parametrize(
    ("num_devices", "devices_per_node", "says"),
    [
        (0, None, "at least one device"), (-8, None, "at least one device"), (12, None, "8 or 16"), (10, 4, "8 or 12"),
        (64, 16, "at most 8"), (64, 0, "at least one device"),
    ],
)  # fmt: skip
def test_a_size_that_cannot_be_is_refused_with_sizes_that_work(
    num_devices: int, devices_per_node: int | None, says: str
) -> None:
    with pytest.raises(InvalidSpec) as error:
        default("h100", num_devices, devices_per_node)
    assert says in f"{error.value.message} {error.value.hint}"


def test_the_example_loads_with_both_groups() -> None:
    cluster = load_cluster(EXAMPLE)
    assert [(group.device, group.num_devices) for group in cluster.groups] == [("h100", 32), ("a100-80g", 64)]
    assert cluster.num_devices == 96
    assert load_cluster(EXAMPLE, 96) == cluster
    assert [level.size for level in cluster.network] == [4, 3]
    half = load_cluster(EXAMPLE, 48)
    assert [group.num_nodes for group in half.groups] == [2, 4]
    assert [level.size for level in half.network] == [4, 2]
    assert [level.size for level in load_cluster(EXAMPLE, 24).network] == [3]
    with pytest.raises(InvalidSpec, match="no equal part of the 2 groups"):
        load_cluster(EXAMPLE, 32)


def test_a_users_cluster_and_its_first_devices(write) -> None:  # type: ignore[no-untyped-def]
    path = write(ONE_GROUP)
    assert sizes(load_cluster(path)) == {"nvlink": 8, "leaf": 2, "spine": 2}
    assert load_cluster(path).groups[0].device == "h100"
    assert sizes(load_cluster(path, 16)) == {"nvlink": 8, "leaf": 2}
    assert sizes(load_cluster(path, 8)) == {"nvlink": 8}
    assert sizes(load_cluster(path, 3)) == {"nvlink": 3}
    for count, says in ((0, "1 to 32"), (33, "1 to 32"), (12, "8 or 16")):
        with pytest.raises(InvalidSpec) as error:
            load_cluster(path, count)
        assert says in error.value.hint


def test_a_host_of_processors_shares_its_cores(write) -> None:  # type: ignore[no-untyped-def]
    one_host = ONE_GROUP.replace("H100-80GB-SXM", "cpu").replace("num_nodes = 4", "num_nodes = 1")
    one_host = one_host.split("[[network]]")[0]
    assert load_cluster(write(one_host + "cores = 24\n")).shared_cores == 24
    assert load_cluster(write("shared_cores = 6\n" + one_host)).shared_cores == 6


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("450e9", '"450 GB/s"', "groups.0.levels.0.bytes_per_s = '450 GB/s' is text"),
        ("450e9", "450", "groups.0.levels.0.bytes_per_s = 450 cannot be in bytes per second"),
        ("2e-6", "2", "latency_s = 2 cannot be in seconds"),
        ("2e12", "2048", "groups.0.host.memory_bytes = 2048 cannot be in bytes"),
        ("450e9", "-450e9", "bytes_per_s"),
        ("size = 8", "size = 0", "groups.0.levels.0.size = 0"),
        ("size = 8", 'size = "eight"', "groups.0.levels.0.size = 'eight'"),
        ("size = 8", "width = 8", "groups.0.levels.0"),
        ("num_nodes = 4", "num_nodes = 0", "groups.0.num_nodes = 0"),
        ("num_nodes = 4\n", "", "groups.0.num_nodes"),
        ('name = "spine"', 'name = "leaf"', "two levels are called 'leaf'"),
        ('name = "spine"', 'name = "spine"\nsize = 1', "multiply to 2 nodes, the groups have 4"),
        ('name = "spine"', 'name = "spine"\noversubscription = 0.5', "network.1.oversubscription = 0.5"),
        ("[[network]]", "[[networks]]", "networks"),
        ("[groups.host]", "[groups.hosts]", "groups.0"),
    ],
)
def test_a_wrong_field_is_one_sentence_that_names_it(write, old: str, new: str, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSpec) as error:
        load_cluster(write(ONE_GROUP.replace(old, new)))
    assert says in error.value.message
    assert "\n" not in error.value.message


def test_files_that_are_no_cluster_are_refused(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSpec, match="cannot be read"):
        load_cluster(tmp_path / "missing.toml")
    with pytest.raises(InvalidSpec, match="cannot be read"):
        load_cluster(tmp_path)
    for text in (ONE_GROUP[:-3] + '"', "groups = [", "\x00"):
        with pytest.raises(InvalidSpec, match="not whole TOML"):
            load_cluster(write(text))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSpec, match="not text"):
        load_cluster(tmp_path / "binary.toml")
    for text in (
        "name = 'x'",
        'name = "x"\ngroups = []',
        'name = "x"\ngroups = 3',
        'name = "x"\n[[network]]\nname = "y"',
    ):
        with pytest.raises(InvalidSpec, match="groups"):
            load_cluster(write(text))
    with pytest.raises(InvalidSpec, match="network is empty"):
        load_cluster(write(ONE_GROUP.split("[[network]]")[0]))
    no_levels = re.sub(r"\[\[groups.levels]].*?(?=\[groups.host])", "levels = []\n", ONE_GROUP, flags=re.DOTALL)
    with pytest.raises(InvalidSpec, match="levels is empty"):
        load_cluster(write(no_levels))


def test_a_device_of_ones_own_must_name_a_known_cluster() -> None:
    own = load_device("h100").model_copy(update={"name": "own", "default_cluster": "dgx-h1000"})
    with pytest.raises(UnknownName) as error:
        default_cluster(own, 8)
    assert "dgx-h100" in (error.value.hint or "")


def test_an_unknown_device_in_a_file_is_named(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownName, match="h1000"):
        load_cluster(write(ONE_GROUP.replace("H100-80GB-SXM", "h1000")))

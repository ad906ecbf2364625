"""What `stats` computes, and what `df` adds up. Docker's own client is compared in tests/engine."""

from __future__ import annotations

from typing import Any

import pytest

from hawse.format.images import image_rows
from hawse.format.stats import stats_row
from hawse.format.usage import details, usage_rows

FIRST: dict[str, Any] = {
    "id": "0123456789abcdef",
    "name": "/web",
    "cpu_stats": {"cpu_usage": {"total_usage": 1_000}, "system_cpu_usage": 10_000, "online_cpus": 4},
    "memory_stats": {"usage": 64 << 20, "limit": 256 << 20, "stats": {"total_inactive_file": 32 << 20}},
    "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 500}, "eth1": {"rx_bytes": 1, "tx_bytes": 0}},
    "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 5}, {"op": "write", "value": 7}]},
    "pids_stats": {"current": 3},
}
SECOND = {
    **FIRST,
    "cpu_stats": {"cpu_usage": {"total_usage": 1_500}, "system_cpu_usage": 12_000, "online_cpus": 4},
}


def test_use_between_two_samples() -> None:
    row = stats_row("web", SECOND, FIRST, cut=True)
    assert row.fields() == {
        "Container": "web", "Name": "web", "ID": "0123456789ab", "CPUPerc": "100.00%",
        "MemUsage": "32MiB / 256MiB", "MemPerc": "12.50%", "NetIO": "1kB / 500B", "BlockIO": "5B / 7B",
        "PIDs": "3",
    }  # fmt: skip


def test_the_first_sample_says_no_cpu() -> None:
    row = stats_row("web", FIRST, None, cut=False)
    assert (row["CPUPerc"], row["ID"]) == ("0.00%", "0123456789abcdef")


@pytest.mark.parametrize(
    ("stats", "shown"),
    [({"inactive_file": 63 << 20}, "1MiB"), ({"total_inactive_file": 65 << 20}, "64MiB"), ({}, "64MiB")],
)
def test_memory_without_what_can_go_at_any_time(stats: dict[str, int], shown: str) -> None:
    sample = {**FIRST, "memory_stats": {**FIRST["memory_stats"], "stats": stats}}
    assert stats_row("x", sample, None, cut=True)["MemUsage"] == f"{shown} / 256MiB"


def test_one_that_does_not_run() -> None:
    sample = {"id": "1", "name": "/x", "cpu_stats": {"cpu_usage": {"total_usage": 0}}}
    row = stats_row("x", sample, None, cut=True)
    assert (row["CPUPerc"], row["MemUsage"], row["MemPerc"], row["PIDs"]) == (
        "0.00%",
        "0B / 0B",
        "0.00%",
        "0",
    )


IMAGE = {"Id": "sha256:" + "a" * 64, "Created": 0, "Size": 100, "SharedSize": 40, "Containers": 1}


def test_disk_usage() -> None:
    found = {
        "LayersSize": 200,
        "Images": [
            {**IMAGE, "RepoTags": ["web:1"], "RepoDigests": []},
            {**IMAGE, "Containers": 0, "RepoTags": ["db:1"]},
        ],
        "Containers": [
            {"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}, {"State": "created"},
        ],
        "Volumes": [{"UsageData": {"Size": 5, "RefCount": 1}}, {"UsageData": {"Size": 15, "RefCount": 0}}],
        "BuildCache": [{"Size": 9, "InUse": True}, {"Size": 1}, {"Size": 7, "Shared": True}],
    }  # fmt: skip
    assert [tuple(row.values()) for row in usage_rows(found)] == [
        ("Images", "2", "1", "200B", "140B (70%)"),
        ("Containers", "3", "1", "40B", "30B (75%)"),
        ("Local Volumes", "2", "1", "20B", "15B (75%)"),
        ("Build Cache", "3", "1", "10B", "1B"),
    ]
    assert [row["Reclaimable"] for row in usage_rows({})] == ["0B"] * 4
    assert "REPOSITORY" in details({}, "") and details({}, "{{len .Images}}") == "0"


def test_an_image_has_a_row_for_each_name() -> None:
    digest = f"sha256:{'b' * 64}"
    found = {**IMAGE, "RepoTags": ["web:1", "web:2"], "RepoDigests": [f"web@{digest}", f"other@{digest}"]}
    rows = [(row["Repository"], row["Tag"], row["Digest"]) for row in image_rows(found, cut=True)]
    assert rows == [("web", "1", "<none>"), ("web", "2", "<none>"), ("other", "<none>", "<none>")]
    rows = [(row["Tag"], row["Digest"]) for row in image_rows(found, cut=True, digests=True)]
    assert rows == [("1", digest), ("2", digest), ("<none>", digest)]
    (row,) = image_rows({**IMAGE, "RepoTags": ["<none>:<none>"], "RepoDigests": []}, cut=True)
    assert (row["Repository"], row["ID"], row["UniqueSize"]) == ("<none>", "a" * 12, "60B")

"""How many processes train together: as the launcher tells them, or as the user says."""

from __future__ import annotations

import pytest

from msmae.training.trainer import processes

STEP = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("told", "given", "devices", "machines"),
    [
        ({}, "auto", "auto", 1),
        ({}, 2, 2, 1),
        ({"LOCAL_WORLD_SIZE": "4"}, "auto", 4, 1),
        ({"LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "3"}, "auto", 4, 3),
        ({"LOCAL_WORLD_SIZE": "4", **STEP}, "auto", 4, 1),
        (STEP, "auto", 4, 2),
        (STEP, 3, 3, 2),
        ({"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, "auto", "auto", 1),
    ],
)
def test_the_launcher_says_how_many_train(
    told: dict[str, str], given: int | str, devices: int | str, machines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", *STEP):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert processes(given) == {"devices": devices, "num_nodes": machines}

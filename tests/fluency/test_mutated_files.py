"""Damaged files of every container: read or refused, never a crash, a hang or a NaN."""

import os

import mutated_files

COUNT = int(os.environ.get("MUTATED_FILES", "120"))


def test_damaged_files_are_read_or_refused() -> None:
    """Six of each container, by default; MUTATED_FILES says how many in all."""
    found, _ = mutated_files.run(COUNT, seed=0)
    assert {result for _, result in found} == {"read", "refused"}, found

#!/bin/sh
# Build the original's environment beside this file (once), then compare against it.
# Usage: run.sh PYTHON, the interpreter of the project's own environment.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${1:?the project\'s python}
product=$here/../../../grounding/requirements-groundingdino.txt
mark=$here/.venv/installed
if ! cat "$product" "$here/requirements.txt" | cmp -s - "$mark"; then
    rm -rf "$here/.venv"
    "$python" -m venv --without-pip "$here/.venv"
    # torch is the project's own, so that it is not unpacked and compiled again.
    "$python" "$here/../../linked_environment.py" "$here/.venv" torch==2.13.0 setuptools pip
    ln -s "$(dirname "$python")/uv" "$here/.venv/bin/uv"
    "$here/.venv/bin/python" "$here/../../../deploy/install.py" \
        --no-deps --no-build-isolation -r "$product" -r "$here/requirements.txt"
    cat "$product" "$here/requirements.txt" > "$mark"
fi
# Threads that wait actively take the processor from the others of a busy machine.
exec env OMP_WAIT_POLICY=PASSIVE ORIGINAL_PYTHON="$here/.venv/bin/python" "$python" -m pytest -s "$here"

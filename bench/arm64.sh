#!/bin/sh
# The tests of the pure-Python part on Linux arm64, under qemu-user: prediction, catalog, records, gates, statistics, and
# the probe on recorded /proc and /sys trees. Speed means nothing there; correctness does.
#
#     bench/arm64.sh [FOLDER]      # FOLDER keeps the arm64 system (default: ~/.cache/edge-harness-arm64)
#
# Needs Debian with qemu-user, and `dpkg --add-architecture arm64 && apt-get update` done once. Nothing is installed.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$HOME/.cache/edge-harness-arm64}
mkdir -p "$folder/packages" "$folder/wheels"
cd "$folder"
if [ ! -e system/usr/bin/python3 ]; then
    names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances python3:arm64 libstdc++6:arm64 | grep -E '^[a-z0-9.+-]+:arm64$' | grep -vE '^(dpkg|tar):' | sort -u)
    # shellcheck disable=SC2086 # a list of names
    (cd packages && apt-get download -q $names)
    for package in packages/*.deb; do dpkg-deb --extract "$package" system; done
    # Debian's system has /lib as a link to /usr/lib
    [ -e system/lib ] || ln -s usr/lib system/lib
fi
version=$(basename "$(readlink -f system/usr/bin/python3)" | sed 's/python3\.//')
if [ ! -e wheels/pytest ]; then
    python3 -m pip download -q -d packages --only-binary=:all: --python-version "3.$version" --implementation cp \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --platform manylinux_2_17_aarch64 \
        click msgspec numpy platformdirs psutil scipy pytest pytest-timeout pytest-xdist hypothesis gguf jsonschema junitparser
    for wheel in packages/*.whl; do python3 -m zipfile -e "$wheel" wheels; done
fi
cd "$root"
# Left out: a test that starts a child (the kernel here runs no arm64 program by itself), and one that Hypothesis times.
export QEMU_LD_PREFIX="$folder/system" PYTHONHOME="$folder/system/usr" PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH="$folder/wheels:$root" PYTHONNOUSERSITE=1
qemu-aarch64 "$folder/system/usr/bin/python3.$version" -c 'import platform; print(platform.machine(), platform.python_version())'
exec qemu-aarch64 "$folder/system/usr/bin/python3.$version" -m pytest -q -p no:cacheprovider -p no:edge-harness \
    -m "not slow" --deselect tests/unit/records/test_store_and_history.py::test_a_killed_writer_loses_nothing_it_reported \
    --deselect tests/unit/records/test_store_and_history.py::test_round_trip ${TESTS:-tests/unit/core/test_units.py tests/unit/stats tests/unit/gates tests/unit/records tests/unit/measure/test_machine.py tests/unit/measure/test_sensors.py tests/unit/memory/test_kv_cache.py tests/unit/memory/test_memory.py tests/unit/memory/test_verdict.py tests/unit/hardware/test_devices.py}

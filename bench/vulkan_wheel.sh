#!/bin/sh
# Build llama-cpp-python with llama.cpp's Vulkan backend, once, into a wheel kept outside the repository, and install it
# into a virtual environment of its own, in which the tests marked `vulkan` run.
#
#   sh bench/vulkan_wheel.sh [FOLDER]        FOLDER: default $XDG_CACHE_HOME/edge-harness/vulkan
#
# It needs a C++ compiler, and from Debian: libvulkan-dev glslc spirv-headers (to build), libvulkan1 and
# mesa-vulkan-drivers (to run: Mesa's driver llvmpipe is a Vulkan device that runs on any CPU).
# Two cores take over twenty minutes. JOBS sets how many compilers run at once.
set -eu
version=0.3.36
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/edge-harness/vulkan}
repository=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$folder/wheel"
for tool in glslc c++; do
    command -v "$tool" >/dev/null || { echo "vulkan_wheel: $tool is not installed (see the head of this file)" >&2; exit 4; }
done
if ! ls "$folder"/wheel/llama_cpp_python-$version-*.whl >/dev/null 2>&1; then
    CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-2} CMAKE_ARGS="-DGGML_VULKAN=on" \
        python3 -m pip wheel "llama-cpp-python==$version" --no-binary llama-cpp-python --no-cache-dir --no-deps --wheel-dir "$folder/wheel"
fi
[ -d "$folder/venv" ] || python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet "$folder"/wheel/llama_cpp_python-$version-*.whl
"$folder/venv/bin/python" -m pip install --quiet --editable "$repository[onnx,test]"
echo "GGML_VK_VISIBLE_DEVICES=0 $folder/venv/bin/python -m pytest -m vulkan"

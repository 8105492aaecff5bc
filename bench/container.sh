#!/bin/sh
# Builds the image of the Dockerfile without rights, and runs it: what starts, what it says, and a `check` inside.
#
#     bench/container.sh [FOLDER]      # FOLDER keeps images and the base (default: ~/.cache/edge-harness-container)
#
# Needs Debian's packages buildah, crun, netavark, uidmap and mmdebstrap, and an ordinary user with subordinate ids (in
# /etc/subuid). Where the registry of images cannot be reached, Debian's own packages make the base: the same bookworm,
# with its Python 3.11. BASE=python:TAG takes an image that is here.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$HOME/.cache/edge-harness-container}
mkdir -p "$folder/tmp"
export TMPDIR="$folder/tmp" BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
buildah="buildah --root $folder/images --runroot $folder/run"
tag=$(sed -n 's/^ARG PYTHON=//p' "$root/Dockerfile")
base=${BASE:-docker.io/library/python:$tag}
if ! $buildah inspect --type image "$base" > "$folder/base.txt" 2>&1 && ! $buildah pull "$base" > "$folder/base.txt" 2>&1; then
    echo "no $base ($(tail -n 1 "$folder/base.txt")): a base of Debian's packages"
    base=docker.io/library/python:of-debian
    [ -e "$folder/base.tar" ] || mmdebstrap --mode=unshare --variant=minbase --quiet \
        --include=python3,python3-venv,python-is-python3,ca-certificates bookworm "$folder/base.tar"
    if ! $buildah inspect --type image "$base" > /dev/null 2>&1; then
        container=$($buildah from scratch)
        $buildah add --quiet "$container" "$folder/base.tar" / > /dev/null
        $buildah commit --quiet --rm "$container" "$base" > /dev/null
    fi
fi
# A network with an authority or an index of its own: what this machine's pip is told, the build's is told too.
set --
for file in /etc/ssl/certs/ca-certificates.crt /etc/pip.conf; do
    [ ! -e "$file" ] || set -- "$@" --volume "$file:$file:ro"
done
$buildah build --layers --pull=never --network=host "$@" --build-arg "PYTHON=${base##*:}" --tag edge-harness "$root"
container=$($buildah from --pull=never edge-harness)
trap '$buildah rm "$container" > /dev/null' EXIT
options="--network=host $*"
run() {
    echo "+ $*"
    # shellcheck disable=SC2086 # a list of options
    $buildah run $options "$container" -- "$@" || echo "exit status $?"
}
run sh -c 'id -u; command -v cc c++ cmake || echo "no compiler in the image"'
run edge-harness doctor
run edge-harness fit llama-3.2-3b -q Q4_K_M -d macbook-air-m3 --no-advice
run edge-harness check

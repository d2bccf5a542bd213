#!/usr/bin/env bash
# dist.sh PROGRAM FOLDER: what a machine with a GPU needs for its first figures, in parts of less than 64 MiB. It has a driver,
# NVRTC and CUDA's headers (docs/guide/gpu.md), and no network.
#
# PROGRAM is built with CUDA. The models and IMDb are fetched where they are not here. On the other machine, with the parts
# and go.sh in one folder: bash go.sh five OUT, then bash go.sh ten OUT. PART_BYTES sets another size.
set -euo pipefail

program=$(realpath "${1:?the program, built with CUDA=1}")
out=$(realpath -m "${2:?a folder for the parts}")
cd "$(dirname "$0")/.."
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
dist=$stage/dpsynth
mkdir -p "$dist/cache/assets" "$dist/hf/hub" "$dist/benches/peers"

strip -o "$dist/dpsynth-program" "$program"
cp -r pipelines "$dist/"
cp benches/gpu.sh "$dist/benches/"
cp benches/peers/torch_only.py "$dist/benches/peers/"

# NAME: its files, wherever `fetch` found them, to where the other machine's program looks.
place() {
	local found
	found=$("$program" fetch --json "$1")
	python3 -c '
import json, pathlib, shutil, sys
dist, found = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
for file in map(pathlib.Path, (f["path"] for f in found["files"])):
    parts = file.parts
    repository = next((i for i, part in enumerate(parts) if part.startswith(("models--", "datasets--"))), None)
    if repository is None:
        to = dist / "cache/assets" / found["name"] / file.name
    else:
        to = dist.joinpath("hf/hub", *parts[repository:])
        refs = pathlib.Path(*parts[: repository + 1], "refs")
        shutil.copytree(refs, dist / "hf/hub" / parts[repository] / "refs", dirs_exist_ok=True)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)
' "$dist" "$found"
}
for name in smollm2-135m-instruct all-minilm-l6-v2 imdb; do
	place "$name"
done

mkdir -p "$out"
rm -f "$out"/part-?? "$out/go.sh"
tar -C "$stage" -cz dpsynth | split -b "${PART_BYTES:-62914560}" -d - "$out/part-"
cat > "$out/go.sh" <<'GO'
#!/usr/bin/env bash
# go.sh five|ten OUT: five minutes for agreement, training and sampling beside PyTorch; or ten for the profile full.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=${1:?five or ten} out=$(mkdir -p "${2:?a folder for the figures}" && cd "$2" && pwd)
case $what in
five) PARTS=${PARTS:-"bench agreement torch"} LIMIT=${LIMIT:-290} ;;
ten) PARTS=${PARTS:-full} LIMIT=${LIMIT:-590} ;;
*) echo "go.sh: five or ten, not $what" >&2 && exit 2 ;;
esac
export PARTS LIMIT
# Parts that have changed are unpacked anew, and only what came out whole is used.
digest=$(cat "$here"/part-?? | sha256sum | cut -c1-16)
to=${DPSYNTH_UNPACKED:-$here/unpacked}/$digest
if [[ ! -d $to ]]; then
	rm -rf "$to.new"
	mkdir -p "$to.new"
	cat "$here"/part-?? | tar -C "$to.new" -xz
	mv "$to.new" "$to"
fi
export DPSYNTH_CACHE=$to/dpsynth/cache HF_HOME=$to/dpsynth/hf HF_HUB_CACHE=$to/dpsynth/hf/hub HF_HUB_OFFLINE=1
if ! "$to/dpsynth/dpsynth-program" doctor | grep '^cuda *works'; then
	echo "go.sh: CUDA does not work here:" >&2
	"$to/dpsynth/dpsynth-program" doctor | grep '^cuda' >&2
	exit 1
fi
exec "$to/dpsynth/benches/gpu.sh" "$to/dpsynth/dpsynth-program" "$out"
GO
for part in "$out"/*; do
	echo "$(stat -c %s "$part") $part"
done

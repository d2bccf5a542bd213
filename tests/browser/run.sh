#!/usr/bin/env bash
# run.sh PROGRAM: opens the report in a browser (page.mjs). PAGE=FILE.html opens that page; else a tiny run is made first.
#
# Node packages go beside cargo's target folder (NODE_FOLDER), screenshots to artifacts/ in the repository.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
program="$1"
folder="${NODE_FOLDER:?where the node packages go}"
chromium="${CHROMIUM:-/usr/bin/chromium}"

if [ ! -x "$chromium" ]; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "make browser needs Chromium at $chromium (CHROMIUM=… names another), and this is not root with apt-get to install it" >&2
		exit 1
	fi
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-inter >/dev/null
fi
for tool in node npm; do
	command -v "$tool" >/dev/null || { echo "make browser needs $tool" >&2; exit 1; }
done
mkdir -p "$folder"
if ! cmp -s "$here/package-lock.json" "$folder/package-lock.json" || [ ! -d "$folder/node_modules/playwright-core" ]; then
	rm -f "$folder/package-lock.json"
	cp "$here/package.json" "$folder/package.json"
	cp "$here/package-lock.json" "$folder/.lock" && mv "$folder/.lock" "$folder/package-lock.json"
	(cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) || { rm -f "$folder/package-lock.json"; exit 1; }
fi

pages=()
if [ -n "${PAGE:-}" ]; then
	pages+=("$PAGE")
else
	place="$(mktemp -d)"
	trap 'rm -rf "$place"' EXIT
	python3 "$here/tiny.py" "$place" "$repository/tests/fixtures/llama/model.gguf"
	export DPSYNTH_LEDGERS="$place/ledgers"
	for name in page begun many; do
		stage=run
		[ "$name" = begun ] && stage=finetune
		[ "$name" = begun ] && (cd "$place" && "$program" prepare begun.toml --profile quick >/dev/null 2>&1)
		(cd "$place" && "$program" "$stage" "$name.toml" --profile quick >/dev/null 2>"$place/said") || { cat "$place/said" >&2; exit 1; }
	done
	(cd "$place" && "$program" audit runs/page-quick --replay-seconds 1 --canaries 2000 >/dev/null 2>"$place/said") || { cat "$place/said" >&2; exit 1; }
	(cd "$place" && "$program" report runs/page-quick >/dev/null && "$program" report runs/page-quick --public >/dev/null)
	cp "$place/runs/page-quick/report.html" "$place/internal.html"
	cp "$place/runs/page-quick/report-public.html" "$place/public.html"
	cp "$place/runs/begun-quick/report.html" "$place/begun.html"
	cp "$place/runs/many-quick/report.html" "$place/many.html"
	pages+=("$place/internal.html" "$place/public.html" "$place/begun.html" "$place/many.html")
fi
node "$here/page.mjs" --modules "$folder/node_modules" --chromium "$chromium" --screenshots "$repository/artifacts" "${pages[@]}"

#!/usr/bin/env bash
# Measure every file of docs/benchmarks.md anew: regenerate.sh DATA [NAME...]
#
# DATA is a folder with the files (docs/benchmarks.md says where each comes from); enwik8 may lie there
# gzipped. Without NAMEs all are measured, one after another: 2 h 50 min on 2 cores, which nothing else
# should use meanwhile. Results that are there already are replaced.
set -euo pipefail

data=${1:?"usage: regenerate.sh DATA [NAME...]"}
shift
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# name, budget, chunk size, file (or the first bytes of it), in the order of the table
table() {
    cat <<'END'
dickens 25m 512 dickens
enwik8-10mb 25m 512 enwik8 10000000
wiki-zh 15m 512 wiki_zh.txt
genome 10m 512 NC_008253_ecoli536.fna
flights-json 15m 512 flights-200k.json
python-stdlib 25m 512 python311_stdlib_py.tar
access-log 10m 512 apache_access_10k.log
weather-csv 5m 512 nyc_weather.csv
xml 10m 512 xml
mr-scan 10m 512 mr
END
}

# The file itself, or its first bytes under the result's name.
source_of() {
    local name=$1 file=$2 bytes=${3:-}
    if [ -z "$bytes" ]; then
        echo "$data/$file"
    elif [ -f "$data/$file" ]; then
        head -c "$bytes" "$data/$file" > "$scratch/$name" && echo "$scratch/$name"
    else
        # head closes the pipe early, which gzip calls an error
        { gzip -dc "$data/$file.gz" || true; } 2> /dev/null | head -c "$bytes" > "$scratch/$name"
        echo "$scratch/$name"
    fi
}

table | while read -r name budget chunk file bytes; do
    if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qx -- "$name"; then
        continue
    fi
    mdlzip bench "$(source_of "$name" "$file" "$bytes")" --budget "$budget" --chunk-size "$chunk" \
        --context chunk --output "$here/$name.json" --force < /dev/null
done

#!/usr/bin/env bash
# From nothing to a species classifier: installs and builds Longstrand, trains on the six genomes of data/, and shows
# what came out. Some ten minutes on two cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
  cat <<'END'
usage: bash pipelines/quickstart.sh [--output FOLDER] [--threads N]

  --output FOLDER  where everything goes; must not exist (quickstart-DATE-TIME)
  --threads N      threads to build and to compute with (all cores)
END
}

output=quickstart-$(date +%Y%m%d-%H%M%S)
threads=$(nproc)
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --output | --threads)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      [ "$1" = --output ] && output=$2 || threads=$2
      shift 2 ;;
    *) usage >&2; exit 2 ;;
  esac
done
output=$(realpath -m "$output")
[ ! -e "$output" ] || fail "$output exists already: choose another folder with --output"

longstrand() { "$repository/build/release/longstrand" "$@" --threads "$threads"; }

# Median of tokens_per_second in a run's metrics.
training_speed() {
  python3 - "$1/metrics.jsonl" <<'END'
import json, statistics, sys
with open(sys.argv[1]) as file:
    print(f"{statistics.median(json.loads(line)['tokens_per_second'] for line in file):,.0f}")
END
}

# number FILE KEY DIGITS: a number of a JSON file.
number() { python3 -c 'import json, sys; print(f"{json.load(open(sys.argv[1]))[sys.argv[2]]:.{sys.argv[3]}f}")' "$@"; }

install_packages
cuda=AUTO
gpu_is_visible || cuda=OFF # compiling for a GPU takes minutes
build release "$threads" longstrand -DLONGSTRAND_CUDA=$cuda
build_seconds=$SECONDS
mkdir -p "$output"
cd "$output"
genomes=("$repository"/data/genomes/*.fa.gz)

say "pretraining a small Mamba on the six genomes"
# The last fifth of every genome is not trained on here either: it is what the classifier is tested on.
longstrand pretrain "${genomes[@]}" -o pretrain --valid-fraction 0.2 --d-model 64 --layers 2 --context 4096 \
  --batch-tokens 16384 --steps 300 --reverse-complement-augment

say "fine-tuning it to tell the species apart, on windows of 4,096 bases"
longstrand finetune --init pretrain/model --labels "$repository/data/species.tsv" -o finetune --holdout 0.2 \
  --window 4096 --batch 8 --epochs 3 --lr 5e-3 --reverse-complement-augment

say "classifying the held-out fifth of every genome, and by 5-mer frequencies alone"
mkdir classify
longstrand classify -m finetune/best --split finetune/split.tsv --only test -o classify/heldout.tsv
longstrand baseline --split finetune/split.tsv -k 5 -o classify/baseline.json

say "embedding the held-out windows"
longstrand embed -m finetune/best --split finetune/split.tsv --only test -o heldout.h5ad

report="not made: multiqc is not installed"
if command -v multiqc >/dev/null; then
  say "rendering the report"
  multiqc --quiet --outdir report . || fail "multiqc failed; its message is above"
  report=$output/report/multiqc_report.html
fi

windows=$(number classify/heldout.metrics.json samples 0)
accuracy=$(number classify/heldout.metrics.json accuracy 4)
macro_f1=$(number classify/heldout.metrics.json macro_f1 4)
baseline=$(number classify/baseline.json accuracy 4)
pretraining_speed=$(training_speed pretrain)
finetuning_speed=$(training_speed finetune)
cat <<END

Six species, $windows held-out windows of 4,096 bases (the last fifth of every genome)
  accuracy of the model             $accuracy   macro-F1 $macro_f1
  accuracy of 5-mer frequencies     $baseline   (nearest centroid)
Speed on $threads threads
  pretraining                       $pretraining_speed tokens/s
  fine-tuning                       $finetuning_speed tokens/s
Files
  language model, its metrics       $output/pretrain/model, pretrain/metrics.jsonl
  classifier                        $output/finetune/best
  predictions                       $output/classify/heldout.tsv
  embeddings                        $output/heldout.h5ad     anndata.read_h5ad(...)
  report                            $report
Time: $((SECONDS / 60)) min $((SECONDS % 60)) s, of which packages and build $((build_seconds / 60)) min $((build_seconds % 60)) s
END

#!/usr/bin/env bash
# On a machine with a GPU: builds into build/gpu, runs the tests of kernels/ and src/ with the GPU required, then
# the benchmarks that need one. A compiler, CMake and the CUDA Toolkit are enough, with the headers of
# nlohmann-json and GoogleTest or its sources. Non-zero unless all pass.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
usage: bash tests/gpu.sh [--sanitize] [--no-bench] [--threads N] [CMAKE_OPTION...]

  --sanitize      a short run of the tests under compute-sanitizer as well
  --no-bench      no benchmarks
  --threads N     compilers and tests at a time (all cores)
  CMAKE_OPTION    as in -DCMAKE_PREFIX_PATH=DIR or -DGTEST_SOURCE_DIR=DIR
END
}

sanitize=0
bench=1
threads=$(nproc)
options=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --sanitize) sanitize=1; shift ;;
    --no-bench) bench=0; shift ;;
    --threads) [ $# -ge 2 ] || { usage >&2; exit 2; }; threads=$2; shift 2 ;;
    -D*) options+=("$1"); shift ;;
    *) usage >&2; exit 2 ;;
  esac
done

folder=build/gpu
say() { printf '== %s (%s s)\n' "$*" "$SECONDS"; }

configure() { # PROGRAM
  cmake -S . -B "$folder" -DCMAKE_BUILD_TYPE=Release -DLONGSTRAND_CUDA=ON -DLONGSTRAND_PROGRAM="$1" "${options[@]}"
}

mkdir -p "$folder"
if ! configure ON >"$folder/configure.log" 2>&1; then
  say "without the program, whose packages are not here ($folder/configure.log)"
  configure OFF | tee "$folder/configure.log"
fi
grep -E '^-- (CUDA|CPU) backend' "$folder/configure.log"
cmake --build "$folder" --parallel "$threads"
say "built"

export LONGSTRAND_REQUIRE_CUDA=1
failed=0
# Operands past 2^32 elements take most of the GPU's memory: one such test at a time.
at_a_time=$((threads < 8 ? threads : 8))
ctest --test-dir "$folder" --output-on-failure --no-tests=error --parallel "$at_a_time" \
  --tests-regex '^(kernels|src)/' --exclude-regex FarOffsets || failed=1
say "tested"
ctest --test-dir "$folder" --output-on-failure --tests-regex FarOffsets || failed=1
say "tested far offsets"

if [ "$sanitize" = 1 ]; then
  # Whole case tables, without those that are long, or make CUDA return errors, by intent. A tool takes a core
  # and little of the GPU: many at a time.
  export folder GTEST_TOTAL_SHARDS=16
  export short_test_kernels='*Cuda.*-FarOffsets*:*TakesAnyNumberOfRows:*AnySplit*:*GivesTheSame*'
  short_test_kernels+=':*AFailedRecording*'
  short_test_src='*Cuda*-*AnySplit*:*LayerByLayer*:*ManyTokens*:*ManyLevels*:*ThirtySteps*:*RecordsOfAStream*'
  # Of the cases of a test that go much the same ways, one or two.
  short_test_src+=':*Bidirectional*/sum_*:*Bidirectional*/product_*:*/strands_stay_*'
  short_test_src+=':*GoldenCaduceus.Logits*_ph_*:*GoldenCaduceus.Logits*_unfused_*'
  short_test_src+=':*ChunkedTraining*/class_*:*TrainingInLanes*/class_*:*TrainingInLanes*/all_tokens_*'
  short_test_src+=':*ChunkedInference*/logits_*:*ChunkedInference*/max_*:*ChunkedInference*/last_*'
  export short_test_src
  # racecheck takes minutes for cuBLASLt's kernels and fails where they are left out.
  export with_cublaslt=':LinearCuda.AgreesWithTheReference:LinearCuda.TakesNoMoreScratch*'
  sanitize_shard() { # TOOL PROGRAM SHARD
    local log="$folder/$1-$2-$3.log" short="short_$2" kernels=(--kernel-name kernel_substring=longstrand)
    local tests=${!short}
    case $1 in
      racecheck) kernels=() tests+=$with_cublaslt ;;
      initcheck) kernels=() ;; # it has to see what others write
    esac
    GTEST_SHARD_INDEX=$3 compute-sanitizer --tool "$1" --error-exitcode 1 "${kernels[@]}" \
      "$folder/tests/$2" --gtest_filter="$tests" --gtest_brief=1 >"$log" 2>&1 && return
    printf '== %s of %s, part %s: %s\n' "$1" "$2" "$3" "$log"
    tail -n 40 "$log"
    return 1
  }
  export -f sanitize_shard
  {
    printf 'racecheck test_kernels %s\n' {0..15} # the longest first
    for program in test_src test_kernels; do
      for tool in initcheck memcheck synccheck; do printf "$tool $program %s\n" {0..15}; done
    done
  } | xargs --max-procs $((threads < 16 ? threads : 16)) --max-args 3 bash -c 'sanitize_shard "$@"' _ || failed=1
  unset GTEST_TOTAL_SHARDS
  say "sanitized"
fi

if [ "$bench" = 1 ] && [ -x "$folder/tests/bench/bench_cuda" ]; then
  "$folder/tests/bench/bench_cuda" || failed=1
  say "measured"
fi
exit "$failed"

#!/usr/bin/env bash
# Installs what is missing, builds, runs every test; CTest's summary comes last. Non-zero unless all pass.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../pipelines/setup.sh"

usage() {
  cat <<'END'
usage: bash tests/run.sh [--preset release|cuda|debug|asan|tsan] [--threads N] [--tests REGEX]

  --preset NAME    what to build and test, a preset of CMakePresets.json (release)
  --threads N      compilers and tests at a time (all cores)
  --tests REGEX    only the tests whose name matches
END
}

preset=release
threads=$(nproc)
selection=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --preset | --threads | --tests)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      case $1 in
        --preset) preset=$2 ;;
        --threads) threads=$2 ;;
        --tests) selection=(--tests-regex "$2") ;;
      esac
      shift 2 ;;
    *) usage >&2; exit 2 ;;
  esac
done

install_packages
packages_seconds=$SECONDS
build "$preset" "$threads"
say "packages $packages_seconds s, build $((SECONDS - packages_seconds)) s; testing preset $preset"
ctest --preset "$preset" --parallel "$threads" --no-tests=error "${selection[@]}"

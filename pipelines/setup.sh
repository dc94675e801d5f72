# shellcheck shell=bash
# Sourced by pipelines/quickstart.sh and tests/run.sh: what Longstrand is built from, and how it is built.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Debian and Ubuntu package names, the only list of them.
required_packages=(
  g++ cmake ninja-build ccache pkg-config
  libhts-dev libhdf5-dev zlib1g-dev libboost-program-options-dev
  libdnnl-dev libhwy-dev nlohmann-json3-dev libfmt-dev libspdlog-dev
  libgtest-dev libbenchmark-dev
  python3
)
# Without these, what needs them is skipped and says so.
optional_packages=(samtools multiqc python3-numpy python3-h5py python3-anndata)

say() { printf '== %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

is_installed() {
  [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages: installs those of the lists that are missing.
install_packages() {
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "no apt-get here: taking the packages for installed (${required_packages[*]})"
    return
  fi
  local package missing=() wanted=()
  for package in "${required_packages[@]}" "${optional_packages[@]}"; do
    is_installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "packages are missing and this is neither root nor is there sudo;" \
      "as root, run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq ||
    fail "apt-get update failed; check the network and /etc/apt, or install by hand: ${missing[*]}"
  for package in "${missing[@]}"; do
    if [[ " ${optional_packages[*]} " == *" $package "* ]] && ! apt-cache show "$package" >/dev/null 2>&1; then
      say "this distribution has no package $package: what needs it is skipped"
    else
      wanted+=("$package")
    fi
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" ||
    fail "apt-get could not install ${wanted[*]}; its message is above"
}

gpu_is_visible() { compgen -G '/dev/nvidia[0-9]*' >/dev/null || nvidia-smi --list-gpus >/dev/null 2>&1; }

# build PRESET THREADS [TARGET [CMAKE_OPTION...]]: configures and builds build/PRESET.
build() {
  local preset=$1 threads=$2 target=${3:-all}
  cd "$repository" || fail "cannot enter $repository"
  cmake --preset "$preset" "${@:4}" || fail "configuring failed; CMake's message is above"
  cmake --build --preset "$preset" --parallel "$threads" --target "$target" ||
    fail "the build failed; the compiler's message is above"
}

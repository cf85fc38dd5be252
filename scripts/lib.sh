# shellcheck shell=bash
# What the scripts share: a Python, a virtual environment, and what the project needs in it.
#
#   set -euo pipefail
#   . "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
#   hms_bootstrap                # what `hms` needs (the demo)
#   hms_bootstrap dev            # … and the tools of scripts/test and scripts/lint
#   hms_bootstrap dev bench      # … and Envoy
#
# Afterwards, in the calling shell:
#   HMS_ROOT   the repository's root, absolute
#   HMS_VENV   the virtual environment: $HMS_ROOT/.venv, unless it was set before
#   PATH       begins with $HMS_VENV/bin: python, hms, mitmdump, pytest, ruff, … are the project's
#
# It takes the first Python >= 3.12 that truly runs: $HMS_PYTHON, then python3.14, 3.13, 3.12, python3
# and python on PATH, then pyenv's, then uv's. It installs with pip, by hash, and only when a file in
# scripts/requirements/ or pyproject.toml has changed since. Several scripts may call it at once.
# Also here: hms_say, hms_fail, hms_apt_install, hms_apt_unpack.

HMS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
HMS_VENV=${HMS_VENV:-$HMS_ROOT/.venv}
export HMS_ROOT HMS_VENV

hms_say() { printf 'hms: %s\n' "$*" >&2; }

# hms_fail MESSAGE [REMEDY…]: says what went wrong, then what to do, and ends the script.
hms_fail() {
  hms_say "error: $1"
  shift
  local line
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

# Prints a usable Python's version, or says on stdout why it is none and fails.
_hms_probe() {
  local answer
  [ -x "$1" ] || { echo "is no program" && return 1; }
  # A shim of pyenv may exist and yet fail, and Debian's python3 may lack ensurepip: run it to know.
  if ! answer=$("$1" -IS -c '
import sys
version = ".".join(map(str, sys.version_info[:3]))
if sys.version_info < (3, 12):
    sys.exit(f"is Python {version}")
if sys.implementation.name != "cpython":
    sys.exit(f"is {sys.implementation.name}")
import sysconfig
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit("is a free-threaded build")
for module in ("venv", "ensurepip", "ssl", "sqlite3", "ctypes"):
    try:
        __import__(module)
    except ImportError:
        sys.exit(f"(Python {version}) lacks the module {module}")
print(version)
' 2>&1 </dev/null); then
    answer=${answer##*$'\n'}
    printf '%s\n' "${answer:-does not run}"
    return 1
  fi
  printf '%s\n' "$answer"
}

# Prints one candidate a line, best first: what it is, a tab, its path.
_hms_candidates() {
  local name path root directory
  if [ -n "${HMS_PYTHON:-}" ]; then
    printf 'HMS_PYTHON\t%s\n' "$(command -v -- "$HMS_PYTHON" || printf '%s' "$HMS_PYTHON")"
    return # An explicit wish is not second-guessed.
  fi
  for name in python3.14 python3.13 python3.12 python3 python; do
    while IFS= read -r path; do printf 'PATH\t%s\n' "$path"; done < <(type -aP "$name" || true)
  done
  for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv" "$(pyenv root 2>/dev/null </dev/null || true)"; do
    [ -d "$root/versions" ] || continue
    while IFS= read -r directory; do
      printf 'pyenv\t%s\n' "$root/versions/$directory/bin/python"
    done < <(find "$root/versions" -mindepth 1 -maxdepth 1 -name '3.*' -printf '%f\n' | sort -rV)
  done
  if path=$(uv python find --no-python-downloads '>=3.12' 2>/dev/null </dev/null); then
    printf 'uv\t%s\n' "$path"
  fi
}

# Sets HMS_BASE_PYTHON to the first usable Python, or ends the script with a remedy.
_hms_find_python() {
  local kind path answer seen=$'\n' reasons=()
  while IFS=$'\t' read -r kind path; do
    [[ $seen == *$'\n'"$path"$'\n'* ]] && continue
    seen+=$path$'\n'
    if answer=$(_hms_probe "$path"); then
      HMS_BASE_PYTHON=$path
      hms_say "Python $answer at $path (from $kind)"
      return
    fi
    reasons+=("$path $answer")
  done < <(_hms_candidates)
  if [ -n "${HMS_PYTHON:-}" ]; then
    hms_fail "HMS_PYTHON names no usable Python >= 3.12: ${reasons[*]}" \
      "Remedy: name another, or unset HMS_PYTHON to have one found."
  fi
  hms_fail "no usable Python >= 3.12 was found" "${reasons[@]/#/tried: }" \
    "Remedy, any one of:" \
    "  apt-get install python3-venv     where Debian's python3 is 3.12 or newer" \
    "  pyenv install 3.13" \
    "  uv python install 3.13" \
    "or name one yourself: HMS_PYTHON=/path/to/python3.13 $0"
}

# Succeeds when the environment runs, is new enough, has pip, and was made for this place.
_hms_venv_ok() {
  [ -x "$HMS_VENV/bin/python" ] || return 1
  "$HMS_VENV/bin/python" -I -c '
import sys
import pip
sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 </dev/null || return 1
  # Console scripts hold absolute paths: an environment that was copied or moved is of no use.
  ! [ -e "$HMS_VENV/.hms/place" ] || [ "$(cat "$HMS_VENV/.hms/place")" = "$HMS_VENV" ]
}

_hms_make_venv() {
  if [ -e "$HMS_VENV" ]; then
    hms_say "$HMS_VENV is broken, was moved or has an old Python: making it anew"
    [ -e "$HMS_VENV/pyvenv.cfg" ] || [ -z "$(ls -A "$HMS_VENV")" ] ||
      hms_fail "$HMS_VENV holds something that is no virtual environment" \
        "Remedy: move it away, or set HMS_VENV to another folder."
  fi
  _hms_find_python
  hms_say "making the virtual environment $HMS_VENV"
  "$HMS_BASE_PYTHON" -m venv --clear "$HMS_VENV" </dev/null ||
    hms_fail "$HMS_BASE_PYTHON could not make $HMS_VENV (see above)" \
      "Remedy: name another Python: HMS_PYTHON=/path/to/python3.13 $0"
  mkdir -p "$HMS_VENV/.hms"
  printf '%s\n' "$HMS_VENV" >"$HMS_VENV/.hms/place"
}

_hms_pip() {
  "$HMS_VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
    --progress-bar off "$@" </dev/null
}

# _hms_changed NAME HASH: succeeds when HASH is not what was installed last under NAME.
_hms_changed() { [ "$(cat "$HMS_VENV/.hms/$1" 2>/dev/null)" != "$2" ]; }

_hms_install() {
  local name file hash stale=() files=()
  local -A hashes
  for name in runtime "$@"; do
    file=$HMS_ROOT/scripts/requirements/$name.txt
    [ -e "$file" ] || hms_fail "there is no $file" "Remedy: git checkout -- scripts/requirements"
    hashes[$name]=$(cksum <"$file")
    files+=(-r "$file")
    if _hms_changed "$name" "${hashes[$name]}"; then stale+=("$name"); fi
  done
  if [ ${#stale[@]} -gt 0 ]; then
    hms_say "installing the requirements ${stale[*]} into $HMS_VENV (once; about a minute)"
    _hms_pip --require-hashes "${files[@]}" ||
      hms_fail "pip could not install the requirements (see above)" \
        "Remedy: check that this machine reaches a package index (pip config list), and run again."
    mkdir -p "$HMS_VENV/.hms"
    for name in "${stale[@]}"; do printf '%s\n' "${hashes[$name]}" >"$HMS_VENV/.hms/$name"; done
  fi
  hash="$HMS_ROOT $(cksum <"$HMS_ROOT/pyproject.toml")"
  if _hms_changed project "$hash"; then
    hms_say "installing hms-svc itself, editable"
    _hms_pip --no-index --no-deps --no-build-isolation --editable "$HMS_ROOT" ||
      hms_fail "pip could not install $HMS_ROOT (see above)"
    printf '%s\n' "$hash" >"$HMS_VENV/.hms/project"
  fi
}

_hms_bootstrap_locked() {
  _hms_venv_ok || _hms_make_venv
  _hms_install "$@"
}

# hms_bootstrap [EXTRA…]: see the head of this file.
hms_bootstrap() {
  # The lock ends with the subshell, and no process that a script starts later inherits it.
  if command -v flock >/dev/null; then
    (
      flock -n 9 || { hms_say "waiting for another script that installs" && flock 9; }
      _hms_bootstrap_locked "$@"
    ) 9>"$HMS_VENV.lock" || exit 1
  else
    (_hms_bootstrap_locked "$@") || exit 1
  fi
  unset PYTHONHOME PYTHONPATH
  # Images like to set it. Then each `hms` and each pytest compiles the sources anew: a fifth of the
  # time of every start here, and most of the time in which pytest collects the tests.
  unset PYTHONDONTWRITEBYTECODE
  export VIRTUAL_ENV=$HMS_VENV
  # nginx lives in /usr/sbin, which a person's PATH may lack.
  export PATH=$HMS_VENV/bin:$PATH:/usr/sbin:/sbin
  hash -r
}

# hms_apt_install COMMAND=PACKAGE…: where root, installs Debian's packages for the commands that are
# missing. It never fails: who needs a command says itself that it is not there.
hms_apt_install() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    hms_say "not installed, for want of apt-get: ${missing[*]}"
  elif [ "$(id -u)" -ne 0 ]; then
    hms_say "not installed, for want of root: ${missing[*]} (sudo apt-get install ${missing[*]})"
  else
    hms_say "installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # RUNLEVEL=1: a package's server is installed, not started.
    if ! { apt-get -qq update && NEEDRESTART_SUSPEND=1 RUNLEVEL=1 \
      apt-get -qq -y --no-install-recommends install "${missing[@]}"; } </dev/null >/dev/null; then
      hms_say "apt-get failed (see above); going on without: ${missing[*]}"
    fi
  fi
}

# hms_apt_unpack PACKAGE COMMAND…: puts the commands of a Debian package into .venv/bin, if they are missing.
# The package is not installed: that would have its server started at each boot. It never fails either.
hms_apt_unpack() {
  local package=$1 folder command missing=
  shift
  for command in "$@"; do
    command -v "$command" >/dev/null || [ -x "$HMS_VENV/bin/$command" ] || missing=yes
  done
  [ -n "$missing" ] || return 0
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    hms_say "not unpacked, for want of apt-get: $package"
    return 0
  fi
  hms_say "unpacking the Debian package $package into $HMS_VENV"
  folder=$(mktemp -d)
  # APT::Sandbox::User: the folder is nobody else's, so nobody else could write into it.
  (
    cd "$folder"
    download=(apt-get -qq -o APT::Sandbox::User=root download "$package")
    "${download[@]}" 2>/dev/null || { [ "$(id -u)" -eq 0 ] && apt-get -qq update && "${download[@]}"; }
    dpkg-deb -x ./*.deb unpacked
    for command in "$@"; do install -m 755 "unpacked/usr/bin/$command" "$HMS_VENV/bin/"; done
  ) </dev/null >/dev/null || hms_say "going on without $package"
  rm -rf "$folder"
}

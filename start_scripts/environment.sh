# shellcheck shell=bash
# Sourced by the other scripts. Creates the virtual environment .venv beside this folder if it is missing, out of date or
# broken, and runs servers in it. Sets $root (the sources) and $venv.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "No Python 3.11 or newer was found. Install one, or set PYTHON to its path."
    return 1
}

# is_whole: succeeds if $venv is usable: it has packages for its Python, which an update may have replaced by a newer one,
# and its scripts name an existing Python, which is wrong after the checkout was moved.
is_whole() {
    local first
    "$venv/bin/python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("purelib"))' 2>/dev/null || return
    { read -r first <"$venv/bin/pip"; } 2>/dev/null && [ -x "${first#\#!}" ]
}

# name_packages: shows the name of each package that pip begins to install.
name_packages() {
    local word package
    while read -r word package _; do
        [ "$word" != Collecting ] || say "  $package"
    done
}

# prepare STAMP FILE…: installs the requirements in the FILEs, unless they have not changed since the last time.
prepare() {
    local stamp=$venv/$1 wanted packages
    shift
    wanted=$(cat "$root/setup.py" "$@" | cksum)
    if ! is_whole; then
        local python
        python=$(find_python) || return
        say "Creating a Python environment in $venv. This happens only once."
        if ! "$python" -m venv --clear "$venv" >&2; then
            rm -rf "$venv"
            say "Python's venv module is missing. Install it; on Debian: apt-get install python3-venv"
            return 1
        fi
    fi
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    local pip=("$venv/bin/python" -m pip install --disable-pip-version-check)
    say "Updating pip, which installs the rest."
    # An old pip takes 1.5 times as long, because it checks all versions of each package.
    "${pip[@]}" --quiet --upgrade pip 'setuptools>=77' || return
    local requirements=()
    for packages in "$@"; do requirements+=(-r "$packages"); done
    say "Installing the requirements, in about a minute:"
    (set -o pipefail && "${pip[@]}" "${requirements[@]}" | name_packages) || return
    say "Installing cyclone, the web framework."
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    (cd "$root" && "$venv/bin/python" setup.py --quiet bundle_cyclone --into "$packages") || return
    printf '%s\n' "$wanted" >"$stamp"
    say "Done."
}

# serve COMMAND ARGUMENT…: executes "twistd COMMAND ARGUMENT…" with the settings at the top of the calling script.
serve() {
    prepare .runtime "$root/requirements.txt" || return
    local twistd=("$venv/bin/python" "$venv/bin/twistd" "--pidfile=${pid_file:-}")
    [ "${daemon:-}" = yes ] || twistd+=(-n)
    if [ -n "${user:-}" ]; then
        local group data_dir=/var/lib/restmq # of the private store; the account cannot create it
        if ! group=$(id -g "$user" 2>/dev/null); then
            say "The account \"$user\" does not exist. Correct user= in ${0##*/}."
            return 1
        fi
        twistd+=("--uid=$user" "--gid=$group")
        if [ "$(id -u)" = 0 ] && [ "$user" != root ] && [ "$1" != syslogd ] && [ ! -e $data_dir ]; then
            install -d -o "$user" -g "$group" -m 0700 $data_dir
        fi
    fi
    [ -z "${reactor:-}" ] || twistd+=("--reactor=$reactor")
    [ -z "${log_file:-}" ] || twistd+=("--logfile=$log_file")
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "${twistd[@]}" "$@"
}

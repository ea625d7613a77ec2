# shellcheck shell=bash
# Sourced by the other scripts: makes the virtual environment .venv beside this folder, if it is not there yet or not
# up to date, and runs servers in it. Sets $root (the sources) and $venv.
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
    say "RestMQ needs Python 3.11 or newer; none was found. Set PYTHON to its path."
    return 1
}

# prepare STAMP FILE…: installs what the requirement FILEs name, unless that has been done since they last changed.
prepare() {
    local stamp=$venv/$1 wanted packages
    shift
    wanted=$(cat "$root/setup.py" "$@" | cksum)
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    if [ ! -x "$venv/bin/python" ]; then
        local python
        python=$(find_python) || return
        say "Setting up $venv; this is done once."
        if ! "$python" -m venv "$venv" >&2; then
            rm -rf "$venv"
            say "Python's venv module is missing; on Debian: apt-get install python3-venv"
            return 1
        fi
    fi
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" setuptools wheel || return
    local requirements=()
    for packages in "$@"; do requirements+=(-r "$packages"); done
    "${pip[@]}" "${requirements[@]}" || return
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    (cd "$root" && "$venv/bin/python" setup.py --quiet bundle_cyclone --into "$packages") || return
    printf '%s\n' "$wanted" >"$stamp"
}

# serve COMMAND ARGUMENT…: becomes "twistd COMMAND ARGUMENT…", as the variables at the top of the caller's file say.
serve() {
    prepare .runtime "$root/requirements.txt" || return
    local twistd=("$venv/bin/twistd" "--pidfile=${pid_file:-}")
    [ "${daemon:-}" = yes ] || twistd+=(-n)
    [ -z "${user:-}" ] || twistd+=("--uid=$user" "--gid=$user")
    [ -z "${reactor:-}" ] || twistd+=("--reactor=$reactor")
    [ -z "${log_file:-}" ] || twistd+=("--logfile=$log_file")
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "${twistd[@]}" "$@"
}

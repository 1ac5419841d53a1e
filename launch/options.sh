# shellcheck shell=bash
# Sourced by the scripts that start runs: what they all say about their options, and which revision they start.

header_of() { # the comment at the top of a script
  sed -n '2,/^\([^#]\|#SBATCH\)/s/^#\( \|$\)//p' "$1"
}

value() { # refuses an option that no value follows
  if [ $# -lt 2 ] || [[ "$2" == --* ]]; then
    echo "error: $1 needs a value; see --help" >&2
    exit 2
  fi
}

number() { # refuses what is no whole number of at least $3; bash would run what stands in $(..) in its arithmetic
  if ! [[ "$2" =~ ^[0-9]{1,9}$ ]] || [ "$2" -lt "$3" ]; then
    printf 'error: %s must be a whole number of at least %s, not %q\n' "$1" "$3" "$2" >&2
    exit 2
  fi
}

form() { # refuses a value of option $1 that does not match $3; $4 says what it must be
  if ! [[ "$2" =~ ^($3)$ ]]; then
    printf 'error: %s must be %s, not %q\n' "$1" "$4" "$2" >&2
    exit 2
  fi
}

unknown() {
  echo "error: unknown option $1 (arguments of infimmr train come after --)" >&2
  exit 2
}

something_to_run() {
  if [ $# -eq 0 ]; then
    echo "error: nothing to run; give the arguments of infimmr train after --, as in -- --config configs/nano.yaml" >&2
    exit 2
  fi
}

revision_of() { # the commit of checkout $1; $2 says who runs it
  local revision
  revision="$(git -C "$1" rev-parse HEAD)"
  if [ -n "$(git -C "$1" status --porcelain --untracked-files=no)" ]; then
    echo "note: changes that are not committed do not take part; $2 $revision" >&2
  fi
  echo "$revision"
}

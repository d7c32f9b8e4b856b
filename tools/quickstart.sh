#!/usr/bin/env bash
# Copyright (c) greenmim authors. All rights reserved.
# Pre-train a small Swin with GreenMIM, in minutes, on a GPU or a CPU:
#
#     bash tools/quickstart.sh [IMAGE_FOLDER] [KEY=VALUE ...]
#
# IMAGE_FOLDER is searched recursively; it needs neither class folders nor
# labels. Without it the run uses photographs that come with scikit-image.
# KEY=VALUE changes the config, e.g. train_cfg.max_iters=2000. All results go
# to a new folder below work_dirs/quickstart (--work-dir for another one).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

case ${1:-} in
-h | --help)
    sed -n '3,11s/^#[[:space:]]\{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
    ;;
'' | -* | *=*) ;; # no folder
*)                # a mistake here should not show after minutes of set-up
    [ -d "$1" ] || die "expected a folder of images, but '$1' is not a folder"
    ;;
esac

use_environment runtime
exec python "$ROOT/tools/misc/quickstart.py" "$@"

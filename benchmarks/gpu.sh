#!/usr/bin/env bash
# Everything about a GPU on a machine with no network, in pieces of under ten minutes each.
#
#     benchmarks/gpu.sh PIECE [MODEL ...] [options]
#
# PIECE is one of
#
#     install       what is in WHEELS, unpacked into WORK/site; and the proof that ONNX Runtime runs
#                   a graph on the GPU, by itself and by vlrt, with the output of `vlrt doctor`
#     checkpoints   seeded CLIP B/32 and L/14, OWL-ViT B/32 and B/16, ViLT, of full size
#     bundles       exported in fp32, fp16 and, of three, int8
#     compiled      torch.compile's programs, into its cache on disk
#     parity        every variant against PyTorch in fp32 on this machine, twice
#     latency       batch 1 to 256 against PyTorch eager, torch.compile and CUDA-graphed PyTorch
#     end-to-end    from JPEGs to results, pictures a second
#     memory        of the GPU and of the host
#     cold-start    from the start of a process to its first answer
#     similarity    thousands of labels, on the host and on the device
#     tensorrt      where it is installed
#     soak          ten minutes of mixed batches, and whether memory is flat
#     report        one JSON and one table of all that OUT holds
#     all           all of these in order; a piece that fails stops no other
#     quick         the rows that matter most, in 8 minutes; again, it goes on where it was
#
# and MODEL one of clip-b32, clip-l14, owlvit-b32, owlvit-b16, vilt; all that a piece measures where
# none is named. Each piece leaves a record of JSON in OUT: what was found, or why nothing was. What
# is done is passed over the next time (--fresh measures it again). 0 is returned if all was done or
# skipped for a reason, 1 if a piece failed, 2 for wrong usage. -h names all options. Variables:
#
#     WHEELS   a folder of *.whl, and of *.tar.xz as ../shared/gpu/pack_onnxruntime_gpu.py makes them;
#              none: the machine's own packages are measured
#     DATA     a folder of snapshots without weights (default: ../shared/data, or .gpu/data here)
#     WORK     checkpoints, bundles, caches (default: /tmp/vlrt-gpu): kept, the next piece finds them
#     OUT      takes the records (default: WORK/out)
#     DEVICE   cuda (default), or cpu for a rehearsal
#     SIZE     full (default), or small: the checkpoints of the tests, in a minute or two
#     ARCHIVE  a .tar.gz of all of OUT, written again after each piece
#     PYTHON   the interpreter (default: python3)
#
# The machine needs Python 3.10 or later with PyTorch for its CUDA, transformers 5, onnx, numpy,
# pillow, tokenizers, psutil, scipy, matplotlib and jinja2; optimum is not needed. vlrt itself is
# this checkout: nothing of it has to be installed. A rehearsal without a GPU:
#
#     DEVICE=cpu SIZE=small OUT=/tmp/gpu-out WORK=/tmp/gpu-work benchmarks/gpu.sh all
#
# On a lent machine (one H200, 15 minutes in all, 64 MiB carried, no network)
# ---------------------------------------------------------------------------
# 1. Here, once, in the root of the checkout that the tool sends; nothing of it is ever committed:
#
#     echo /.gpu/ >> .git/info/exclude; mkdir -p .gpu/wheels
#     python3 ../shared/gpu/pack_onnxruntime_gpu.py .gpu/wheels/onnxruntime-gpu.tar.xz --python 3.12
#     tar cJf .gpu/data.tar.xz -C ../shared --exclude=photos data
#     git sparse-checkout set --no-cone '/*' '!/tests/' '!/benchmarks/results/' \
#         '!/vlrt/demo/bundles/' '!/.github/'
#
#    The archive is about 58 MiB, the snapshots are 0.5 MiB, and the checkout is 2 MiB without what
#    the last command hides (with it, 48 MiB: too much). `git sparse-checkout disable` brings it back.
#
# 2. The first run, with carry=[".gpu"] and timeout_s=540 (one line; $OUT is the folder that comes
#    back, of at most eight files, so one archive):
#
#     mkdir -p /tmp/gpu && tar xf .gpu/data.tar.xz -C /tmp/gpu &&
#     ARCHIVE=$OUT/gpu.tar.gz OUT=/tmp/gpu/out WORK=/tmp/gpu/work DATA=/tmp/gpu/data
#     WHEELS=.gpu/wheels VLRT_COMMIT=<git rev-parse HEAD> benchmarks/gpu.sh quick --limit 500
#
#    It installs, exports, proves parity and measures, the most important rows first, and stops by
#    itself; the archive is whole at any moment. What was not done is named in the last line.
#
# 3. At once, while the machine is warm (30 s after the first run): the same command again, with
#    timeout_s=270 and --limit 240. It goes on where it was. Then give the machine back.
#
#    If it was given back before that: unpack the archive here into .gpu/out, and begin the command
#    with `mkdir -p /tmp/gpu && cp -r .gpu/out /tmp/gpu/out;`. Records are passed over, and what was
#    on its disk is made again.
#
# 4. Unpack the archive here: gpu.md in it is the table, gpu.json all records in one.
#
# A whole `all` takes about two hours on such a machine: run its pieces by themselves as time allows,
# each under ten minutes, `soak --seconds 420` among them.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export WORK=${WORK:-${TMPDIR:-/tmp}/vlrt-gpu} DEVICE=${DEVICE:-cuda} SIZE=${SIZE:-full}
export OUT=${OUT:-$WORK/out}
mkdir -p "$WORK/site"
WORK=$(cd "$WORK" && pwd)
if [ -z "${DATA:-}" ]; then
    for place in "$root/../shared/data" "$root/.gpu/data"; do
        if [ -d "$place" ]; then export DATA=$place; fi
    done
fi

# This checkout, as if it were installed: its packages by their names, and its version.
ln -sfn "$root/vlrt" "$WORK/site/vlrt"
ln -sfn "$root/export" "$WORK/site/vlrt_export"
ln -sfn "$root/benchmarks" "$WORK/site/vlrt_benchmarks"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")
mkdir -p "$WORK/site/vlrt-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: vlrt\nVersion: %s\n' "$version" \
    > "$WORK/site/vlrt-$version.dist-info/METADATA"

export PYTHONPATH="$WORK/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 TORCHINDUCTOR_CACHE_DIR="$WORK/inductor" TRITON_CACHE_DIR="$WORK/triton"
# Of each process that compiles; several do at the same time.
export TORCHINDUCTOR_COMPILE_THREADS="${TORCHINDUCTOR_COMPILE_THREADS:-4}"
exec "${PYTHON:-python3}" -m vlrt_benchmarks.gpu "$@"

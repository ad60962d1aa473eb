#!/usr/bin/env bash
# What else runs a model of this size on a CPU, measured on this machine.
#
#   tests/bench/peers/run.sh [hf] [candle] [llama]        all three without a name; THREADS=2
#
#   hf      Hugging Face transformers, RecurrentGemma-2B in bf16: decode at position 64, prefill of 128 tokens
#   candle  candle's quantized_recurrent_gemma, the same shape in Q4_K (positions 64 and 2,048) and Q4_0 (64), prefill
#   llama   llama.cpp, Gemma-2B in Q4_0, a transformer of that size: contexts of 0 and 32,768 tokens, prefill
#
# Prints a table and writes .cache/peers/peers.json: date, processor, versions, and the seconds of every step. Weights are
# random, which costs what real ones cost; prompts are fixed. A decode step goes from the token handed in to the best next
# one; 32 steps are timed after 8 warm ones (candle packs weights in its first), and the table has their median and
# quartiles. How llama.cpp's context is filled: llama/measure.py. Speeds are true on a machine that does nothing else.
#
# Not part of CI: it installs and builds what tests/bench/peers/*/ name, by exact version, with pip and cargo. Needs
# Python 3.11 with venv, a C++ compiler, Rust, 10 GB of free memory, 15 GB of disk under .cache/peers (torch brings its GPU
# libraries), and about 20 minutes for the first build. Measuring takes about 8 minutes. peers.json has what the last call
# measured.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(cd "$here/../../.." && pwd)/.cache/peers
threads=${THREADS:-2}
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

usage() { sed -n 's/^#   \(tests.*\)/usage: \1/p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# What llama.cpp is built with: no image models, and the AVX flags that the processor has, by its own names. Not -DGGML_NATIVE=ON: with gcc 12 it makes programs that crash
# on processors with AMX.
llama_flags() {
    local flag name flags='-DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF'
    if [ "$(uname -m)" != x86_64 ]; then
        echo '-DLLAVA_BUILD=OFF -DGGML_NATIVE=ON'
        return
    fi
    for name in avx:AVX avx2:AVX2 fma:FMA f16c:F16C bmi2:BMI2 avx_vnni:AVX_VNNI avx512bw:AVX512 avx512_vnni:AVX512_VNNI \
        avx512vbmi:AVX512_VBMI avx512_bf16:AVX512_BF16; do
        flag=OFF
        if grep -qw -m 1 "${name%%:*}" /proc/cpuinfo; then flag=ON; fi
        flags+=" -DGGML_${name##*:}=$flag"
    done
    echo "$flags"
}

# venv NAME PIP-OPTION…: a virtual environment with the requirements of a peer, made anew when they or the flags change.
venv() {
    local name=$1 folder=$cache/venv-$1 wanted
    shift
    wanted=$(cat "$here/$name/requirements.txt"; echo "${CMAKE_ARGS-}")
    if [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ]; then return; fi
    echo "$name: installing $(tr '\n' ' ' <"$here/$name/requirements.txt")" >&2
    rm -rf "$folder"
    python3 -m venv "$folder"
    nice -n 19 "$folder/bin/pip" install --quiet "$@" -r "$here/$name/requirements.txt"
    printf '%s\n' "$wanted" >"$folder/installed"
}

prepare_hf() { venv hf; }

prepare_llama() {
    # Without pip's cache: what lies there may have been built with other flags.
    CMAKE_ARGS="$(llama_flags)" venv llama --no-cache-dir --no-binary llama-cpp-python
    [ -f "$cache/gemma-2b-q40.gguf" ] || (cd "$here" && "$cache/venv-llama/bin/python" -m llama.model "$cache/gemma-2b-q40.gguf")
}

prepare_candle() {
    (cd "$here/candle" && RUSTFLAGS='-C target-cpu=native' nice -n 19 \
        cargo build --quiet --release --locked --target-dir "$cache/candle")
    local format
    for format in q4k q40; do
        [ -f "$cache/recurrentgemma-2b-$format.gguf" ] ||
            "$cache/candle/release/peer-candle" write "$format" "$cache/recurrentgemma-2b-$format.gguf"
    done
}

measure_hf() { (cd "$here" && "$cache/venv-hf/bin/python" -m hf.measure "$cache/hf.json" --threads "$threads"); }

measure_llama() {
    (cd "$here" && "$cache/venv-llama/bin/python" -m llama.measure "$cache/gemma-2b-q40.gguf" "$cache/llama.json" \
        --threads "$threads")
}

# measure_format FORMAT POSITION…
measure_format() {
    local format=$1
    shift
    RAYON_NUM_THREADS=$threads CANDLE_NUM_THREADS=$threads "$cache/candle/release/peer-candle" measure "$format" \
        "$cache/recurrentgemma-2b-$format.gguf" "$@" >"$cache/candle-$format.json"
}

measure_candle() { measure_format q4k 64 2048 && measure_format q40 64; }

peers=("$@")
[ ${#peers[@]} -gt 0 ] || peers=(hf candle llama)
for peer in "${peers[@]}"; do
    case $peer in hf | candle | llama) ;; *) usage ;; esac
done

mkdir -p "$cache"
for peer in "${peers[@]}"; do "prepare_$peer"; done
reports=()
for peer in "${peers[@]}"; do
    echo "$peer: measuring" >&2
    rm -f "$cache/$peer.json" "$cache/$peer"-*.json
    "measure_$peer"
    for report in "$cache/$peer.json" "$cache/$peer"-*.json; do
        [ ! -f "$report" ] || reports+=("$report")
    done
done
python3 "$here/table.py" --threads "$threads" --out "$cache/peers.json" "${reports[@]}"

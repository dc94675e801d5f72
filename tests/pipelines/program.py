"""What the end-to-end tests share: running the program, a small model with random weights, reading its tables.

CTest sets LONGSTRAND to the program's path. Models are written here, without the program, so that a test of embed or
score does not depend on training. Exit status 77 says that the test was skipped.
"""

import csv
import json
import os
import pathlib
import struct
import subprocess
import sys

try:
    import numpy
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

PROGRAM = os.environ["LONGSTRAND"]
DATA = pathlib.Path(__file__).resolve().parents[2] / "data"
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "data" / "golden"  # small models of the original Caduceus
D_MODEL, LAYERS, D_STATE, DT_RANK, VOCABULARY = 16, 2, 16, 1, 16
LABELS = ["alpha", "beta", "gamma"]


def run(*arguments, check=True, **options):
    """Runs `longstrand ARGUMENTS...`; with check, a status other than 0 fails the test with the program's message."""
    command = [PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\nexit status {done.returncode}\n{done.stderr}")
    return done


def error_of(*arguments, status=1, **options):
    """The one line that a failing command prints."""
    done = run(*arguments, check=False, **options)
    assert done.returncode == status, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    return lines[0]


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def random_bases(length, seed):
    letters = numpy.frombuffer(b"ACGTNacgt", dtype=numpy.uint8)
    return numpy.random.default_rng(seed).choice(letters, size=length).tobytes().decode()


def reverse_complement(bases):
    return bases[::-1].translate(str.maketrans("ACGTacgtNn", "TGCAtgcaNn"))


def write_fasta(path, records):
    """A FASTA file with lines of 70 bases, and its index."""
    with open(path, "w") as file, open(f"{path}.fai", "w") as index:
        for name, bases in records.items():
            file.write(f">{name}\n")
            index.write(f"{name}\t{len(bases)}\t{file.tell()}\t70\t71\n")
            file.writelines(bases[i : i + 70] + "\n" for i in range(0, len(bases), 70))
    return path


def read_safetensors(path):
    """Name -> (shape, bytes)."""
    content = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    body = content[8 + size :]
    return {name: (tuple(t["shape"]), body[slice(*t["data_offsets"])]) for name, t in header.items()}


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, values in tensors.items():
        size = values.size * 4
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.astype("<f4").tobytes())


def write_model(folder, classifier=False, window=0, seed=0):
    """A random Mamba-1 model in the state-spaces layout; with a classifier, over LABELS."""
    random = numpy.random.default_rng(seed)
    inner = 2 * D_MODEL

    def normal(*shape, scale=0.3):
        return random.normal(0, scale, shape).astype(numpy.float32)

    tensors = {"backbone.embedding.weight": normal(VOCABULARY, D_MODEL, scale=1)}
    for i in range(LAYERS):
        mixer = f"backbone.layers.{i}.mixer."
        tensors |= {
            f"backbone.layers.{i}.norm.weight": 1 + normal(D_MODEL, scale=0.1),
            mixer + "in_proj.weight": normal(2 * inner, D_MODEL),
            mixer + "conv1d.weight": normal(inner, 1, 4),
            mixer + "conv1d.bias": normal(inner),
            mixer + "x_proj.weight": normal(DT_RANK + 2 * D_STATE, inner),
            mixer + "dt_proj.weight": normal(inner, DT_RANK),
            mixer + "dt_proj.bias": normal(inner) - 3,
            mixer + "A_log": numpy.log(numpy.tile(numpy.arange(1, D_STATE + 1, dtype=numpy.float32), (inner, 1))),
            mixer + "D": 1 + normal(inner, scale=0.1),
            mixer + "out_proj.weight": normal(D_MODEL, inner),
        }
    tensors["backbone.norm_f.weight"] = 1 + normal(D_MODEL, scale=0.1)

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", tensors)
    config = {"d_model": D_MODEL, "n_layer": LAYERS, "vocab_size": 12, "ssm_cfg": {"layer": "Mamba1"},
              "rms_norm": True, "residual_in_fp32": True, "pad_vocab_size_multiple": 8, "tie_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    if classifier:
        head = {"classifier.weight": normal(len(LABELS), D_MODEL, scale=1), "classifier.bias": normal(len(LABELS))}
        write_safetensors(folder / "head.safetensors", head)
        spec = {"labels": LABELS, "pooling": "mean", "window_bases": window, "stride_bases": window}
        (folder / "longstrand.json").write_text(json.dumps({"classifier": spec}))
    return folder

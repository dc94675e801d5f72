"""MultiQC renders what classify writes."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from program import LABELS, random_bases, run, write_fasta, write_model

if shutil.which("multiqc") is None:
    print("skipped: multiqc is not installed")
    sys.exit(77)

with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    model = write_model(folder / "model", classifier=True, window=100)
    for seed, label in enumerate(LABELS):
        write_fasta(folder / f"{label}.fa", {label: random_bases(1000, seed)})
    (folder / "truth.tsv").write_text("path\tlabel\n" + "".join(f"{label}.fa\t{label}\n" for label in LABELS))
    (folder / "out").mkdir()
    for table in ("whole.tsv", "Held-out.tsv"):  # two evaluations in one report
        run("classify", "-m", model, "--truth", folder / "truth.tsv", "-o", folder / "out" / table)
    command = ["multiqc", "--quiet", "--outdir", folder / "report", folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = (folder / "report" / "multiqc_report.html").read_text()
    sources = json.loads((folder / "report" / "multiqc_data" / "multiqc_data.json").read_text())
    for section in (f"classify_{table}_{part}" for table in ("whole", "held_out") for part in ("confusion", "summary")):
        assert section in report, section
        assert section in json.dumps(sources), section

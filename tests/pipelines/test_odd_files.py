"""The odd files of tests/data/odd through a command: all records of the good ones, one line for each bad one."""

import pathlib
import tempfile
import unittest

from program import error_of, read_table, run, write_model

ODD = pathlib.Path(__file__).resolve().parents[1] / "data" / "odd"

# The table counts all reads; commands pass over the secondary, supplementary and QC-failed ones.
PRIMARY = {"ce#supp.sam": (2, 200), "no_hdr_sq_1.bam": (5, 500), "non_actg.bam": (2, 808)}
# The table knows of no alphabet: 'X' is no base.
NO_BASES = {"test.iupac.fa": "position 15: 'X'"}


class OddFilesTest(unittest.TestCase):
    def test_every_file_is_read_in_full_or_refused_in_one_line(self):
        cases = read_table(ODD / "expected.tsv")
        self.assertTrue({case["kind"] for case in cases} >= {"FASTA", "FASTQ", "SAM", "BAM", "CRAM", "error"})
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            model = write_model(folder / "model")
            output = folder / "scores.tsv"
            for case in cases:
                with self.subTest(file=case["file"]):
                    reference = [] if case["reference"] == "-" else ["-f", ODD / case["reference"]]
                    command = ["score", "-m", model, ODD / case["file"], *reference, "-o", output, "-q"]
                    if case["kind"] == "error" or case["file"] in NO_BASES:
                        message = error_of(*command)
                        self.assertIn(case["file"], message)
                        self.assertIn(NO_BASES.get(case["file"], case["message"]), message)
                        self.assertFalse(output.exists())
                        continue
                    run(*command)
                    rows = read_table(output)
                    output.unlink()
                    found = len(rows), sum(int(row["end"]) - int(row["start"]) for row in rows)
                    self.assertEqual(found, PRIMARY.get(case["file"], (int(case["records"]), int(case["bases"]))))


if __name__ == "__main__":
    unittest.main()

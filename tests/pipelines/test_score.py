"""longstrand score, end to end: log-likelihoods against the model's own logits, and their invariants."""

import fcntl
import math
import pathlib
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest

import numpy

from program import DATA, PROGRAM, error_of, random_bases, read_table, run, write_fasta, write_model

PIPE_BYTES = 65536  # that a pipe holds
IDS = {base: i for i, base in enumerate("ACGT", start=7)}


def waiting_bytes(pipe):
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


class ScoreTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder_ = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.folder_.name)
        cls.model = write_model(cls.folder / "model")
        cls.records = {"one": random_bases(700, 1), "single": "G", "two": random_bases(129, 2), "n": "NNNN"}
        cls.fasta = write_fasta(cls.folder / "records.fa", cls.records)

    @classmethod
    def tearDownClass(cls):
        cls.folder_.cleanup()

    def score(self, *arguments, inputs=None):
        output = self.folder / "scores.tsv"
        run("score", "-m", self.model, *(inputs or [self.fasta]), "-o", output, "-q", *arguments)
        return read_table(output)

    def assert_same(self, rows, expected):
        self.assertEqual(len(rows), len(expected))
        for row, other in zip(rows, expected):
            for column in ("start", "end", "bases"):
                self.assertEqual(row[column], other[column])
            self.assertTrue(math.isclose(float(row["log_likelihood"]), float(other["log_likelihood"]), rel_tol=1e-6,
                                         abs_tol=1e-6), (row, other))

    def test_columns_and_bits(self):
        rows = self.score()
        self.assertEqual(list(rows[0]), ["record", "start", "end", "bases", "log_likelihood", "bits_per_base"])
        self.assertEqual([row["record"] for row in rows], list(self.records))
        for row, bases in zip(rows, self.records.values()):
            scored = sum(base in "ACGT" for base in bases[1:].upper())
            self.assertEqual((int(row["start"]), int(row["end"]), int(row["bases"])), (0, len(bases), scored))
            if scored:
                bits = -float(row["log_likelihood"]) / math.log(2) / scored
                self.assertTrue(math.isclose(float(row["bits_per_base"]), bits, rel_tol=1e-9))
            else:
                self.assertEqual((float(row["log_likelihood"]), row["bits_per_base"]), (0, "nan"))

    def test_chunk_and_threads_do_not_change_results(self):
        expected = self.score("--chunk", 100000)
        for chunk in (1, 7, 64, 699):
            for threads in (1, 3):
                self.assert_same(self.score("--chunk", chunk, "-t", threads), expected)

    def test_windows_are_those_of_the_window_alone(self):
        pieces = {f"{name}{i}": bases[i : i + 100] for name, bases in self.records.items()
                  for i in range(0, len(bases), 100)}
        alone = self.score(inputs=[write_fasta(self.folder / "pieces.fa", pieces)])
        windows = self.score("--window", 100)
        for row, other in zip(windows, alone):
            other["start"], other["end"] = row["start"], row["end"]
        self.assert_same(windows, alone)

    def test_a_region_is_the_cut_record(self):
        cut = self.score(inputs=[write_fasta(self.folder / "cut.fa", {"a": self.records["one"][49:300]})])
        region = self.score("-r", "one:50-300")
        self.assertEqual((region[0]["start"], region[0]["end"]), ("49", "300"))
        self.assertEqual(region[0]["log_likelihood"], cut[0]["log_likelihood"])

    def test_it_is_the_sum_of_the_logits_log_probabilities(self):
        try:
            import h5py
        except ImportError as error:
            self.skipTest(str(error))
        output = self.folder / "logits.h5ad"
        run("embed", "-m", self.model, self.fasta, "-o", output, "--pool", "none", "--layer", "logits", "--precision",
            "fp32", "-q")
        with h5py.File(output) as file:
            logits = file["X"][:].astype(numpy.float64)
        log_probabilities = logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))
        at = 0
        for row, bases in zip(self.score(), self.records.values()):
            expected = sum(log_probabilities[at + i - 1, IDS[base]]
                           for i, base in enumerate(bases.upper()) if i > 0 and base in IDS)
            self.assertTrue(math.isclose(float(row["log_likelihood"]), expected, rel_tol=1e-5, abs_tol=1e-6), row)
            at += len(bases)

    def test_a_prefix_scores_the_same_whatever_follows(self):
        one, two = self.records["one"], self.records["two"]
        rows = self.score(inputs=[write_fasta(self.folder / "joined.fa", {"a": one, "b": two, "ab": one + two})])
        a, b, ab = (float(row["log_likelihood"]) for row in rows)
        # The logits of `one` do not see `two`: what is left is the likelihood of `two` given `one`, which is none of
        # `two` alone, and a probability.
        self.assertLess(ab - a, 0)
        self.assertFalse(math.isclose(ab - a, b, rel_tol=1e-6))
        halves = self.score("--window", len(one), inputs=[self.folder / "joined.fa"])
        self.assertTrue(math.isclose(float(halves[2]["log_likelihood"]), a, rel_tol=1e-9))

    def test_standard_output_is_the_default(self):
        done = run("score", "-m", self.model, DATA / "fixtures" / "chr22.fa", "-q")
        self.assertEqual(len(done.stdout.splitlines()), 2)
        self.assertTrue(done.stdout.startswith("record\tstart\tend\t"))

    def test_interrupted_on_a_silent_standard_input_it_ends(self):
        output = self.folder / "silent.tsv"
        for arguments in (["score", "-m", self.model, "-", "-o", output], ["inspect", "-"]):
            for sent in (b"", b">a\nACGT\n" * 100_000):
                process = subprocess.Popen([PROGRAM, *map(str, arguments), "-q"], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                process.stdin.write(sent)
                process.stdin.flush()
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
                message = process.stderr.read().decode()
                self.assertEqual(process.wait(10), 1)
                self.assertIn("error: interrupted", message)
                self.assertEqual(process.stdout.read(), b"")
                self.assertFalse(output.exists())
                for stream in (process.stdin, process.stdout, process.stderr):
                    stream.close()

    def test_interrupted_on_a_pipe_that_nobody_empties_it_ends(self):
        records = write_fasta(self.folder / "many.fa", {f"record{i}": "ACGTTGCA" for i in range(20_000)})
        process = subprocess.Popen([PROGRAM, "score", "-m", str(self.model), str(records), "-q"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while waiting_bytes(process.stdout) < PIPE_BYTES:
            self.assertIsNone(process.poll())
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        self.assertIn("error: interrupted", process.stderr.read().decode())
        self.assertEqual(process.wait(10), 1)
        process.stdout.close()
        process.stderr.close()

    def test_failures_are_one_line_and_leave_no_table(self):
        output = self.folder / "wrong.tsv"
        self.assertIn("missing", error_of("score", "-m", self.folder / "missing", self.fasta, "-o", output))
        self.assertIn("missing.fa", error_of("score", "-m", self.model, "missing.fa", "-o", output))
        bad = self.folder / "bad.fa"
        bad.write_text(">good\nACGT\n>bad\nAC*GT\n")
        message = error_of("score", "-m", self.model, bad, "-o", output)
        for word in ("bad.fa", "'bad'", "position 3"):
            self.assertIn(word, message)
        self.assertFalse(output.exists())
        self.assertIn("/dev/full", error_of("score", "-m", self.model, self.fasta, "-o", "/dev/full"))


if __name__ == "__main__":
    unittest.main()

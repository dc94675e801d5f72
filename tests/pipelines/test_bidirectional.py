"""Bidirectional models, end to end: embed, score, finetune and classify with those of the original Caduceus."""

import contextlib
import json
import math
import os
import pathlib
import pty
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from program import GOLDEN, PROGRAM, error_of, random_bases, read_table, reverse_complement, run, write_fasta, write_model

try:
    import anndata
    import numpy
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

# The same numbers in another order of summation, in float32, beside embeddings of about 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
PH, PS, UNFUSED = (GOLDEN / f"caduceus_{kind}" for kind in ("ph_d32_l4", "ps_d32_l4", "ps_unfused_d32_l3"))
MASK_ROUNDS = 7  # of the default share, 0.15
COMPLEMENT = numpy.array([0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15])  # of token ids


class BidirectionalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        cls.records = {"one": random_bases(700, 1), "single": "G", "two": random_bases(129, 2), "n": "NNNN"}
        cls.fasta = write_fasta(cls.folder / "records.fa", cls.records)
        cls.flipped = write_fasta(cls.folder / "flipped.fa",
                                  {name: reverse_complement(bases) for name, bases in cls.records.items()})

    def embed(self, model, *arguments, inputs=None):
        output = self.folder / "out.h5ad"
        run("embed", "-m", model, *([self.fasta] if inputs is None else inputs), "-o", output, "--precision", "fp32", "-q",
            *arguments)
        return anndata.read_h5ad(output)

    def score(self, model, *arguments, inputs=None):
        output = self.folder / "scores.tsv"
        run("score", "-m", model, *(inputs or [self.fasta]), "-o", output, "-q", *arguments)
        return read_table(output)

    def assert_close(self, a, b, **what):
        numpy.testing.assert_allclose(a, b, **CLOSE, err_msg=str(what))

    def assert_same_scores(self, rows, expected, relative=1e-6):
        self.assertEqual([row["record"] for row in rows], [row["record"] for row in expected])
        for row, other in zip(rows, expected):
            self.assertEqual(row["bases"], other["bases"])
            self.assertTrue(math.isclose(float(row["log_likelihood"]), float(other["log_likelihood"]), rel_tol=relative,
                                         abs_tol=1e-6), (row, other))


class Embed(BidirectionalTest):
    def test_chunk_and_threads_do_not_change_results(self):
        for model in (PH, PS):
            for pool in ("mean", "last", "max", "none"):
                expected = self.embed(model, "--pool", pool, "--chunk", 100000)
                for chunk, threads in ((1, 2), (7, 1), (64, 3), (699, 1)):
                    data = self.embed(model, "--pool", pool, "--chunk", chunk, "-t", threads)
                    self.assert_close(data.X, expected.X, model=model, pool=pool, chunk=chunk, threads=threads)
                    self.assertTrue(data.obs.equals(expected.obs))

    def test_ctrl_c_stops_within_a_record(self):
        """Not only when all its layers are through, which takes minutes here."""
        inputs = write_fasta(self.folder / "long.fa", {"long": random_bases(2_000_000, 3)})
        output = self.folder / "long.h5ad"
        command = ["embed", "-m", PS, inputs, "-o", output, "--chunk", "16", "-t", "1", "--device", "cpu"]
        process = subprocess.Popen([PROGRAM, *map(str, command)], stderr=subprocess.PIPE, text=True)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        messages = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 1, messages)
        self.assertIn("--resume", messages)
        self.assertFalse(output.exists())

    def test_the_bar_moves_within_a_record(self):
        inputs = write_fasta(self.folder / "bar.fa", {"long": random_bases(300_000, 3)})
        command = ["embed", "-m", PS, inputs, "-o", self.folder / "bar.h5ad", "-t", "1", "--device", "cpu"]
        terminal, its_end = pty.openpty()
        process = subprocess.Popen([PROGRAM, *map(str, command)], stderr=its_end)
        os.close(its_end)
        shown = b""
        with contextlib.suppress(OSError):  # what reading a terminal says that nobody writes to any more
            while part := os.read(terminal, 4096):
                shown += part
        os.close(terminal)
        self.assertEqual(process.wait(timeout=60), 0, shown)
        shares = [int(share) for share in re.findall(rb"(\d+) %", shown)]
        self.assertEqual(shares, sorted(shares))
        self.assertGreater(len({share for share in shares if 0 < share < 100}), 1, shown)

    def test_pools_are_those_of_the_rows_of_all_bases(self):
        for layer in ("final", "2", "logits"):
            bases = self.embed(PH, "--pool", "none", "--layer", layer)
            for pool, pooled_by in (("mean", numpy.mean), ("max", numpy.max), ("last", lambda x, axis: x[-1])):
                data = self.embed(PH, "--pool", pool, "--layer", layer)
                for row, name in enumerate(self.records):
                    rows = bases.X[(bases.obs["record"] == name).to_numpy()]
                    self.assert_close(data.X[row], pooled_by(rows, axis=0), layer=layer, pool=pool, record=name)

    def test_an_equivariant_model_does_not_know_the_strand(self):
        for model in (PS, UNFUSED):
            for arguments in ([], ["--pool", "last"], ["--pool", "max"], ["--layer", "2"], ["--layer", "logits", "--pool", "none"],
                              ["--pool", "none"], ["--pool", "none", "--layer", "1"]):
                data, other = self.embed(model, *arguments), self.embed(model, *arguments, inputs=[self.flipped])
                expected = other.X
                if "none" in arguments:  # bases in the order of the other strand
                    ends = numpy.cumsum([len(bases) for bases in self.records.values()])
                    expected = numpy.concatenate([rows[::-1] for rows in numpy.split(expected, ends[:-1])])
                else:
                    self.assertEqual(set(data.obs["strand"]), {"."})
                if "logits" in arguments:
                    expected = expected[:, COMPLEMENT]
                self.assert_close(data.X, expected, model=model, arguments=arguments)
            self.assertIn("both strands", error_of("embed", "-m", model, self.fasta, "-o", self.folder / "no.h5ad",
                                                   "--reverse-complement", "average", status=2))
            self.assertFalse((self.folder / "no.h5ad").exists())

    def test_other_models_are_averaged_over_the_strands(self):
        average = ("--reverse-complement", "average")
        data, same = self.embed(PH, *average), self.embed(PH, *average, inputs=[self.flipped])
        numpy.testing.assert_array_equal(data.X, same.X)
        plain, flipped = self.embed(PH), self.embed(PH, inputs=[self.flipped])
        self.assert_close(data.X, (plain.X + flipped.X) / 2)
        self.assertFalse(numpy.allclose(plain.X, flipped.X, **CLOSE))

    def test_windows_are_those_of_the_window_alone(self):
        pieces = {f"{name}{i}": bases[i : i + 100] for name, bases in self.records.items() for i in range(0, len(bases), 100)}
        alone = write_fasta(self.folder / "pieces.fa", pieces)
        for model in (PH, PS):
            self.assert_close(self.embed(model, "--window", 100).X, self.embed(model, inputs=[alone]).X)
            windows, pieces_alone = self.score(model, "--window", 100), self.score(model, inputs=[alone])
            self.assertEqual([row["log_likelihood"] for row in windows], [row["log_likelihood"] for row in pieces_alone])


class Score(BidirectionalTest):
    def test_it_is_the_sum_of_what_masked_bases_have(self):
        for model in (PH, PS):
            rows = self.score(model)
            for row, bases in zip(rows, self.records.values()):
                scored = sum(base in "ACGT" for base in bases.upper())
                self.assertEqual(int(row["bases"]), scored)
                if scored:
                    bits = -float(row["log_likelihood"]) / math.log(2) / scored
                    self.assertTrue(math.isclose(float(row["bits_per_base"]), bits, rel_tol=1e-9))
                else:
                    self.assertEqual((float(row["log_likelihood"]), row["bits_per_base"]), (0, "nan"))
            other = self.score(model, "--mask-fraction", "0.5")
            self.assertEqual(rows[0]["bases"], other[0]["bases"])
            self.assertFalse(math.isclose(float(rows[0]["log_likelihood"]), float(other[0]["log_likelihood"]), rel_tol=1e-4))
            self.assertEqual(rows[1]["log_likelihood"], other[1]["log_likelihood"])  # a single base hides nothing from others

    def test_chunk_and_threads_do_not_change_results(self):
        for model in (PH, PS):
            expected = self.score(model, "--chunk", 100000)
            for chunk, threads in ((1, 1), (7, 2), (64, 3), (699, 1)):
                self.assert_same_scores(self.score(model, "--chunk", chunk, "-t", threads), expected)

    def test_an_equivariant_model_does_not_know_the_strand(self):
        for model in (PS, UNFUSED):
            for arguments in ([], ["--mask-fraction", "0.3"]):
                self.assert_same_scores(self.score(model, *arguments), self.score(model, *arguments, inputs=[self.flipped]), 1e-5)
        plain, flipped = self.score(PH), self.score(PH, inputs=[self.flipped])
        self.assertFalse(math.isclose(float(plain[0]["log_likelihood"]), float(flipped[0]["log_likelihood"]), rel_tol=1e-5))

    def test_the_log_says_what_it_is(self):
        done = run("score", "-m", PH, self.fasta)
        self.assertIn(f"pseudo-log-likelihood: every base is masked once, in {MASK_ROUNDS} rounds", done.stderr)
        self.assertIn(f"{len(self.records)} records, {sum(map(len, self.records.values()))} bases", done.stderr)

    def test_a_share_to_mask_is_for_bidirectional_models(self):
        causal = write_model(self.folder / "causal")
        self.assertIn("--mask-fraction", error_of("score", "-m", causal, self.fasta, "--mask-fraction", "0.2", status=2))
        self.assertIn("--mask-fraction 2", error_of("score", "-m", PH, self.fasta, "--mask-fraction", 2, status=2))


class Classify(BidirectionalTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        weights = {"at": [8, 1, 1, 8], "gc": [1, 8, 8, 1]}  # classes that a small model tells apart at once
        for label, odds in weights.items():
            bases = "".join(random.Random(label).choices("ACGT", odds, k=6000))
            write_fasta(cls.folder / f"{label}.fa", {label: bases})
        cls.manifest = cls.folder / "classes.tsv"
        cls.manifest.write_text("path\tlabel\ngc.fa\trich\nat.fa\tpoor\n")

    def test_classes_are_learned(self):
        for model in (PH, PS):
            folder = self.folder / model.name
            run("finetune", "--init", model, "--labels", self.manifest, "-o", folder, "--window", 200, "--steps", 15,
                "--batch", 4, "--lr", "0.01", "--valid-every", 5, "-t", 2, "--precision", "fp32")
            config = json.loads((folder / "best" / "config.json").read_text())
            self.assertEqual((config["model_type"], config["rcps"]), ("caduceus", model == PS))
            split = ("--split", folder / "split.tsv", "--only", "test")
            table = self.folder / "classes_found.tsv"
            run("classify", "-m", folder / "best", *split, "-o", table, "-q")
            self.assertEqual([row["label"] for row in read_table(table)], [row["truth"] for row in read_table(table)])
            self.assertGreater(self.embed(folder / "best", *split, inputs=[]).n_obs, 5)

    def head_on(self, model):
        """A classifier with the backbone of `model`."""
        folder = self.folder / f"head_{model.name}"
        if not folder.exists():
            run("finetune", "--init", model, "--labels", self.manifest, "-o", folder, "--window", 200, "--steps", 2, "--batch", 4,
                "--freeze-backbone", "-t", 2)
        return folder / "model"

    def probabilities(self, model, fasta, *arguments):
        output = self.folder / "probabilities.tsv"
        run("classify", "-m", self.head_on(model), fasta, "--window", 0, "--precision", "fp32", "-o", output, "-q", *arguments)
        return numpy.array([[float(row[column]) for column in ("p_poor", "p_rich")] for row in read_table(output)])

    def test_an_equivariant_classifier_does_not_know_the_strand(self):
        self.assert_close(self.probabilities(PS, self.fasta), self.probabilities(PS, self.flipped))
        average = ("--reverse-complement", "average")
        self.assertIn("both strands", error_of("classify", "-m", self.head_on(PS), self.fasta, *average, status=2))
        folder = self.folder / "augmented"
        self.assertIn("both strands", error_of("finetune", "--init", PS, "--labels", self.manifest, "-o", folder,
                                               "--reverse-complement-augment", status=2))
        self.assertFalse(folder.exists())

    def test_other_classifiers_are_averaged_over_the_strands(self):
        average = ("--reverse-complement", "average")
        mean = self.probabilities(PH, self.fasta, *average)
        numpy.testing.assert_array_equal(mean, self.probabilities(PH, self.flipped, *average))
        plain, flipped = self.probabilities(PH, self.fasta), self.probabilities(PH, self.flipped)
        self.assert_close(mean, (plain + flipped) / 2)
        self.assertFalse(numpy.allclose(plain, flipped, **CLOSE))


if __name__ == "__main__":
    unittest.main()

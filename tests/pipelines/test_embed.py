"""longstrand embed, end to end: invariants of the embeddings, the file's contents, resuming, failures."""

import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from program import (DATA, D_MODEL, LAYERS, PROGRAM, VOCABULARY, error_of, random_bases, reverse_complement, run,
                     write_fasta, write_model)

try:
    import anndata
    import h5py
    import numpy
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

# The same numbers in another order of summation, in float32.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class EmbedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder_ = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.folder_.name)
        cls.model = write_model(cls.folder / "model")
        cls.records = {"one": random_bases(1000, 1), "tiny": "A", "two": random_bases(333, 2), "n": "N" * 40}
        cls.fasta = write_fasta(cls.folder / "records.fa", cls.records)

    @classmethod
    def tearDownClass(cls):
        cls.folder_.cleanup()

    def command(self, *arguments, inputs=None, output=None):
        output = output or self.folder / "out.h5ad"
        inputs = [self.fasta] if inputs is None else inputs
        return ["embed", "-m", self.model, *inputs, "-o", output, "--precision", "fp32", "-q", *arguments], output

    def embed(self, *arguments, **options):
        command, output = self.command(*arguments, **options)
        run(*command)
        return anndata.read_h5ad(output)

    def assert_close(self, a, b, **what):
        numpy.testing.assert_allclose(a, b, **CLOSE, err_msg=str(what))

    # Embeddings

    def test_chunk_and_threads_do_not_change_results(self):
        for pool in ("mean", "last", "max", "none"):
            expected = self.embed("--pool", pool, "--chunk", 100000)
            for chunk in (1, 7, 64, 999):
                for threads in (1, 3):
                    data = self.embed("--pool", pool, "--chunk", chunk, "-t", threads)
                    self.assert_close(data.X, expected.X, pool=pool, chunk=chunk, threads=threads)
                    self.assertTrue(data.obs.equals(expected.obs))

    def test_pools_are_those_of_the_rows_of_all_bases(self):
        for layer, width in (("final", D_MODEL), ("1", D_MODEL), (str(LAYERS), D_MODEL), ("logits", VOCABULARY)):
            bases = self.embed("--pool", "none", "--layer", layer)
            self.assertEqual(bases.shape, (sum(map(len, self.records.values())), width))
            for pool, pooled_by in (("mean", numpy.mean), ("max", numpy.max), ("last", lambda x, axis: x[-1])):
                data = self.embed("--pool", pool, "--layer", layer)
                self.assertEqual(list(data.obs["record"]), list(self.records))
                for row, name in enumerate(self.records):
                    rows = bases.X[(bases.obs["record"] == name).to_numpy()]
                    self.assertEqual(len(rows), len(self.records[name]))
                    self.assert_close(data.X[row], pooled_by(rows, axis=0), layer=layer, pool=pool, record=name)

    def test_windows_are_those_of_the_window_alone(self):
        window, stride = 300, 200
        pieces = {f"{name}/{i}": bases[i : i + window] for name, bases in self.records.items()
                  for i in range(0, max(1, len(bases) - window + stride), stride)}
        alone = self.embed(inputs=[write_fasta(self.folder / "pieces.fa", pieces)])
        data = self.embed("--window", window, "--stride", stride)
        self.assertEqual([f"{r}/{s}" for r, s in zip(data.obs["record"], data.obs["start"])], list(pieces))
        self.assertEqual(list(data.obs["end"] - data.obs["start"]), [len(p) for p in pieces.values()])
        self.assert_close(data.X, alone.X)

    def test_regions_are_those_of_the_cut_record(self):
        one = self.records["one"]
        cut = self.embed(inputs=[write_fasta(self.folder / "cut.fa", {"a": one[99:200], "b": one[500:1000]})])
        by_option = self.embed("-r", "one:100-200", "-r", "one:501-1000")
        bed = self.folder / "regions.bed"
        bed.write_text("one\t99\t200\none\t500\t1000\n")
        by_file = self.embed("-R", bed)
        for data in (by_option, by_file):
            self.assert_close(data.X, cut.X)
            self.assertEqual(list(data.obs["start"]), [99, 500])
            self.assertEqual(list(data.obs["end"]), [200, 1000])

    def test_windows_of_a_split_are_those_regions(self):
        split = self.folder / "split.tsv"
        split.write_text("path\trecord\trecord_index\tstart\tend\tlabel\tsplit\n" + "".join(
            f"{self.fasta}\tone\t0\t{start}\t{start + 100}\tx\t{part}\n"
            for start, part in ((0, "train"), (300, "test"), (350, "test"), (900, "test"))))
        data = self.embed("--split", split, inputs=[])
        expected = self.embed("-r", "one:301-400", "-r", "one:351-450", "-r", "one:901-1000")
        self.assertTrue(data.obs.equals(expected.obs))
        self.assert_close(data.X, expected.X)

    def test_the_average_over_strands_does_not_know_the_strand(self):
        flipped = {name: reverse_complement(bases) for name, bases in self.records.items()}
        other = write_fasta(self.folder / "flipped.fa", flipped)
        for pool in ("mean", "last", "max"):
            average = ("--pool", pool, "--reverse-complement", "average")
            data, same = self.embed(*average), self.embed(*average, inputs=[other])
            numpy.testing.assert_array_equal(data.X, same.X)
            self.assertEqual(set(data.obs["strand"]), {"."})
            plain, plain_flipped = self.embed("--pool", pool), self.embed("--pool", pool, inputs=[other])
            self.assert_close(data.X, (plain.X + plain_flipped.X) / 2)
            self.assertFalse(numpy.allclose(plain.X, plain_flipped.X, **CLOSE))

    def test_case_does_not_matter_but_n_does(self):
        upper = self.embed(inputs=[write_fasta(self.folder / "u.fa", {"one": self.records["one"].upper()})])
        masked = self.embed(inputs=[write_fasta(self.folder / "m.fa", {"one": self.records["one"].replace("a", "N")})])
        data = self.embed()
        numpy.testing.assert_array_equal(data.X[0], upper.X[0])
        self.assertFalse(numpy.allclose(data.X[0], masked.X[0], **CLOSE))

    def test_reads_come_alike_from_bam_cram_and_standard_input(self):
        fixtures = DATA / "fixtures"
        bam = self.embed(inputs=[fixtures / "chr17.bam"])
        cram = self.embed("-f", fixtures / "chr17.fa.gz", inputs=[fixtures / "chr17.cram"])
        self.assertGreater(bam.n_obs, 100)
        numpy.testing.assert_array_equal(bam.X, cram.X)
        command, output = self.command(inputs=["-"])
        with open(self.fasta) as fasta:
            run(*command, stdin=fasta)
        numpy.testing.assert_array_equal(anndata.read_h5ad(output).X, self.embed().X)

    # The file

    def test_the_file_says_where_its_rows_come_from(self):
        command, output = self.command("--seed", 7, "--window", 500)
        run(*command)
        with h5py.File(output) as file:
            self.assertEqual(file["X"].dtype, numpy.float32)
        data = anndata.read_h5ad(output)
        self.assertEqual(list(data.obs.columns), ["record", "start", "end", "strand", "length"])
        self.assertEqual(list(data.obs["length"]), [500, 500, 1, 333, 40])
        self.assertTrue(data.obs_names.is_unique)
        inspected = json.loads(run("inspect", "--json", self.model).stdout)
        self.assertIn(data.uns["model_fingerprint"], json.dumps(inspected))
        self.assertEqual(run("--version").stdout.split()[1], data.uns["version"])
        self.assertTrue(data.uns["command_line"].startswith("longstrand embed -m "))
        for key, value in {"seed": 7, "pooling": "mean", "layer": "final", "window": 500}.items():
            self.assertEqual(data.uns[key], value, key)

    # Stopping and going on

    def long_command(self, *arguments):
        # A second or two of work, so that a signal finds it in the middle.
        fasta = self.folder / "long.fa"
        if not fasta.exists():
            write_fasta(fasta, {f"r{i}": random_bases(3000 + 7 * i, i) for i in range(60)})
        return self.command(*arguments, inputs=[fasta], output=self.folder / "long.h5ad")

    def start_and_signal(self, command, signal_number, seconds):
        process = subprocess.Popen([PROGRAM, *map(str, command)], stderr=subprocess.PIPE, text=True)
        time.sleep(seconds)
        process.send_signal(signal_number)
        return process, process.communicate()[1]

    def test_killed_and_resumed_is_never_killed(self):
        seed = random.randrange(1 << 30)
        chance = random.Random(seed)
        for mode in (["--window", "100"], ["--pool", "none"], ["--window", "100", "--reverse-complement", "average"]):
            command, output = self.long_command("--chunk", "64", *mode)
            started = time.monotonic()
            run(*command)
            whole_seconds = time.monotonic() - started
            expected = anndata.read_h5ad(output)
            output.unlink()
            attempt = command
            for _ in range(4):
                self.start_and_signal(attempt, signal.SIGKILL, chance.uniform(0.1, 0.8) * whole_seconds)
                attempt = [*command, "--resume"]
                if output.exists():  # it was done before the signal came: never half a file under the final name
                    break
            else:
                run(*attempt)
                self.assertFalse(list(self.folder.glob("long.h5ad.partial*")))
            data = anndata.read_h5ad(output)
            self.assertTrue(data.obs.equals(expected.obs), f"{mode}, seed {seed}")
            numpy.testing.assert_array_equal(data.X, expected.X, f"{mode}, seed {seed}")
            output.unlink()

    def test_ctrl_c_keeps_what_is_done(self):
        command, output = self.long_command("--window", "50", "--chunk", "1")
        process, messages = self.start_and_signal(command, signal.SIGINT, 0.5)
        self.assertEqual(process.returncode, 1, messages)
        self.assertEqual(len(messages.splitlines()), 1, messages)
        self.assertIn("--resume", messages)
        self.assertFalse(output.exists())
        other = [str(a).replace("50", "60") for a in command]
        self.assertIn("resume", error_of(*other, "--resume"))
        for left in self.folder.glob("long.h5ad.partial*"):
            left.unlink()

    # Failures

    def test_a_full_disk_is_one_line_and_no_file(self):
        command, output = self.command("--pool", "none", output=self.folder / "full.h5ad")
        limit = 20000

        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        self.assertIn("full.h5ad", error_of(*command, preexec_fn=small_files))
        self.assertFalse(output.exists())

    def test_wrong_input_is_one_line_and_no_file(self):
        folder = self.folder
        (folder / "text.fa").write_text("this is no sequence file\n")
        (folder / "protein.fa").write_text(">p\nMKVLAEEL\n")
        good = (DATA / "fixtures" / "chr22.fq.gz").read_bytes()
        (folder / "cut.fq.gz").write_bytes(good[: len(good) // 2])
        (folder / "noindex.fa").write_text(">a\nACGT\n")
        cases = [
            (["missing.fa"], [], 1, "missing.fa"),
            ([folder / "text.fa"], [], 1, "text.fa"),
            ([folder / "protein.fa"], [], 1, "position"),
            ([folder / "cut.fq.gz"], [], 1, "cut.fq.gz"),
            ([folder / "noindex.fa"], ["-r", "a:1-2"], 1, "samtools faidx"),
            ([self.fasta], ["-r", "nowhere:1-2"], 1, "nowhere"),
            ([self.fasta], ["--layer", LAYERS + 1], 2, "--layer"),
            ([self.fasta], ["--layer", "x"], 2, "--layer"),
            ([self.fasta], ["--stride", 5], 2, "--window"),
            ([self.fasta], ["--pool", "none", "--reverse-complement", "average"], 2, "--pool"),
            ([], [], 2, "no input"),
            ([self.fasta], ["--split", "split.tsv"], 2, "--split"),
            (["-"], ["--resume"], 2, "standard input"),
        ]
        for inputs, arguments, status, word in cases:
            command, output = self.command(*arguments, inputs=inputs, output=folder / "wrong.h5ad")
            message = error_of(*command, status=status, stdin=subprocess.DEVNULL)
            self.assertIn(word, message)
            self.assertFalse(output.exists())
        command, _ = self.command(output=folder / "no" / "such" / "folder.h5ad")
        self.assertIn("folder.h5ad", error_of(*command))


if __name__ == "__main__":
    unittest.main()

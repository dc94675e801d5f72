"""longstrand classify and baseline, end to end: rows and figures against a recomputation here."""

import json
import pathlib
import tempfile
import unittest

import numpy

from program import D_MODEL, LABELS, error_of, random_bases, read_safetensors, read_table, run, write_fasta, write_model


def figures(truth, predicted):
    """Accuracy, macro-F1 and the matrix, straight from the definitions."""
    matrix = [[sum(t == a and p == b for t, p in zip(truth, predicted)) for b in LABELS] for a in LABELS]
    f1 = []
    for i in range(len(LABELS)):
        true_positive = matrix[i][i]
        wrong = sum(matrix[i]) + sum(row[i] for row in matrix) - 2 * true_positive
        if true_positive + wrong:
            f1.append(2 * true_positive / (2 * true_positive + wrong))
    return sum(t == p for t, p in zip(truth, predicted)) / len(truth), sum(f1) / len(f1), matrix


class ClassifyTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder_ = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.folder_.name)
        cls.model = write_model(cls.folder / "model", classifier=True, window=100)
        cls.bases = {label: random_bases(1250, seed) for seed, label in enumerate(LABELS)}
        cls.files = [write_fasta(cls.folder / f"{label}.fa", {f"{label}_1": bases, f"{label}_2": bases[:40]})
                     for label, bases in cls.bases.items()]
        cls.truth = cls.folder / "truth.tsv"
        cls.truth.write_text("path\tlabel\n" + "".join(f"{label}.fa\t{label}\n" for label in LABELS))

    @classmethod
    def tearDownClass(cls):
        cls.folder_.cleanup()

    def classify(self, *arguments):
        output = self.folder / "out.tsv"
        run("classify", "-m", self.model, *arguments, "-o", output, "--precision", "fp32", "-q")
        return read_table(output)

    def write_split(self):
        """The last fifth of every first record is held out, in windows that overlap."""
        split = self.folder / "split.tsv"
        lines = ["path\trecord\trecord_index\tstart\tend\tlabel\tsplit"]
        for file, label in zip(self.files, LABELS):
            lines += [f"{file}\t{label}_1\t0\t{start}\t{start + 100}\t{label}\t{'train' if start < 700 else 'valid'}"
                      for start in range(0, 901, 100)]
            lines += [f"{file}\t{label}_1\t0\t{start}\t{start + 100}\t{label}\ttest" for start in range(1000, 1151, 50)]
        split.write_text("\n".join(lines) + "\n")
        return split

    def test_rows_are_the_head_over_the_windows_mean(self):
        try:
            import h5py
        except ImportError as error:
            self.skipTest(str(error))
        rows = self.classify(*self.files)
        self.assertEqual(list(rows[0]), ["record", "start", "end", "label", *(f"p_{label}" for label in LABELS)])
        embeddings = self.folder / "mean.h5ad"
        run("embed", "-m", self.model, *self.files, "-o", embeddings, "--window", 100, "--precision", "fp32", "-q")
        with h5py.File(embeddings) as file:
            means = file["X"][:]
        head = read_safetensors(self.model / "head.safetensors")
        weight = numpy.frombuffer(head["classifier.weight"][1], "<f4").reshape(len(LABELS), D_MODEL)
        logits = means @ weight.T + numpy.frombuffer(head["classifier.bias"][1], "<f4")
        expected = numpy.exp(logits) / numpy.exp(logits).sum(axis=1, keepdims=True)
        self.assertEqual(len(rows), 3 * (13 + 1))
        for row, probabilities in zip(rows, expected):
            found = [float(row[f"p_{label}"]) for label in LABELS]
            numpy.testing.assert_allclose(found, probabilities, rtol=1e-4, atol=1e-6)
            self.assertEqual(row["label"], LABELS[int(numpy.argmax(found))])
        self.assertEqual([(row["start"], row["end"]) for row in rows[:2]], [("0", "100"), ("100", "200")])

    def test_window_0_is_whole_records(self):
        rows = self.classify(*self.files, "--window", 0)
        self.assertEqual([int(row["end"]) for row in rows], [1250, 40] * 3)

    def test_chunk_does_not_change_results(self):
        expected = self.classify(*self.files, "--window", 0)
        for chunk in (7, 64, 5000):
            for row, other in zip(self.classify(*self.files, "--window", 0, "--chunk", chunk), expected):
                for label in LABELS:
                    self.assertAlmostEqual(float(row[f"p_{label}"]), float(other[f"p_{label}"]), places=5)

    def check_evaluation(self, rows):
        truth, predicted = [row["truth"] for row in rows], [row["label"] for row in rows]
        self.assertEqual(truth, [row["record"].split("_")[0] for row in rows])
        accuracy, macro_f1, matrix = figures(truth, predicted)
        metrics = json.loads((self.folder / "out.metrics.json").read_text())
        self.assertAlmostEqual(metrics["accuracy"], accuracy)
        self.assertAlmostEqual(metrics["macro_f1"], macro_f1)
        self.assertEqual(metrics["confusion"], matrix)
        self.assertEqual([entry["label"] for entry in metrics["classes"]], LABELS)
        for section in ("classify_out_confusion", "classify_out_summary"):
            self.assertTrue(list(self.folder.glob(f"{section}_mqc.*")), section)

    def test_truth_gives_accuracy_f1_and_confusion(self):
        self.check_evaluation(self.classify("--truth", self.truth))
        given = self.classify(*reversed(self.files), "--truth", self.truth)
        self.check_evaluation(given)
        self.assertEqual(given[0]["truth"], LABELS[-1])

    def test_a_split_restricts_to_its_windows(self):
        rows = self.classify("--split", self.write_split())
        self.assertEqual([(row["record"], int(row["start"]), int(row["end"])) for row in rows],
                         [(f"{label}_1", start, start + 100) for label in LABELS for start in range(1000, 1151, 50)])
        self.check_evaluation(rows)
        every = {(row["record"], row["start"]): row["p_alpha"]
                 for row in self.classify(*self.files, "--window", 100, "--stride", 50)}
        for row in rows:
            self.assertAlmostEqual(float(row["p_alpha"]), float(every[row["record"], row["start"]]), places=6)
        self.assertEqual(len(self.classify("--split", self.write_split(), "--only", "train")), 21)

    def test_mates_keep_their_own_windows(self):
        """Records that share a name, of different lengths: a split made by finetune reads back what was held out."""
        folder = self.folder / "mates"
        folder.mkdir()
        lengths = (150, 70, 90, 260, 120, 60) * 4
        for seed, label in enumerate(LABELS):
            (folder / f"{label}.fa").write_text("".join(
                f">read{i // 2}\n{random_bases(length, 10 * seed + i)}\n" for i, length in enumerate(lengths)))
        truth = folder / "truth.tsv"
        truth.write_text("path\tlabel\n" + "".join(f"{label}.fa\t{label}\n" for label in LABELS))
        run("finetune", "--init", self.model, "--labels", truth, "-o", folder / "run", "--window", 50, "--steps", 1,
            "--batch", 2, "--holdout", "0.3", "-q")
        split = read_table(folder / "run" / "split.tsv")
        test = [row for row in split if row["split"] == "test"]
        self.assertTrue(test)
        indices = {int(row["record_index"]) for row in split if row["path"].endswith("alpha.fa")}
        self.assertEqual(indices, set(range(len(lengths))))
        for row in split:
            self.assertEqual(row["record"], f"read{int(row['record_index']) // 2}")
            self.assertLessEqual(int(row["end"]), lengths[int(row["record_index"])])
        rows = self.classify("--split", folder / "run" / "split.tsv", "--only", "train")
        expected = [(row["record"], row["start"], row["end"]) for row in split if row["split"] == "train"]
        self.assertEqual(sorted((row["record"], row["start"], row["end"]) for row in rows), sorted(expected))

    def test_the_baseline_agrees_with_numpy(self):
        k, classes = 2, range(len(LABELS))

        def profile(bases):
            counts = numpy.zeros(4**k)
            for i in range(len(bases) - k + 1):
                kmer = bases[i : i + k].upper()
                if set(kmer) <= set("ACGT"):
                    counts[sum("ACGT".index(b) * 4 ** (k - 1 - j) for j, b in enumerate(kmer))] += 1
            return counts

        def nearest(norm, recentre):
            def normed(x):
                return x / norm(x)

            centroids = []
            for label in LABELS:
                mean = sum(normed(profile(self.bases[label][s : s + 100])) for s in range(0, 901, 100)) / 10
                centroids.append(normed(mean) if recentre else mean)
            predicted = []
            for label in LABELS:
                for start in range(1000, 1151, 50):
                    window = normed(profile(self.bases[label][start : start + 100]))
                    predicted.append(min(classes, key=lambda c: numpy.linalg.norm(window - centroids[c])))
            truth = [c for c in classes for _ in range(4)]
            return sum(t == p for t, p in zip(truth, predicted)) / len(truth)

        report = json.loads(run("baseline", "--split", self.write_split(), "-k", k, "-q").stdout)
        self.assertAlmostEqual(report["euclidean"]["accuracy"], nearest(numpy.sum, recentre=False))
        self.assertAlmostEqual(report["cosine"]["accuracy"], nearest(numpy.linalg.norm, recentre=True))
        self.assertEqual(report["accuracy"], max(report["euclidean"]["accuracy"], report["cosine"]["accuracy"]))

    def test_the_baseline_reads_inputs_as_the_other_commands_do(self):
        files = {label: write_fasta(self.folder / f"{label}_iupac.fa", {"r": "ACGTACGTAR" * 10}) for label in ("a", "b")}
        split = self.folder / "iupac.tsv"
        split.write_text("path\trecord\trecord_index\tstart\tend\tlabel\tsplit\n" + "".join(
            f"{file}\tr\t0\t{start}\t{start + 50}\t{label}\t{part}\n"
            for label, file in files.items() for start, part in ((0, "train"), (50, "test"))))
        run("baseline", "--split", split, "-q")
        message = error_of("baseline", "--split", split, "--ambiguous", "error")
        for word in ("iupac.fa", "'R'"):
            self.assertIn(word, message)

    def test_failures_are_one_line_and_leave_no_table(self):
        output = self.folder / "wrong.tsv"
        plain = write_model(self.folder / "plain")
        unknown = self.folder / "unknown.tsv"
        unknown.write_text("path\tlabel\nalpha.fa\tomega\n")
        short = self.folder / "short.tsv"
        short.write_text("path\tlabel\nalpha.fa\talpha\n")
        moved = self.folder / "moved.tsv"
        moved.write_text(f"path\trecord\trecord_index\tstart\tend\tlabel\tsplit\n{self.files[0]}\talpha_1\t0\t1200\t1300\talpha\ttest\n")
        cases = [
            (["-m", plain, self.files[0]], 1, "finetune"),
            (["-m", self.model, "--truth", unknown], 1, "omega"),
            (["-m", self.model, self.files[1], "--truth", short], 1, "beta.fa"),
            (["-m", self.model, "--split", moved], 1, "ends at base 1250"),
            (["-m", self.model, "--split", moved, "--only", "valid"], 1, "no valid windows"),
            (["-m", self.model, "--split", moved, self.files[0]], 2, "--split"),
            (["-m", self.model], 2, "no input"),
        ]
        for arguments, status, word in cases:
            self.assertIn(word, error_of("classify", *arguments, "-o", output, status=status))
            self.assertFalse(output.exists())


if __name__ == "__main__":
    unittest.main()

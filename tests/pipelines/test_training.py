"""Training runs as a user has them: killed, stopped, out of disk, resumed. Whatever happened to a run, it must end as
if nothing had: the same metrics, number for number, and the same files, byte for byte."""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from program import GOLDEN, PROGRAM, error_of, random_bases, run, write_fasta

SEED = int(os.environ.get("LONGSTRAND_TEST_SEED", time.time()))


def with_options(command, **changed):
    """The command with other values for options it has, named with _ for -, or with further options."""
    command = list(command)
    for name, value in changed.items():
        option = "--" + name.replace("_", "-")
        if option in command:
            command[command.index(option) + 1] = value
        else:
            command += [option, value]
    return command


def metrics_of(folder):
    """Every line of a run's metrics, but for the measured speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("tokens_per_second") > 0
    return lines


def wait_for_step(process, folder, step, timeout=60):
    """Returns when the run has logged that step, or has ended."""
    log = folder / "metrics.jsonl"
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") >= step:
            return
        time.sleep(0.002)
    assert process.poll() is not None, f"step {step} did not come in {timeout} s"


class TrainingCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print("LONGSTRAND_TEST_SEED", SEED)
        cls.random = random.Random(SEED)
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.sequences = write_fasta(cls.folder / "a.fa", {f"a{i}": random_bases(9000, i) for i in range(3)})

    def assert_same_run(self, run_folder, expected):
        self.assertEqual(metrics_of(run_folder), metrics_of(expected))
        for name in ("model/model.safetensors", "best/model.safetensors", "trainer.h5", "config.ini"):
            self.assertEqual((run_folder / name).read_bytes(), (expected / name).read_bytes(), name)
        leftovers = [path.name for path in run_folder.rglob("*partial*")]
        self.assertEqual(leftovers, [])

    def run_until_done(self, command, folder, kills):
        """Runs the command with --resume, killed `kills` times at random moments, and once more to its end."""
        log = folder / "metrics.jsonl"
        for _ in range(kills):
            done = log.read_text().count("\n") if log.exists() else 0
            process = subprocess.Popen([PROGRAM, *map(str, command), "--resume", "-q"], stderr=subprocess.PIPE)
            wait_for_step(process, folder, done - self.random.randrange(4))
            time.sleep(self.random.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        run(*command, "--resume")


class Pretrain(TrainingCase):
    def command(self, folder, *more):
        return ["pretrain", self.sequences, "-o", folder, "--d-model", 16, "--layers", 2, "--d-state", 4, "--context", 128,
                "--batch-tokens", 512, "--steps", 40, "--save-every", 4, "--valid-every", 5, "--valid-fraction", "0.1",
                "--reverse-complement-augment", "-t", 2, "--precision", "fp32", *more]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = cls.folder / "whole"
        run(*cls.command(cls, cls.whole))

    def test_a_run_holds_what_it_promises(self):
        lines = metrics_of(self.whole)
        self.assertEqual([line["step"] for line in lines], list(range(1, 41)))
        for line in lines:
            self.assertLessEqual({"step", "loss", "grad_norm", "lr", "tokens"}, set(line))
            self.assertEqual("valid_loss" in line, line["step"] % 5 == 0)
            self.assertTrue(1.2 < line["loss"] < 2.8, line)  # from ln 16, all tokens, to ln 4, random bases
        self.assertEqual(lines[3]["lr"], 8e-3)
        self.assertAlmostEqual(lines[-1]["lr"], 8e-4)
        for name in ("pretrain_loss_mqc.json", "pretrain_run_mqc.json", "config.ini", "model/config.json"):
            self.assertTrue((self.whole / name).exists(), name)
        summary = json.loads(run("inspect", "--json", self.whole, self.whole / "model").stdout)
        self.assertEqual(summary[0]["steps"], 40)
        best = min(lines, key=lambda line: line.get("valid_loss", 9))
        self.assertEqual(summary[0]["best_valid_loss_step"], best["step"])
        self.assertEqual(summary[1]["d_model"], 16)

    def test_killed_at_random_moments_it_ends_the_same(self):
        folder = self.folder / "killed"
        self.run_until_done(self.command(folder), folder, kills=8)
        self.assert_same_run(folder, self.whole)

    def test_killed_between_the_two_files_of_a_save_it_ends_the_same(self):
        folder = self.folder / "torn"
        process = subprocess.Popen([PROGRAM, *map(str, self.command(folder))], stderr=subprocess.PIPE)
        wait_for_step(process, folder, 10)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        shutil.rmtree(folder / "model")
        shutil.copytree(self.whole / "model", folder / "model")  # newer than trainer.h5
        run(*self.command(folder), "--resume")
        self.assert_same_run(folder, self.whole)

    def test_interrupted_it_saves_and_goes_on(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            folder = self.folder / f"interrupted{number}"
            process = subprocess.Popen([PROGRAM, *map(str, self.command(folder))], stderr=subprocess.PIPE, text=True)
            wait_for_step(process, folder, 6)
            process.send_signal(number)
            message = process.communicate()[1].splitlines()[-1]
            self.assertEqual(process.returncode, 1)
            self.assertRegex(message, r"error: interrupted after step \d+ of 40, .*--resume")
            self.assertTrue((folder / "model/model.safetensors").exists())
            run(*self.command(folder), "--resume")
            self.assert_same_run(folder, self.whole)

    def test_interrupted_in_a_validation_it_saves_and_goes_on(self):
        held_out = write_fasta(self.folder / "long.fa", {"v": random_bases(2_000_000, 60)})
        options = dict(valid=held_out, valid_tokens=2_000_000, steps=2, valid_every=1)
        whole, stopped = self.folder / "long_whole", self.folder / "long_stopped"
        run(*with_options(self.command(whole), **options))
        for step in (1, 1, 2):  # the second time in the validation that the first one left
            process = subprocess.Popen([PROGRAM, *map(str, with_options(self.command(stopped), **options)), "--resume"],
                                       stderr=subprocess.PIPE, text=True)
            wait_for_step(process, stopped, step - 1)
            time.sleep(0.3)  # a step takes a hundredth of that, its validation much more
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
            message = process.communicate()[1].splitlines()[-1]
            self.assertLess(time.monotonic() - sent, 1)
            self.assertIn(f"interrupted after step {step} of 2", message)
            self.assertEqual(len(metrics_of(stopped)), step - 1)
        run(*with_options(self.command(stopped), **options), "--resume")
        self.assert_same_run(stopped, whole)

    def test_a_full_disk_is_said_and_survived(self):
        folder = self.folder / "full"
        limit = (self.whole / "trainer.h5").stat().st_size - 1
        line = error_of(*self.command(folder),
                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        self.assertIn("trainer.h5", line)
        self.assertIn("File too large", line)
        run(*self.command(folder), "--resume")
        self.assert_same_run(folder, self.whole)

    def test_a_folder_that_cannot_be_written(self):
        self.assertIn("a.fa/run", error_of(*self.command(self.sequences / "run")))
        if os.geteuid() != 0:  # root may write everywhere
            folder = self.folder / "readonly"
            folder.mkdir(mode=0o555)
            self.assertIn("Permission denied", error_of(*self.command(folder / "run")))

    def test_a_run_is_not_overwritten_unless_forced(self):
        folder = self.folder / "twice"
        shutil.copytree(self.whole, folder)
        self.assertIn("--force", error_of(*self.command(folder)))
        self.assert_same_run(folder, self.whole)
        run(*self.command(folder), "--force")
        self.assert_same_run(folder, self.whole)

    def test_resuming_with_other_options_or_inputs_is_refused(self):
        folder = self.folder / "changed"
        shutil.copytree(self.whole, folder)
        self.assertIn("--lr '0.008'", error_of(*self.command(folder, "--lr", 1, "--resume")))
        self.assertIn("window", error_of("pretrain", "--config", folder / "config.ini", "-o", folder, "--resume", "--context", 99))
        run(*with_options(self.command(folder, "--resume"), save_every=9, chunk=64))
        original = self.sequences.read_bytes()
        self.addCleanup(self.sequences.write_bytes, original)
        moved = self.folder / "b.fa"
        moved.write_bytes(original)
        self.assertIn("input files", error_of("pretrain", "--config", folder / "config.ini", moved, "-o", folder, "--resume"))

    def test_a_run_is_resumed_from_another_working_directory(self):
        folder = self.folder / "elsewhere"
        command = ["pretrain", self.sequences.name, *self.command("elsewhere")[2:]]
        run(*with_options(command, steps=8), cwd=self.folder)
        self.assertIn(f"input={self.sequences}", (folder / "config.ini").read_text())
        run(*with_options(self.command(folder), steps=8), "--resume", cwd="/")
        # Earlier versions kept names as they were given.
        for file in (folder / "config.ini", folder / "data/store.json"):
            file.write_text(file.read_text().replace(str(self.sequences), self.sequences.name))
        run(*with_options(command, steps=8), "--resume", cwd=self.folder)

    def test_two_processes_do_not_train_in_one_folder(self):
        folder = self.folder / "shared"
        process = subprocess.Popen([PROGRAM, *map(str, self.command(folder))], stderr=subprocess.PIPE)
        wait_for_step(process, folder, 1)
        self.assertIn("in use", error_of(*self.command(folder, "--resume")))
        process.communicate()
        self.assert_same_run(folder, self.whole)

    def test_the_written_config_makes_the_same_run(self):
        folder = self.folder / "again"
        run("pretrain", "--config", self.whole / "config.ini", "-o", folder)
        self.assert_same_run(folder, self.whole)

    def test_a_model_can_be_begun_with(self):
        folder = self.folder / "continued"
        run("pretrain", self.sequences, "-o", folder, "--init", self.whole / "model", "--context", 128, "--batch-tokens", 512,
            "--steps", 1, "--lr", "1e-9", "--precision", "fp32", "--valid-fraction", "0.1")
        before = [line["valid_loss"] for line in metrics_of(self.whole) if "valid_loss" in line][-1]
        self.assertAlmostEqual(metrics_of(folder)[-1]["valid_loss"], before, places=5)
        run("pretrain", "--config", folder / "config.ini", "-o", folder, "--resume")

    def test_whole_records_and_held_out_files(self):
        held_out = write_fasta(self.folder / "v.fa", {"v": random_bases(3000, 50)})
        folder = self.folder / "records"
        run("pretrain", self.sequences, "--valid", held_out, "-o", folder, "--d-model", 16, "--layers", 1, "--context", "record",
            "--batch-tokens", 9000, "--steps", 3, "--order", "sequential")
        self.assertEqual([line["tokens"] for line in metrics_of(folder)], [9000] * 3)
        self.assertIn("valid_loss", metrics_of(folder)[-1])


class PretrainOnMaskedBases(TrainingCase):
    def command(self, folder, *more):
        return ["pretrain", self.sequences, "-o", folder, "--objective", "mlm", "--bidirectional", "--d-model", 16, "--layers", 2,
                "--context", 256, "--batch-tokens", 1024, "--steps", 30, "--save-every", 4, "--valid-every", 5,
                "--valid-fraction", "0.1", "-t", 2, "--precision", "fp32", *more]

    def test_it_learns_and_ends_the_same_when_killed(self):
        kinds = {"none": "Caduceus-Ph", "augment": "Caduceus-Ph", "equivariant": "Caduceus-PS"}
        for rc, kind in kinds.items():
            whole, killed = self.folder / f"{rc}_whole", self.folder / f"{rc}_killed"
            run(*self.command(whole, "--rc", rc))
            lines = metrics_of(whole)
            losses = [line["loss"] for line in lines]
            self.assertLess(sum(losses[-5:]) / 5, 1.5)  # from ln 16, all tokens, to ln 4, random bases
            self.assertGreater(losses[0], 2)
            self.assertTrue(0.15 < lines[-1]["accuracy"] < 0.5 and 0.15 < lines[-1]["valid_accuracy"] < 0.5, lines[-1])
            summary = json.loads(run("inspect", "--json", whole / "best").stdout)[0]
            self.assertTrue(summary["architecture"].startswith(kind), summary)
            self.assertTrue((whole / "pretrain_loss_mqc.json").exists())
            self.run_until_done(self.command(killed, "--rc", rc), killed, kills=3)
            self.assert_same_run(killed, whole)
        losses = [[line["loss"] for line in metrics_of(self.folder / f"{rc}_whole")] for rc in kinds]
        self.assertEqual(len(set(map(tuple, losses))), len(kinds))

    def test_masks_are_other_ones_in_every_step_but_not_for_validation(self):
        held_out = write_fasta(self.folder / "v.fa", {"v": random_bases(3000, 50)})
        folder = self.folder / "still"
        run(*with_options(self.command(folder), valid=held_out, context="record", batch_tokens=27000, order="sequential",
                          lr="1e-9", steps=4, valid_every=1))
        lines = metrics_of(folder)
        self.assertEqual(len({line["loss"] for line in lines}), 4)
        validations = [line["valid_loss"] for line in lines]
        self.assertLess(max(validations) - min(validations), 1e-5)

    def test_chunks_do_not_change_the_loss(self):
        losses = []
        for chunk in (32, 4096):
            folder = self.folder / f"chunk{chunk}"
            run(*with_options(self.command(folder, "--rc", "equivariant"), steps=1, context=3000, batch_tokens=9000, chunk=chunk))
            losses.append(metrics_of(folder)[0]["loss"])
        self.assertAlmostEqual(losses[0], losses[1], places=5)

    def test_a_model_to_begin_with_decides_the_kind(self):
        init = GOLDEN / "caduceus_ps_d32_l4"
        folder = self.folder / "continued"
        command = ["pretrain", self.sequences, "-o", folder, "--init", init, "--context", 128, "--batch-tokens", 512, "--steps", 1]
        self.assertIn("needs --objective mlm", error_of(*command, status=2))
        self.assertIn("both strands", error_of(*command, "--objective", "mlm", "--rc", "augment", status=2))
        self.assertFalse(folder.exists())
        run(*command, "--objective", "mlm")
        began, trained = (json.loads(run("inspect", "--json", model).stdout)[0] for model in (init, folder / "model"))
        self.assertEqual([began[key] for key in ("architecture", "d_model", "layers", "parameters")],
                         [trained[key] for key in ("architecture", "d_model", "layers", "parameters")])
        self.assertNotEqual(began["fingerprint"], trained["fingerprint"])


class Finetune(TrainingCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = cls.folder / "init"
        run("pretrain", cls.sequences, "-o", cls.model, "--d-model", 16, "--layers", 1, "--context", 128, "--batch-tokens", 512,
            "--steps", 1)
        weights = {"at": [8, 1, 1, 8], "gc": [1, 8, 8, 1]}  # classes that a small model tells apart at once
        for label, odds in weights.items():
            bases = "".join(random.Random(label).choices("ACGT", odds, k=20000))
            write_fasta(cls.folder / f"{label}.fa", {label: bases})
        cls.manifest = cls.folder / "classes.tsv"
        cls.manifest.write_text("path\tlabel\ngc.fa\trich\nat.fa\tpoor\n")

    def command(self, folder, *more):
        return ["finetune", "--init", self.model / "model", "--labels", self.manifest, "-o", folder, "--window", 200,
                "--steps", 30, "--batch", 4, "--lr", "0.01", "--save-every", 4, "--valid-every", 5, "-t", 2,
                "--precision", "fp32", *more]

    def test_it_learns_and_ends_the_same_when_killed(self):
        whole = self.folder / "whole"
        run(*self.command(whole))
        self.assertEqual(metrics_of(whole)[-1]["valid_accuracy"], 1)
        labels = json.loads(run("inspect", "--json", whole / "best").stdout)[0]["labels"]
        self.assertEqual(labels, ["poor", "rich"])
        folder = self.folder / "killed"
        self.run_until_done(self.command(folder), folder, kills=4)
        self.assert_same_run(folder, whole)
        self.assertEqual((folder / "split.tsv").read_bytes(), (whole / "split.tsv").read_bytes())
        self.assertTrue((whole / "finetune_accuracy_mqc.json").exists())

        rows = [line.split("\t") for line in (whole / "split.tsv").read_text().splitlines()[1:]]
        for record, end_of_train, end_of_valid in (("at", 14400, 16000), ("gc", 14400, 16000)):
            for _, name, _, start, end, _, split in rows:
                if name == record:
                    low, high = {"train": (0, end_of_train), "valid": (end_of_train, end_of_valid), "test": (end_of_valid, 20000)}[split]
                    self.assertTrue(low <= int(start) < int(end) <= high, (start, end, split))

    def test_a_frozen_backbone_stays_as_it_was(self):
        folder = self.folder / "frozen"
        run(*with_options(self.command(folder, "--freeze-backbone"), pool="last", steps=3))
        name = "model/model.safetensors"
        self.assertEqual((folder / name).read_bytes(), (self.model / name).read_bytes())

    def test_splits_of_the_manifest_are_kept(self):
        for label in ("at", "gc"):
            for part in ("valid", "test"):
                shutil.copy(self.folder / f"{label}.fa", self.folder / f"{label}_{part}.fa")
        manifest = self.folder / "split_classes.tsv"
        manifest.write_text("path\tlabel\tsplit\n" + "".join(
            f"{file}{suffix}.fa\t{file}\t{split}\n" for file in ("at", "gc")
            for suffix, split in (("", "train"), ("_valid", "valid"), ("_test", "test"))))
        folder = self.folder / "by_manifest"
        run(*with_options(self.command(folder), labels=manifest, steps=1))
        for line in (folder / "split.tsv").read_text().splitlines()[1:]:
            fields = line.split("\t")
            suffix = pathlib.Path(fields[0]).stem[2:]
            self.assertEqual(fields[6], {"": "train", "_valid": "valid", "_test": "test"}[suffix])

    def test_a_wrong_model_leaves_nothing_behind(self):
        folder = self.folder / "wrong"
        self.assertIn("no_model", error_of(*with_options(self.command(folder), init=self.folder / "no_model")))
        self.assertFalse(folder.exists())

    def test_bad_manifests(self):
        cases = [("path\tlabel\ngc.fa\trich\n", "one label only"), ("path\tlabel\nno.fa\ta\nat.fa\tb\n", "no.fa"),
                 ("file\tclass\n", "path and label"), ("path\tlabel\ngc.fa\n", "line 2")]
        for content, message in cases:
            bad = self.folder / "bad.tsv"
            bad.write_text(content)
            line = error_of("finetune", "--init", self.model / "model", "--labels", bad, "-o", self.folder / "bad", "--window", 200)
            self.assertIn(message, line)


if __name__ == "__main__":
    unittest.main()

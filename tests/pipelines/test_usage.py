"""How the program answers on the command line: help, exit codes, one line an error, what is not in this version."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from program import DATA, PROGRAM, error_of, run

COMMANDS = ["pretrain", "finetune", "classify", "embed", "score", "inspect", "convert"]


class Usage(unittest.TestCase):
    def test_help_is_on_standard_output(self):
        listed = run("--help")
        self.assertEqual(listed.stderr, "")
        for command in COMMANDS:
            self.assertIn(f"  {command} ", listed.stdout)
            text = run(command, "--help")
            self.assertEqual(text.stderr, "")
            self.assertTrue(text.stdout.startswith(f"longstrand {command} "), text.stdout)
            self.assertIn("\nCommon options:\n", text.stdout)
            self.assertIn(f"longstrand {command} ", text.stdout.split("Example")[1])

    def test_version(self):
        self.assertRegex(run("--version").stdout, r"^longstrand \d+\.\d+\.\d+\n$")

    def test_wrong_usage_exits_with_2_and_a_hint(self):
        cases = [
            (("inspct",), "did you mean 'inspect'?"),
            (("frobnicate",), "there is no command 'frobnicate'"),
            (("variants",), "'variants' is not in this version"),
            (("inspect",), "no PATH is given"),
            (("pretrain", "x.fa"), "--output is required"),
            (("pretrain", "-o", "run"), "no INPUT is given"),
            (("pretrain", "x.fa", "-o", "run", "--objective", "mlm"), "needs a bidirectional model"),
            (("pretrain", "x.fa", "-o", "run", "--bidirectional"), "needs --objective mlm"),
            (("pretrain", "x.fa", "-o", "run", "--rc", "equivariant"), "needs --bidirectional"),
            (("pretrain", "x.fa", "-o", "run", "--rc", "twice"), "--rc 'twice'"),
            (("pretrain", "x.fa", "-o", "run", "--rcps"), "--rc equivariant"),
            (("pretrain", "x.fa", "-o", "run", "--objective", "mlm", "--bidirectional", "--rc", "equivariant",
              "--reverse-complement-augment"), "reads both strands anyway"),
            (("pretrain", "x.fa", "-o", "run", "--mask-fraction", "1.5"), "--mask-fraction 1.5"),
            (("pretrain", "x.fa", "-o", "run", "--context", "many"), "--context 'many'"),
            (("pretrain", "x.fa", "-o", "run", "--betas", "0.9"), "--betas '0.9'"),
            (("pretrain", "x.fa", "-o", "run", "--resume", "--force"), "exclude each other"),
            (("pretrain", "x.fa", "-o", "run", "--init", "m", "--layers", "3"), "--layers: the model of --init"),
            (("pretrain", "x.fa", "-o", "run", "--init", "m", "--bidirectional"), "--bidirectional: the model of --init"),
            (("pretrain", "x.fa", "-o", "run", "--lay", "3"), "unrecognised option '--lay'"),
            (("pretrain", "x.fa", "-o", "run", "--min-lr", "-0.1"), "--min-lr -0.1: must be at least 0"),
            (("pretrain", "x.fa", "-o", "run", "--warmup-steps", "-1"), "--warmup-steps -1: must be at least 0"),
            (("pretrain", "x.fa", "-o", "run", "--steps", "0"), "--steps 0: must be at least 1"),
            (("pretrain", "x.fa", "-o", "run", "--epochs", "0"), "--epochs 0: there is nothing to train"),
            (("pretrain", "x#1.fa", "-o", "run"), "cannot hold '#'"),
            (("score", "-m", "m", "-", "x.fa", "-"), "standard input can be read once"),
            (("convert", "m", "--to", "caduceus", "-o", "-"), "a model is a folder"),
            (("inspect", "x.fa", "--threads", "two"), "--threads"),
            (("inspect", "x.fa", "--threads", "-1"), "must be at least 0"),
            (("inspect", "x.fa", "--precision", "fp8"), "fp32"),
        ]
        for arguments, message in cases:
            with self.subTest(arguments), tempfile.TemporaryDirectory() as folder:
                line = error_of(*arguments, status=2, cwd=folder)
                self.assertIn(message, line)
                self.assertRegex(line, r"^longstrand( \w+)?: error: .*; see longstrand( \w+)? --help$")
                self.assertEqual(os.listdir(folder), [])

    def test_no_command_shows_the_help_as_an_error(self):
        done = run(check=False)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("Commands:", done.stderr)

    def test_failures_exit_with_1(self):
        self.assertIn("/no/such.fa", error_of("inspect", "/no/such.fa"))
        self.assertIn("/no/such.ini", error_of("inspect", "x.fa", "--config", "/no/such.ini"))

    def test_a_config_file_gives_options_and_the_command_line_goes_before_it(self):
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "c.ini"
            config.write_text(f"# which file\npath = {DATA}/fixtures/chr22.fa\njson = true\n")
            self.assertIn('"records": 1', run("inspect", "--config", config).stdout)
            fastq = DATA / "fixtures/chr22.fq.gz"
            self.assertIn('"records": 3333', run("inspect", "--config", config, fastq).stdout)
            config.write_text("colour = red\n")
            self.assertIn("colour", error_of("inspect", "x", "--config", config, status=2))

    def test_a_closed_or_full_standard_output_is_an_error(self):
        for arguments in (["--help"], ["inspect", DATA / "fixtures/chr22.fa"]):
            with open("/dev/full", "w") as full:
                done = subprocess.run([PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)


    def test_a_standard_error_that_cannot_be_written_leaves_the_exit_code(self):
        for arguments, status in (["inspect", "/no/such.fa"], 1), (["inspect", "--colour"], 2), ([], 2):
            with open("/dev/full", "w") as full:
                done = subprocess.run([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=full, timeout=60)
            self.assertEqual(done.returncode, status)
            done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", PROGRAM, *arguments], timeout=60)
            self.assertEqual(done.returncode, status)

    def test_a_closed_standard_stream_is_no_file(self):
        """Else the next file opened would be one: the input its own output, the output full of log lines."""
        done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", PROGRAM, "inspect", "-"], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1), done.stderr)
        done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", PROGRAM, "--version"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("standard output", done.stderr)


class Inspect(unittest.TestCase):
    def test_sequence_files(self):
        rows = run("inspect", DATA / "fixtures/chr22.fa", DATA / "fixtures/chr22.fq.gz").stdout.splitlines()
        self.assertEqual(rows[0].split("\t"), "path kind records bases a c g t n other soft_masked longest".split())
        self.assertEqual(len(rows), 3)
        self.assertEqual(rows[1].split("\t")[1:4], ["FASTA", "1", "12356"])

    def test_a_name_that_is_not_utf8(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(os.fsencode(folder), b"caf\xe9.fa")
            with open(path, "w") as file:
                file.write(">a\nACGT\n")
            done = subprocess.run([PROGRAM, "inspect", "--json", path], capture_output=True, timeout=60)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertEqual(json.loads(done.stdout)[0]["records"], 1)

    def test_what_is_not_ours(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("neither a model", error_of("inspect", folder))
            path = pathlib.Path(folder) / "x.h5ad"
            path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
            self.assertIn("x.h5ad", error_of("inspect", path))


if __name__ == "__main__":
    unittest.main()

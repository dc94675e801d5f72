"""longstrand bench: every mode runs and prints what it measured."""

import json
import unittest

from program import error_of, run


class BenchTest(unittest.TestCase):
    def test_prints_one_json_object_a_case(self):
        done = run("bench", "--mode", "embed", "--mode", "train", "--mode", "io", "--length", 200, "--length", 500,
                   "--d-model", 16, "--layers", 2, "--runs", 3, "-t", 2, "-q")
        cases = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([(case["mode"], case["length"]) for case in cases],
                         [(mode, length) for mode in ("embed", "train", "io") for length in (200, 500)])
        for case in cases:
            speed = case["tokens_per_second"]
            self.assertTrue(0 < speed["min"] <= speed["median"] <= speed["max"], case)
            self.assertGreater(case["process_peak_bytes"], 1 << 20)
            if case["mode"] != "io":
                self.assertEqual((case["d_model"], case["layers"], case["threads"]), (16, 2, 2))
                self.assertGreater(case["model_peak_bytes"], 0)

    def test_models_of_every_kind(self):
        for options, kind in (((), "Mamba, causal"), (("--bidirectional",), "Caduceus-Ph"),
                              (("--bidirectional", "--rc", "equivariant"), "Caduceus-PS")):
            done = run("bench", *options, "--length", 200, "--d-model", 16, "--layers", 2, "--runs", 1, "-q")
            cases = [json.loads(line) for line in done.stdout.splitlines()]
            self.assertEqual([case["mode"] for case in cases], ["embed", "train"])
            for case in cases:
                self.assertTrue(case["architecture"].startswith(kind), case)

    def test_wrong_usage(self):
        self.assertIn("--bidirectional", error_of("bench", "--rc", "equivariant", status=2))
        self.assertIn("--mode", error_of("bench", "--mode", "fly", status=2))
        self.assertIn("--length", error_of("bench", "--length", 0, status=2))


if __name__ == "__main__":
    unittest.main()

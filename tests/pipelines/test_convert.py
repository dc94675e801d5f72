"""longstrand convert, end to end: the weights survive, and the names are those of each layout."""

import json
import pathlib
import tempfile
import unittest

from program import GOLDEN, error_of, read_safetensors, run, write_model


class ConvertTest(unittest.TestCase):
    def setUp(self):
        self.folder_ = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.folder_.name)

    def tearDown(self):
        self.folder_.cleanup()

    def test_there_and_back_every_tensor_is_the_same_byte_for_byte(self):
        model = write_model(self.folder / "model", classifier=True, window=100)
        run("convert", model, "--to", "hugging-face", "-o", self.folder / "hf")
        run("convert", self.folder / "hf", "--to", "state-spaces", "-o", self.folder / "back")
        for file in ("model.safetensors", "head.safetensors"):
            original, back = read_safetensors(model / file), read_safetensors(self.folder / "back" / file)
            for name, tensor in original.items():
                self.assertEqual(back[name], tensor, name)
        # The Hugging Face layout knows the padded vocabulary alone, so only behind it are the models equal in all.
        fingerprints = {json.loads(run("inspect", "--json", self.folder / name).stdout)[0]["fingerprint"]
                        for name in ("hf", "back")}
        self.assertEqual(len(fingerprints), 1)
        spec = json.loads((self.folder / "back" / "longstrand.json").read_text())["classifier"]
        self.assertEqual((spec["labels"], spec["window_bases"]), (["alpha", "beta", "gamma"], 100))

    def test_names_and_config_are_those_of_the_layout(self):
        model = write_model(self.folder / "model")
        run("convert", model, "--to", "hugging-face", "-o", self.folder / "hf")
        tensors = read_safetensors(self.folder / "hf" / "model.safetensors")
        self.assertIn("backbone.embeddings.weight", tensors)
        self.assertNotIn("backbone.embedding.weight", tensors)
        config = json.loads((self.folder / "hf" / "config.json").read_text())
        self.assertEqual(config["model_type"], "mamba")
        for key, value in {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 16, "conv_kernel": 4}.items():
            self.assertEqual(config[key], value, key)

    def test_says_what_a_layout_cannot_hold(self):
        model = write_model(self.folder / "model")
        run("convert", model, "--to", "hugging-face", "-o", self.folder / "other")
        config = self.folder / "other" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_epsilon": 0.01}))
        for layout, warned in ("state-spaces", True), ("hugging-face", False):
            done = run("convert", self.folder / "other", "--to", layout, "-o", self.folder / f"other-{layout}")
            self.assertEqual("epsilon" in done.stderr, warned, done.stderr)

    def test_both_layouts_give_the_same_results(self):
        model = write_model(self.folder / "model")
        run("convert", model, "--to", "hugging-face", "-o", self.folder / "hf")
        fasta = self.folder / "a.fa"
        fasta.write_text(">a\nACGTTGCANNACG\n")
        scores = {run("score", "-m", folder, fasta, "-q").stdout for folder in (model, self.folder / "hf")}
        self.assertEqual(len(scores), 1)

    def test_a_bidirectional_model_stays_in_the_layout_of_caduceus(self):
        model = GOLDEN / "caduceus_ps_d32_l4"
        run("convert", model, "--to", "caduceus", "-o", self.folder / "ps")
        written = read_safetensors(self.folder / "ps" / "model.safetensors")
        for name, tensor in read_safetensors(model / "model.safetensors").items():
            self.assertEqual(written[name], tensor, name)
        for kind, layout in (("caduceus_ps_d32_l4", "state-spaces"), ("caduceus_ph_d32_l4", "hugging-face")):
            error = error_of("convert", GOLDEN / kind, "--to", layout, "-o", self.folder / "x")
            self.assertIn("only the caduceus layout", error)
        causal = write_model(self.folder / "model")
        self.assertIn("bidirectional", error_of("convert", causal, "--to", "caduceus", "-o", self.folder / "x"))
        self.assertFalse((self.folder / "x").exists())

    def test_inspect_names_the_kind_of_model(self):
        causal = write_model(self.folder / "model")
        folders = [causal, GOLDEN / "caduceus_ph_d32_l4", GOLDEN / "caduceus_ps_d32_l4"]
        models = json.loads(run("inspect", "--json", *folders).stdout)
        self.assertEqual([model["architecture"] for model in models],
                         ["Mamba, causal", "Caduceus-Ph, bidirectional",
                          "Caduceus-PS, bidirectional, reverse-complement equivariant"])

    def test_refuses_what_it_should(self):
        model = write_model(self.folder / "model")
        self.assertIn("--force", error_of("convert", model, "--to", "hugging-face", "-o", model))
        run("convert", model, "--to", "state-spaces", "-o", model, "--force")
        self.assertIn("--to", error_of("convert", model, "--to", "onnx", "-o", self.folder / "x", status=2))
        (self.folder / "empty").mkdir()
        output = self.folder / "x"
        self.assertIn("config.json", error_of("convert", self.folder / "empty", "--to", "state-spaces", "-o", output))
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        self.assertIn("model.safetensors", error_of("convert", model, "--to", "state-spaces", "-o", output))
        self.assertFalse(output.exists())


if __name__ == "__main__":
    unittest.main()
